//! Tests of the stream's state machine: every order of events that matters.

use super::*;
use crate::projection::FEATURES;

const PATIENCE: Duration = Duration::from_secs(30);

fn hello(version: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node_id: "dp-1".to_owned(),
        version: version.to_owned(),
        accepts_delta: true,
        supported_features: FEATURES.iter().map(|f| (*f).to_owned()).collect(),
        ..DiscoveryRequest::default()
    }
}

fn answer(version: &str, nonce: &str, status: DiscoveryResultStatus) -> DiscoveryRequest {
    DiscoveryRequest {
        version: version.to_owned(),
        nonce: nonce.to_owned(),
        result_status: status.into(),
        ..DiscoveryRequest::default()
    }
}

fn ack(version: &str, nonce: &str) -> DiscoveryRequest {
    answer(version, nonce, DiscoveryResultStatus::DiscoveryAck)
}

fn nack(version: &str, nonce: &str) -> DiscoveryRequest {
    answer(version, nonce, DiscoveryResultStatus::DiscoveryNack)
}

fn v(text: &str) -> Version {
    Version::new(text)
}

#[test]
fn the_first_push_of_a_data_plane_depends_on_what_it_is_and_holds() {
    let mut old = hello("a");
    old.accepts_delta = false;
    let mut projected = hello("a");
    projected.supported_features = vec!["core.v1".to_owned()];
    let rows = [
        ("holds nothing", hello(""), Plan::Full),
        ("holds a known version", hello("a"), Plan::Delta(v("a"))),
        ("holds an unknown version", hello("x"), Plan::Full),
        ("holds the current version", hello("b"), Plan::Nothing),
        ("knows no deltas", old, Plan::Full),
        ("lacks features", projected, Plan::Full),
    ];
    for (name, request, expected) in rows {
        let session = Session::open(&request).unwrap();
        let plan = session.plan(&v("b"), |version| version.as_str() == "a");
        assert_eq!(plan, expected, "{name}");
    }
}

#[test]
fn one_push_at_a_time_and_then_the_newest() {
    let now = Instant::now();
    let mut session = Session::open(&hello("")).unwrap();
    let nonce = session.pushed(&v("a"), now, PATIENCE);
    assert_eq!(session.plan(&v("b"), |_| true), Plan::Nothing);
    assert_eq!(session.deadline(), Some(now + PATIENCE));
    let reaction = session
        .on_request(&ack("a", &nonce), now + Duration::from_secs(1))
        .unwrap();
    assert_eq!(reaction, Reaction::Acked(v("a"), Duration::from_secs(1)));
    assert_eq!(session.deadline(), None);
    assert_eq!(session.plan(&v("c"), |_| true), Plan::Delta(v("a")));
    assert_eq!(session.plan(&v("a"), |_| true), Plan::Nothing);
}

#[test]
fn answers_are_matched_by_nonce_or_by_version() {
    let rows = [
        ("b", "NONCE", true),
        ("a", "NONCE", true),
        ("b", "", true),
        ("b", "b", true),
        ("b", "other", false),
        ("a", "", false),
        ("", "", false),
    ];
    for (version, nonce, matches) in rows {
        let now = Instant::now();
        let mut session = Session::open(&hello("")).unwrap();
        let pushed = session.pushed(&v("b"), now, PATIENCE);
        let nonce = nonce.replace("NONCE", &pushed);
        let reaction = session.on_request(&ack(version, &nonce), now).unwrap();
        assert_eq!(
            matches!(reaction, Reaction::Acked(..)),
            matches,
            "for version {version:?}, nonce {nonce:?}"
        );
    }
}

#[test]
fn a_refused_snapshot_is_pushed_whole_once_more() {
    let now = Instant::now();
    let mut session = Session::open(&hello("a")).unwrap();
    let nonce = session.pushed(&v("b"), now, PATIENCE);
    let reaction = session.on_request(&nack("b", &nonce), now).unwrap();
    assert_eq!(reaction, Reaction::Refused(v("b"), Duration::ZERO));
    assert_eq!(session.plan(&v("b"), |_| true), Plan::Full);
    let again = session.pushed(&v("b"), now, PATIENCE);
    assert_ne!(again, nonce, "each push has a nonce of its own");
    let reaction = session.on_request(&nack("b", &again), now).unwrap();
    assert_eq!(reaction, Reaction::RefusedAgain(v("b"), Duration::ZERO));
}

#[test]
fn another_snapshot_is_refused_on_its_own_account() {
    let now = Instant::now();
    let mut session = Session::open(&hello("")).unwrap();
    for version in ["a", "b", "c"] {
        let nonce = session.pushed(&v(version), now, PATIENCE);
        let reaction = session.on_request(&nack(version, &nonce), now).unwrap();
        assert_eq!(reaction, Reaction::Refused(v(version), Duration::ZERO));
    }
}

#[test]
fn an_empty_version_in_a_plain_request_asks_for_the_whole() {
    let now = Instant::now();
    let mut session = Session::open(&hello("a")).unwrap();
    session.pushed(&v("b"), now, PATIENCE);
    let reaction = session.on_request(&hello(""), now).unwrap();
    assert_eq!(reaction, Reaction::Refreshed);
    assert_eq!(session.plan(&v("b"), |_| true), Plan::Full);
}

#[test]
fn a_refresh_that_changes_the_projection_brings_the_whole() {
    let now = Instant::now();
    let mut session = Session::open(&hello("a")).unwrap();
    session.on_request(&hello("a"), now).unwrap();
    assert_eq!(session.plan(&v("a"), |_| true), Plan::Nothing);
    let mut fewer = hello("a");
    fewer.supported_features.pop();
    session.on_request(&fewer, now).unwrap();
    assert_eq!(session.plan(&v("a"), |_| true), Plan::Full);
}

#[test]
fn a_stream_belongs_to_one_named_node() {
    let mut nameless = hello("");
    nameless.node_id = "  ".to_owned();
    assert_eq!(Session::open(&nameless).unwrap_err(), Refusal::Nameless);
    let mut long = hello("");
    long.node_id = "n".repeat(NODE_ID_BYTES_MAX + 1);
    assert_eq!(Session::open(&long).unwrap_err(), Refusal::LongName);

    let mut session = Session::open(&hello("")).unwrap();
    let mut other = ack("a", "");
    other.node_id = "dp-2".to_owned();
    assert!(session.on_request(&other, Instant::now()).is_err());
    other.node_id = String::new();
    assert_eq!(
        session.on_request(&other, Instant::now()).unwrap(),
        Reaction::Ignored
    );
}

#[test]
fn a_refusal_that_is_excused_leaves_the_stream_as_it_was() {
    let now = Instant::now();
    let mut session = Session::open(&hello("a")).unwrap();
    for _ in 0..3 {
        let nonce = session.pushed(&v("b"), now, PATIENCE);
        let reaction = session.on_request(&nack("b", &nonce), now).unwrap();
        assert_eq!(reaction, Reaction::Refused(v("b"), Duration::ZERO));
        assert_eq!(session.plan(&v("b"), |_| true), Plan::Full);
        session.excuse();
        assert_eq!(session.plan(&v("c"), |_| true), Plan::Delta(v("a")));
        assert_eq!(session.plan(&v("a"), |_| true), Plan::Nothing);
    }
    // After a whole one was refused, the next is whole as well.
    session.require_full();
    let nonce = session.pushed(&v("b"), now, PATIENCE);
    session.on_request(&nack("b", &nonce), now).unwrap();
    session.excuse();
    assert_eq!(session.plan(&v("a"), |_| true), Plan::Full);
}
