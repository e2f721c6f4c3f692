//! Connections that the test can cut, below the gRPC server.
//!
//! tonic gives each connection a task of its own and offers no way to kill it, which is what a
//! crashed control plane looks like to its clients. So the sockets handed to it fail on command.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

/// Accepts connections that end when the token of their time is cancelled.
pub(super) fn incoming(
    listener: TcpListener,
    cut: Arc<Mutex<CancellationToken>>,
) -> impl Stream<Item = io::Result<Cuttable>> {
    stream::unfold((listener, cut), async |(listener, cut)| {
        let accepted = listener.accept().await.map(|(stream, _)| {
            // Pushes and answers alternate in small messages; Nagle would hold each for 40 ms.
            let _ = stream.set_nodelay(true);
            let token = cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
            Cuttable {
                stream,
                cut: Box::pin(token.cancelled_owned()),
            }
        });
        Some((accepted, (listener, cut)))
    })
}

pub(super) struct Cuttable {
    stream: TcpStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Connected for Cuttable {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Cuttable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
