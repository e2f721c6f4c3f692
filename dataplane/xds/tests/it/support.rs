//! A client with an applier that remembers, and what the tests of the client share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dataplane_telemetry::metrics::Metrics;
use dataplane_testkit::DEADLINE;
use dataplane_testkit::control_plane::{ControlPlane, Settings as Listen};
use dataplane_xds::{Apply, Rejection, Report, Settings, Status, Update, run};
use ir::wire::{ConfigSnapshot, DiscoveryResponse, SnapshotDelta};
use ir::{Version, Violation, Violations};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Takes whatever comes, but for versions that begin with `bad`, `panic`, and `slow`, which waits
/// for a permit.
struct Recorder {
    held: Option<Version>,
    seen: Arc<Mutex<Vec<String>>>,
    permits: Arc<Semaphore>,
}

impl Apply for Recorder {
    async fn apply(&mut self, update: Update) -> Result<Version, Rejection> {
        let (version, told) = match update {
            Update::Full(snapshot) => (snapshot.id.clone(), snapshot.id),
            Update::Delta(delta) => (
                delta.version.clone(),
                format!("{}..{}", delta.base_version, delta.version),
            ),
        };
        self.seen
            .lock()
            .expect("no test panics with it held")
            .push(told);
        if version.starts_with("bad") {
            return Err(Rejection::from(Violations::from(Violation {
                object: "HTTPRoute shop/cart".to_owned(),
                path: "rules[0]".to_owned(),
                message: "no such backend".to_owned(),
            })));
        }
        assert!(!version.starts_with("panic"), "the applier has a bug");
        if version.starts_with("slow") {
            self.permits.acquire().await.expect("never closed").forget();
        }
        self.held = Some(Version::new(&version));
        Ok(Version::new(&version))
    }

    fn held(&self) -> Option<Version> {
        self.held.clone()
    }
}

/// A running client; aborted when dropped.
pub(crate) struct Client {
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) shutdown: watch::Sender<bool>,
    pub(crate) task: JoinHandle<()>,
}

impl Client {
    pub(crate) fn start(settings: Settings) -> Self {
        let status = Arc::new(Status::default());
        let metrics = Metrics::new();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let permits = Arc::new(Semaphore::new(0));
        let apply = Recorder {
            held: None,
            seen: Arc::clone(&seen),
            permits: Arc::clone(&permits),
        };
        let (shutdown, stop) = watch::channel(false);
        let running = run(
            settings,
            apply,
            Arc::clone(&status),
            Arc::clone(&metrics),
            stop,
        );
        Self {
            status,
            metrics,
            seen,
            permits,
            shutdown,
            task: tokio::spawn(running),
        }
    }

    /// Waits until the published state is as wanted.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl FnMut(&Report) -> bool) -> Report {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let report = self.status.report();
            if is_so(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "never {what}: {report:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen
            .lock()
            .expect("no test panics with it held")
            .clone()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Settings with short pauses and long patience.
pub(crate) fn settings(address: SocketAddr) -> Settings {
    let mut settings = Settings::new(address.to_string(), "node-1");
    settings.cluster = "edge".to_owned();
    settings.timing.backoff_initial = Duration::from_millis(20);
    settings.timing.backoff_max = Duration::from_millis(100);
    settings.timing.health_interval = Duration::from_millis(50);
    settings.timing.report_interval = Duration::from_millis(50);
    settings
}

/// The response with a whole, empty configuration.
pub(crate) fn snapshot(version: &str) -> DiscoveryResponse {
    whole(ConfigSnapshot {
        id: version.to_owned(),
        ..ConfigSnapshot::default()
    })
}

/// The response with this configuration; its id is the nonce.
pub(crate) fn whole(snapshot: ConfigSnapshot) -> DiscoveryResponse {
    DiscoveryResponse {
        version: snapshot.id.clone(),
        nonce: snapshot.id.clone(),
        snapshot: Some(snapshot),
        ..DiscoveryResponse::default()
    }
}

/// The response with an empty delta; its target is the nonce.
pub(crate) fn delta(base: &str, version: &str) -> DiscoveryResponse {
    DiscoveryResponse {
        version: version.to_owned(),
        nonce: version.to_owned(),
        delta: Some(SnapshotDelta {
            base_version: base.to_owned(),
            version: version.to_owned(),
            ..SnapshotDelta::default()
        }),
        ..DiscoveryResponse::default()
    }
}

/// A client that holds version `1`, and its control plane.
pub(crate) async fn holding(
    settings: impl FnOnce(SocketAddr) -> Settings,
) -> (ControlPlane, Client) {
    let control_plane = Listen::default().health().start().await;
    let client = Client::start(settings(control_plane.address()));
    control_plane.opened().await;
    control_plane.push(snapshot("1")).await;
    control_plane.acked("1").await;
    (control_plane, client)
}
