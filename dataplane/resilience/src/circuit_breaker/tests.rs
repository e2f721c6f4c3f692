//! The breaker's rules, one by one; long runs are in `tests/it/breaker.rs`.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn breaker(failures: u32, successes: u32) -> (Breaker, Duration) {
    let start = Duration::from_secs(7);
    let settings = Settings {
        failure_threshold: failures,
        success_threshold: successes,
        timeout: MINUTE,
    };
    (Breaker::new(settings), start)
}

fn opened(failures: u32, successes: u32) -> (Breaker, Duration) {
    let (breaker, start) = breaker(failures, successes);
    for _ in 0..failures {
        breaker.enter(start).unwrap().failed(start);
    }
    assert_eq!(breaker.state(start), State::Open);
    (breaker, start)
}

#[test]
fn failures_in_a_row_open_it_and_a_success_between_starts_over() {
    let (breaker, start) = breaker(3, 1);
    for _ in 0..10 {
        breaker.enter(start).unwrap().failed(start);
        breaker.enter(start).unwrap().failed(start);
        breaker.enter(start).unwrap().succeeded();
    }
    assert_eq!(breaker.state(start), State::Closed);
    for _ in 0..3 {
        breaker.enter(start).unwrap().failed(start);
    }
    assert_eq!(breaker.state(start), State::Open);
}

#[test]
fn an_open_breaker_says_when_to_come_back() {
    let (breaker, start) = opened(1, 1);
    for (seconds, left) in [(0, 60), (1, 59), (59, 1)] {
        let refused = breaker
            .enter(start + Duration::from_secs(seconds))
            .unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_secs(left));
    }
    assert!(breaker.enter(start + MINUTE).is_ok());
}

#[test]
fn as_many_trials_pass_as_successes_are_needed_and_they_close_it() {
    let (breaker, start) = opened(5, 2);
    let later = start + MINUTE;
    let first = breaker.enter(later).unwrap();
    let second = breaker.enter(later).unwrap();
    assert_eq!(
        breaker.enter(later).unwrap_err().retry_after,
        Duration::ZERO
    );
    first.succeeded();
    assert_eq!(breaker.state(later), State::HalfOpen);
    assert!(breaker.enter(later).is_err(), "one success, one trial");
    second.succeeded();
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn a_trial_that_fails_opens_it_for_the_whole_time_again() {
    let (breaker, start) = opened(5, 2);
    let later = start + MINUTE;
    let first = breaker.enter(later).unwrap();
    let second = breaker.enter(later).unwrap();
    first.succeeded();
    second.failed(later);
    assert_eq!(breaker.state(later), State::Open);
    assert_eq!(breaker.enter(later).unwrap_err().retry_after, MINUTE);
}

#[test]
fn a_trial_that_is_given_up_leaves_its_place() {
    let (breaker, start) = opened(1, 1);
    let later = start + MINUTE;
    for _ in 0..5 {
        drop(breaker.enter(later).unwrap());
    }
    breaker.enter(later).unwrap().succeeded();
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn what_began_before_it_opened_says_nothing_about_now() {
    let (breaker, start) = breaker(1, 1);
    let early = [(); 3].map(|()| breaker.enter(start).unwrap());
    breaker.enter(start).unwrap().failed(start);
    let later = start + MINUTE;
    let trial = breaker.enter(later).unwrap();
    let [failure, success, forgotten] = early;
    failure.failed(later);
    assert_eq!(breaker.state(later), State::HalfOpen);
    success.succeeded();
    drop(forgotten);
    assert_eq!(breaker.state(later), State::HalfOpen);
    trial.succeeded();
    assert_eq!(breaker.state(later), State::Closed);
}

#[test]
fn a_trial_of_an_earlier_period_is_no_trial_of_this_one() {
    let (breaker, start) = opened(1, 2);
    let second = start + MINUTE;
    let late = breaker.enter(second).unwrap();
    breaker.enter(second).unwrap().failed(second);
    let third = second + MINUTE;
    let trial = breaker.enter(third).unwrap();
    late.succeeded();
    trial.succeeded();
    assert_eq!(breaker.state(third), State::HalfOpen, "one success of two");
}

#[test]
fn new_settings_go_on_from_the_state_of_before() {
    let (old, start) = opened(5, 2);
    let settings = Settings {
        timeout: MINUTE * 2,
        ..old.settings()
    };
    let breaker = old.with_settings(settings);
    assert!(breaker.enter(start + MINUTE).is_err());
    assert!(breaker.enter(start + MINUTE * 2).is_ok());
}

#[test]
fn thresholds_and_times_out_of_range_are_held_to_it() {
    let start = Duration::from_secs(7);
    let settings = Settings {
        failure_threshold: 0,
        success_threshold: u32::MAX,
        timeout: Duration::MAX,
    };
    let breaker = Breaker::new(settings);
    assert_eq!(breaker.settings().failure_threshold, 1);
    assert_eq!(
        breaker.settings().success_threshold,
        Settings::THRESHOLD_MAX
    );
    breaker.enter(start).unwrap().failed(start);
    assert!(breaker.enter(start + MINUTE * 60 * 24 * 365 * 50).is_err());
}

#[test]
fn a_word_holds_every_value_of_its_parts() {
    for state in [State::Closed, State::Open, State::HalfOpen] {
        for (count, trials, since) in [(0, 0, 0), (COUNT_MAX, 0, 1), (1, COUNT_MAX, SINCE_MAX)] {
            let word = Word {
                state,
                count,
                trials,
                since,
            };
            assert_eq!(Word::unpack(word.pack()), word);
        }
    }
}

#[test]
fn a_pass_that_outlives_its_caller_is_a_trial_like_any_other() {
    let start = Duration::ZERO;
    let settings = Settings {
        failure_threshold: 1,
        success_threshold: 1,
        timeout: MINUTE,
    };
    let breaker = Arc::new(Breaker::new(settings));
    let closed = breaker.enter_owned(start).unwrap();
    assert!(!closed.is_trial());
    assert!(closed.failed(start), "it opens");
    assert!(breaker.enter_owned(start).is_err());
    let trial = breaker.enter_owned(start + MINUTE).unwrap();
    assert!(trial.is_trial());
    assert!(breaker.enter(start + MINUTE).is_err(), "one at a time");
    drop(trial);
    let trial = breaker.enter_owned(start + MINUTE).unwrap();
    trial.succeeded();
    assert_eq!(breaker.state(start + MINUTE), State::Closed);
}
