//! Byte streams as this crate sees them: plain or TLS, with both directions usable at once.
//!
//! [`Io`] is what the accept loop hands over. [`Duplex`] lets one task read and write the same
//! stream in two concurrent futures without a lock or a split allocation: a connection never
//! leaves its worker thread, so a `RefCell` borrowed for the length of one poll is enough.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use dataplane_telemetry::metrics::Http2Limit;
use dataplane_tls::{ClientStream, ServerStream};

use crate::frame_guard::{FrameGuard, FrameLimits};

/// A connection: plain TCP, or TLS from a client or to an endpoint.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP; boxed because it is ten times as large.
    Tls(Box<ServerStream<TcpStream>>),
    /// TLS over TCP to an endpoint.
    TlsToEndpoint(Box<ClientStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
            Self::TlsToEndpoint(tls) => tls.get_ref(),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
            Self::TlsToEndpoint(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
            Self::TlsToEndpoint(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
            Self::TlsToEndpoint(tls) => Pin::new(tls.as_mut()).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
            Self::TlsToEndpoint(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
            Self::TlsToEndpoint(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}

/// A stream that one task may read and write in two futures at once.
#[derive(Debug)]
pub(crate) struct Duplex(RefCell<Io>);

impl Duplex {
    pub(crate) fn new(io: Io) -> Self {
        Self(RefCell::new(io))
    }

    pub(crate) fn into_inner(self) -> Io {
        self.0.into_inner()
    }

    /// Waits until bytes (or the end) may be read; holds no buffer meanwhile.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// As [`Self::readable`], for one poll; may be ready without need.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().tcp().poll_read_ready(cx)
    }

    /// Reads what is there into the free part of `buf`, which is given at least `room` bytes.
    ///
    /// Gives 0 at the end of the stream.
    pub(crate) async fn read(&self, buf: &mut BytesMut, room: usize) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf, room)).await
    }

    /// As [`Self::read`], for one poll.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        buf.reserve(room);
        tokio_util::io::poll_read_buf(Pin::new(&mut *self.0.borrow_mut()), cx, buf)
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, bytes: &mut BytesMut) -> io::Result<()> {
        poll_fn(|cx| self.poll_write_all(cx, bytes, &mut Bytes::new(), &mut &b""[..])).await
    }

    /// Writes all of `head`, `data` and `tail`, in as few system calls as the kernel allows; what
    /// was written is taken off their front.
    pub(crate) fn poll_write_all(
        &self,
        cx: &mut Context<'_>,
        head: &mut BytesMut,
        data: &mut Bytes,
        tail: &mut &'static [u8],
    ) -> Poll<io::Result<()>> {
        let mut io = self.0.borrow_mut();
        while !(head.is_empty() && data.is_empty() && tail.is_empty()) {
            let slices = [IoSlice::new(head), IoSlice::new(data), IoSlice::new(tail)];
            let first = slices.iter().position(|slice| !slice.is_empty());
            let slices = &slices[first.unwrap_or(0)..];
            let written = ready!(Pin::new(&mut *io).poll_write_vectored(cx, slices))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let from_head = written.min(head.len());
            head.advance(from_head);
            let from_data = (written - from_head).min(data.len());
            data.advance(from_data);
            *tail = &tail[written - from_head - from_data..];
        }
        Pin::new(&mut *io).poll_flush(cx)
    }

    /// True when the peer has reset the connection. An end of its stream alone says nothing: a
    /// client may have closed its sending half and wait for the answer.
    pub(crate) fn is_reset(&self) -> bool {
        let io = self.0.borrow();
        let is_error = std::pin::pin!(io.tcp().ready(Interest::ERROR));
        let ready = is_error.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(_)))
    }

    /// Makes the peer see a reset instead of an end when this is dropped.
    pub(crate) fn reset_when_dropped(&self) {
        // A socket that refuses is gone already.
        let _ = self.0.borrow().tcp().set_zero_linger();
    }

    /// Ends our direction; the peer sees the end of the stream after what was written.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| Pin::new(&mut *self.0.borrow_mut()).poll_shutdown(cx)).await
    }
}

/// What [`Framed`] notes while h2 reads and writes; for the task that polls h2.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Rc<NoteCells>);

#[derive(Debug, Default)]
struct NoteCells {
    /// Since when a write takes no byte.
    stalled: Cell<Option<Instant>>,
    /// Since when the client owes the rest of a head.
    owes_head: Cell<Option<Instant>>,
    /// The limit that the client broke.
    broken: Cell<Option<Http2Limit>>,
}

impl Notes {
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

/// The stream of an HTTP/2 connection: bytes that were read already are in front, and what passes
/// is watched. Once a limit is broken nothing more is read.
#[derive(Debug)]
pub(crate) struct Framed {
    prefix: Bytes,
    io: Io,
    guard: FrameGuard,
    notes: Notes,
}

impl Framed {
    pub(crate) fn new(prefix: Bytes, io: Io, limits: FrameLimits) -> Self {
        Self {
            prefix,
            io,
            guard: FrameGuard::new(limits, Instant::now()),
            notes: Notes::default(),
        }
    }

    /// Where it is noted what the peer owes and what it may not do.
    pub(crate) fn notes(&self) -> Notes {
        self.notes.clone()
    }

    fn received(&mut self, bytes: &[u8]) {
        if let Err(limit) = self.guard.receive(bytes, Instant::now) {
            self.notes.0.broken.set(Some(limit));
        }
        note(&self.notes.0.owes_head, self.guard.owes_head());
    }
}

impl AsyncRead for Framed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.notes.0.broken.get().is_some() {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        if self.prefix.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        } else {
            let taken = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix.split_to(taken));
        }
        self.received(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Framed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        note(&self.notes.0.stalled, written.is_pending());
        if let Poll::Ready(Ok(written)) = written {
            self.guard.send(&buf[..written]);
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        note(&self.notes.0.stalled, written.is_pending());
        if let Poll::Ready(Ok(mut left)) = written {
            for buf in bufs {
                let part = left.min(buf.len());
                self.guard.send(&buf[..part]);
                left -= part;
            }
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of TLS, which holds records back.
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        note(&self.notes.0.stalled, flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
