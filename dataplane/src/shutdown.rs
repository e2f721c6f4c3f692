//! The end: readiness first, then no new connections, then the running requests, then out.
//!
//! Called by `app` when a signal or the caller says so. A second signal ends the process at once;
//! that is the binary's own business, see `main.rs`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use dataplane_resilience::admission::Gate;

use crate::admin::Readiness;
use crate::bootstrap::Drain;
use crate::listener::Listeners;

/// Drains and returns true when nothing had to be cut.
pub async fn drain(
    limits: Drain,
    readiness: &Readiness,
    listeners: &tokio::sync::Mutex<Listeners>,
    connections: &Arc<Gate>,
) -> bool {
    let deadline = Instant::now() + limits.total;
    readiness.draining();
    info!(connections = connections.current(), "draining");
    sleep(limits.min_accept.min(limits.total)).await;
    listeners.lock().await.close_all();
    // Accept loops take what the kernel let in already before the count means something.
    while connections.current() > 0 {
        if Instant::now() >= deadline {
            warn!(
                connections = connections.current(),
                "cut at the end of the drain time"
            );
            return false;
        }
        sleep(Duration::from_millis(10)).await;
    }
    true
}
