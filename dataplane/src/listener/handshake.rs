//! The end of TLS at a socket, and the record of a handshake that failed.
//!
//! Called by `accept` for HTTPS and by `stream` where bytes are carried. A handshake that ends well
//! is told by whoever serves the connection; one that fails has its record and its figure here. A
//! connection that goes away before it asked for anything, as those of simple health checks do, has
//! neither.

use std::net::SocketAddr;
use std::time::Instant;

use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use dataplane_config::Bind;
use dataplane_telemetry::reason::Reason;
use dataplane_tls::{HandshakeError, Seen, ServerStream, ServerTls};

use super::accept::Door;

impl Door {
    /// Shakes hands within the deadline; nothing comes back when that fails.
    pub(super) async fn shake_hands(
        &self,
        tls: &ServerTls,
        tcp: TcpStream,
        client: SocketAddr,
        bind: &Bind,
    ) -> Option<ServerStream<TcpStream>> {
        let began = Instant::now();
        let mut seen = Seen::default();
        let shaken = timeout(self.limits.handshake_timeout, tls.accept(tcp, &mut seen));
        let error = match shaken.await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        let detail = error.as_ref().map(ToString::to_string).unwrap_or_default();
        let Some(reason) = reason(error.as_ref(), seen.has_hello) else {
            debug!(%client, %detail, "gone before a handshake");
            return None;
        };
        debug!(%client, %reason, %detail, "handshake failed");
        bind.metrics.connection_refused(reason);
        self.streams
            .handshake_failed(client, &seen, began.elapsed(), reason, &detail);
        None
    }
}

/// What a failure is called, `None` for a handshake that took too long; nothing when there was none
/// to fail.
fn reason(error: Option<&HandshakeError>, has_hello: bool) -> Option<Reason> {
    Some(match error {
        None => Reason::HandshakeTimeout,
        Some(HandshakeError::Io(_)) if !has_hello => return None,
        Some(HandshakeError::Io(_)) => Reason::ClientAborted,
        Some(HandshakeError::Protocol(_)) if !has_hello => Reason::BadClientHello,
        Some(HandshakeError::Protocol(_) | HandshakeError::NoAlpnOverlap) => Reason::DownstreamTls,
        Some(HandshakeError::UnknownServerName(_)) => Reason::UnknownServerName,
        Some(HandshakeError::ClientCertificate(_)) => Reason::ClientCertificate,
    })
}
