//! THE CONFIGURATION LINE: from a message of the control plane to a configuration that serves.
//!
//! Called by the xDS client for one update at a time; the only writer of configuration. All that
//! can fail (decode, compile, bind) happens before the swap, so a refused update changes nothing;
//! all that follows cannot fail. Returning is the ACK.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use ir::{Change, Snapshot, Version};
use tokio::sync::watch;
use tracing::{info, warn};

use dataplane_config::{RuntimeConfig, Store, compile};
use dataplane_telemetry::metrics::{ApplyStage, Metrics};
use dataplane_xds::status::Detail;
use dataplane_xds::{Apply, Rejection, Status, Update};

use crate::admin::Readiness;
use crate::ebb;
use crate::health::Checks;
use crate::last_good::{Found, Keeper};
use crate::listener::Listeners;

/// Applies updates; owns the listeners.
#[derive(Debug)]
pub struct Applier {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    status: Arc<Status>,
    listeners: Arc<tokio::sync::Mutex<Listeners>>,
    readiness: Arc<Readiness>,
    keeper: Arc<Keeper>,
    checks: Checks,
    /// Told of each configuration that serves.
    changed: watch::Sender<()>,
    /// What serves is from disk and lacks its secrets.
    is_from_disk: bool,
}

impl Applier {
    /// Ties the store to the listeners.
    pub fn new(
        store: Arc<Store>,
        metrics: Arc<Metrics>,
        status: Arc<Status>,
        listeners: Arc<tokio::sync::Mutex<Listeners>>,
        readiness: Arc<Readiness>,
        keeper: Arc<Keeper>,
        checks: Checks,
    ) -> Self {
        Self {
            store,
            metrics,
            status,
            listeners,
            readiness,
            keeper,
            checks,
            changed: watch::Sender::default(),
            is_from_disk: false,
        }
    }

    /// Tells of each configuration that serves.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Serves what was found on disk until the control plane sends something. On any failure
    /// nothing is kept.
    pub async fn restore(&mut self, found: Found) -> Result<(), Rejection> {
        let previous = self.store.load_full();
        let plugins = previous.kept.plugins();
        plugins
            .prepare(&found.snapshot, &previous.plugins, &self.metrics)
            .await;
        let next = Arc::new(compile(found.snapshot, &previous, &self.metrics)?);
        let mut listeners = self.listeners.lock().await;
        let prepared = listeners.prepare(&next)?;
        self.store.swap(next.clone());
        next.drain_gone(&previous);
        listeners.commit(prepared).await;
        drop(listeners);
        self.is_from_disk = true;
        self.checks.update(&previous, &next);
        self.changed.send_replace(());
        self.report(&previous, &next);
        self.readiness.serving_from_disk(&found.withheld);
        let metrics = &self.metrics.last_good;
        metrics.serving.set(1);
        metrics.withheld.set(found.withheld.len());
        warn!(version = %next.version(), withheld = ?found.withheld, "serving from disk");
        Ok(())
    }
}

impl Apply for Applier {
    async fn apply(&mut self, update: Update) -> Result<Version, Rejection> {
        let applied = self.install(update).await;
        if applied.is_err() {
            // What was compiled in vain is gone by now; only its figures are left.
            self.metrics.forget_unused();
        }
        applied
    }

    fn held(&self) -> Option<Version> {
        if self.is_from_disk {
            // Without its secrets it is no base for a delta.
            return None;
        }
        let current = self.store.load();
        let version = current.version();
        (!version.as_str().is_empty()).then(|| version.clone())
    }
}

impl Applier {
    /// The line itself.
    async fn install(&mut self, update: Update) -> Result<Version, Rejection> {
        let stages = Stages::start(&self.metrics);
        ebb::let_go();
        let previous = self.store.load_full();
        let snapshot = decode(update, self.held_snapshot(&previous))?;
        let stages = stages.ended(ApplyStage::Decode);
        let plugins = previous.kept.plugins();
        plugins
            .prepare(&snapshot, &previous.plugins, &self.metrics)
            .await;
        let next = Arc::new(compile(snapshot, &previous, &self.metrics)?);
        let stages = stages.ended(ApplyStage::Compile);
        let mut listeners = self.listeners.lock().await;
        let prepared = listeners.prepare(&next)?;
        let stages = stages.ended(ApplyStage::Prepare);
        self.store.swap(next.clone());
        next.drain_gone(&previous);
        let stages = stages.ended(ApplyStage::Swap);
        listeners.commit(prepared).await;
        drop(listeners);
        stages.ended(ApplyStage::Commit);
        self.checks.update(&previous, &next);
        self.changed.send_replace(());
        self.complete(&previous, &next);
        info!(version = %next.version(), listeners = next.binds.len(), "configuration applied");
        Ok(next.version().clone())
    }
}

/// Wire to typed, on top of what is held when the update is a delta.
fn decode(update: Update, held: Option<&Snapshot>) -> Result<Snapshot, Rejection> {
    let (snapshot, notices) = match update {
        Update::Full(message) => ir::decode::snapshot_with_notices(*message)?,
        Update::Delta(message) => {
            let (delta, notices) = ir::decode::delta_with_notices(*message)?;
            let held = held.ok_or_else(|| Rejection::resync("what serves is from disk"))?;
            if delta.base != held.version {
                return Err(Rejection::resync(format!(
                    "the delta is based on version {}, but {} is held",
                    delta.base, held.version
                )));
            }
            (ir::delta::apply(held, &delta)?, notices)
        }
    };
    for notice in notices.iter() {
        warn!(%notice, "understood in part, the control plane is newer than this data plane");
    }
    Ok(snapshot)
}

/// Measures one stage after the other.
struct Stages<'a> {
    metrics: &'a Metrics,
    since: Instant,
}

impl<'a> Stages<'a> {
    fn start(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            since: Instant::now(),
        }
    }

    fn ended(self, stage: ApplyStage) -> Self {
        self.metrics.xds.stage(stage, self.since.elapsed());
        Self::start(self.metrics)
    }
}

impl Applier {
    /// What a delta may be based on.
    fn held_snapshot<'a>(&self, current: &'a RuntimeConfig) -> Option<&'a Snapshot> {
        (!self.is_from_disk).then_some(&current.snapshot)
    }

    /// A configuration of the control plane serves, whole.
    fn complete(&mut self, previous: &RuntimeConfig, config: &RuntimeConfig) {
        self.is_from_disk = false;
        self.report(previous, config);
        self.readiness.serving();
        self.metrics.inventory.ready.set(1);
        self.metrics.last_good.serving.set(0);
        self.metrics.last_good.withheld.set(0);
        self.keeper.keep(&config.snapshot);
    }

    /// Brings figures and the status report up to date.
    fn report(&self, previous: &RuntimeConfig, config: &RuntimeConfig) {
        let snapshot = &config.snapshot;
        let inventory = &self.metrics.inventory;
        inventory.listeners.set(gauge(snapshot.listeners.len()));
        inventory.http_routes.set(gauge(snapshot.http_routes.len()));
        inventory.grpc_routes.set(gauge(snapshot.grpc_routes.len()));
        inventory
            .stream_routes
            .set(gauge(snapshot.stream_routes.len()));
        inventory.backends.set(gauge(snapshot.clusters.len()));
        inventory.secrets.set(gauge(snapshot.secrets.len()));
        self.metrics.xds.applied_at(SystemTime::now());
        self.forget(&previous.snapshot, snapshot);
        let (ready, total) = endpoints(config);
        self.status.set_detail(Detail {
            active_listeners: config.listeners.keys().map(ToString::to_string).collect(),
            http_routes: detail(snapshot.http_routes.len()),
            grpc_routes: detail(snapshot.grpc_routes.len()),
            stream_routes: detail(snapshot.stream_routes.len()),
            clusters: detail(snapshot.clusters.len()),
            endpoints_ready: detail(ready),
            endpoints_total: detail(total),
            // Asked for with each report.
            plugins: Vec::new(),
        });
    }

    /// Ends the figures of what is gone.
    fn forget(&self, old: &Snapshot, new: &Snapshot) {
        for change in old.http_routes.changes(&new.http_routes) {
            if let Change::Remove(route) = change {
                self.metrics.remove_route(&format!("Http/{}", route.key));
            }
        }
        for change in old.grpc_routes.changes(&new.grpc_routes) {
            if let Change::Remove(route) = change {
                self.metrics.remove_route(&format!("Grpc/{}", route.key));
            }
        }
        for change in old.stream_routes.changes(&new.stream_routes) {
            if let Change::Remove(route) = change {
                self.metrics.remove_stream(&route.key);
            }
        }
        for change in old.clusters.changes(&new.clusters) {
            if let Change::Remove(cluster) = change {
                self.metrics.remove_backend(&cluster.key);
            }
        }
        if !old.listeners.is_same(&new.listeners) {
            self.metrics
                .retain_listeners(|name| new.listeners.get(name).is_some());
        }
    }
}

/// Endpoints that are ready, and all.
fn endpoints(config: &RuntimeConfig) -> (usize, usize) {
    config
        .clusters
        .values()
        .fold((0, 0), |(ready, total), config| {
            let cluster = &config.cluster;
            (
                ready + cluster.available(),
                total + cluster.endpoints().len(),
            )
        })
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn detail(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
