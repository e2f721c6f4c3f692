//! A fake control plane: the discovery service over a real gRPC stream, scripted by the test.
//!
//! It pushes what it is told to, remembers every request and report, and can refuse, end streams,
//! or cut connections as a crash would. Nothing is pushed on its own account, except a greeting
//! when one was set. Waiting methods have a deadline and fail the test when it passes.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ir::wire::configuration_discovery_service_server::ConfigurationDiscoveryServiceServer;
use ir::wire::{ConfigSnapshot, DiscoveryRequest, DiscoveryResponse, DiscoveryResultStatus};
use ir::wire::{SnapshotDelta, StatusReport};
use ir::{Snapshot, delta, encode};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Identity as TonicIdentity, Server, ServerTlsConfig};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::certificate::{Authority, Identity};
use crate::wait::eventually;

mod connection;
mod service;

/// Largest message either way.
const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Requests and reports remembered; a test with more has gone wrong.
const HISTORY_MAX: usize = 65_536;
/// Pushes that may wait on one stream.
const PUSHES_MAX: usize = 1024;
/// Name of the service in health checks.
pub const SERVICE: &str = "gateway.control.v1.ConfigurationDiscoveryService";

/// How a [`ControlPlane`] listens.
#[derive(Clone, Default)]
pub struct Settings {
    address: Option<SocketAddr>,
    identity: Option<Identity>,
    client_authority: Option<String>,
    has_health: bool,
    is_plain: bool,
}

impl Settings {
    /// Listens where an earlier one did.
    pub fn address(self, address: SocketAddr) -> Self {
        Self {
            address: Some(address),
            ..self
        }
    }

    /// Speaks TLS with this certificate.
    pub fn tls(self, identity: &Identity) -> Self {
        Self {
            identity: Some(identity.clone()),
            ..self
        }
    }

    /// Asks for client certificates of this authority.
    pub fn client_authority(self, authority: &Authority) -> Self {
        Self {
            client_authority: Some(authority.pem().to_owned()),
            ..self
        }
    }

    /// Answers health checks; without this they are UNIMPLEMENTED.
    pub fn health(self) -> Self {
        Self {
            has_health: true,
            ..self
        }
    }

    /// Does not compress; without this every message is gzip.
    pub fn uncompressed(self) -> Self {
        Self {
            is_plain: true,
            ..self
        }
    }

    /// Starts it.
    pub async fn start(self) -> ControlPlane {
        ControlPlane::listen(self).await
    }
}

/// A running fake control plane.
pub struct ControlPlane {
    address: SocketAddr,
    shared: Arc<Shared>,
    health: HealthReporter,
    cut: Arc<Mutex<CancellationToken>>,
    task: JoinHandle<Result<(), tonic::transport::Error>>,
}

type Pushes = mpsc::Sender<Result<DiscoveryResponse, Status>>;

/// What the service and the test both see.
#[derive(Default)]
struct State {
    streams: BTreeMap<u64, Pushes>,
    opened: u64,
    greeting: Option<DiscoveryResponse>,
    refusal: Option<Status>,
    report_refusal: Option<Status>,
    /// Opening requests and answers that no waiting method has taken yet.
    unseen: VecDeque<DiscoveryRequest>,
    requests: Vec<DiscoveryRequest>,
    reports: Vec<StatusReport>,
}

#[derive(Default)]
struct Shared(Mutex<State>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ControlPlane {
    /// Starts one in plain text, with gzip, without health service.
    pub async fn start() -> Self {
        Settings::default().start().await
    }

    async fn listen(settings: Settings) -> Self {
        let address = settings.address;
        let address = address.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .expect("the address is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared::default());
        let cut = Arc::new(Mutex::new(CancellationToken::new()));
        let (health, health_service) = health_reporter();
        health
            .set_service_status(SERVICE, ServingStatus::Serving)
            .await;
        let mut discovery =
            ConfigurationDiscoveryServiceServer::new(service::Discovery(shared.clone()))
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
        if !settings.is_plain {
            discovery = discovery.send_compressed(CompressionEncoding::Gzip);
        }
        let mut server = Server::builder();
        if let Some(tls) = tls(&settings) {
            server = server.tls_config(tls).expect("the certificates are sound");
        }
        let server = server
            .add_service(discovery)
            .add_optional_service(settings.has_health.then_some(health_service))
            .serve_with_incoming(connection::incoming(listener, cut.clone()));
        Self {
            address,
            shared,
            health,
            cut,
            task: tokio::spawn(server),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Pushes a whole configuration to every open stream; its version is also the nonce.
    pub async fn push_snapshot(&self, snapshot: &Snapshot) {
        self.push(whole(encode::snapshot(snapshot))).await;
    }

    /// Pushes the way from `old` to `new` as a delta to every open stream.
    pub async fn push_change(&self, old: &Snapshot, new: &Snapshot) {
        self.push(change(encode::delta(&delta::diff(old, new))))
            .await;
    }

    /// Pushes an empty response to every open stream.
    pub async fn heartbeat(&self) {
        self.push(DiscoveryResponse::default()).await;
    }

    /// Pushes `response` as it is to every open stream.
    pub async fn push(&self, response: DiscoveryResponse) {
        let streams: Vec<_> = self.shared.state().streams.values().cloned().collect();
        for stream in streams {
            // A stream that ended meanwhile gets nothing.
            let _ = stream.send(Ok(response.clone())).await;
        }
    }

    /// Pushes this configuration first thing on every stream that opens from now on.
    pub fn greet_with(&self, snapshot: &Snapshot) {
        self.shared.state().greeting = Some(whole(encode::snapshot(snapshot)));
    }

    /// Pushes nothing on its own account.
    pub fn greet_with_nothing(&self) {
        self.shared.state().greeting = None;
    }

    /// Refuses new streams with this status, or takes them again.
    pub fn refuse(&self, status: Option<Status>) {
        self.shared.state().refusal = status;
    }

    /// Answers status reports with this status, or takes them again.
    pub fn refuse_reports(&self, status: Option<Status>) {
        self.shared.state().report_refusal = status;
    }

    /// Ends every open stream, with an error or without.
    pub async fn end_streams(&self, status: Option<Status>) {
        let streams = std::mem::take(&mut self.shared.state().streams);
        for stream in streams.into_values() {
            if let Some(status) = &status {
                let _ = stream.send(Err(status.clone())).await;
            }
        }
    }

    /// Cuts every connection without a word and goes on listening.
    pub fn cut_connections(&self) {
        let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *cut).cancel();
    }

    /// Cuts every connection and stops listening.
    pub async fn stop(mut self) {
        self.cut_connections();
        self.task.abort();
        // The only outcome is that it was aborted.
        let _ = (&mut self.task).await;
    }

    /// Health checks from now on say that it serves, or that it does not.
    pub async fn set_healthy(&self, is_healthy: bool) {
        let status = if is_healthy {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in ["", SERVICE] {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Waits for a stream to open; its first request.
    pub async fn opened(&self) -> DiscoveryRequest {
        self.take("an opening request", |request| {
            verdict(request) == Verdict::None
        })
        .await
    }

    /// Waits for an ACK or NACK.
    pub async fn answer(&self) -> DiscoveryRequest {
        self.take("an ACK or NACK", |request| {
            verdict(request) != Verdict::None
        })
        .await
    }

    /// Waits for the next answer, which must be an ACK of `version`.
    pub async fn acked(&self, version: &str) -> DiscoveryRequest {
        let answer = self.answer().await;
        assert_eq!(verdict(&answer), Verdict::Ack, "{}", answer.error_detail);
        assert_eq!(answer.version, version, "the version of the ACK");
        answer
    }

    /// Waits for the next answer, which must be a NACK of `version`.
    pub async fn nacked(&self, version: &str) -> DiscoveryRequest {
        let answer = self.answer().await;
        assert_eq!(
            verdict(&answer),
            Verdict::Nack,
            "version {}",
            answer.version
        );
        assert_eq!(answer.version, version, "the version of the NACK");
        answer
    }

    /// Every request so far, in order.
    pub fn requests(&self) -> Vec<DiscoveryRequest> {
        self.shared.state().requests.clone()
    }

    /// Every status report so far, in order.
    pub fn reports(&self) -> Vec<StatusReport> {
        self.shared.state().reports.clone()
    }

    /// Waits for a status report of which `is_wanted` is true, past or to come.
    pub async fn report(&self, is_wanted: impl Fn(&StatusReport) -> bool) -> StatusReport {
        eventually("a status report", || {
            let state = self.shared.state();
            state.reports.iter().rev().find(|r| is_wanted(r)).cloned()
        })
        .await
    }

    /// Streams opened so far.
    pub fn streams_opened(&self) -> u64 {
        self.shared.state().opened
    }

    /// Streams open now.
    pub fn streams_open(&self) -> usize {
        self.shared.state().streams.len()
    }

    async fn take(
        &self,
        what: &str,
        is_wanted: impl Fn(&DiscoveryRequest) -> bool,
    ) -> DiscoveryRequest {
        eventually(what, || {
            let mut state = self.shared.state();
            let place = state.unseen.iter().position(&is_wanted)?;
            state.unseen.remove(place)
        })
        .await
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        self.cut_connections();
        self.task.abort();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    None,
    Ack,
    Nack,
}

fn verdict(request: &DiscoveryRequest) -> Verdict {
    match request.result_status() {
        DiscoveryResultStatus::DiscoveryUnspecified => Verdict::None,
        DiscoveryResultStatus::DiscoveryAck => Verdict::Ack,
        DiscoveryResultStatus::DiscoveryNack => Verdict::Nack,
    }
}

/// The response that carries `snapshot`; its id is version and nonce.
pub fn whole(snapshot: ConfigSnapshot) -> DiscoveryResponse {
    DiscoveryResponse {
        version: snapshot.id.clone(),
        nonce: snapshot.id.clone(),
        snapshot: Some(snapshot),
        ..DiscoveryResponse::default()
    }
}

/// The response that carries `delta`; its version is also the nonce.
pub fn change(delta: SnapshotDelta) -> DiscoveryResponse {
    DiscoveryResponse {
        version: delta.version.clone(),
        nonce: delta.version.clone(),
        type_versions: delta.type_versions.clone(),
        delta: Some(delta),
        ..DiscoveryResponse::default()
    }
}

fn tls(settings: &Settings) -> Option<ServerTlsConfig> {
    let identity = settings.identity.as_ref()?;
    let identity = TonicIdentity::from_pem(&identity.chain_pem, &identity.key_pem);
    let tls = ServerTlsConfig::new().identity(identity);
    Some(match &settings.client_authority {
        Some(pem) => tls.client_ca_root(Certificate::from_pem(pem)),
        None => tls,
    })
}
