//! How long to wait before trying again: exponential backoff with full jitter.
//!
//! Used wherever the data plane reconnects or retries. The bound doubles with every failure up to a
//! maximum and the wait is drawn evenly from zero to the bound, so that many clients of one server
//! that failed do not come back at the same moment. The caller draws the random number and waits.

use std::time::Duration;

/// The waits between attempts; see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits up to `base` after the first failure, and never longer than `max`.
    pub const fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            failures: 0,
        }
    }

    /// The wait after one more failure; `random` is evenly drawn from 0 to 1 and held to that.
    pub fn next(&mut self, random: f64) -> Duration {
        let bound = self.bound();
        self.failures = self.failures.saturating_add(1);
        // A number that is none draws nothing.
        let share = if random.is_nan() {
            0.0
        } else {
            random.clamp(0.0, 1.0)
        };
        // Floating point may round a long wait up, past the bound or past what a duration holds.
        Duration::try_from_secs_f64(bound.as_secs_f64() * share).map_or(bound, |w| w.min(bound))
    }

    /// The longest the next wait can be.
    pub fn bound(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Starts over after a success.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backoff(base_ms: u64, max_ms: u64) -> Backoff {
        Backoff::new(
            Duration::from_millis(base_ms),
            Duration::from_millis(max_ms),
        )
    }

    #[test]
    fn the_bound_doubles_up_to_the_maximum() {
        let mut backoff = backoff(500, 30_000);
        for bound_ms in [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(backoff.bound(), Duration::from_millis(bound_ms));
            assert_eq!(backoff.next(1.0), Duration::from_millis(bound_ms));
        }
        assert_eq!(backoff.failures(), 8);
    }

    #[test]
    fn a_success_starts_over() {
        let mut backoff = backoff(500, 30_000);
        backoff.next(0.3);
        backoff.next(0.3);
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
        assert_eq!(backoff.next(1.0), Duration::from_millis(500));
    }

    #[test]
    fn the_wait_is_the_drawn_share_of_the_bound() {
        for (random, expected_ms) in [
            (0.0, 0),
            (0.25, 25),
            (0.5, 50),
            (1.0, 100),
            (-1.0, 0),
            (2.0, 100),
            (f64::NAN, 0),
            (f64::INFINITY, 100),
        ] {
            let wait = backoff(100, 1_000).next(random);
            assert_eq!(wait, Duration::from_millis(expected_ms), "{random}");
        }
    }

    #[test]
    fn the_longest_durations_do_not_overflow() {
        let mut backoff = Backoff::new(Duration::MAX, Duration::MAX);
        assert_eq!(backoff.next(1.0), Duration::MAX);
        assert!(backoff.next(0.5) < Duration::MAX);
    }

    #[test]
    fn a_base_above_the_maximum_is_held_to_it() {
        assert_eq!(
            backoff(5_000, 1_000).next(1.0),
            Duration::from_millis(1_000)
        );
    }

    proptest! {
        #[test]
        fn no_wait_exceeds_the_maximum_however_often_it_fails(
            base: u64,
            max: u64,
            randoms in prop::collection::vec(any::<f64>(), 0..80),
        ) {
            let max = Duration::from_nanos(max);
            let mut backoff = Backoff::new(Duration::from_nanos(base), max);
            let mut bound = Duration::ZERO;
            for random in randoms {
                prop_assert!(backoff.bound() >= bound);
                bound = backoff.bound();
                prop_assert!(backoff.next(random) <= bound);
                prop_assert!(bound <= max);
            }
        }
    }
}
