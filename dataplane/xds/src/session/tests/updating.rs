//! What is applied, in which order, and how each update is answered.

use super::*;

#[test]
fn an_update_is_acknowledged_only_after_it_was_applied() {
    let mut session = active();
    assert_eq!(feed(&mut session, SEC, [full("1")]), [Action::Apply("1")]);
    assert_eq!(session.held(), None);
    assert_eq!(feed(&mut session, SEC, [applied("1")]), [ack("1")]);
    assert_eq!(session.held(), Some(&version("1")));
    assert_eq!(session.type_versions()["type"], "1");
}

#[test]
fn a_refusal_carries_the_refused_version_and_keeps_the_held_one() {
    let mut session = holding();
    let actions = feed(&mut session, SEC, [full("2"), refused("no such secret")]);
    let expected = [
        Action::Apply("2"),
        nack("2", Rejection::new("no such secret")),
    ];
    assert_eq!(actions, expected);
    assert_eq!(session.held(), Some(&version("1")));
    assert_eq!(session.type_versions()["type"], "1");
}

#[test]
fn a_heartbeat_is_neither_applied_nor_answered() {
    let mut session = holding();
    assert_eq!(feed(&mut session, SEC * 2, [heartbeat(), heartbeat()]), []);
}

#[test]
fn the_held_version_is_acknowledged_again_and_not_applied_again() {
    let mut session = holding();
    for event in [full("1"), delta("0", "1")] {
        let actions = all(&mut session, SEC, [event, Event::Reported(Ok(()))]);
        assert_eq!(reports(actions.clone()).len(), 1, "reported");
        assert_eq!(
            actions[..2],
            [Action::Note(Note::Skipped(version("1"))), ack("1")]
        );
    }
}

#[test]
fn a_refused_version_that_comes_again_is_tried_again() {
    let mut session = holding();
    feed(&mut session, SEC, [full("2"), refused("busy port")]);
    assert_eq!(
        feed(&mut session, SEC, [full("2"), applied("2")]),
        [Action::Apply("2"), ack("2")]
    );
}

#[test]
fn an_update_without_a_version_is_refused() {
    let mut session = holding();
    let reason = "no version".to_owned();
    let event = push(
        "n",
        Content::Unusable {
            reason: reason.clone(),
        },
    );
    let expected = Action::Nack {
        version: None,
        nonce: "n".to_owned(),
        rejection: Rejection::new(reason),
    };
    assert_eq!(feed(&mut session, SEC, [event]), [expected]);
}

#[test]
fn an_apply_that_serves_another_version_is_refused() {
    let mut session = holding();
    let actions = feed(&mut session, SEC, [full("2"), applied("3")]);
    let [
        Action::Apply("2"),
        Action::Nack {
            version: refused,
            rejection,
            ..
        },
    ] = &actions[..]
    else {
        panic!("{actions:?}");
    };
    assert_eq!(refused.as_ref(), Some(&version("2")));
    assert!(rejection.reason.contains("version 3 serves instead of 2"));
    assert_eq!(session.held(), Some(&version("3")));
}

#[test]
fn updates_wait_for_the_one_being_applied_and_keep_their_order() {
    let mut session = active();
    assert_eq!(
        feed(&mut session, SEC, [full("1"), delta("1", "2"), full("3")]),
        [Action::Apply("1")]
    );
    assert!(!session.wants_read(), "the queue is full");
    assert_eq!(
        feed(&mut session, SEC, [applied("1")]),
        [ack("1"), Action::Apply("2")]
    );
    assert!(session.wants_read());
    assert_eq!(
        feed(&mut session, SEC, [applied("2")]),
        [ack("2"), Action::Apply("3")]
    );
    assert_eq!(feed(&mut session, SEC, [applied("3")]), [ack("3")]);
}

#[test]
fn a_delta_behind_a_refused_update_does_not_fit() {
    let mut session = holding();
    feed(&mut session, SEC, [full("2"), delta("2", "3")]);
    let actions = feed(&mut session, SEC, [refused("bad")]);
    assert_eq!(
        actions,
        [nack("2", Rejection::new("bad")), Action::RequestFull]
    );
}

#[test]
fn a_delta_that_does_not_fit_asks_for_a_whole_snapshot() {
    let without_base = || {
        push(
            "4",
            Content::Delta {
                base: None,
                version: version("4"),
                update: "4",
            },
        )
    };
    for (mut session, event) in [
        (holding(), delta("3", "4")),
        (holding(), without_base()),
        (active(), delta("3", "4")),
        (active(), without_base()),
    ] {
        assert_eq!(feed(&mut session, SEC, [event]), [Action::RequestFull]);
        let actions = feed(
            &mut session,
            SEC,
            [full("4"), applied("4"), delta("4", "5")],
        );
        assert_eq!(actions, [Action::Apply("4"), ack("4"), Action::Apply("5")]);
    }
}

#[test]
fn a_second_delta_that_does_not_fit_ends_the_stream_and_the_next_starts_over() {
    let mut session = holding();
    let actions = feed(&mut session, SEC, [delta("3", "4"), delta("4", "5")]);
    assert_eq!(actions, [Action::RequestFull, Action::Hangup]);

    let again = [
        Event::Tick,
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
    ];
    let actions = feed(&mut session, SEC * 60, again);
    assert_eq!(
        actions,
        [
            Action::Dial,
            Action::CheckHealth,
            Action::Open { version: None }
        ]
    );
    // Even the held version is applied then: it was asked for.
    let actions = feed(&mut session, SEC * 60, [Event::Opened, full("1")]);
    assert_eq!(actions, [Action::Apply("1")]);
}

#[test]
fn a_delta_that_the_applier_cannot_place_asks_for_a_whole_snapshot() {
    let mut session = holding();
    let misfit = Event::Applied(Err(Rejection::resync("base differs")));
    let actions = feed(&mut session, SEC, [delta("1", "2"), misfit]);
    assert_eq!(actions, [Action::Apply("2"), Action::RequestFull]);
    assert_eq!(
        feed(&mut session, SEC, [full("1")]),
        [Action::Apply("1")],
        "not skipped"
    );
}

#[test]
fn a_whole_snapshot_is_never_asked_for_again_because_it_was_refused() {
    let mut session = holding();
    let misfit = || Event::Applied(Err(Rejection::resync("torn")));
    let actions = feed(&mut session, SEC, [full("2"), misfit()]);
    assert_eq!(
        actions,
        [Action::Apply("2"), nack("2", Rejection::resync("torn"))]
    );
    assert_eq!(
        feed(&mut session, SEC, [delta("1", "3")]),
        [Action::RequestFull]
    );
}

#[test]
fn two_refusals_in_a_row_make_the_next_stream_start_over() {
    for (refusals, expected) in [(1, Some(version("1"))), (2, None)] {
        let mut session = holding();
        for _ in 0..refusals {
            feed(&mut session, SEC, [full("2"), refused("bad")]);
        }
        feed(&mut session, SEC, [ended()]);
        let again = [
            Event::Tick,
            Event::Dialled,
            Event::HealthChecked(Health::Serving),
        ];
        let actions = feed(&mut session, SEC * 60, again);
        assert_eq!(
            actions[2],
            Action::Open { version: expected },
            "{refusals} refusals"
        );
    }
}

#[test]
fn a_stream_lost_while_applying_is_reopened_after_it_with_the_new_version() {
    let mut session = holding();
    feed(&mut session, SEC, [full("2"), full("3"), ended()]);
    assert_eq!(
        feed(&mut session, SEC * 40, [Event::Tick]),
        [],
        "no dial while applying"
    );
    let actions = feed(&mut session, SEC * 40, [applied("2")]);
    assert_eq!(
        actions,
        [],
        "no answer without a stream, and what waited is forgotten"
    );
    assert_eq!(session.deadline().map(|at| at <= SEC * 40), Some(true));
    let again = [
        Event::Tick,
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
    ];
    let actions = feed(&mut session, SEC * 40, again);
    assert_eq!(
        actions[2],
        Action::Open {
            version: Some(version("2"))
        }
    );
}

#[test]
fn an_update_refused_after_its_stream_was_lost_is_noted_and_not_answered() {
    let mut session = holding();
    feed(&mut session, SEC, [delta("1", "2"), ended()]);
    let misfit = Event::Applied(Err(Rejection::resync("torn")));
    let actions = all(&mut session, SEC, [misfit]);
    let refused = Note::Rejected {
        version: Some(version("2")),
        reason: "torn".to_owned(),
    };
    assert_eq!(actions, [Action::Note(refused)]);
}

#[test]
fn refusals_with_an_applied_update_between_them_are_not_in_a_row() {
    let mut session = holding();
    for event in [full("2"), refused("bad"), full("3"), applied("3")] {
        feed(&mut session, SEC, [event]);
    }
    feed(&mut session, SEC, [full("4"), refused("bad"), ended()]);
    let again = [
        Event::Tick,
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
    ];
    let actions = feed(&mut session, SEC * 60, again);
    let version = Some(version("3"));
    assert_eq!(actions[2], Action::Open { version });
}

#[test]
fn a_stream_is_asked_once_for_a_whole_snapshot_and_the_next_once_more() {
    let mut session = holding();
    assert_eq!(
        feed(&mut session, SEC, [delta("8", "9")]),
        [Action::RequestFull]
    );
    // It came and could not be placed either, so a delta is still no answer.
    let torn = || Event::Applied(Err(Rejection::resync("torn")));
    let actions = feed(&mut session, SEC, [full("9"), torn(), delta("1", "10")]);
    let refusal = nack("9", Rejection::resync("torn"));
    assert_eq!(actions, [Action::Apply("9"), refusal, Action::Hangup]);

    let again = [
        Event::Tick,
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
        Event::Opened,
    ];
    feed(&mut session, SEC * 60, again);
    assert_eq!(
        feed(&mut session, SEC * 60, [delta("1", "10")]),
        [Action::RequestFull]
    );
    assert_eq!(
        feed(&mut session, SEC * 60, [delta("1", "10")]),
        [Action::Hangup]
    );
}
