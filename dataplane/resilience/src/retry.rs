//! How many retries a failing backend is asked to bear: a budget per cluster.
//!
//! Retries help while few requests fail and do harm once most do, because they multiply the load of
//! what is overloaded already. A [`RetryBudget`] therefore lets retries be a share of the requests, and
//! a burst besides, which comes back over [`BURST_WINDOW`] so that a quiet cluster may retry at all.
//! It is shared by all threads and changes only when something was retried: while nothing fails, a
//! request reads one number.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Within this time the whole burst comes back, even when no request comes.
pub const BURST_WINDOW: Duration = Duration::from_secs(10);

/// A retry costs so many units, a hundred for each percent that a request may pay back.
const RETRY: u64 = 10_000;
const PERCENT: u64 = RETRY / 100;

/// How generous a budget is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Retries per hundred requests.
    pub ratio_percent: u32,
    /// Retries beyond that, once per [`BURST_WINDOW`]; 0 counts as 1.
    pub burst: u32,
}

impl Default for Allowance {
    fn default() -> Self {
        Self {
            ratio_percent: 20,
            burst: 16,
        }
    }
}

impl Allowance {
    fn burst_units(self) -> u64 {
        u64::from(self.burst.max(1)) * RETRY
    }
}

/// What was retried and not yet paid back. Starts with nothing owed.
///
/// In any stretch of time there are no more retries than the burst, plus the ratio of the requests,
/// plus the burst once more for every window that passed.
#[derive(Debug, Default)]
pub struct RetryBudget {
    /// Units owed; the burst is how many may be.
    owed: AtomicU64,
    /// Up to when time has paid, in microseconds on the caller's clock.
    paid_until: AtomicU64,
}

impl RetryBudget {
    /// A budget of which nothing was used.
    pub const fn new() -> Self {
        Self {
            owed: AtomicU64::new(0),
            paid_until: AtomicU64::new(0),
        }
    }

    /// Counts a request, which pays for a part of a retry.
    pub fn request(&self, allowance: Allowance) {
        if self.owed.load(Ordering::Relaxed) > 0 {
            self.pay(u64::from(allowance.ratio_percent) * PERCENT);
        }
    }

    /// Takes one retry; false when there is none to be had. `now` is the time since any fixed moment,
    /// the same for all calls.
    pub fn try_retry(&self, allowance: Allowance, now: Duration) -> bool {
        let burst = allowance.burst_units();
        self.pay_for_time(burst, now);
        self.owed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| {
                (owed + RETRY <= burst).then_some(owed + RETRY)
            })
            .is_ok()
    }

    /// Whether any was ever taken.
    pub fn is_used(&self) -> bool {
        self.paid_until.load(Ordering::Relaxed) > 0
    }

    /// How many retries could be taken at this moment.
    pub fn left(&self, allowance: Allowance) -> u64 {
        let owed = self.owed.load(Ordering::Relaxed);
        allowance.burst_units().saturating_sub(owed) / RETRY
    }

    fn pay(&self, units: u64) {
        // Never fails: the closure always has an answer.
        let _ = self
            .owed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| {
                Some(owed.saturating_sub(units))
            });
    }

    fn pay_for_time(&self, burst: u64, now: Duration) {
        let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        let window = u64::try_from(BURST_WINDOW.as_micros()).unwrap_or(u64::MAX);
        let before = self.paid_until.load(Ordering::Relaxed);
        let passed = now.saturating_sub(before).min(window);
        let units = burst.saturating_mul(passed) / window;
        // Less than a unit is left to the next call. Who loses the race was paid for by the winner.
        if units > 0
            && self
                .paid_until
                .compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.pay(units);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    const fn allowance(ratio_percent: u32, burst: u32) -> Allowance {
        Allowance {
            ratio_percent,
            burst,
        }
    }

    fn taken(budget: &RetryBudget, allowance: Allowance, now: Duration, tries: usize) -> usize {
        (0..tries)
            .filter(|_| budget.try_retry(allowance, now))
            .count()
    }

    #[test]
    fn the_burst_is_there_at_once_and_comes_back_with_time() {
        for burst in [0, 1, 16, 1000] {
            let allowance = allowance(0, burst);
            let whole = burst.max(1) as usize;
            let budget = RetryBudget::new();
            let start = Duration::from_secs(1000);
            assert_eq!(taken(&budget, allowance, start, whole + 50), whole);
            assert_eq!(budget.left(allowance), 0);
            let half = start + BURST_WINDOW / 2;
            assert_eq!(taken(&budget, allowance, half, whole + 50), whole / 2);
            let late = start + BURST_WINDOW * 10;
            assert_eq!(taken(&budget, allowance, late, whole + 50), whole);
        }
    }

    #[test]
    fn requests_pay_for_their_share_and_cannot_be_saved_up() {
        let allowance = allowance(20, 16);
        let budget = RetryBudget::new();
        (0..10_000).for_each(|_| budget.request(allowance));
        assert_eq!(taken(&budget, allowance, Duration::ZERO, 100), 16);
        for _ in 0..50 {
            budget.request(allowance);
        }
        assert_eq!(taken(&budget, allowance, Duration::ZERO, 100), 10);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let allowance = allowance(0, 4);
        let budget = RetryBudget::new();
        let now = Duration::from_secs(100);
        assert_eq!(taken(&budget, allowance, now, 10), 4);
        assert_eq!(taken(&budget, allowance, now / 2, 10), 0);
        assert_eq!(taken(&budget, allowance, now, 10), 0);
    }

    #[test]
    fn an_allowance_that_shrinks_holds_at_once() {
        let budget = RetryBudget::new();
        let now = Duration::ZERO;
        assert_eq!(taken(&budget, allowance(0, 16), now, 10), 10);
        assert!(!budget.try_retry(allowance(0, 4), now));
        assert!(budget.try_retry(allowance(0, 16), now));
    }

    #[test]
    fn threads_together_stay_within_the_budget() {
        const THREADS: usize = 4;
        const REQUESTS: usize = 5_000;
        let allowance = allowance(20, 16);
        let budget = RetryBudget::new();
        let retries = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for _ in 0..REQUESTS {
                        budget.request(allowance);
                        if budget.try_retry(allowance, Duration::ZERO) {
                            retries.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let retries = retries.into_inner();
        let most = THREADS * REQUESTS / 5 + 16;
        assert!(retries <= most, "{retries} of {most}");
        // Whoever failed to take one while another was paying does not come back for it.
        assert!(retries >= most / 2, "{retries} of {most}");
    }

    proptest! {
        /// The law of the type, over any mix of requests, retries and pauses.
        #[test]
        fn retries_never_exceed_burst_and_ratio(
            ratio in 0_u32..=100,
            burst in 0_u32..50,
            steps in prop::collection::vec((0_u32..30, 0_usize..40, 0_u64..3_000_000), 1..100),
        ) {
            let allowance = allowance(ratio, burst);
            let budget = RetryBudget::new();
            let (mut now, mut requests, mut retries) = (Duration::from_secs(7), 0_u64, 0_u64);
            let start = now;
            for (more, tries, micros) in steps {
                now += Duration::from_micros(micros);
                for _ in 0..more {
                    budget.request(allowance);
                    requests += 1;
                }
                retries += taken(&budget, allowance, now, tries) as u64;
                let windows = (now - start).as_secs_f64() / BURST_WINDOW.as_secs_f64();
                let most = f64::from(burst.max(1)) * (1.0 + windows)
                    + requests as f64 * f64::from(ratio) / 100.0;
                prop_assert!(retries as f64 <= most + 1e-6, "{retries} of {most}");
            }
        }
    }
}
