//! Passive health: endpoints that keep failing are left out for a while.
//!
//! Each endpoint has a [`Record`] that outlives a configuration. The request line reports every
//! outcome to it; too many failures in a row eject the endpoint, for longer each time it happens
//! again. When that time is over the endpoint is on probation: one failure ejects it again, one
//! success clears it, so that a dead endpoint costs one request per period and not a threshold of
//! them. How many may be ejected at once is the cluster's to decide, hence the question in
//! [`Record::failed`]. Times are durations since any moment that the caller keeps to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When an endpoint is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Failures in a row of any kind; 0 for never.
    pub consecutive_failures: u32,
    /// Gateway failures in a row: no connection, no response, 502, 503, 504; 0 for never.
    pub consecutive_gateway_failures: u32,
    /// The first ejection lasts this long, the nth without a success between n times that.
    pub base_ejection: Duration,
    /// No ejection lasts longer.
    pub max_ejection: Duration,
    /// The largest share of a cluster's endpoints that may be ejected at once, in percent.
    pub max_ejection_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            consecutive_gateway_failures: 5,
            base_ejection: Duration::from_secs(1),
            max_ejection: Duration::from_secs(4),
            max_ejection_percent: 50,
        }
    }
}

impl Settings {
    /// How long the `count`th ejection in a row lasts.
    fn ejection(&self, count: u32) -> Duration {
        self.base_ejection
            .saturating_mul(count.max(1))
            .min(self.max_ejection)
    }

    /// Whether one more of `total` endpoints may be ejected when `ejected` are already: at least
    /// one may, unless the share is 0.
    pub fn allows(&self, ejected: usize, total: usize) -> bool {
        let percent = usize::from(self.max_ejection_percent.min(100));
        let most = (total * percent / 100).max(usize::from(percent > 0));
        ejected < most.min(total)
    }
}

/// What kind of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The endpoint answered, with 500 or another 5xx of its own.
    Answered,
    /// It did not answer, or answered for something behind it: 502, 503, 504.
    Gateway,
}

/// What is known of one endpoint; see the module.
#[derive(Debug, Default)]
pub struct Record {
    /// Failures in a row: of any kind in the low half, gateway failures in the high half.
    failures: AtomicU64,
    /// Until when it is ejected, in milliseconds; 0 when it never was or was cleared.
    ejected_until: AtomicU64,
    /// Ejections without a success between.
    ejections: AtomicU64,
}

impl Record {
    /// An attempt went well.
    pub fn succeeded(&self, now: Duration) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let until = self.ejected_until.load(Ordering::Relaxed);
        // While it is ejected only what was on its way before can succeed, which proves nothing.
        if until != 0 && until <= millis(now) {
            self.ejected_until.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
    }

    /// An attempt failed; says for how long the endpoint is ejected when this ejected it.
    ///
    /// `may_eject` is asked only when the endpoint is due for it.
    pub fn failed(
        &self,
        failure: Failure,
        settings: &Settings,
        now: Duration,
        may_eject: impl FnOnce() -> bool,
    ) -> Option<Duration> {
        let (any, gateway) = self.count(failure);
        let until = self.ejected_until.load(Ordering::Acquire);
        let now = millis(now);
        // What was on its way when the endpoint was ejected says nothing new.
        if until > now {
            return None;
        }
        let is_due = until != 0
            || reaches(any, settings.consecutive_failures)
            || reaches(gateway, settings.consecutive_gateway_failures);
        if !is_due || !may_eject() {
            return None;
        }
        let count = self.ejections.load(Ordering::Relaxed).saturating_add(1);
        let lasts = settings.ejection(u32::try_from(count).unwrap_or(u32::MAX));
        let millis = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
        let new = now.saturating_add(millis).max(1);
        // Of several that fail at once, one ejects.
        self.ejected_until
            .compare_exchange(until, new, Ordering::AcqRel, Ordering::Relaxed)
            .ok()?;
        self.ejections.store(count, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        Some(lasts)
    }

    /// Whether it is to be left out.
    pub fn is_ejected(&self, now: Duration) -> bool {
        self.ejected_for(now) > Duration::ZERO
    }

    /// How much longer it is to be left out.
    pub fn ejected_for(&self, now: Duration) -> Duration {
        match self.ejected_until.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            until => Duration::from_millis(until.saturating_sub(millis(now))),
        }
    }

    /// Failures in a row of any kind, and of the gateway kind.
    pub fn failures(&self) -> (u32, u32) {
        halves(self.failures.load(Ordering::Relaxed))
    }

    /// Ejections since the last success.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// Counts the failure; returns failures in a row of any kind, and of the gateway kind.
    fn count(&self, failure: Failure) -> (u32, u32) {
        let next = |counts: u64| {
            let (any, gateway) = halves(counts);
            let gateway = match failure {
                Failure::Answered => 0,
                Failure::Gateway => gateway.saturating_add(1),
            };
            u64::from(gateway) << 32 | u64::from(any.saturating_add(1))
        };
        let before = self
            .failures
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |counts| {
                Some(next(counts))
            });
        halves(next(before.unwrap_or_else(|same| same)))
    }
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn reaches(count: u32, threshold: u32) -> bool {
    threshold > 0 && count >= threshold
}

/// Low and high half of a word.
fn halves(word: u64) -> (u32, u32) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are what is asked for"
    )]
    let halves = (word as u32, (word >> 32) as u32);
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> Settings {
        Settings {
            consecutive_failures: 3,
            consecutive_gateway_failures: 2,
            base_ejection: SECOND,
            max_ejection: 3 * SECOND,
            max_ejection_percent: 50,
        }
    }

    fn fail(record: &Record, failure: Failure, now: Duration) -> Option<Duration> {
        record.failed(failure, &settings(), now, || true)
    }

    #[test]
    fn failures_in_a_row_eject_and_each_kind_has_its_threshold() {
        let now = SECOND;
        for (failure, threshold) in [(Failure::Answered, 3), (Failure::Gateway, 2)] {
            let record = Record::default();
            for _ in 1..threshold {
                assert_eq!(fail(&record, failure, now), None, "{failure:?}");
            }
            record.succeeded(now);
            for _ in 1..threshold {
                assert_eq!(fail(&record, failure, now), None, "{failure:?}");
            }
            assert_eq!(fail(&record, failure, now), Some(SECOND), "{failure:?}");
            assert!(record.is_ejected(now));
            assert!(!record.is_ejected(now + SECOND));
        }
    }

    #[test]
    fn an_answer_of_its_own_ends_a_row_of_gateway_failures_only() {
        let now = SECOND;
        let record = Record::default();
        assert_eq!(fail(&record, Failure::Gateway, now), None);
        assert_eq!(fail(&record, Failure::Answered, now), None);
        assert_eq!(fail(&record, Failure::Gateway, now), Some(SECOND));
    }

    #[test]
    fn on_probation_one_failure_ejects_for_longer_and_one_success_clears() {
        let mut now = SECOND;
        let record = Record::default();
        fail(&record, Failure::Gateway, now);
        for seconds in [1, 2, 3, 3, 3] {
            let lasts = fail(&record, Failure::Gateway, now);
            assert_eq!(lasts, Some(Duration::from_secs(seconds)));
            now += Duration::from_secs(seconds);
        }
        record.succeeded(now);
        assert_eq!(record.ejections(), 0);
        assert_eq!(fail(&record, Failure::Gateway, now), None);
        assert_eq!(fail(&record, Failure::Gateway, now), Some(SECOND));
    }

    #[test]
    fn what_fails_while_it_is_ejected_changes_nothing() {
        let now = SECOND;
        let record = Record::default();
        fail(&record, Failure::Gateway, now);
        fail(&record, Failure::Gateway, now);
        for _ in 0..100 {
            assert_eq!(fail(&record, Failure::Gateway, now + SECOND / 2), None);
            record.succeeded(now + SECOND / 2);
        }
        assert_eq!(record.ejected_for(now + SECOND / 2), SECOND / 2);
    }

    #[test]
    fn where_no_more_may_be_ejected_it_stays() {
        let now = SECOND;
        let record = Record::default();
        for _ in 0..10 {
            let lasts = record.failed(Failure::Gateway, &settings(), now, || false);
            assert_eq!(lasts, None);
        }
        assert!(!record.is_ejected(now));
        assert!(fail(&record, Failure::Gateway, now).is_some());
    }

    #[test]
    fn a_threshold_of_zero_never_ejects() {
        let now = SECOND;
        let off = Settings {
            consecutive_failures: 0,
            consecutive_gateway_failures: 0,
            ..settings()
        };
        let record = Record::default();
        for _ in 0..100 {
            assert_eq!(record.failed(Failure::Gateway, &off, now, || true), None);
        }
    }

    #[test]
    fn the_share_that_may_be_ejected_is_at_least_one_unless_it_is_none() {
        let allows = |percent, ejected, total| {
            let settings = Settings {
                max_ejection_percent: percent,
                ..settings()
            };
            settings.allows(ejected, total)
        };
        for (percent, ejected, total, expected) in [
            (50, 0, 4, true),
            (50, 1, 4, true),
            (50, 2, 4, false),
            (10, 0, 4, true),
            (10, 1, 4, false),
            (0, 0, 4, false),
            (100, 3, 4, true),
            (100, 4, 4, false),
            (50, 0, 0, false),
            (255, 0, 1, true),
        ] {
            assert_eq!(
                allows(percent, ejected, total),
                expected,
                "{percent} % {ejected}/{total}"
            );
        }
    }

    #[test]
    fn of_many_that_fail_at_once_one_ejects() {
        let now = SECOND;
        let record = Record::default();
        fail(&record, Failure::Gateway, now);
        let ejections: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| scope.spawn(|| fail(&record, Failure::Gateway, now).iter().count()))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(ejections, 1);
    }
}
