//! From one snapshot to the next: what differs, and how it is applied.
//!
//! The law is `apply(a, diff(a, b)) == b`. Both cost what the change costs, not what the snapshot
//! holds, because resources live in persistent maps. `apply` is one transaction: on any violation
//! the snapshot that was there stays as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::consistency::MissingPlugins;
use crate::snapshot::Workload;
use crate::{
    Change, Cluster, GrpcRoute, HttpRoute, Listener, Resource, Resources, Secret, Snapshot,
    StreamRoute, Version, Violation, Violations, WasmPlugin, consistency,
};

/// The way from one version of the configuration to another.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The version it applies to.
    pub base: Version,
    /// The version it leads to.
    pub version: Version,
    /// When the control plane built the resulting snapshot.
    pub generated_at: Option<SystemTime>,
    /// Versions of the resulting state by type URL, when the sender tells; see
    /// [`crate::TypeVersions`].
    pub type_versions: BTreeMap<String, String>,
    /// Changes to listeners.
    pub listeners: Edits<Listener>,
    /// Changes to HTTP routes.
    pub http_routes: Edits<HttpRoute>,
    /// Changes to gRPC routes.
    pub grpc_routes: Edits<GrpcRoute>,
    /// Changes to TCP, UDP and TLS routes.
    pub stream_routes: Edits<StreamRoute>,
    /// Changes to clusters.
    pub clusters: Edits<Cluster>,
    /// Changes to secrets.
    pub secrets: Edits<Secret>,
    /// Changes to plugins.
    pub wasm_plugins: Edits<WasmPlugin>,
    /// Pods of the resulting state; absent when they did not change.
    pub workloads: Option<Arc<[Workload]>>,
    /// Features of the resulting state.
    pub required_features: Vec<String>,
    /// Projection of the resulting state.
    pub compatibility_profile: String,
    /// Trace context of the resulting state.
    pub traceparent: Option<String>,
}

impl Delta {
    /// How many resources are added, changed or removed.
    pub fn len(&self) -> usize {
        self.listeners.len()
            + self.http_routes.len()
            + self.grpc_routes.len()
            + self.stream_routes.len()
            + self.clusters.len()
            + self.secrets.len()
            + self.wasm_plugins.len()
    }

    /// True when no resource changes; version and pods still may.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Changes to the resources of one type; no key stands in both lists or twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Edits<T> {
    /// New, or other than before.
    pub upserted: Vec<Arc<T>>,
    /// Keys that are gone.
    pub removed: Vec<Arc<str>>,
}

impl<T> Default for Edits<T> {
    fn default() -> Self {
        Self {
            upserted: Vec::new(),
            removed: Vec::new(),
        }
    }
}

impl<T> Edits<T> {
    /// How many resources are added, changed or removed.
    pub fn len(&self) -> usize {
        self.upserted.len() + self.removed.len()
    }

    /// True when nothing changes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What leads from `old` to `new`. Type versions are left for the caller to fill in.
pub fn diff(old: &Snapshot, new: &Snapshot) -> Delta {
    let same_workloads =
        Arc::ptr_eq(&old.workloads, &new.workloads) || old.workloads == new.workloads;
    Delta {
        base: old.version.clone(),
        version: new.version.clone(),
        generated_at: new.generated_at,
        type_versions: BTreeMap::new(),
        listeners: edits(&old.listeners, &new.listeners),
        http_routes: edits(&old.http_routes, &new.http_routes),
        grpc_routes: edits(&old.grpc_routes, &new.grpc_routes),
        stream_routes: edits(&old.stream_routes, &new.stream_routes),
        clusters: edits(&old.clusters, &new.clusters),
        secrets: edits(&old.secrets, &new.secrets),
        wasm_plugins: edits(&old.wasm_plugins, &new.wasm_plugins),
        workloads: (!same_workloads).then(|| new.workloads.clone()),
        required_features: new.required_features.clone(),
        compatibility_profile: new.compatibility_profile.clone(),
        traceparent: new.traceparent.clone(),
    }
}

/// The snapshot that `delta` makes of `snapshot`, or what is wrong with it.
///
/// Rules between objects are checked again where they are touched. Removing what
/// is not there is no fault: an object of an unknown kind was left out when it came.
pub fn apply(snapshot: &Snapshot, delta: &Delta) -> Result<Snapshot, Violations> {
    if delta.base != snapshot.version {
        return Err(Violations::from(Violation {
            object: format!("Delta {}", delta.version),
            path: "base_version".to_owned(),
            message: format!(
                "applies to version {}, but {} is held: ask for the whole snapshot",
                delta.base, snapshot.version
            ),
        }));
    }
    let next = Snapshot {
        version: delta.version.clone(),
        generated_at: delta.generated_at,
        listeners: edited(&snapshot.listeners, &delta.listeners),
        http_routes: edited(&snapshot.http_routes, &delta.http_routes),
        grpc_routes: edited(&snapshot.grpc_routes, &delta.grpc_routes),
        stream_routes: edited(&snapshot.stream_routes, &delta.stream_routes),
        clusters: edited(&snapshot.clusters, &delta.clusters),
        secrets: edited(&snapshot.secrets, &delta.secrets),
        wasm_plugins: edited(&snapshot.wasm_plugins, &delta.wasm_plugins),
        workloads: delta
            .workloads
            .as_ref()
            .unwrap_or(&snapshot.workloads)
            .clone(),
        required_features: delta.required_features.clone(),
        compatibility_profile: delta.compatibility_profile.clone(),
        traceparent: delta.traceparent.clone(),
    };
    if !delta.listeners.is_empty() || !delta.secrets.is_empty() {
        let violations = consistency::check(&next.listeners, &next.secrets);
        if !violations.is_empty() {
            return Err(violations);
        }
    }
    let violations = match delta.wasm_plugins.removed.is_empty() {
        true => missing_plugins(delta, &next.wasm_plugins),
        false => consistency::check_plugins(&next),
    };
    if !violations.is_empty() {
        return Err(violations);
    }
    Ok(next)
}

/// Plugins that are named by what the delta adds or changes and are not there, where it takes none
/// away.
fn missing_plugins(delta: &Delta, plugins: &Resources<WasmPlugin>) -> Violations {
    let mut missing = MissingPlugins::among(plugins);
    for listener in &delta.listeners.upserted {
        missing.of_listener(listener);
    }
    for route in &delta.http_routes.upserted {
        missing.of_http_route(route);
    }
    for route in &delta.grpc_routes.upserted {
        missing.of_grpc_route(route);
    }
    for cluster in &delta.clusters.upserted {
        missing.of_cluster(cluster);
    }
    missing.violations
}

fn edits<T: Resource>(old: &Resources<T>, new: &Resources<T>) -> Edits<T> {
    let mut edits = Edits::default();
    for change in old.changes(new) {
        match change {
            Change::Upsert(resource) => edits.upserted.push(resource.clone()),
            Change::Remove(resource) => edits.removed.push(resource.key().clone()),
        }
    }
    edits
}

fn edited<T: Resource>(resources: &Resources<T>, edits: &Edits<T>) -> Resources<T> {
    let mut edited = resources.clone();
    for key in &edits.removed {
        edited.remove(key);
    }
    for resource in &edits.upserted {
        edited.insert(resource.clone());
    }
    edited
}
