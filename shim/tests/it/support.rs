//! A discovery server on loopback, a data plane's side of the stream, and snapshots to publish.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ir::http_route::{HttpMatch, HttpRule, PathMatch, Route, Timeouts};
use ir::wire::configuration_discovery_service_client::ConfigurationDiscoveryServiceClient;
use ir::wire::{DiscoveryRequest, DiscoveryResponse, DiscoveryResultStatus};
use ir::{HttpRoute, Resources, Snapshot};
use shim::history::Store;
use shim::metrics::Metrics;
use shim::nodes::{Node, Nodes};
use shim::quarantine::Quarantine;
use shim::serve::{self, Discovery};
use shim::settings::{GrpcRuntime, TlsFiles};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Nothing on loopback takes this long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A discovery server; it stops when dropped.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) store: Arc<Store>,
    pub(crate) nodes: Arc<Nodes>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: CancellationToken,
    _stop: DropGuard,
}

impl Server {
    pub(crate) async fn start(runtime: GrpcRuntime) -> Self {
        Self::start_with(runtime, None, 8).await
    }

    pub(crate) async fn start_with(
        runtime: GrpcRuntime,
        tls: Option<TlsFiles>,
        history_size: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::serve(listener, runtime, tls, history_size)
    }

    /// Starts one where another one has been.
    pub(crate) async fn start_at(addr: SocketAddr, runtime: GrpcRuntime) -> Self {
        let bind = async {
            loop {
                match TcpListener::bind(addr).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        let listener = tokio::time::timeout(DEADLINE, bind).await.unwrap();
        Self::serve(listener, runtime, None, 8)
    }

    fn serve(
        listener: TcpListener,
        runtime: GrpcRuntime,
        tls: Option<TlsFiles>,
        history_size: usize,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let metrics = Arc::new(Metrics::default());
        let store = Arc::new(Store::new(history_size, Arc::clone(&metrics)));
        let nodes = Arc::new(Nodes::default());
        let shutdown = CancellationToken::new();
        let discovery = Discovery {
            store: Arc::clone(&store),
            nodes: Arc::clone(&nodes),
            quarantine: Arc::new(Quarantine::new(DEADLINE)),
            metrics: Arc::clone(&metrics),
            runtime,
            tls,
            leading: tokio::sync::watch::channel(true).1,
        };
        tokio::spawn(serve::run(discovery, listener, shutdown.clone()));
        Self {
            addr,
            store,
            nodes,
            metrics,
            _stop: shutdown.clone().drop_guard(),
            shutdown,
        }
    }

    /// Publishes routes of those names, each with one label; gives the version.
    pub(crate) fn publish(&self, routes: &[(&str, &str)]) -> String {
        let published = self
            .store
            .publish(snapshot(routes), SystemTime::now())
            .unwrap();
        published.unwrap().snapshot.version.to_string()
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.addr)).unwrap()
    }

    pub(crate) async fn client(&self) -> ConfigurationDiscoveryServiceClient<Channel> {
        ConfigurationDiscoveryServiceClient::new(self.endpoint().connect().await.unwrap())
    }

    pub(crate) async fn open(&self, hello: DiscoveryRequest) -> Stream {
        Stream::open(self.client().await, hello).await
    }

    pub(crate) fn node(&self, node_id: &str) -> Node {
        self.nodes.node(node_id).unwrap()
    }

    /// Waits until the node looks as claimed.
    pub(crate) async fn wait_for_node(&self, node_id: &str, claim: impl Fn(&Node) -> bool) {
        let look = async {
            while !self.nodes.node(node_id).is_some_and(|node| claim(&node)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(DEADLINE, look).await.is_err() {
            panic!("the node never got there: {:?}", self.nodes.node(node_id));
        }
    }

    pub(crate) fn metric(&self, line: &str) -> bool {
        self.metrics.encode_text().unwrap().contains(line)
    }
}

/// A data plane's side of one stream.
pub(crate) struct Stream {
    pub(crate) requests: mpsc::Sender<DiscoveryRequest>,
    responses: Streaming<DiscoveryResponse>,
}

impl Stream {
    pub(crate) async fn open(
        mut client: ConfigurationDiscoveryServiceClient<Channel>,
        hello: DiscoveryRequest,
    ) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        requests.send(hello).await.unwrap();
        let responses = client
            .stream_configuration(ReceiverStream::new(receiver))
            .await
            .unwrap()
            .into_inner();
        Self {
            requests,
            responses,
        }
    }

    /// The next response of any kind.
    pub(crate) async fn next(&mut self) -> Result<Option<DiscoveryResponse>, Status> {
        tokio::time::timeout(DEADLINE, self.responses.message())
            .await
            .expect("nothing came on the stream")
    }

    /// The next snapshot or delta.
    pub(crate) async fn push(&mut self) -> DiscoveryResponse {
        loop {
            let response = self.next().await.unwrap().expect("the stream ended");
            if response.snapshot.is_some() || response.delta.is_some() {
                return response;
            }
        }
    }

    /// The status that ends the stream; pushes before it are dropped.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    pub(crate) async fn send(&self, request: DiscoveryRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn ack(&self, push: &DiscoveryResponse) {
        self.answer(push, DiscoveryResultStatus::DiscoveryAck, "")
            .await;
    }

    pub(crate) async fn nack(&self, push: &DiscoveryResponse, reason: &str) {
        self.answer(push, DiscoveryResultStatus::DiscoveryNack, reason)
            .await;
    }

    async fn answer(&self, push: &DiscoveryResponse, status: DiscoveryResultStatus, reason: &str) {
        self.send(DiscoveryRequest {
            version: push.version.clone(),
            nonce: push.nonce.clone(),
            result_status: status.into(),
            error_detail: reason.to_owned(),
            ..DiscoveryRequest::default()
        })
        .await;
    }

    /// Takes a push in and acknowledges it.
    pub(crate) async fn apply(&mut self) -> DiscoveryResponse {
        let push = self.push().await;
        self.ack(&push).await;
        push
    }
}

/// The opening of a data plane of ours that holds `version`.
pub(crate) fn hello(node_id: &str, version: &str) -> DiscoveryRequest {
    DiscoveryRequest {
        node_id: node_id.to_owned(),
        cluster: "test".to_owned(),
        version: version.to_owned(),
        subscriptions: vec!["*".to_owned()],
        supported_features: ir::decode::FEATURES.map(str::to_owned).to_vec(),
        accepts_delta: true,
        ..DiscoveryRequest::default()
    }
}

/// A snapshot of routes, each with one label.
pub(crate) fn snapshot(routes: &[(&str, &str)]) -> Snapshot {
    Snapshot {
        http_routes: routes
            .iter()
            .map(|(name, label)| route(name, label))
            .collect::<Resources<_>>(),
        ..Snapshot::default()
    }
}

fn route(name: &str, label: &str) -> HttpRoute {
    Route {
        key: format!("default/{name}").into(),
        hostnames: Vec::new(),
        listeners: vec!["default/gateway/http".into()],
        parent_refs: Vec::new(),
        rules: vec![HttpRule {
            name: None,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix("/".to_owned()),
                method: None,
                headers: Vec::new(),
                query_params: Vec::new(),
            }],
            filters: Vec::new(),
            backends: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session_persistence: None,
            plugins: Vec::new(),
        }],
        labels: [("app".to_owned(), label.to_owned())].into(),
        annotations: ir::resource::Metadata::default(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}
