//! How much room a snapshot takes as one message, kept up by what changes.
//!
//! A sender asks before it publishes, because a receiver refuses what is larger than it is set to
//! take and could not even say so. Only resources are weighed, each with the names it adds to
//! listeners; what a message holds besides is small and bounded.

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::encoded_len_varint;

use super::Encode;
use crate::{
    Change, Cluster, GrpcRoute, HttpRoute, Listener, Resource, Resources, Secret, Snapshot,
    StreamRoute, WasmPlugin,
};

/// By how many bytes the whole snapshot `new` is larger than `old`, at most.
///
/// Costs what the change costs. A route that names one listener twice is weighed as if it named two.
pub fn growth(old: &Snapshot, new: &Snapshot) -> i64 {
    between(&old.listeners, &new.listeners)
        + between(&old.http_routes, &new.http_routes)
        + between(&old.grpc_routes, &new.grpc_routes)
        + between(&old.stream_routes, &new.stream_routes)
        + between(&old.clusters, &new.clusters)
        + between(&old.secrets, &new.secrets)
        + between(&old.wasm_plugins, &new.wasm_plugins)
}

/// A resource and what it makes others say.
trait Weigh: Encode + Resource {
    /// Listeners that list it, and the name they list.
    fn listed(&self) -> (&[Arc<str>], &str) {
        (&[], "")
    }
}

impl Weigh for Listener {}
impl Weigh for Cluster {}
impl Weigh for Secret {}
impl Weigh for WasmPlugin {}

impl Weigh for HttpRoute {
    fn listed(&self) -> (&[Arc<str>], &str) {
        (&self.listeners, &self.key)
    }
}

impl Weigh for GrpcRoute {
    fn listed(&self) -> (&[Arc<str>], &str) {
        (&self.listeners, &self.key)
    }
}

impl Weigh for StreamRoute {
    fn listed(&self) -> (&[Arc<str>], &str) {
        (&self.listeners, self.object_key())
    }
}

fn between<T: Weigh>(old: &Resources<T>, new: &Resources<T>) -> i64 {
    let changes = old.changes(new).map(|change| match change {
        Change::Upsert(next) => weight(&**next) - old.get(next.key()).map_or(0, |it| weight(&**it)),
        Change::Remove(gone) => -weight(&**gone),
    });
    changes.sum()
}

fn weight(resource: &impl Weigh) -> i64 {
    let (listeners, name) = resource.listed();
    let bytes = field(resource.encode().encoded_len()) + listeners.len() * field(name.len());
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// A field of that many bytes: tag, length, content. Lengths of messages around it may grow by a
/// few bytes, for which one more is counted.
fn field(length: usize) -> usize {
    2 + encoded_len_varint(length as u64) + length
}
