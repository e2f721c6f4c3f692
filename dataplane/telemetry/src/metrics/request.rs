//! What one thread records about the requests of a route, and how a scrape sums it up.
//!
//! `traffic.rs` owns one set of shards per route and per listener; this module knows neither. The
//! status class and the count of a histogram are not kept but derived, so that figures which must
//! agree do.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::exposition::{Exemplar, Exposition};
use super::family;
use super::instrument::{Counter, Distribution, Histogram, Shards};
use crate::grpc_status::{GrpcStatus, LABELS};

/// What one thread records for a route.
#[derive(Debug, Default)]
pub(super) struct RequestShard {
    duration: Histogram,
    longest_ns: AtomicU64,
    received: Counter,
    sent: Counter,
    statuses: StatusTable,
    /// By code; made for the first call over gRPC.
    grpc: OnceLock<Box<[Counter; LABELS.len()]>>,
}

impl RequestShard {
    pub(super) fn grpc_ended(&self, status: GrpcStatus) {
        let counts = self.grpc.get_or_init(Box::default);
        counts[status.label_index()].increment();
    }

    pub(super) fn observe(&self, status: u16, duration: Duration, received: u64, sent: u64) {
        self.statuses.count(status);
        self.duration.observe(duration);
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        if ns > self.longest_ns.load(Ordering::Relaxed) {
            self.longest_ns.fetch_max(ns, Ordering::Relaxed);
        }
        if received > 0 {
            self.received.add(received);
        }
        if sent > 0 {
            self.sent.add(sent);
        }
    }
}

/// Counts per status code, for the codes that occur.
///
/// The first [`CODES_MAX`] distinct codes of a thread find a slot in line; what a backend answers besides
/// is counted by class, so that no backend makes series without a bound. Slots are taken in order and
/// never given back, so a code has one slot.
#[derive(Debug, Default)]
struct StatusTable {
    codes: [AtomicU16; CODES_MAX],
    counts: [Counter; CODES_MAX],
    rest: [Counter; CLASSES.len()],
}

/// Status codes of a route that each thread counts by themselves.
const CODES_MAX: usize = 16;

impl StatusTable {
    /// A free slot.
    const FREE: u16 = 0;

    fn count(&self, status: u16) {
        if !(100..600).contains(&status) {
            return self.rest[class_index(status)].increment();
        }
        for (slot, count) in self.codes.iter().zip(&self.counts) {
            let mut held = slot.load(Ordering::Relaxed);
            if held == Self::FREE {
                held = match slot.compare_exchange(
                    Self::FREE,
                    status,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => status,
                    Err(taken_meanwhile) => taken_meanwhile,
                };
            }
            if held == status {
                count.increment();
                return;
            }
        }
        self.rest[class_index(status)].increment();
    }

    fn add_to(&self, totals: &mut StatusTotals) {
        for (code, count) in self.codes.iter().zip(&self.counts) {
            let (code, count) = (code.load(Ordering::Relaxed), count.value());
            if count == 0 {
                continue;
            }
            match totals.codes.binary_search_by_key(&code, |(code, _)| *code) {
                Ok(at) => totals.codes[at].1 += count,
                Err(at) => totals.codes.insert(at, (code, count)),
            }
        }
        for (total, count) in totals.rest.iter_mut().zip(&self.rest) {
            *total += count.value();
        }
    }
}

/// The tables of all threads, summed.
#[derive(Debug, Default)]
struct StatusTotals {
    /// Sorted by code.
    codes: Vec<(u16, u64)>,
    /// By class, of the codes that found no slot.
    rest: [u64; CLASSES.len()],
}

impl StatusTotals {
    fn classes(&self) -> [u64; CLASSES.len()] {
        let mut counts = self.rest;
        for (code, count) in &self.codes {
            counts[class_index(*code)] += count;
        }
        counts
    }
}

/// The bounds of the buckets that are told of a route, of those that are kept: the series of a route
/// have a budget, see `family.rs`.
const ROUTE_BOUNDS_NS: [u64; 6] = [
    2_500_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// The last traced request of each bucket; a route without traces has none.
#[derive(Debug, Default)]
pub(super) struct Exemplars(OnceLock<Box<Mutex<ExemplarsOfBuckets>>>);

type ExemplarsOfBuckets = [Option<Exemplar>; ROUTE_BOUNDS_NS.len() + 1];

impl Exemplars {
    pub(super) fn note(&self, trace_id: u128, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let place = ROUTE_BOUNDS_NS.partition_point(|bound| *bound < ns);
        let at = SystemTime::now().duration_since(UNIX_EPOCH);
        let exemplar = Exemplar {
            trace_id,
            seconds: duration.as_secs_f64(),
            at: at.unwrap_or_default().as_secs_f64(),
        };
        let kept = self.0.get_or_init(Box::default);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept[place] = Some(exemplar);
    }

    fn read(&self) -> ExemplarsOfBuckets {
        let kept = self.0.get().map(|it| it.lock());
        kept.map_or([None; _], |it| *it.unwrap_or_else(PoisonError::into_inner))
    }
}

/// The shards of one route, summed at the moment of a scrape.
#[derive(Debug)]
pub(super) struct RequestTotals {
    listener: Arc<str>,
    route: Arc<str>,
    statuses: StatusTotals,
    duration: Distribution,
    longest_ns: u64,
    grpc: [u64; LABELS.len()],
    exemplars: ExemplarsOfBuckets,
    received: u64,
    sent: u64,
}

/// The same of all routes together, those that are gone included.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficTotals {
    /// By class.
    pub(super) classes: [u64; CLASSES.len()],
    pub(super) duration_ns: u64,
    pub(super) longest_ns: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl TrafficTotals {
    pub(super) fn add(&mut self, totals: &RequestTotals) {
        for (class, count) in self.classes.iter_mut().zip(totals.statuses.classes()) {
            *class += count;
        }
        self.duration_ns = self.duration_ns.wrapping_add(totals.duration.sum_ns);
        self.longest_ns = self.longest_ns.max(totals.longest_ns);
        self.received += totals.received;
        self.sent += totals.sent;
    }

    pub(super) fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }
}

impl RequestTotals {
    pub(super) fn read(
        listener: &Arc<str>,
        route: &Arc<str>,
        requests: &Shards<RequestShard>,
        exemplars: &Exemplars,
    ) -> Option<Self> {
        if !requests.is_touched() {
            return None;
        }
        let mut totals = Self {
            listener: Arc::clone(listener),
            route: Arc::clone(route),
            statuses: StatusTotals::default(),
            duration: Distribution::default(),
            longest_ns: 0,
            grpc: [0; LABELS.len()],
            exemplars: exemplars.read(),
            received: 0,
            sent: 0,
        };
        for shard in requests.iter() {
            shard.statuses.add_to(&mut totals.statuses);
            shard.duration.add_to(&mut totals.duration);
            let longest = shard.longest_ns.load(Ordering::Relaxed);
            totals.longest_ns = totals.longest_ns.max(longest);
            let grpc = shard.grpc.get().into_iter().flat_map(|it| it.iter());
            for (total, count) in totals.grpc.iter_mut().zip(grpc) {
                *total += count.value();
            }
            totals.received += shard.received.value();
            totals.sent += shard.sent.value();
        }
        Some(totals)
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        CLASSES
            .into_iter()
            .zip(self.statuses.classes())
            .filter(|(_, count)| *count > 0)
    }
}

pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

pub(super) fn class_index(status: u16) -> usize {
    match status {
        100..=599 => usize::from(status / 100) - 1,
        _ => 5,
    }
}

/// `2xx` and the like; `other` outside 100 to 599.
pub(super) fn status_class(status: u16) -> &'static str {
    CLASSES[class_index(status)]
}

/// Writes the families of requests.
pub(super) fn encode(out: &mut Exposition<'_>, all: &[RequestTotals]) {
    let mut samples = out.family(&family::REQUESTS);
    for totals in all {
        for (class, count) in totals.classes() {
            samples.sample(&[&totals.listener, &totals.route, class], count);
        }
    }
    let mut samples = out.family(&family::DURATION);
    for totals in all {
        let labels = [&*totals.listener, &*totals.route];
        let RequestTotals {
            duration,
            exemplars,
            ..
        } = totals;
        samples.coarse(&labels, duration, (&ROUTE_BOUNDS_NS, 1e9), exemplars);
    }
    let mut samples = out.family(&family::RESPONSES);
    for totals in all {
        let (listener, route) = (&totals.listener, &totals.route);
        for (code, count) in &totals.statuses.codes {
            samples.sample(&[listener, route, &code.to_string()], *count);
        }
        for (class, count) in CLASSES.iter().zip(totals.statuses.rest) {
            if count > 0 {
                samples.sample(&[listener, route, class], count);
            }
        }
    }
    let mut samples = out.family(&family::GRPC);
    for totals in all {
        for (code, count) in LABELS.iter().zip(totals.grpc) {
            if count > 0 {
                samples.sample(&[&totals.listener, &totals.route, code], count);
            }
        }
    }
    let mut samples = out.family(&family::RECEIVED);
    for totals in all {
        samples.sample(&[&totals.listener, &totals.route], totals.received);
    }
    let mut samples = out.family(&family::SENT);
    for totals in all {
        samples.sample(&[&totals.listener, &totals.route], totals.sent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(table: &StatusTable) -> StatusTotals {
        let mut totals = StatusTotals::default();
        table.add_to(&mut totals);
        totals
    }

    #[test]
    fn a_backend_that_answers_with_every_status_has_a_bounded_number_of_series() {
        let table = StatusTable::default();
        for round in 0..3 {
            for status in 0..=999 {
                table.count(status);
            }
            table.count(100 + round);
        }
        let totals = totals(&table);
        let exact = (100..116).map(|code| (code, if code < 103 { 4 } else { 3 }));
        assert_eq!(totals.codes, exact.collect::<Vec<_>>());
        assert_eq!(totals.rest, [252, 300, 300, 300, 300, 1500]);
        assert_eq!(totals.classes(), [303, 300, 300, 300, 300, 1500]);
    }

    #[test]
    fn threads_agree_on_the_slot_of_a_code() {
        let table = StatusTable::default();
        std::thread::scope(|scope| {
            for start in 0..4_u16 {
                let table = &table;
                scope.spawn(move || {
                    for i in 0..3000_u16 {
                        table.count(200 + (start * 5 + i) % 12);
                    }
                });
            }
        });
        let totals = totals(&table);
        let expected: Vec<_> = (200..212).map(|code| (code, 1000)).collect();
        assert_eq!(totals.codes, expected);
        assert_eq!(totals.rest, [0; 6]);
    }

    #[test]
    fn classes_cover_every_status() {
        let cases = [
            (0, "other"),
            (99, "other"),
            (100, "1xx"),
            (204, "2xx"),
            (599, "5xx"),
            (600, "other"),
        ];
        for (status, class) in cases {
            assert_eq!(status_class(status), class, "{status}");
        }
    }
}
