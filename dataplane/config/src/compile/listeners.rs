//! Listeners: from scratch, or as they were with the routes that changed.
//!
//! Called by `compile`, once for each listener of the snapshot. A listener that nothing concerns stays
//! the very same. What a rule becomes is in `rules`.

use std::collections::HashMap;
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

/// The routes of a snapshot by the listeners they are attached to: among thousands of listeners each
/// looks at its own alone.
#[derive(Default)]
pub(super) struct Routes<'a>(HashMap<&'a str, Attached<'a>>);

#[derive(Default)]
struct Attached<'a> {
    http: Vec<&'a Arc<HttpRoute>>,
    grpc: Vec<&'a Arc<GrpcRoute>>,
    streams: Vec<&'a Arc<StreamRoute>>,
}

impl<'a> Routes<'a> {
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut routes = Self::default();
        for route in snapshot.http_routes.iter() {
            for listener in places(&route.listeners) {
                routes.at(listener).http.push(route);
            }
        }
        for route in snapshot.grpc_routes.iter() {
            for listener in places(&route.listeners) {
                routes.at(listener).grpc.push(route);
            }
        }
        for route in snapshot.stream_routes.iter() {
            for listener in places(&route.listeners) {
                routes.at(listener).streams.push(route);
            }
        }
        routes
    }

    fn at(&mut self, listener: &'a str) -> &mut Attached<'a> {
        self.0.entry(listener).or_default()
    }
}

/// Each of these names once.
fn places(listeners: &[Arc<str>]) -> impl Iterator<Item = &str> {
    let is_first = |(index, name): &(usize, &Arc<str>)| !listeners[..*index].contains(name);
    let first = listeners.iter().enumerate().filter(is_first);
    first.map(|(_, name)| &**name)
}

/// What happened to the routes of each listener between two snapshots.
#[derive(Default)]
pub(super) struct ChangedRoutes<'a>(HashMap<&'a str, Changes<'a>>);

#[derive(Default)]
struct Changes<'a> {
    /// Those that were attached before and are gone, or follow below in their new form.
    removed: Vec<(RouteKind, &'a Arc<str>)>,
    gone_streams: Vec<&'a Arc<str>>,
    new: Attached<'a>,
}

impl<'a> ChangedRoutes<'a> {
    pub(super) fn between(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let mut changed = Self::default();
        for change in old.http_routes.changes(&new.http_routes) {
            let (Change::Upsert(route) | Change::Remove(route)) = change;
            if let Some(before) = old.http_routes.get(&route.key) {
                changed.remove(RouteKind::Http, &before.key, &before.listeners);
            }
            if let Change::Upsert(route) = change {
                for listener in places(&route.listeners) {
                    changed.at(listener).new.http.push(route);
                }
            }
        }
        for change in old.grpc_routes.changes(&new.grpc_routes) {
            let (Change::Upsert(route) | Change::Remove(route)) = change;
            if let Some(before) = old.grpc_routes.get(&route.key) {
                changed.remove(RouteKind::Grpc, &before.key, &before.listeners);
            }
            if let Change::Upsert(route) = change {
                for listener in places(&route.listeners) {
                    changed.at(listener).new.grpc.push(route);
                }
            }
        }
        for change in old.stream_routes.changes(&new.stream_routes) {
            let (Change::Upsert(route) | Change::Remove(route)) = change;
            if let Some(before) = old.stream_routes.get(&route.key) {
                for listener in places(&before.listeners) {
                    changed.at(listener).gone_streams.push(&before.key);
                }
            }
            if let Change::Upsert(route) = change {
                for listener in places(&route.listeners) {
                    changed.at(listener).new.streams.push(route);
                }
            }
        }
        changed
    }

    fn at(&mut self, listener: &'a str) -> &mut Changes<'a> {
        self.0.entry(listener).or_default()
    }

    fn remove(&mut self, kind: RouteKind, key: &'a Arc<str>, listeners: &'a [Arc<str>]) {
        for listener in places(listeners) {
            self.at(listener).removed.push((kind, key));
        }
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
        let has_identity =
            before.backend_identity.as_ref().map(Arc::as_ptr) == identity.map(Arc::as_ptr);
        let none = Changes::default();
        let changes = match self.0.get(&*listener.name) {
            Some(changes) => changes,
            None if has_identity => return before.clone(),
            None => &none,
        };
        let mut table = before.table.clone();
        let mut touched = !has_identity;
        for (kind, key) in &changes.removed {
            touched |= table.remove(*kind, key);
        }
        let http = changes.new.http.iter();
        let http = http.filter_map(|route| compile_http(route, listener, kept, metrics));
        let grpc = changes.new.grpc.iter();
        let grpc = grpc.filter_map(|route| compile_grpc(route, listener, kept, metrics));
        for route in http.chain(grpc) {
            table.insert(route);
            touched = true;
        }
        let mut streams = before.streams.clone();
        if let Some(streams) = &mut streams {
            for key in &changes.gone_streams {
                touched |= streams.remove(key);
            }
            for route in &changes.new.streams {
                touched |= streams.put(route, listener, kept, metrics);
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
    routes: &Routes<'_>,
    previous: &RuntimeConfig,
    identities: &Identities,
    metrics: &Metrics,
) -> Arc<ListenerConfig> {
    let (defaults, kept) = (&previous.defaults, &*previous.kept);
    let none = Attached::default();
    let attached = routes.0.get(&*listener.name).unwrap_or(&none);
    let http = attached.http.iter();
    let http = http.filter_map(|route| compile_http(route, listener, kept, metrics));
    let grpc = attached.grpc.iter();
    let grpc = grpc.filter_map(|route| compile_grpc(route, listener, kept, metrics));
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
        streams: streams_from_scratch(listener, &attached.streams, kept, metrics),
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
    routes: &[&Arc<StreamRoute>],
    kept: &Kept,
    metrics: &Metrics,
) -> Option<Streams> {
    use ListenerProtocol::{Tcp, Tls, TlsPassthrough, Udp};
    if !matches!(listener.protocol, Tcp | Udp | Tls | TlsPassthrough) {
        return None;
    }
    let mut streams = Streams::new(listener, metrics);
    for route in routes {
        streams.put(route, listener, kept, metrics);
    }
    Some(streams)
}
