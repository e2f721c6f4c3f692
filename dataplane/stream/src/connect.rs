//! From a rule to a connection: backend by weight, endpoint, and the next one when that fails.
//!
//! Nothing of the client has been sent when this runs, so a failed attempt, be it at TLS, is always
//! made again at another endpoint. The backend is drawn once, so that every connection stays in the share it was
//! counted for.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use dataplane_config::{ClusterConfig, ClusterTls, RuntimeConfig, StreamRule};
use dataplane_resilience::admission::Permit;
use dataplane_resilience::circuit_breaker::{Pass, State};
use dataplane_telemetry::metrics::BackendConnection;
use dataplane_telemetry::reason::Reason;
use dataplane_tls::{ClientTls, ConnectError, Offer};
use dataplane_upstream::admission::{ConnectionPlace, RequestPlace};
use dataplane_upstream::endpoint::{ConnectionToEndpoint, RequestToEndpoint};
use dataplane_upstream::{Ask, Cluster, Endpoint, Outcome, since_start};
use ir::cluster::HashKey;

use crate::connection::Connection;
use crate::log::Story;
use crate::proxy_header;
use crate::settings::Settings;
use crate::worker::Worker;

/// A connection to an endpoint, and what counts it as open.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) connection: Connection,
    _guards: Guards,
}

type Guards = (
    BackendConnection,
    ConnectionToEndpoint,
    RequestToEndpoint,
    RequestPlace,
    Places,
);

/// What a connection to an endpoint takes while it is open: one of the cluster's connections and a
/// descriptor.
type Places = (ConnectionPlace, Permit);

/// Who comes, for an endpoint that wants to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) client: SocketAddr,
    pub(crate) local: SocketAddr,
}

/// The cluster of the backend whose share this session is in, when its client may come in there.
pub(crate) fn choose<'a>(
    config: &'a RuntimeConfig,
    rule: &StreamRule,
    story: &mut Story,
) -> Result<&'a ClusterConfig, Reason> {
    let position = rule.choice.next().ok_or(Reason::InvalidBackend)?;
    story.backend = Some(position);
    let backend = rule.backends.get(position).ok_or(Reason::InvalidBackend)?;
    let cluster = config.cluster_by_keys(&backend.cluster_keys);
    let cluster = cluster.ok_or(Reason::InvalidBackend)?;
    let access = cluster.access.as_ref();
    if access.is_some_and(|lists| !lists.admit(story.client.ip())) {
        return Err(Reason::AddressDenied);
    }
    Ok(cluster)
}

/// How bytes go to the endpoints of a cluster; `secret` is that of the certificate they are shown.
pub(crate) fn security<'a>(
    cluster: &'a ClusterConfig,
    passes_tls: PassesTls,
    secret: Option<&str>,
) -> Result<Option<&'a ClientTls>, Reason> {
    if passes_tls == PassesTls::Yes {
        return Ok(None);
    }
    match &cluster.tls {
        ClusterTls::Policy(policy) => Ok(Some(policy.under_secret(secret))),
        // Nothing may reach it in plain text.
        ClusterTls::Invalid(_) => Err(Reason::InvalidBackend),
        // A port that speaks TLS without a policy gets what the client says, which may be TLS.
        ClusterTls::Plain | ClusterTls::Unspecified => Ok(None),
    }
}

/// Connects to an endpoint of `cluster`.
pub(crate) async fn connect(
    worker: &Worker,
    cluster: &ClusterConfig,
    tls: Option<&ClientTls>,
    addresses: Addresses,
    story: &mut Story,
) -> Result<Upstream, Reason> {
    let limits = cluster.cluster.limits(worker.settings.upstream_limits);
    let request = cluster.cluster.admission().request_owned(&limits);
    let Some(request) = request else {
        cluster.metrics.connection_failed(Reason::BackendOverload);
        return Err(Reason::BackendOverload);
    };
    let mut tried = Vec::new();
    let mut failure = Reason::NoEndpoint;
    while story.attempts <= worker.settings.connect_retries {
        let Some(endpoint) = pick(&cluster.cluster, &tried, story) else {
            break;
        };
        if tried.contains(&endpoint.address()) {
            break;
        }
        story.attempts += 1;
        story.endpoint = Some(endpoint.address());
        let is_retryable = story.attempts <= worker.settings.connect_retries
            && cluster.cluster.has_other(endpoint.address(), &tried);
        let patience = Patience::of(&cluster.cluster, &worker.settings, is_retryable);
        let made = attempt(worker, cluster, tls, &endpoint, addresses, patience, story).await;
        match made {
            Ok((connection, places)) => {
                return Ok(Upstream {
                    connection,
                    _guards: (
                        cluster.metrics.connection_opened(),
                        endpoint.load().connection_opened(),
                        endpoint.load().request_started(),
                        request,
                        places,
                    ),
                });
            }
            Err(Reason::CircuitOpen) => {
                cluster.metrics.circuit_refused();
                return Err(Reason::CircuitOpen);
            }
            Err(reason) => {
                cluster.metrics.connection_failed(reason);
                failure = reason;
                tried.push(endpoint.address());
                if is_ours(reason) {
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
    cluster.pick(
        &Ask {
            tried,
            hash,
            session: None,
        },
        Instant::now(),
    )
}

/// Whether what is carried is TLS already, from client to backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassesTls {
    Yes,
    No,
}

/// Whether that is a shortage of ours, which says nothing about the endpoint and is no better at
/// the next one.
fn is_ours(reason: Reason) -> bool {
    matches!(reason, Reason::Overload | Reason::BackendOverload)
}

/// How long an attempt may wait.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// For a place among the connections of the cluster.
    place: Duration,
    /// For the connection.
    connection: Duration,
}

impl Patience {
    fn of(cluster: &Cluster, settings: &Settings, is_retryable: bool) -> Self {
        let place = cluster.connect_timeout().min(settings.connect_timeout);
        let elsewhere = settings.connect_timeout_elsewhere;
        let connection = elsewhere.filter(|_| is_retryable);
        Self {
            place,
            connection: connection.map_or(place, |limit| limit.min(place)),
        }
    }
}

async fn attempt(
    worker: &Worker,
    cluster: &ClusterConfig,
    tls: Option<&ClientTls>,
    endpoint: &Arc<Endpoint>,
    addresses: Addresses,
    patience: Patience,
    story: &mut Story,
) -> Result<(Connection, Places), Reason> {
    let settings = &worker.settings;
    let place = place(cluster, settings, patience.place).await?;
    let began = Instant::now();
    let pass = pass(cluster, began)?;
    let places = (place, worker.upstream_place().ok_or(Reason::Overload)?);
    let address = endpoint.address();
    let opening = async {
        let tcp = open(cluster, address, settings, addresses).await;
        let tcp = tcp.map_err(|error| {
            debug!(%address, %error, "no connection to an endpoint");
            failure(&error)
        })?;
        secure(tcp, tls, address).await
    };
    let made = timeout(patience.connection, opening).await;
    let made = made.unwrap_or(Err(Reason::ConnectTimeout));
    story.connect_time = Some(began.elapsed());
    match &made {
        Ok(_) => judge(cluster, endpoint, pass, Outcome::Success),
        Err(reason) if is_ours(*reason) => {}
        Err(_) => judge(cluster, endpoint, pass, Outcome::GatewayFailure),
    }
    Ok((made?, places))
}

/// Leave of the cluster's breaker, where it has one.
pub(crate) fn pass(cluster: &ClusterConfig, now: Instant) -> Result<Option<Pass<'_>>, Reason> {
    let breaker = cluster.breaker.as_deref();
    let pass = breaker.map(|breaker| breaker.enter(since_start(now)));
    pass.transpose().map_err(|_| Reason::CircuitOpen)
}

/// Tells balancer and breaker what became of an attempt.
pub(crate) fn judge(
    cluster: &ClusterConfig,
    endpoint: &Endpoint,
    pass: Option<Pass<'_>>,
    outcome: Outcome,
) {
    let now = Instant::now();
    if cluster.cluster.report(endpoint, outcome, now).is_some() {
        cluster.metrics.ejected();
    }
    let Some(pass) = pass else { return };
    if outcome == Outcome::Success {
        return pass.succeeded();
    }
    if pass.failed(since_start(now)) {
        cluster.metrics.circuit_opened();
        let cluster = &**cluster.cluster.key();
        info!(cluster, "a cluster keeps failing, its breaker is open");
    }
}

/// A place for one connection within the cluster's limit; where it has all it may have, one that
/// ends is waited for, as a request of HTTP does.
async fn place(
    cluster: &ClusterConfig,
    settings: &Settings,
    patience: Duration,
) -> Result<ConnectionPlace, Reason> {
    let limits = cluster.cluster.limits(settings.upstream_limits);
    let admission = cluster.cluster.admission();
    if let Some(place) = admission.connection(&limits) {
        return Ok(place);
    }
    let breaker = cluster.breaker.as_ref();
    if breaker.is_some_and(|it| it.state(since_start(Instant::now())) == State::Open) {
        return Err(Reason::CircuitOpen);
    }
    let pending = admission.pending(&limits);
    let _pending = pending.ok_or(Reason::BackendOverload)?;
    let waiting = admission.wait();
    let freed = poll_fn(|cx| {
        waiting.register(cx.waker());
        match admission.connection(&limits) {
            Some(place) => Poll::Ready(place),
            None => Poll::Pending,
        }
    });
    let freed = timeout(patience, freed).await;
    freed.map_err(|_| Reason::BackendOverload)
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

/// The connection as bytes are to go over it.
async fn secure(
    tcp: TcpStream,
    tls: Option<&ClientTls>,
    address: SocketAddr,
) -> Result<Connection, Reason> {
    let Some(tls) = tls else {
        return Ok(Connection::Plain(tcp));
    };
    match tls.connect(tcp, Offer::Bytes).await {
        Ok(stream) => Ok(Connection::Secured(Box::new(stream))),
        Err(error) => {
            debug!(%address, %error, "no TLS to an endpoint");
            Err(match error {
                ConnectError::Certificate(_) => Reason::UpstreamCertificate,
                ConnectError::Io(_) | ConnectError::Protocol(_) => Reason::UpstreamTls,
            })
        }
    }
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
