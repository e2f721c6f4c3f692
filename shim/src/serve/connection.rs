//! One connection of a data plane: its socket, how long it may live, and how it is cut.
//!
//! `serve.rs` wraps every accepted socket in an [`Io`] and asks [`Connection::end`] when the
//! connection must be told to go. tonic itself knows no idle limit, sends no GOAWAY when a grace
//! period is set, and cannot drop a client that stopped reading; that is what this file is for.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::settings::GrpcRuntime;

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
    /// A connection that was just accepted, and its socket.
    pub(super) fn new(socket: TcpStream, peer: SocketAddr) -> (Arc<Self>, Io) {
        let now = Instant::now();
        let connection = Arc::new(Self {
            peer,
            opened: now,
            streams: AtomicUsize::new(0),
            quiet_since: Mutex::new(now),
            streams_ended: Notify::new(),
            draining: CancellationToken::new(),
            cut: CancellationToken::new(),
            closed: CancellationToken::new(),
        });
        let io = Io {
            socket,
            cut: Box::pin(connection.cut.clone().cancelled_owned()),
            _closed: connection.closed.clone().drop_guard(),
        };
        (connection, io)
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

/// The socket of a connection; reading fails once the connection is cut.
#[derive(Debug)]
pub(super) struct Io {
    socket: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _closed: DropGuard,
}

impl Connected for Io {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
