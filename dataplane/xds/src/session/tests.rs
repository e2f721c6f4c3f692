//! The protocol, one rule a test. Updates carry their own name, so that what is handed out can be
//! compared.

use super::*;

mod connecting;
mod reporting;
mod silence;
mod updating;

type Case = Session<&'static str>;

const SEC: Duration = Duration::from_secs(1);

fn version(text: &str) -> Version {
    Version::new(text)
}

fn timing() -> Timing {
    Timing::default()
}

fn full(name: &'static str) -> Event<&'static str> {
    push(
        name,
        Content::Full {
            version: version(name),
            update: name,
        },
    )
}

fn delta(base: &str, name: &'static str) -> Event<&'static str> {
    push(
        name,
        Content::Delta {
            base: Some(version(base)),
            version: version(name),
            update: name,
        },
    )
}

fn push(nonce: &str, content: Content<&'static str>) -> Event<&'static str> {
    Event::Received(Response::Push(Push {
        nonce: nonce.to_owned(),
        content,
        type_versions: BTreeMap::from([("type".to_owned(), nonce.to_owned())]),
    }))
}

fn heartbeat() -> Event<&'static str> {
    Event::Received(Response::Heartbeat)
}

fn applied(name: &str) -> Event<&'static str> {
    Event::Applied(Ok(version(name)))
}

fn refused(reason: &str) -> Event<&'static str> {
    Event::Applied(Err(Rejection::new(reason)))
}

fn ended() -> Event<&'static str> {
    Event::StreamEnded("gone".to_owned())
}

/// Hands in events one second in and a random number of one half, and returns what concerns the
/// wire: all actions but notes and reports.
fn feed(
    session: &mut Case,
    now: Duration,
    events: impl IntoIterator<Item = Event<&'static str>>,
) -> Vec<Action<&'static str>> {
    let mut actions = all(session, now, events);
    actions.retain(|action| !matches!(action, Action::Note(_) | Action::Report(_)));
    actions
}

fn all(
    session: &mut Case,
    now: Duration,
    events: impl IntoIterator<Item = Event<&'static str>>,
) -> Vec<Action<&'static str>> {
    let handle = |event| session.handle(now, 0.5, event);
    events.into_iter().flat_map(handle).collect()
}

fn notes(actions: Vec<Action<&'static str>>) -> Vec<Note> {
    let note = |action| match action {
        Action::Note(note) => Some(note),
        _ => None,
    };
    actions.into_iter().filter_map(note).collect()
}

fn reports(actions: Vec<Action<&'static str>>) -> Vec<Standing> {
    let report = |action| match action {
        Action::Report(standing) => Some(standing),
        _ => None,
    };
    actions.into_iter().filter_map(report).collect()
}

/// A session whose stream has just been accepted.
fn active_with(held: Option<&str>) -> Case {
    let mut session = Case::new(timing(), held.map(version));
    let events = [
        Event::Start,
        Event::Dialled,
        Event::HealthChecked(Health::Serving),
        Event::Opened,
    ];
    feed(&mut session, SEC, events);
    assert_eq!(session.state(), State::Active);
    session
}

fn active() -> Case {
    active_with(None)
}

/// An active session that holds version `1`.
fn holding() -> Case {
    let mut session = active();
    let report_taken = Event::Reported(Ok(()));
    feed(&mut session, SEC, [full("1"), applied("1"), report_taken]);
    session
}

fn ack(name: &str) -> Action<&'static str> {
    Action::Ack {
        version: version(name),
        nonce: name.to_owned(),
    }
}

fn nack(name: &str, rejection: Rejection) -> Action<&'static str> {
    Action::Nack {
        version: Some(version(name)),
        nonce: name.to_owned(),
        rejection,
    }
}
