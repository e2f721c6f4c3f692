//! THE STREAM LINE: one TCP or TLS connection, from the accept loop to its record.
//!
//! [`serve`] reads as the line does: rule, backend, endpoint and connection, bytes both ways, log.
//! The accept loop has found the listener and ended TLS where the listener does that; what passes
//! through is still in the socket, ClientHello included. The configuration is loaded once and let
//! go before bytes flow, so that a connection of days keeps no old configuration alive.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use dataplane_config::{Current, ListenerConfig, Streams};
use dataplane_telemetry::reason::Reason;
use dataplane_tls::{Admission, ServerStream};

use crate::connect::{self, Addresses, PassesTls, Upstream};
use crate::copy::{self, Carried, Side};
use crate::log::Story;
use crate::worker::Worker;

/// A client's connection.
#[derive(Debug)]
pub enum Client {
    /// Bytes over TCP.
    Plain(TcpStream),
    /// TLS that is not ours to read.
    Passed(TcpStream),
    /// TLS that ends here; boxed because it is ten times as large.
    Ended(Box<ServerStream<TcpStream>>),
}

/// What is known about a connection when it comes.
#[derive(Debug)]
pub struct Arrival {
    /// The client.
    pub client: SocketAddr,
    /// The address it came to.
    pub local: SocketAddr,
    /// The one of its socket.
    pub bind: SocketAddr,
    /// By what it was let in, when TLS ended here.
    pub admission: Option<Box<Admission>>,
    /// The name it asked for by TLS.
    pub server_name: Option<Box<str>>,
    /// The protocol version, such as `TLSv1.3`, when TLS ended here.
    pub tls_version: Option<&'static str>,
    /// Cancelled when the socket is gone or the process is to stop.
    pub drain: CancellationToken,
}

/// Serves one connection that `listener` takes to its end.
pub async fn serve(
    worker: Rc<Worker>,
    client: Client,
    arrival: Arrival,
    listener: Arc<ListenerConfig>,
) {
    // The accept loop hands over connections of stream listeners only.
    let Some(streams) = &listener.streams else {
        return;
    };
    let name = listener.listener.name.clone();
    let identity = listener.listener.backend_client_certificate.clone();
    let protocol = match &client {
        Client::Plain(_) => "tcp",
        Client::Passed(_) | Client::Ended(_) => "tls",
    };
    let mut story = story(&worker, protocol, &arrival, name, streams);
    let access = listener.access.clone();
    let listener_gone = listener.drain.clone();
    drop(listener);
    if access.is_some_and(|lists| !lists.admit(arrival.client.ip())) {
        story.end(Reason::AddressDenied, &worker.log);
        return turn_away(&client);
    }
    let open = story.metrics.session_opened();
    let found = find(&worker, &client, &arrival, identity.as_deref(), &mut story).await;
    let reason = match found {
        Ok(upstream) => {
            carry(
                &worker,
                client,
                upstream,
                &arrival,
                &listener_gone,
                &mut story,
            )
            .await
        }
        Err(reason) => {
            if matches!(reason, Reason::Overload | Reason::BackendOverload) {
                worker.overload.streams_rejected.increment();
            }
            // Told before the client hears of it, so that it is there when somebody asks.
            story.end(reason, &worker.log);
            return turn_away(&client);
        }
    };
    drop(open);
    story.end(reason, &worker.log);
}

/// Whether a route of `listener` takes clients that ask for `name` by TLS.
pub fn has_route(listener: &ListenerConfig, name: Option<&str>) -> bool {
    let streams = listener.streams.as_ref();
    streams.is_some_and(|streams| streams.lookup(name).is_some())
}

/// Writes figures and record of a TLS connection that has a listener and no route.
pub fn unrouted(worker: &Worker, arrival: &Arrival, listener: &ListenerConfig) {
    if let Some(streams) = &listener.streams {
        let name = listener.listener.name.clone();
        let story = story(worker, "tls", arrival, name, streams);
        story.end(Reason::UnknownServerName, &worker.log);
    }
}

fn story(
    worker: &Worker,
    protocol: &'static str,
    arrival: &Arrival,
    listener: Arc<str>,
    streams: &Streams,
) -> Story {
    let config = worker.config();
    let rule = streams.lookup(arrival.server_name.as_deref()).cloned();
    let metrics = match &rule {
        Some(rule) => rule.metrics.clone(),
        None => streams.unrouted.clone(),
    };
    let version = config.version().clone();
    let mut story = Story::new(protocol, arrival.client, listener, version, metrics);
    story.rule = rule;
    story.server_name.clone_from(&arrival.server_name);
    story.tls_version = arrival.tls_version;
    story
}

/// A connection to an endpoint of the rule's backend, which is shown the certificate of the secret
/// `identity`.
async fn find(
    worker: &Worker,
    client: &Client,
    arrival: &Arrival,
    identity: Option<&str>,
    story: &mut Story,
) -> Result<Upstream, Reason> {
    if let Some(keepalive) = &worker.settings.downstream_keepalive {
        // A socket that refuses an option still works.
        let _ = keepalive.apply(client.tcp());
    }
    let rule = story.rule.clone().ok_or(match client {
        Client::Plain(_) => Reason::RouteNotFound,
        Client::Passed(_) | Client::Ended(_) => Reason::UnknownServerName,
    })?;
    let passes_tls = match client {
        Client::Passed(_) => PassesTls::Yes,
        Client::Plain(_) | Client::Ended(_) => PassesTls::No,
    };
    let addresses = Addresses {
        client: arrival.client,
        local: arrival.local,
    };
    let config = worker.config();
    let cluster = connect::choose(&config, &rule, story)?;
    let tls = connect::security(cluster, passes_tls, identity)?;
    connect::connect(worker, cluster, tls, addresses, story).await
}

/// Bytes both ways, for as long as the client would be let in.
async fn carry(
    worker: &Worker,
    mut client: Client,
    mut upstream: Upstream,
    arrival: &Arrival,
    listener_gone: &CancellationToken,
    story: &mut Story,
) -> Reason {
    let mut carried = Carried::default();
    let metrics = story.metrics.clone();
    let copying = copy::run(
        worker,
        &mut client,
        &mut upstream.connection,
        [&arrival.drain, listener_gone],
        &metrics,
        &mut carried,
    );
    let reason = match &arrival.admission {
        None => copying.await,
        Some(admission) => tokio::select! {
            reason = copying => reason,
            () = worker.until_config(|now| !admits(now, arrival.bind, admission)) => {
                Reason::ClientCertificate
            }
        },
    };
    (story.received, story.sent) = (carried.received, carried.sent);
    if reason != Reason::Ok {
        // What was cut must not look complete to either side.
        let _ = client.tcp().set_zero_linger();
        let _ = upstream.connection.tcp().set_zero_linger();
    }
    reason
}

/// Whether the listener would let the client in now, for the same client. Without its socket or its
/// listener a connection drains instead.
fn admits(now: &Current, bind: SocketAddr, admission: &Admission) -> bool {
    let tls = now.binds.get(&bind).and_then(|bind| bind.tls.as_ref());
    tls.is_none_or(|tls| tls.admits(admission))
}

/// Ends a connection that goes nowhere.
///
/// A reset says best that nothing was done, in TLS too: where it is passed through, an alert would be
/// a word of ours in somebody else's conversation (Gateway API asks for a closed connection).
fn turn_away(client: &Client) {
    drop(client.tcp().set_zero_linger());
}

impl Side for Client {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) | Self::Passed(tcp) => tcp,
            Self::Ended(tls) => tls.get_ref(),
        }
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) | Self::Passed(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Ended(tls) => Pin::new(tls.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) | Self::Passed(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Ended(tls) => Pin::new(tls.as_mut()).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(_) | Self::Passed(_) => Poll::Ready(Ok(())),
            Self::Ended(tls) => Pin::new(tls.as_mut()).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) | Self::Passed(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Ended(tls) => Pin::new(tls.as_mut()).poll_shutdown(cx),
        }
    }
}
