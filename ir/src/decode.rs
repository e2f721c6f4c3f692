//! From the wire to the typed snapshot, once, for both sides of the stream.
//!
//! Every fault is collected as a violation with its object and path; any of them refuses the whole
//! message. What is merely unknown, such as an enum value of a newer generation, never refuses
//! anything: it is read in a safe way and reported as a notice. The shim decodes single objects
//! with the same code, to leave a bad one out before it is sent.

mod ai;
mod attachment;
mod backend_policy;
mod cluster;
mod fields;
mod filter;
mod grpc_route;
mod http_route;
mod listener;
mod policy;
mod rate_limit;
mod report;
mod route;
mod secret;
mod security;
mod stream_route;
mod tls;
mod value;
mod wasm;

use std::collections::HashSet;
use std::sync::Arc;

use self::attachment::{Attachments, Carries};
use self::report::{At, Quoted, Report};
pub use self::tls::is_authorities;
use crate::delta::{Delta, Edits};
use crate::snapshot::Workload;
use crate::stream_route::StreamKind;
use crate::{
    Cluster, GrpcRoute, HttpRoute, Listener, Resource, Resources, Secret, Snapshot, StreamRoute,
    Version, Violation, Violations, WasmPlugin, consistency, wire,
};

/// What this data plane understands, as the contract names it; all of it is advertised.
pub const FEATURES: [&str; 5] = [
    "core.v1",
    "route.labels.v1",
    "backend.ai_service.v1",
    "backend.token_policy.v1",
    "backend.wasm_plugin.v1",
];

/// Decodes a whole configuration. Notices are dropped, see [`snapshot_with_notices`].
pub fn snapshot(message: wire::ConfigSnapshot) -> Result<Snapshot, Violations> {
    snapshot_with_notices(message).map(|(snapshot, _)| snapshot)
}

/// Decodes a whole configuration and tells what of it was understood in part only: unknown enum
/// values and the fallback taken for them, objects left out because their kind is unknown.
pub fn snapshot_with_notices(
    message: wire::ConfigSnapshot,
) -> Result<(Snapshot, Violations), Violations> {
    let mut report = Report::default();
    check_features(&message.required_features, &mut report)?;
    let at = At::object("Snapshot", &message.id);
    let generated_at = value::timestamp(message.generated_at, &at, "generated_at", &mut report);
    if message.id.is_empty() {
        let _: Option<()> = report.refuse(&at.field("id"), "is empty, a snapshot needs a version");
    }
    let workloads = workloads(message.extensions.as_ref(), &at, &mut report);

    let (listeners, attachments) = listeners(message.listeners, &mut report);
    let mut http_routes: Vec<HttpRoute> =
        all(message.http_routes, &mut report, http_route::http_route);
    let mut grpc_routes: Vec<GrpcRoute> =
        all(message.grpc_routes, &mut report, grpc_route::grpc_route);
    let mut stream_routes = all(
        message.stream_routes,
        &mut report,
        stream_route::stream_route,
    );
    let clusters = all(message.backends, &mut report, cluster::cluster);
    let secrets = all(message.secrets, &mut report, secret::secret);
    let plugins = all(message.wasm_plugins, &mut report, wasm::listed);
    attach(
        &attachments,
        &mut http_routes,
        &mut grpc_routes,
        &mut stream_routes,
    );

    let snapshot = Snapshot {
        version: Version::new(&message.id),
        generated_at: generated_at.flatten(),
        listeners: unique(listeners, "Listener", &mut report),
        http_routes: unique(http_routes, "HTTPRoute", &mut report),
        grpc_routes: unique(grpc_routes, "GRPCRoute", &mut report),
        stream_routes: unique(stream_routes, "StreamRoute", &mut report),
        clusters: unique(clusters, "Cluster", &mut report),
        secrets: unique(secrets, "Secret", &mut report),
        wasm_plugins: unique(plugins, "WasmPlugin", &mut report),
        workloads: workloads.into(),
        required_features: message.required_features,
        compatibility_profile: message.compatibility_profile,
        traceparent: value::non_empty(message.traceparent),
    };
    // Only sound objects are compared: a secret that was refused above is not "missing" as well.
    if report.violations.is_empty() {
        let faults = consistency::check(&snapshot.listeners, &snapshot.secrets);
        report.violations.extend(faults);
        let faults = consistency::check_plugins(&snapshot);
        report.violations.extend(faults);
        note_client_certificates(&snapshot, &mut report);
    }
    let notices = std::mem::take(&mut report.notices);
    report.finish(Some((snapshot, notices)))
}

/// Decodes a delta. Notices are dropped, see [`delta_with_notices`].
///
/// What depends on the rest of the configuration is checked by [`crate::delta::apply`].
pub fn delta(message: wire::SnapshotDelta) -> Result<Delta, Violations> {
    delta_with_notices(message).map(|(delta, _)| delta)
}

/// Decodes a delta and tells what of it was understood in part only.
pub fn delta_with_notices(message: wire::SnapshotDelta) -> Result<(Delta, Violations), Violations> {
    let mut report = Report::default();
    check_features(&message.required_features, &mut report)?;
    let at = At::object("Delta", &message.version);
    let generated_at = value::timestamp(message.generated_at, &at, "generated_at", &mut report);
    for (field, version) in [
        ("base_version", &message.base_version),
        ("version", &message.version),
    ] {
        if version.is_empty() {
            let _: Option<()> = report.refuse(&at.field(field), "is empty, name a version");
        }
    }
    let workloads = message
        .extensions
        .as_ref()
        .map(|extensions| workloads(Some(extensions), &at, &mut report).into());
    let report = &mut report;
    let listeners = listeners(message.listeners, report).0;
    let http_routes = all(message.http_routes, report, http_route::http_route);
    let grpc_routes = all(message.grpc_routes, report, grpc_route::grpc_route);
    let stream_routes = all(message.stream_routes, report, stream_route::stream_route);
    let clusters = all(message.backends, report, cluster::cluster);
    let secrets = all(message.secrets, report, secret::secret);
    let plugins = all(message.wasm_plugins, report, wasm::listed);
    let delta = Delta {
        base: Version::new(&message.base_version),
        version: Version::new(&message.version),
        generated_at: generated_at.flatten(),
        type_versions: message.type_versions,
        listeners: edits(listeners, message.removed_listeners, "Listener", report),
        http_routes: edits(
            http_routes,
            message.removed_http_routes,
            "HTTPRoute",
            report,
        ),
        grpc_routes: edits(
            grpc_routes,
            message.removed_grpc_routes,
            "GRPCRoute",
            report,
        ),
        stream_routes: edits(
            stream_routes,
            message.removed_stream_routes,
            "StreamRoute",
            report,
        ),
        clusters: edits(clusters, message.removed_backends, "Cluster", report),
        secrets: edits(secrets, message.removed_secrets, "Secret", report),
        wasm_plugins: edits(plugins, message.removed_wasm_plugins, "WasmPlugin", report),
        workloads,
        required_features: message.required_features,
        compatibility_profile: message.compatibility_profile,
        traceparent: value::non_empty(message.traceparent),
    };
    let report = std::mem::take(report);
    let notices = report.notices.clone();
    report.finish(Some((delta, notices)))
}

/// Decodes one listener; a protocol unknown here is a violation.
pub fn listener(message: wire::Listener) -> Result<Listener, Violations> {
    one(message, listener::listener)
}

/// Decodes one HTTP route.
pub fn http_route(message: wire::HttpRoute) -> Result<HttpRoute, Violations> {
    one(message, http_route::http_route)
}

/// Decodes one gRPC route.
pub fn grpc_route(message: wire::GrpcRoute) -> Result<GrpcRoute, Violations> {
    one(message, grpc_route::grpc_route)
}

/// Decodes one TCP, UDP or TLS route; a kind unknown here is a violation.
pub fn stream_route(message: wire::StreamRoute) -> Result<StreamRoute, Violations> {
    one(message, stream_route::stream_route)
}

/// Decodes one cluster.
pub fn cluster(message: wire::BackendCluster) -> Result<Cluster, Violations> {
    one(message, cluster::cluster)
}

/// Decodes one secret.
pub fn secret(message: wire::SecretMaterial) -> Result<Secret, Violations> {
    one(message, secret::secret)
}

/// Decodes one plugin of the snapshot's own list.
pub fn wasm_plugin(message: wire::WasmPluginConfig) -> Result<WasmPlugin, Violations> {
    one(message, wasm::listed)
}

fn one<W, T>(
    message: W,
    decode: impl FnOnce(W, &mut Report) -> Option<T>,
) -> Result<T, Violations> {
    let mut report = Report::default();
    let value = decode(message, &mut report);
    if value.is_none() && report.violations.is_empty() {
        // Left out because its kind is unknown, and the notice says so.
        report.violations = std::mem::take(&mut report.notices);
    }
    report.finish(value)
}

fn check_features(required: &[String], report: &mut Report) -> Result<(), Violations> {
    let unknown = |feature: &&String| !FEATURES.contains(&feature.as_str());
    let mut missing: Vec<&str> = required
        .iter()
        .filter(unknown)
        .map(String::as_str)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    missing.sort_unstable();
    missing.dedup();
    for feature in missing {
        report.violations.push(Violation {
            object: "Snapshot".to_owned(),
            path: "required_features".to_owned(),
            message: format!(
                "{} is not supported, update the data plane",
                Quoted(feature)
            ),
        });
    }
    Err(std::mem::take(&mut report.violations))
}

fn all<W, T>(
    messages: Vec<W>,
    report: &mut Report,
    decode: fn(W, &mut Report) -> Option<T>,
) -> Vec<T> {
    let decoded = messages.into_iter();
    decoded
        .filter_map(|message| decode(message, report))
        .collect()
}

fn listeners(
    messages: Vec<wire::Listener>,
    report: &mut Report,
) -> (Vec<Arc<Listener>>, Attachments) {
    let mut listeners = Vec::with_capacity(messages.len());
    let mut attachments = Attachments::default();
    for mut message in messages {
        let routes = std::mem::take(&mut message.attached_routes);
        if let Some(listener) = listener::listener(message, report) {
            let listener = Arc::new(listener);
            attachments.add(listener.clone(), routes);
            listeners.push(listener);
        }
    }
    (listeners, attachments)
}

/// Works out the listeners of routes whose sender does not name them. A sender that names them on
/// any route knows the field, so routes without any are attached to none.
fn attach(
    attachments: &Attachments,
    http_routes: &mut [HttpRoute],
    grpc_routes: &mut [GrpcRoute],
    stream_routes: &mut [StreamRoute],
) {
    let is_named = http_routes.iter().any(|route| !route.listeners.is_empty())
        || grpc_routes.iter().any(|route| !route.listeners.is_empty())
        || stream_routes
            .iter()
            .any(|route| !route.listeners.is_empty());
    if is_named {
        return;
    }
    for route in http_routes {
        route.listeners = attachments.listeners_of(&route.key, &route.parent_refs, Carries::Http);
    }
    for route in grpc_routes {
        route.listeners = attachments.listeners_of(&route.key, &route.parent_refs, Carries::Http);
    }
    for route in stream_routes {
        let carries = match route.kind {
            StreamKind::Tcp => Carries::Tcp,
            StreamKind::Udp => Carries::Udp,
            StreamKind::Tls => Carries::Tls,
        };
        let key = route.object_key();
        route.listeners = attachments.listeners_of(key, &route.parent_refs, carries);
    }
}

fn unique<T: Resource>(
    items: Vec<impl Into<Arc<T>>>,
    kind: &'static str,
    report: &mut Report,
) -> Resources<T> {
    let mut resources = Resources::default();
    for item in items {
        if let Some(first) = resources.insert(item) {
            let at = At::object(kind, first.key());
            let _: Option<()> = report.refuse(&at, "is there twice, keys must be unique");
        }
    }
    resources
}

fn edits<T: Resource>(
    upserted: Vec<impl Into<Arc<T>>>,
    removed: Vec<String>,
    kind: &'static str,
    report: &mut Report,
) -> Edits<T> {
    let upserted: Vec<Arc<T>> = upserted.into_iter().map(Into::into).collect();
    let mut seen = HashSet::with_capacity(upserted.len() + removed.len());
    let keys = upserted.iter().map(|resource| &**resource.key());
    for key in keys.chain(removed.iter().map(String::as_str)) {
        if !seen.insert(key) {
            let at = At::object(kind, key);
            let _: Option<()> = report.refuse(&at, "is there twice in one delta");
        }
    }
    let removed = removed.iter().map(|key| report.share(key)).collect();
    Edits { upserted, removed }
}

/// Pods of the open extension data; what is not one is left out with a notice.
fn workloads(
    extensions: Option<&prost_types::Struct>,
    at: &At<'_>,
    report: &mut Report,
) -> Vec<Workload> {
    use prost_types::value::Kind;
    let value = extensions.and_then(|extensions| extensions.fields.get("workloads"));
    let Some(Kind::ListValue(list)) = value.and_then(|value| value.kind.as_ref()) else {
        return Vec::new();
    };
    let mut workloads = Vec::with_capacity(list.values.len());
    for (index, value) in list.values.iter().enumerate() {
        let text = |name| match value.kind.as_ref() {
            Some(Kind::StructValue(pod)) => match pod.fields.get(name)?.kind.as_ref() {
                Some(Kind::StringValue(text)) => Some(text.as_str()),
                _ => None,
            },
            _ => None,
        };
        match text("ip").and_then(|ip| ip.parse().ok()) {
            Some(ip) => workloads.push(Workload {
                namespace: text("namespace").unwrap_or_default().to_owned(),
                name: text("name").unwrap_or_default().to_owned(),
                ip,
            }),
            None => report.notice(
                &at.field("extensions").index("workloads", index),
                "has no IP address, it is left out",
            ),
        }
    }
    workloads
}

/// A missing client certificate harms only backends that ask for one, and those refuse by
/// themselves.
fn note_client_certificates(snapshot: &Snapshot, report: &mut Report) {
    for listener in snapshot.listeners.iter() {
        let Some(reference) = &listener.backend_client_certificate else {
            continue;
        };
        let secret = snapshot.secrets.get(reference);
        if secret.is_none_or(|secret| secret.certificate.is_none()) {
            let at = At::object("Listener", &listener.name);
            report.notice(
                &at.field("backend_tls").field("client_certificate_ref"),
                format_args!(
                    "{} is no known certificate, none is shown",
                    Quoted(reference)
                ),
            );
        }
    }
}
