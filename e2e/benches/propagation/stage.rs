//! What every part is played on: API server, shim, data plane, Pods, and one Gateway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use dataplane_testkit::snapshot::free_port;
use e2e::api_server::ApiServer;
use e2e::gateway::{ControlPlane, DataPlane, free_address};
use e2e::kube_api::{KubeApi, Proxy};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::objects;
use crate::pods::{self, Pods};
use crate::probe::{Answer, Client};
use crate::report::Report;

/// Writers to the API server at a time, where many objects are written.
const WRITERS: usize = 8;
/// How long anything may take that should take a moment.
const LIMIT: Duration = Duration::from_secs(120);

/// All of it.
pub(crate) struct Stage {
    pub(crate) data_plane: DataPlane,
    pub(crate) shim: ControlPlane,
    pub(crate) pods: Pods,
    pub(crate) proxy: Proxy,
    /// Port of the Gateway's listener on 127.0.0.1.
    pub(crate) port: u16,
    _settings: tempfile::TempDir,
    _server: ApiServer,
}

impl Stage {
    /// Starts it; nothing where the programs of the API server are missing.
    pub(crate) async fn start() -> anyhow::Result<Option<Self>> {
        let Some(server) = ApiServer::start() else {
            return Ok(None);
        };
        let proxy = Proxy::start(&server).await?;
        let settings = tempfile::tempdir()?;
        let file = settings.path().join("shim.yaml");
        let text = "controllerName: example.net/propagation\nleaderElection: {enabled: false}\n";
        std::fs::write(&file, text)?;
        let pods = Pods::start().await?;
        let port = free_port();
        let mut api = proxy.connect().await?;
        for object in [
            objects::class(),
            objects::gateway(port),
            objects::service("default", "backend"),
            objects::slice("default", "backend", &[pods::address(0)], pods.port),
        ] {
            api.create(&object).await?;
        }
        let shim = ControlPlane::follow(server.kubeconfig(), &file, free_address()).await?;
        let data_plane = DataPlane::start(shim.grpc, None, |_| ()).await?;
        let stage = Self {
            data_plane,
            shim,
            pods,
            proxy,
            port,
            _settings: settings,
            _server: server,
        };
        let rules = objects::plain_rules("/", "backend", 80);
        api.create(&objects::route("default", "first", "first.test", rules))
            .await?;
        stage.served("first.test", "/").await?;
        Ok(Some(stage))
    }

    /// Waits until the Gateway answers a request with 200.
    pub(crate) async fn served(&self, host: &str, path: &str) -> anyhow::Result<()> {
        let end = Instant::now() + LIMIT;
        let mut client = Client::new(self.port);
        while client.ask(host, path).await != Answer::Status(200) {
            ensure!(Instant::now() < end, "{host}{path} is not served");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Makes all these objects, several at a time.
    pub(crate) async fn create_all(&self, objects: Vec<Value>) -> anyhow::Result<()> {
        let objects = Arc::new(objects);
        let mut writers = JoinSet::new();
        for first in 0..WRITERS {
            let mut api = self.proxy.connect().await?;
            let objects = Arc::clone(&objects);
            writers.spawn(async move {
                for object in objects.iter().skip(first).step_by(WRITERS) {
                    api.create(object).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Takes all objects of these kinds out of these namespaces, several namespaces at a time.
    pub(crate) async fn delete_all(
        &self,
        kinds: &'static [&str],
        namespaces: Vec<String>,
    ) -> anyhow::Result<()> {
        let namespaces = Arc::new(namespaces);
        let mut writers = JoinSet::new();
        for first in 0..WRITERS {
            let mut api = self.proxy.connect().await?;
            let namespaces = Arc::clone(&namespaces);
            writers.spawn(async move {
                for namespace in namespaces.iter().skip(first).step_by(WRITERS) {
                    for kind in kinds {
                        api.delete_all(kind, namespace).await?;
                    }
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = writers.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// The Gateway, as the API server has it.
    pub(crate) async fn gateway(&self, api: &mut KubeApi) -> anyhow::Result<Value> {
        let path = "/apis/gateway.networking.k8s.io/v1/namespaces/default/gateways/gw";
        api.get(path).await
    }

    /// Waits until the Gateway says so many of its first listener's routes, or of its ListenerSets.
    pub(crate) async fn counted(&self, what: &[&str], expected: usize) -> anyhow::Result<()> {
        let mut api = self.proxy.connect().await?;
        let end = Instant::now() + LIMIT;
        loop {
            let gateway = self.gateway(&mut api).await?;
            let counted = what.iter().fold(&gateway["status"], |value, key| {
                key.parse::<usize>()
                    .map_or_else(|_| &value[*key], |index| &value[index])
            });
            if counted.as_u64() == u64::try_from(expected).ok() {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "{what:?} is {counted}, not {expected}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What must hold after every part.
    pub(crate) async fn check(mut self, report: &mut Report) {
        let panics = [&self.shim.process, &self.data_plane.process]
            .iter()
            .map(|process| process.said().matches("panicked at").count())
            .sum::<usize>();
        let ended = [&mut self.shim.process, &mut self.data_plane.process]
            .into_iter()
            .filter_map(|process| (!process.is_running()).then_some(()))
            .count();
        report.goal("panics", as_figure(panics), "", 0.0);
        report.goal("processes that ended", as_figure(ended), "", 0.0);
        let status = self.data_plane.admin.json("/api/v1/xds/status").await;
        let refused = status["snapshots_nacked"].as_f64().unwrap_or(-1.0);
        report.goal("snapshots refused", refused, "", 0.0);
    }
}

/// A count as a figure.
#[expect(clippy::cast_precision_loss, reason = "counts here are small")]
pub(crate) fn as_figure(count: usize) -> f64 {
    count as f64
}
