//! The applied snapshot as JSON for people: everything in it except key material.
//!
//! Built from the typed snapshot, resource by resource, so that 40,000 routes are never held as one
//! text. Secrets have a type that cannot be shown, so a secret appears as what it holds; header
//! values that usually carry credentials are blanked by name.

use std::cell::Cell;
use std::fmt::{Debug, Display};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use ir::cluster::{BackendTls, EndpointAddress};
use ir::filter::HeaderEdit;
use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, PathMatch, Route,
    TextMatch, ValueMatch,
};
use ir::listener::ListenerTls;
use ir::{Cluster, Endpoint, Filter, Listener, Secret, Snapshot, StreamRoute};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

/// Writes the whole snapshot.
pub(super) fn write(snapshot: &Snapshot, out: &mut dyn Write) -> serde_json::Result<()> {
    let mut json = serde_json::Serializer::new(out);
    let mut map = json.serialize_map(None)?;
    map.serialize_entry("version", snapshot.version.as_str())?;
    let generated_at = snapshot.generated_at.map(unix_ms);
    map.serialize_entry("generated_at_unix_ms", &generated_at)?;
    map.serialize_entry("required_features", &snapshot.required_features)?;
    map.serialize_entry("compatibility_profile", &snapshot.compatibility_profile)?;
    let listeners = snapshot.listeners.iter().map(|it| listener(it));
    map.serialize_entry("listeners", &Rows::new(listeners))?;
    let http_routes = snapshot.http_routes.iter().map(|it| route(it, http_rule));
    map.serialize_entry("http_routes", &Rows::new(http_routes))?;
    let grpc_routes = snapshot.grpc_routes.iter().map(|it| route(it, grpc_rule));
    map.serialize_entry("grpc_routes", &Rows::new(grpc_routes))?;
    let stream_routes = snapshot.stream_routes.iter().map(|it| stream_route(it));
    map.serialize_entry("stream_routes", &Rows::new(stream_routes))?;
    let clusters = snapshot.clusters.iter().map(|it| cluster(it));
    map.serialize_entry("clusters", &Rows::new(clusters))?;
    let secrets = snapshot.secrets.iter().map(|it| secret(it));
    map.serialize_entry("secrets", &Rows::new(secrets))?;
    map.serialize_entry("workloads", &snapshot.workloads.len())?;
    map.end()
}

/// A list that is made while it is written; it can be written once.
pub(super) struct Rows<I>(Cell<Option<I>>);

impl<I> Rows<I> {
    pub(super) fn new(rows: I) -> Self {
        Self(Cell::new(Some(rows)))
    }
}

impl<I: Iterator<Item = Value>> Serialize for Rows<I> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten())
    }
}

pub(super) fn listener(listener: &Listener) -> Value {
    json!({
        "name": &*listener.name,
        "addresses": texts(&listener.addresses),
        "port": listener.port.get(),
        "protocol": debug(&listener.protocol),
        "hostnames": texts(&listener.hostnames),
        "tls": listener.tls.as_ref().map(listener_tls),
        "metadata": listener.metadata.to_map(),
        "backend_client_certificate": listener.backend_client_certificate.as_deref(),
        "security_policy": listener.security_policy.as_ref().map(debug),
    })
}

fn listener_tls(tls: &ListenerTls) -> Value {
    json!({
        "passthrough": tls.passthrough,
        "certificate_refs": texts(&tls.certificate_refs),
        "sni_hosts": texts(&tls.sni_hosts),
        "min_version": debug(&tls.min_version),
        "max_version": debug(&tls.max_version),
        "client_validation": tls.client_validation.as_ref().map(|it| json!({
            "mode": debug(&it.mode),
            "authorities": it.ca_pems.len(),
        })),
    })
}

pub(super) fn route<R>(route: &Route<R>, rule: impl Fn(&R) -> Value) -> Value {
    json!({
        "namespace": route.namespace(),
        "name": route.name(),
        "hostnames": texts(&route.hostnames),
        "listeners": texts(&route.listeners),
        "rules": list(&route.rules, rule),
        "labels": route.labels.to_map(),
        "annotations": route.annotations.to_map(),
        "policy": route.policy.as_ref().map(debug),
        "security_policy": route.security_policy.as_ref().map(debug),
        "created_at_unix_ms": route.created_at.map(unix_ms),
    })
}

pub(super) fn http_rule(rule: &HttpRule) -> Value {
    json!({
        "name": rule.name,
        "matches": list(&rule.matches, http_match),
        "filters": list(&rule.filters, filter),
        "backends": list(&rule.backends, backend),
        "request_timeout_ms": rule.timeouts.request.map(|it| it.as_millis()),
        "backend_request_timeout_ms": rule.timeouts.backend_request.map(|it| it.as_millis()),
        "retry": rule.retry.as_ref().map(debug),
        "session_persistence": rule.session_persistence.as_ref().map(debug),
    })
}

pub(super) fn grpc_rule(rule: &GrpcRule) -> Value {
    json!({
        "name": rule.name,
        "matches": list(&rule.matches, grpc_match),
        "filters": list(&rule.filters, filter),
        "backends": list(&rule.backends, backend),
        "session_persistence": rule.session_persistence.as_ref().map(debug),
    })
}

pub(super) fn stream_route(route: &StreamRoute) -> Value {
    json!({
        "kind": route.kind.object_kind(),
        "namespace": route.namespace(),
        "name": route.name(),
        "listeners": texts(&route.listeners),
        "rules": list(&route.rules, |rule| json!({
            "name": rule.name,
            "matches": list(&rule.matches, |it| json!({
                "port": it.port,
                "sni": it.sni.as_ref().map(ToString::to_string),
                "mode": it.mode.as_ref().map(debug),
            })),
            "backends": list(&rule.backends, backend),
        })),
        "labels": route.labels.to_map(),
        "annotations": route.annotations.to_map(),
    })
}

pub(super) fn cluster(cluster: &Cluster) -> Value {
    json!({
        "key": &*cluster.key,
        "protocol": debug(&cluster.protocol),
        "endpoints": list(&cluster.endpoints, endpoint),
        "connect_timeout_ms": cluster.connect_timeout.as_millis(),
        "request_timeout_ms": cluster.request_timeout.map(|it| it.as_millis()),
        "metadata": cluster.metadata.to_map(),
        "tls": cluster.tls.as_deref().map(backend_tls),
        "balancing": debug(&cluster.balancing),
        "session_persistence": cluster.session_persistence.as_ref().map(debug),
        "max_inflight_requests": cluster.max_inflight_requests,
        "ai_service": cluster.ai_service.as_ref().map(|it| json!({
            "provider": it.provider.as_str(),
            "model": it.model,
            "secret_ref": it.auth.as_ref().map(|auth| &*auth.secret_ref),
        })),
        "token_policy": cluster.token_policy.as_ref().map(debug),
        "wasm_plugin": cluster.wasm_plugin.as_ref().map(|it| json!({
            "key": &*it.key,
            "hooks": debug(&it.hooks),
        })),
        "security_policy": cluster.security_policy.as_ref().map(debug),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => ip.to_string(),
        EndpointAddress::Name(name) => name.to_string(),
    };
    json!({
        "address": address,
        "port": endpoint.port.get(),
        "ready": endpoint.is_ready,
        "zone": endpoint.zone,
        "weight": endpoint.weight,
    })
}

fn backend_tls(tls: &BackendTls) -> Value {
    json!({
        "hostname": tls.hostname.as_str(),
        "system_authorities": tls.use_system_ca_certificates,
        "authorities": tls.ca_pems.len(),
        "subject_alt_names": list(&tls.subject_alt_names, |it| debug(it).into()),
        "min_version": debug(&tls.min_version),
        "max_version": debug(&tls.max_version),
    })
}

/// What a secret holds, never its text.
fn secret(secret: &Secret) -> Value {
    json!({
        "key": &*secret.key,
        "certificate": secret.certificate.is_some(),
        "htpasswd": secret.htpasswd.is_some(),
        "oidc_client_secret": secret.oidc_client_secret.is_some(),
    })
}

fn backend(backend: &BackendRef) -> Value {
    json!({
        "target": &*backend.target.display,
        "kind": backend.target.kind,
        "resolved": !backend.target.cluster_keys.is_empty(),
        "weight": backend.weight,
        "filters": list(&backend.filters, filter),
    })
}

pub(super) fn http_match(it: &HttpMatch) -> Value {
    let (kind, path) = match &it.path {
        PathMatch::Exact(path) => ("exact", path.as_str()),
        PathMatch::Prefix(path) => ("prefix", path.as_str()),
        PathMatch::Regex(pattern) => ("regex", pattern.as_str()),
    };
    json!({
        "path": { kind: path },
        "method": it.method,
        "headers": list(&it.headers, value_match),
        "query_params": list(&it.query_params, value_match),
    })
}

pub(super) fn grpc_match(it: &GrpcMatch) -> Value {
    json!({
        "method": grpc_method(&it.method),
        "headers": list(&it.headers, value_match),
    })
}

fn grpc_method(method: &GrpcMethodMatch) -> Value {
    match method {
        GrpcMethodMatch::Any => json!("any"),
        GrpcMethodMatch::Exact { service, method } => {
            json!({ "service": { "exact": service }, "method": { "exact": method } })
        }
        GrpcMethodMatch::Regex { service, method } => json!({
            "service": { "regex": service.as_ref().map(ir::Pattern::as_str) },
            "method": { "regex": method.as_ref().map(ir::Pattern::as_str) },
        }),
    }
}

fn value_match(it: &ValueMatch) -> Value {
    let (kind, value) = match &it.value {
        TextMatch::Exact(value) => ("exact", value.as_str()),
        TextMatch::Prefix(value) => ("prefix", value.as_str()),
        TextMatch::Suffix(value) => ("suffix", value.as_str()),
        TextMatch::Regex(pattern) => ("regex", pattern.as_str()),
        TextMatch::Present => ("present", ""),
    };
    json!({ "name": it.name, kind: unless_sensitive(&it.name, value) })
}

pub(super) fn filter(filter: &Filter) -> Value {
    match filter {
        Filter::RequestHeaders(edit) => json!({ "request_headers": header_edit(edit) }),
        Filter::ResponseHeaders(edit) => json!({ "response_headers": header_edit(edit) }),
        Filter::Redirect(redirect) => json!({ "redirect": debug(redirect) }),
        Filter::Rewrite(rewrite) => json!({ "rewrite": debug(rewrite) }),
        Filter::Mirror(mirror) => json!({ "mirror": {
            "target": &*mirror.backend.display,
            "fraction": mirror.fraction,
        }}),
        Filter::Cors(cors) => json!({ "cors": debug(cors) }),
        Filter::ExternalAuth(auth) => json!({ "external_auth": {
            "target": &*auth.backend.display,
            "protocol": debug(&auth.protocol),
        }}),
        Filter::DirectResponse(response) => json!({ "direct_response": {
            "status": response.status,
            "body_bytes": response.body.len(),
        }}),
        Filter::Unsupported { name, reason } => {
            json!({ "unsupported": { "type": name, "reason": reason } })
        }
    }
}

fn header_edit(edit: &HeaderEdit) -> Value {
    let field = |(name, value): &(String, String)| json!({ "name": name, "value": unless_sensitive(name, value) });
    json!({
        "set": list(&edit.set, field),
        "add": list(&edit.add, field),
        "remove": edit.remove,
    })
}

/// The value, unless fields of that name usually carry credentials.
fn unless_sensitive<'a>(name: &str, value: &'a str) -> &'a str {
    let name = name.to_ascii_lowercase();
    let marks = [
        "auth", "cookie", "key", "token", "secret", "password", "session",
    ];
    if marks.iter().any(|mark| name.contains(mark)) {
        "***"
    } else {
        value
    }
}

fn list<T>(items: &[T], view: impl Fn(&T) -> Value) -> Value {
    items.iter().map(view).collect()
}

fn texts<T: Display>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}

/// For small parts without a reader of their own; `Debug` blanks secrets by type.
fn debug(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn unix_ms(time: SystemTime) -> u128 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_carry_credentials_are_blanked() {
        for (name, shown) in [
            ("authorization", "***"),
            ("Proxy-Authorization", "***"),
            ("x-api-key", "***"),
            ("set-cookie", "***"),
            ("x-team", "blue"),
        ] {
            assert_eq!(unless_sensitive(name, "blue"), shown, "{name}");
        }
    }
}
