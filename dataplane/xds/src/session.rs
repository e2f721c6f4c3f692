//! The protocol without sockets: what happened goes in, what to do comes out.
//!
//! [`Session::handle`] takes one [`Event`] with the time and a random number, and returns the
//! [`Action`]s that the shell in `client.rs` carries out in order. The state moves only along
//! IDLE → CONNECTING → HANDSHAKE → ACTIVE → DISCONNECTED → CONNECTING, where CONNECTING and
//! HANDSHAKE may also fail to DISCONNECTED.
//!
//! An update is answered once, after it was applied or refused, and one is applied at a time. While
//! one is being applied the stream is still read, so heartbeats count; at most [`QUEUE_MAX`] updates
//! wait, then [`Session::wants_read`] says to stop reading and HTTP/2 flow control holds the
//! control plane back. No dial is made while an update is being applied, because the opening request
//! must tell the version that will be held.

mod event;
mod push;
mod reporting;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use dataplane_resilience::backoff::Backoff;
use ir::Version;

use crate::apply::Rejection;
use crate::settings::Timing;
use crate::status::State;
pub use event::{Action, Content, Event, Health, Note, Push, Response, Standing};
use push::Pushes;
use reporting::Reporting;

/// How many updates may wait behind the one being applied.
pub const QUEUE_MAX: usize = 2;

/// After so many refusals in a row the next stream asks for a whole snapshot.
const NACKS_BEFORE_FULL: u32 = 2;

/// So many replicas that do not serve may be met before pauses begin to grow. Of two one is met each
/// time by chance, and who has just started serves nobody before it has met the other.
const STANDBYS_SOON: u32 = 8;

/// So many replicas that do not serve may be met before pauses grow: dials of half a minute, twice as
/// long as replicas take to agree on another leader.
const STANDBYS_MAX: u32 = 60;

/// The state machine. Times are durations since any fixed moment, the same in every call.
#[derive(Debug)]
pub struct Session<U> {
    timing: Timing,
    state: State,
    backoff: Backoff,
    /// Pauses while nothing has failed but whom to speak to is not found: up to half the first of the
    /// other. Every other dial meets a replica on standby where there are two, so they begin small and
    /// stay so for [`STANDBYS_SOON`] of them.
    seeking: Backoff,
    /// Replicas that said they do not serve, since one last did.
    standbys_met: u32,
    /// In DISCONNECTED: when to dial again.
    retry_at: Duration,
    /// The stream was asked for, which happens once the control plane is known to be healthy.
    is_opening: bool,
    /// In ACTIVE: since when.
    active_since: Duration,
    /// In ACTIVE: a message has come, so the control plane knows this node.
    has_spoken: bool,
    /// Last sign of life on this connection.
    heard_at: Duration,
    /// When to ask for health next; `None` while asking, or for good when there is no such service.
    health_due: Option<Duration>,
    /// Last message of any connection.
    confirmed_at: Duration,
    is_stale: bool,
    /// The loss of the control plane was told and its return not yet.
    is_lost: bool,
    pushes: Pushes<U>,
    reporting: Reporting,
}

impl<U> Session<U> {
    /// A session in IDLE that holds `held`.
    pub fn new(timing: Timing, held: Option<Version>) -> Self {
        Self {
            backoff: Backoff::new(timing.backoff_initial, timing.backoff_max),
            seeking: Backoff::new(timing.backoff_initial / 16, timing.backoff_initial / 2),
            standbys_met: 0,
            reporting: Reporting::new(timing.report_interval),
            timing,
            state: State::Idle,
            retry_at: Duration::ZERO,
            is_opening: false,
            active_since: Duration::ZERO,
            has_spoken: false,
            heard_at: Duration::ZERO,
            health_due: None,
            confirmed_at: Duration::ZERO,
            is_stale: false,
            is_lost: false,
            pushes: Pushes::new(held),
        }
    }

    /// Where the connection stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// The version that serves.
    pub fn held(&self) -> Option<&Version> {
        self.pushes.held()
    }

    /// The versions by resource type that came with the held version.
    pub fn type_versions(&self) -> &BTreeMap<String, String> {
        self.pushes.type_versions()
    }

    /// False while so many updates wait that the stream must not be read.
    pub fn wants_read(&self) -> bool {
        self.pushes.has_room()
    }

    /// When [`Event::Tick`] is due, if nothing else happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let connection = match self.state {
            State::Idle | State::Connecting => None,
            State::Handshake => self.silence_deadline(),
            State::Active => [
                self.silence_deadline(),
                self.health_due,
                self.reporting.due(),
            ]
            .into_iter()
            .flatten()
            .min(),
            State::Disconnected => (!self.pushes.is_applying()).then_some(self.retry_at),
        };
        [connection, self.freshness_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Takes in what happened and returns what to do about it, in order.
    ///
    /// `random` is uniform in `0.0..1.0` and decides the next pause between dials. An event that
    /// does not belong to the present state, such as the late answer of a dropped connection,
    /// changes nothing.
    pub fn handle(&mut self, now: Duration, random: f64, event: Event<U>) -> Vec<Action<U>> {
        let mut out = Vec::new();
        let verdict = match event {
            Event::Start => self.start(now, &mut out),
            Event::Dialled => self.dialled(now, &mut out),
            Event::Unanswered(reason) => self.unanswered(now, random, reason, &mut out),
            Event::DialFailed(reason) => self.dial_failed(reason),
            Event::HealthChecked(health) => self.health_checked(now, random, health, &mut out),
            Event::Opened => self.opened(now),
            Event::Received(response) => self.received(now, response, &mut out),
            Event::Applied(result) => self.applied(now, result, &mut out),
            Event::Reported(result) => self.reported(result, &mut out),
            Event::StreamEnded(reason) => self.stream_ended(reason),
            Event::Tick => self.tick(now, &mut out),
        };
        if let Err(reason) = verdict {
            self.disconnect(now, random, reason, &mut out);
        }
        out
    }

    fn start(&mut self, now: Duration, out: &mut Vec<Action<U>>) -> Verdict {
        if self.state == State::Idle {
            self.confirmed_at = now;
            self.dial(out);
        }
        Ok(())
    }

    fn dial(&mut self, out: &mut Vec<Action<U>>) {
        self.state = State::Connecting;
        out.push(Action::Dial);
    }

    fn dialled(&mut self, now: Duration, out: &mut Vec<Action<U>>) -> Verdict {
        if self.state == State::Connecting {
            self.state = State::Handshake;
            self.heard_at = now;
            self.is_opening = false;
            self.has_spoken = false;
            self.health_due = None;
            out.push(Action::CheckHealth);
        }
        Ok(())
    }

    /// Pauses stay short: whoever comes back is found soon, and until then nobody is
    /// there to be spared. One that listens and fails is.
    fn unanswered(
        &mut self,
        now: Duration,
        random: f64,
        reason: String,
        out: &mut Vec<Action<U>>,
    ) -> Verdict {
        if self.state == State::Connecting {
            let pause = self.seeking.next(random);
            self.lose(now + pause, reason, out);
        }
        Ok(())
    }

    /// Behind one address stand several replicas, of which one serves; the next dial may meet it, so
    /// pauses stay short for a while.
    fn met_standby(&mut self, now: Duration, random: f64, out: &mut Vec<Action<U>>) -> Verdict {
        let reason = "the control plane reports that it is not serving".to_owned();
        if self.standbys_met == STANDBYS_MAX {
            return Err(reason);
        }
        if self.standbys_met < STANDBYS_SOON {
            self.seeking.reset();
        }
        self.standbys_met += 1;
        self.backoff.reset();
        let pause = self.seeking.next(random);
        self.lose(now + pause, reason, out);
        Ok(())
    }

    fn dial_failed(&self, reason: String) -> Verdict {
        match self.state {
            State::Connecting => Err(reason),
            _ => Ok(()),
        }
    }

    fn health_checked(
        &mut self,
        now: Duration,
        random: f64,
        health: Health,
        out: &mut Vec<Action<U>>,
    ) -> Verdict {
        if !matches!(self.state, State::Handshake | State::Active) {
            return Ok(());
        }
        self.health_due = match health {
            Health::NotServing => return self.met_standby(now, random, out),
            // An open stream is its own proof of life; only before it does silence count.
            Health::Failed(reason) if !self.is_opening => {
                return Err(format!("health check failed: {reason}"));
            }
            Health::Failed(reason) => {
                out.push(Action::Note(Note::HealthCheckFailed(reason)));
                Some(now + self.timing.health_interval)
            }
            Health::Unimplemented => None,
            Health::Serving => Some(now + self.timing.health_interval),
        };
        if !self.is_opening {
            self.is_opening = true;
            out.push(Action::Open {
                version: self.pushes.version_to_open_with(),
            });
        }
        Ok(())
    }

    fn opened(&mut self, now: Duration) -> Verdict {
        if self.state == State::Handshake && self.is_opening {
            self.state = State::Active;
            self.active_since = now;
            self.heard_at = now;
        }
        Ok(())
    }

    fn received(
        &mut self,
        now: Duration,
        response: Response<U>,
        out: &mut Vec<Action<U>>,
    ) -> Verdict {
        if self.state != State::Active {
            return Ok(());
        }
        self.heard_at = now;
        self.confirmed_at = now;
        if !self.has_spoken {
            self.has_spoken = true;
            self.standbys_met = 0;
            self.seeking.reset();
            self.reporting.start(now);
            out.push(Action::Note(Note::Connected));
            self.is_lost = false;
        }
        if self.is_stale {
            self.is_stale = false;
            out.push(Action::Note(Note::Fresh));
        }
        match response {
            Response::Heartbeat => Ok(()),
            Response::Push(push) => {
                self.pushes.arrived(push);
                self.advance(now, out)
            }
        }
    }

    fn applied(
        &mut self,
        now: Duration,
        result: Result<Version, Rejection>,
        out: &mut Vec<Action<U>>,
    ) -> Verdict {
        if !self.pushes.has_room() {
            // Reading was paused: the silence was ours.
            self.heard_at = now;
        }
        self.pushes.finished(result, out);
        self.advance(now, out)
    }

    /// Starts on the next waiting update and reports each answer.
    fn advance(&mut self, now: Duration, out: &mut Vec<Action<U>>) -> Verdict {
        let verdict = self.pushes.advance(out);
        let answers: Vec<_> = out
            .iter()
            .filter_map(|action| match action {
                Action::Ack { version, .. } => Some(Some(version.clone())),
                Action::Nack { .. } => Some(None),
                _ => None,
            })
            .collect();
        for version in answers {
            self.report(now, version, out);
        }
        verdict
    }

    fn report(&mut self, now: Duration, version: Option<Version>, out: &mut Vec<Action<U>>) {
        let standing = Standing {
            ready: self.pushes.held().is_some(),
            message: self.pushes.outcome(),
            version,
        };
        out.extend(self.reporting.send(now, standing).map(Action::Report));
    }

    fn reported(&mut self, result: Result<(), String>, out: &mut Vec<Action<U>>) -> Verdict {
        if self.state == State::Active {
            out.extend(self.reporting.finished().map(Action::Report));
            if let Err(reason) = result {
                out.push(Action::Note(Note::ReportFailed(reason)));
            }
        }
        Ok(())
    }

    fn stream_ended(&self, reason: String) -> Verdict {
        match self.state {
            State::Handshake | State::Active => Err(reason),
            _ => Ok(()),
        }
    }

    fn tick(&mut self, now: Duration, out: &mut Vec<Action<U>>) -> Verdict {
        if self.freshness_deadline().is_some_and(|at| at <= now) {
            self.is_stale = true;
            out.push(Action::Note(Note::Stale));
        }
        match self.state {
            State::Idle | State::Connecting => {}
            State::Disconnected => {
                if self.retry_at <= now && !self.pushes.is_applying() {
                    self.dial(out);
                }
            }
            State::Handshake | State::Active => {
                if self.silence_deadline().is_some_and(|at| at <= now) {
                    let silence = now.saturating_sub(self.heard_at).as_secs();
                    return Err(format!("the control plane was silent for {silence} s"));
                }
                if self.state == State::Active {
                    self.tick_active(now, out);
                }
            }
        }
        Ok(())
    }

    fn tick_active(&mut self, now: Duration, out: &mut Vec<Action<U>>) {
        if self.health_due.is_some_and(|at| at <= now) {
            self.health_due = None;
            out.push(Action::CheckHealth);
        }
        if self.reporting.due().is_some_and(|at| at <= now) {
            self.report(now, None, out);
        }
    }

    fn disconnect(&mut self, now: Duration, random: f64, reason: String, out: &mut Vec<Action<U>>) {
        let was_active = self.state == State::Active;
        if was_active && now.saturating_sub(self.active_since) >= self.timing.backoff_max {
            self.backoff.reset();
        }
        let pause = self.backoff.next(random);
        self.lose(now + pause, reason, out);
    }

    fn lose(&mut self, retry_at: Duration, reason: String, out: &mut Vec<Action<U>>) {
        let was_active = self.state == State::Active;
        self.state = State::Disconnected;
        self.retry_at = retry_at;
        self.pushes.stream_lost();
        self.reporting.stop();
        out.push(Action::Hangup);
        out.push(Action::Note(Note::Disconnected {
            reason,
            was_active,
            is_first: !self.is_lost,
        }));
        // A stream that ends is no loss yet: control planes end old ones, and the next dial tells.
        self.is_lost |= !was_active;
    }

    /// When the present connection has been silent for too long. Not while reading is paused.
    fn silence_deadline(&self) -> Option<Duration> {
        self.wants_read()
            .then(|| self.heard_at + self.timing.stale_stream_timeout)
    }

    /// When what is held becomes stale: every message, a heartbeat too, confirms it, because a
    /// control plane that had something newer would have sent it.
    fn freshness_deadline(&self) -> Option<Duration> {
        (!self.is_stale && self.pushes.held().is_some())
            .then(|| self.confirmed_at + self.timing.freshness_timeout)
    }
}

/// `Err` ends the connection, for the reason given.
type Verdict = Result<(), String>;
