//! The control plane as a whole: sockets bound, the source watched, every task started and stopped.
//!
//! `cli.rs` runs it for `serve`, `standalone.rs` beside a data plane. Whatever can fail at start
//! fails here with a message for the operator; afterwards only a shutdown ends it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::admin::{self, Admin};
use crate::files::watch::watch as watch_files;
use crate::files::{FileSource, Files};
use crate::history::Store;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pipeline::{Pipeline, State};
use crate::quarantine::Quarantine;
use crate::serve::{self, Discovery};
use crate::settings::Settings;
use crate::translate;
use crate::watch::start as watch_cluster;

/// Where objects come from.
pub enum Source {
    /// Folders and files.
    Files(Vec<PathBuf>),
    /// An API server, which is told what became of its objects.
    Kube(kube::Client),
}

/// A control plane that runs.
pub struct ControlPlane {
    /// Where data planes connect.
    pub grpc_addr: SocketAddr,
    /// Where the admin API listens.
    pub admin_addr: SocketAddr,
    /// Snapshots.
    pub store: Arc<Store>,
    /// Data planes.
    pub nodes: Arc<Nodes>,
    /// What was read last and what became of it.
    pub state: watch::Receiver<Arc<State>>,
    shutdown: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl ControlPlane {
    /// Binds, reads the folders for the first time and starts everything.
    pub async fn start(
        settings: Settings,
        source: Source,
        translation: translate::Settings,
        shutdown: CancellationToken,
    ) -> anyhow::Result<Self> {
        settings.check_admin()?;
        let grpc = bind(settings.grpc_addr, "grpcAddr").await?;
        let admin_socket = bind(settings.admin_addr, "adminAddr").await?;
        let metrics = Arc::new(Metrics::default());
        let store = Arc::new(Store::new(settings.history_size, Arc::clone(&metrics)));
        let nodes = Arc::new(Nodes::default());
        let quarantine = Arc::new(Quarantine::new(settings.quarantine_retry_after));
        let (sender, state) = watch::channel(Arc::new(State::default()));
        let mut control_plane = Self {
            grpc_addr: grpc.local_addr()?,
            admin_addr: admin_socket.local_addr()?,
            store,
            nodes,
            state,
            shutdown,
            tasks: JoinSet::new(),
        };
        let pipeline = Pipeline {
            settings: translation,
            store: Arc::clone(&control_plane.store),
            quarantine: Arc::clone(&quarantine),
            metrics: Arc::clone(&metrics),
            state: sender,
        };
        match source {
            Source::Files(folders) => {
                let files = tokio::task::spawn_blocking(|| watch_files(FileSource::new(folders)))
                    .await
                    .context("reading the folder failed")??;
                control_plane.translate(pipeline, std::future::ready(Some(files)));
            }
            Source::Kube(client) => control_plane.follow(client, &settings, pipeline, &metrics),
        }
        control_plane.serve(&settings, quarantine, metrics, (grpc, admin_socket));
        info!(grpc = %control_plane.grpc_addr, admin = %control_plane.admin_addr, "serving");
        Ok(control_plane)
    }

    /// Follows an API server.
    fn follow(
        &mut self,
        client: kube::Client,
        settings: &Settings,
        pipeline: Pipeline,
        metrics: &Arc<Metrics>,
    ) {
        let stop = self.shutdown.clone();
        let started = watch_cluster(client, &settings.cluster, Arc::clone(metrics), stop);
        self.translate(pipeline, async { started.files.await.ok() });
    }

    /// Runs the pipeline once there is something to translate.
    fn translate(
        &mut self,
        pipeline: Pipeline,
        files: impl Future<Output = Option<watch::Receiver<Files>>> + Send + 'static,
    ) {
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            if let Some(files) = files.await {
                pipeline.run(files, stop.clone()).await;
            }
            anyhow::ensure!(stop.is_cancelled(), "the translation stopped; see the log");
            Ok(())
        });
    }

    fn serve(
        &mut self,
        settings: &Settings,
        quarantine: Arc<Quarantine>,
        metrics: Arc<Metrics>,
        (grpc, admin_socket): (TcpListener, TcpListener),
    ) {
        let discovery = Discovery {
            store: Arc::clone(&self.store),
            nodes: Arc::clone(&self.nodes),
            quarantine,
            metrics: Arc::clone(&metrics),
            runtime: settings.grpc_runtime.clone(),
            tls: settings.grpc_tls.clone(),
        };
        let admin = Admin {
            store: Arc::clone(&self.store),
            nodes: Arc::clone(&self.nodes),
            metrics,
            state: self.state.clone(),
            permit_without_stream: settings.grpc_runtime.permit_without_stream,
            token: settings.admin_token.clone(),
            read_header_timeout: settings.admin_read_header_timeout,
            write_timeout: settings.admin_write_timeout,
            shutdown: self.shutdown.clone(),
        };
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            serve::run(discovery, grpc, stop)
                .await
                .context("the discovery service could not start")
        });
        self.tasks.spawn(async move {
            admin::run(admin, admin_socket).await;
            Ok(())
        });
    }

    /// Completes after the shutdown, or with the first failure, which also shuts down the rest.
    pub async fn wait(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(ended) = self.tasks.join_next().await {
            let ended = ended.context("a task of the control plane died").flatten();
            if ended.is_err() && outcome.is_ok() {
                outcome = ended;
                self.shutdown.cancel();
            }
        }
        outcome
    }
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is it taken? {key} names another address")
    })
}
