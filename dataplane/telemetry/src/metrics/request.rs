//! What one thread records about the requests of a route, and how a scrape sums it up.
//!
//! `traffic.rs` owns one set of shards per route and per listener; this module knows neither. The
//! status class and the count of a histogram are not kept but derived, so that figures which must
//! agree do.

use std::array;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::exposition::{Exemplar, Exposition};
use super::family;
use super::instrument::{Counter, Distribution, Histogram, Shards};

/// What one thread records for a route.
#[derive(Debug, Default)]
pub(super) struct RequestShard {
    duration: Histogram,
    longest_ns: AtomicU64,
    received: Counter,
    sent: Counter,
    statuses: StatusTable,
}

impl RequestShard {
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
/// The first sixteen distinct codes find a slot in line; a backend that answers with more pays for
/// a table of all of them. Slots are taken in order and never given back, so a code has one slot.
#[derive(Debug, Default)]
struct StatusTable {
    codes: [AtomicU16; 16],
    counts: [Counter; 16],
    all: OnceLock<Box<[Counter; 501]>>,
}

impl StatusTable {
    /// A free slot.
    const FREE: u16 = 0;
    /// Stands for everything outside 100 to 599.
    const OTHER: u16 = 1;

    fn count(&self, status: u16) {
        let code = if (100..600).contains(&status) {
            status
        } else {
            Self::OTHER
        };
        for (slot, count) in self.codes.iter().zip(&self.counts) {
            let mut held = slot.load(Ordering::Relaxed);
            if held == Self::FREE {
                held = match slot.compare_exchange(
                    Self::FREE,
                    code,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                ) {
                    Ok(_) => code,
                    Err(taken_meanwhile) => taken_meanwhile,
                };
            }
            if held == code {
                count.increment();
                return;
            }
        }
        let all = self
            .all
            .get_or_init(|| Box::new(array::from_fn(|_| Counter::default())));
        let at = if code == Self::OTHER {
            500
        } else {
            usize::from(code) - 100
        };
        all[at].increment();
    }

    fn add_to(&self, totals: &mut Vec<(u16, u64)>) {
        let slots = self
            .codes
            .iter()
            .map(|code| code.load(Ordering::Relaxed))
            .zip(&self.counts);
        let all = self.all.get().into_iter().flat_map(|all| all.iter());
        let all = (100..600).chain([Self::OTHER]).zip(all);
        for (code, count) in slots.chain(all) {
            let count = count.value();
            if count == 0 {
                continue;
            }
            match totals.binary_search_by_key(&code, |(code, _)| *code) {
                Ok(at) => totals[at].1 += count,
                Err(at) => totals.insert(at, (code, count)),
            }
        }
    }
}

/// The bounds of the buckets that are told of a route, of those that are kept: the series of a route
/// have a budget, see `family.rs`.
pub(super) const ROUTE_BOUNDS_NS: [u64; 8] = [
    1_000_000,
    5_000_000,
    25_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
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
    /// Sorted by code.
    statuses: Vec<(u16, u64)>,
    duration: Distribution,
    longest_ns: u64,
    exemplars: ExemplarsOfBuckets,
    received: u64,
    sent: u64,
}

/// The same of all routes together, those that are gone included.
#[derive(Clone, Debug, Default)]
pub(super) struct TrafficTotals {
    /// By class.
    pub(super) classes: [u64; 6],
    pub(super) duration_ns: u64,
    pub(super) longest_ns: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
}

impl TrafficTotals {
    pub(super) fn add(&mut self, totals: &RequestTotals) {
        for (code, count) in &totals.statuses {
            self.classes[class_index(*code)] += count;
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
            statuses: Vec::new(),
            duration: Distribution::default(),
            longest_ns: 0,
            exemplars: exemplars.read(),
            received: 0,
            sent: 0,
        };
        for shard in requests.iter() {
            shard.statuses.add_to(&mut totals.statuses);
            shard.duration.add_to(&mut totals.duration);
            let longest = shard.longest_ns.load(Ordering::Relaxed);
            totals.longest_ns = totals.longest_ns.max(longest);
            totals.received += shard.received.value();
            totals.sent += shard.sent.value();
        }
        Some(totals)
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let mut counts = [0; 6];
        for (code, count) in &self.statuses {
            counts[class_index(*code)] += count;
        }
        CLASSES
            .into_iter()
            .zip(counts)
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
        for (code, count) in &totals.statuses {
            let code = match *code {
                StatusTable::OTHER => "other".to_owned(),
                code => code.to_string(),
            };
            samples.sample(&[&totals.listener, &totals.route, &code], *count);
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

    fn statuses(table: &StatusTable) -> Vec<(u16, u64)> {
        let mut totals = Vec::new();
        table.add_to(&mut totals);
        totals
    }

    #[test]
    fn every_status_is_counted_exactly_even_from_a_backend_that_uses_all() {
        let table = StatusTable::default();
        for round in 0..3 {
            for status in 0..=999 {
                table.count(status);
            }
            table.count(200 + round);
        }
        let totals = statuses(&table);
        assert_eq!(totals.len(), 501);
        for (code, count) in totals {
            let expected = match code {
                StatusTable::OTHER => 3 * 500,
                200..=202 => 4,
                _ => 3,
            };
            assert_eq!(count, expected, "{code}");
        }
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
        assert!(table.all.get().is_none());
        assert_eq!(
            statuses(&table),
            (200..212).map(|code| (code, 1000)).collect::<Vec<_>>()
        );
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
