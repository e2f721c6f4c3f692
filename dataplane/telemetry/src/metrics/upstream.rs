//! How attempts got their connections, and what became of those that were made again.
//!
//! Counted for the process as a whole: whether a connection was kept or had to be made, how long that
//! took, and how many requests a second attempt saved. An attempt over a kept connection costs one
//! addition of the calling thread's shard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::instrument::{Counter, Distribution, Histogram, ShardCount, Shards};

/// Counters of attempts.
#[derive(Debug)]
pub struct UpstreamMetrics {
    kept: Shards<Counter>,
    made: Timed,
    handshakes_failed: Timed,
    retried: Counter,
    saved: Counter,
}

/// Times, and the longest of them.
#[derive(Debug, Default)]
struct Timed {
    times: Histogram,
    longest_ns: AtomicU64,
}

impl Timed {
    fn took(&self, time: Duration) {
        self.times.observe(time);
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.longest_ns.fetch_max(ns, Ordering::Relaxed);
    }

    fn read(&self) -> (Distribution, u64) {
        let mut content = Distribution::default();
        self.times.add_to(&mut content);
        (content, self.longest_ns.load(Ordering::Relaxed))
    }
}

impl UpstreamMetrics {
    pub(super) fn new(shards: ShardCount) -> Self {
        Self {
            kept: Shards::new(shards),
            made: Timed::default(),
            handshakes_failed: Timed::default(),
            retried: Counter::default(),
            saved: Counter::default(),
        }
    }

    /// Counts a request that has ended after at least one attempt; `connecting` is what the last one's
    /// connection took to come up, zero for a kept one.
    pub fn attempted(&self, attempts: u32, connecting: Duration, is_well: bool) {
        match connecting {
            Duration::ZERO => self.kept.local().increment(),
            time => self.made.took(time),
        }
        if attempts > 1 {
            self.retried.increment();
            if is_well {
                self.saved.increment();
            }
        }
    }

    /// Counts a TLS handshake with an endpoint that failed.
    pub fn handshake_failed(&self, took: Duration) {
        self.handshakes_failed.took(took);
    }

    /// Requests whose last attempt found a kept connection.
    pub(super) fn kept(&self) -> u64 {
        self.kept.iter().map(Counter::value).sum()
    }

    /// How long connections took that had to be made, and the longest.
    pub(super) fn made(&self) -> (Distribution, u64) {
        self.made.read()
    }

    /// How long failed handshakes took.
    pub(super) fn handshakes_failed(&self) -> Distribution {
        self.handshakes_failed.read().0
    }

    /// Requests with more than one attempt, and those of them that ended well.
    pub(super) fn retried(&self) -> (u64, u64) {
        (self.retried.value(), self.saved.value())
    }
}
