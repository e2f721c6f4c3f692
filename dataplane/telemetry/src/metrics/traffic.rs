//! What is counted per listener and per route: requests, outcomes, connections.
//!
//! Handles are made when configuration is compiled and kept there; recording then touches only
//! atomics of the calling thread's shard: no lookup, no lock, no allocation after the first request
//! of a route. `metrics.rs` keeps the handles by name and asks them to be written out.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, ShardCount, Shards};
use super::instrument::{Distribution, Histogram};
use super::mirror::{MirrorResult, Mirrors};
use super::request::{CLASSES, Exemplars, RequestShard, RequestTotals, class_index};
use crate::grpc_status::GrpcStatus;
use crate::reason::Reason;

/// The counters of one route on one listener.
#[derive(Debug)]
pub struct RouteMetrics {
    route: Arc<str>,
    listener: Arc<ListenerMetrics>,
    kind: RouteKind,
    requests: Shards<RequestShard>,
    exemplars: Exemplars,
    mirrors: Mirrors,
}

/// What a route is; the first part of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RouteKind {
    Http,
    Grpc,
    None,
}

impl RouteKind {
    const ALL: [(Self, &'static str); 3] = [
        (Self::Http, "Http"),
        (Self::Grpc, "Grpc"),
        (Self::None, "none"),
    ];

    fn of(route: &str) -> Self {
        match route.split_once('/') {
            Some((kind, _)) if kind.eq_ignore_ascii_case("grpc") => Self::Grpc,
            _ => Self::Http,
        }
    }
}

impl RouteMetrics {
    pub(super) fn new(route: &Arc<str>, listener: Arc<ListenerMetrics>) -> Self {
        let requests = Shards::new(listener.shards);
        Self {
            route: Arc::clone(route),
            listener,
            kind: RouteKind::of(route),
            requests,
            exemplars: Exemplars::default(),
            mirrors: Mirrors::default(),
        }
    }

    /// Counts a copy of a request that ended, or never began.
    pub fn mirrored(&self, result: MirrorResult) {
        self.mirrors.count(result);
    }

    pub(super) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Counts that the connection of a request ended by a limit, under its listener.
    pub fn connection_ended(&self, limit: LifeLimit) {
        self.listener.connection_ended(limit);
    }

    /// Records a request that ended, here and under its listener.
    ///
    /// `status` is what was sent to the client, 0 when nothing was.
    pub fn observe(
        &self,
        status: u16,
        reason: Reason,
        duration: Duration,
        received: u64,
        sent: u64,
    ) {
        self.requests
            .local()
            .observe(status, duration, received, sent);
        self.listener.count(self.kind, status, reason, duration);
    }

    /// Counts the code with which a call over gRPC ended, beside [`Self::observe`].
    pub fn grpc_ended(&self, status: GrpcStatus) {
        self.requests.local().grpc_ended(status);
    }

    /// Remembers a request that is recorded for a collector, as an example of those that took as long.
    pub fn exemplify(&self, trace_id: u128, duration: Duration) {
        self.exemplars.note(trace_id, duration);
    }

    /// The route's label value.
    pub fn route(&self) -> &str {
        &self.route
    }

    /// The listener it belongs to.
    pub fn listener(&self) -> &Arc<ListenerMetrics> {
        &self.listener
    }

    pub(super) fn totals(&self) -> Option<RequestTotals> {
        let Self {
            listener,
            route,
            requests,
            exemplars,
            ..
        } = self;
        RequestTotals::read(&listener.name, route, requests, exemplars)
    }
}

/// The counters of one listener.
#[derive(Debug)]
pub struct ListenerMetrics {
    name: Arc<str>,
    shards: ShardCount,
    /// Requests that no route matched.
    unrouted: Shards<RequestShard>,
    local: Shards<ListenerShard>,
    rejected: [Counter; ConnectionLimit::ALL.len()],
    http2_limited: [Counter; Http2Limit::ALL.len()],
    http2_streams_refused: Counter,
    ended: [Counter; LifeLimit::ALL.len()],
    pauses: [Counter; AcceptPause::ALL.len()],
}

impl ListenerMetrics {
    pub(super) fn new(name: &Arc<str>, shards: ShardCount) -> Self {
        Self {
            name: Arc::clone(name),
            shards,
            unrouted: Shards::new(shards),
            local: Shards::new(shards),
            rejected: array::from_fn(|_| Counter::default()),
            http2_limited: array::from_fn(|_| Counter::default()),
            http2_streams_refused: Counter::default(),
            ended: array::from_fn(|_| Counter::default()),
            pauses: array::from_fn(|_| Counter::default()),
        }
    }

    /// The listener's label value.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The same, to be held elsewhere.
    pub(super) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }

    /// Records a request that ended without a route; parameters as [`RouteMetrics::observe`].
    pub fn observe(
        &self,
        status: u16,
        reason: Reason,
        duration: Duration,
        received: u64,
        sent: u64,
    ) {
        self.unrouted
            .local()
            .observe(status, duration, received, sent);
        self.count(RouteKind::None, status, reason, duration);
    }

    /// Counts the code with which a call over gRPC without a route ended.
    pub fn grpc_ended(&self, status: GrpcStatus) {
        self.unrouted.local().grpc_ended(status);
    }

    /// Counts a request as being served until the guard is dropped.
    pub fn request_started(&self) -> RequestInFlight<'_> {
        self.local.local().inflight.fetch_add(1, Ordering::Relaxed);
        RequestInFlight { listener: self }
    }

    /// Counts a connection as accepted, and as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> OpenConnection {
        let local = self.local.local();
        local.connections.increment();
        local.connections_active.fetch_add(1, Ordering::Relaxed);
        OpenConnection {
            listener: Arc::clone(self),
        }
    }

    /// Counts a connection that was closed at once.
    pub fn connection_rejected(&self, limit: ConnectionLimit) {
        self.rejected[limit as usize].increment();
    }

    /// Counts an HTTP/2 connection that was ended because its client broke a limit.
    pub fn http2_limited(&self, limit: Http2Limit) {
        self.http2_limited[limit as usize].increment();
    }

    /// Counts HTTP/2 streams that were refused, because their client had too many open.
    pub fn http2_streams_refused(&self, streams: u32) {
        self.http2_streams_refused.add(u64::from(streams));
    }

    /// Counts a connection that ended because of how long it stood, waited or served.
    pub fn connection_ended(&self, limit: LifeLimit) {
        self.ended[limit as usize].increment();
    }

    /// Counts that one of its sockets stopped accepting for a while.
    pub fn accept_paused(&self, cause: AcceptPause) {
        self.pauses[cause as usize].increment();
    }

    /// Counts a connection that ended before a request or a stream route could be looked for.
    pub fn connection_refused(&self, reason: Reason) {
        self.local.local().refused[reason.index()].increment();
    }

    /// Connections open now.
    pub fn connections_active(&self) -> i64 {
        self.local
            .iter()
            .map(|shard| shard.connections_active.load(Ordering::Relaxed))
            .sum()
    }

    /// Requests being served now.
    pub fn requests_inflight(&self) -> i64 {
        self.local
            .iter()
            .map(|shard| shard.inflight.load(Ordering::Relaxed))
            .sum()
    }

    fn count(&self, kind: RouteKind, status: u16, reason: Reason, duration: Duration) {
        let latencies = &self.local.local().latencies;
        latencies.of(kind, status, reason).observe(duration);
    }

    /// How long requests took, by kind of their route, class of their status and response flag.
    pub(super) fn latencies(&self) -> BTreeMap<(&'static str, usize, &'static str), Distribution> {
        let mut all: BTreeMap<_, Distribution> = BTreeMap::new();
        for shard in self.local.iter() {
            for (kind, class, reason, times) in shard.latencies.iter() {
                let key = (kind, class, reason.flag());
                times.add_to(all.entry(key).or_default());
            }
        }
        all
    }

    pub(super) fn outcome_count(&self, reason: Reason) -> u64 {
        self.local
            .iter()
            .map(|shard| shard.refused[reason.index()].value() + shard.latencies.count(reason))
            .sum()
    }

    pub(super) fn unrouted_totals(&self) -> Option<RequestTotals> {
        let none = Exemplars::default();
        RequestTotals::read(&self.name, &"none".into(), &self.unrouted, &none)
    }
}

/// Counts one request as being served; see [`ListenerMetrics::request_started`].
#[derive(Debug)]
#[must_use = "the request counts as served only while this is held"]
pub struct RequestInFlight<'a> {
    listener: &'a ListenerMetrics,
}

impl Drop for RequestInFlight<'_> {
    fn drop(&mut self) {
        // Perhaps another shard than at the start; the sum over all is what is read.
        self.listener
            .local
            .local()
            .inflight
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one connection as open; see [`ListenerMetrics::connection_opened`].
#[derive(Debug)]
#[must_use = "the connection counts as open only while this is held"]
pub struct OpenConnection {
    listener: Arc<ListenerMetrics>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.listener
            .local
            .local()
            .connections_active
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why a connection was closed right after it was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionLimit {
    /// The process has its fill of connections.
    Process,
    /// The listener has.
    Listener,
    /// The client's address has.
    Client,
    /// No descriptors are left.
    Descriptors,
    /// Memory is short.
    Memory,
    /// The process is stopping.
    Draining,
    /// Its source may not bring PROXY protocol headers, which are required.
    UntrustedSource,
    /// It has no PROXY protocol header, or none that is sound, and needs one.
    ProxyHeader,
}

impl ConnectionLimit {
    const ALL: [Self; 8] = [
        Self::Process,
        Self::Listener,
        Self::Client,
        Self::Descriptors,
        Self::Memory,
        Self::Draining,
        Self::UntrustedSource,
        Self::ProxyHeader,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Listener => "listener",
            Self::Client => "client",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Draining => "draining",
            Self::UntrustedSource => "untrusted_source",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// Why an HTTP/2 connection was ended with ENHANCE_YOUR_CALM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http2Limit {
    /// A header block did not end in time.
    Head,
    /// Too many PING, SETTINGS, RST_STREAM or unknown frames.
    Control,
    /// Too many PRIORITY frames.
    Priority,
    /// Too many WINDOW_UPDATE frames.
    WindowUpdate,
    /// Too many streams given up, or too many CONTINUATION or tiny DATA frames.
    Streams,
    /// Too many frames in a row with nothing in them.
    Empty,
}

impl Http2Limit {
    const ALL: [Self; 6] = [
        Self::Head,
        Self::Control,
        Self::Priority,
        Self::WindowUpdate,
        Self::Streams,
        Self::Empty,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Control => "control",
            Self::Priority => "priority",
            Self::WindowUpdate => "window_update",
            Self::Streams => "streams",
            Self::Empty => "empty",
        }
    }
}

/// What ends a connection though its client has done nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifeLimit {
    /// Nothing came in time.
    FirstByte,
    /// It waited too long for its next request.
    Idle,
    /// It has served as many requests as it may.
    Requests,
    /// It has become too old.
    Age,
    /// More of a request body was to come behind an early answer than is read for its sake.
    RequestRest,
    /// Its client did not end it, though our end had come.
    Linger,
    /// It had to end, and nothing came in the time that was left for a request on its way.
    Drain,
    /// It was a tunnel that had to end, and whose time for that was over.
    TunnelDrain,
}

impl LifeLimit {
    const ALL: [Self; 8] = [
        Self::FirstByte,
        Self::Idle,
        Self::Requests,
        Self::Age,
        Self::RequestRest,
        Self::Linger,
        Self::Drain,
        Self::TunnelDrain,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FirstByte => "first_byte",
            Self::Idle => "idle",
            Self::Requests => "requests",
            Self::Age => "age",
            Self::RequestRest => "request_rest",
            Self::Linger => "linger",
            Self::Drain => "drain",
            Self::TunnelDrain => "tunnel_drain",
        }
    }
}

/// Why a socket stopped accepting for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptPause {
    /// No descriptors are left but those kept for the control plane and the admin API.
    Descriptors,
    /// Memory is short.
    Memory,
}

impl AcceptPause {
    const ALL: [Self; 2] = [Self::Descriptors, Self::Memory];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
        }
    }
}

/// What one thread records for a listener.
#[derive(Debug)]
struct ListenerShard {
    inflight: AtomicI64,
    connections_active: AtomicI64,
    connections: Counter,
    /// Connections that ended before there was a request.
    refused: [Counter; Reason::COUNT],
    latencies: Latencies,
}

/// Times by kind of route, class of status and outcome; made for those that occur.
#[derive(Debug, Default)]
struct Latencies([OnceLock<OfKind>; RouteKind::ALL.len()]);

/// By class and then by outcome.
type OfKind = Box<[OnceLock<Box<Histogram>>]>;

impl Latencies {
    fn of(&self, kind: RouteKind, status: u16, reason: Reason) -> &Histogram {
        let places = CLASSES.len() * Reason::COUNT;
        let of_kind =
            self.0[kind as usize].get_or_init(|| (0..places).map(|_| OnceLock::new()).collect());
        let place = &of_kind[class_index(status) * Reason::COUNT + reason.index()];
        place.get_or_init(Box::default)
    }

    /// How many requests had that outcome.
    fn count(&self, reason: Reason) -> u64 {
        let kinds = self.0.iter().filter_map(OnceLock::get);
        let places = kinds.flat_map(|it| it.iter().skip(reason.index()).step_by(Reason::COUNT));
        places
            .filter_map(|place| {
                let mut content = Distribution::default();
                place.get()?.add_to(&mut content);
                Some(content.count())
            })
            .sum()
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, usize, Reason, &Histogram)> {
        RouteKind::ALL.into_iter().flat_map(|(kind, name)| {
            let of_kind = self.0[kind as usize].get();
            let places = of_kind.into_iter().flat_map(|it| it.iter().enumerate());
            places.filter_map(move |(at, place)| {
                let reason = Reason::ALL[at % Reason::COUNT];
                Some((name, at / Reason::COUNT, reason, &**place.get()?))
            })
        })
    }
}

impl Default for ListenerShard {
    fn default() -> Self {
        Self {
            inflight: AtomicI64::new(0),
            connections_active: AtomicI64::new(0),
            connections: Counter::default(),
            refused: array::from_fn(|_| Counter::default()),
            latencies: Latencies::default(),
        }
    }
}

/// Writes the families of listeners.
pub(super) fn encode_listeners(out: &mut Exposition<'_>, all: &[Arc<ListenerMetrics>]) {
    let mut samples = out.family(&family::OUTCOMES);
    for listener in all {
        for reason in Reason::ALL {
            let count = listener.outcome_count(reason);
            if count > 0 {
                samples.sample(&[&listener.name, reason.as_str()], count);
            }
        }
    }
    let mut samples = out.family(&family::FLAGS);
    for listener in all {
        let mut flags: Vec<(&str, u64)> = Vec::new();
        for reason in Reason::ALL
            .into_iter()
            .filter(|reason| reason.flag() != "none")
        {
            let count = listener.outcome_count(reason);
            match flags.iter_mut().find(|(flag, _)| *flag == reason.flag()) {
                Some((_, sum)) => *sum += count,
                None => flags.push((reason.flag(), count)),
            }
        }
        for (flag, count) in flags.into_iter().filter(|(_, count)| *count > 0) {
            samples.sample(&[&listener.name, flag], count);
        }
    }
    let inflight: i64 = all
        .iter()
        .map(|listener| listener.requests_inflight())
        .sum();
    out.family(&family::INFLIGHT).sample(&[], inflight);
    let mut samples = out.family(&family::LISTENER_INFLIGHT);
    for listener in all {
        samples.sample(&[&listener.name], listener.requests_inflight());
    }
    let mut samples = out.family(&family::DOWNSTREAM_ACTIVE);
    for listener in all {
        samples.sample(&[&listener.name], listener.connections_active());
    }
    let mut samples = out.family(&family::DOWNSTREAM);
    for listener in all {
        let count: u64 = listener
            .local
            .iter()
            .map(|shard| shard.connections.value())
            .sum();
        samples.sample(&[&listener.name], count);
    }
    let mut samples = out.family(&family::DOWNSTREAM_REJECTED);
    for listener in all {
        for limit in ConnectionLimit::ALL {
            let count = listener.rejected[limit as usize].value();
            samples.sample(&[&listener.name, limit.as_str()], count);
        }
    }
    let mut samples = out.family(&family::HTTP2_LIMITED);
    for listener in all {
        for limit in Http2Limit::ALL {
            let count = listener.http2_limited[limit as usize].value();
            if count > 0 {
                samples.sample(&[&listener.name, limit.as_str()], count);
            }
        }
    }
    let mut samples = out.family(&family::HTTP2_REFUSED);
    for listener in all {
        samples.sample(&[&listener.name], listener.http2_streams_refused.value());
    }
    let mut samples = out.family(&family::DOWNSTREAM_ENDED);
    for listener in all {
        for limit in LifeLimit::ALL {
            let count = listener.ended[limit as usize].value();
            if count > 0 {
                samples.sample(&[&listener.name, limit.as_str()], count);
            }
        }
    }
    let mut samples = out.family(&family::ACCEPT_PAUSES);
    for listener in all {
        for cause in AcceptPause::ALL {
            let count = listener.pauses[cause as usize].value();
            samples.sample(&[&listener.name, cause.as_str()], count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_count_only_while_held() {
        let listener = Arc::new(ListenerMetrics::new(&"l".into(), ShardCount::new(2)));
        let connection = listener.connection_opened();
        let first = listener.request_started();
        let second = listener.request_started();
        assert_eq!(
            (listener.connections_active(), listener.requests_inflight()),
            (1, 2)
        );
        drop((first, second));
        std::thread::scope(|scope| {
            scope.spawn(move || drop(connection));
        });
        assert_eq!(
            (listener.connections_active(), listener.requests_inflight()),
            (0, 0)
        );
    }

    #[test]
    fn limits_stand_at_their_own_index() {
        for (at, limit) in ConnectionLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, at);
        }
        for (at, limit) in Http2Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, at);
        }
        for (at, cause) in AcceptPause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, at);
        }
    }
}
