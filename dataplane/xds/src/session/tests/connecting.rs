//! Dialling, health, silence, pauses, reports and what people are told.

use super::*;

#[test]
fn the_states_follow_the_drawing() {
    let failed = || Event::DialFailed("refused".to_owned());
    let healthy = || Event::HealthChecked(Health::Serving);
    let rows = [
        (vec![], State::Idle),
        (vec![Event::Start], State::Connecting),
        (vec![Event::Start, failed()], State::Disconnected),
        (
            vec![Event::Start, Event::Unanswered("refused".to_owned())],
            State::Disconnected,
        ),
        (vec![Event::Start, Event::Dialled], State::Handshake),
        (
            vec![Event::Start, Event::Dialled, ended()],
            State::Disconnected,
        ),
        (
            vec![Event::Start, Event::Dialled, healthy()],
            State::Handshake,
        ),
        (
            vec![Event::Start, Event::Dialled, healthy(), ended()],
            State::Disconnected,
        ),
        (
            vec![Event::Start, Event::Dialled, healthy(), Event::Opened],
            State::Active,
        ),
        (
            vec![
                Event::Start,
                Event::Dialled,
                healthy(),
                Event::Opened,
                ended(),
            ],
            State::Disconnected,
        ),
    ];
    for (events, expected) in rows {
        let told = format!("{events:?}");
        let mut session = Case::new(timing(), None);
        feed(&mut session, SEC, events);
        assert_eq!(session.state(), expected, "{told}");
    }
}

#[test]
fn an_event_of_another_state_changes_nothing() {
    let strays = || {
        [
            Event::Dialled,
            Event::Opened,
            Event::HealthChecked(Health::NotServing),
            full("1"),
            applied("1"),
            Event::Reported(Err("late".to_owned())),
            ended(),
            Event::DialFailed("late".to_owned()),
            Event::Unanswered("late".to_owned()),
            Event::Tick,
        ]
    };
    let mut idle = Case::new(timing(), None);
    assert_eq!(all(&mut idle, SEC, strays()), []);
    assert_eq!(idle.state(), State::Idle);

    let mut dialled = Case::new(timing(), None);
    feed(&mut dialled, SEC, [Event::Start, Event::Dialled]);
    assert_eq!(all(&mut dialled, SEC, [Event::Opened, full("1")]), []);
    assert_eq!(dialled.state(), State::Handshake, "nothing was opened yet");

    let mut disconnected = active();
    feed(&mut disconnected, SEC, [ended()]);
    assert_eq!(all(&mut disconnected, SEC, strays()), []);
    assert_eq!(disconnected.state(), State::Disconnected);

    let mut running = active();
    let strays = [
        Event::Start,
        Event::Dialled,
        Event::Opened,
        Event::DialFailed("late".to_owned()),
    ];
    assert_eq!(all(&mut running, SEC, strays), []);
    assert_eq!(running.state(), State::Active);
}

#[test]
fn the_stream_opens_once_the_control_plane_is_healthy() {
    let rows = [
        (Health::Serving, true),
        (Health::Unimplemented, true),
        (Health::NotServing, false),
        (Health::Failed("timeout".to_owned()), false),
    ];
    for (health, opens) in rows {
        let mut session = Case::new(timing(), Some(version("7")));
        assert_eq!(feed(&mut session, SEC, [Event::Start]), [Action::Dial]);
        assert_eq!(
            feed(&mut session, SEC, [Event::Dialled]),
            [Action::CheckHealth]
        );
        let actions = feed(&mut session, SEC, [Event::HealthChecked(health.clone())]);
        if opens {
            assert_eq!(
                actions,
                [Action::Open {
                    version: Some(version("7"))
                }],
                "{health:?}"
            );
        } else {
            assert_eq!(actions, [Action::Hangup], "{health:?}");
            assert_eq!(session.state(), State::Disconnected);
        }
    }
}

#[test]
fn health_is_asked_every_interval_and_only_not_serving_ends_a_stream() {
    let mut session = active();
    feed(&mut session, SEC, [heartbeat()]);
    assert_eq!(session.deadline(), Some(SEC * 6));
    assert_eq!(
        feed(&mut session, SEC * 6, [Event::Tick]),
        [Action::CheckHealth]
    );
    assert_eq!(
        feed(&mut session, SEC * 7, [Event::Tick]),
        [],
        "one check at a time"
    );

    let failed = Event::HealthChecked(Health::Failed("timeout".to_owned()));
    let actions = all(&mut session, SEC * 7, [failed]);
    assert_eq!(
        notes(actions),
        [Note::HealthCheckFailed("timeout".to_owned())]
    );
    assert_eq!(
        feed(&mut session, SEC * 12, [Event::Tick]),
        [Action::CheckHealth]
    );
    let not_serving = Event::HealthChecked(Health::NotServing);
    assert_eq!(
        feed(&mut session, SEC * 12, [not_serving]),
        [Action::Hangup]
    );
    assert_eq!(session.state(), State::Disconnected);
}

#[test]
fn a_control_plane_without_a_health_service_is_not_asked_again() {
    let mut session = Case::new(timing(), None);
    let unimplemented = Event::HealthChecked(Health::Unimplemented);
    feed(
        &mut session,
        SEC,
        [Event::Start, Event::Dialled, unimplemented, Event::Opened],
    );
    for second in 2..30 {
        let actions = feed(&mut session, SEC * second, [heartbeat(), Event::Tick]);
        assert_eq!(actions, [], "second {second}");
    }
}

#[test]
fn a_silent_stream_is_given_up() {
    let mut session = holding();
    feed(&mut session, SEC * 20, [heartbeat()]);
    assert_eq!(
        feed(&mut session, SEC * 49, [Event::Tick]),
        [Action::CheckHealth]
    );
    assert_eq!(session.state(), State::Active);
    assert_eq!(
        feed(&mut session, SEC * 50, [Event::Tick]),
        [Action::Hangup]
    );
    assert_eq!(session.state(), State::Disconnected);
}

#[test]
fn a_stream_that_is_never_accepted_is_given_up() {
    let mut session = Case::new(timing(), None);
    feed(
        &mut session,
        SEC,
        [
            Event::Start,
            Event::Dialled,
            Event::HealthChecked(Health::Serving),
        ],
    );
    assert_eq!(session.deadline(), Some(SEC * 31));
    assert_eq!(
        feed(&mut session, SEC * 31, [Event::Tick]),
        [Action::Hangup]
    );
}

#[test]
fn silence_does_not_count_while_reading_is_paused() {
    let mut session = active();
    feed(&mut session, SEC, [full("1"), full("2"), full("3")]);
    feed(&mut session, SEC * 100, [Event::Tick]);
    assert_eq!(session.state(), State::Active);
    feed(&mut session, SEC * 100, [applied("1"), Event::Tick]);
    assert_eq!(session.state(), State::Active);
    assert_eq!(
        feed(&mut session, SEC * 130, [Event::Tick]),
        [Action::Hangup]
    );
}

#[test]
fn pauses_stay_short_while_replicas_on_standby_are_met() {
    let mut session = Case::new(timing(), None);
    let mut now = SEC;
    feed(&mut session, now, [Event::Start]);
    let mut pauses = Vec::new();
    for _ in 0..63 {
        let standby = Event::HealthChecked(Health::NotServing);
        feed(&mut session, now, [Event::Dialled, standby]);
        let at = session.deadline().unwrap();
        pauses.push((at - now).as_millis());
        now = at;
        feed(&mut session, now, [Event::Tick]);
    }
    let (short, grown) = pauses.split_at(60);
    let (soon, short) = short.split_at(8);
    assert!(soon.iter().all(|pause| *pause == 62), "{soon:?}");
    assert_eq!(short[..4], [125, 250, 500, 500]);
    assert!(short[4..].iter().all(|pause| *pause == 500), "{short:?}");
    // Replicas take up to 15 seconds to agree on another leader.
    assert!(soon.iter().chain(short).sum::<u128>() > 15_000);
    assert_eq!(grown, [1000, 2000, 4000]);
}

#[test]
fn pauses_stay_short_while_nobody_is_there() {
    let mut session = Case::new(timing(), None);
    let mut now = SEC;
    feed(&mut session, now, [Event::Start]);
    let mut fail = |event| {
        assert_eq!(feed(&mut session, now, [event]), [Action::Hangup]);
        let at = session.deadline().unwrap();
        let pause = (at - now).as_millis();
        now = at;
        assert_eq!(feed(&mut session, now, [Event::Tick]), [Action::Dial]);
        pause
    };
    let nobody = || Event::Unanswered("refused".to_owned());
    let somebody = || Event::DialFailed("no handshake".to_owned());
    let pauses = [(); 300].map(|()| fail(nobody()));
    assert_eq!(pauses[..5], [62, 125, 250, 500, 500]);
    assert!(pauses[5..].iter().all(|pause| *pause == 500), "{pauses:?}");
    assert_eq!([(); 3].map(|()| fail(somebody())), [1000, 2000, 4000]);
    // One that breaks down over and over is not forgotten.
    assert_eq!([fail(nobody()), fail(somebody())], [500, 8000]);
}

#[test]
fn pauses_grow_up_to_the_limit_and_shrink_after_a_stable_stream() {
    let mut session = Case::new(timing(), None);
    let mut now = SEC;
    feed(&mut session, now, [Event::Start]);
    let mut pauses = Vec::new();
    for _ in 0..6 {
        let failed = Event::DialFailed("no handshake".to_owned());
        assert_eq!(feed(&mut session, now, [failed]), [Action::Hangup]);
        let at = session.deadline().unwrap();
        pauses.push((at - now).as_secs());
        now = at;
        assert_eq!(feed(&mut session, now, [Event::Tick]), [Action::Dial]);
    }
    assert_eq!(
        pauses,
        [1, 2, 4, 8, 15, 15],
        "half of 2 s, doubled, up to half of 30 s"
    );

    for (lasts, pause) in [(29, 15), (30, 1)] {
        let up = [
            Event::Dialled,
            Event::HealthChecked(Health::Serving),
            Event::Opened,
        ];
        feed(&mut session, now, up);
        now += SEC * lasts;
        feed(&mut session, now, [ended()]);
        let at = session.deadline().unwrap();
        assert_eq!((at - now).as_secs(), pause, "after a stream of {lasts} s");
        now = at;
        feed(&mut session, now, [Event::Tick]);
    }
}

#[test]
fn the_loss_and_the_return_of_the_control_plane_are_told_once() {
    let mut session = Case::new(timing(), None);
    let mut now = SEC;
    let mut told = notes(all(&mut session, now, [Event::Start]));
    for _ in 0..4 {
        let failed = Event::DialFailed("refused".to_owned());
        told.extend(notes(all(&mut session, now, [failed])));
        now = session.deadline().unwrap();
        told.extend(notes(all(&mut session, now, [Event::Tick])));
    }
    let up = [
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
        Event::Opened,
        heartbeat(),
        heartbeat(),
    ];
    told.extend(notes(all(&mut session, now, up)));
    told.extend(notes(all(&mut session, now, [ended()])));
    let firsts = told
        .iter()
        .filter(|note| matches!(note, Note::Disconnected { is_first: true, .. }));
    assert_eq!(firsts.count(), 2);
    let returns = told.iter().filter(|note| matches!(note, Note::Connected));
    assert_eq!(returns.count(), 1);
    assert_eq!(told.len(), 6);
}

#[test]
fn what_is_held_becomes_stale_once_and_fresh_with_the_next_message() {
    let mut session = holding();
    feed(&mut session, SEC, [ended()]);
    let stale = |notes: Vec<Note>| {
        notes
            .into_iter()
            .filter(|note| *note == Note::Stale)
            .count()
    };
    let mut told = 0;
    for second in 1..200 {
        let actions = all(&mut session, SEC * second, [Event::Tick]);
        told += stale(notes(actions));
        assert_eq!(told, usize::from(second >= 91), "second {second}");
    }
    let up = [
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
        Event::Opened,
        heartbeat(),
    ];
    let told = notes(all(&mut session, SEC * 200, up));
    assert_eq!(told, [Note::Connected, Note::Fresh]);
}

#[test]
fn nothing_held_is_not_stale() {
    let mut session = Case::new(timing(), None);
    feed(&mut session, SEC, [Event::Start]);
    assert_eq!(session.deadline(), None);
    assert_eq!(notes(all(&mut session, SEC * 1000, [Event::Tick])), []);
}

#[test]
fn no_report_goes_out_before_the_control_plane_has_spoken() {
    let mut session = active();
    assert_eq!(reports(all(&mut session, SEC * 20, [Event::Tick])), []);
    feed(&mut session, SEC * 20, [heartbeat()]);
    let told = reports(all(&mut session, SEC * 30, [Event::Tick]));
    let expected = Standing {
        version: None,
        ready: false,
        message: "waiting for snapshot".to_owned(),
    };
    assert_eq!(told, [expected]);
}

#[test]
fn an_answer_is_reported_and_then_a_sign_of_life_every_interval() {
    let mut session = active();
    let told = reports(all(
        &mut session,
        SEC,
        [full("1"), applied("1"), Event::Reported(Ok(()))],
    ));
    let applied = |version| Standing {
        version,
        ready: true,
        message: "snapshot applied".to_owned(),
    };
    assert_eq!(told, [applied(Some(version("1")))]);
    assert_eq!(
        reports(all(&mut session, SEC * 10, [heartbeat(), Event::Tick])),
        []
    );
    assert_eq!(
        reports(all(&mut session, SEC * 11, [Event::Tick])),
        [applied(None)]
    );
}

#[test]
fn a_refusal_is_reported_in_words_and_without_a_version() {
    let mut session = holding();
    let told = reports(all(&mut session, SEC, [full("2"), refused("bad port")]));
    let expected = Standing {
        version: None,
        ready: true,
        message: "snapshot rejected: bad port".to_owned(),
    };
    assert_eq!(told, [expected]);
}

#[test]
fn one_report_is_under_way_and_an_acknowledgement_is_not_displaced() {
    let mut session = holding();
    let actions = all(&mut session, SEC * 11, [heartbeat(), Event::Tick]);
    assert_eq!(reports(actions).len(), 1);
    let actions = all(&mut session, SEC * 11, [full("2"), applied("2")]);
    assert_eq!(reports(actions), [], "one is under way");
    assert_eq!(
        reports(all(&mut session, SEC * 21, [heartbeat(), Event::Tick])),
        []
    );
    let told = reports(all(&mut session, SEC * 21, [Event::Reported(Ok(()))]));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].version, Some(version("2")));
    assert_eq!(
        reports(all(&mut session, SEC * 21, [Event::Reported(Ok(()))])),
        []
    );
}

#[test]
fn a_failing_report_does_not_end_the_stream() {
    let mut session = holding();
    all(&mut session, SEC * 11, [heartbeat(), Event::Tick]);
    let told = all(
        &mut session,
        SEC * 11,
        [Event::Reported(Err("unknown node".to_owned()))],
    );
    assert_eq!(
        told,
        [Action::Note(Note::ReportFailed("unknown node".to_owned()))]
    );
    assert_eq!(session.state(), State::Active);
}
