//! The control plane as a whole: sockets bound, the source watched, every task started and stopped.
//!
//! `cli.rs` runs it for `serve`, `standalone.rs` beside a data plane. Whatever can fail at start
//! fails here with a message for the operator; afterwards only a shutdown ends it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
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
use crate::leader;
use crate::mesh;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pipeline::{Applied, Pipeline, State};
use crate::quarantine::Quarantine;
use crate::serve::{self, Discovery};
use crate::services::Keeper;
use crate::settings::{Addresses, Settings};
use crate::status;
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
        let (leading, leads) = watch::channel(false);
        let mut control_plane = Self {
            grpc_addr: grpc.local_addr()?,
            admin_addr: admin_socket.local_addr()?,
            store,
            nodes,
            state,
            shutdown,
            tasks: JoinSet::new(),
        };
        let (applied, applied_state) = watch::channel(Applied::default());
        let pipeline = Pipeline {
            settings: translation,
            store: Arc::clone(&control_plane.store),
            quarantine: Arc::clone(&quarantine),
            metrics: Arc::clone(&metrics),
            state: sender,
            applied,
            limits: settings.cluster.limits.clone(),
        };
        match source {
            Source::Files(folders) => {
                let files = tokio::task::spawn_blocking(|| watch_files(FileSource::new(folders)))
                    .await
                    .context("reading the folder failed")??;
                control_plane.translate(pipeline, std::future::ready(Some(files)));
                leading.send_replace(true);
            }
            Source::Kube(client) => {
                let metrics = Arc::clone(&metrics);
                let outside = Outside {
                    client,
                    metrics,
                    applied: applied_state,
                    leading,
                };
                control_plane.follow(outside, &settings, pipeline);
            }
        }
        control_plane.serve(
            &settings,
            (quarantine, leads),
            metrics,
            (grpc, admin_socket),
        );
        info!(grpc = %control_plane.grpc_addr, admin = %control_plane.admin_addr, "serving");
        Ok(control_plane)
    }

    /// Follows an API server.
    fn follow(&mut self, outside: Outside, settings: &Settings, pipeline: Pipeline) {
        let Outside {
            client,
            metrics,
            applied,
            leading,
        } = outside;
        let cluster = &settings.cluster;
        let stop = self.shutdown.clone();
        let started = watch_cluster(client.clone(), cluster, Arc::clone(&metrics), stop);
        self.translate(pipeline, async { started.files.await.ok() });
        let (services_applied, services_known) = (applied.clone(), Arc::clone(&started.known));
        let inputs = status::Inputs {
            applied,
            nodes: Arc::clone(&self.nodes),
            store: Arc::clone(&self.store),
            known: started.known,
            leading: leading.subscribe(),
        };
        let writer_settings = status::Settings {
            controller_name: settings.controller_name.clone(),
            status_address: cluster.status_address.unwrap_or_else(own_address),
            has_services: matches!(cluster.addresses, Addresses::Service(_)),
            retry_backoff: cluster.retry_backoff,
        };
        let writer = status::Writer::new(
            client.clone(),
            writer_settings,
            inputs,
            Arc::clone(&metrics),
        );
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            stop.run_until_cancelled_owned(Box::pin(writer.run())).await;
            Ok(())
        });
        let keeper = mesh::Keeper {
            client: client.clone(),
            settings: cluster.mesh.clone(),
            applied: services_applied.clone(),
            leading: leading.subscribe(),
        };
        let tell = mesh::xmesh::tell(
            client.clone(),
            settings.controller_name.clone(),
            leading.subscribe(),
        );
        let has_mesh = cluster.mesh.is_some();
        let stop = self.shutdown.clone();
        self.tasks.spawn(async move {
            let both = async {
                if has_mesh {
                    tokio::join!(keeper.run(), tell);
                } else {
                    keeper.run().await;
                }
            };
            stop.run_until_cancelled_owned(Box::pin(both)).await;
            Ok(())
        });
        if let Addresses::Service(services) = &cluster.addresses {
            let keeper = Keeper {
                client: client.clone(),
                settings: services.clone(),
                controller_name: settings.controller_name.clone(),
                applied: services_applied,
                known: services_known,
                leading: leading.subscribe(),
            };
            let stop = self.shutdown.clone();
            self.tasks.spawn(async move {
                stop.run_until_cancelled_owned(Box::pin(keeper.run())).await;
                Ok(())
            });
        }
        let stop = self.shutdown.clone();
        match cluster.leader_election.clone() {
            Some(election) => {
                let identity = leader::identity();
                let run = leader::run(client, election, identity, leading, metrics, stop);
                self.tasks.spawn(async move {
                    run.await;
                    Ok(())
                });
            }
            None => {
                leading.send_replace(true);
                self.tasks.spawn(async move {
                    stop.cancelled().await;
                    drop(leading);
                    Ok(())
                });
            }
        }
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
        (quarantine, leading): (Arc<Quarantine>, watch::Receiver<bool>),
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
            leading,
        };
        let admin = Admin {
            store: Arc::clone(&self.store),
            nodes: Arc::clone(&self.nodes),
            metrics,
            state: self.state.clone(),
            permit_without_stream: settings.grpc_runtime.permit_without_stream,
            token: settings.admin_token.clone(),
            tls: settings.admin_tls.clone(),
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
            admin::run(admin, admin_socket)
                .await
                .context("the admin API could not start")
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

/// What a source from an API server needs besides.
struct Outside {
    client: kube::Client,
    metrics: Arc<Metrics>,
    applied: watch::Receiver<Applied>,
    leading: watch::Sender<bool>,
}

/// An address of this host that others may reach.
fn own_address() -> IpAddr {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let own = interfaces.iter().map(if_addrs::Interface::ip);
    let own = own.filter(|ip| ip.is_ipv4() && !ip.is_loopback());
    own.min().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is it taken? {key} names another address")
    })
}
