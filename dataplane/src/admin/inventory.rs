//! What is served: listeners, routes, backends, as configured and as they are now.
//!
//! Lists are written while they are walked and never held as a whole; every answer is taken from
//! one configuration, the one of the moment in which it was asked for.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use ir::{Cluster, Listener, Snapshot, StreamRoute};
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Value, json};

use dataplane_config::RuntimeConfig;

use super::Context;
use super::answer::Answer;
use super::config::{self, Rows, grpc_rule, http_rule, route as route_view, stream_route};
use super::path::Filter;

/// `/v1/snapshot`.
pub(super) fn snapshot(context: &Context) -> Answer {
    large(context, |config, out| config::write(&config.snapshot, out))
}

/// `/v1/summary`.
pub(super) fn summary(context: &Context) -> Answer {
    let state = &context.state;
    let config = state.store.load();
    let snapshot = &config.snapshot;
    let version = snapshot.version.as_str();
    let report = state.status.report();
    Answer::json(&json!({
        "node_id": state.node_id,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": context.started.elapsed().as_secs(),
        "ready": state.readiness.is_ready(),
        "phase": state.readiness.phase().as_str(),
        "config_version": (!version.is_empty()).then_some(version),
        "listeners": snapshot.listeners.len(),
        "http_routes": snapshot.http_routes.len(),
        "grpc_routes": snapshot.grpc_routes.len(),
        "stream_routes": snapshot.stream_routes.len(),
        "backends": snapshot.clusters.len(),
        "secrets": snapshot.secrets.len(),
        "xds": { "connected": report.connected, "state": report.state, "stale": report.stale },
    }))
}

/// `/v1/overload`; camelCase, as in the contract.
pub(super) fn overload(context: &Context) -> Answer {
    let config = context.state.store.load();
    let by_listener: serde_json::Map<_, _> = config
        .listeners
        .iter()
        .map(|(name, it)| (name.to_string(), it.unrouted.requests_inflight().into()))
        .collect();
    let all = by_listener.values().filter_map(Value::as_i64).sum::<i64>();
    Answer::json(&json!({
        "httpGlobalInflightCurrent": all,
        "httpListenerInflightCurrent": by_listener,
    }))
}

/// `/v1/traffic`: what runs now; totals are in `/metrics`.
pub(super) fn traffic(context: &Context) -> Answer {
    large(context, |config, out| {
        let listeners = config.listeners.iter().map(|(name, it)| {
            json!({
                "name": &**name,
                "requests_inflight": it.unrouted.requests_inflight(),
                "connections_active": it.unrouted.connections_active(),
            })
        });
        let backends = config.snapshot.clusters.iter().filter_map(|cluster| {
            let metrics = &config.clusters.get(&cluster.key)?.metrics;
            let active = metrics.connections_active();
            Some(json!({ "key": &*cluster.key, "connections_active": active }))
        });
        let mut json = serde_json::Serializer::new(out);
        let mut map = json.serialize_map(None)?;
        map.serialize_entry("listeners", &Rows::new(listeners))?;
        map.serialize_entry("backends", &Rows::new(backends))?;
        map.end()
    })
}

/// `/v1/listeners`.
pub(super) fn listeners(context: &Context, filter: Filter) -> Answer {
    listener_rows(context, filter, listener_view)
}

/// `/v1/listeners/{name}`.
pub(super) fn listener(context: &Context, name: &str) -> Answer {
    one_listener(context, name, listener_view)
}

/// `/v1/listener-statuses`.
pub(super) fn listener_statuses(context: &Context, filter: Filter) -> Answer {
    listener_rows(context, filter, status_view)
}

/// `/v1/listener-statuses/{name}`.
pub(super) fn listener_status(context: &Context, name: &str) -> Answer {
    one_listener(context, name, status_view)
}

fn listener_rows(
    context: &Context,
    filter: Filter,
    view: fn(&RuntimeConfig, &Listener) -> Value,
) -> Answer {
    large(context, move |config, out| {
        let wanted = config.snapshot.listeners.iter().filter(|listener| {
            let namespace = listener.metadata.get("namespace");
            let namespace = namespace.map_or("", String::as_str);
            filter.takes(namespace, &listener.name)
        });
        let rows = filter.page(wanted).map(|it| view(config, it));
        serde_json::to_writer(out, &Rows::new(rows))
    })
}

fn one_listener(
    context: &Context,
    name: &str,
    view: fn(&RuntimeConfig, &Listener) -> Value,
) -> Answer {
    let config = context.state.store.load();
    match config.snapshot.listeners.get(name) {
        Some(listener) => Answer::json(&view(&config, listener)),
        None => Answer::not_found("no such listener"),
    }
}

fn listener_view(config: &RuntimeConfig, listener: &Listener) -> Value {
    let mut view = config::listener(listener);
    view["ready"] = is_open(config, listener).into();
    view["attached_routes"] = attached_routes(config, listener).into();
    view
}

fn status_view(config: &RuntimeConfig, listener: &Listener) -> Value {
    let ready = is_open(config, listener);
    let running = config.listeners.get(&listener.name);
    json!({
        "name": &*listener.name,
        "addresses": sockets(listener).map(|it| it.to_string()).collect::<Vec<_>>(),
        "ready": ready,
        "reason": (!ready).then_some("this data plane does not serve its protocol"),
        "attached_routes": attached_routes(config, listener),
        "requests_inflight": running.map_or(0, |it| it.unrouted.requests_inflight()),
        "connections_active": running.map_or(0, |it| it.unrouted.connections_active()),
    })
}

/// A configuration is only applied once all its sockets are bound.
fn is_open(config: &RuntimeConfig, listener: &Listener) -> bool {
    config.listeners.contains_key(&listener.name)
        && sockets(listener).all(|address| config.binds.contains_key(&address))
}

fn sockets(listener: &Listener) -> impl Iterator<Item = SocketAddr> {
    let port = listener.port.get();
    listener
        .addresses
        .iter()
        .map(move |ip| SocketAddr::new(*ip, port))
}

fn attached_routes(config: &RuntimeConfig, listener: &Listener) -> usize {
    let running = config.listeners.get(&listener.name);
    running.map_or(0, |it| it.table.len())
}

/// `/v1/routes`; each of the three lists is filtered and paged for itself.
pub(super) fn routes(context: &Context, filter: Filter) -> Answer {
    large(context, move |config, out| {
        let snapshot = &config.snapshot;
        let http = snapshot.http_routes.iter();
        let http = http.filter(|it| filter.takes(it.namespace(), it.name()));
        let grpc = snapshot.grpc_routes.iter();
        let grpc = grpc.filter(|it| filter.takes(it.namespace(), it.name()));
        let stream = snapshot.stream_routes.iter();
        let stream = stream.filter(|it| filter.takes(it.namespace(), it.name()));
        let http = filter.page(http).map(|it| route_view(it, http_rule));
        let grpc = filter.page(grpc).map(|it| route_view(it, grpc_rule));
        let stream = filter.page(stream).map(|it| stream_route(it));
        let mut json = serde_json::Serializer::new(out);
        let mut map = json.serialize_map(None)?;
        map.serialize_entry("http", &Rows::new(http))?;
        map.serialize_entry("grpc", &Rows::new(grpc))?;
        map.serialize_entry("stream", &Rows::new(stream))?;
        map.end()
    })
}

/// `/v1/routes/{kind}/{namespace}/{name}`.
pub(super) fn route(context: &Context, kind: &str, key: &str) -> Answer {
    let config = context.state.store.load();
    match find_route(&config.snapshot, kind, key) {
        Some(view) => Answer::json(&view),
        None => Answer::not_found(
            "no such route; kinds are HTTPRoute, GRPCRoute, TCPRoute, UDPRoute and TLSRoute",
        ),
    }
}

/// The kind may be written as Kubernetes does or as in keys: `HTTPRoute`, `http`.
fn find_route(snapshot: &Snapshot, kind: &str, key: &str) -> Option<Value> {
    let kind = kind.to_ascii_lowercase();
    match kind.strip_suffix("route").unwrap_or(&kind) {
        "http" => {
            let route = snapshot.http_routes.get(key)?;
            Some(route_view(route, http_rule))
        }
        "grpc" => {
            let route = snapshot.grpc_routes.get(key)?;
            Some(route_view(route, grpc_rule))
        }
        kind => {
            let route: &Arc<StreamRoute> = snapshot.stream_routes.get(&format!("{kind}/{key}"))?;
            Some(stream_route(route))
        }
    }
}

/// `/v1/backends`.
pub(super) fn backends(context: &Context, filter: Filter) -> Answer {
    large(context, move |config, out| {
        let wanted = config.snapshot.clusters.iter().filter(|cluster| {
            let (namespace, name) = cluster.key.split_once('/').unwrap_or(("", &cluster.key));
            filter.takes(namespace, name)
        });
        let rows = filter.page(wanted).map(|it| backend_view(config, it));
        serde_json::to_writer(out, &Rows::new(rows))
    })
}

/// `/v1/backends/{namespace}/{name}`; the name with its port, or without where there is one port.
pub(super) fn backend(context: &Context, key: &str) -> Answer {
    let config = context.state.store.load();
    let clusters = &config.snapshot.clusters;
    if let Some(cluster) = clusters.get(key) {
        return Answer::json(&backend_view(&config, cluster));
    }
    let is_port_of = |cluster: &Cluster| {
        let rest = cluster.key.strip_prefix(key);
        rest.is_some_and(|rest| rest.starts_with(':'))
    };
    let mut ports = clusters.iter().filter(|cluster| is_port_of(cluster));
    match (ports.next(), ports.next()) {
        (Some(cluster), None) => Answer::json(&backend_view(&config, cluster)),
        (Some(_), Some(_)) => {
            let message = "this backend has several ports, add one as in namespace/name:80";
            Answer::error(http::StatusCode::BAD_REQUEST, message)
        }
        (None, _) => Answer::not_found("no such backend"),
    }
}

fn backend_view(config: &RuntimeConfig, cluster: &Cluster) -> Value {
    let mut view = config::cluster(cluster);
    let Some(running) = config.clusters.get(&cluster.key) else {
        return view;
    };
    let endpoints = running.cluster.endpoints().iter().map(|endpoint| {
        json!({
            "address": endpoint.address().to_string(),
            "ready": endpoint.is_ready(),
            "weight": endpoint.weight(),
            "zone": endpoint.zone(),
            "requests_inflight": endpoint.load().requests_active(),
            "connections_active": endpoint.load().connections_active(),
        })
    });
    view["endpoints"] = endpoints.collect();
    view["endpoints_available"] = running.cluster.available().into();
    view["endpoints_unresolved"] = running.cluster.unresolved().into();
    view["connections_active"] = running.metrics.connections_active().into();
    view
}

/// An answer that grows with the configuration.
pub(super) fn large(
    context: &Context,
    write: impl FnOnce(&RuntimeConfig, &mut dyn Write) -> serde_json::Result<()> + Send + 'static,
) -> Answer {
    let config = context.state.store.load_full();
    Answer::large(&context.large, move |out| write(&config, out))
}
