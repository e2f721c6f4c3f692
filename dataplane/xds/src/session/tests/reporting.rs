//! What reports say, and which of several that wait goes out.

use super::*;

fn messages(standings: &[Standing]) -> Vec<&str> {
    standings
        .iter()
        .map(|standing| standing.message.as_str())
        .collect()
}

/// A session that holds version `1` and has a report under way.
fn reporting() -> Case {
    let mut session = holding();
    let told = reports(all(&mut session, SEC * 11, [heartbeat(), Event::Tick]));
    assert_eq!(told.len(), 1);
    session
}

#[test]
fn a_refusal_is_told_until_an_update_is_applied_or_held_already() {
    for (events, version_told) in [(vec![full("3"), applied("3")], "3"), (vec![full("1")], "1")] {
        let mut session = holding();
        let refusal = [full("2"), refused("bad port"), Event::Reported(Ok(()))];
        let told = reports(all(&mut session, SEC, refusal));
        assert_eq!(messages(&told), ["snapshot rejected: bad port"]);
        let told = reports(all(&mut session, SEC, events));
        assert_eq!(messages(&told), ["snapshot applied"]);
        assert_eq!(told[0].version, Some(version(version_told)));
    }
}

#[test]
fn a_refusal_waits_for_the_report_under_way() {
    let mut session = reporting();
    let told = reports(all(&mut session, SEC * 11, [full("2"), refused("bad")]));
    assert_eq!(told, []);
    let told = reports(all(&mut session, SEC * 11, [Event::Reported(Ok(()))]));
    assert_eq!(messages(&told), ["snapshot rejected: bad"]);
}

#[test]
fn of_several_acknowledgements_that_wait_the_newest_is_reported() {
    let mut session = reporting();
    let updates = [full("2"), applied("2"), full("3"), applied("3")];
    assert_eq!(reports(all(&mut session, SEC * 11, updates)), []);
    let taken = [Event::Reported(Ok(())), Event::Reported(Ok(()))];
    let told = reports(all(&mut session, SEC * 11, taken));
    let versions: Vec<_> = told.into_iter().map(|standing| standing.version).collect();
    assert_eq!(versions, [Some(version("3"))]);
}
