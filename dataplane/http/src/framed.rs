//! The stream below an HTTP/2 connection of a client: what passes is watched, what goes out is gathered.
//!
//! The h2 crate asks for each DATA frame to be written before it gives the next. [`Framed`] takes
//! them in instead, and the task of the connection writes all that came together when h2 has nothing
//! more for now ([`Line::written`]): one system call and one TLS record for what one wake-up made.
//! Once a limit on frames is broken nothing more is read; what follows from that is decided in
//! `connection::http2`.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use dataplane_telemetry::metrics::{Http2Limit, ListenerMetrics};

use crate::frame_guard::{FrameGuard, FrameLimits};
use crate::io::{Io, Linger, drop_rest};

/// What is gathered of small frames before it is written without being asked to.
const GATHERED_MAX: usize = 16 * 1024;
/// Room for the first of them.
const GATHERED_USUAL: usize = 4 * 1024;
/// Larger pieces are written from where they are.
const COPY_BYTES_MAX: usize = 8 * 1024;

/// The stream and what is known of it; for the task that polls h2.
#[derive(Clone, Debug)]
pub(crate) struct Line(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    way: RefCell<Way>,
    /// Since when a write takes no byte.
    stalled: Cell<Option<Instant>>,
    /// Since when the client owes the rest of a head.
    owes_head: Cell<Option<Instant>>,
    /// The limit that the client broke.
    broken: Cell<Option<Http2Limit>>,
}

#[derive(Debug)]
struct Way {
    io: Io,
    gathered: BytesMut,
    /// TLS may hold records back.
    is_unflushed: bool,
}

impl Line {
    /// True while a write waits for the peer.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.stalled.get().is_some()
    }

    /// Waits until a write has waited for that long; to be polled behind h2, by its task.
    pub(crate) async fn stalled_for(&self, limit: Duration) {
        lasts(&self.0.stalled, limit).await;
    }

    /// Waits until the client breaks a limit on frames, or leaves a head unfinished for that long;
    /// to be polled behind h2, by its task.
    pub(crate) async fn limit_broken(&self, head_timeout: Duration) -> Http2Limit {
        let mut slow = std::pin::pin!(lasts(&self.0.owes_head, head_timeout));
        poll_fn(|cx| match self.0.broken.get() {
            Some(limit) => Poll::Ready(limit),
            None => slow.as_mut().poll(cx).map(|()| Http2Limit::Head),
        })
        .await
    }

    /// Writes what was gathered, now and whenever this is polled behind h2; ends when that fails.
    pub(crate) async fn written(&self) -> io::Error {
        poll_fn(|cx| match self.poll_written(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(error),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Polls something of h2's, and then writes what that has gathered.
    pub(crate) async fn beside<F: Future>(&self, h2: F) -> io::Result<F::Output> {
        let mut h2 = std::pin::pin!(h2);
        poll_fn(|cx| {
            let ended = h2.as_mut().poll(cx);
            match self.poll_written(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => ended.map(Ok),
            }
        })
        .await
    }

    /// Drops what still comes behind the end of h2's connection, see [`drop_rest`].
    pub(crate) async fn linger(&self, limits: &Linger) -> bool {
        let poll_read = |cx: &mut Context<'_>, piece: &mut ReadBuf<'_>| {
            let mut way = self.0.way.borrow_mut();
            Pin::new(&mut way.io).poll_read(cx, piece)
        };
        drop_rest(limits, poll_read).await
    }

    fn poll_written(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.way.borrow_mut().poll_written(cx, &self.0.stalled)
    }
}

impl Way {
    /// Writes what was gathered.
    fn poll_written(
        &mut self,
        cx: &mut Context<'_>,
        stalled: &Cell<Option<Instant>>,
    ) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = Pin::new(&mut self.io).poll_write(cx, &self.gathered);
            note(stalled, written.is_pending());
            let written = ready!(written)?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
            self.is_unflushed = true;
        }
        if self.is_unflushed {
            let flushed = Pin::new(&mut self.io).poll_flush(cx);
            note(stalled, flushed.is_pending());
            ready!(flushed)?;
            self.is_unflushed = false;
            // An idle connection keeps no memory.
            self.gathered = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// Gathers small pieces, and writes large ones behind what was gathered. What is only gathered
    /// says nothing about a client that takes nothing.
    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
        stalled: &Cell<Option<Instant>>,
    ) -> Poll<io::Result<usize>> {
        let bytes = bufs.iter().map(|buf| buf.len()).sum::<usize>();
        if bytes > COPY_BYTES_MAX || self.gathered.len() + bytes > GATHERED_MAX {
            ready!(self.poll_written(cx, stalled))?;
        }
        if bytes > COPY_BYTES_MAX {
            let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
            note(stalled, written.is_pending());
            // Not while nothing was taken: a socket that needs no flush would seem to move.
            self.is_unflushed |= written.is_ready();
            return written;
        }
        if self.gathered.capacity() == 0 {
            self.gathered.reserve(GATHERED_USUAL.max(bytes));
        }
        for buf in bufs {
            self.gathered.extend_from_slice(buf);
        }
        Poll::Ready(Ok(bytes))
    }
}

/// Waits until what is noted there has lasted for that long.
async fn lasts(since: &Cell<Option<Instant>>, limit: Duration) {
    let mut timer: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|cx| {
        let Some(since) = since.get() else {
            return Poll::Pending;
        };
        let due = since + limit;
        let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if timer.deadline() != due {
            timer.as_mut().reset(due);
        }
        timer.as_mut().poll(cx)
    })
    .await;
}

/// Notes since when something lasts that may well not last.
fn note(since: &Cell<Option<Instant>>, lasts: bool) {
    if since.get().is_some() != lasts {
        since.set(lasts.then(Instant::now));
    }
}

/// What h2 reads and writes: bytes that were read already are in front.
#[derive(Debug)]
pub(crate) struct Framed {
    prefix: Bytes,
    guard: FrameGuard,
    line: Line,
    /// Where streams that are refused are counted.
    metrics: Option<Arc<ListenerMetrics>>,
}

impl Framed {
    pub(crate) fn new(
        prefix: Bytes,
        io: Io,
        limits: FrameLimits,
        metrics: Option<Arc<ListenerMetrics>>,
    ) -> Self {
        let way = Way {
            io,
            gathered: BytesMut::new(),
            is_unflushed: false,
        };
        Self {
            prefix,
            guard: FrameGuard::new(limits, Instant::now()),
            line: Line(Rc::new(Shared {
                way: RefCell::new(way),
                stalled: Cell::default(),
                owes_head: Cell::default(),
                broken: Cell::default(),
            })),
            metrics,
        }
    }

    /// The stream, for the task that polls h2.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    /// False when they break a limit: then h2 gets nothing of them.
    fn received(&mut self, bytes: &[u8]) -> bool {
        let shared = &self.line.0;
        let received = self.guard.receive(bytes, Instant::now);
        if let Err(limit) = received {
            shared.broken.set(Some(limit));
        }
        note(&shared.owes_head, self.guard.owes_head());
        received.is_ok()
    }

    fn sent(&mut self, bytes: &[u8]) {
        let refused = self.guard.send(bytes);
        if let (1.., Some(metrics)) = (refused, &self.metrics) {
            metrics.http2_streams_refused(refused);
        }
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.line.0.broken.get().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.prefix.is_empty() {
            let mut way = self.line.0.way.borrow_mut();
            ready!(Pin::new(&mut way.io).poll_read(cx, buf))?;
        } else {
            let taken = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(taken));
        }
        if !self.received(&buf.filled()[before..]) {
            // Who polls h2 looks at the limit next, and ends the connection by it.
            buf.set_filled(before);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let shared = &self.line.0;
        let written = shared
            .way
            .borrow_mut()
            .poll_write(cx, bufs, &shared.stalled);
        if let Poll::Ready(Ok(mut left)) = written {
            for buf in bufs {
                let part = left.min(buf.len());
                self.sent(&buf[..part]);
                left -= part;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Says yes to everything: what was gathered is written by [`Line::written`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.line.poll_written(cx))?;
        let mut way = self.line.0.way.borrow_mut();
        Pin::new(&mut way.io).poll_shutdown(cx)
    }
}
