//! What is counted of TCP and TLS connections that are passed on as bytes, and of UDP sessions.
//!
//! As with requests, handles are made when configuration is compiled; recording touches only the
//! calling thread's shard. "Session" is the word for both: a connection, or the datagrams of one
//! client for as long as they belong together.

use std::array;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, ShardCount, Shards};
use crate::reason::Reason;

/// The counters of one stream route on one listener; `none` stands for no route.
#[derive(Debug)]
pub struct StreamMetrics {
    route: Arc<str>,
    listener: Arc<str>,
    shards: Shards<Shard>,
    /// Where its datagrams count too.
    all: Arc<DatagramTotals>,
}

impl StreamMetrics {
    pub(super) fn new(
        route: &str,
        listener: &str,
        shards: ShardCount,
        all: Arc<DatagramTotals>,
    ) -> Self {
        Self {
            route: route.into(),
            listener: listener.into(),
            shards: Shards::new(shards),
            all,
        }
    }

    /// A route's name begins with its kind.
    fn is_udp(&self) -> bool {
        self.route.starts_with("udp/")
    }

    /// Counts a session as open until the guard is dropped.
    pub fn session_opened(self: &Arc<Self>) -> OpenSession {
        self.shards.local().active.fetch_add(1, Ordering::Relaxed);
        if self.is_udp() {
            self.all.active.fetch_add(1, Ordering::Relaxed);
        }
        OpenSession(Arc::clone(self))
    }

    /// Records a session that ended.
    pub fn session_ended(&self, reason: Reason) {
        self.shards.local().ended[reason.index()].increment();
        if reason == Reason::IdleTimeout && self.is_udp() {
            self.all.idle_evictions.increment();
        }
    }

    /// Sessions that have ended.
    pub(super) fn sessions_ended(&self) -> u64 {
        let counts = self.shards.iter().flat_map(|shard| &shard.ended);
        counts.map(Counter::value).sum()
    }

    /// Adds bytes that were carried: from the client, and to it.
    pub fn carried(&self, received: u64, sent: u64) {
        let shard = self.shards.local();
        shard.received.add(received);
        shard.sent.add(sent);
    }

    /// Adds datagrams that were carried: from the client, and to it.
    pub fn datagrams_carried(&self, received: u64, sent: u64) {
        let shard = self.shards.local();
        shard.datagrams_received.add(received);
        shard.datagrams_sent.add(sent);
    }

    /// Records a datagram that was dropped.
    pub fn datagram_dropped(&self, why: DatagramDrop) {
        self.shards.local().dropped[why as usize].increment();
        match why {
            DatagramDrop::Sessions => self.all.overload_rejected.increment(),
            DatagramDrop::Queue => self.all.queue_dropped.increment(),
            _ => {}
        }
    }

    /// Counts a datagram that waits for its endpoint.
    pub fn datagram_waits(&self) {
        self.waiting(1);
    }

    /// Counts datagrams that were sent or let go after they have waited.
    pub fn datagrams_wait_no_more(&self, count: usize) {
        if count > 0 {
            self.waiting(-i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn waiting(&self, change: i64) {
        let shard = self.shards.local();
        shard.waiting.fetch_add(change, Ordering::Relaxed);
        self.all.waiting.fetch_add(change, Ordering::Relaxed);
    }

    /// Sessions open now.
    pub fn sessions_active(&self) -> i64 {
        let shards = self.shards.iter();
        shards
            .map(|shard| shard.active.load(Ordering::Relaxed))
            .sum()
    }

    /// Datagrams dropped so far.
    pub fn datagrams_dropped(&self, why: DatagramDrop) -> u64 {
        self.sum(|shard| &shard.dropped[why as usize])
    }

    fn sum<'a>(&'a self, counter: impl Fn(&'a Shard) -> &'a Counter) -> u64 {
        self.shards.iter().map(|shard| counter(shard).value()).sum()
    }
}

/// Counts one session as open; see [`StreamMetrics::session_opened`].
#[derive(Debug)]
#[must_use = "the session counts as open only while this is held"]
pub struct OpenSession(Arc<StreamMetrics>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.shards.local().active.fetch_sub(1, Ordering::Relaxed);
        if self.0.is_udp() {
            self.0.all.active.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What is counted of all UDP sessions of the process, whatever became of their routes.
#[derive(Debug, Default)]
pub(super) struct DatagramTotals {
    active: AtomicI64,
    waiting: AtomicI64,
    overload_rejected: Counter,
    queue_dropped: Counter,
    idle_evictions: Counter,
}

/// Why a datagram went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramDrop {
    /// Its source, its listener, or all together, send or begin sessions faster than allowed.
    Rate,
    /// There are as many sessions as allowed.
    Sessions,
    /// The queue in front of the backend or of the client is full.
    Queue,
    /// No route, or none of its backends, takes it.
    Unroutable,
    /// It was cut by the kernel, or is too long to be sent.
    Size,
    /// A policy does not let its source in.
    Denied,
}

impl DatagramDrop {
    const ALL: [Self; 6] = [
        Self::Rate,
        Self::Sessions,
        Self::Queue,
        Self::Unroutable,
        Self::Size,
        Self::Denied,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Sessions => "sessions",
            Self::Queue => "queue",
            Self::Unroutable => "unroutable",
            Self::Size => "size",
            Self::Denied => "denied",
        }
    }
}

/// What one thread records.
#[derive(Debug)]
struct Shard {
    active: AtomicI64,
    waiting: AtomicI64,
    received: Counter,
    sent: Counter,
    datagrams_received: Counter,
    datagrams_sent: Counter,
    ended: [Counter; Reason::COUNT],
    dropped: [Counter; DatagramDrop::ALL.len()],
}

impl Default for Shard {
    fn default() -> Self {
        Self {
            active: AtomicI64::new(0),
            waiting: AtomicI64::new(0),
            received: Counter::default(),
            sent: Counter::default(),
            datagrams_received: Counter::default(),
            datagrams_sent: Counter::default(),
            ended: array::from_fn(|_| Counter::default()),
            dropped: array::from_fn(|_| Counter::default()),
        }
    }
}

/// Writes the families of streams.
pub(super) fn encode(
    out: &mut Exposition<'_>,
    all: &[Arc<StreamMetrics>],
    totals: &DatagramTotals,
) {
    let touched: Vec<_> = all.iter().filter(|it| it.shards.is_touched()).collect();
    let mut samples = out.family(&family::STREAM_ACTIVE);
    for it in &touched {
        samples.sample(&[&it.listener, &it.route], it.sessions_active());
    }
    let mut samples = out.family(&family::STREAM_SESSIONS);
    for it in &touched {
        for reason in Reason::ALL {
            let count = it.sum(|shard| &shard.ended[reason.index()]);
            if count > 0 {
                samples.sample(&[&it.listener, &it.route, reason.as_str()], count);
            }
        }
    }
    let mut samples = out.family(&family::STREAM_RECEIVED);
    for it in &touched {
        samples.sample(&[&it.listener, &it.route], it.sum(|shard| &shard.received));
    }
    let mut samples = out.family(&family::STREAM_SENT);
    for it in &touched {
        samples.sample(&[&it.listener, &it.route], it.sum(|shard| &shard.sent));
    }
    encode_datagrams(out, &touched);
    let mut samples = out.family(&family::DATAGRAMS_DROPPED);
    for it in &touched {
        for why in DatagramDrop::ALL {
            let count = it.datagrams_dropped(why);
            if count > 0 {
                samples.sample(&[&it.listener, &it.route, why.as_str()], count);
            }
        }
    }
    encode_udp(out, &touched, totals);
}

/// What UDP sessions come to, all together and by listener.
fn encode_udp(out: &mut Exposition<'_>, all: &[&Arc<StreamMetrics>], totals: &DatagramTotals) {
    let mut gauges: BTreeMap<&str, [i64; 2]> = BTreeMap::new();
    let mut counts: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for it in all.iter().filter(|it| it.is_udp()) {
        let [active, waiting] = gauges.entry(&it.listener).or_default();
        *active += it.sessions_active();
        *waiting += it
            .shards
            .iter()
            .map(|shard| shard.waiting.load(Ordering::Relaxed))
            .sum::<i64>();
        let [dropped, idle] = counts.entry(&it.listener).or_default();
        *dropped += it.datagrams_dropped(DatagramDrop::Queue);
        *idle += it.sum(|shard| &shard.ended[Reason::IdleTimeout.index()]);
    }
    out.family(&family::UDP_OVERLOAD_REJECTED)
        .sample(&[], totals.overload_rejected.value());
    let families = [
        (
            &family::UDP_ACTIVE,
            &family::UDP_ACTIVE_LISTENER,
            &totals.active,
        ),
        (
            &family::UDP_QUEUED,
            &family::UDP_QUEUED_LISTENER,
            &totals.waiting,
        ),
    ];
    for (at, (of_all, of_listener, total)) in families.into_iter().enumerate() {
        out.family(of_all)
            .sample(&[], total.load(Ordering::Relaxed));
        let mut samples = out.family(of_listener);
        for (listener, values) in &gauges {
            samples.sample(&[listener], values[at]);
        }
    }
    let families = [
        (
            &family::UDP_QUEUE_DROPPED,
            &family::UDP_QUEUE_DROPPED_LISTENER,
            &totals.queue_dropped,
        ),
        (
            &family::UDP_IDLE_EVICTIONS,
            &family::UDP_IDLE_EVICTIONS_LISTENER,
            &totals.idle_evictions,
        ),
    ];
    for (at, (of_all, of_listener, total)) in families.into_iter().enumerate() {
        out.family(of_all).sample(&[], total.value());
        let mut samples = out.family(of_listener);
        for (listener, values) in &counts {
            samples.sample(&[listener], values[at]);
        }
    }
}

/// Routes that carry no datagrams have no such series.
fn encode_datagrams(out: &mut Exposition<'_>, all: &[&Arc<StreamMetrics>]) {
    type Count = fn(&Shard) -> &Counter;
    let families: [(_, Count); 2] = [
        (&family::DATAGRAMS_RECEIVED, |shard| {
            &shard.datagrams_received
        }),
        (&family::DATAGRAMS_SENT, |shard| &shard.datagrams_sent),
    ];
    for (family, count) in families {
        let mut samples = out.family(family);
        for it in all {
            let count = it.sum(count);
            if count > 0 {
                samples.sample(&[&it.listener, &it.route], count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_count_while_their_guard_is_held() {
        let metrics = Arc::new(StreamMetrics::new(
            "tcp/a/b",
            "l",
            ShardCount::new(2),
            Arc::default(),
        ));
        let open = metrics.session_opened();
        assert_eq!(metrics.sessions_active(), 1);
        drop(open);
        assert_eq!(metrics.sessions_active(), 0);
    }

    #[test]
    fn drops_stand_at_their_own_index() {
        for (at, why) in DatagramDrop::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, at);
        }
    }
}
