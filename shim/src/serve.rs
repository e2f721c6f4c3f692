//! The discovery service: configuration out to data planes, answers and status back.
//!
//! `control_plane.rs` starts [`run`] on a bound socket. Each connection is served by a tonic server
//! of its own ([`connection`]), so that certificates are read anew and every limit of `grpcRuntime`
//! can be kept; each stream is a task ([`stream`]) around a state machine without sockets
//! ([`session`]). Which snapshot is current is the business of `history.rs`, who is connected that
//! of `nodes.rs`.

mod stream;
mod push;
mod session;
mod connection;
mod pings;
mod outbox;
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ir::wire::configuration_discovery_service_server::{
    ConfigurationDiscoveryService, ConfigurationDiscoveryServiceServer,
};
use ir::wire::{DiscoveryRequest, PluginStatus, StatusAck, StatusDetail, StatusReport};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::codec::CompressionEncoding;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tracing::{debug, warn};

use self::connection::Connection;
use self::outbox::Responses;
use self::pings::Pings;
use self::tls::{Door, Transport};
use crate::history::Store;
use crate::metrics::{Metrics, ReasonLabel};
use crate::nodes::{NodePlugin, Nodes, Serving, bounded};
use crate::quarantine::Quarantine;
use crate::settings::{GrpcRuntime, TlsFiles};
use crate::tls::TlsError;

/// Connections at a time; further ones wait in the listen queue.
const CONNECTIONS_MAX: usize = 8192;
/// Names kept of one status report.
const LISTENERS_MAX: usize = 4096;
/// Plugins kept of a status report.
const PLUGINS_MAX: usize = 1024;

/// What all streams share.
#[derive(Clone)]
pub struct Discovery {
    /// Snapshots.
    pub store: Arc<Store>,
    /// Data planes.
    pub nodes: Arc<Nodes>,
    /// Takes in what they refuse.
    pub quarantine: Arc<Quarantine>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Limits and intervals.
    pub runtime: GrpcRuntime,
    /// TLS, when it is on.
    pub tls: Option<TlsFiles>,
    /// Whether this replica serves; the others turn data planes away.
    pub leading: watch::Receiver<bool>,
}

/// The same, once it serves.
struct Shared {
    store: Arc<Store>,
    nodes: Arc<Nodes>,
    quarantine: Arc<Quarantine>,
    metrics: Arc<Metrics>,
    runtime: GrpcRuntime,
    leading: watch::Receiver<bool>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
}

/// Serves until `shutdown`, then lets streams end for `gracefulStopTimeout`.
///
/// Fails only at once, when the TLS files cannot be used.
pub async fn run(
    discovery: Discovery,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), TlsError> {
    let mut transport = Transport::new(&discovery.runtime, discovery.tls.clone()).await?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let shared = Arc::new(Shared {
        store: discovery.store,
        nodes: discovery.nodes,
        quarantine: discovery.quarantine,
        metrics: discovery.metrics,
        runtime: discovery.runtime,
        leading: discovery.leading,
        shutdown: shutdown.clone(),
        tasks: TaskTracker::new(),
    });
    shared
        .tasks
        .spawn(report_health(Arc::clone(&shared), reporter));
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let (socket, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    pause_after(&error).await;
                    continue;
                }
            },
        };
        // The data plane's answers are small and must not wait for more bytes.
        if let Err(error) = socket.set_nodelay(true) {
            debug!(%peer, %error, "TCP_NODELAY was not set");
        }
        let door = transport.current().await;
        let (shared, health) = (Arc::clone(&shared), health.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move {
            match door.open(socket, &shared.shutdown).await {
                Ok(stream) => serve_connection(shared, health, &door, stream, peer).await,
                Err(error) => debug!(%peer, %error, "TLS handshake failed"),
            }
            drop(slot);
        });
    }
    drop(listener);
    shared.tasks.close();
    let limit = shared.runtime.graceful_stop_timeout + Duration::from_secs(1);
    if tokio::time::timeout(limit, shared.tasks.wait())
        .await
        .is_err()
    {
        warn!("streams were still open at the end of gracefulStopTimeout");
    }
    Ok(())
}

async fn serve_connection<H: Health>(
    shared: Arc<Shared>,
    health: HealthServer<H>,
    door: &Door,
    stream: connection::Stream,
    peer: SocketAddr,
) {
    let connection = Connection::new(peer);
    let pings = Pings::new(shared.runtime.min_ping_interval);
    let io = connection.io(stream, pings, shared.metrics.pings_exceeded.clone());
    let service = Service {
        shared: Arc::clone(&shared),
        connection: Arc::clone(&connection),
    };
    let discovery = ConfigurationDiscoveryServiceServer::new(service)
        .accept_compressed(CompressionEncoding::Gzip)
        .send_compressed(CompressionEncoding::Gzip)
        .max_decoding_message_size(shared.runtime.max_recv_msg_size)
        .max_encoding_message_size(usize::MAX);
    let called = Arc::clone(&connection);
    let health =
        tonic::service::interceptor::InterceptedService::new(health, move |request: Request<()>| {
            called.touch();
            Ok(request)
        });
    let age = shared
        .runtime
        .max_connection_age
        .map(|age| spread(age, peer.port()));
    let end = Arc::clone(&connection).end(&shared.runtime, age, &shared.shutdown);
    let incoming = tokio_stream::once(Ok::<_, io::Error>(io)).chain(tokio_stream::pending());
    let served = Box::pin(
        door.server()
            .add_service(discovery)
            .add_service(health)
            .serve_with_incoming_shutdown(incoming, end),
    );
    if let Err(error) = served.await {
        debug!(%peer, %error, "connection failed");
    }
}

/// Ages differ by up to a tenth, so that data planes do not come back all at once.
fn spread(age: Duration, seed: u16) -> Duration {
    let tenth = age / 10;
    age - tenth + tenth * 2 * u32::from(seed % 100) / 100
}

/// SERVING while there is a snapshot to hand out, this replica leads, and no shutdown.
async fn report_health(shared: Arc<Shared>, reporter: tonic_health::server::HealthReporter) {
    const NAMES: [&str; 2] = ["", "gateway.control.v1.ConfigurationDiscoveryService"];
    let mut snapshots = shared.store.subscribe();
    let mut leading = shared.leading.clone();
    loop {
        let is_stopping = shared.shutdown.is_cancelled();
        let is_leading = *leading.borrow_and_update();
        let has_snapshot = snapshots.borrow_and_update().is_some();
        let status = if has_snapshot && is_leading && !is_stopping {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in NAMES {
            reporter.set_service_status(name, status).await;
        }
        if is_stopping {
            return;
        }
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            () = stays(&mut leading, is_leading) => {}
            changed = snapshots.changed(), if !has_snapshot => if changed.is_err() { return },
        }
    }
}

/// Completes when this replica begins or ceases to lead.
async fn stays(leading: &mut watch::Receiver<bool>, is_leading: bool) {
    if leading.wait_for(|now| *now != is_leading).await.is_err() {
        // Nobody decides any more, so it stays as it is.
        std::future::pending().await
    }
}

/// Out of file descriptors and the like: neither spin nor stop.
async fn pause_after(error: &io::Error) {
    warn!(%error, "a connection could not be accepted");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// The service as one connection sees it.
struct Service {
    shared: Arc<Shared>,
    connection: Arc<Connection>,
}

#[tonic::async_trait]
impl ConfigurationDiscoveryService for Service {
    type StreamConfigurationStream = Responses;

    async fn stream_configuration(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Responses>, Status> {
        if self.shared.shutdown.is_cancelled() {
            return Err(Status::unavailable("the control plane is shutting down"));
        }
        if !*self.shared.leading.borrow() {
            return Err(Status::unavailable(
                "this replica stands by, another one serves",
            ));
        }
        let (outbox, responses) = outbox::outbox();
        self.shared.tasks.spawn(stream::run(
            Arc::clone(&self.shared),
            request.into_inner(),
            outbox,
            self.connection.open_stream(),
        ));
        Ok(Response::new(responses))
    }

    async fn report_status(
        &self,
        request: Request<StatusReport>,
    ) -> Result<Response<StatusAck>, Status> {
        self.connection.touch();
        let report = request.into_inner();
        let rejection = if self.shared.shutdown.is_cancelled() {
            let text = "the control plane is shutting down";
            Some(("shutdown", Status::unavailable(text)))
        } else if report.node_id.trim().is_empty() {
            let text = "node_id is empty";
            Some(("invalid_request", Status::invalid_argument(text)))
        } else if !self.take_in(report) {
            let text = "no stream of this node was seen, open one first";
            Some(("unknown_node", Status::failed_precondition(text)))
        } else {
            None
        };
        let Some((reason, status)) = rejection else {
            return Ok(Response::new(StatusAck { accepted: true }));
        };
        let rejections = &self.shared.metrics.status_report_rejections;
        rejections.get_or_create(&ReasonLabel { reason }).inc();
        Err(status)
    }
}

impl Service {
    fn take_in(&self, report: StatusReport) -> bool {
        self.shared.nodes.report(
            &report.node_id,
            &report.version,
            report.ready,
            &report.message,
            report.detail.map(serving),
        )
    }
}

fn plugin(told: &PluginStatus) -> NodePlugin {
    NodePlugin {
        key: bounded(&told.key),
        sha256: bounded(&told.sha256),
        module_error: bounded(&told.module_error),
        disabled: told.disabled,
        last_failure: bounded(&told.last_failure),
    }
}

fn serving(detail: StatusDetail) -> Serving {
    Serving {
        active_listeners: detail
            .active_listeners
            .iter()
            .take(LISTENERS_MAX)
            .map(|name| bounded(name))
            .collect(),
        http_routes: detail.http_routes,
        grpc_routes: detail.grpc_routes,
        stream_routes: detail.stream_routes,
        clusters: detail.clusters,
        endpoints_ready: detail.endpoints_ready,
        endpoints_total: detail.endpoints_total,
        plugins: detail
            .plugins
            .iter()
            .take(PLUGINS_MAX)
            .map(plugin)
            .collect(),
    }
}
