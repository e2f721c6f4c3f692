//! Byte streams as this crate sees them: plain or TLS, with both directions usable at once.
//!
//! [`Io`] is what the accept loop hands over. [`Duplex`] lets one task read and write the same
//! stream in two concurrent futures without a lock or a split allocation: a connection never
//! leaves its worker thread, so a `RefCell` borrowed for the length of one poll is enough.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use dataplane_tls::ServerStream;

/// A connection: plain TCP, or TLS that ends here.
#[derive(Debug)]
pub enum Io {
    /// Plain TCP.
    Plain(TcpStream),
    /// TLS over TCP; boxed because it is ten times as large.
    Tls(Box<ServerStream<TcpStream>>),
}

impl Io {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
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
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
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

    /// Writes all of `head`, `data` and `tail`, in as few system calls as the kernel allows.
    pub(crate) async fn write_all(
        &self,
        head: &mut BytesMut,
        data: &mut Bytes,
        mut tail: &[u8],
    ) -> io::Result<()> {
        poll_fn(|cx| {
            let mut io = self.0.borrow_mut();
            while !(head.is_empty() && data.is_empty() && tail.is_empty()) {
                let slices = [IoSlice::new(head), IoSlice::new(data), IoSlice::new(tail)];
                let first = slices
                    .iter()
                    .position(|slice| !slice.is_empty())
                    .unwrap_or(0);
                let written = match Pin::new(&mut *io).poll_write_vectored(cx, &slices[first..]) {
                    Poll::Ready(Ok(0)) => {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    Poll::Ready(Ok(written)) => written,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                };
                let from_head = written.min(head.len());
                head.advance(from_head);
                let from_data = (written - from_head).min(data.len());
                data.advance(from_data);
                tail = &tail[written - from_head - from_data..];
            }
            Pin::new(&mut *io).poll_flush(cx)
        })
        .await
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

/// Since when a stream has taken no byte of a write; for those who write through a library.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stall(Rc<Cell<Option<Instant>>>);

impl Stall {
    /// True while a write waits for the peer.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.get().is_some()
    }

    /// Waits until a write has waited for that long; to be polled behind the writing, by its task.
    pub(crate) async fn lasts(&self, limit: Duration) {
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            let Some(since) = self.0.get() else {
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

    fn note<T>(&self, written: Poll<T>) -> Poll<T> {
        match written {
            Poll::Ready(_) if self.is_stalled() => self.0.set(None),
            Poll::Pending if !self.is_stalled() => self.0.set(Some(Instant::now())),
            _ => {}
        }
        written
    }
}

/// A stream with some bytes that were read already put back in front.
#[derive(Debug)]
pub(crate) struct Prefixed {
    prefix: Bytes,
    io: Io,
    stall: Stall,
}

impl Prefixed {
    pub(crate) fn new(prefix: Bytes, io: Io) -> Self {
        let stall = Stall::default();
        Self { prefix, io, stall }
    }

    /// Where it is noted that the peer takes no bytes.
    pub(crate) fn stall(&self) -> Stall {
        self.stall.clone()
    }
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.stall.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.stall.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Of TLS, which holds records back.
        let written = Pin::new(&mut self.io).poll_flush(cx);
        self.stall.note(written)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
