//! Thresholds, faults and the schedule, by tables and by seeds.

use std::collections::HashMap;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn settings(unhealthy: u32, healthy: u32) -> Settings {
    Settings {
        unhealthy_threshold: unhealthy,
        healthy_threshold: healthy,
        ..Settings::default()
    }
}

fn run(record: &Record, settings: &Settings, results: &str) -> String {
    let mut states = String::new();
    for result in results.chars() {
        let result = match result {
            '+' => Ok(()),
            _ => Err(Fault::Timeout),
        };
        record.checked(result, settings);
        states.push(if record.is_unwell() { 'u' } else { 'w' });
    }
    states
}

#[test]
fn it_turns_after_so_many_in_a_row_and_no_sooner() {
    for (unhealthy, healthy, results, expected) in [
        (1, 1, "+-+-+", "wuwuw"),
        (2, 2, "-+-+-+", "wwwwww"),
        (2, 2, "--+-++", "wuuuuw"),
        (3, 1, "---+--", "wwuwww"),
        (3, 2, "--+---+-++", "wwwwwuuuuw"),
        (0, 0, "-+", "uw"),
    ] {
        let record = Record::default();
        let states = run(&record, &settings(unhealthy, healthy), results);
        assert_eq!(states, expected, "{unhealthy} {healthy} {results}");
    }
}

#[test]
fn nobody_is_unwell_who_was_not_asked() {
    let record = Record::default();
    assert!(!record.is_unwell() && !record.is_checked());
    run(&record, &settings(1, 1), "-");
    assert!(record.is_unwell() && record.is_checked());
    record.forget();
    assert!(!record.is_unwell() && !record.is_checked());
    assert_eq!(record.fault(), None);
}

#[test]
fn the_last_fault_is_told() {
    let record = Record::default();
    for (fault, text) in [
        (Fault::Connect, "no connection"),
        (Fault::Tls, "no TLS"),
        (Fault::Timeout, "no answer in time"),
        (Fault::Broken, "the connection broke"),
        (Fault::Malformed, "the answer is malformed"),
        (Fault::Status(503), "status 503"),
        (Fault::Status(0), "status 0"),
        (Fault::NotServing, "not SERVING"),
        (Fault::GrpcStatus(12), "grpc-status 12"),
        (Fault::GrpcStatus(u16::MAX), "grpc-status 65535"),
    ] {
        record.checked(Err(fault), &settings(100, 1));
        assert_eq!(record.fault(), Some(fault));
        assert_eq!(fault.to_string(), text);
    }
    assert_eq!(record.in_a_row(), 10);
    record.checked(Ok(()), &settings(100, 1));
    assert_eq!((record.fault(), record.in_a_row()), (None, 0));
}

#[test]
fn checks_are_spread_around_their_interval() {
    let settings = Settings::default();
    assert_eq!(settings.pause(0.5), 5 * SECOND);
    assert_eq!(settings.pause(0.0), Duration::from_millis(4500));
    assert_eq!(settings.pause(1.0), Duration::from_millis(5500));
    assert_eq!(settings.first(0.0), Duration::ZERO);
    assert_eq!(settings.first(1.0), SECOND, "soon");
    let often = Settings {
        interval: SECOND / 10,
        ..settings
    };
    assert_eq!(often.first(1.0), SECOND / 10);
}

#[test]
fn the_longest_due_comes_first() {
    let mut schedule = Schedule::default();
    for (due, name) in [(3, "c"), (1, "a"), (2, "b"), (9, "d")] {
        schedule.put(due * SECOND, name);
    }
    assert_eq!(schedule.next_due(), Some(SECOND));
    assert_eq!(schedule.take_due(SECOND / 2), None);
    let mut taken = Vec::new();
    while let Some(name) = schedule.take_due(5 * SECOND) {
        taken.push(name);
    }
    assert_eq!(taken, ["a", "b", "c"]);
    assert_eq!((schedule.len(), schedule.is_empty()), (1, false));
}

/// Endpoints of random moods under random settings, in virtual time.
#[test]
fn simulated_checks_keep_their_rhythm_and_their_thresholds() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let settings = Settings {
            interval: Duration::from_millis(random.u64(50..5_000)),
            unhealthy_threshold: random.u32(1..5),
            healthy_threshold: random.u32(1..5),
            ..Settings::default()
        };
        let count = random.usize(1..60);
        let records: Vec<Record> = (0..count).map(|_| Record::default()).collect();
        let mut schedule = Schedule::default();
        for at in 0..count {
            schedule.put(settings.first(random.f64()), at);
        }
        let mut last: HashMap<usize, Duration> = HashMap::new();
        // Results in a row of one kind, by endpoint.
        let mut rows = vec![(true, 0_u32); count];
        let fails = random.f64();
        let mut now = Duration::ZERO;
        for _ in 0..count * 30 {
            now = schedule.next_due().unwrap();
            let at = schedule.take_due(now).unwrap();
            if let Some(before) = last.insert(at, now) {
                let gap = (now - before).as_secs_f64() / settings.interval.as_secs_f64();
                assert!((0.89..1.11).contains(&gap), "seed {seed}: {gap}");
            }
            let is_ok = random.f64() > fails;
            let (kind, row) = &mut rows[at];
            *row = if *kind == is_ok { *row + 1 } else { 1 };
            *kind = is_ok;
            let was_unwell = records[at].is_unwell();
            let turned = records[at].checked(is_ok.then_some(()).ok_or(Fault::Broken), &settings);
            let threshold = match was_unwell {
                true => settings.healthy_threshold,
                false => settings.unhealthy_threshold,
            };
            let should_turn = is_ok == was_unwell && *row >= threshold;
            assert_eq!(turned, should_turn, "seed {seed}");
            assert_eq!(records[at].is_unwell(), was_unwell != turned, "seed {seed}");
            schedule.put(now + settings.pause(random.f64()), at);
        }
        assert_eq!(schedule.len(), count, "nobody is lost or there twice");
        assert!(now > Duration::ZERO);
        for at in 0..count {
            assert!(
                now - last[&at] <= settings.pause(1.0),
                "seed {seed}: {at} starves"
            );
        }
    }
}
