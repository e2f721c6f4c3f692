//! Clients that show a test what came over the wire.
//!
//! Plain rather than clever: one connection each, no pool, no retries, no redirects, and a deadline
//! on every answer ([`DEADLINE`](crate::wait::DEADLINE)). They work over any stream, so TLS is put
//! below them by [`tls::TlsClient`].

use std::io;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

pub mod grpc;
pub mod http1;
pub mod http2;
pub mod tls;
pub mod websocket;

/// A whole response.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body, without transfer coding.
    pub body: Bytes,
    /// Fields after the body.
    pub trailers: HeaderMap,
    /// Statuses of interim responses (1xx) that came before it.
    pub interim: Vec<StatusCode>,
}

impl Response {
    /// A header field as text; empty when it is absent.
    pub fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    /// A trailer field as text; empty when it is absent.
    pub fn trailer(&self, name: &str) -> &str {
        text(&self.trailers, name)
    }

    /// The body as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// Why a client got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The connection could not be made, or broke.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The peer closed before the message was whole; what came is kept.
    #[error("the connection was closed after {} bytes of a message", .0.len())]
    Closed(Bytes),
    /// HTTP/2 failed, on the stream or the connection.
    #[error("HTTP/2 failed: {0}")]
    Http2(#[from] h2::Error),
    /// What came is not HTTP, or not gRPC.
    #[error("the peer sent a malformed message: {0}")]
    Malformed(String),
    /// Nothing came in time.
    #[error("no answer within {:?}", crate::wait::DEADLINE)]
    Deadline,
}

impl ClientError {
    /// The reason of a reset or GOAWAY, when that is what happened.
    pub fn reset_reason(&self) -> Option<h2::Reason> {
        match self {
            Self::Http2(error) => error.reason(),
            _ => None,
        }
    }

    /// True when the peer closed the connection in peace before it looked at this stream
    /// (RFC 9113, 6.8): the request may be sent again.
    pub fn is_sent_away(&self) -> bool {
        matches!(self, Self::Http2(error) if error.is_remote()
            && error.is_go_away()
            && error.reason() == Some(h2::Reason::NO_ERROR))
    }
}

/// Puts the deadline on one step of a client.
pub(crate) async fn bounded<T, E: Into<ClientError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, ClientError> {
    match tokio::time::timeout(crate::wait::DEADLINE, work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(ClientError::Deadline),
    }
}
