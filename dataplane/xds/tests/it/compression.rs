//! A control plane of the contract compresses every message without asking, so the client must offer
//! gzip on each of its calls: the stream, the status reports and the health checks.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane_telemetry::metrics::Metrics;
use dataplane_testkit::{DEADLINE, until};
use dataplane_xds::{Apply, Rejection, Settings, Status, Update, run};
use ir::Version;
use ir::wire::configuration_discovery_service_server::{
    ConfigurationDiscoveryService, ConfigurationDiscoveryServiceServer,
};
use ir::wire::{DiscoveryRequest, DiscoveryResponse, StatusAck, StatusReport};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::service::InterceptorLayer;
use tonic::transport::Server;
use tonic::{Request, Response, Streaming};

/// Sends one heartbeat on each stream and counts the reports that follow.
struct Quiet {
    reports: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl ConfigurationDiscoveryService for Quiet {
    type StreamConfigurationStream = ReceiverStream<Result<DiscoveryResponse, tonic::Status>>;

    async fn stream_configuration(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamConfigurationStream>, tonic::Status> {
        let (responses, outbound) = mpsc::channel(1);
        let mut requests = request.into_inner();
        tokio::spawn(async move {
            let _ = responses.send(Ok(DiscoveryResponse::default())).await;
            while let Ok(Some(_)) = requests.message().await {}
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }

    async fn report_status(
        &self,
        _: Request<StatusReport>,
    ) -> Result<Response<StatusAck>, tonic::Status> {
        self.reports.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(StatusAck { accepted: true }))
    }
}

struct Nothing;

impl Apply for Nothing {
    async fn apply(&mut self, _: Update) -> Result<Version, Rejection> {
        Err(Rejection::new("nothing is taken"))
    }

    fn held(&self) -> Option<Version> {
        None
    }
}

#[tokio::test]
async fn every_call_offers_gzip() {
    let offers = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&offers);
    let note = move |request: Request<()>| {
        let offer = request.metadata().get("grpc-accept-encoding");
        let offer = offer
            .and_then(|value| value.to_str().ok())
            .unwrap_or("nothing");
        seen.lock().unwrap().push(offer.to_owned());
        Ok(request)
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut settings = Settings::new(listener.local_addr().unwrap().to_string(), "node-1");
    settings.timing.report_interval = Duration::from_millis(10);
    let reports = Arc::new(AtomicUsize::new(0));
    let service = Quiet {
        reports: Arc::clone(&reports),
    };
    let server = Server::builder()
        .layer(InterceptorLayer::new(note))
        .add_service(ConfigurationDiscoveryServiceServer::new(service))
        .add_service(tonic_health::server::health_reporter().1)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let (_shutdown, stop) = watch::channel(false);
    let status = Arc::new(Status::default());
    let client = tokio::spawn(run(settings, Nothing, status, Metrics::new(), stop));

    until(DEADLINE, async || reports.load(Ordering::Relaxed) > 0).await;
    client.abort();
    server.abort();
    let offers = offers.lock().unwrap();
    assert!(
        offers.len() >= 3,
        "a health check, the stream and a report: {offers:?}"
    );
    for offer in offers.iter() {
        assert!(offer.contains("gzip"), "{offer}");
    }
}
