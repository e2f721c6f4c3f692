//! One connection of a data plane: its socket, how long it may live, and how it is cut.
//!
//! `serve.rs` wraps every accepted socket, with TLS on it or not, in an [`Io`] and asks [`Connection::end`] when the
//! connection must be told to go. tonic itself knows no idle limit, sends no GOAWAY when a grace
//! period is set, and cannot drop a client that stopped reading or pings too often; that is what this file is for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::pings::Pings;
use crate::settings::GrpcRuntime;

/// How long a client that is sent away may take to go.
const LEAVE_LIMIT: Duration = Duration::from_secs(1);

/// What the parts of one connection share.
#[derive(Debug)]
pub(super) struct Connection {
    /// Where the data plane is.
    pub(super) peer: SocketAddr,
    opened: Instant,
    streams: AtomicUsize,
    quiet_since: Mutex<Instant>,
    streams_ended: Notify,
    draining: CancellationToken,
    cut: CancellationToken,
    closed: CancellationToken,
}

impl Connection {
    /// A connection that was just accepted.
    pub(super) fn new(peer: SocketAddr) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self {
            peer,
            opened: now,
            streams: AtomicUsize::new(0),
            quiet_since: Mutex::new(now),
            streams_ended: Notify::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            closed: CancellationToken::new(),
        })
    }

    /// Its bytes.
    pub(super) fn io(&self, stream: Stream, pings: Pings, pings_exceeded: Counter) -> Io {
        Io {
            stream,
            pings,
            pings_exceeded,
            leaving: None,
            cut: Box::pin(self.cut.clone().cancelled_owned()),
            _closed: self.closed.clone().drop_guard(),
        }
    }

    /// A call came in: the connection is not idle.
    pub(super) fn touch(&self) {
        *self
            .quiet_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// A stream begins; until the guard is dropped the connection is not idle.
    pub(super) fn open_stream(self: &Arc<Self>) -> OpenStream {
        self.streams.fetch_add(1, Ordering::Relaxed);
        OpenStream(Arc::clone(self))
    }

    /// Completes when streams on this connection should end by themselves.
    pub(super) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Breaks the connection, whatever the client does.
    pub(super) fn cut(&self) {
        self.cut.cancel();
    }

    /// Completes when the connection must get GOAWAY, or is gone; then the streams drain and,
    /// after the grace period, the socket is cut.
    pub(super) async fn end(
        self: Arc<Self>,
        runtime: &GrpcRuntime,
        age: Option<Duration>,
        shutdown: &CancellationToken,
    ) {
        let grace = tokio::select! {
            () = self.closed.cancelled() => return,
            () = shutdown.cancelled() => runtime.graceful_stop_timeout,
            () = sleep_for(age) => runtime.max_connection_age_grace,
            () = self.idle_for(runtime.max_connection_idle) => runtime.max_connection_age_grace,
        };
        tracing::debug!(peer = %self.peer, age = ?self.opened.elapsed(), "closing a connection");
        self.draining.cancel();
        let connection = Arc::clone(&self);
        tokio::spawn(async move {
            tokio::select! {
                () = connection.closed.cancelled() => {}
                () = tokio::time::sleep(grace) => connection.cut(),
            }
        });
    }

    async fn idle_for(&self, limit: Option<Duration>) {
        let Some(limit) = limit else {
            return std::future::pending().await;
        };
        loop {
            let ended = self.streams_ended.notified();
            if self.streams.load(Ordering::Relaxed) > 0 {
                ended.await;
                continue;
            }
            let quiet_since = *self
                .quiet_since
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let left = (quiet_since + limit).saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

async fn sleep_for(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// Says that a stream is open, until dropped.
#[derive(Debug)]
pub(super) struct OpenStream(Arc<Connection>);

impl OpenStream {
    /// The connection it is on.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.0
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.touch();
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        self.0.streams_ended.notify_waiters();
    }
}

/// What a connection is made of: the socket, and TLS when it is on.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Duplex for T {}

impl Stream {
    fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    fn pinned(&mut self) -> Pin<&mut dyn Duplex> {
        match self {
            Self::Plain(socket) => Pin::new(socket),
            Self::Tls(stream) => Pin::new(&mut **stream),
        }
    }
}

/// The bytes of a connection; reading fails once it is cut, or its client has pinged too often.
#[derive(Debug)]
pub(super) struct Io {
    stream: Stream,
    pings: Pings,
    pings_exceeded: Counter,
    leaving: Option<Leaving>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _closed: DropGuard,
}

/// A client that is being sent away.
#[derive(Debug)]
struct Leaving {
    goodbye: Vec<u8>,
    written: usize,
    is_shut: bool,
    /// Until then what it sends is read, because a closed socket would destroy the goodbye.
    until: Pin<Box<tokio::time::Sleep>>,
}

impl Io {
    /// Tells the client to go; ready once it has gone or had its time.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(leaving) = &mut self.leaving else {
            return Poll::Pending;
        };
        if leaving.until.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let mut stream = self.stream.pinned();
        while leaving.written < leaving.goodbye.len() {
            let rest = &leaving.goodbye[leaving.written..];
            match ready!(stream.as_mut().poll_write(cx, rest)) {
                Ok(written @ 1..) => leaving.written += written,
                _ => return Poll::Ready(()),
            }
        }
        if !leaving.is_shut {
            // A connection that broke is gone as well.
            let _ = ready!(stream.as_mut().poll_shutdown(cx));
            leaving.is_shut = true;
        }
        let mut space = [0; 1024];
        loop {
            let mut buffer = ReadBuf::new(&mut space);
            match ready!(stream.as_mut().poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                _ => return Poll::Ready(()),
            }
        }
    }
}

impl Connected for Io {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.socket().connect_info()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let gone = || Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        if self.cut.as_mut().poll(cx).is_ready() {
            return gone();
        }
        if self.leaving.is_none() {
            let before = buffer.filled().len();
            ready!(self.stream.pinned().poll_read(cx, buffer))?;
            let this = &mut *self;
            if this
                .pings
                .received(&buffer.filled()[before..], Instant::now())
            {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            this.pings_exceeded.inc();
            let peer = this.stream.socket().peer_addr().ok();
            tracing::debug!(?peer, "pinged more often than grpcRuntime.minPingInterval");
            this.leaving = Some(Leaving {
                goodbye: this.pings.goodbye().unwrap_or_default(),
                written: 0,
                is_shut: false,
                until: Box::pin(tokio::time::sleep(LEAVE_LIMIT)),
            });
        }
        ready!(self.leave(cx));
        gone()
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.leaving.is_some() {
            // What would come behind the goodbye is not sent, and its reader ends the connection.
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(self.stream.pinned().poll_write(cx, bytes))?;
        self.pings.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.leaving.is_some() {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        let written = ready!(self.stream.pinned().poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let length = left.min(slice.len());
            self.pings.sent(&slice[..length]);
            left -= length;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(socket) => socket.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.pinned().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.pinned().poll_shutdown(cx)
    }
}
