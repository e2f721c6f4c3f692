//! A snapshot becomes a [`RuntimeConfig`], from scratch or by what changed since the last one.
//!
//! Called by `dataplane/src/apply.rs` before anything is swapped; a violation here means that the
//! update is refused and nothing has changed. Slow parts (regular expressions, certificates) happen
//! here, away from traffic.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ir::http_route::Timeouts;
use ir::listener::{ListenerProtocol, ListenerTls, ProxyProtocol};
use ir::policy::{RoutePolicy, SessionPersistence};
use ir::{Change, GrpcRoute, HttpRoute, Listener, Snapshot, StreamRoute, Violation, Violations};

use dataplane_resilience::circuit_breaker::Breaker;
use dataplane_resilience::retry::{Allowance, BURST_WINDOW};
use dataplane_route::hostname::HostMap;
use dataplane_route::table::{CompiledRoute, RouteKind, Table};
use dataplane_telemetry::metrics::Metrics;
use dataplane_tls::ServerTls;
use dataplane_upstream::Cluster;
use dataplane_upstream::weighted::WeightedChoice;

use crate::access::AddressLists;
use crate::ai::{AiCluster, Around};
use crate::backend_tls::{ClusterTls, Identities};
use crate::consumers;
use crate::filters::Filters;
use crate::kept::{self, Kept};
use crate::rate_limits::Limits;
use crate::runtime::{
    Backend, Bind, Clients, ClusterConfig, Consumers, ListenerConfig, ListenerDefaults, Protocol,
    Rule, RuntimeConfig,
};
use crate::sessions::{self, Place, SessionPolicy, path_of};
use crate::streams::{Streams, UdpBind, server_names};

/// Compiles `snapshot`, reusing all parts of `previous` that it leaves alone.
pub fn compile(
    snapshot: Snapshot,
    previous: &RuntimeConfig,
    metrics: &Metrics,
) -> Result<RuntimeConfig, Violations> {
    let identities = Identities::compile(&snapshot, &previous.identities);
    let around = Around {
        snapshot: &snapshot,
        identities: &identities,
        kept: &previous.kept,
        metrics,
    };
    let (clusters, ai_services) = clusters(previous, around);
    let changed = ChangedRoutes::between(&previous.snapshot, &snapshot);
    let mut listeners = BTreeMap::new();
    for listener in snapshot
        .listeners
        .iter()
        .filter(|l| protocol_of(l).is_some() || l.protocol == ListenerProtocol::Udp)
    {
        let config = match previous.listeners.get(&listener.name) {
            Some(before) if before.listener == *listener => {
                changed.apply_to(before, &identities, &previous.kept, metrics)
            }
            _ => listener_from_scratch(listener, &snapshot, previous, &identities, metrics),
        };
        listeners.insert(listener.name.clone(), config);
    }
    let workloads = consumers::workloads(&listeners, &snapshot, previous);
    let binds = binds(&listeners, &snapshot, (previous, &workloads), metrics)?;
    let udp_binds = udp_binds(&listeners, metrics);
    Ok(RuntimeConfig {
        snapshot,
        binds,
        udp_binds,
        listeners,
        clusters,
        ai_services,
        defaults: previous.defaults.clone(),
        identities,
        workloads,
        kept: previous.kept.clone(),
    })
}

/// All clusters, and the keys of those that are AI services.
fn clusters(
    previous: &RuntimeConfig,
    around: Around<'_>,
) -> (imbl::HashMap<Arc<str>, ClusterConfig>, BTreeSet<Arc<str>>) {
    let Around {
        snapshot,
        identities,
        metrics,
        ..
    } = around;
    let mut clusters = previous.clusters.clone();
    let mut ai_services = previous.ai_services.clone();
    for change in previous.snapshot.clusters.changes(&snapshot.clusters) {
        match change {
            Change::Upsert(cluster) => {
                let before = clusters.get(&cluster.key);
                let known = before.map(|config| &config.cluster);
                let compiled = Cluster::compile_in(previous.kept.zone(), cluster, known);
                let known = before.map(|config| &config.tls);
                let thresholds = cluster.policy.as_deref().and_then(|it| it.breaker.as_ref());
                let known_breaker = before.and_then(|config| config.breaker.as_ref());
                let known_ai = before.and_then(|config| config.ai.as_ref());
                let ai = AiCluster::compile(cluster, around, known_ai);
                match &ai {
                    Some(_) => ai_services.insert(cluster.key.clone()),
                    None => ai_services.remove(&cluster.key),
                };
                let compiled = ClusterConfig {
                    retry_allowance: retry_allowance(cluster),
                    access: AddressLists::compile(cluster.security_policy.as_deref()),
                    breaker: thresholds.map(|it| kept::breaker(it, known_breaker)),
                    limits: previous.kept.backend_limits(
                        &cluster.key,
                        cluster.security_policy.as_deref(),
                        metrics,
                    ),
                    session: previous.kept.sessions(
                        cluster.session_persistence.as_ref(),
                        Place {
                            kind: sessions::Kind::Cluster,
                            name: &cluster.key,
                            path: "/",
                        },
                        metrics,
                    ),
                    tls: match &ai {
                        // Each of its providers has its own.
                        Some(_) => ClusterTls::Plain,
                        None => ClusterTls::compile(compiled.tls(), identities, known),
                    },
                    ai,
                    cluster: compiled,
                    metrics: metrics.backend(&cluster.key),
                    retries: before.map_or_else(Arc::default, |config| config.retries.clone()),
                };
                clusters.insert(cluster.key.clone(), compiled);
            }
            Change::Remove(cluster) => {
                clusters.remove(&cluster.key);
                ai_services.remove(&cluster.key);
            }
        }
    }
    let is_reidentified = !identities.is_same(&previous.identities);
    if is_reidentified {
        reidentify(&mut clusters, identities);
    }
    renew(
        &mut clusters,
        &ai_services,
        previous,
        around,
        is_reidentified,
    );
    (clusters, ai_services)
}

/// Compiles the AI services anew whose secrets have changed.
fn renew(
    clusters: &mut imbl::HashMap<Arc<str>, ClusterConfig>,
    ai_services: &BTreeSet<Arc<str>>,
    previous: &RuntimeConfig,
    around: Around<'_>,
    all: bool,
) {
    if ai_services.is_empty() {
        return;
    }
    let secrets = previous.snapshot.secrets.changes(&around.snapshot.secrets);
    let changed: Vec<_> = secrets
        .map(|change| match change {
            Change::Upsert(secret) | Change::Remove(secret) => &secret.key,
        })
        .collect();
    for key in ai_services {
        let Some(config) = clusters.get(key) else {
            continue;
        };
        let concerns = |ai: &Arc<AiCluster>| all || changed.iter().any(|secret| ai.reads(secret));
        let stale = config.ai.as_ref().filter(|ai| concerns(ai));
        let Some(ai) = stale.and_then(|ai| ai.renewed(around)) else {
            continue;
        };
        if let Some(config) = clusters.get_mut(key) {
            config.ai = Some(ai);
        }
    }
}

/// The cluster's own budget for retries; its burst comes back within the budget's window.
fn retry_allowance(cluster: &ir::Cluster) -> Option<Allowance> {
    let budget = cluster.policy.as_deref()?.retry_budget?;
    let window = u32::try_from(BURST_WINDOW.as_secs()).unwrap_or(u32::MAX);
    Some(Allowance {
        ratio_percent: u32::from(budget.percent),
        burst: budget.min_per_second.saturating_mul(window),
    })
}

/// Brings the TLS of every cluster in line with other client certificates.
fn reidentify(clusters: &mut imbl::HashMap<Arc<str>, ClusterConfig>, identities: &Identities) {
    let secured = clusters
        .iter()
        .filter(|(_, config)| config.tls.has_policy());
    let keys: Vec<_> = secured.map(|(key, _)| key.clone()).collect();
    for key in keys {
        if let Some(config) = clusters.get_mut(&key) {
            config.tls = ClusterTls::compile(config.cluster.tls(), identities, Some(&config.tls));
        }
    }
}

/// What happened to routes between two snapshots.
struct ChangedRoutes<'a> {
    removed: Vec<(RouteKind, &'a Arc<str>)>,
    http: Vec<&'a Arc<HttpRoute>>,
    grpc: Vec<&'a Arc<GrpcRoute>>,
    streams: Vec<Change<'a, StreamRoute>>,
}

impl<'a> ChangedRoutes<'a> {
    fn between(old: &'a Snapshot, new: &'a Snapshot) -> Self {
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
    fn apply_to(
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

fn listener_from_scratch(
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

/// The hosts that a route serves on a listener; `None` when it serves none.
fn hosts_on<R>(route: &ir::http_route::Route<R>, listener: &Listener) -> Option<Vec<ir::Hostname>> {
    if !route.listeners.contains(&listener.name) {
        return None;
    }
    // A mesh listener stands for its Service, whatever the client calls it (GEP-1294).
    if route.hostnames.is_empty() || listener.is_mesh() {
        return Some(listener.hostnames.clone());
    }
    if listener.hostnames.is_empty() {
        return Some(route.hostnames.clone());
    }
    let hosts: BTreeSet<_> = route
        .hostnames
        .iter()
        .flat_map(|host| {
            listener
                .hostnames
                .iter()
                .filter_map(|served| host.intersect(served))
        })
        .collect();
    (!hosts.is_empty()).then(|| hosts.into_iter().collect())
}

fn compile_http(
    route: &HttpRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let hosts = hosts_on(route, listener)?;
    let limits = kept.route_limits(&route.key, route.security_policy.as_deref(), metrics);
    let registry = metrics;
    let metrics = registry.route(&route.key, &listener.name);
    let access = AddressLists::compile(route.security_policy.as_deref());
    Some(CompiledRoute::http(route, &hosts, |index| {
        let rule = &route.rules[index];
        let parts = Parts {
            route: &route.key,
            policy: route.policy.as_deref(),
            access: access.clone(),
            kept,
            limits: &limits,
            filters: &rule.filters,
            backends: &rule.backends,
            session: rule.session_persistence.as_ref(),
            path: path_of(&rule.matches),
            registry,
        };
        let base = parts.rule(RouteKind::Http, index, rule.name.clone(), metrics.clone());
        let timeouts = &rule.timeouts;
        let limit = |own: Option<Duration>, base| own.map_or(base, non_zero);
        Arc::new(Rule {
            request_timeout: limit(timeouts.request, base.request_timeout),
            backend_request_timeout: limit(timeouts.backend_request, base.backend_request_timeout),
            has_timeouts: base.has_timeouts || *timeouts != Timeouts::default(),
            retry: rule.retry.clone(),
            ..base
        })
    }))
}

fn compile_grpc(
    route: &GrpcRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let hosts = hosts_on(route, listener)?;
    let limits = kept.route_limits(&route.key, route.security_policy.as_deref(), metrics);
    let registry = metrics;
    let metrics = registry.route(&route.key, &listener.name);
    let access = AddressLists::compile(route.security_policy.as_deref());
    Some(CompiledRoute::grpc(route, &hosts, |index| {
        let rule = &route.rules[index];
        let parts = Parts {
            route: &route.key,
            policy: route.policy.as_deref(),
            access: access.clone(),
            kept,
            limits: &limits,
            filters: &rule.filters,
            backends: &rule.backends,
            session: rule.session_persistence.as_ref(),
            path: "/",
            registry,
        };
        Arc::new(parts.rule(RouteKind::Grpc, index, rule.name.clone(), metrics.clone()))
    }))
}

/// Gateway API: a timeout of zero is none.
fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// What HTTP and gRPC rules have in common.
struct Parts<'a> {
    route: &'a Arc<str>,
    policy: Option<&'a RoutePolicy>,
    access: Option<Arc<AddressLists>>,
    kept: &'a Kept,
    limits: &'a Limits,
    filters: &'a [ir::Filter],
    backends: &'a [ir::http_route::BackendRef],
    session: Option<&'a SessionPersistence>,
    /// The path for which cookies are sent back.
    path: &'a str,
    registry: &'a Metrics,
}

impl Parts<'_> {
    /// The route's own breaker in front of the cluster that is meant.
    fn breaker(&self, target: &ir::backend::BackendTarget) -> Option<Arc<Breaker>> {
        let thresholds = self.policy?.breaker.as_ref()?;
        // By what it names and not by a key: of two ports of a Service each is a cluster.
        let is_resolved = !target.cluster_keys.is_empty();
        is_resolved.then(|| self.kept.breaker(self.route, &target.display, thresholds))
    }

    /// How the rule keeps clients at their endpoints, if it does.
    fn session(
        &self,
        kind: RouteKind,
        index: usize,
        name: Option<&str>,
    ) -> Option<Arc<SessionPolicy>> {
        let source = self.session?;
        // A rule with a name is the same one wherever it stands.
        let name = match name {
            Some(name) => format!("{kind:?}/{}/{name}", self.route),
            None => format!("{kind:?}/{}/{index}", self.route),
        };
        let place = Place {
            kind: sessions::Kind::Rule,
            name: &name,
            path: self.path,
        };
        self.kept.sessions(Some(source), place, self.registry)
    }

    fn rule(
        self,
        kind: RouteKind,
        index: usize,
        name: Option<String>,
        metrics: Arc<dataplane_telemetry::metrics::RouteMetrics>,
    ) -> Rule {
        let backends = self.backends.iter().map(|backend| Backend {
            display: backend.target.display.clone(),
            cluster_keys: backend.target.cluster_keys.clone(),
            filters: Filters::compile(&backend.filters),
            breaker: self.breaker(&backend.target),
            weight: backend.weight,
        });
        let choice = WeightedChoice::new(self.backends.iter().map(|backend| backend.weight));
        let none = RoutePolicy::default();
        let policy = self.policy.unwrap_or(&none);
        let session = self.session(kind, index, name.as_deref());
        Rule {
            route: self.route.clone(),
            kind,
            index,
            name,
            limits: self.limits.clone(),
            access: self.access.clone(),
            filters: Filters::compile(self.filters),
            backends: backends.collect(),
            choice,
            session,
            request_timeout: policy.request_timeout,
            backend_request_timeout: policy.backend_request_timeout,
            has_timeouts: policy.request_timeout.is_some()
                || policy.backend_request_timeout.is_some(),
            retry: None,
            next_upstream_timeout: policy.next_upstream_timeout,
            connect_timeout: policy.connect_timeout,
            request_body_bytes_max: policy.request_body_bytes_max,
            request_body_buffer_bytes: policy.request_body_buffer_bytes,
            request_buffering: policy.request_buffering.unwrap_or(false),
            request_header_bytes_max: policy.request_header_bytes_max,
            keepalive_requests_max: policy.keepalive_requests,
            metrics,
        }
    }
}

/// What is served by this data plane so far.
fn protocol_of(listener: &Listener) -> Option<Protocol> {
    match listener.protocol {
        ListenerProtocol::Http => Some(Protocol::Http),
        ListenerProtocol::Https => Some(Protocol::Https),
        ListenerProtocol::Grpc if listener.tls.is_some() => Some(Protocol::Https),
        ListenerProtocol::Grpc => Some(Protocol::Http),
        ListenerProtocol::Tcp => Some(Protocol::Tcp),
        ListenerProtocol::Tls | ListenerProtocol::TlsPassthrough => Some(Protocol::Tls),
        ListenerProtocol::Udp | ListenerProtocol::Http3 => None,
    }
}

fn binds(
    listeners: &BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    snapshot: &Snapshot,
    (previous, workloads): (&RuntimeConfig, &Arc<HashMap<IpAddr, Arc<str>>>),
    metrics: &Metrics,
) -> Result<BTreeMap<SocketAddr, Arc<Bind>>, Violations> {
    let mut by_address: BTreeMap<SocketAddr, Vec<&Arc<ListenerConfig>>> = BTreeMap::new();
    let of_tcp = listeners
        .values()
        .filter(|config| protocol_of(&config.listener).is_some());
    for config in of_tcp {
        for address in &config.listener.addresses {
            let address = SocketAddr::new(*address, config.listener.port.get());
            by_address.entry(address).or_default().push(config);
        }
    }
    let mut violations = Violations::default();
    let mut binds = BTreeMap::new();
    for (address, configs) in by_address {
        let (configs, consumers) = consumers::set_apart(configs, workloads);
        if configs.is_empty() {
            continue;
        }
        match bind(address, (&configs, consumers), snapshot, previous, metrics) {
            Ok(bind) => {
                binds.insert(address, bind);
            }
            Err(found) => violations.extend(found),
        }
    }
    if violations.is_empty() {
        Ok(binds)
    } else {
        Err(violations)
    }
}

fn bind(
    address: SocketAddr,
    (configs, consumers): (&[&Arc<ListenerConfig>], Option<Consumers>),
    snapshot: &Snapshot,
    previous: &RuntimeConfig,
    metrics: &Metrics,
) -> Result<Arc<Bind>, Violations> {
    let defaults = &*previous.defaults;
    // `ir` has refused listeners that cannot share a socket; those of TLS can.
    let protocols: Vec<_> = configs
        .iter()
        .filter_map(|c| protocol_of(&c.listener))
        .collect();
    let protocol = match protocols.as_slice() {
        many if many.contains(&Protocol::Tls) => Protocol::Tls,
        many => many.first().copied().unwrap_or(Protocol::Http),
    };
    let passes_through = |config: &&&Arc<ListenerConfig>| {
        config.listener.protocol == ListenerProtocol::TlsPassthrough
    };
    let ends_tls = |config: &&&Arc<ListenerConfig>| !passes_through(config);
    let tls = match protocol {
        Protocol::Http | Protocol::Tcp => None,
        Protocol::Https | Protocol::Tls => {
            let parts = configs.iter().filter(ends_tls);
            let parts = parts.map(|config| bounded(&config.listener, defaults));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<&Listener> = parts.iter().map(|listener| &**listener).collect();
            let before = previous.binds.get(&address);
            let before = before.and_then(|bind| bind.tls.as_deref());
            let compile = || ServerTls::compile(&parts, &snapshot.secrets, before).map(Arc::new);
            (!parts.is_empty()).then(compile).transpose()?
        }
    };
    let by_server_name = match protocol {
        Protocol::Tls => by_server_name(configs),
        _ => HostMap::default(),
    };
    let mut by_host = HostMap::default();
    for config in configs {
        if config.listener.hostnames.is_empty() {
            by_host.insert(None, Arc::clone(config));
        }
        for host in &config.listener.hostnames {
            by_host.insert(Some(host), Arc::clone(config));
        }
    }
    let first = &configs[0].listener;
    // `ir` has refused listeners of different minds about this on one socket.
    let proxy_protocol = first.settings.proxy_protocol.as_ref();
    let proxy_protocol = match proxy_protocol.unwrap_or(&defaults.proxy_protocol) {
        ProxyProtocol::Off => None,
        ProxyProtocol::Required(sources) => Some(sources.clone()),
    };
    Ok(Arc::new(Bind {
        address,
        protocol,
        passes_through: configs.iter().any(|config| passes_through(&config)),
        by_server_name,
        tls,
        listeners: by_host,
        consumers,
        public_port: first.public_port(),
        proxy_protocol,
        metrics: metrics.listener(&first.name),
    }))
}

fn by_server_name(configs: &[&Arc<ListenerConfig>]) -> HostMap<Arc<ListenerConfig>> {
    let mut map = HostMap::default();
    for config in configs {
        let names = server_names(&config.listener);
        if names.is_empty() {
            map.insert(None, Arc::clone(config));
        }
        for name in names {
            map.insert(Some(name), Arc::clone(config));
        }
    }
    map
}

fn udp_binds(
    listeners: &BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    metrics: &Metrics,
) -> BTreeMap<SocketAddr, Arc<UdpBind>> {
    let mut binds = BTreeMap::new();
    for config in listeners.values() {
        let listener = &config.listener;
        if listener.protocol != ListenerProtocol::Udp {
            continue;
        }
        for ip in &listener.addresses {
            let address = SocketAddr::new(*ip, listener.port.get());
            let bind = UdpBind {
                address,
                listener: listener.name.clone(),
                access: config.access.clone(),
                streams: config
                    .streams
                    .clone()
                    .unwrap_or_else(|| Streams::new(listener, metrics)),
                metrics: metrics.listener(&listener.name),
            };
            binds.insert(address, Arc::new(bind));
        }
    }
    binds
}

/// The listener with TLS versions that the process speaks too.
fn bounded<'a>(
    listener: &'a Listener,
    defaults: &ListenerDefaults,
) -> Result<Cow<'a, Listener>, Violations> {
    let Some(tls) = &listener.tls else {
        return Ok(Cow::Borrowed(listener));
    };
    let min_version = tls.min_version.max(defaults.tls_min_version);
    let max_version = tls.max_version.min(defaults.tls_max_version);
    if (min_version, max_version) == (tls.min_version, tls.max_version) {
        return Ok(Cow::Borrowed(listener));
    }
    if min_version > max_version {
        return Err(Violations::from(Violation {
            object: format!("Listener {}", listener.name),
            path: "tls".to_owned(),
            message: "speaks no version of TLS that this data plane speaks, see \
                      runtime.tlsMinVersion and runtime.tlsMaxVersion"
                .to_owned(),
        }));
    }
    let mut bounded = listener.clone();
    bounded.tls = Some(ListenerTls {
        min_version,
        max_version,
        ..tls.clone()
    });
    Ok(Cow::Owned(bounded))
}
