//! A control plane that keeps the stream up and is unwilling in everything beside it: health checks
//! and status reports that are refused, or that nobody ever answers.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane_testkit::{DEADLINE, until};
use dataplane_xds::Report;
use ir::wire::configuration_discovery_service_server::{
    ConfigurationDiscoveryService, ConfigurationDiscoveryServiceServer,
};
use ir::wire::{DiscoveryRequest, DiscoveryResponse, StatusAck, StatusReport};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::support::{Client, settings};

/// How a call beside the stream is answered.
#[derive(Clone, Debug)]
enum Manner {
    Willing,
    /// With a message that says no.
    Declines,
    /// With an error.
    Fails(Status),
    /// Never.
    Silent,
}

#[derive(Clone)]
struct Unwilling {
    reports: Manner,
    health: Arc<Mutex<Manner>>,
}

/// Ends with the test that started it.
struct Running {
    address: SocketAddr,
    health: Arc<Mutex<Manner>>,
    server: JoinHandle<Result<(), tonic::transport::Error>>,
}

impl Running {
    async fn start(reports: Manner, health: Manner) -> Self {
        let health = Arc::new(Mutex::new(health));
        let service = Unwilling {
            reports,
            health: Arc::clone(&health),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let serving = Server::builder()
            .add_service(ConfigurationDiscoveryServiceServer::new(service.clone()))
            .add_service(HealthServer::new(service))
            .serve_with_incoming(TcpListenerStream::new(listener));
        Self {
            address,
            health,
            server: tokio::spawn(serving),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[tonic::async_trait]
impl ConfigurationDiscoveryService for Unwilling {
    type StreamConfigurationStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    /// A heartbeat, and then nothing for as long as the client stays.
    async fn stream_configuration(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamConfigurationStream>, Status> {
        let (responses, outbound) = mpsc::channel(1);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let _ = responses.send(Ok(DiscoveryResponse::default())).await;
            while let Ok(Some(_)) = requests.message().await {}
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn report_status(&self, _: Request<StatusReport>) -> Result<Response<StatusAck>, Status> {
        match &self.reports {
            Manner::Willing => Ok(Response::new(StatusAck { accepted: true })),
            Manner::Declines => Ok(Response::new(StatusAck { accepted: false })),
            Manner::Fails(status) => Err(status.clone()),
            Manner::Silent => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl Health for Unwilling {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let manner = self
            .health
            .lock()
            .expect("no test panics with it held")
            .clone();
        let status = match manner {
            Manner::Willing => ServingStatus::Serving,
            Manner::Declines => ServingStatus::NotServing,
            Manner::Fails(status) => return Err(status),
            Manner::Silent => std::future::pending().await,
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("nobody watches"))
    }
}

/// A client with little patience for calls beside the stream.
fn impatient(address: SocketAddr) -> Client {
    let mut settings = settings(address);
    settings.connect_timeout = Duration::from_millis(300);
    Client::start(settings)
}

#[tokio::test]
async fn reports_that_are_not_taken_are_counted_and_leave_the_stream_alone() {
    for reports in [Manner::Declines, Manner::Silent] {
        let told = format!("{reports:?}");
        let running = Running::start(reports, Manner::Willing).await;
        let client = impatient(running.address);
        client.until(&told, |report| report.connected).await;
        let report = client
            .until(&told, |report| report.report_failures >= 2)
            .await;
        assert!(report.connected, "{told}");
        assert_eq!(report.stream_failures, 0, "{told}");
    }
}

#[tokio::test]
async fn a_health_check_without_an_answer_opens_no_stream() {
    let out_of_order = Status::internal("out of order");
    let rows = [
        (
            Manner::Silent,
            "health check failed: no answer within 300 ms",
        ),
        (Manner::Fails(out_of_order), "out of order"),
        (Manner::Declines, "not serving"),
    ];
    for (health, expected) in rows {
        let told = format!("{health:?}");
        let running = Running::start(Manner::Willing, health).await;
        let client = impatient(running.address);
        let is_told = |report: &Report| {
            let error = report.last_error.as_deref().unwrap_or_default();
            report.connect_failures >= 2 && error.contains(expected)
        };
        let report = client.until(&told, is_told).await;
        assert_eq!(report.stream_failures, 0, "{told}");
        assert!(!report.connected, "{told}");
    }
}

#[tokio::test]
async fn a_control_plane_that_keeps_no_account_of_its_health_is_healthy() {
    for health in [
        Status::not_found("no such service"),
        Status::unimplemented(""),
    ] {
        let running = Running::start(Manner::Willing, Manner::Fails(health)).await;
        let client = Client::start(settings(running.address));
        let report = client.until("connected", |report| report.connected).await;
        assert_eq!(report.connect_failures, 0);
    }
}

#[tokio::test]
async fn health_checks_that_fail_beside_a_stream_are_counted_and_leave_it_alone() {
    let running = Running::start(Manner::Willing, Manner::Willing).await;
    let client = impatient(running.address);
    client.until("connected", |report| report.connected).await;
    let failures = || client.metrics.xds.health_check_failures.value();
    let out_of_order = Manner::Fails(Status::internal("out of order"));
    for health in [out_of_order, Manner::Silent] {
        let before = failures();
        *running.health.lock().unwrap() = health;
        until(DEADLINE, async || failures() >= before + 2).await;
    }
    let report = client.status.report();
    assert!(report.connected);
    assert_eq!(report.stream_failures, 0);
}
