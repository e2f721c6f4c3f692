//! All deadlines of one request behind one timer.
//!
//! What is being waited for is noted in a [`Watch`] by whoever waits; one sleeping future looks at
//! the notes when the earliest of them may be due. So a fast request costs one timer and a few
//! clock reads, however many limits it has; a connection's [`Timer`] is set about once a second.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use dataplane_telemetry::Reason;

use crate::settings::Settings;

/// How long a note may stay unseen.
const GLANCE: Duration = Duration::from_secs(1);

/// What is seen of the client while a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Nothing that speaks against its waiting.
    Waits,
    /// The end of what it sends: it may have gone, or have no more to say.
    Ended,
    Gone,
}

/// What a request waits for at the moment, and since when.
#[derive(Debug)]
pub(crate) struct Watch {
    limits: Limits,
    /// The clock is read once whenever the request gets a turn.
    now: Cell<Instant>,
    /// The route's deadline for the whole request.
    total: Cell<Option<Instant>>,
    /// The route's deadline for this attempt.
    attempt: Cell<Option<Instant>>,
    client_body: Cell<Option<Instant>>,
    client_write: Cell<Option<Instant>>,
    upstream: Cell<Option<(Instant, Wait)>>,
    /// When it was seen that the client sends no more.
    ended: Cell<Option<Instant>>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    response_start: Option<Duration>,
    stream_idle: Duration,
    tunnel_idle: Duration,
    request_body_idle: Duration,
    write_idle: Duration,
    /// How long a client that has closed its sending half is taken to wait for a silent endpoint.
    half_closed: Duration,
}

/// What is expected of the upstream side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The head of the response.
    ResponseStart,
    /// More of its body.
    ResponseBody,
    /// Bytes in either direction of an upgraded connection.
    Tunnel,
}

impl Watch {
    /// A watch for one request; it is `now`, and `due` is when all of it must be over. `is_told` says
    /// that whoever wrote the route or made the call has said how long to wait for a response.
    pub(crate) fn new(
        settings: &Settings,
        now: Instant,
        due: Option<Instant>,
        is_told: bool,
    ) -> Self {
        Self {
            now: Cell::new(now),
            limits: Limits {
                response_start: (!is_told).then_some(settings.response_start_timeout),
                stream_idle: settings.stream_idle,
                tunnel_idle: settings.tunnel_idle,
                request_body_idle: settings.request_body_idle,
                write_idle: settings.write_idle,
                half_closed: settings.half_closed_max,
            },
            total: Cell::new(due),
            attempt: Cell::new(None),
            client_body: Cell::new(None),
            client_write: Cell::new(None),
            upstream: Cell::new(None),
            ended: Cell::new(None),
        }
    }

    /// Reads the clock, for all notes that are made in this turn.
    pub(crate) fn tick(&self) {
        self.now.set(Instant::now());
    }

    /// The time of this turn.
    pub(crate) fn now(&self) -> std::time::Instant {
        self.now.get().into_std()
    }

    /// When the whole request must be over.
    pub(crate) fn due(&self) -> Option<std::time::Instant> {
        self.total.get().map(Instant::into_std)
    }

    /// Begins an attempt with a limit of its own, or a pause between two.
    pub(crate) fn start_attempt(&self, limit: Option<Duration>) {
        self.attempt.set(limit.map(|limit| self.now.get() + limit));
        self.upstream.set(None);
        self.client_body.set(None);
        self.client_write.set(None);
    }

    /// Notes what the upstream side owes from now on.
    pub(crate) fn await_upstream(&self, wait: Wait) {
        self.upstream.set(Some((self.now.get(), wait)));
    }

    /// Notes that nothing is owed by the upstream side.
    pub(crate) fn upstream_done(&self) {
        self.upstream.set(None);
    }

    /// How long the upstream side has owed what it owes, by the clock of this turn.
    pub(crate) fn owed_for(&self) -> Duration {
        let since = self.upstream.get().map(|(since, _)| since);
        since.map_or(Duration::ZERO, |since| {
            self.now.get().saturating_duration_since(since)
        })
    }

    /// Notes that a write of the request body made progress: its slowness is no late response.
    pub(crate) fn upload_moved(&self) {
        if let Some((_, wait)) = self.upstream.get() {
            self.await_upstream(wait);
        }
    }

    /// Notes that the exchange became a tunnel: limits of request and response end here.
    pub(crate) fn switched(&self) {
        self.total.set(None);
        self.attempt.set(None);
    }

    /// Notes whether the client owes body bytes from now on.
    pub(crate) fn await_client_body(&self, waiting: bool) {
        self.client_body.set(waiting.then_some(self.now.get()));
        // A slow upload must not count against the response.
        self.upload_moved();
    }

    /// Notes whether the client owes taking bytes from now on.
    pub(crate) fn await_client_write(&self, waiting: bool) {
        self.client_write.set(waiting.then_some(self.now.get()));
    }

    /// How long the endpoint has been waited for and nobody else.
    pub(crate) fn awaited_upstream(&self) -> Option<Duration> {
        let is_client = self.client_body.get().is_some() || self.client_write.get().is_some();
        let upstream = self.upstream.get().filter(|_| !is_client);
        upstream.map(|(since, _)| since.elapsed())
    }

    /// The earliest note, and what it means when it is due.
    fn next(&self) -> (Instant, Reason) {
        let far = self.now.get() + Duration::from_secs(3600);
        let mut next = (far, Reason::Internal);
        let mut consider = |at: Option<Instant>, reason: Reason| {
            if let Some(at) = at.filter(|at| *at < next.0) {
                next = (at, reason);
            }
        };
        consider(self.total.get(), Reason::RequestTimeout);
        consider(self.attempt.get(), Reason::UpstreamTimeout);
        // Once the response flows, either side may be quiet for as long as a stream may idle.
        let client_body = match self.upstream.get() {
            Some((_, Wait::ResponseBody)) => None,
            _ => self.client_body.get(),
        };
        consider(
            client_body.map(|since| since + self.limits.request_body_idle),
            Reason::BodyTimeout,
        );
        consider(
            self.client_write
                .get()
                .map(|since| since + self.limits.write_idle),
            Reason::ClientAborted,
        );
        if client_body.is_none() && self.client_write.get().is_none() {
            let limit = |wait| match wait {
                Wait::ResponseStart => self.limits.response_start,
                Wait::ResponseBody => Some(self.limits.stream_idle),
                Wait::Tunnel => Some(self.limits.tunnel_idle),
            };
            let upstream = self.upstream.get();
            let upstream = upstream.and_then(|(since, wait)| Some(since + limit(wait)?));
            consider(upstream, Reason::UpstreamTimeout);
        }
        next
    }

    /// True when a client that sends no more has waited for long, and for nobody but the endpoint.
    /// What the endpoint sends is written to the client, which shows better whether it is there.
    fn is_left(&self) -> bool {
        let now = self.now.get();
        let ended = self.ended.get().unwrap_or(now);
        self.ended.set(Some(ended));
        match self.upstream.get() {
            None | Some((_, Wait::Tunnel)) => false,
            Some(_) if self.client_write.get().is_some() => false,
            Some((since, _)) => now >= ended.max(since) + self.limits.half_closed,
        }
    }

    /// Waits until something is due, and says what; a client that has gone is, too. Whoever polls
    /// this [ticks](Self::tick) before the notes of that turn are made.
    pub(crate) async fn expired(&self, timer: &Timer, client: impl Fn() -> Client) -> Reason {
        loop {
            // A note made meanwhile may be due earlier, hence never asleep for long.
            let (at, _) = self.next();
            timer.until(at.min(self.now.get() + GLANCE)).await;
            // By the same clock as the timer, or that would be early again and again.
            self.tick();
            match client() {
                Client::Gone => return Reason::ClientAborted,
                Client::Ended if self.is_left() => return Reason::ClientAborted,
                Client::Ended | Client::Waits => {}
            }
            let (at, reason) = self.next();
            if at <= self.now.get() {
                return reason;
            }
        }
    }
}

/// A timer that serves one connection for its whole life.
///
/// Waits come and go thousands of times a second and almost never end by time. So the timer is
/// left armed where it is as long as that is early enough, and set anew only when it fires.
#[derive(Debug)]
pub(crate) struct Timer(RefCell<Pin<Box<Sleep>>>);

impl Timer {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(Box::pin(sleep_until(Instant::now() + GLANCE))))
    }

    /// Waits for that moment. One wait at a time.
    pub(crate) async fn until(&self, at: Instant) {
        poll_fn(|cx| {
            let mut sleep = self.0.borrow_mut();
            loop {
                if sleep.deadline() > at {
                    sleep.as_mut().reset(at);
                }
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if Instant::now() >= at {
                    return Poll::Ready(());
                }
                sleep.as_mut().reset(at);
            }
        })
        .await;
    }
}
