//! THE DATAGRAM LINE: one UDP socket of one worker, from its first datagram to its last session.
//!
//! [`serve`] is called by `dataplane/src/listener` on the worker that owns the socket. Every worker
//! has a socket of its own on the address (`SO_REUSEPORT`): the kernel sends all datagrams of one
//! client to the same one, so that sessions never cross threads and need no lock. What belongs
//! together is decided in `udp_session.rs`, who may send how much in `udp/flood.rs`; a session's
//! way to its endpoint begins in `udp/begin.rs` and its way back is `udp/answer.rs`.
//!
//! A session has a socket of its own, connected to its endpoint: nobody else can answer in its
//! place, the kernel tells the two apart by port, and an ICMP error belongs to one session only.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use dataplane_telemetry::metrics::{DatagramDrop, StreamMetrics};
use dataplane_telemetry::reason::Reason;
use ir::Version;

use crate::batch::{self, Arrived, BATCH, Headers, Moving, Wildcard};
use crate::udp_session::{Ended, Flow, Id, Limits as SessionLimits, Sessions};
use crate::worker::Worker;

mod answer;
mod begin;
pub mod flood;
mod replies;
mod review;

use begin::Session;
use flood::{Limits, ListenerLimits};
use replies::Replies;

/// Batches taken before others have their turn.
const BATCHES_MAX: usize = 8;
/// When nothing has to be looked at.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// A socket and what belongs to it.
#[derive(Debug)]
pub struct Socket {
    /// Bound, and set not to block.
    pub socket: StdSocket,
    /// Its address, as the configuration names it.
    pub address: SocketAddr,
    /// What the sockets of all workers on that address share.
    pub shared: Arc<ListenerLimits>,
    /// Ends new sessions; those that are there go on for the drain time while they have something
    /// to say.
    pub stop: CancellationToken,
    /// Ends all sessions at once.
    pub cut: CancellationToken,
}

/// Serves a socket until it was told to stop and its sessions have ended.
pub async fn serve(worker: Rc<Worker>, socket: Socket, limits: Arc<Limits>) {
    let (stop, cut) = (socket.stop.clone(), socket.cut.clone());
    let address = socket.address;
    let port = match Port::open(worker, socket, limits) {
        Ok(port) => Rc::new(port),
        Err(error) => {
            return tracing::error!(%address, %error, "a UDP socket cannot be served");
        }
    };
    let mut stopped = pin!(stop.cancelled());
    let mut cut = pin!(cut.cancelled());
    let mut timer = pin!(sleep_until(Instant::now() + NEVER));
    poll_fn(|cx| {
        if !port.is_stopping() && stopped.as_mut().poll(cx).is_ready() {
            // Whoever the kernel has for us already shall be answered.
            let _ = (0..BATCHES_MAX).find(|_| port.receive() < BATCH);
            port.stop();
            timer.as_mut().reset(Instant::now());
        }
        if cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        port.turn(cx, timer.as_mut())
    })
    .await;
    port.end_all();
}

/// One socket of one worker, with its sessions.
struct Port {
    worker: Rc<Worker>,
    limits: Arc<Limits>,
    shared: Arc<ListenerLimits>,
    address: SocketAddr,
    socket: UdpSocket,
    headers: RefCell<Headers>,
    sessions: RefCell<Sessions<Session>>,
    replies: RefCell<Replies>,
    /// The task of the socket, to be woken when something is to be sent.
    task: RefCell<Option<Waker>>,
    /// The configuration that sessions were last looked at with.
    reviewed: RefCell<Option<Version>>,
    /// When everything ends that is left; set once no session begins any more.
    ends_at: Cell<Option<Duration>>,
}

/// Why a datagram could not be handed to its session.
enum Undelivered {
    /// It is lost; the session is well.
    Dropped(DatagramDrop),
    /// The endpoint cannot be reached.
    Unreachable,
}

impl Port {
    fn open(worker: Rc<Worker>, socket: Socket, limits: Arc<Limits>) -> io::Result<Self> {
        let wildcard = Wildcard::of(socket.address);
        let udp = UdpSocket::from_std(socket.socket)?;
        wildcard.prepare(&udp)?;
        let settings = &worker.settings.udp;
        let sessions = Sessions::new(SessionLimits {
            idle: settings.idle,
            leaving_idle: settings.idle.min(settings.leaving_idle),
            sessions: settings.listener_sessions_max.unwrap_or(usize::MAX),
            queue: settings.queue,
            queue_bytes: settings.queue_bytes,
        });
        let replies = Replies::new(wildcard, settings.replies, settings.reply_bytes);
        Ok(Self {
            worker,
            limits,
            shared: socket.shared,
            address: socket.address,
            socket: udp,
            headers: RefCell::new(Headers::new(wildcard)),
            sessions: RefCell::new(sessions),
            replies: RefCell::new(replies),
            task: RefCell::default(),
            reviewed: RefCell::default(),
            ends_at: Cell::default(),
        })
    }

    fn is_stopping(&self) -> bool {
        self.ends_at.get().is_some()
    }

    /// From here on no session begins, and silent ones end soon.
    fn stop(&self) {
        let settings = &self.worker.settings;
        self.ends_at.set(Some(self.limits.now() + settings.drain));
        let idle = settings.udp.idle.min(settings.udp.leaving_idle);
        self.sessions.borrow_mut().set_idle(idle);
    }

    /// Does all there is to do; ready when nothing will ever be to do again.
    fn turn(self: &Rc<Self>, cx: &mut Context<'_>, mut timer: Pin<&mut Sleep>) -> Poll<()> {
        let is_reviewed = self.review();
        let mut batches = 0;
        while let Poll::Ready(ready) = self.socket.poll_recv_ready(cx) {
            if ready.is_err() {
                return Poll::Ready(());
            }
            if batches == BATCHES_MAX {
                cx.waker().wake_by_ref();
                break;
            }
            batches += 1;
            if self.receive() < BATCH {
                // Nothing is left; only what comes next shall wake us.
                let _ = self.socket.try_io(Interest::READABLE, nothing_there);
            }
        }
        self.flush(cx);
        if batches > 0 || is_reviewed {
            let soonest = self.next_look();
            if soonest < timer.deadline() {
                timer.as_mut().reset(soonest);
            }
        }
        while timer.as_mut().poll(cx).is_ready() {
            self.expire();
            if self.is_over() {
                return Poll::Ready(());
            }
            timer.as_mut().reset(self.next_look());
        }
        self.remember(cx.waker());
        Poll::Pending
    }

    /// When a session may have been silent for too long, or the drain time is over.
    fn next_look(&self) -> Instant {
        let expiry = self.sessions.borrow().next_expiry();
        let next = expiry.into_iter().chain(self.ends_at.get()).min();
        next.map_or_else(
            || Instant::now() + NEVER,
            |at| Instant::from_std(self.limits.instant(at)),
        )
    }

    fn expire(&self) {
        let now = self.limits.now();
        loop {
            let mut sessions = self.sessions.borrow_mut();
            let overdue = sessions.overdue(now).map(|it| (it, Reason::Draining));
            let ended = overdue.or_else(|| Some((sessions.expire(now)?, Reason::IdleTimeout)));
            drop(sessions);
            let Some((ended, reason)) = ended else {
                return;
            };
            self.tell(ended, reason);
        }
    }

    fn is_over(&self) -> bool {
        let Some(ends_at) = self.ends_at.get() else {
            return false;
        };
        self.sessions.borrow().is_empty() || self.limits.now() >= ends_at
    }

    fn end_all(&self) {
        loop {
            let Some(ended) = self.sessions.borrow_mut().end_any() else {
                return;
            };
            self.tell(ended, Reason::Draining);
        }
    }

    /// Ends a session, when it is still there.
    fn end(&self, id: Id, reason: Reason) {
        let ended = self.sessions.borrow_mut().end(id);
        if let Some(ended) = ended {
            self.tell(ended, reason);
        }
    }

    fn tell(&self, ended: Ended<Session>, reason: Reason) {
        let metrics = &ended.load.story.metrics;
        metrics.datagrams_wait_no_more(ended.waited);
        ended.load.end(reason, &self.worker.log);
    }

    /// The waker of the socket's task, for those who have something to send.
    fn remember(&self, waker: &Waker) {
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(waker)) {
            *task = Some(waker.clone());
        }
    }

    fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Sends what waits for clients.
    fn flush(&self, cx: &mut Context<'_>) {
        loop {
            let mut replies = self.replies.borrow_mut();
            if replies.is_empty() {
                return;
            }
            let flushed = replies.flush(&self.socket);
            drop(replies);
            for _ in 0..flushed.refused {
                self.drop_unrouted(DatagramDrop::Unroutable);
            }
            if !flushed.is_blocked {
                return;
            }
            let _ = self.socket.try_io(Interest::WRITABLE, nothing_there);
            if self.socket.poll_send_ready(cx).is_pending() {
                return;
            }
        }
    }

    /// Takes one batch of clients' datagrams; says how many there were.
    fn receive(self: &Rc<Self>) -> usize {
        let mut moving = self.worker.moving();
        let moving = &mut *moving;
        let mut headers = self.headers.borrow_mut();
        let socket = batch::descriptor(&self.socket);
        let arrived = match headers.receive(socket, &mut moving.buffers) {
            Ok(arrived) => arrived,
            Err(error) => {
                if !batch::would_block(&error) {
                    debug!(address = %self.address, %error, "a UDP socket has reported an error");
                }
                return 0;
            }
        };
        let now = self.limits.now();
        if self.limits.counts_datagrams(&self.shared) {
            for (at, one) in arrived.iter().enumerate() {
                if self.is_admitted(one, now) {
                    self.hand_over(moving, at..at + 1, arrived, now);
                }
            }
        } else {
            // Datagrams of one client often come in a row, and are sent on together.
            let mut from = 0;
            for run in arrived.chunk_by(|a, b| (a.from, a.to) == (b.from, b.to)) {
                self.hand_over(moving, from..from + run.len(), arrived, now);
                from += run.len();
            }
        }
        arrived.len()
    }

    fn is_admitted(&self, arrived: &Arrived, now: Duration) -> bool {
        let source = arrived.from.map(|from| from.ip());
        let is_admitted =
            source.is_some_and(|ip| self.limits.admits_datagram(&self.shared, ip, now));
        if !is_admitted {
            self.drop_unrouted(DatagramDrop::Rate);
        }
        is_admitted
    }

    /// Gives datagrams of one client to its session, which begins if there is none.
    fn hand_over(
        self: &Rc<Self>,
        moving: &mut Moving,
        mut range: std::ops::Range<usize>,
        arrived: &[Arrived],
        now: Duration,
    ) {
        let Some(Arrived {
            from: Some(client),
            to,
            ..
        }) = arrived.get(range.start).copied()
        else {
            return;
        };
        let flow = Flow { client, local: to };
        // An endpoint that turns out to be gone is told of only by the datagram behind the one it
        // did not take, which then begins a session of its own.
        let mut may_begin_anew = true;
        while !range.is_empty() {
            let known = self.sessions.borrow_mut().heard(&flow, now);
            let id = match known.map_or_else(|| self.begin(flow, now), Ok) {
                Ok(id) => id,
                Err(why) => return self.drop_all(why, range.len()),
            };
            match self.pass_on(id, moving, range.clone(), arrived) {
                Ok(sent) => range.start += sent,
                Err(Undelivered::Dropped(why)) => {
                    self.drop_all(why, 1);
                    range.start += 1;
                }
                Err(Undelivered::Unreachable) => {
                    self.end_unreachable(id);
                    if !std::mem::take(&mut may_begin_anew) {
                        return self.drop_all(DatagramDrop::Unroutable, range.len());
                    }
                }
            }
        }
    }

    fn drop_all(&self, why: DatagramDrop, count: usize) {
        for _ in 0..count {
            self.drop_unrouted(why);
        }
    }

    /// Counts a datagram that no session has taken.
    fn drop_unrouted(&self, why: DatagramDrop) {
        if let Some(metrics) = self.metrics() {
            metrics.datagram_dropped(why);
        }
    }

    /// Figures of the route that takes what comes here, if any does.
    fn metrics(&self) -> Option<Arc<StreamMetrics>> {
        let bind = self.worker.udp_bind(self.address)?;
        Some(match bind.streams.lookup(None) {
            Some(rule) => rule.metrics.clone(),
            None => bind.streams.unrouted.clone(),
        })
    }
}

/// For sockets that were read dry by a call that did not say so.
fn nothing_there() -> io::Result<()> {
    Err(io::ErrorKind::WouldBlock.into())
}
