//! Where an attempt goes, and a new connection to there.
//!
//! [`Peer`] is made once per attempt from what the configuration says about a cluster and its
//! endpoint; `exchange` asks the pool first and dials here only what it cannot find there. TCP is
//! pingora-core's, TLS is that of `dataplane-tls`; whoever calls [`dial`] bounds it in time.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::protocols::l4;
use tokio::net::TcpStream;
use tokio::time::timeout;

use dataplane_config::{ClusterConfig, ClusterTls, ListenerConfig};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_tls::{ClientTls, ConnectError, Offer};
use dataplane_upstream::{Cluster, Endpoint, Protocol};

use crate::io::Io;
use crate::pool::PoolKey;
use crate::settings::Settings;

/// The endpoint of an attempt, as far as connecting goes.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    address: SocketAddr,
    /// The same for all connections that may stand in for one another.
    pub(super) key: PoolKey,
    pub(super) protocol: Protocol,
    tls: Option<Arc<ClientTls>>,
    pub(super) connect_timeout: Duration,
    /// Less time for the dialling alone, where another endpoint would be tried next.
    pub(super) dial_timeout: Option<Duration>,
}

impl Peer {
    /// How to reach `endpoint` of `cluster` for requests of that kind that came in at `listener`,
    /// whose client certificate the endpoint may ask for. `connect_timeout` is the route's own.
    ///
    /// The error is the outcome of a request that must not be sent there.
    pub(crate) fn new(
        endpoint: &Endpoint,
        cluster: &ClusterConfig,
        kind: RouteKind,
        listener: Option<&ListenerConfig>,
        connect_timeout: Option<Duration>,
        settings: &Settings,
    ) -> Result<Self, Reason> {
        let ClusterConfig { cluster, tls, .. } = cluster;
        Self::of(
            endpoint,
            (cluster, tls),
            kind,
            listener,
            connect_timeout,
            settings,
        )
    }

    /// The same for endpoints that are in no cluster of the configuration.
    pub(crate) fn of(
        endpoint: &Endpoint,
        (cluster, tls): (&Cluster, &ClusterTls),
        kind: RouteKind,
        listener: Option<&ListenerConfig>,
        connect_timeout: Option<Duration>,
        settings: &Settings,
    ) -> Result<Self, Reason> {
        let tls = match tls {
            ClusterTls::Plain => None,
            // Never in plain text to an endpoint that is meant to be reached over TLS.
            ClusterTls::Unspecified | ClusterTls::Invalid(_) => {
                return Err(Reason::InvalidBackend);
            }
            ClusterTls::Policy(policy) => {
                let identity = listener.and_then(|listener| listener.backend_identity.as_ref());
                Some(Arc::clone(policy.under(identity)))
            }
        };
        let own_timeout = cluster.connect_timeout();
        Ok(Self {
            address: endpoint.address(),
            key: PoolKey {
                endpoint: endpoint.id(),
                tls: tls.as_ref().map_or(0, |tls| tls.id()),
            },
            protocol: match kind {
                RouteKind::Grpc => cluster.grpc_protocol(),
                RouteKind::Http => cluster.protocol(),
            },
            tls,
            connect_timeout: connect_timeout
                .unwrap_or_else(|| own_timeout.min(settings.connect_timeout)),
            dial_timeout: None,
        })
    }

    /// For a request that asks to switch protocols, which only HTTP/1.1 can.
    pub(crate) fn for_upgrade(mut self) -> Self {
        if self.protocol == Protocol::Negotiated {
            self.protocol = Protocol::Http1;
        }
        self
    }

    /// With less time for the dialling alone.
    pub(crate) fn dialled_within(&mut self, limit: Option<Duration>) {
        self.dial_timeout = limit;
    }

    /// A port of its own for health checks, in plain text: HTTP/1.1, or HTTP/2 for gRPC.
    pub(crate) fn beside(mut self, port: NonZeroU16, kind: RouteKind) -> Self {
        self.address.set_port(port.get());
        self.tls = None;
        self.protocol = match kind {
            RouteKind::Grpc => Protocol::Http2,
            RouteKind::Http => Protocol::Http1,
        };
        self
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether a connection comes up; it is closed again.
    pub(crate) async fn connect(&self) -> Result<(), Reason> {
        let connected = l4::ext::connect(&self.address, None).await;
        connected.map(drop).map_err(|error| of_error(&error))
    }

    /// True when the connection is under TLS.
    pub(crate) fn is_secured(&self) -> bool {
        self.tls.is_some()
    }
}

/// A shortage of ours says nothing about the endpoint.
fn of_error(error: &pingora_core::Error) -> Reason {
    /// Of files in the process, and in the system.
    const SHORTAGES: [i32; 2] = [24, 23];
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    let code = cause.and_then(std::io::Error::raw_os_error);
    match code {
        Some(code) if SHORTAGES.contains(&code) => Reason::Overload,
        _ => Reason::ConnectFailed,
    }
}

/// What a new connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// Makes a connection; the error says what an attempt without one ends as.
pub(crate) async fn dial(peer: &Peer) -> Result<(Io, Spoken), Reason> {
    let Some(limit) = peer.dial_timeout else {
        return connect(peer).await;
    };
    let connected = timeout(limit, connect(peer)).await;
    connected.unwrap_or(Err(Reason::ConnectTimeout))
}

async fn connect(peer: &Peer) -> Result<(Io, Spoken), Reason> {
    let tcp: TcpStream = l4::ext::connect(&peer.address, None)
        .await
        .map_err(|error| of_error(&error))?;
    // A socket that refuses the option still works, only slower.
    let _ = tcp.set_nodelay(true);
    let Some(tls) = &peer.tls else {
        let spoken = match peer.protocol {
            Protocol::Http2 => Spoken::Http2,
            Protocol::Http1 | Protocol::Negotiated => Spoken::Http1,
        };
        return Ok((Io::Plain(tcp), spoken));
    };
    let offer = match peer.protocol {
        Protocol::Http1 => Offer::Http1,
        Protocol::Http2 => Offer::Http2,
        Protocol::Negotiated => Offer::Either,
    };
    match tls.connect(tcp, offer).await {
        Ok(stream) => {
            let spoken = match stream.alpn() {
                dataplane_tls::Alpn::H2 => Spoken::Http2,
                dataplane_tls::Alpn::Http1 => Spoken::Http1,
            };
            Ok((Io::TlsToEndpoint(Box::new(stream)), spoken))
        }
        Err(error) => {
            tracing::debug!(endpoint = %peer.address, %error, "no TLS to an endpoint");
            Err(match error {
                ConnectError::Certificate(_) => Reason::UpstreamCertificate,
                ConnectError::Io(_) | ConnectError::Protocol(_) => Reason::UpstreamTls,
            })
        }
    }
}
