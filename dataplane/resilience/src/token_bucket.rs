//! Rate limits: so many a second, and a burst on top.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate
//! algorithm): taking a token moves that time on, and is refused when it would lie further ahead
//! than the burst allows. A bucket whose time has passed is like one that was never used, so
//! [`Keyed`] holds as many keys as it has room for and forgets a full bucket without loss.
//! No lock anywhere; times are durations since any moment that the caller keeps to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A rate and a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds until one token has come back; at least 1.
    interval: u64,
    /// How far ahead a bucket's time may lie: `burst` intervals.
    horizon: u64,
}

/// What a bucket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Tokens that are left now.
    pub remaining: u64,
    /// Until the bucket is full again.
    pub full_after: Duration,
}

/// The bucket is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Empty {
    /// Until what was asked for can be had, when nobody else takes it; `None` when more was asked
    /// for than the bucket ever holds.
    pub retry_after: Option<Duration>,
}

impl Rate {
    /// `tokens` in each `period`, of which `burst` may be taken at once; both are at least 1, and
    /// rates above one token a nanosecond are held to that.
    pub fn new(tokens: u64, period: Duration, burst: u64) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        let interval = (period / tokens.max(1)).max(1);
        Self {
            interval,
            horizon: interval.saturating_mul(burst.max(1)),
        }
    }

    /// The most tokens a bucket holds.
    pub fn burst(&self) -> u64 {
        self.horizon / self.interval
    }

    /// The time a bucket moves to when `tokens` are taken from one that is full at `full_at`.
    fn take(&self, full_at: u64, now: u64, tokens: u64) -> Result<u64, Empty> {
        let cost = self.interval.saturating_mul(tokens);
        if cost > self.horizon {
            return Err(Empty { retry_after: None });
        }
        // Further ahead than it ever gets: filled at another rate, of which no more is held against it.
        let full_at = full_at.min(now.saturating_add(self.horizon));
        let next = full_at.max(now).saturating_add(cost);
        match next.saturating_sub(now).checked_sub(self.horizon) {
            None | Some(0) => Ok(next),
            Some(over) => Err(Empty {
                retry_after: Some(Duration::from_nanos(over)),
            }),
        }
    }

    fn taken(&self, full_at: u64, now: u64) -> Taken {
        let owed = full_at.saturating_sub(now);
        Taken {
            remaining: self.horizon.saturating_sub(owed) / self.interval,
            full_after: Duration::from_nanos(owed),
        }
    }
}

/// One bucket; full at first.
#[derive(Debug, Default)]
pub struct Bucket {
    full_at: AtomicU64,
}

impl Bucket {
    /// Takes tokens, all of them or none.
    pub fn take(&self, rate: &Rate, tokens: u64, now: Duration) -> Result<Taken, Empty> {
        let now = nanos(now);
        let mut full_at = self.full_at.load(Ordering::Relaxed);
        loop {
            let next = rate.take(full_at, now, tokens)?;
            match self.full_at.compare_exchange_weak(
                full_at,
                next,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(rate.taken(next, now)),
                Err(current) => full_at = current,
            }
        }
    }

    /// What is left, without taking any.
    pub fn peek(&self, rate: &Rate, now: Duration) -> Taken {
        rate.taken(self.full_at.load(Ordering::Relaxed), nanos(now))
    }

    /// Gives tokens back that were taken and not used.
    pub fn give_back(&self, rate: &Rate, tokens: u64) {
        let worth = rate.interval.saturating_mul(tokens);
        // A bucket is never fuller than full, which any time in the past stands for.
        let _ = self
            .full_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| {
                Some(full_at.saturating_sub(worth))
            });
    }
}

/// Buckets in one place of the table; a key looks nowhere else.
const WAYS: usize = 8;

/// A bucket for each key, in room that is set aside once.
///
/// A key is known by a 64-bit hash: keyed at random by the caller, so that nobody can choose keys
/// that meet. When all places a key may have are taken, the bucket that is closest to full gives
/// way; [`Keyed::lost`] counts those that were not full, which is how an operator sees that there
/// are more keys at once than room.
#[derive(Debug)]
pub struct Keyed {
    sets: Box<[Set]>,
    lost: AtomicU64,
}

#[derive(Debug, Default)]
struct Set {
    keys: [AtomicU64; WAYS],
    buckets: [Bucket; WAYS],
}

impl Keyed {
    /// Room for at least that many keys, 16 bytes each.
    pub fn with_room_for(keys: usize) -> Self {
        let sets = keys.div_ceil(WAYS).next_power_of_two();
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            lost: AtomicU64::new(0),
        }
    }

    /// How many keys there is room for.
    pub fn room(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Buckets that were given up although they were not full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Takes tokens from the bucket of a key.
    pub fn take(&self, key: u64, rate: &Rate, tokens: u64, now: Duration) -> Result<Taken, Empty> {
        self.bucket(key, now).take(rate, tokens, now)
    }

    /// Gives tokens of a key back; a key that is no longer known has a full bucket anyway.
    pub fn give_back(&self, key: u64, rate: &Rate, tokens: u64) {
        let key = Self::stored(key);
        let set = self.set(key);
        if let Some(way) = set.position(key) {
            set.buckets[way].give_back(rate, tokens);
        }
    }

    fn bucket(&self, key: u64, now: Duration) -> &Bucket {
        let key = Self::stored(key);
        let set = self.set(key);
        let way = set
            .position(key)
            .unwrap_or_else(|| self.admit(set, key, now));
        &set.buckets[way]
    }

    /// A place for a key that has none.
    ///
    /// Two threads may admit the same key at once, or take the place of a key that a third is
    /// using; then one bucket starts anew or is charged for another's token, and no more.
    fn admit(&self, set: &Set, key: u64, now: Duration) -> usize {
        let full_at = |way: &usize| set.buckets[*way].full_at.load(Ordering::Relaxed);
        let way = (0..WAYS).min_by_key(full_at).unwrap_or(0);
        if full_at(&way) > nanos(now) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        set.buckets[way].full_at.store(0, Ordering::Relaxed);
        set.keys[way].store(key, Ordering::Relaxed);
        way
    }

    /// 0 stands for a place that nobody has.
    fn stored(key: u64) -> u64 {
        key.max(1)
    }

    fn set(&self, key: u64) -> &Set {
        // The number of sets is a power of two; the low bits of a hash are as good as any.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only low bits are looked at"
        )]
        let at = key as usize & (self.sets.len() - 1);
        &self.sets[at]
    }
}

impl Set {
    fn position(&self, key: u64) -> Option<usize> {
        self.keys
            .iter()
            .position(|held| held.load(Ordering::Relaxed) == key)
    }
}

/// Enough for 584 years.
fn nanos(now: Duration) -> u64 {
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Duration = Duration::ZERO;
    const SECOND: Duration = Duration::from_secs(1);

    fn rate(tokens: u64, burst: u64) -> Rate {
        Rate::new(tokens, Duration::from_secs(1), burst)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate() {
        let bucket = Bucket::default();
        let rate = rate(10, 5);
        for left in (0..5).rev() {
            assert_eq!(bucket.take(&rate, 1, START).unwrap().remaining, left);
        }
        let empty = bucket.take(&rate, 1, START).unwrap_err();
        assert_eq!(empty.retry_after, Some(Duration::from_millis(100)));
        assert!(bucket.take(&rate, 1, SECOND / 10).is_ok());
        assert!(bucket.take(&rate, 1, SECOND / 10).is_err());
    }

    #[test]
    fn several_tokens_are_taken_together_or_not_at_all() {
        let bucket = Bucket::default();
        let rate = rate(10, 5);
        assert_eq!(bucket.take(&rate, 3, START).unwrap().remaining, 2);
        assert!(bucket.take(&rate, 3, START).is_err());
        assert_eq!(bucket.peek(&rate, START).remaining, 2);
        assert_eq!(bucket.take(&rate, 6, START).unwrap_err().retry_after, None);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_no_more() {
        let bucket = Bucket::default();
        let rate = rate(10, 5);
        bucket.take(&rate, 5, SECOND).unwrap();
        bucket.give_back(&rate, 2);
        assert_eq!(bucket.peek(&rate, SECOND).remaining, 2);
        bucket.give_back(&rate, 1000);
        assert_eq!(bucket.peek(&rate, SECOND).remaining, 5);
    }

    #[test]
    fn a_full_bucket_is_full_after_no_time_and_an_empty_one_after_the_burst() {
        let bucket = Bucket::default();
        let rate = rate(10, 5);
        assert_eq!(bucket.peek(&rate, START).full_after, Duration::ZERO);
        let taken = bucket.take(&rate, 5, START).unwrap();
        assert_eq!(taken.full_after, Duration::from_millis(500));
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let keyed = Keyed::with_room_for(100);
        let rate = rate(1, 1);
        for key in 1..20 {
            assert!(keyed.take(key, &rate, 1, START).is_ok(), "{key}");
        }
        assert_eq!(keyed.lost(), 0);
        for key in 1..20 {
            assert!(keyed.take(key, &rate, 1, START).is_err(), "{key}");
        }
        keyed.give_back(7, &rate, 1);
        assert!(keyed.take(7, &rate, 1, START).is_ok());
    }

    #[test]
    fn full_buckets_make_room_without_loss() {
        let keyed = Keyed::with_room_for(8);
        let rate = rate(1, 1);
        for round in 0..100 {
            for key in 0..8 {
                let now = round * SECOND;
                let key = 1 + key + u64::from(round) * 8;
                assert!(keyed.take(key, &rate, 1, now).is_ok());
            }
        }
        assert_eq!(keyed.lost(), 0);
    }

    #[test]
    fn more_keys_than_room_are_counted_and_hold_no_more_memory() {
        let keyed = Keyed::with_room_for(8);
        let rate = rate(1, 1);
        for key in 1..=1000 {
            assert!(keyed.take(key, &rate, 1, START).is_ok());
        }
        assert_eq!(keyed.lost(), 992);
        assert_eq!(keyed.room(), 8);
    }

    #[test]
    fn threads_never_get_more_than_the_burst_together() {
        let bucket = Bucket::default();
        let rate = rate(1, 1000);
        let taken: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (0..1000)
                            .filter(|_| bucket.take(&rate, 1, START).is_ok())
                            .count()
                    })
                })
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(taken, 1000);
    }

    proptest! {
        #[test]
        fn no_window_passes_more_than_the_rate_and_the_burst(
            tokens in 1_u64..1000,
            burst in 1_u64..50,
            steps in prop::collection::vec((0_u64..20_000_000, 1_u64..4), 1..300),
        ) {
            let rate = rate(tokens, burst);
            let bucket = Bucket::default();
            let mut now = 0;
            let mut passed: Vec<(u64, u64)> = Vec::new();
            for (pause, count) in steps {
                now += pause;
                if bucket.take(&rate, count, Duration::from_nanos(now)).is_ok() {
                    passed.push((now, count));
                }
            }
            for (from, (start, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (at, count) in &passed[from..] {
                    sum += count;
                    let interval = 1_000_000_000 / tokens;
                    let most = burst + (at - start) / interval + 1;
                    prop_assert!(sum <= most, "{sum} of {most} between {start} and {at}");
                }
            }
        }

        #[test]
        fn who_waits_as_long_as_told_is_served(
            tokens in 1_u64..1_000_000,
            burst in 1_u64..50,
            takes in 1_u64..200,
        ) {
            let rate = rate(tokens, burst);
            let bucket = Bucket::default();
            let mut now = Duration::from_nanos(5);
            for _ in 0..takes {
                if let Err(empty) = bucket.take(&rate, 1, now) {
                    now += empty.retry_after.unwrap();
                    prop_assert!(bucket.take(&rate, 1, now).is_ok());
                }
            }
        }
    }
}
