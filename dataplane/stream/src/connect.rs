//! From a rule to a connection: backend by weight, endpoint, and the next one when that fails.
//!
//! Nothing of the client has been sent when this runs, so a failed attempt is always made again at
//! another endpoint. The backend is drawn once, so that every connection stays in the share it was
//! counted for.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use dataplane_config::{ClusterConfig, RuntimeConfig, StreamRule};
use dataplane_telemetry::metrics::BackendConnection;
use dataplane_telemetry::reason::Reason;
use dataplane_upstream::endpoint::{ConnectionToEndpoint, RequestToEndpoint};
use dataplane_upstream::{Ask, Cluster, Endpoint, Outcome, Tls};
use ir::cluster::HashKey;

use crate::log::Story;
use crate::proxy_header;
use crate::settings::Settings;

/// A connection to an endpoint, and what counts it as open.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) tcp: TcpStream,
    _guards: Guards,
}

type Guards = (BackendConnection, ConnectionToEndpoint, RequestToEndpoint);

/// Who comes, for an endpoint that wants to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// The cluster of the backend whose share this session is in.
pub(crate) fn choose<'a>(
    config: &'a RuntimeConfig,
    rule: &StreamRule,
    story: &mut Story,
) -> Result<&'a ClusterConfig, Reason> {
    let position = rule.choice.next().ok_or(Reason::InvalidBackend)?;
    story.backend = Some(position);
    let backend = rule.backends.get(position).ok_or(Reason::InvalidBackend)?;
    config
        .cluster_by_keys(&backend.cluster_keys)
        .ok_or(Reason::InvalidBackend)
}

/// Connects to an endpoint of `cluster`.
pub(crate) async fn connect(
    cluster: &ClusterConfig,
    settings: &Settings,
    addresses: Addresses,
    passes_tls: PassesTls,
    story: &mut Story,
) -> Result<Upstream, Reason> {
    if passes_tls == PassesTls::No && matches!(cluster.cluster.tls(), Tls::Policy(_)) {
        // Nothing may reach it in plain text.
        return Err(Reason::InvalidBackend);
    }
    let mut tried = Vec::new();
    let mut failure = Reason::NoEndpoint;
    while story.attempts <= settings.connect_retries {
        let Some(endpoint) = pick(&cluster.cluster, &tried, story) else {
            break;
        };
        if tried.contains(&endpoint.address()) {
            break;
        }
        story.attempts += 1;
        story.endpoint = Some(endpoint.address());
        match attempt(cluster, &endpoint, settings, addresses, story).await {
            Ok(upstream) => return Ok(upstream),
            Err(reason) => {
                cluster.metrics.connection_failed(reason);
                failure = reason;
                tried.push(endpoint.address());
                if reason == Reason::Overload {
                    break;
                }
            }
        }
    }
    Err(failure)
}

/// The endpoint of the next attempt, by the hash that the cluster's policy names where there is one.
pub(crate) fn pick(
    cluster: &Cluster,
    tried: &[SocketAddr],
    story: &Story,
) -> Option<Arc<Endpoint>> {
    let hash = match cluster.hash_key() {
        Some(HashKey::SourceIp) => Some(match story.client.ip() {
            IpAddr::V4(address) => Cluster::hash(&address.octets()),
            IpAddr::V6(address) => Cluster::hash(&address.octets()),
        }),
        Some(HashKey::Hostname) => {
            let name = story.server_name.as_deref();
            name.map(|name| Cluster::hash(name.as_bytes()))
        }
        // A stream has no fields.
        Some(HashKey::Header(_) | HashKey::Cookie(_)) | None => None,
    };
    cluster.pick(&Ask { tried, hash }, Instant::now())
}

/// Whether what is carried is TLS already, from client to backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassesTls {
    Yes,
    No,
}

async fn attempt(
    cluster: &ClusterConfig,
    endpoint: &Arc<Endpoint>,
    settings: &Settings,
    addresses: Addresses,
    story: &mut Story,
) -> Result<Upstream, Reason> {
    let began = Instant::now();
    let patience = cluster
        .cluster
        .connect_timeout()
        .min(settings.connect_timeout);
    let address = endpoint.address();
    let made = match timeout(patience, open(cluster, address, settings, addresses)).await {
        Ok(Ok(tcp)) => Ok(tcp),
        Ok(Err(error)) => {
            debug!(%address, %error, "no connection to an endpoint");
            Err(failure(&error))
        }
        Err(_) => Err(Reason::ConnectTimeout),
    };
    story.connect_time = Some(began.elapsed());
    let outcome = match &made {
        Ok(_) => Some(Outcome::Success),
        // A shortage of ours says nothing about the endpoint.
        Err(Reason::Overload) => None,
        Err(_) => Some(Outcome::GatewayFailure),
    };
    if let Some(outcome) = outcome {
        cluster.cluster.report(endpoint, outcome, Instant::now());
    }
    made.map(|tcp| Upstream {
        tcp,
        _guards: (
            cluster.metrics.connection_opened(),
            endpoint.load().connection_opened(),
            endpoint.load().request_started(),
        ),
    })
}

async fn open(
    cluster: &ClusterConfig,
    address: SocketAddr,
    settings: &Settings,
    addresses: Addresses,
) -> io::Result<TcpStream> {
    let mut tcp = TcpStream::connect(address).await?;
    // A socket that refuses an option still works.
    let _ = tcp.set_nodelay(true);
    if let Some(keepalive) = &settings.upstream_keepalive {
        let _ = keepalive.apply(&tcp);
    }
    if let Some(version) = cluster.cluster.source().proxy_protocol {
        let header = proxy_header::header(version, addresses.client, addresses.local);
        tcp.write_all(&header).await?;
    }
    Ok(tcp)
}

fn failure(error: &io::Error) -> Reason {
    let is_short = [
        nix::libc::EMFILE,
        nix::libc::ENFILE,
        nix::libc::ENOBUFS,
        nix::libc::ENOMEM,
    ];
    match error.raw_os_error() {
        Some(code) if is_short.contains(&code) => Reason::Overload,
        _ => Reason::ConnectFailed,
    }
}
