//! Budgets on a clock of numbers.

use std::num::NonZeroU64;

use ir::ai::TokenScope;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn policy(minute: u64, hour: u64, requests: u64, on_limit: OnLimit) -> TokenPolicy {
    TokenPolicy {
        tokens_per_minute: NonZeroU64::new(minute),
        tokens_per_hour: NonZeroU64::new(hour),
        requests_per_minute: NonZeroU64::new(requests),
        scope: TokenScope::Global,
        burst: 1.0,
        on_limit,
        degrade_to: Some("small".to_owned()),
        is_dry_run: false,
    }
}

fn budget(minute: u64, hour: u64, requests: u64) -> TokenBudget {
    TokenBudget::compile(&policy(minute, hour, requests, OnLimit::Reject))
}

fn passes(budget: &TokenBudget, ledger: &Ledger, tokens: u64, now: Duration) -> bool {
    budget.reserve(ledger, 1, tokens, 10 * SECOND, now).outcome == Outcome::Pass
}

#[test]
fn a_used_up_budget_refuses_and_says_when_to_come_back() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    assert!(passes(&budget, &ledger, 600, SECOND));
    let verdict = budget.reserve(&ledger, 1, 100, 10 * SECOND, SECOND);
    let retry_after = Duration::from_secs(10);
    assert_eq!(verdict.outcome, Outcome::Refuse { retry_after });
    assert_eq!(verdict.reservation, None);
    assert!(!passes(&budget, &ledger, 100, 10 * SECOND));
    assert!(passes(&budget, &ledger, 100, 11 * SECOND));
}

#[test]
fn what_was_really_used_takes_the_place_of_the_estimate() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    let reservation = budget
        .reserve(&ledger, 1, 500, 10 * SECOND, SECOND)
        .reservation
        .unwrap();
    budget.settle(&ledger, reservation, 100, SECOND);
    assert_eq!(
        budget.peek(&ledger, 1, SECOND).tokens.unwrap().remaining,
        500
    );
    let reservation = budget
        .reserve(&ledger, 1, 10, 10 * SECOND, SECOND)
        .reservation
        .unwrap();
    // Overdrawn by 600: no request for a minute and what it needs itself.
    budget.settle(&ledger, reservation, 1100, SECOND);
    let verdict = budget.reserve(&ledger, 1, 10, 10 * SECOND, SECOND);
    let retry_after = Duration::from_secs(61);
    assert_eq!(verdict.outcome, Outcome::Refuse { retry_after });
    assert_eq!(verdict.standing.tokens.unwrap().remaining, 0);
    assert!(passes(&budget, &ledger, 10, 62 * SECOND));
}

#[test]
fn failed_calls_are_free() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    for _ in 0..100 {
        let reservation = budget
            .reserve(&ledger, 1, 600, 10 * SECOND, SECOND)
            .reservation
            .unwrap();
        budget.settle(&ledger, reservation, 0, SECOND);
    }
}

#[test]
fn all_limits_hold_together() {
    let (budget, ledger) = (budget(600, 1000, 60), Ledger::with_room_for(8));
    assert!(passes(&budget, &ledger, 600, SECOND));
    assert!(!passes(&budget, &ledger, 600, SECOND));
    // The minute is whole again, the hour is not.
    assert!(passes(&budget, &ledger, 400, 61 * SECOND));
    assert!(!passes(&budget, &ledger, 200, 130 * SECOND));
    let ledger = Ledger::with_room_for(8);
    let passed = (0..100)
        .filter(|_| passes(&budget, &ledger, 0, SECOND))
        .count();
    assert_eq!(passed, 60);
    // Nothing was taken from the tokens of those that were refused.
    assert_eq!(
        budget.peek(&ledger, 1, SECOND).tokens.unwrap().remaining,
        600
    );
}

#[test]
fn a_request_larger_than_the_budget_passes_when_nothing_is_owed() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    assert!(passes(&budget, &ledger, 1200, SECOND));
    assert!(!passes(&budget, &ledger, 1, 61 * SECOND));
    assert!(passes(&budget, &ledger, 1, 122 * SECOND));
}

#[test]
fn a_burst_is_a_factor_on_what_can_be_had_at_once() {
    for (burst, at_once) in [(0.5, 300), (1.0, 600), (2.0, 1200), (0.000_1, 1)] {
        let mut policy = policy(600, 0, 0, OnLimit::Reject);
        policy.burst = burst;
        let (budget, ledger) = (TokenBudget::compile(&policy), Ledger::with_room_for(8));
        let passed = (0..2000)
            .filter(|_| passes(&budget, &ledger, 1, SECOND))
            .count();
        assert_eq!(passed, at_once, "{burst}");
    }
}

#[test]
fn each_way_beyond_the_limit() {
    let at = |on_limit, is_dry_run, tokens| {
        let mut policy = policy(600, 0, 0, on_limit);
        policy.is_dry_run = is_dry_run;
        let (budget, ledger) = (TokenBudget::compile(&policy), Ledger::with_room_for(8));
        budget.reserve(&ledger, 1, 600, 10 * SECOND, SECOND);
        budget
            .reserve(&ledger, 1, tokens, 10 * SECOND, SECOND)
            .outcome
    };
    let refuse = |seconds| Outcome::Refuse {
        retry_after: Duration::from_secs(seconds),
    };
    assert_eq!(at(OnLimit::Reject, false, 50), refuse(5));
    assert_eq!(at(OnLimit::Reject, true, 50), Outcome::PassOver);
    assert_eq!(at(OnLimit::Warn, false, 50), Outcome::PassOver);
    assert_eq!(at(OnLimit::Queue, false, 50), Outcome::Wait(5 * SECOND));
    assert_eq!(at(OnLimit::Queue, false, 500), refuse(50));
    assert_eq!(
        at(OnLimit::Degrade, false, 50),
        Outcome::Degrade("small".to_owned())
    );
}

#[test]
fn who_waits_keeps_a_place_in_the_queue() {
    let budget = TokenBudget::compile(&policy(600, 0, 0, OnLimit::Queue));
    let ledger = Ledger::with_room_for(8);
    budget.reserve(&ledger, 1, 600, 10 * SECOND, SECOND);
    let waits: Vec<_> = (0..3)
        .map(|_| budget.reserve(&ledger, 1, 30, 10 * SECOND, SECOND).outcome)
        .collect();
    let expected = [3, 6, 9].map(|seconds| Outcome::Wait(seconds * SECOND));
    assert_eq!(waits, expected);
}

#[test]
fn keys_have_budgets_of_their_own_and_bounded_room() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    for key in 1..=1000 {
        assert_eq!(
            budget
                .reserve(&ledger, key, 600, 10 * SECOND, SECOND)
                .outcome,
            Outcome::Pass
        );
    }
    assert!(ledger.lost() > 900);
    let ledger = Ledger::with_room_for(8);
    for key in 1..=1000 {
        // Each has paid before the next comes.
        let now = SECOND * 61 * u32::try_from(key).unwrap();
        assert_eq!(
            budget.reserve(&ledger, key, 600, 10 * SECOND, now).outcome,
            Outcome::Pass
        );
    }
    assert_eq!(ledger.lost(), 0);
}

#[test]
fn an_account_that_gave_way_is_charged_all_the_same() {
    let (budget, ledger) = (budget(600, 0, 0), Ledger::with_room_for(8));
    let reservation = budget
        .reserve(&ledger, 1, 1, 10 * SECOND, SECOND)
        .reservation
        .unwrap();
    for key in 2..100 {
        budget.reserve(&ledger, key, 600, 10 * SECOND, SECOND);
    }
    budget.settle(&ledger, reservation, 601, SECOND);
    assert!(!passes(&budget, &ledger, 600, SECOND));
}

#[test]
fn headers_tell_where_a_key_stands() {
    let (budget, ledger) = (budget(600, 100_000, 60), Ledger::with_room_for(8));
    let verdict = budget.reserve(&ledger, 1, 150, 10 * SECOND, SECOND);
    let fields: Vec<_> = verdict.standing.headers();
    let expected = [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "600"),
        ("x-ratelimit-remaining-tokens", "450"),
        ("x-ratelimit-reset-tokens", "15s"),
    ];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (name, value.to_owned()))
    );
    for (ms, text) in [
        (0, "0ms"),
        (20, "20ms"),
        (61_500, "1m1s"),
        (3_720_000, "1h2m0s"),
    ] {
        assert_eq!(span(Duration::from_millis(ms)), text);
    }
    for (ms, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2)] {
        assert_eq!(retry_after_seconds(Duration::from_millis(ms)), seconds);
    }
}

#[test]
fn threads_never_get_more_than_the_budget_together() {
    let (budget, ledger) = (budget(1000, 0, 0), Ledger::with_room_for(8));
    let passed: usize = std::thread::scope(|scope| {
        let run = || {
            (0..1000)
                .filter(|_| passes(&budget, &ledger, 1, SECOND))
                .count()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(run)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum()
    });
    assert_eq!(passed, 1000);
}

proptest! {
    #[test]
    fn who_waits_as_long_as_told_is_served(
        limit in 1..1_000_000_u64,
        takes in prop::collection::vec((0..5000_u64, 0..5000_u64), 1..50),
    ) {
        let (budget, ledger) = (budget(limit, 0, 0), Ledger::with_room_for(8));
        let mut now = SECOND;
        for (estimate, used) in takes {
            let mut verdict = budget.reserve(&ledger, 1, estimate, 10 * SECOND, now);
            if let Outcome::Refuse { retry_after } = verdict.outcome {
                now += retry_after;
                verdict = budget.reserve(&ledger, 1, estimate, 10 * SECOND, now);
            }
            prop_assert_eq!(verdict.outcome, Outcome::Pass);
            budget.settle(&ledger, verdict.reservation.unwrap(), used, now);
        }
    }

    #[test]
    fn no_window_spends_more_than_the_rate_the_burst_and_one_overdraft(
        limit in 60..100_000_u64,
        steps in prop::collection::vec((0..30_000_u64, 0..3000_u64), 1..200),
    ) {
        let (budget, ledger) = (budget(limit, 0, 0), Ledger::with_room_for(8));
        let (mut now, mut spent, mut most) = (Duration::from_millis(1), 0_u64, 0_u64);
        for (pause, used) in steps {
            now += Duration::from_millis(pause);
            let verdict = budget.reserve(&ledger, 1, used / 2, 10 * SECOND, now);
            if let Some(reservation) = verdict.reservation {
                budget.settle(&ledger, reservation, used, now);
                spent += used;
                most = most.max(used);
            }
        }
        let allowed = u128::from(limit) * now.as_millis() / 60_000 + u128::from(limit) + u128::from(most) + 200;
        prop_assert!(u128::from(spent) <= allowed, "{spent} of {allowed}");
    }
}
