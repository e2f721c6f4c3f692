//! Hashes of resources by content, and versions of whole types made from them.
//!
//! The shim sends the versions beside a snapshot or delta, so that both sides can tell whether they
//! hold the same state. A type's version is the sum of its resources' hashes: the order does not
//! matter, and a change costs as much as the resources it touches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::delta::{Delta, Edits};
use crate::encode::Encode;
use crate::{Resource, Resources, Snapshot};

/// 128 bits of SHA-256 over the encoded message of a resource, which holds its key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(u128);

impl ContentHash {
    /// The hash of a resource. Equal resources have equal hashes, on every machine.
    pub fn of<T: Encode>(resource: &T) -> Self {
        let bytes = resource.encode().encode_to_vec();
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        let (half, _) = digest.split_at(16);
        Self(
            half.iter()
                .fold(0, |sum, byte| sum << 8 | u128::from(*byte)),
        )
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The type URLs of the contract and, last, our own, in the order of [`TypeVersions`].
pub const TYPE_URLS: [&str; 7] = [
    "type.googleapis.com/gateway.control.v1.Listener",
    "type.googleapis.com/gateway.control.v1.HttpRoute",
    "type.googleapis.com/gateway.control.v1.GrpcRoute",
    "type.googleapis.com/gateway.control.v1.StreamRoute",
    "type.googleapis.com/gateway.control.v1.BackendCluster",
    "type.googleapis.com/gateway.control.v1.SecretMaterial",
    "type.googleapis.com/gateway.control.v1.WasmPluginConfig",
];

/// How many of [`TYPE_URLS`] every control plane of the contract knows.
const CONTRACT_TYPES: usize = 6;

/// A version for each type of resource, made from content alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TypeVersions {
    sums: [u128; 7],
}

impl TypeVersions {
    /// Versions of a whole snapshot; walks all of it.
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            sums: [
                sum(&snapshot.listeners),
                sum(&snapshot.http_routes),
                sum(&snapshot.grpc_routes),
                sum(&snapshot.stream_routes),
                sum(&snapshot.clusters),
                sum(&snapshot.secrets),
                sum(&snapshot.wasm_plugins),
            ],
        }
    }

    /// Versions after `delta` is applied to `old`, whose versions these are.
    pub fn after(self, old: &Snapshot, delta: &Delta) -> Self {
        let [
            listeners,
            http_routes,
            grpc_routes,
            stream_routes,
            clusters,
            secrets,
            plugins,
        ] = self.sums;
        Self {
            sums: [
                edited(listeners, &old.listeners, &delta.listeners),
                edited(http_routes, &old.http_routes, &delta.http_routes),
                edited(grpc_routes, &old.grpc_routes, &delta.grpc_routes),
                edited(stream_routes, &old.stream_routes, &delta.stream_routes),
                edited(clusters, &old.clusters, &delta.clusters),
                edited(secrets, &old.secrets, &delta.secrets),
                edited(plugins, &old.wasm_plugins, &delta.wasm_plugins),
            ],
        }
    }

    /// Versions by type URL, as the wire carries them; our own type only where there is one of it.
    pub fn to_map(self) -> BTreeMap<String, String> {
        let versions = TYPE_URLS.iter().zip(self.sums).enumerate();
        let known = versions.filter(|(place, (_, sum))| *place < CONTRACT_TYPES || *sum != 0);
        known
            .map(|(_, version)| version)
            .map(|(url, sum)| ((*url).to_owned(), ContentHash(sum).to_string()))
            .collect()
    }
}

/// Versions of a whole snapshot by type URL.
pub fn type_versions(snapshot: &Snapshot) -> BTreeMap<String, String> {
    TypeVersions::of(snapshot).to_map()
}

fn sum<T: Encode + Resource>(resources: &Resources<T>) -> u128 {
    let hashes = resources.iter().map(|resource| hash(resource));
    hashes.fold(0, u128::wrapping_add)
}

fn edited<T: Encode + Resource>(mut sum: u128, old: &Resources<T>, edits: &Edits<T>) -> u128 {
    let upserted = edits.upserted.iter().map(|resource| resource.key());
    for key in upserted.chain(&edits.removed) {
        if let Some(previous) = old.get(key) {
            sum = sum.wrapping_sub(hash(previous));
        }
    }
    let added = edits.upserted.iter().map(hash);
    added.fold(sum, u128::wrapping_add)
}

fn hash<T: Encode>(resource: &Arc<T>) -> u128 {
    ContentHash::of(&**resource).0
}
