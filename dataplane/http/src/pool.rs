//! Connections to endpoints, kept per worker thread.
//!
//! A worker never shares a connection, so the pool needs no lock and a kept HTTP/1.1 connection
//! costs no task: whether it is still open is asked when it is taken, which tokio answers from its
//! readiness flags without a system call. HTTP/2 connections are shared by the streams of one
//! worker; while one is being dialled, those who need it wait instead of dialling too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use dataplane_telemetry::Reason;
use foldhash::fast::RandomState;
use tokio::sync::Notify;

use crate::held::Held;
use crate::io::Duplex;

pub(crate) mod http2;

use http2::{Connection, Room, Settling, Stream};

/// Names the connections that may stand in for one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// Of the endpoint: address, protocol, and what its policy says about TLS.
    pub(crate) endpoint: u64,
    /// Of trust anchors and client certificate as compiled; 0 in plain text.
    pub(crate) tls: u64,
}

/// The connections of one worker.
#[derive(Default)]
pub(crate) struct Pool {
    http1: RefCell<HashMap<PoolKey, Vec<Idle>, RandomState>>,
    http2: RefCell<HashMap<PoolKey, Slot, RandomState>>,
    /// How many wait here for a connection that somebody gives up.
    waiting: RefCell<HashMap<PoolKey, usize, RandomState>>,
    /// Counts connections that came back while others waited elsewhere.
    turns: Cell<usize>,
}

struct Idle {
    kept: Kept,
    since: Instant,
}

/// An HTTP/1.1 connection between two requests.
pub(crate) struct Kept {
    pub(crate) io: Duplex,
    /// What it counts for.
    pub(crate) held: Held,
    /// Requests that it has served.
    pub(crate) served: u32,
}

/// What is known of HTTP/2 to an endpoint.
#[derive(Default)]
struct Slot {
    connections: Vec<Shared>,
    dialling: Option<Rc<Dialling>>,
    /// The endpoint was asked and prefers HTTP/1.1, as of then.
    speaks_http1: Option<Instant>,
}

impl Slot {
    /// A stream, or else what may end with there being one.
    fn stream(&mut self) -> Result<Stream, Option<Settling>> {
        self.connections
            .retain(|shared| shared.connection.is_open());
        let mut settling = None;
        for shared in &mut self.connections {
            match shared.connection.room() {
                Room::Stream(stream) => {
                    shared.last_used = Instant::now();
                    return Ok(stream);
                }
                Room::Unknown(unknown) => settling = Some(unknown),
                Room::Full => {}
            }
        }
        Err(settling)
    }
}

struct Shared {
    connection: Connection,
    last_used: Instant,
}

#[derive(Default)]
struct Dialling {
    ended: Notify,
    failure: Cell<Option<Reason>>,
}

/// How a request gets onto an HTTP/2 connection.
pub(crate) enum Way<'a> {
    /// On one that is there.
    Stream(Stream),
    /// By asking again when this has ended.
    Wait(Wait),
    /// By dialling; others wait for the outcome.
    Dial(Ticket<'a>),
    /// Not at all: the endpoint speaks HTTP/1.1.
    Http1,
}

/// Something that another request brings about.
pub(crate) enum Wait {
    /// The endpoint says how many streams it takes.
    Settling(Settling),
    /// A connection is up, or none will be.
    Dialled(Dialled),
}

/// The outcome of another request's dialling.
pub(crate) struct Dialled(Rc<Dialling>);

/// Leave to dial; dropped without an outcome it passes to the next who needs a connection.
pub(crate) struct Ticket<'a> {
    pool: &'a Pool,
    key: PoolKey,
    dialling: Rc<Dialling>,
}

impl Pool {
    /// Takes the most recently used idle connection that is still open.
    pub(crate) fn take_http1(&self, key: PoolKey, timeout: Duration, now: Instant) -> Option<Kept> {
        let mut pool = self.http1.borrow_mut();
        let list = pool.get_mut(&key)?;
        while let Some(idle) = list.pop() {
            let age = now.saturating_duration_since(idle.since);
            if age < timeout && is_quiet(&idle.kept.io) {
                return Some(idle.kept);
            }
        }
        pool.remove(&key);
        None
    }

    /// Keeps a connection, in place of the oldest when there are `max` already.
    pub(crate) fn keep_http1(&self, key: PoolKey, kept: Kept, max: usize, now: Instant) {
        if max == 0 {
            return;
        }
        let mut pool = self.http1.borrow_mut();
        let list = pool.entry(key).or_default();
        if list.len() >= max {
            list.remove(0);
        }
        list.push(Idle { kept, since: now });
    }

    /// Counts somebody here as waiting for a connection until the guard is dropped.
    pub(crate) fn wait(&self, key: PoolKey) -> WaitsHere<'_> {
        *self.waiting.borrow_mut().entry(key).or_default() += 1;
        WaitsHere { pool: self, key }
    }

    /// Whether a connection that comes back serves somebody here, where so many wait in the whole
    /// process. While some of them are elsewhere they have every fourth one's place.
    pub(crate) fn is_for_here(&self, key: PoolKey, waiting: usize) -> bool {
        let here = self.waiting.borrow().get(&key).copied().unwrap_or(0);
        let turn = self.turns.get().wrapping_add(1);
        self.turns.set(turn);
        here > 0 && (here >= waiting || !turn.is_multiple_of(4))
    }

    /// Closes an idle connection; false when there is none.
    pub(crate) fn let_go(&self) -> bool {
        let mut pool = self.http1.borrow_mut();
        let found = pool.iter_mut().find(|(_, list)| !list.is_empty());
        found.is_some_and(|(_, list)| list.pop().is_some())
    }

    /// A stream of a connection that has enough of them; it may have to wait for its turn.
    pub(crate) fn crowded_stream(&self, key: PoolKey) -> Option<Stream> {
        let pool = self.http2.borrow();
        let mut connections = pool.get(&key)?.connections.iter();
        let shared = connections.find(|shared| shared.connection.is_open())?;
        Some(shared.connection.stream())
    }

    /// A stream of a connection that is there.
    pub(crate) fn stream(&self, key: PoolKey) -> Option<Stream> {
        self.http2.borrow_mut().get_mut(&key)?.stream().ok()
    }

    /// How to get onto an HTTP/2 connection now.
    pub(crate) fn http2(&self, key: PoolKey) -> Way<'_> {
        let mut pool = self.http2.borrow_mut();
        let slot = pool.entry(key).or_default();
        let settling = match slot.stream() {
            Ok(stream) => return Way::Stream(stream),
            Err(settling) => settling,
        };
        if let Some(settling) = settling {
            return Way::Wait(Wait::Settling(settling));
        }
        if slot.speaks_http1.is_some() {
            return Way::Http1;
        }
        if let Some(dialling) = &slot.dialling {
            return Way::Wait(Wait::Dialled(Dialled(dialling.clone())));
        }
        let dialling = Rc::<Dialling>::default();
        slot.dialling = Some(dialling.clone());
        Way::Dial(Ticket {
            pool: self,
            key,
            dialling,
        })
    }

    /// Notes what an endpoint agreed on that could choose.
    pub(crate) fn speaks_http1(&self, key: PoolKey) {
        let mut pool = self.http2.borrow_mut();
        pool.entry(key).or_default().speaks_http1 = Some(Instant::now());
    }

    /// Makes a connection known to the streams that follow, and takes its first.
    pub(crate) fn keep_http2(&self, key: PoolKey, connection: Connection) -> Stream {
        let stream = connection.stream();
        let shared = Shared {
            connection,
            last_used: Instant::now(),
        };
        let mut pool = self.http2.borrow_mut();
        let slot = pool.entry(key).or_default();
        slot.connections.push(shared);
        slot.speaks_http1 = None;
        stream
    }

    /// Closes what has been idle for longer than `timeout`; called now and then by the worker.
    pub(crate) fn sweep(&self, timeout: Duration) {
        self.http1.borrow_mut().retain(|_, list| {
            list.retain(|idle| {
                let is_fresh = idle.since.elapsed() < timeout && is_quiet(&idle.kept.io);
                // Those who wait in another worker are served by its place.
                is_fresh && !idle.kept.held.is_wanted()
            });
            !list.is_empty()
        });
        self.http2.borrow_mut().retain(|_, slot| {
            slot.connections.retain(|shared| {
                let is_unused =
                    shared.connection.is_idle() && shared.last_used.elapsed() >= timeout;
                shared.connection.is_open() && !is_unused && !shared.connection.is_wanted()
            });
            slot.speaks_http1 = slot.speaks_http1.filter(|since| since.elapsed() < timeout);
            let is_known = slot.dialling.is_some() || slot.speaks_http1.is_some();
            is_known || !slot.connections.is_empty()
        });
    }
}

/// Somebody waits; see [`Pool::wait`].
pub(crate) struct WaitsHere<'a> {
    pool: &'a Pool,
    key: PoolKey,
}

impl Drop for WaitsHere<'_> {
    fn drop(&mut self) {
        let mut waiting = self.pool.waiting.borrow_mut();
        match waiting.get_mut(&self.key) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(waiting.remove(&self.key)),
        }
    }
}

impl Ticket<'_> {
    /// The connection is up; the stream is for the one who dialled.
    pub(crate) fn connected(self, connection: Connection) -> Stream {
        self.pool.keep_http2(self.key, connection)
    }

    /// The endpoint prefers HTTP/1.1.
    pub(crate) fn chose_http1(self) {
        self.pool.speaks_http1(self.key);
    }

    /// None came up, for this reason; those who wait need not try the same.
    pub(crate) fn failed(self, reason: Reason) {
        self.dialling.failure.set(Some(reason));
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.pool.http2.borrow_mut().get_mut(&self.key) {
            slot.dialling = None;
        }
        self.dialling.ended.notify_waiters();
    }
}

impl Wait {
    /// Waits; the error is the reason why another's dialling failed.
    pub(crate) async fn ended(self) -> Result<(), Reason> {
        match self {
            Self::Settling(settling) => {
                settling.ended().await;
                Ok(())
            }
            Self::Dialled(Dialled(dialling)) => {
                dialling.ended.notified().await;
                dialling.failure.get().map_or(Ok(()), Err)
            }
        }
    }
}

/// True when the peer has neither closed nor sent anything: a byte nobody asked for makes a
/// connection unusable (RFC 9112 9.2), the end of the stream of course too.
fn is_quiet(io: &Duplex) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    io.poll_readable(&mut cx).is_pending()
        || io.poll_read(&mut cx, &mut BytesMut::new(), 1).is_pending()
}
