//! What is served: listeners, routes, backends, as configured and as they are now.
//!
//! Lists come in pages, of which what is shown is written while they are walked and never held as a
//! whole; every answer is taken from one configuration, the one of the moment in which it was asked
//! for.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use ir::listener::ListenerProtocol;
use ir::{Cluster, GrpcRoute, HttpRoute, Listener, Snapshot, StreamRoute};
use serde::ser::{SerializeMap as _, Serializer as _};
use serde_json::{Value, json};

use dataplane_config::RuntimeConfig;
use dataplane_http::Overload;
use dataplane_upstream::since_start;

use super::Context;
use super::answer::Answer;
use super::config::{self, Rows, grpc_rule, http_rule, route as route_view, stream_route};
use super::query::{self, Filter, Page};
use super::resilience::health;

/// `/v1/snapshot`.
pub(super) fn snapshot(context: &Context) -> Answer {
    let config = context.state.store.load_full();
    large(context, config, |config, out| {
        config::write(&config.snapshot, out)
    })
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
        "read_only": !context.changes,
        "config_version": (!version.is_empty()).then_some(version),
        "listeners": snapshot.listeners.len(),
        "http_routes": snapshot.http_routes.len(),
        "grpc_routes": snapshot.grpc_routes.len(),
        "stream_routes": snapshot.stream_routes.len(),
        "backends": snapshot.clusters.len(),
        "secrets": snapshot.secrets.len(),
        "xds": { "connected": report.connected, "state": report.state, "stale": report.stale },
        "last_nack": report.last_nack,
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
    let by_route = routes_inflight(&context.state.overload, &config.snapshot);
    let by_route: serde_json::Map<_, _> = by_route
        .into_iter()
        .map(|(name, count)| (name.to_string(), count.into()))
        .collect();
    Answer::json(&json!({
        "httpGlobalInflightCurrent": all,
        "httpListenerInflightCurrent": by_listener,
        "httpRouteInflightCurrent": by_route,
    }))
}

/// Requests that run, by route, where routes have a limit of them.
pub(super) fn routes_inflight(overload: &Overload, snapshot: &Snapshot) -> Vec<(Arc<str>, usize)> {
    overload.routes_inflight(|name| {
        snapshot.http_routes.get(name).is_some() || snapshot.grpc_routes.get(name).is_some()
    })
}

/// `/v1/traffic`: what runs now; totals are in `/metrics`. The backends are paged.
pub(super) fn traffic(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let page = clusters(&config, filter);
    let next = page.next.clone();
    let answer = large(context, config, move |config, out| {
        let listeners = config.listeners.iter().map(|(name, it)| {
            json!({
                "name": &**name,
                "requests_inflight": it.unrouted.requests_inflight(),
                "connections_active": it.unrouted.connections_active(),
            })
        });
        let backends = page.items.iter().filter_map(|cluster| {
            let metrics = &config.clusters.get(&cluster.key)?.metrics;
            let active = metrics.connections_active();
            Some(json!({ "key": &*cluster.key, "connections_active": active }))
        });
        let mut json = serde_json::Serializer::new(out);
        let mut map = json.serialize_map(None)?;
        map.serialize_entry("listeners", &Rows::new(listeners))?;
        map.serialize_entry("backends", &Rows::new(backends))?;
        map.end()
    });
    followed(answer, filter, "/v1/traffic", next.as_deref())
}

/// A page of the clusters.
pub(super) fn clusters(config: &RuntimeConfig, filter: &Filter) -> Page<Arc<Cluster>> {
    let all = config.snapshot.clusters.iter();
    let wanted = all.filter(|cluster| filter.takes_key(&cluster.key));
    filter.page(wanted.cloned(), |it| it.key.to_string())
}

/// `/v1/listeners`.
pub(super) fn listeners(context: &Context, filter: &Filter) -> Answer {
    listener_rows(context, filter, "/v1/listeners", listener_view)
}

/// `/v1/listeners/{name}`.
pub(super) fn listener(context: &Context, names: &[String]) -> Answer {
    one_listener(context, names, listener_view)
}

/// `/v1/listener-statuses`.
pub(super) fn listener_statuses(context: &Context, filter: &Filter) -> Answer {
    listener_rows(context, filter, "/v1/listener-statuses", status_view)
}

/// `/v1/listener-statuses/{name}`.
pub(super) fn listener_status(context: &Context, names: &[String]) -> Answer {
    one_listener(context, names, status_view)
}

fn listener_rows(
    context: &Context,
    filter: &Filter,
    path: &str,
    view: fn(&RuntimeConfig, &Listener) -> Value,
) -> Answer {
    let config = context.state.store.load_full();
    let wanted = config.snapshot.listeners.iter().filter(|listener| {
        let namespace = listener.metadata.get("namespace");
        let namespace = namespace.unwrap_or_default();
        filter.takes(namespace, &listener.name)
    });
    let page = filter.page(wanted.cloned(), |it| it.name.to_string());
    list_of(context, config, filter, path, page, move |config, it| {
        Some(view(config, it))
    })
}

fn one_listener(
    context: &Context,
    names: &[String],
    view: fn(&RuntimeConfig, &Listener) -> Value,
) -> Answer {
    let config = context.state.store.load();
    match config.snapshot.listeners.get(&names.join("/")) {
        Some(listener) => Answer::json(&view(&config, listener)),
        None => Answer::not_found("no such listener; /v1/listeners lists them"),
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
    let is_bound = |address| match listener.protocol {
        ListenerProtocol::Udp => config.udp_binds.contains_key(&address),
        _ => config.binds.contains_key(&address),
    };
    config.listeners.contains_key(&listener.name) && sockets(listener).all(is_bound)
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
    running.map_or(0, |it| it.routes_len())
}

/// Any route, to be shown.
#[derive(Debug)]
enum AnyRoute {
    Http(Arc<HttpRoute>),
    Grpc(Arc<GrpcRoute>),
    Stream(Arc<StreamRoute>),
}

impl AnyRoute {
    /// What pages are ordered by.
    fn key(&self) -> String {
        match self {
            Self::Grpc(route) => format!("grpc/{}", route.key),
            Self::Http(route) => format!("http/{}", route.key),
            Self::Stream(route) => format!("stream/{}", route.key),
        }
    }
}

/// `/v1/routes`; a page goes through the three lists, one after the other.
pub(super) fn routes(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let snapshot = &config.snapshot;
    let wanted = |kind: &str, namespace: &str, name: &str| {
        filter.takes_kind(kind) && filter.takes(namespace, name)
    };
    let grpc = snapshot.grpc_routes.iter();
    let grpc = grpc.filter(|it| wanted("grpc", it.namespace(), it.name()));
    let http = snapshot.http_routes.iter();
    let http = http.filter(|it| wanted("http", it.namespace(), it.name()));
    let stream = snapshot.stream_routes.iter();
    let stream = stream.filter(|it| wanted(it.kind.object_kind(), it.namespace(), it.name()));
    // In the order of their keys.
    let grpc = grpc.cloned().map(AnyRoute::Grpc);
    let http = http.cloned().map(AnyRoute::Http);
    let stream = stream.cloned().map(AnyRoute::Stream);
    let Page { items, next } = filter.page(grpc.chain(http).chain(stream), AnyRoute::key);
    let answer = large(context, config, move |_, out| {
        let http = items.iter().filter_map(|it| match it {
            AnyRoute::Http(route) => Some(route_view(route, http_rule)),
            _ => None,
        });
        let grpc = items.iter().filter_map(|it| match it {
            AnyRoute::Grpc(route) => Some(route_view(route, grpc_rule)),
            _ => None,
        });
        let stream = items.iter().filter_map(|it| match it {
            AnyRoute::Stream(route) => Some(stream_route(route)),
            _ => None,
        });
        let mut json = serde_json::Serializer::new(out);
        let mut map = json.serialize_map(None)?;
        map.serialize_entry("http", &Rows::new(http))?;
        map.serialize_entry("grpc", &Rows::new(grpc))?;
        map.serialize_entry("stream", &Rows::new(stream))?;
        map.end()
    });
    followed(answer, filter, "/v1/routes", next.as_deref())
}

/// `/v1/routes/{kind}/{namespace}/{name}`.
pub(super) fn route(context: &Context, names: &[String]) -> Answer {
    let config = context.state.store.load();
    let found = names.split_first();
    let found = found.and_then(|(kind, key)| find_route(&config.snapshot, kind, &key.join("/")));
    match found {
        Some(view) => Answer::json(&view),
        None => Answer::not_found(
            "no such route; kinds are HTTPRoute, GRPCRoute, TCPRoute, UDPRoute and TLSRoute, and \
             /v1/routes lists all",
        ),
    }
}

/// The kind may be written as Kubernetes does or as in keys: `HTTPRoute`, `http`.
fn find_route(snapshot: &Snapshot, kind: &str, key: &str) -> Option<Value> {
    match &*query::kind(kind) {
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
pub(super) fn backends(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let page = clusters(&config, filter);
    list_of(
        context,
        config,
        filter,
        "/v1/backends",
        page,
        |config, it| Some(backend_view(config, it)),
    )
}

/// `/v1/backends/{namespace}/{name}`; the name with its port, or without where there is one port.
pub(super) fn backend(context: &Context, names: &[String]) -> Answer {
    let key = &*names.join("/");
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
        (None, _) => Answer::not_found("no such backend; /v1/backends lists them"),
    }
}

fn backend_view(config: &RuntimeConfig, cluster: &Cluster) -> Value {
    let mut view = config::cluster(cluster);
    let Some(running) = config.clusters.get(&cluster.key) else {
        return view;
    };
    let now = since_start(Instant::now());
    let endpoints = running.cluster.endpoints().iter().map(|endpoint| {
        let (state, why) = health(running, endpoint, now);
        json!({
            "address": endpoint.address().to_string(),
            "ready": endpoint.is_ready(),
            "state": state,
            "why": why,
            "weight": endpoint.weight(),
            "zone": endpoint.zone(),
            "requests_inflight": endpoint.load().requests_active(),
            "connections_active": endpoint.load().connections_active(),
        })
    });
    view["endpoints"] = endpoints.collect();
    view["endpoints_available"] = running.cluster.available().into();
    view["endpoints_unresolved"] = running.cluster.unresolved().into();
    view["endpoints_ejected"] = running.cluster.ejected(Instant::now()).into();
    view["connections_active"] = running.metrics.connections_active().into();
    let breaker = running.breaker.as_ref();
    view["breaker"] = breaker.map(|it| it.state(now).as_str()).into();
    view
}

/// An answer that grows with the configuration.
pub(super) fn large(
    context: &Context,
    config: Arc<RuntimeConfig>,
    write: impl FnOnce(&RuntimeConfig, &mut dyn Write) -> serde_json::Result<()> + Send + 'static,
) -> Answer {
    Answer::large(&context.large, move |out| write(&config, out))
}

/// A page of a list, which tells where the next one is.
pub(super) fn list_of<T: Send + 'static>(
    context: &Context,
    config: Arc<RuntimeConfig>,
    filter: &Filter,
    path: &str,
    page: Page<T>,
    view: impl Fn(&RuntimeConfig, &T) -> Option<Value> + Send + 'static,
) -> Answer {
    let Page { items, next } = page;
    let answer = large(context, config, move |config, out| {
        let rows = items.iter().filter_map(|item| view(config, item));
        serde_json::to_writer(out, &Rows::new(rows))
    });
    followed(answer, filter, path, next.as_deref())
}

/// The same with the way to the next page, when there is one.
fn followed(answer: Answer, filter: &Filter, path: &str, next: Option<&str>) -> Answer {
    match next {
        Some(next) => answer.followed_by(path, &filter.next_query(next)),
        None => answer,
    }
}
