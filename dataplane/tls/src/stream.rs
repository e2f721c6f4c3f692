//! A stream whose TLS ends here, and what its handshake told.
//!
//! Made by [`ServerTls`](crate::ServerTls) and [`AdminTls`](crate::AdminTls), read and written by
//! the proxies as plain bytes. Shutting it down sends close_notify before the socket is closed.
//! What a session says was agreed on once and does not change.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ir::listener::TlsVersion;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::server::TlsStream;

use crate::admission::Admission;

/// An application protocol agreed on by ALPN (RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http1,
}

/// What was agreed on in a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    /// The listener the client was let in at.
    pub listener: Arc<str>,
    /// The server name the client asked for, in lower case.
    pub sni: Option<String>,
    /// The protocol agreed on; absent when the client offered none.
    pub alpn: Option<Alpn>,
    /// The version agreed on.
    pub version: TlsVersion,
    /// True when the keys come from an earlier session.
    pub is_resumed: bool,
    /// The client's certificate (DER) when the listener asked for one and its chain is trusted.
    pub client_certificate: Option<Arc<[u8]>>,
}

/// A stream whose TLS ends here.
pub struct ServerStream<S> {
    tls: TlsStream<S>,
    session: TlsSession,
    admission: Option<Admission>,
}

impl<S> ServerStream<S> {
    pub(crate) fn new(tls: TlsStream<S>, session: TlsSession) -> Self {
        Self {
            tls,
            session,
            admission: None,
        }
    }

    pub(crate) fn admitted(self, admission: Admission) -> Self {
        Self {
            admission: Some(admission),
            ..self
        }
    }

    /// Takes out by what the client was let in, where a listener of the configuration did that.
    pub fn take_admission(&mut self) -> Option<Admission> {
        self.admission.take()
    }

    /// What was agreed on in the handshake.
    pub fn session(&self) -> &TlsSession {
        &self.session
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        self.tls.get_ref().0
    }

    /// The stream below; reading or writing it breaks the session.
    pub fn get_mut(&mut self) -> &mut S {
        self.tls.get_mut().0
    }
}

impl<S> fmt::Debug for ServerStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerStream")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}
