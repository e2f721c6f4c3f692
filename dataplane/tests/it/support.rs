//! Starts a data plane beside a fake control plane and ends both with the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use dataplane::app;
use dataplane::bootstrap::Bootstrap;
use dataplane_telemetry::metrics::Metrics;
use dataplane_testkit::{ControlPlane, within};
use ir::Snapshot;
use ir::policy::Retry;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A running data plane.
pub(crate) struct Gateway {
    pub(crate) control_plane: ControlPlane,
    pub(crate) metrics: Arc<Metrics>,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<anyhow::Result<bool>>>,
}

impl Gateway {
    /// Starts one that serves `snapshot`.
    pub(crate) async fn serving(snapshot: &Snapshot) -> Self {
        Self::with(snapshot, |_| ()).await
    }

    /// Starts one with other settings than the default ones.
    pub(crate) async fn with(snapshot: &Snapshot, change: impl FnOnce(&mut Bootstrap)) -> Self {
        let gateway = Self::start(change).await;
        gateway.control_plane.opened().await;
        gateway.apply(snapshot).await;
        gateway
    }

    /// Starts one that has no configuration yet.
    pub(crate) async fn empty(change: impl FnOnce(&mut Bootstrap)) -> Self {
        Self::start(change).await
    }

    async fn start(change: impl FnOnce(&mut Bootstrap)) -> Self {
        let control_plane = ControlPlane::start().await;
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = control_plane.address().to_string();
        let mut bootstrap = Bootstrap::standalone("dp-test", &address, admin);
        bootstrap.xds.timing.backoff_initial = Duration::from_millis(20);
        change(&mut bootstrap);
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        let metrics = Metrics::new();
        let running = tokio::spawn(app::run(bootstrap, metrics.clone(), None, stopped));
        Self {
            control_plane,
            metrics,
            stop: Some(stop),
            running: Some(running),
        }
    }

    /// The metrics as a scrape gets them.
    pub(crate) fn scrape(&self) -> String {
        let mut text = String::new();
        self.metrics.encode_text(&mut text);
        text
    }

    /// The sum of a family's samples whose labels hold all of these.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> u64 {
        let start = format!("nantian_gateway_dataplane_{name}");
        self.scrape()
            .lines()
            .filter(|line| {
                line.starts_with(&start) && labels.iter().all(|label| line.contains(label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// How many requests ended for that reason.
    pub(crate) fn outcomes(&self, reason: &str) -> u64 {
        self.metric("http_outcomes_total", &[&format!("reason=\"{reason}\"")])
    }

    /// Pushes a whole snapshot and waits until it serves.
    pub(crate) async fn apply(&self, snapshot: &Snapshot) {
        self.control_plane.push_snapshot(snapshot).await;
        self.control_plane.acked(snapshot.version.as_str()).await;
    }

    /// Pushes the way from one snapshot to the next and waits until it serves.
    pub(crate) async fn change(&self, old: &Snapshot, new: &Snapshot) {
        self.control_plane.push_change(old, new).await;
        self.control_plane.acked(new.version.as_str()).await;
    }

    /// Tells it to stop; what [`Self::stopped`] waits for.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits for its end; true when nothing was cut.
    pub(crate) async fn stopped(mut self) -> bool {
        self.stop();
        let running = self.running.take().expect("it is waited for once");
        within("the data plane ends", running)
            .await
            .unwrap()
            .unwrap()
    }
}

/// A rule's policy to try again at these statuses.
pub(crate) fn retry(codes: &[u16], attempts: u32, backoff_ms: u64) -> Option<Arc<Retry>> {
    Some(Arc::new(Retry {
        codes: codes.to_vec(),
        attempts,
        backoff: (backoff_ms > 0).then(|| Duration::from_millis(backoff_ms)),
    }))
}

/// Where a listener on that port is reached.
pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A route on the listener `infra/gw/http`, to be changed before it is added.
pub(crate) fn http_route(
    key: &str,
    host: &str,
    prefix: &str,
    clusters: &[(&str, u32)],
) -> ir::HttpRoute {
    let mut route = dataplane_testkit::snapshot::http_route(key, host, prefix, clusters);
    route.listeners = vec!["infra/gw/http".into()];
    route
}
