//! From the typed snapshot to the wire; the law is `decode(encode(x)) == x`.
//!
//! Enums are written in one spelling, defaults are left out, so equal values make equal bytes. A
//! whole snapshot states attachment twice: on routes (an addition to the contract) and on
//! listeners, where every receiver looks. A single listener does not list routes, so that a route
//! that comes or goes changes no listener.

mod ai;
mod backend_policy;
mod cluster;
mod filter;
mod listener;
mod policy;
mod route;
mod wasm;
mod weight;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

pub use self::cluster::{cluster, secret};
pub use self::listener::listener;
pub use self::route::{grpc_route, http_route, stream_route};
pub use self::wasm::wasm_plugin;
pub use self::weight::growth;

use crate::delta::{Delta, Edits};
use crate::snapshot::Workload;
use crate::wasm::WasmPlugin;
use crate::{
    Cluster, GrpcRoute, HttpRoute, Listener, Resource, Resources, Secret, Snapshot, StreamRoute,
    wire,
};

/// A resource and the message that carries it.
pub trait Encode {
    /// The message of the contract.
    type Message: prost::Message;

    /// The one message that means this value.
    fn encode(&self) -> Self::Message;
}

impl Encode for Listener {
    type Message = wire::Listener;
    fn encode(&self) -> wire::Listener {
        listener(self)
    }
}

impl Encode for HttpRoute {
    type Message = wire::HttpRoute;
    fn encode(&self) -> wire::HttpRoute {
        http_route(self)
    }
}

impl Encode for GrpcRoute {
    type Message = wire::GrpcRoute;
    fn encode(&self) -> wire::GrpcRoute {
        grpc_route(self)
    }
}

impl Encode for StreamRoute {
    type Message = wire::StreamRoute;
    fn encode(&self) -> wire::StreamRoute {
        stream_route(self)
    }
}

impl Encode for Cluster {
    type Message = wire::BackendCluster;
    fn encode(&self) -> wire::BackendCluster {
        cluster(self)
    }
}

impl Encode for Secret {
    type Message = wire::SecretMaterial;
    fn encode(&self) -> wire::SecretMaterial {
        secret(self)
    }
}

impl Encode for WasmPlugin {
    type Message = wire::WasmPluginConfig;
    fn encode(&self) -> wire::WasmPluginConfig {
        wasm_plugin(self)
    }
}

/// A whole configuration.
pub fn snapshot(snapshot: &Snapshot) -> wire::ConfigSnapshot {
    let mut attached = attached_routes(snapshot);
    let listeners = snapshot.listeners.iter().map(|item| {
        let routes = attached.remove(&*item.name).unwrap_or_default();
        wire::Listener {
            attached_routes: routes.into_iter().map(str::to_owned).collect(),
            ..listener(item)
        }
    });
    wire::ConfigSnapshot {
        id: snapshot.version.as_str().to_owned(),
        generated_at: timestamp(snapshot.generated_at),
        listeners: listeners.collect(),
        http_routes: all(&snapshot.http_routes),
        grpc_routes: all(&snapshot.grpc_routes),
        stream_routes: all(&snapshot.stream_routes),
        backends: all(&snapshot.clusters),
        secrets: all(&snapshot.secrets),
        wasm_plugins: all(&snapshot.wasm_plugins),
        extensions: (!snapshot.workloads.is_empty()).then(|| extensions(&snapshot.workloads)),
        required_features: snapshot.required_features.clone(),
        compatibility_profile: snapshot.compatibility_profile.clone(),
        traceparent: snapshot.traceparent.clone().unwrap_or_default(),
    }
}

/// One transaction from version to version.
pub fn delta(delta: &Delta) -> wire::SnapshotDelta {
    wire::SnapshotDelta {
        base_version: delta.base.as_str().to_owned(),
        version: delta.version.as_str().to_owned(),
        generated_at: timestamp(delta.generated_at),
        type_versions: delta.type_versions.clone(),
        listeners: upserted(&delta.listeners),
        http_routes: upserted(&delta.http_routes),
        grpc_routes: upserted(&delta.grpc_routes),
        stream_routes: upserted(&delta.stream_routes),
        backends: upserted(&delta.clusters),
        secrets: upserted(&delta.secrets),
        wasm_plugins: upserted(&delta.wasm_plugins),
        removed_listeners: texts(&delta.listeners.removed),
        removed_http_routes: texts(&delta.http_routes.removed),
        removed_grpc_routes: texts(&delta.grpc_routes.removed),
        removed_stream_routes: texts(&delta.stream_routes.removed),
        removed_backends: texts(&delta.clusters.removed),
        removed_secrets: texts(&delta.secrets.removed),
        removed_wasm_plugins: texts(&delta.wasm_plugins.removed),
        required_features: delta.required_features.clone(),
        compatibility_profile: delta.compatibility_profile.clone(),
        traceparent: delta.traceparent.clone().unwrap_or_default(),
        extensions: delta.workloads.as_deref().map(extensions),
    }
}

/// `namespace/name` of the routes on each listener, without their kind, as the contract has it.
fn attached_routes(snapshot: &Snapshot) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut attached: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let http = snapshot.http_routes.iter().map(|r| (&r.listeners, &*r.key));
    let grpc = snapshot.grpc_routes.iter().map(|r| (&r.listeners, &*r.key));
    let stream = snapshot.stream_routes.iter();
    let stream = stream.map(|r| (&r.listeners, r.object_key()));
    for (listeners, key) in http.chain(grpc).chain(stream) {
        for listener in listeners {
            attached.entry(listener).or_default().insert(key);
        }
    }
    attached
}

fn all<T: Resource + Encode>(resources: &Resources<T>) -> Vec<T::Message> {
    resources.iter().map(|resource| resource.encode()).collect()
}

fn upserted<T: Encode>(edits: &Edits<T>) -> Vec<T::Message> {
    edits
        .upserted
        .iter()
        .map(|resource| resource.encode())
        .collect()
}

fn extensions(workloads: &[Workload]) -> Struct {
    let pods = workloads.iter().map(|pod| {
        object([
            ("namespace", text(&pod.namespace)),
            ("name", text(&pod.name)),
            ("ip", text(&pod.ip.to_string())),
        ])
    });
    Struct {
        fields: BTreeMap::from([("workloads".to_owned(), values(pods))]),
    }
}

fn texts(items: &[Arc<str>]) -> Vec<String> {
    items.iter().map(|item| item.as_ref().to_owned()).collect()
}

fn timestamp(moment: Option<SystemTime>) -> Option<prost_types::Timestamp> {
    moment.map(prost_types::Timestamp::from)
}

/// Durations are at most ten years after decoding; longer ones end at what the wire can hold.
fn duration(value: Option<Duration>) -> Option<prost_types::Duration> {
    value.map(|value| prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    })
}

fn namespace_and_name(key: &str) -> (String, String) {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    (namespace.to_owned(), name.to_owned())
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(Kind::StringValue(text.to_owned()))
}

fn number(number: u32) -> Value {
    value(Kind::NumberValue(f64::from(number)))
}

fn values(items: impl IntoIterator<Item = Value>) -> Value {
    value(Kind::ListValue(ListValue {
        values: items.into_iter().collect(),
    }))
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields = fields.into_iter();
    value(Kind::StructValue(Struct {
        fields: fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    }))
}
