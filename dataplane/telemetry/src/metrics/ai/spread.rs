//! Histograms of calls to models, over the buckets that OpenTelemetry's GenAI conventions name.
//!
//! Those of requests to backends end at 30 s, which a model may take for one answer, and have no
//! tokens. Held by [`super::AiCalls`], written out by its module.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bounds that both scales have.
const BOUNDS: usize = 14;

/// What is counted, and where its buckets end.
pub trait Scale: Default + std::fmt::Debug {
    /// Upper bounds of the buckets; above the last there is one more.
    const BOUNDS: [u64; BOUNDS];
    /// How many there are of it in the unit that is shown.
    const IN_UNIT: f64;
}

/// Nanoseconds, shown as seconds: from 10 ms on, each bound twice the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times;

impl Scale for Times {
    const BOUNDS: [u64; BOUNDS] = {
        let mut bounds = [10_000_000; BOUNDS];
        let mut at = 1;
        while at < BOUNDS {
            bounds[at] = bounds[at - 1] * 2;
            at += 1;
        }
        bounds
    };
    const IN_UNIT: f64 = 1e9;
}

/// Tokens: from 1 on, each bound four times the one before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokens;

impl Scale for Tokens {
    const BOUNDS: [u64; BOUNDS] = {
        let mut bounds = [1; BOUNDS];
        let mut at = 1;
        while at < BOUNDS {
            bounds[at] = bounds[at - 1] * 4;
            at += 1;
        }
        bounds
    };
    const IN_UNIT: f64 = 1.0;
}

/// A histogram over a scale.
#[derive(Debug, Default)]
pub struct Spread<S> {
    /// Observations per bucket, each counted once (not cumulative).
    buckets: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
    scale: PhantomData<S>,
}

impl<S: Scale> Spread<S> {
    /// Counts one observation.
    pub fn observe(&self, amount: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of::<S>(amount)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(amount, Ordering::Relaxed);
    }

    /// Takes over what was gathered apart.
    pub fn add(&self, gathered: &Gathered<S>) {
        for (bucket, count) in self.buckets.iter().zip(gathered.buckets) {
            if count > 0 {
                bucket.fetch_add(u64::from(count), Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(gathered.sum, Ordering::Relaxed);
    }

    /// All observations together.
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        let counts = self.buckets.iter();
        counts.map(|bucket| bucket.load(Ordering::Relaxed)).sum()
    }

    /// What each bucket holds with its upper bound, and the sum, both in the unit that is shown.
    pub(super) fn read(&self) -> (impl Iterator<Item = (f64, u64)>, f64) {
        let bounds = S::BOUNDS.into_iter().map(shown::<S>);
        let counts = self.buckets.iter();
        let counts = counts.map(|bucket| bucket.load(Ordering::Relaxed));
        let bounds = bounds.chain([f64::INFINITY]);
        (bounds.zip(counts), shown::<S>(self.sum()))
    }
}

/// Observations of one owner, which come so fast that they are counted without anybody else.
#[derive(Debug, Default)]
pub struct Gathered<S> {
    buckets: [u32; BOUNDS + 1],
    sum: u64,
    scale: PhantomData<S>,
}

impl<S: Scale> Gathered<S> {
    /// Counts the same observation several times.
    pub fn observe(&mut self, amount: u64, times: u32) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of::<S>(amount)) {
            *bucket = bucket.saturating_add(times);
        }
        let all = amount.saturating_mul(u64::from(times));
        self.sum = self.sum.saturating_add(all);
    }

    /// What they are on average; absent when there were none.
    pub fn mean(&self) -> Option<u64> {
        let count: u64 = self.buckets.iter().copied().map(u64::from).sum();
        self.sum.checked_div(count)
    }
}

impl Gathered<Times> {
    /// Counts one duration.
    pub fn took(&mut self, time: Duration) {
        self.observe(nanoseconds(time), 1);
    }
}

impl Spread<Times> {
    /// Counts one duration.
    pub fn took(&self, time: Duration) {
        self.observe(nanoseconds(time));
    }
}

fn bucket_of<S: Scale>(amount: u64) -> usize {
    S::BOUNDS.partition_point(|bound| *bound < amount)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn shown<S: Scale>(amount: u64) -> f64 {
    amount as f64 / S::IN_UNIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_conventions() {
        let times = Spread::<Times>::default();
        times.took(Duration::from_millis(10));
        times.took(Duration::from_secs(60));
        times.took(Duration::from_secs(600));
        let (buckets, sum) = times.read();
        let buckets: Vec<_> = buckets.collect();
        let bounds: Vec<_> = buckets.iter().map(|(bound, _)| bound.to_string()).collect();
        assert_eq!(
            bounds.join(" "),
            "0.01 0.02 0.04 0.08 0.16 0.32 0.64 1.28 2.56 5.12 10.24 20.48 40.96 81.92 inf"
        );
        let filled: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [&(0.01, 1), &(81.92, 1), &(f64::INFINITY, 1)]);
        assert_eq!(sum, 660.01);
        assert_eq!(times.count(), 3);

        let mut gathered = Gathered::<Times>::default();
        assert_eq!(gathered.mean(), None);
        gathered.took(Duration::from_millis(40));
        gathered.observe(0, 3);
        assert_eq!(gathered.mean(), Some(10_000_000));
        let times = Spread::<Times>::default();
        times.took(Duration::from_millis(40));
        times.add(&gathered);
        let (buckets, sum) = times.read();
        let filled: Vec<_> = buckets.filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0.01, 3), (0.04, 2)]);
        assert_eq!(sum, 0.08);

        let tokens = Spread::<Tokens>::default();
        tokens.observe(0);
        tokens.observe(65_537);
        let (buckets, sum) = tokens.read();
        let filled: Vec<_> = buckets.filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(1.0, 1), (262_144.0, 1)]);
        assert_eq!(sum, 65_537.0);
        assert_eq!(Tokens::BOUNDS.last(), Some(&67_108_864));
    }
}
