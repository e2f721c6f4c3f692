//! Listeners: from scratch, or as they were with the routes that changed.
//!
//! Called by `compile`, once for each listener of the snapshot. A listener that nothing concerns stays
//! the very same. What a rule becomes is in `rules`.

use std::sync::Arc;

use ir::listener::ListenerProtocol;
use ir::{Change, GrpcRoute, HttpRoute, Listener, Snapshot, StreamRoute};

use dataplane_route::table::{RouteKind, Table};
use dataplane_telemetry::metrics::Metrics;

use crate::access::AddressLists;
use crate::backend_tls::Identities;
use crate::kept::Kept;
use crate::runtime::{Clients, ListenerConfig, RuntimeConfig};
use crate::streams::Streams;

use super::rules::{compile_grpc, compile_http};

/// What happened to routes between two snapshots.
pub(super) struct ChangedRoutes<'a> {
    removed: Vec<(RouteKind, &'a Arc<str>)>,
    http: Vec<&'a Arc<HttpRoute>>,
    grpc: Vec<&'a Arc<GrpcRoute>>,
    streams: Vec<Change<'a, StreamRoute>>,
}

impl<'a> ChangedRoutes<'a> {
    pub(super) fn between(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let mut changed = Self {
            removed: Vec::new(),
            http: Vec::new(),
            grpc: Vec::new(),
            streams: old.stream_routes.changes(&new.stream_routes).collect(),
        };
        for change in old.http_routes.changes(&new.http_routes) {
            match change {
                Change::Upsert(route) => changed.http.push(route),
                Change::Remove(route) => changed.removed.push((RouteKind::Http, &route.key)),
            }
        }
        for change in old.grpc_routes.changes(&new.grpc_routes) {
            match change {
                Change::Upsert(route) => changed.grpc.push(route),
                Change::Remove(route) => changed.removed.push((RouteKind::Grpc, &route.key)),
            }
        }
        changed
    }

    /// The listener with these changes made; the same one when none concerns it.
    pub(super) fn apply_to(
        &self,
        before: &Arc<ListenerConfig>,
        identities: &Identities,
        kept: &Kept,
        metrics: &Metrics,
    ) -> Arc<ListenerConfig> {
        let listener = &before.listener;
        let identity = identities.of(listener);
        let mut table = before.table.clone();
        let mut touched =
            before.backend_identity.as_ref().map(Arc::as_ptr) != identity.map(Arc::as_ptr);
        for (kind, key) in &self.removed {
            touched |= table.remove(*kind, key);
        }
        for route in &self.http {
            touched |= table.remove(RouteKind::Http, &route.key);
            if let Some(compiled) = compile_http(route, listener, kept, metrics) {
                table.insert(compiled);
                touched = true;
            }
        }
        for route in &self.grpc {
            touched |= table.remove(RouteKind::Grpc, &route.key);
            if let Some(compiled) = compile_grpc(route, listener, kept, metrics) {
                table.insert(compiled);
                touched = true;
            }
        }
        let mut streams = before.streams.clone();
        if let Some(streams) = &mut streams {
            for change in &self.streams {
                touched |= match change {
                    Change::Upsert(route) => streams.put(route, listener, metrics),
                    Change::Remove(route) => streams.remove(&route.key),
                };
            }
        }
        if !touched {
            return before.clone();
        }
        Arc::new(ListenerConfig {
            listener: listener.clone(),
            table,
            backend_identity: identity.cloned(),
            unrouted: before.unrouted.clone(),
            access: before.access.clone(),
            clients: before.clients.clone(),
            streams,
            limits: before.limits.clone(),
            drain: before.drain.clone(),
            ..**before
        })
    }
}

pub(super) fn listener_from_scratch(
    listener: &Arc<Listener>,
    snapshot: &Snapshot,
    previous: &RuntimeConfig,
    identities: &Identities,
    metrics: &Metrics,
) -> Arc<ListenerConfig> {
    let (defaults, kept) = (&previous.defaults, &*previous.kept);
    let http = snapshot
        .http_routes
        .iter()
        .filter_map(|r| compile_http(r, listener, kept, metrics));
    let grpc = snapshot
        .grpc_routes
        .iter()
        .filter_map(|r| compile_grpc(r, listener, kept, metrics));
    let mut table = Table::default();
    http.chain(grpc).for_each(|route| table.insert(route));
    let settings = &listener.settings;
    Arc::new(ListenerConfig {
        listener: listener.clone(),
        escaped_slashes: settings.escaped_slashes.unwrap_or(defaults.escaped_slashes),
        merge_slashes: settings.merge_slashes.unwrap_or(defaults.merge_slashes),
        clients: Clients::compile(settings, &defaults.clients),
        table,
        backend_identity: identities.of(listener).cloned(),
        unrouted: metrics.listener(&listener.name),
        access: AddressLists::compile(listener.security_policy.as_deref()),
        limits: kept.listener_limits(&listener.name, listener.security_policy.as_deref(), metrics),
        streams: streams_from_scratch(listener, snapshot, metrics),
        drain: previous
            .listeners
            .get(&listener.name)
            .filter(|before| is_at_the_same_place(&before.listener, listener))
            .map_or_else(Arc::default, |before| before.drain.clone()),
    })
}

/// Whether connections of the one may go on as those of the other.
fn is_at_the_same_place(one: &Listener, other: &Listener) -> bool {
    (one.port, one.protocol) == (other.port, other.protocol) && one.addresses == other.addresses
}

fn streams_from_scratch(
    listener: &Listener,
    snapshot: &Snapshot,
    metrics: &Metrics,
) -> Option<Streams> {
    use ListenerProtocol::{Tcp, Tls, TlsPassthrough, Udp};
    if !matches!(listener.protocol, Tcp | Udp | Tls | TlsPassthrough) {
        return None;
    }
    let mut streams = Streams::new(listener, metrics);
    for route in snapshot.stream_routes.iter() {
        streams.put(route, listener, metrics);
    }
    Some(streams)
}
