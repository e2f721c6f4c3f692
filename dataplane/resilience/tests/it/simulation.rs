//! A breaker and an endpoint's record among many clients and an upstream that comes and goes.
//!
//! Every run is made from a seed, which a failure prints; the clock is a number that the run moves.

use std::collections::VecDeque;
use std::time::Duration;

use dataplane_resilience::circuit_breaker::{Breaker, Pass, Settings, State};
use dataplane_resilience::outlier::{self, Failure, Record};

const SEEDS: u64 = 300;

/// A small generator with a long period; a seed is a whole run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

fn seeds() -> impl Iterator<Item = (u64, Random)> {
    (1..=SEEDS).map(|seed| (seed, Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
}

#[test]
fn a_breaker_opens_on_failures_only_lets_few_trials_pass_and_closes_again() {
    for (seed, mut random) in seeds() {
        let start = Duration::from_secs(1);
        let settings = Settings {
            failure_threshold: 1 + u32::try_from(random.below(8)).unwrap(),
            success_threshold: 1 + u32::try_from(random.below(4)).unwrap(),
            timeout: Duration::from_millis(1 + random.below(2_000)),
        };
        let breaker = Breaker::new(settings);
        let mut now = start;
        let mut running: VecDeque<Pass<'_>> = VecDeque::new();
        let mut is_up = true;
        for _ in 0..2_000 {
            now += Duration::from_millis(random.below(20));
            if random.below(100) == 0 {
                is_up = !is_up;
            }
            let before = breaker.state(now);
            if let Ok(pass) = breaker.enter(now) {
                assert_ne!(before, State::Open, "seed {seed}");
                running.push_back(pass);
            } else {
                assert_ne!(before, State::Closed, "seed {seed}");
            }
            while running.len() > usize::try_from(random.below(6)).unwrap() {
                let pass = running.pop_front().unwrap();
                match (is_up, random.below(50)) {
                    (_, 0) => drop(pass),
                    (true, _) => pass.succeeded(),
                    (false, _) => {
                        pass.failed(now);
                    }
                }
            }
        }
        // Once the upstream is well, the breaker closes: nothing stays stuck.
        running.clear();
        now += settings.timeout;
        for _ in 0..settings.success_threshold {
            now += settings.timeout;
            if let Ok(pass) = breaker.enter(now) {
                pass.succeeded();
            }
        }
        assert_eq!(breaker.state(now), State::Closed, "seed {seed}");
    }
}

#[test]
fn at_no_time_do_more_trials_run_than_successes_are_needed() {
    for (seed, mut random) in seeds() {
        let start = Duration::from_secs(1);
        let settings = Settings {
            failure_threshold: 1,
            success_threshold: 1 + u32::try_from(random.below(5)).unwrap(),
            timeout: Duration::from_millis(100),
        };
        let breaker = Breaker::new(settings);
        breaker.enter(start).unwrap().failed(start);
        let now = start + settings.timeout;
        let mut running = Vec::new();
        for _ in 0..200 {
            match random.below(3) {
                0 if !running.is_empty() => {
                    let at = usize::try_from(random.below(running.len() as u64)).unwrap();
                    drop(running.swap_remove(at));
                }
                _ => running.extend(breaker.enter(now)),
            }
            let most = settings.success_threshold as usize;
            assert!(running.len() <= most, "seed {seed}: {}", running.len());
        }
    }
}

/// One of four endpoints is down for 22 s and up for 22 s, five times, at 200 requests a second
/// that are never repeated.
#[test]
fn a_flapping_endpoint_costs_few_requests_and_still_serves_most_of_its_share() {
    let settings = outlier::Settings::default();
    for (seed, mut random) in seeds().take(20) {
        let start = Duration::from_secs(1);
        let records: Vec<Record> = (0..4).map(|_| Record::default()).collect();
        let phase = Duration::from_secs(22);
        let (mut failed, mut served) = (0, 0);
        let first = random.below(4);
        for step in 0..(10 * 22 * 200_u64) {
            let elapsed = Duration::from_millis(step * 5);
            let now = start + elapsed;
            let is_up = (elapsed.as_millis() / phase.as_millis()) % 2 == 1;
            let turn = usize::try_from(first + step).unwrap();
            let at = (0..4)
                .map(|skip| (turn + skip) % 4)
                .find(|at| !records[*at].is_ejected(now))
                .unwrap();
            if at == 0 && !is_up {
                let ejected = records.iter().filter(|r| r.is_ejected(now)).count();
                records[0].failed(Failure::Gateway, &settings, now, || {
                    settings.allows(ejected, records.len())
                });
                failed += 1;
            } else {
                records[at].succeeded(now);
                served += usize::from(at == 0);
            }
        }
        assert!(failed < 162, "seed {seed}: {failed} failed");
        assert!(served >= 4_500, "seed {seed}: {served} served");
    }
}
