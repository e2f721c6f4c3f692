//! The protocol against a control plane that does as it likes, on a virtual clock.
//!
//! Each seed plays ten minutes of random pushes, silences, refusals and broken connections, and then
//! five minutes of good behaviour. On every step the rules of the protocol are checked; at the end
//! the data plane must hold what the control plane wants. A failure names its seed.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dataplane_xds::session::{
    Action, Content, Event, Health, Push, QUEUE_MAX, Response, Session, Standing,
};
use dataplane_xds::{Rejection, State, Timing};
use ir::Version;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

const SEEDS: u32 = 400;
const CHAOS: Duration = Duration::from_secs(600);
const CALM: Duration = Duration::from_secs(300);

#[test]
fn the_rules_hold_whatever_the_control_plane_does() {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| World::new(seed.into()).play());
        match outcome {
            Ok(one) => seen.add(&one),
            Err(cause) => {
                eprintln!("the simulation fails with seed {seed}");
                std::panic::resume_unwind(cause);
            }
        }
    }
    // A simulation that never meets the hard cases proves nothing.
    let Seen {
        acks,
        nacks,
        requests,
        streams,
        queued,
        lost_while_applying,
    } = seen;
    let counts = [acks, nacks, requests, streams, queued, lost_while_applying];
    assert!(
        counts.into_iter().all(|count| count > SEEDS / 4),
        "{counts:?}"
    );
}

/// How often the interesting things happened.
#[derive(Default)]
struct Seen {
    acks: u32,
    nacks: u32,
    requests: u32,
    streams: u32,
    queued: u32,
    lost_while_applying: u32,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.acks += other.acks;
        self.nacks += other.nacks;
        self.requests += other.requests;
        self.streams += other.streams;
        self.queued += other.queued;
        self.lost_while_applying += other.lost_while_applying;
    }
}

/// What an update carries here: enough to know what applying it means.
#[derive(Clone, Debug, PartialEq)]
struct Update {
    base: Option<Version>,
    version: Version,
}

/// The connection as the shell would have it.
#[derive(Default)]
struct Connection {
    /// Things under way; the moment each ends, and how.
    tasks: Vec<(Duration, Event<Update>)>,
    /// Sent by the control plane and not read yet.
    inbox: VecDeque<Response<Update>>,
    /// Read and not answered, oldest first: nonce, version, whether it is a delta.
    unanswered: VecDeque<(String, Option<Version>, bool)>,
    is_open: bool,
    has_spoken: bool,
    /// When the control plane does its next thing.
    next_move: Option<Duration>,
}

struct World {
    rng: StdRng,
    now: Duration,
    session: Session<Update>,
    connection: Option<Connection>,
    /// The update being applied and when it is finished.
    applying: Option<(Duration, Update)>,
    /// What really serves.
    held: Option<Version>,
    /// What the control plane wants.
    wanted: u32,
    nonces: u32,
    is_calm: bool,
    /// By when the next dial must have been made.
    dial_by: Duration,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            now: Duration::ZERO,
            session: Session::new(Timing::default(), None),
            connection: None,
            applying: None,
            held: None,
            wanted: 1,
            nonces: 0,
            is_calm: false,
            dial_by: Duration::ZERO,
            seen: Seen::default(),
        }
    }

    fn play(mut self) -> Seen {
        self.handle(Event::Start);
        while self.now < CHAOS {
            self.step();
        }
        self.is_calm = true;
        if let Some(connection) = &mut self.connection {
            connection.next_move = Some(self.now);
        }
        while self.now < CHAOS + CALM {
            self.step();
        }
        assert_eq!(self.session.state(), State::Active);
        assert_eq!(
            self.held,
            Some(version(self.wanted)),
            "the data plane did not catch up"
        );
        let connection = self.connection.expect("an active session is connected");
        assert!(
            connection.unanswered.is_empty(),
            "{:?}",
            connection.unanswered
        );
        self.seen
    }

    /// Goes to the next moment at which anything happens and lets it happen.
    fn step(&mut self) {
        let connection = self.connection.as_ref();
        let readable =
            connection.is_some_and(|connection| connection.is_open && !connection.inbox.is_empty());
        if readable && self.session.wants_read() {
            return self.read();
        }
        let task =
            connection.and_then(|connection| connection.tasks.iter().map(|task| task.0).min());
        let next_move = connection.and_then(|connection| connection.next_move);
        let applied = self.applying.as_ref().map(|applying| applying.0);
        let deadline = self.session.deadline();
        let next = [task, next_move, applied, deadline]
            .into_iter()
            .flatten()
            .min();
        let next = next.expect("something always happens next");
        self.now = self.now.max(next);
        if applied == Some(next) {
            self.finish_applying();
        } else if task == Some(next) {
            let tasks = &mut self.connection.as_mut().expect("it has a task").tasks;
            let at = tasks
                .iter()
                .position(|task| task.0 == next)
                .expect("found above");
            let event = tasks.swap_remove(at).1;
            self.finish_task(event);
        } else if next_move == Some(next) {
            self.control_plane_moves();
        } else {
            self.handle(Event::Tick);
            let later = self
                .session
                .deadline()
                .is_none_or(|deadline| deadline > self.now);
            assert!(later, "a tick leaves nothing due behind");
        }
    }

    fn handle(&mut self, event: Event<Update>) {
        let random = self.rng.random();
        let before = self.session.state();
        let actions = self.session.handle(self.now, random, event);
        self.check_transition(before, self.session.state());
        // Answers are judged by what is held at the time they are sent.
        assert_eq!(
            self.session.held(),
            self.held.as_ref(),
            "held versions differ"
        );
        for action in actions {
            self.perform(action);
        }
    }

    fn check_transition(&mut self, before: State, after: State) {
        use State::{Active, Connecting, Disconnected, Handshake, Idle};
        let drawn = matches!(
            (before, after),
            (Idle | Disconnected, Connecting)
                | (Connecting, Handshake)
                | (Handshake, Active)
                | (Connecting | Handshake | Active, Disconnected)
        );
        assert!(before == after || drawn, "{before:?} to {after:?}");
        if before != after && after == Disconnected {
            self.dial_by = self.now + Timing::default().backoff_max;
            let is_applying = self.applying.is_some();
            self.seen.lost_while_applying += u32::from(is_applying);
            let retry = self
                .session
                .deadline()
                .filter(|_| !is_applying && self.held.is_none());
            assert!(
                retry.is_none_or(|retry| retry <= self.dial_by),
                "a pause past the limit"
            );
        }
    }

    fn perform(&mut self, action: Action<Update>) {
        match action {
            Action::Dial => self.dial(),
            Action::CheckHealth => self.check_health(),
            Action::Open { version } => self.open(version),
            Action::Apply(update) => self.apply(update),
            Action::Ack { version, nonce } => {
                assert_eq!(
                    self.held.as_ref(),
                    Some(&version),
                    "acknowledged, not applied"
                );
                self.answered(&nonce, Some(&version));
                self.seen.acks += 1;
            }
            Action::Nack {
                version,
                nonce,
                rejection,
            } => {
                assert!(!rejection.reason.is_empty(), "a refusal without a reason");
                self.answered(&nonce, version.as_ref());
                self.seen.nacks += 1;
                if self.is_calm {
                    self.push_wanted();
                }
            }
            Action::RequestFull => {
                let connection = self.connection();
                let (_, _, is_delta) = connection
                    .unanswered
                    .pop_front()
                    .expect("nothing to answer");
                assert!(
                    is_delta,
                    "a whole snapshot was answered with the request for one"
                );
                self.seen.requests += 1;
                if self.is_calm {
                    self.push_wanted();
                }
            }
            Action::Report(standing) => self.report(&standing),
            Action::Hangup => self.connection = None,
            Action::Note(_) => {}
        }
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("the connection is gone")
    }

    fn dial(&mut self) {
        assert!(
            self.connection.is_none(),
            "a dial beside another connection"
        );
        assert!(
            self.applying.is_none(),
            "a dial while an update is being applied"
        );
        assert!(self.now <= self.dial_by, "dialled too late");
        let fails = !self.is_calm && self.rng.random_bool(0.3);
        let event = if fails {
            match self.rng.random_bool(0.5) {
                true => Event::Unanswered("refused".to_owned()),
                false => Event::DialFailed("no handshake".to_owned()),
            }
        } else {
            Event::Dialled
        };
        self.connection = Some(Connection::default());
        self.start(event, 5.0);
    }

    fn check_health(&mut self) {
        let is_under_way =
            |task: &(Duration, Event<Update>)| matches!(task.1, Event::HealthChecked(_));
        assert!(
            !self.connection().tasks.iter().any(is_under_way),
            "two health checks at once"
        );
        let health = match self.rng.random_range(0..20) {
            _ if self.is_calm => Health::Serving,
            0 => Health::NotServing,
            1 => Health::Failed("timeout".to_owned()),
            2..6 => Health::Unimplemented,
            _ => Health::Serving,
        };
        self.start(Event::HealthChecked(health), 5.0);
    }

    fn open(&mut self, version: Option<Version>) {
        assert!(!self.connection().is_open, "opened twice");
        if version.is_some() {
            assert_eq!(version, self.held, "a version that is not held");
        }
        match self.rng.random_range(0..10) {
            // Some control planes never answer.
            0 if !self.is_calm => {}
            1 if !self.is_calm => self.start(Event::StreamEnded("unavailable".to_owned()), 5.0),
            _ => self.start(Event::Opened, 3.0),
        }
    }

    fn apply(&mut self, update: Update) {
        assert!(self.applying.is_none(), "two updates at once");
        if update.base.is_some() {
            assert_eq!(
                update.base, self.held,
                "a delta that does not fit was applied"
            );
        }
        let slowest = if self.rng.random_bool(0.1) { 60.0 } else { 1.0 };
        let takes = Duration::from_secs_f64(self.rng.random_range(0.0..slowest));
        self.applying = Some((self.now + takes, update));
    }

    fn report(&mut self, standing: &Standing) {
        let held = self.held.clone();
        let connection = self.connection();
        assert!(
            connection.has_spoken,
            "a report before the control plane has spoken"
        );
        let is_under_way = |task: &(Duration, Event<Update>)| matches!(task.1, Event::Reported(_));
        assert!(
            !connection.tasks.iter().any(is_under_way),
            "two reports at once"
        );
        assert_eq!(standing.ready, held.is_some() || standing.version.is_some());
        let result = match self.rng.random_range(0..5) {
            0 => Err("unknown node".to_owned()),
            _ => Ok(()),
        };
        self.start(Event::Reported(result), 15.0);
    }

    fn answered(&mut self, nonce: &str, version: Option<&Version>) {
        let oldest = self
            .connection()
            .unanswered
            .pop_front()
            .expect("nothing to answer");
        assert_eq!(
            (oldest.0.as_str(), oldest.1.as_ref()),
            (nonce, version),
            "out of order"
        );
    }

    fn start(&mut self, event: Event<Update>, slowest: f64) {
        let takes = Duration::from_secs_f64(self.rng.random_range(0.0..slowest));
        let at = self.now + takes;
        self.connection().tasks.push((at, event));
    }

    fn finish_task(&mut self, event: Event<Update>) {
        if matches!(event, Event::Opened) {
            let now = self.now;
            let connection = self.connection();
            connection.is_open = true;
            connection.next_move = Some(now);
            self.seen.streams += 1;
        }
        self.handle(event);
    }

    fn finish_applying(&mut self) {
        let (_, update) = self.applying.take().expect("an update is being applied");
        let is_refused = !self.is_calm && self.rng.random_bool(0.3);
        let result = if !is_refused {
            self.held = Some(update.version.clone());
            Ok(update.version)
        } else if self.rng.random_bool(0.3) {
            Err(Rejection::resync("torn"))
        } else {
            Err(Rejection::new("bad"))
        };
        // The next dial had to wait for this.
        self.dial_by = self.dial_by.max(self.now);
        self.handle_applied(result);
    }

    /// The session learns here what the world knows already, so the two are compared after.
    fn handle_applied(&mut self, result: Result<Version, Rejection>) {
        self.handle(Event::Applied(result));
    }

    fn read(&mut self) {
        let connection = self.connection();
        let response = connection.inbox.pop_front().expect("something to read");
        connection.has_spoken = true;
        if let Response::Push(push) = &response {
            let (version, is_delta) = match &push.content {
                Content::Full { version, .. } => (Some(version.clone()), false),
                Content::Delta { version, .. } => (Some(version.clone()), true),
                Content::Unusable { .. } => (None, false),
            };
            connection
                .unanswered
                .push_back((push.nonce.clone(), version, is_delta));
            let waiting = connection.unanswered.len();
            assert!(waiting <= QUEUE_MAX + 1, "{waiting} updates in hand");
            self.seen.queued += u32::from(waiting > 1);
        }
        self.handle(Event::Received(response));
    }

    /// The control plane does one thing, and decides when to do the next.
    fn control_plane_moves(&mut self) {
        let pause = if self.is_calm {
            5.0
        } else if self.rng.random_bool(0.05) {
            200.0
        } else {
            self.rng.random_range(0.0..12.0)
        };
        let next = self.now + Duration::from_secs_f64(pause);
        let is_fresh = !self.connection().has_spoken && self.connection().inbox.is_empty();
        self.connection().next_move = Some(next);
        if self.is_calm {
            if is_fresh || self.session.held() != Some(&version(self.wanted)) {
                let has_unread = !self.connection().inbox.is_empty();
                let has_unanswered = !self.connection().unanswered.is_empty();
                if !has_unread && !has_unanswered {
                    return self.push_wanted();
                }
            }
            return self.send(Response::Heartbeat);
        }
        match self.rng.random_range(0..20) {
            0..6 => self.send(Response::Heartbeat),
            6..10 => {
                self.wanted += 1;
                self.push_wanted();
            }
            10 => self.push_wanted(),
            11..15 => self.push_delta(),
            15 => {
                for _ in 0..4 {
                    self.wanted += 1;
                    self.push_wanted();
                }
            }
            16 => self.push(Content::Unusable {
                reason: "no version".to_owned(),
            }),
            17 => {
                self.connection().next_move = None;
                self.start(Event::StreamEnded("going away".to_owned()), 1.0);
            }
            _ => self.push_stray_delta(),
        }
    }

    fn push_wanted(&mut self) {
        let version = version(self.wanted);
        let update = Update {
            base: None,
            version: version.clone(),
        };
        self.push(Content::Full { version, update });
    }

    /// A delta from what the data plane holds now, which may be another by the time it is read.
    fn push_delta(&mut self) {
        self.wanted += 1;
        self.push_delta_from(self.held.clone());
    }

    fn push_stray_delta(&mut self) {
        let base = self.rng.random_bool(0.8).then(|| version(1_000_000));
        self.push_delta_from(base);
    }

    fn push_delta_from(&mut self, base: Option<Version>) {
        let version = version(self.wanted);
        let update = Update {
            base: base.clone(),
            version: version.clone(),
        };
        self.push(Content::Delta {
            base,
            version,
            update,
        });
    }

    fn push(&mut self, content: Content<Update>) {
        self.nonces += 1;
        let nonce = self.nonces.to_string();
        let push = Push {
            nonce,
            content,
            type_versions: BTreeMap::new(),
        };
        self.send(Response::Push(push));
    }

    fn send(&mut self, response: Response<Update>) {
        self.connection().inbox.push_back(response);
    }
}

fn version(number: u32) -> Version {
    Version::new(&number.to_string())
}
