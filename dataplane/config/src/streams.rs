//! TCP, UDP and TLS routes as a connection or datagram reads them.
//!
//! Compiled by `compile.rs` together with everything else. A listener keeps its stream routes in a
//! table of their own beside those of HTTP; here is what a rule of one carries, and what a listener
//! does with TLS.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ir::Listener;
use ir::listener::ListenerProtocol;
use ir::stream_route::{StreamKind, StreamRoute, TlsRouteMode};

use dataplane_route::stream_match::{CompiledStream, ListenerFacts, StreamTable};
use dataplane_telemetry::access_log::Override;
use dataplane_telemetry::metrics::{ListenerMetrics, Metrics, StreamMetrics};
use dataplane_upstream::weighted::WeightedChoice;

use crate::access::AddressLists;
use crate::kept::Kept;
use crate::observed;

/// The stream routes of one listener.
#[derive(Clone)]
pub struct Streams {
    table: StreamTable<Arc<StreamRule>>,
    /// Figures of what no route takes.
    pub unrouted: Arc<StreamMetrics>,
}

/// One rule of a stream route on one listener.
#[derive(Debug)]
pub struct StreamRule {
    /// `kind/namespace/name` of the route.
    pub route: Arc<str>,
    /// What it carries.
    pub kind: StreamKind,
    /// Position of the rule in its route.
    pub index: usize,
    /// Where connections go; empty means nowhere.
    pub backends: Vec<StreamBackend>,
    /// Chooses among `backends`.
    pub choice: WeightedChoice,
    /// What its lines of the access log are like; absent for as all.
    pub log: Option<Arc<Override>>,
    /// Figures of this route on this listener.
    pub metrics: Arc<StreamMetrics>,
}

/// One backend of a stream rule.
#[derive(Debug)]
pub struct StreamBackend {
    /// What it names, for logs.
    pub display: Arc<str>,
    /// Keys its cluster may have; empty when it could not be resolved.
    pub cluster_keys: Vec<Arc<str>>,
}

/// One UDP socket.
#[derive(Debug)]
pub struct UdpBind {
    /// Where it is bound.
    pub address: SocketAddr,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Clients that may not come in; absent for none.
    pub access: Option<Arc<AddressLists>>,
    /// Its routes.
    pub streams: Streams,
    /// Figures of the listener.
    pub metrics: Arc<ListenerMetrics>,
}

impl Streams {
    /// No route yet.
    pub(crate) fn new(listener: &Listener, metrics: &Metrics) -> Self {
        Self {
            table: StreamTable::default(),
            unrouted: metrics.stream("none", &listener.name),
        }
    }

    /// The rule for a client that asked for `name` by TLS, or for no name.
    pub fn lookup(&self, name: Option<&str>) -> Option<&Arc<StreamRule>> {
        self.table.lookup(name)
    }

    /// Number of routes.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// True when there is no route.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Puts a route in, or in the place of the one with its key; true when that changes anything.
    pub(crate) fn put(
        &mut self,
        route: &StreamRoute,
        listener: &Listener,
        kept: &Kept,
        metrics: &Metrics,
    ) -> bool {
        let was_there = self.table.remove(&route.key);
        let Some(compiled) = compile(route, listener, kept, metrics) else {
            return was_there;
        };
        self.table.insert(compiled);
        true
    }

    /// Takes a route out; false when it is not there.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        self.table.remove(key)
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

/// The route as `listener` serves it; nothing when it does not.
fn compile(
    route: &StreamRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledStream<Arc<StreamRule>>> {
    if !route.listeners.contains(&listener.name) || !carries(listener.protocol, route.kind) {
        return None;
    }
    let facts = ListenerFacts {
        port: listener.port.get(),
        hostnames: server_names(listener),
        mode: tls_mode(listener),
    };
    let log = observed::access_log(&route.annotations, kept.access_log_prefix());
    CompiledStream::new(route, facts, |index| {
        let rule = &route.rules[index];
        let backends = rule.backends.iter().map(|backend| StreamBackend {
            display: backend.target.display.clone(),
            cluster_keys: backend.target.cluster_keys.clone(),
        });
        Arc::new(StreamRule {
            route: route.key.clone(),
            kind: route.kind,
            index,
            backends: backends.collect(),
            choice: WeightedChoice::new(rule.backends.iter().map(|backend| backend.weight)),
            log: log.clone(),
            metrics: metrics.stream(&route.key, &listener.name),
        })
    })
}

/// Whether routes of that kind make sense on a listener (Gateway API, "Routes and protocols").
fn carries(protocol: ListenerProtocol, kind: StreamKind) -> bool {
    match protocol {
        ListenerProtocol::Tcp => kind == StreamKind::Tcp,
        ListenerProtocol::Udp => kind == StreamKind::Udp,
        ListenerProtocol::TlsPassthrough => kind == StreamKind::Tls,
        ListenerProtocol::Tls => kind != StreamKind::Udp,
        _ => false,
    }
}

/// The names by which TLS clients ask for a listener; none means any.
pub(crate) fn server_names(listener: &Listener) -> &[ir::Hostname] {
    match &listener.tls {
        Some(tls) if !tls.sni_hosts.is_empty() => &tls.sni_hosts,
        _ => &listener.hostnames,
    }
}

fn tls_mode(listener: &Listener) -> Option<TlsRouteMode> {
    match listener.protocol {
        ListenerProtocol::TlsPassthrough => Some(TlsRouteMode::Passthrough),
        ListenerProtocol::Tls => Some(TlsRouteMode::Terminate),
        _ => None,
    }
}
