//! The end: readiness first, then no new connections, then the running requests, then out.
//!
//! [`drain`] is called by `app` when the caller says so; the binary says so when [`signalled`]
//! resolves. A second signal ends the process at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
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
    listeners.lock().await.close_all().await;
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

/// Resolves with the first SIGTERM or SIGINT; the second one ends the process at once.
pub async fn signalled() {
    let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(terminate), signal(interrupt)) else {
        warn!("signals cannot be caught, the process will be ended without draining");
        return std::future::pending().await;
    };
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(1);
    });
}
