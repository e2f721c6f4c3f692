//! Every metric of the data plane, and the text a scrape gets.
//!
//! [`Metrics`] is made once in `app.rs` and shared. Whoever compiles configuration asks it for
//! handles by name and keeps them; whoever serves records through the handles and never looks a
//! name up. The families are declared in `metrics/family.rs`, the samples are written by the group
//! that owns them.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

mod admin;
mod ai;
mod backend;
mod contract;
mod last_good;
mod live;
mod mirror;
mod overload;
mod plugin;
mod process;
mod rate_limit;
mod session;
mod stream;
mod traffic;
mod upstream;
mod xds;

mod exposition;
mod family;
mod instrument;
mod request;

pub use admin::AdminMetrics;
pub use ai::{AiCalls, AiMetrics, AiUsage, CallName, Gathered, Spread, Times, Tokens};
pub use backend::{BackendConnection, BackendMetrics, Denied};
pub use exposition::Format;
pub use family::{FamilyDoc, Kind, reference};
pub use instrument::{Counter, Gauge, Histogram};
pub use last_good::LastGoodMetrics;
pub use live::{Live, LiveBackend, LiveRateLimit};
pub use mirror::MirrorResult;
pub use overload::{OverloadMetrics, OverloadScope};
pub use plugin::{CustomKind, CustomMetric, ModuleMetrics, PluginFailure, PluginMetrics};
pub use process::ProcessMetrics;
pub use rate_limit::RateLimitMetrics;
pub use session::SessionMetrics;
pub use stream::{DatagramDrop, OpenSession, StreamMetrics};
pub use traffic::{
    AcceptPause, ConnectionLimit, Http2Limit, LifeLimit, ListenerMetrics, OpenConnection,
    RequestInFlight, RouteMetrics,
};
pub use upstream::UpstreamMetrics;
pub use xds::{ApplyStage, XdsMetrics};

use exposition::Exposition;
use instrument::ShardCount;

/// What names of families begin with, but for those that have a usual name.
pub const PREFIX: &str = "nantian_gateway_dataplane_";
/// What they began with once, and begin with where somebody asks for it.
pub const FORMER_PREFIX: &str = "nantian_gw_dataplane_";

/// All metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    /// What the applied configuration holds, and whether it serves.
    pub inventory: Inventory,
    /// The configuration stream.
    pub xds: XdsMetrics,
    /// The admin API.
    pub admin: AdminMetrics,
    /// Overload; shared with those who act on it.
    pub overload: Arc<OverloadMetrics>,
    /// The configuration on disk; shared with its writer.
    pub last_good: Arc<LastGoodMetrics>,
    /// The process itself.
    pub process: ProcessMetrics,
    /// The access log; shared with its writer thread.
    pub access_log: Arc<AccessLogMetrics>,
    /// The process's own log; shared with its writer thread.
    pub log: Arc<LogMetrics>,
    /// Traces; shared with the thread that sends them.
    pub traces: Arc<TraceMetrics>,
    /// Modules of plugins, all together.
    pub modules: ModuleMetrics,
    /// Attempts of all routes.
    pub upstream: UpstreamMetrics,
    all_backends: Arc<backend::AllBackends>,
    /// Persistent sessions; shared with those who keep them.
    pub sessions: Arc<SessionMetrics>,
    limits: OnceLock<Vec<(&'static str, u64)>>,
    rate_limit_evictions: AtomicU64,
    token_budget_evictions: AtomicU64,
    datagrams: Arc<stream::DatagramTotals>,
    shards: ShardCount,
    named: Mutex<Named>,
}

/// Kind of the object that a limit of rate stands in, that object's name, and the limit's own.
type RateLimitName = (&'static str, Arc<str>, Arc<str>);

/// The handles by name; sorted, so that a scrape is.
#[derive(Debug, Default)]
struct Named {
    listeners: BTreeMap<Arc<str>, Arc<ListenerMetrics>>,
    /// By route and listener.
    routes: BTreeMap<(Arc<str>, Arc<str>), Arc<RouteMetrics>>,
    backends: BTreeMap<Arc<str>, Arc<BackendMetrics>>,
    /// By route and listener.
    streams: BTreeMap<(Arc<str>, Arc<str>), Arc<StreamMetrics>>,
    /// For as long as a configuration holds them.
    rate_limits: BTreeMap<RateLimitName, Weak<RateLimitMetrics>>,
    /// By the cluster's key, for as long as a configuration holds them.
    ai: BTreeMap<Arc<str>, Weak<AiMetrics>>,
    /// By `namespace/name`, for as long as somebody runs them.
    plugins: BTreeMap<Arc<str>, Weak<PluginMetrics>>,
    /// What was counted under names that are gone.
    gone: contract::Gone,
}

impl Metrics {
    /// No series yet but those without names; one shard per core.
    pub fn new() -> Arc<Self> {
        Self::with_shards(ShardCount::for_this_machine())
    }

    fn with_shards(shards: ShardCount) -> Arc<Self> {
        Arc::new(Self {
            inventory: Inventory::default(),
            xds: XdsMetrics::default(),
            admin: AdminMetrics::default(),
            overload: Arc::default(),
            last_good: Arc::default(),
            process: ProcessMetrics::default(),
            access_log: Arc::default(),
            log: Arc::default(),
            traces: Arc::default(),
            modules: ModuleMetrics::default(),
            upstream: UpstreamMetrics::new(shards),
            limits: OnceLock::new(),
            all_backends: Arc::new(backend::AllBackends::new(shards)),
            sessions: Arc::default(),
            rate_limit_evictions: AtomicU64::new(0),
            token_budget_evictions: AtomicU64::new(0),
            datagrams: Arc::default(),
            shards,
            named: Mutex::default(),
        })
    }

    /// The handle of a listener, made on first use.
    pub fn listener(&self, name: &str) -> Arc<ListenerMetrics> {
        self.named().listener(name, self.shards)
    }

    /// The handle of a route on a listener, made on first use. Both names become label values, so
    /// they come from configuration: `Http/namespace/name` and the listener's name.
    pub fn route(&self, route: &str, listener: &str) -> Arc<RouteMetrics> {
        let mut named = self.named();
        let listener = named.listener(listener, self.shards);
        let route: Arc<str> = route.into();
        let key = (route, Arc::clone(listener.shared_name()));
        if let Some(known) = named.routes.get(&key) {
            return Arc::clone(known);
        }
        let made = Arc::new(RouteMetrics::new(&key.0, listener));
        named.routes.insert(key, Arc::clone(&made));
        made
    }

    /// The handle of a stream route on a listener, made on first use; the route is
    /// `kind/namespace/name`, or `none` for what no route takes.
    pub fn stream(&self, route: &str, listener: &str) -> Arc<StreamMetrics> {
        let mut named = self.named();
        let key = (Arc::from(route), Arc::from(listener));
        if let Some(known) = named.streams.get(&key) {
            return Arc::clone(known);
        }
        let all = self.datagrams.clone();
        let made = Arc::new(StreamMetrics::new(route, listener, self.shards, all));
        named.streams.insert(key, Arc::clone(&made));
        made
    }

    /// Removes one stream route on all its listeners.
    pub fn remove_stream(&self, route: &str) {
        self.named().retain_streams(|name, _, _| name != route);
    }

    /// The handle of a limit of rate, made on first use: what kind of object it stands in front of,
    /// that object's name, and its own. Its series vanish with the last holder of the handle.
    pub fn rate_limit(
        &self,
        scope: &'static str,
        object: &str,
        limit: &str,
    ) -> Arc<RateLimitMetrics> {
        let mut named = self.named();
        let key = (scope, Arc::from(object), Arc::from(limit));
        if let Some(known) = named.rate_limits.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        named.rate_limits.retain(|_, it| it.strong_count() > 0);
        let made = Arc::new(RateLimitMetrics::new(scope, object, limit));
        named.rate_limits.insert(key, Arc::downgrade(&made));
        made
    }

    /// The handle of an AI service, made on first use; the name is its cluster's key. Its series vanish
    /// with the last holder of the handle.
    pub fn ai(&self, service: &str) -> Arc<AiMetrics> {
        let mut named = self.named();
        if let Some(known) = named.ai.get(service).and_then(Weak::upgrade) {
            return known;
        }
        named.ai.retain(|_, it| it.strong_count() > 0);
        let made = Arc::new(AiMetrics::new(service));
        named.ai.insert(service.into(), Arc::downgrade(&made));
        made
    }

    /// The handle of a plugin, made on first use; the name is `namespace/name`. Its series vanish with
    /// the last holder of the handle.
    pub fn plugin(&self, name: &str) -> Arc<PluginMetrics> {
        let mut named = self.named();
        if let Some(known) = named.plugins.get(name).and_then(Weak::upgrade) {
            return known;
        }
        named.plugins.retain(|_, it| it.strong_count() > 0);
        let made = Arc::new(PluginMetrics::new(name));
        named.plugins.insert(name.into(), Arc::downgrade(&made));
        made
    }

    /// The handle of a backend, made on first use; the name is its cluster's key.
    pub fn backend(&self, name: &Arc<str>) -> Arc<BackendMetrics> {
        let mut named = self.named();
        if let Some(known) = named.backends.get(name) {
            return Arc::clone(known);
        }
        let made = Arc::new(BackendMetrics::new(name, &self.all_backends));
        named.backends.insert(Arc::clone(name), Arc::clone(&made));
        made
    }

    /// Keeps the routes for which `keep(route, listener)` holds; the series of the others vanish.
    pub fn retain_routes(&self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.named()
            .retain_routes(|route, listener, _| keep(route, listener));
    }

    /// Removes one route on all its listeners, in time that does not grow with their number.
    pub fn remove_route(&self, route: &str) {
        let mut named = self.named();
        let first = (Arc::from(route), Arc::from(""));
        let keys: Vec<_> = named
            .routes
            .range(first..)
            .map(|(key, _)| key)
            .take_while(|(name, _)| &**name == route)
            .cloned()
            .collect();
        for key in keys {
            if let Some(route) = named.routes.remove(&key) {
                named.gone.route(route.totals());
            }
        }
    }

    /// Keeps the listeners for which `keep` holds; the others vanish together with their routes.
    pub fn retain_listeners(&self, mut keep: impl FnMut(&str) -> bool) {
        let mut named = self.named();
        named.retain_routes(|_, listener, _| keep(listener));
        named.retain_streams(|_, listener, _| keep(listener));
        named.retain_listeners(|name, _| keep(name));
    }

    /// Keeps the backends for which `keep` holds.
    pub fn retain_backends(&self, mut keep: impl FnMut(&str) -> bool) {
        self.named().backends.retain(|name, _| keep(name));
    }

    /// Removes one backend.
    pub fn remove_backend(&self, name: &str) {
        self.named().backends.remove(name);
    }

    /// Forgets the handles that nobody holds, as an update leaves them that was refused.
    pub fn forget_unused(&self) {
        let mut named = self.named();
        named.plugins.retain(|_, handle| handle.strong_count() > 0);
        named.ai.retain(|_, handle| handle.strong_count() > 0);
        let limits = &mut named.rate_limits;
        limits.retain(|_, handle| handle.strong_count() > 0);
        named.retain_streams(|_, _, handle| Arc::strong_count(handle) > 1);
        // Routes first: they hold their listeners.
        named.retain_routes(|_, _, handle| Arc::strong_count(handle) > 1);
        named.retain_listeners(|_, handle| Arc::strong_count(handle) > 1);
        let backends = &mut named.backends;
        backends.retain(|_, handle| Arc::strong_count(handle) > 1);
    }

    /// Appends all families in the Prometheus text format.
    pub fn encode_text(&self, out: &mut String) {
        self.encode(&Live::default(), Format::Text, out);
    }

    /// Appends all families, and what is true at this moment.
    ///
    /// OpenMetrics wants an end, for which see [`end`]: more may follow before it.
    pub fn encode(&self, live: &Live, format: Format, out: &mut String) {
        // Handles are copied out first, so that a scrape does not hold up a configuration update.
        let (listeners, routes, backends, streams, rate_limits, ai, plugins, gone) = {
            let named = self.named();
            (
                named.listeners.values().cloned().collect::<Vec<_>>(),
                named.routes.values().cloned().collect::<Vec<_>>(),
                named.backends.values().cloned().collect::<Vec<_>>(),
                named.streams.values().cloned().collect::<Vec<_>>(),
                named
                    .rate_limits
                    .values()
                    .filter_map(Weak::upgrade)
                    .collect::<Vec<_>>(),
                named
                    .ai
                    .values()
                    .filter_map(Weak::upgrade)
                    .collect::<Vec<_>>(),
                named
                    .plugins
                    .values()
                    .filter_map(Weak::upgrade)
                    .collect::<Vec<_>>(),
                named.gone.clone(),
            )
        };
        let unrouted = listeners
            .iter()
            .filter_map(|listener| listener.unrouted_totals());
        let routed = routes.iter().filter_map(|route| route.totals());
        let requests: Vec<_> = unrouted.chain(routed).collect();

        let mut out = Exposition::new(out, format);
        self.inventory.encode(&mut out);
        request::encode(&mut out, &requests);
        traffic::encode_listeners(&mut out, &listeners);
        let mut samples = out.family(&family::LIMITS);
        for (key, value) in self.limits.get().into_iter().flatten() {
            samples.sample(&[key], *value);
        }
        self.overload.encode(&mut out);
        mirror::encode(&mut out, &routes);
        backend::encode(&mut out, &backends);
        live.encode(&mut out);
        let totals = &self.all_backends;
        out.family(&family::BUDGET_OBSERVED)
            .sample(&[], totals.observed.value());
        out.family(&family::BUDGET_ALLOWED)
            .sample(&[], totals.allowed.value());
        out.family(&family::BUDGET_REJECTED)
            .sample(&[], totals.rejected.value());
        rate_limit::encode(&mut out, &rate_limits, self.rate_limit_evictions());
        self.sessions.encode(&mut out);
        let lost = self.token_budget_evictions.load(Ordering::Relaxed);
        ai::encode(&mut out, &ai, lost);
        plugin::encode(&mut out, &plugins);
        self.modules.encode(&mut out);
        stream::encode(&mut out, &streams, &self.datagrams);
        self.xds.encode(&mut out);
        self.last_good.encode(&mut out);
        self.access_log.encode(&mut out);
        self.log.encode(&mut out);
        self.traces.encode(&mut out);
        live.encode_certificates(&mut out);
        self.process.encode_threads(&mut out);
        let counted = contract::Counted {
            gone,
            totals: &requests,
            listeners: &listeners,
            streams: &streams,
        };
        contract::encode(&mut out, self, live, counted);
        self.admin.encode(&mut out);
        self.process.encode(&mut out);
    }

    /// Clients that limits of rate forgot too early, as last told by whoever scrapes.
    fn rate_limit_evictions(&self) -> u64 {
        self.rate_limit_evictions.load(Ordering::Relaxed)
    }

    /// Notes what holds for each limit, once.
    pub fn set_limits(&self, limits: Vec<(&'static str, u64)>) {
        // Whoever starts a process twice has told them already.
        let _ = self.limits.set(limits);
    }

    /// Notes how many clients limits of rate forgot too early, ever.
    pub fn set_rate_limit_evictions(&self, evicted: u64) {
        self.rate_limit_evictions.store(evicted, Ordering::Relaxed);
    }

    /// Notes how many callers' debts budgets of tokens forgot too early, ever.
    pub fn set_token_budget_evictions(&self, evicted: u64) {
        self.token_budget_evictions
            .store(evicted, Ordering::Relaxed);
    }

    /// The maps stay whole whatever happened while the lock was held.
    fn named(&self) -> MutexGuard<'_, Named> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeats what was written since `from` with the names of our families beginning as they did once.
pub fn repeat_with_former_names(out: &mut String, from: usize) {
    let mut repeated = String::new();
    for line in out.get(from..).unwrap_or_default().split_inclusive('\n') {
        let heads = ["# HELP ", "# TYPE ", ""];
        let head = heads.into_iter().find(|head| line.starts_with(head));
        let head = head.unwrap_or_default();
        if let Some(rest) = line[head.len()..].strip_prefix(PREFIX) {
            repeated.push_str(head);
            repeated.push_str(FORMER_PREFIX);
            repeated.push_str(rest);
        }
    }
    out.push_str(&repeated);
}

/// Writes what a format has at its end.
pub fn end(format: Format, out: &mut String) {
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
}

impl Named {
    /// Keeps what was counted by those for which `keep(route, listener, handle)` does not hold.
    fn retain_routes(&mut self, mut keep: impl FnMut(&str, &str, &Arc<RouteMetrics>) -> bool) {
        let gone = &mut self.gone;
        self.routes.retain(|(route, listener), handle| {
            let is_kept = keep(route, listener, handle);
            if !is_kept {
                gone.route(handle.totals());
            }
            is_kept
        });
    }

    /// The same of stream routes.
    fn retain_streams(&mut self, mut keep: impl FnMut(&str, &str, &Arc<StreamMetrics>) -> bool) {
        let gone = &mut self.gone;
        self.streams.retain(|(route, listener), handle| {
            let is_kept = keep(route, listener, handle);
            if !is_kept {
                gone.stream(handle);
            }
            is_kept
        });
    }

    /// The same of listeners.
    fn retain_listeners(&mut self, mut keep: impl FnMut(&str, &Arc<ListenerMetrics>) -> bool) {
        let gone = &mut self.gone;
        self.listeners.retain(|name, handle| {
            let is_kept = keep(name, handle);
            if !is_kept {
                gone.listener(handle);
            }
            is_kept
        });
    }

    fn listener(&mut self, name: &str, shards: ShardCount) -> Arc<ListenerMetrics> {
        if let Some(known) = self.listeners.get(name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        let made = Arc::new(ListenerMetrics::new(&name, shards));
        self.listeners.insert(name, Arc::clone(&made));
        made
    }
}

/// What the applied configuration holds; set by `apply.rs` after each swap.
#[derive(Debug, Default)]
pub struct Inventory {
    /// 1 while the process is ready.
    pub ready: Gauge,
    /// Listeners.
    pub listeners: Gauge,
    /// HTTP routes.
    pub http_routes: Gauge,
    /// gRPC routes.
    pub grpc_routes: Gauge,
    /// TCP, TLS and UDP routes.
    pub stream_routes: Gauge,
    /// Threads that serve HTTP.
    pub http_workers: Gauge,
    /// 1 when HTTP/3 is asked for.
    pub http3_configured: Gauge,
    /// Clusters.
    pub backends: Gauge,
    /// Secrets.
    pub secrets: Gauge,
}

impl Inventory {
    fn encode(&self, out: &mut Exposition<'_>) {
        let gauges = [
            (&family::READY, &self.ready),
            (&family::LISTENERS, &self.listeners),
            (&family::HTTP_ROUTES, &self.http_routes),
            (&family::GRPC_ROUTES, &self.grpc_routes),
            (&family::BACKENDS, &self.backends),
            (&family::SECRETS, &self.secrets),
        ];
        for (family, gauge) in gauges {
            out.family(family).sample(&[], gauge.value());
        }
    }
}

/// Counters of the access log.
#[derive(Debug, Default)]
pub struct AccessLogMetrics {
    /// Lines handed to the sink.
    pub lines: Counter,
    /// Lines lost.
    pub dropped_lines: Counter,
    /// Failures of the sink.
    pub sink_errors: Counter,
    /// Bytes that wait for the sink.
    pub queue_bytes: Gauge,
    /// The lines these are.
    pub queue_lines: Gauge,
    /// 1 while a thread writes.
    pub writers: Gauge,
    /// How long it took to write what was at hand.
    pub flushes: Histogram,
    /// The longest of these, in microseconds.
    pub longest_flush_us: Gauge,
}

impl AccessLogMetrics {
    /// Notes the bytes and lines that wait for the sink.
    pub(crate) fn waits(&self, (bytes, lines): (usize, u64)) {
        self.queue_bytes.set(bytes);
        self.queue_lines.set(lines);
    }

    /// Records the time it took to write what was at hand; called by the one thread that writes.
    pub fn flushed(&self, took: std::time::Duration) {
        self.flushes.observe(took);
        let us = i64::try_from(took.as_micros()).unwrap_or(i64::MAX);
        self.longest_flush_us
            .set(us.max(self.longest_flush_us.value()));
    }

    fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::ACCESS_LINES)
            .sample(&[], self.lines.value());
        out.family(&family::ACCESS_DROPPED)
            .sample(&[], self.dropped_lines.value());
        out.family(&family::ACCESS_ERRORS)
            .sample(&[], self.sink_errors.value());
        out.family(&family::ACCESS_QUEUE)
            .sample(&[], self.queue_bytes.value());
    }
}

/// Counters of the process's own log.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Lines lost.
    pub dropped_lines: Counter,
}

impl LogMetrics {
    fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::LOG_DROPPED)
            .sample(&[], self.dropped_lines.value());
    }
}

/// Counters of traces.
#[derive(Debug, Default)]
pub struct TraceMetrics {
    /// Spans that the collector took.
    pub exported_spans: Counter,
    /// Spans lost.
    pub dropped_spans: Counter,
    /// Batches that the collector did not take.
    pub export_failures: Counter,
}

impl TraceMetrics {
    fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::TRACES_EXPORTED)
            .sample(&[], self.exported_spans.value());
        out.family(&family::TRACES_DROPPED)
            .sample(&[], self.dropped_spans.value());
        out.family(&family::TRACES_FAILURES)
            .sample(&[], self.export_failures.value());
    }
}

#[cfg(test)]
mod tests;
