//! Counters, gauges and histograms, and the choice of a shard for the calling thread.
//!
//! These are plain atomics without names or labels; `metrics/*.rs` group them and write them out.
//! The plain ones serve what happens seldom. What every request touches is kept once per shard
//! (see [`Shards`]), so that two worker threads do not pull one cache line back and forth.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// A count that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `amount`.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A value that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Replaces the value; a value past `i64::MAX` is held there.
    pub fn set(&self, value: impl TryInto<i64>) {
        self.0
            .store(value.try_into().unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Sets 1 for true and 0 for false.
    pub fn set_claim(&self, holds: bool) {
        self.set(i64::from(holds));
    }

    /// Adds `amount`, which may be negative.
    pub fn add(&self, amount: i64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds, in nanoseconds, of the buckets of every duration histogram.
///
/// From half a millisecond, which a local backend answers in, to the longest usual timeout.
pub(super) const BOUNDS_NS: [u64; 15] = [
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// The number of buckets, the one without an upper bound included.
pub(super) const BUCKETS: usize = BOUNDS_NS.len() + 1;

/// A distribution of durations over [`BOUNDS_NS`].
#[derive(Debug, Default)]
pub struct Histogram {
    /// Observations per bucket, each counted once (not cumulative).
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// What was observed so far, added to `total`.
    pub(super) fn add_to(&self, total: &mut Distribution) {
        for (sum, bucket) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += bucket.load(Ordering::Relaxed);
        }
        total.sum_ns = total
            .sum_ns
            .wrapping_add(self.sum_ns.load(Ordering::Relaxed));
    }
}

/// The content of one or more histograms, read at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Distribution {
    pub(super) buckets: [u64; BUCKETS],
    pub(super) sum_ns: u64,
}

impl Distribution {
    /// How many durations.
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

/// How many shards the threads of this process are spread over; a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ShardCount(usize);

impl ShardCount {
    /// More than this many shards cost memory and win nothing measurable.
    const MAX: usize = 16;

    /// One shard per core, rounded up to a power of two.
    pub(super) fn for_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from))
    }

    /// At least `wanted` shards, within limits.
    pub(super) fn new(wanted: usize) -> Self {
        Self(wanted.clamp(1, Self::MAX).next_power_of_two())
    }
}

/// One `T` per shard, made when the first thread asks for one.
///
/// A configuration with 40,000 routes of which few see traffic pays for these few only.
pub(super) struct Shards<T> {
    count: ShardCount,
    cells: OnceLock<Box<[Padded<T>]>>,
}

/// Keeps shards on cache lines of their own (two lines, since processors fetch them in pairs).
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> Shards<T> {
    pub(super) fn new(count: ShardCount) -> Self {
        Self {
            count,
            cells: OnceLock::new(),
        }
    }

    /// The shard of the calling thread.
    pub(super) fn local(&self) -> &T {
        let cells = self
            .cells
            .get_or_init(|| (0..self.count.0).map(|_| Padded::default()).collect());
        // `count` is a power of two, and there are as many cells.
        &cells[thread_number() & (self.count.0 - 1)].0
    }

    /// All shards; none when nothing was ever recorded.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.cells
            .get()
            .into_iter()
            .flat_map(|cells| cells.iter().map(|cell| &cell.0))
    }

    /// Whether any thread has recorded anything.
    pub(super) fn is_touched(&self) -> bool {
        self.cells.get().is_some()
    }
}

impl<T> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

/// Numbers threads in the order in which they first record something.
///
/// Worker threads come first in practice, so each gets a shard to itself.
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    // While a thread is being torn down its number is gone; any shard will do then.
    NUMBER
        .try_with(|number| {
            if number.get() == usize::MAX {
                number.set(NEXT.fetch_add(1, Ordering::Relaxed));
            }
            number.get()
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_on_a_bound_belongs_to_that_bucket() {
        let cases = [
            (0, 0),
            (500_000, 0),
            (500_001, 1),
            (1_000_000_000, 10),
            (30_000_000_000, 14),
            (30_000_000_001, 15),
            (u64::MAX, 15),
        ];
        for (ns, bucket) in cases {
            let histogram = Histogram::default();
            histogram.observe(Duration::from_nanos(ns));
            let mut total = Distribution::default();
            histogram.add_to(&mut total);
            assert_eq!(
                total.buckets.iter().position(|n| *n == 1),
                Some(bucket),
                "{ns}"
            );
            assert_eq!(total.sum_ns, ns);
        }
    }

    #[test]
    fn every_thread_is_counted_whatever_its_shard() {
        let shards: Shards<Counter> = Shards::new(ShardCount::new(2));
        assert!(!shards.is_touched());
        std::thread::scope(|scope| {
            for _ in 0..5 {
                scope.spawn(|| (0..1000).for_each(|_| shards.local().increment()));
            }
        });
        assert_eq!(shards.iter().map(Counter::value).sum::<u64>(), 5000);
    }

    #[test]
    fn shard_counts_are_powers_of_two_within_limits() {
        for (wanted, count) in [(0, 1), (1, 1), (2, 2), (3, 4), (9, 16), (500, 16)] {
            assert_eq!(ShardCount::new(wanted).0, count, "{wanted}");
        }
    }

    #[test]
    fn a_gauge_holds_at_the_top() {
        let gauge = Gauge::default();
        gauge.set(u64::MAX);
        assert_eq!(gauge.value(), i64::MAX);
        gauge.set(3_usize);
        gauge.add(-5);
        assert_eq!(gauge.value(), -2);
    }
}
