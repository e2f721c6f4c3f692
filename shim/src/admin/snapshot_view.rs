//! A snapshot as JSON for people: everything in it except key material.
//!
//! Built from the typed snapshot, whose secrets cannot be printed: a secret is shown as what it
//! holds, never as its text. Small parts without a reader of their own (filters, policies) are shown
//! as their `Debug`, which redacts by type.

use std::fmt::Debug;

use ir::http_route::{BackendRef, GrpcRule, HttpRule, Route};
use ir::{Cluster, Listener, Secret, Snapshot, StreamRoute};
use serde_json::{Value, json};

use crate::nodes::rfc3339;

/// The whole snapshot.
pub(super) fn view(snapshot: &Snapshot) -> Value {
    json!({
        "version": snapshot.version.as_str(),
        "generated_at": snapshot.generated_at.map(rfc3339),
        "required_features": snapshot.required_features,
        "compatibility_profile": snapshot.compatibility_profile,
        "listeners": list(snapshot.listeners.iter().map(|it| listener(it))),
        "http_routes": list(snapshot.http_routes.iter().map(|it| route(it, http_rule))),
        "grpc_routes": list(snapshot.grpc_routes.iter().map(|it| route(it, grpc_rule))),
        "stream_routes": list(snapshot.stream_routes.iter().map(|it| stream_route(it))),
        "clusters": list(snapshot.clusters.iter().map(|it| cluster(it))),
        "secrets": list(snapshot.secrets.iter().map(|it| secret(it))),
        "workloads": snapshot.workloads.len(),
    })
}

fn listener(listener: &Listener) -> Value {
    json!({
        "name": &*listener.name,
        "addresses": texts(&listener.addresses),
        "port": listener.port.get(),
        "protocol": debug(&listener.protocol),
        "hostnames": texts(&listener.hostnames),
        "tls": listener.tls.as_ref().map(|tls| json!({
            "passthrough": tls.passthrough,
            "certificate_refs": texts(&tls.certificate_refs),
            "min_version": debug(&tls.min_version),
            "max_version": debug(&tls.max_version),
            "client_validation": tls.client_validation.as_ref().map(|it| debug(&it.mode)),
        })),
        "metadata": listener.metadata.to_map(),
        "backend_client_certificate": listener.backend_client_certificate.as_deref(),
        "security_policy": listener.security_policy.as_ref().map(debug),
    })
}

fn route<R>(route: &Route<R>, rule: impl Fn(&R) -> Value) -> Value {
    json!({
        "key": &*route.key,
        "hostnames": texts(&route.hostnames),
        "listeners": texts(&route.listeners),
        "rules": list(route.rules.iter().map(rule)),
        "labels": route.labels.to_map(),
        "annotations": route.annotations.to_map(),
        "policy": route.policy.as_ref().map(debug),
        "security_policy": route.security_policy.as_ref().map(debug),
    })
}

fn http_rule(rule: &HttpRule) -> Value {
    json!({
        "name": rule.name,
        "matches": list(rule.matches.iter().map(|it| json!({
            "path": debug(&it.path),
            "method": it.method,
            "headers": debugs(&it.headers),
            "query_params": debugs(&it.query_params),
        }))),
        "filters": debugs(&rule.filters),
        "backends": backends(&rule.backends),
        "timeouts": debug(&rule.timeouts),
        "retry": rule.retry.as_ref().map(debug),
        "session_persistence": rule.session_persistence.as_ref().map(debug),
    })
}

fn grpc_rule(rule: &GrpcRule) -> Value {
    json!({
        "name": rule.name,
        "matches": list(rule.matches.iter().map(|it| json!({
            "method": debug(&it.method),
            "headers": debugs(&it.headers),
        }))),
        "filters": debugs(&rule.filters),
        "backends": backends(&rule.backends),
        "session_persistence": rule.session_persistence.as_ref().map(debug),
    })
}

fn stream_route(route: &StreamRoute) -> Value {
    json!({
        "key": &*route.key,
        "listeners": texts(&route.listeners),
        "rules": list(route.rules.iter().map(|rule| json!({
            "name": rule.name,
            "matches": debugs(&rule.matches),
            "backends": backends(&rule.backends),
        }))),
    })
}

fn backends(backends: &[BackendRef]) -> Value {
    list(backends.iter().map(|backend| {
        json!({
            "target": &*backend.target.display,
            "cluster_keys": texts(&backend.target.cluster_keys),
            "weight": backend.weight,
            "filters": debugs(&backend.filters),
        })
    }))
}

fn cluster(cluster: &Cluster) -> Value {
    json!({
        "key": &*cluster.key,
        "protocol": debug(&cluster.protocol),
        "endpoints": list(cluster.endpoints.iter().map(|endpoint| json!({
            "address": debug(&endpoint.address),
            "port": endpoint.port.get(),
            "ready": endpoint.is_ready,
            "zone": endpoint.zone,
            "weight": endpoint.weight,
        }))),
        "connect_timeout_ms": u64::try_from(cluster.connect_timeout.as_millis()).ok(),
        "tls_hostname": cluster.tls.as_ref().map(|tls| tls.hostname.to_string()),
        "balancing": debug(&cluster.balancing),
        "session_persistence": cluster.session_persistence.as_ref().map(debug),
        "max_inflight_requests": cluster.max_inflight_requests,
        "ai_service": cluster.ai_service.is_some(),
        "token_policy": cluster.token_policy.is_some(),
        "wasm_plugin": cluster.wasm_plugin.is_some(),
        "security_policy": cluster.security_policy.as_ref().map(debug),
    })
}

fn secret(secret: &Secret) -> Value {
    json!({
        "key": &*secret.key,
        "certificate": secret.certificate.is_some(),
        "htpasswd": secret.htpasswd.is_some(),
        "oidc_client_secret": secret.oidc_client_secret.is_some(),
    })
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::Array(values.collect())
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn debug(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn debugs<T: Debug>(values: &[T]) -> Vec<String> {
    values.iter().map(|value| format!("{value:?}")).collect()
}
