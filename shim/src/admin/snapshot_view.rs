//! A snapshot as JSON for people: everything in it except key material.
//!
//! Built from the typed snapshot, resource by resource, so that all of them are never held twice.
//! Every part is taken apart whole (`let Listener { … }` without `..`), so that a field that is added
//! to `ir` does not build before somebody has said how it is shown. What is secret has a type that
//! cannot be printed and is shown as what it is of; what only may be is blanked by `words`.

mod ai;
mod cluster;
mod policy;
mod route;
mod wasm;

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use ir::listener::{
    ClientValidation, ClientValidationMode, EscapedSlashes, ForwardedFields, ListenerSettings,
    ListenerTls, ProxyProtocol, RequestIds, TrustedProxies,
};
use ir::snapshot::Workload;
use ir::{Listener, Resource, Resources, Secret, Snapshot};
use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::{Value, json};

use super::words;
use crate::nodes;

/// The whole snapshot as text.
pub(super) fn text(snapshot: &Snapshot) -> serde_json::Result<String> {
    serde_json::to_string(&Whole(snapshot))
}

struct Whole<'s>(&'s Snapshot);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Snapshot {
            version,
            generated_at,
            listeners,
            http_routes,
            grpc_routes,
            stream_routes,
            clusters,
            secrets,
            wasm_plugins,
            workloads,
            required_features,
            compatibility_profile,
            traceparent,
        } = self.0;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", version.as_str())?;
        map.serialize_entry("generated_at", &generated_at.map(rfc3339))?;
        map.serialize_entry("required_features", required_features)?;
        map.serialize_entry("compatibility_profile", compatibility_profile)?;
        map.serialize_entry("traceparent", traceparent)?;
        map.serialize_entry("listeners", &Rows(listeners, listener))?;
        let http = |it: &_| route::route(it, route::http_rule);
        map.serialize_entry("http_routes", &Rows(http_routes, http))?;
        let grpc = |it: &_| route::route(it, route::grpc_rule);
        map.serialize_entry("grpc_routes", &Rows(grpc_routes, grpc))?;
        map.serialize_entry("stream_routes", &Rows(stream_routes, route::stream_route))?;
        map.serialize_entry("clusters", &Rows(clusters, cluster::cluster))?;
        map.serialize_entry("secrets", &Rows(secrets, secret))?;
        map.serialize_entry("wasm_plugins", &Rows(wasm_plugins, wasm::plugin))?;
        map.serialize_entry("workloads", &list(workloads, workload))?;
        map.end()
    }
}

/// Resources that are made into JSON one by one while they are written.
struct Rows<'s, T>(&'s Resources<T>, fn(&T) -> Value);

impl<T: Resource> Serialize for Rows<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|it| self.1(it)))
    }
}

fn listener(listener: &Listener) -> Value {
    let Listener {
        name,
        addresses,
        port,
        protocol,
        hostnames,
        tls,
        metadata,
        backend_client_certificate,
        security_policy,
        settings,
        plugins,
    } = listener;
    json!({
        "name": &**name,
        "addresses": texts(addresses),
        "port": port.get(),
        "protocol": words::listener_protocol(*protocol),
        "hostnames": texts(hostnames),
        "tls": tls.as_ref().map(listener_tls),
        "metadata": metadata.to_map(),
        "backend_client_certificate": backend_client_certificate.as_deref(),
        "security_policy": security_policy.as_deref().map(policy::security),
        "settings": listener_settings(settings),
        "plugins": texts(plugins),
    })
}

fn listener_tls(tls: &ListenerTls) -> Value {
    let ListenerTls {
        passthrough,
        certificate_refs,
        sni_hosts,
        min_version,
        max_version,
        client_validation,
    } = tls;
    json!({
        "passthrough": passthrough,
        "certificate_refs": texts(certificate_refs),
        "sni_hosts": texts(sni_hosts),
        "min_version": words::tls_version(*min_version),
        "max_version": words::tls_version(*max_version),
        "client_validation": client_validation.as_ref().map(|it| {
            let ClientValidation { ca_pems, mode } = it;
            json!({
                "mode": match mode {
                    ClientValidationMode::AllowValidOnly => "allow_valid_only",
                    ClientValidationMode::AllowInsecureFallback => "allow_insecure_fallback",
                    ClientValidationMode::RejectAll => "reject_all",
                },
                "authorities": authorities(ca_pems),
            })
        }),
    })
}

fn listener_settings(settings: &ListenerSettings) -> Value {
    let ListenerSettings {
        public_port,
        proxy_protocol,
        escaped_slashes,
        merge_slashes,
        forwarded_fields,
        trusted_proxies,
        request_ids,
        client_certificate_field,
    } = settings;
    json!({
        "public_port": public_port.map(std::num::NonZero::get),
        "proxy_protocol": proxy_protocol.as_ref().map(|it| match it {
            ProxyProtocol::Off => json!({ "required": false }),
            ProxyProtocol::Required(sources) => {
                json!({ "required": true, "sources": texts(sources) })
            }
        }),
        "escaped_slashes": escaped_slashes.map(|it| match it {
            EscapedSlashes::Keep => "keep",
            EscapedSlashes::Refuse => "refuse",
            EscapedSlashes::Redirect => "redirect",
            EscapedSlashes::Decode => "decode",
        }),
        "merge_slashes": merge_slashes,
        "forwarded_fields": forwarded_fields.map(|it| match it {
            ForwardedFields::None => "none",
            ForwardedFields::XForwarded => "x_forwarded",
            ForwardedFields::Forwarded => "forwarded",
            ForwardedFields::Both => "both",
        }),
        "trusted_proxies": trusted_proxies.as_ref().map(|it| {
            let TrustedProxies { hops, sources } = it;
            json!({ "hops": hops, "sources": texts(sources) })
        }),
        "request_ids": request_ids.map(|it| match it {
            RequestIds::Off => "off",
            RequestIds::Trusted => "trusted",
            RequestIds::Any => "any",
        }),
        "client_certificate_field": client_certificate_field,
    })
}

/// What a secret holds, never its text.
fn secret(secret: &Secret) -> Value {
    let Secret {
        key,
        certificate,
        htpasswd,
        oidc_client_secret,
        values,
    } = secret;
    json!({
        "key": &**key,
        "certificate": certificate.is_some(),
        "htpasswd": htpasswd.is_some(),
        "oidc_client_secret": oidc_client_secret.is_some(),
        "values": values.keys().collect::<Vec<_>>(),
    })
}

fn workload(workload: &Workload) -> Value {
    let Workload {
        namespace,
        name,
        ip,
    } = workload;
    json!({ "namespace": namespace, "name": name, "ip": ip.to_string() })
}

/// Trust anchors by the SHA-256 of their PEM text, because anything may stand beside them there.
fn authorities(pems: &[String]) -> Value {
    list(pems, |pem| json!({ "pem_sha256": words::fingerprint(pem) }))
}

fn list<T>(items: &[T], view: impl Fn(&T) -> Value) -> Value {
    items.iter().map(view).collect()
}

fn texts<T: Display>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn some_ms(duration: Option<Duration>) -> Option<u64> {
    duration.map(ms)
}

fn rfc3339(time: SystemTime) -> String {
    nodes::rfc3339(time)
}

#[cfg(test)]
mod tests;
