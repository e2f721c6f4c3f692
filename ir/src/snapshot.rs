//! One whole configuration: resources by type, and the version that names it.
//!
//! Resources are held in persistent maps, so copying a snapshot and changing one of 40,000 routes
//! costs a few nodes of a tree, not 40,000 clones. That is what makes [`crate::delta`] independent
//! of the size of the configuration.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Cluster, GrpcRoute, HttpRoute, Listener, Resources, Secret, StreamRoute, WasmPlugin};

/// The name of one state of the configuration, chosen by the control plane; never empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(Arc<str>);

impl Version {
    /// Wraps a version text as it came from the wire.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One configuration as a whole. Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Its name; the same text as `DiscoveryResponse.version`.
    pub version: Version,
    /// When the control plane built it, by its clock.
    pub generated_at: Option<SystemTime>,
    /// Port bindings, by name.
    pub listeners: Resources<Listener>,
    /// HTTP routes, by `namespace/name`.
    pub http_routes: Resources<HttpRoute>,
    /// gRPC routes, by `namespace/name`.
    pub grpc_routes: Resources<GrpcRoute>,
    /// TCP, UDP and TLS routes, by `kind/namespace/name`, the kind in lower case.
    pub stream_routes: Resources<StreamRoute>,
    /// Groups of endpoints, by `namespace/service:port`.
    pub clusters: Resources<Cluster>,
    /// Key material, by `namespace/name`.
    pub secrets: Resources<Secret>,
    /// Plugins that listeners, rules and clusters name, by `namespace/name`.
    pub wasm_plugins: Resources<WasmPlugin>,
    /// Pods known to the control plane, for mesh consumer routes.
    pub workloads: Arc<[Workload]>,
    /// Features the data plane must know, see `contract/wire.md` section 6; checked by `decode`.
    pub required_features: Vec<String>,
    /// The projection the control plane chose for this client.
    pub compatibility_profile: String,
    /// W3C trace context of the build, when it was traced.
    pub traceparent: Option<String>,
}

/// A pod and its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Address of the pod.
    pub ip: IpAddr,
}
