//! Idle connections to endpoints, kept per worker thread.
//!
//! A worker never shares a connection, so the pool needs no lock and a kept connection costs no
//! task: whether it is still open is asked when it is taken, which tokio answers from its readiness
//! flags without a system call. HTTP/2 connections are shared by the streams of one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use pingora_core::connectors::http::v2::ConnectionRef;

use crate::io::Duplex;

/// The connections of one worker, by the endpoint's pool key.
#[derive(Default)]
pub(crate) struct Pool {
    http1: RefCell<HashMap<u64, Vec<Idle>>>,
    http2: RefCell<HashMap<u64, Vec<Shared>>>,
}

struct Shared {
    connection: ConnectionRef,
    last_used: Instant,
}

impl Shared {
    fn is_open(&self) -> bool {
        !self.connection.is_closed() && !self.connection.is_shutting_down()
    }
}

struct Idle {
    io: Duplex,
    since: Instant,
}

impl Pool {
    /// Takes the most recently used idle connection that is still open.
    pub(crate) fn take_http1(&self, key: u64, timeout: Duration) -> Option<Duplex> {
        let mut pool = self.http1.borrow_mut();
        let list = pool.get_mut(&key)?;
        while let Some(idle) = list.pop() {
            if idle.since.elapsed() < timeout && is_quiet(&idle.io) {
                return Some(idle.io);
            }
        }
        pool.remove(&key);
        None
    }

    /// Keeps a connection, in place of the oldest when there are `max` already.
    pub(crate) fn keep_http1(&self, key: u64, io: Duplex, max: usize) {
        if max == 0 {
            return;
        }
        let mut pool = self.http1.borrow_mut();
        let list = pool.entry(key).or_default();
        if list.len() >= max {
            list.remove(0);
        }
        list.push(Idle {
            io,
            since: Instant::now(),
        });
    }

    /// A connection that can take one more stream.
    pub(crate) fn http2(&self, key: u64) -> Option<ConnectionRef> {
        let mut pool = self.http2.borrow_mut();
        let list = pool.get_mut(&key)?;
        list.retain(Shared::is_open);
        if list.is_empty() {
            pool.remove(&key);
            return None;
        }
        let shared = list
            .iter_mut()
            .find(|shared| shared.connection.more_streams_allowed())?;
        shared.last_used = Instant::now();
        Some(shared.connection.clone())
    }

    /// Makes a connection known to the streams that follow.
    pub(crate) fn keep_http2(&self, key: u64, connection: ConnectionRef) {
        let shared = Shared {
            connection,
            last_used: Instant::now(),
        };
        self.http2.borrow_mut().entry(key).or_default().push(shared);
    }

    /// Closes what has been idle for longer than `timeout`; called now and then by the worker.
    pub(crate) fn sweep(&self, timeout: Duration) {
        self.http1.borrow_mut().retain(|_, list| {
            list.retain(|idle| idle.since.elapsed() < timeout && is_quiet(&idle.io));
            !list.is_empty()
        });
        self.http2.borrow_mut().retain(|_, list| {
            list.retain(|shared| {
                let is_unused =
                    shared.connection.is_idle() && shared.last_used.elapsed() >= timeout;
                shared.is_open() && !is_unused
            });
            !list.is_empty()
        });
    }
}

/// True when the peer has neither closed nor sent anything: a byte nobody asked for makes a
/// connection unusable (RFC 9112 9.2), the end of the stream of course too.
fn is_quiet(io: &Duplex) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    io.poll_readable(&mut cx).is_pending()
        || io.poll_read(&mut cx, &mut BytesMut::new(), 1).is_pending()
}
