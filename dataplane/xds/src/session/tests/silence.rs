//! From which moment silence counts: for the stream, and for what is held.

use super::*;

fn stale(actions: Vec<Action<&'static str>>) -> bool {
    notes(actions).contains(&Note::Stale)
}

#[test]
fn silence_on_a_stream_counts_from_its_acceptance() {
    let mut session = Case::new(timing(), None);
    let dialled = [
        Event::Start,
        Event::Dialled,
        Event::HealthChecked(Health::Unimplemented),
    ];
    feed(&mut session, SEC, dialled);
    feed(&mut session, SEC * 25, [Event::Opened]);
    assert_eq!(session.deadline(), Some(SEC * 55));
    assert_eq!(feed(&mut session, SEC * 54, [Event::Tick]), []);
    assert_eq!(
        feed(&mut session, SEC * 55, [Event::Tick]),
        [Action::Hangup]
    );
}

#[test]
fn the_end_of_an_apply_is_no_sign_of_life() {
    let mut session = active();
    feed(&mut session, SEC, [full("1")]);
    feed(&mut session, SEC * 25, [applied("1")]);
    assert_eq!(
        feed(&mut session, SEC * 31, [Event::Tick]),
        [Action::Hangup]
    );
}

#[test]
fn what_is_held_at_the_start_is_fresh_at_the_start() {
    let mut session = Case::new(timing(), Some(version("7")));
    feed(&mut session, SEC * 100, [Event::Start]);
    assert_eq!(session.deadline(), Some(SEC * 190));
    assert!(!stale(all(&mut session, SEC * 189, [Event::Tick])));
    assert!(stale(all(&mut session, SEC * 190, [Event::Tick])));
}

#[test]
fn every_message_confirms_what_is_held() {
    let mut session = holding();
    feed(&mut session, SEC * 20, [heartbeat()]);
    feed(&mut session, SEC * 21, [ended(), Event::Tick]);
    assert!(!stale(all(&mut session, SEC * 109, [Event::Tick])));
    assert!(stale(all(&mut session, SEC * 110, [Event::Tick])));
}
