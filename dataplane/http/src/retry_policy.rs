//! What a rule's retry policy leaves to one request: how many attempts, how soon, within which budget.
//!
//! Made by `phase::retry` for the rules that have one and kept in the context. Whether an attempt may
//! be repeated at all is decided there; here is only whether the policy pays for it.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use http::StatusCode;

use dataplane_config::ClusterConfig;
use dataplane_resilience::backoff::Backoff;
use dataplane_resilience::retry::Allowance;
use dataplane_telemetry::metrics::Denied;
use ir::policy::Retry;

/// The first pause is drawn from zero to this when the policy names none.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(25);
/// Pauses grow up to so many times the first.
const BACKOFF_GROWTH_MAX: u32 = 10;

/// What the budgets of all clusters count time from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The policy of a rule, and what became of it so far.
#[derive(Debug)]
pub(crate) struct Policy<'c> {
    retry: &'c Retry,
    /// How many attempts followed another.
    made: u32,
    backoff: Backoff,
    budget: Option<Allowance>,
    /// No attempt begins later.
    begin_until: Option<Instant>,
}

/// What decides about an attempt besides its policy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chance {
    /// When the whole request ends.
    pub(crate) due: Option<Instant>,
    /// Evenly drawn from 0 to 1.
    pub(crate) random: f64,
}

impl<'c> Policy<'c> {
    pub(crate) fn new(
        retry: &'c Retry,
        budget: Option<Allowance>,
        begin_until: Option<Instant>,
    ) -> Self {
        let base = retry.backoff.unwrap_or(BACKOFF_DEFAULT);
        Self {
            retry,
            made: 0,
            backoff: Backoff::new(base, base.saturating_mul(BACKOFF_GROWTH_MAX - 1)),
            budget,
            begin_until,
        }
    }

    /// True for a status that counts as a failed attempt.
    pub(crate) fn lists(&self, status: StatusCode) -> bool {
        self.retry.codes.contains(&status.as_u16())
    }

    /// Whether the policy asks for one more attempt than were made.
    pub(crate) fn has_more(&self) -> bool {
        self.made < self.retry.attempts
    }

    /// Whether an attempt that fails after `time` is followed by another, as far as number and time say.
    pub(crate) fn would_follow(&self, is_free: bool, time: Duration) -> bool {
        let is_late = |until: Instant| Instant::now() + time >= until;
        (is_free || self.has_more()) && !self.begin_until.is_some_and(is_late)
    }

    /// The pause before one more attempt, when number, time and budget allow it. One that `is_free`
    /// needs only the time: nothing of the request has arrived anywhere.
    pub(crate) fn next(
        &mut self,
        cluster: &ClusterConfig,
        is_free: bool,
        at_least: Duration,
        chance: Chance,
    ) -> Option<Duration> {
        if !is_free && !self.has_more() {
            return None;
        }
        // Gateway API: never sooner than the backoff; the rest grows, and is drawn.
        let minimum = self.retry.backoff.unwrap_or_default();
        let pause = minimum.saturating_add(self.backoff.next(chance.random));
        let pause = pause.max(at_least);
        let begins = Instant::now().checked_add(pause)?;
        let is_late = |until: Option<Instant>| until.is_some_and(|until| begins >= until);
        if is_late(chance.due) || is_late(self.begin_until) {
            return None;
        }
        if let (false, Some(allowance)) = (is_free, self.budget)
            && !cluster.retries.try_retry(allowance, START.elapsed())
        {
            cluster.metrics.retry_denied(Denied::Budget);
            return None;
        }
        cluster.metrics.retried();
        self.made += 1;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dataplane_telemetry::metrics::Metrics;
    use dataplane_upstream::Cluster;

    use super::*;

    fn cluster() -> ClusterConfig {
        let source = dataplane_testkit::snapshot::cluster(
            "shop/b:80",
            ir::cluster::ClusterProtocol::Http,
            &[],
        );
        ClusterConfig {
            access: None,
            cluster: Cluster::compile(&Arc::new(source), None),
            tls: dataplane_config::ClusterTls::default(),
            metrics: Metrics::new().backend(&"shop/b:80".into()),
            retries: Arc::default(),
            retry_allowance: None,
            breaker: None,
            limits: dataplane_config::Limits::default(),
            ai: None,
            plugins: Vec::new(),
            session: None,
        }
    }

    fn retry(attempts: u32, backoff_ms: Option<u64>) -> Retry {
        Retry {
            codes: vec![503],
            attempts,
            backoff: backoff_ms.map(Duration::from_millis),
        }
    }

    fn pauses(policy: &mut Policy<'_>, random: f64, due: Option<Instant>) -> Vec<u128> {
        let cluster = cluster();
        let chance = Chance { due, random };
        std::iter::from_fn(|| policy.next(&cluster, false, Duration::ZERO, chance))
            .map(|pause| pause.as_millis())
            .take(1000)
            .collect()
    }

    #[test]
    fn pauses_grow_from_the_backoff_and_are_never_shorter() {
        let cases = [
            (Some(100), 0.0, [100, 100, 100, 100, 100, 100]),
            (Some(100), 1.0, [200, 300, 500, 900, 1000, 1000]),
            (None, 0.0, [0, 0, 0, 0, 0, 0]),
            (None, 1.0, [25, 50, 100, 200, 225, 225]),
        ];
        for (backoff, random, expected) in cases {
            let retry = retry(6, backoff);
            let mut policy = Policy::new(&retry, None, None);
            assert_eq!(
                pauses(&mut policy, random, None),
                expected,
                "{backoff:?} {random}"
            );
        }
    }

    #[test]
    fn an_attempt_that_could_not_begin_in_time_is_not_made() {
        let retry = retry(6, Some(100));
        let soon = Some(Instant::now() + Duration::from_millis(50));
        assert_eq!(pauses(&mut Policy::new(&retry, None, None), 0.0, soon), []);
        assert_eq!(pauses(&mut Policy::new(&retry, None, soon), 0.0, None), []);
    }

    #[test]
    fn the_backend_may_ask_for_a_longer_pause() {
        let retry = retry(1, Some(100));
        let mut policy = Policy::new(&retry, None, None);
        let chance = Chance {
            due: None,
            random: 0.5,
        };
        let asked = Duration::from_secs(2);
        assert_eq!(policy.next(&cluster(), false, asked, chance), Some(asked));
    }

    #[test]
    fn attempts_end_with_the_budget_and_free_ones_cost_none() {
        let retry = retry(100, None);
        let budget = Allowance {
            ratio_percent: 20,
            burst: 3,
        };
        let cluster = cluster();
        let chance = Chance {
            due: None,
            random: 0.0,
        };
        let mut made = 0;
        let mut policy = Policy::new(&retry, Some(budget), None);
        while policy
            .next(&cluster, false, Duration::ZERO, chance)
            .is_some()
        {
            made += 1;
        }
        assert_eq!(made, 3);
        assert!(
            policy
                .next(&cluster, true, Duration::ZERO, chance)
                .is_some()
        );
    }
}
