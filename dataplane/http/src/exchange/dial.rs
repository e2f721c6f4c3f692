//! Where an attempt goes, and a new connection to there.
//!
//! [`Peer`] is made once per attempt from what the configuration says about a cluster and its
//! endpoint; `exchange` asks the pool first and dials here only what it cannot find there.

use std::net::SocketAddr;
use std::time::Duration;

use pingora_core::protocols::l4;
use tokio::net::TcpStream;

use dataplane_config::{ClusterConfig, ListenerConfig};
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_upstream::{Endpoint, Protocol};

use super::{Again, Failure};
use crate::settings::Settings;

/// The endpoint of an attempt, as far as connecting goes.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(super) address: SocketAddr,
    /// The same for all connections that may stand in for one another.
    pub(super) key: u64,
    pub(super) protocol: Protocol,
    pub(super) connect_timeout: Duration,
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
        _listener: Option<&ListenerConfig>,
        connect_timeout: Option<Duration>,
        settings: &Settings,
    ) -> Result<Self, Reason> {
        // Never in plain text to an endpoint that is meant to be reached over TLS.
        if cluster.cluster.tls().is_used() {
            return Err(Reason::InvalidBackend);
        }
        let own_timeout = cluster.cluster.connect_timeout();
        Ok(Self {
            address: endpoint.address(),
            key: endpoint.id(),
            protocol: match kind {
                RouteKind::Grpc => cluster.cluster.grpc_protocol(),
                RouteKind::Http => cluster.cluster.protocol(),
            },
            connect_timeout: connect_timeout
                .unwrap_or_else(|| own_timeout.min(settings.connect_timeout)),
        })
    }
}

pub(super) async fn dial(peer: &Peer) -> Result<TcpStream, Failure> {
    let connect = l4::ext::connect(&peer.address, None);
    let tcp = match tokio::time::timeout(peer.connect_timeout, connect).await {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(_)) => return Err(Failure::new(Reason::ConnectFailed, Again::Safe)),
        Err(_) => return Err(Failure::new(Reason::ConnectTimeout, Again::Safe)),
    };
    // A socket that refuses the option still works, only slower.
    let _ = tcp.set_nodelay(true);
    Ok(tcp)
}
