//! Byte streams as this crate sees them: plain or TLS, with both directions usable at once.
//!
//! [`Io`] is what the accept loop hands over. [`Duplex`] lets one task read and write the same
//! stream in two concurrent futures without a lock or a split allocation: a connection never
//! leaves its worker thread, so a `RefCell` borrowed for the length of one poll is enough.

use std::cell::RefCell;
use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use dataplane_tls::{ClientStream, ServerStream};

/// How much is read of a client that goes on sending behind our end of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linger {
    /// Bytes that are dropped of one that does not stop.
    pub bytes_max: usize,
    /// How long it may be silent meanwhile.
    pub silence_max: Duration,
    /// How long all of it may take.
    pub time_max: Duration,
}

impl Linger {
    /// The product's defaults.
    pub const DEFAULT: Self = Self {
        bytes_max: 64 * 1024 * 1024,
        silence_max: Duration::from_secs(1),
        time_max: Duration::from_secs(5),
    };
}

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

/// Reads and drops what still comes behind our end, so that what was written is not lost to the
/// reset that unread bytes cause (RFC 9112 9.6).
///
/// True when the peer ended its direction; false when a limit was met before it did.
pub(crate) async fn drop_rest(
    limits: &Linger,
    mut poll_read: impl FnMut(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<io::Result<()>>,
) -> bool {
    let dropping = async {
        let mut piece = vec![0; 16 * 1024];
        let mut dropped = 0;
        while dropped < limits.bytes_max {
            let mut piece = ReadBuf::new(&mut piece);
            let read = poll_fn(|cx| poll_read(cx, &mut piece));
            match timeout(limits.silence_max, read).await {
                Ok(Ok(())) if !piece.filled().is_empty() => dropped += piece.filled().len(),
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
        false
    };
    // Boxed, because only the end of a connection needs the room.
    let dropped = timeout(limits.time_max, Box::pin(dropping)).await;
    dropped.unwrap_or(false)
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

    /// True when all that may be read shows on the socket.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(&*self.0.borrow(), Io::Plain(_))
    }

    /// Waits until bytes (or the end) may be read; holds no buffer meanwhile.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// As [`Self::readable`], for one poll; may be ready without need.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow().tcp().poll_read_ready(cx)
    }

    /// Reads what is there into the free part of `buf`, which is given at least `room` bytes. While nothing
    /// comes, an empty one holds no memory; TLS may hold decrypted bytes, which only reading shows.
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
        if buf.is_empty() && self.is_plain() && self.poll_readable(cx).is_pending() {
            *buf = BytesMut::new();
            return Poll::Pending;
        }
        buf.reserve(room);
        tokio_util::io::poll_read_buf(Pin::new(&mut *self.0.borrow_mut()), cx, buf)
    }

    /// As [`Self::poll_read`] of a little, with nothing held while there is nothing to be read.
    pub(crate) fn poll_read_copied(
        &self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        let mut piece = [MaybeUninit::uninit(); 1024];
        let mut read = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, &mut read))?;
        buf.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
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

    /// True when the peer has reset the connection. An end of its stream alone says less: see
    /// [`Self::has_ended`].
    pub(crate) fn is_reset(&self) -> bool {
        let io = self.0.borrow();
        let is_error = std::pin::pin!(io.tcp().ready(Interest::ERROR));
        let ready = is_error.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(_)))
    }

    /// True when the peer has ended its direction, whatever of it is still to be read.
    pub(crate) fn has_ended(&self) -> bool {
        let io = self.0.borrow();
        let is_readable = std::pin::pin!(io.tcp().ready(Interest::READABLE));
        let ready = is_readable.poll(&mut Context::from_waker(Waker::noop()));
        matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
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

    /// Drops what still comes, see [`drop_rest`].
    pub(crate) async fn drop_rest(&self, limits: &Linger) -> bool {
        let poll_read = |cx: &mut Context<'_>, piece: &mut ReadBuf<'_>| {
            Pin::new(&mut *self.0.borrow_mut()).poll_read(cx, piece)
        };
        drop_rest(limits, poll_read).await
    }
}
