//! The control-plane half of a configuration update: files → view → translation → snapshot.
//!
//! One task, the only writer: `files` says what the folder holds now, `translate` makes a snapshot
//! and conditions of it, `history` makes the snapshot public, and the streams of `serve` take it
//! from there. What data planes refuse is left out between the two, and comes back by way of
//! [`Quarantine`]. The admin API and `standalone` watch the [`State`] that is left behind.

use std::sync::Arc;
use std::time::SystemTime;

use ir::Snapshot;
use ir::encode::growth;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::conditions::ListenerStatus;
use crate::files::Files;
use crate::history::Store;
use crate::metrics::{ListenerLabel, Metrics};
use crate::quarantine::{Kept, Quarantine};
use crate::settings::TranslatorLimits;
use crate::translate::{self, Translation, keep_former_certificates, translate};

/// What was read last and what became of it.
#[derive(Debug, Default)]
pub struct State {
    /// Objects and what could not be read.
    pub files: Files,
    /// Snapshot parts and conditions.
    pub translation: Translation,
    /// What data planes refuse.
    pub quarantine: Vec<Kept>,
    /// How large the snapshot is as a message.
    pub bytes: u64,
    /// How often the files have changed; what else changes is the doing of data planes and time.
    pub edits: u64,
}

/// A translation, and which snapshot came of it.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// What was translated.
    pub state: Arc<State>,
    /// The how-manieth snapshot serves it.
    pub sequence: u64,
}

/// What turns files into published snapshots.
pub struct Pipeline {
    /// Whose Gateways, which addresses and ports.
    pub settings: translate::Settings,
    /// Where snapshots go.
    pub store: Arc<Store>,
    /// What is left out because a data plane refuses it.
    pub quarantine: Arc<Quarantine>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Where conditions go.
    pub state: watch::Sender<Arc<State>>,
    /// The same once it is published, for whoever tells an API server.
    pub applied: watch::Sender<Applied>,
    /// How large a snapshot may be.
    pub limits: TranslatorLimits,
}

impl Pipeline {
    /// Translates and publishes every change until the shutdown, or until no more can come.
    pub async fn run(self, mut files: watch::Receiver<Files>, shutdown: CancellationToken) {
        let mut edits = 0;
        loop {
            let seen = files.borrow_and_update().clone();
            if !self.step(seen, edits).await {
                return;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                changed = files.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    edits += 1;
                }
                () = self.quarantine.changed() => {}
                () = until(self.quarantine.next_change()) => {}
            }
        }
    }

    /// One update; false when the translation died.
    async fn step(&self, mut files: Files, edits: u64) -> bool {
        let started = Instant::now();
        let before = self.state.borrow().clone();
        let settings = self.settings.clone();
        let quarantine = Arc::clone(&self.quarantine);
        let translated = tokio::task::spawn_blocking(move || {
            keep_former_certificates(before.translation.view(), &mut files.view);
            let translation = translate(&files.view, &settings, Some(&before.translation));
            let (refused, kept) = quarantine.settle(translation.wanted());
            let translation = translation.without(&refused);
            let growth = growth(before.translation.snapshot(), translation.snapshot());
            State {
                files,
                bytes: before.bytes.saturating_add_signed(growth),
                translation,
                quarantine: kept,
                edits,
            }
        });
        let Ok(state) = translated.await else {
            self.metrics.build_failures.inc();
            self.metrics.last_build_success.set(0);
            return false;
        };
        let state = Arc::new(state);
        self.metrics.builds.inc();
        self.metrics
            .build_seconds
            .observe(started.elapsed().as_secs_f64());
        let kept = i64::try_from(state.quarantine.len()).unwrap_or(i64::MAX);
        self.metrics.quarantined.set(kept);
        let is_clean = state.files.faults.is_empty();
        self.metrics.last_build_success.set(i64::from(is_clean));
        if !is_clean {
            self.metrics.build_failures.inc();
        }
        self.report(&state);
        let before = self.state.borrow().clone();
        self.count_attached(&before.translation, &state.translation);
        let snapshot = state.translation.snapshot().clone();
        // Conditions first: whoever sees the new version can look up why it is as it is.
        self.state.send_replace(Arc::clone(&state));
        self.metrics
            .snapshot_bytes
            .set(i64::try_from(state.bytes).unwrap_or(i64::MAX));
        if let Some(excess) = excess(&snapshot, state.bytes, &self.limits) {
            self.metrics.build_failures.inc();
            self.metrics.last_build_success.set(0);
            error!(%excess, "the snapshot is too large, the one before stays");
            return true;
        }
        match self.store.publish(snapshot, SystemTime::now()) {
            Ok(None) => {}
            Err(violations) => {
                self.metrics.build_failures.inc();
                self.metrics.last_build_success.set(0);
                error!(%violations, "objects do not fit together, the snapshot before stays");
                return true;
            }
            Ok(Some(published)) => info!(
                version = %published.snapshot.version,
                listeners = published.snapshot.listeners.len(),
                http_routes = published.snapshot.http_routes.len(),
                grpc_routes = published.snapshot.grpc_routes.len(),
                clusters = published.snapshot.clusters.len(),
                "snapshot published"
            ),
        }
        let sequence = self.store.current().map_or(0, |current| current.sequence);
        self.applied.send_replace(Applied { state, sequence });
        true
    }

    /// How many routes each listener has, where that may have changed.
    fn count_attached(&self, before: &Translation, now: &Translation) {
        let family = &self.metrics.attached_routes;
        for (kind, key) in before.changed_statuses(now) {
            let listeners = |translation: &Translation| {
                let status = translation.status(kind, &key);
                status.map_or_else(Vec::new, |status| status.listeners.clone())
            };
            let label = |listener: &ListenerStatus| ListenerLabel {
                listener: listener.id.to_string(),
            };
            let there = listeners(now);
            for gone in listeners(before) {
                if !there.iter().any(|listener| listener.id == gone.id) {
                    family.remove(&label(&gone));
                }
            }
            for listener in there {
                let count = i64::try_from(listener.attached_routes).unwrap_or(i64::MAX);
                family.get_or_create_owned(&label(&listener)).set(count);
            }
        }
    }

    /// Faults that were not there before, once.
    fn report(&self, state: &State) {
        let before = self.state.borrow();
        for fault in state.files.faults.iter() {
            if !before.files.faults.contains(fault) {
                warn!(%fault, "left out");
            }
        }
    }
}

/// What is too much about a snapshot.
fn excess(snapshot: &Snapshot, bytes: u64, limits: &TranslatorLimits) -> Option<String> {
    if let Some(limit) = limits.max_snapshot_bytes
        && bytes > limit as u64
    {
        return Some(format!(
            "{bytes} bytes are more than translatorLimits.maxSnapshotBytes {limit}, {}; take \
             something out, or raise it together with xdsTransport.maxMessageBytes of all data planes",
            heaviest(snapshot)
        ));
    }
    let objects = snapshot.listeners.len()
        + snapshot.http_routes.len()
        + snapshot.grpc_routes.len()
        + snapshot.stream_routes.len()
        + snapshot.clusters.len()
        + snapshot.secrets.len();
    let over = |key: &str, count: usize, limit: Option<usize>| {
        let limit = limit.filter(|limit| count > *limit)?;
        Some(format!(
            "{count} are more than translatorLimits.{key} {limit}"
        ))
    };
    over("maxSnapshotObjects", objects, limits.max_snapshot_objects).or_else(|| {
        limits.max_snapshot_endpoints?;
        let endpoints = snapshot
            .clusters
            .iter()
            .map(|cluster| cluster.endpoints.len());
        over(
            "maxSnapshotEndpoints",
            endpoints.sum(),
            limits.max_snapshot_endpoints,
        )
    })
}

/// Where most of a large snapshot comes from: authorities are copied to each port that is reached by
/// them.
fn heaviest(snapshot: &Snapshot) -> String {
    let authorities = |cluster: &ir::Cluster| -> usize {
        let tls = cluster.tls.as_deref();
        tls.map_or(0, |tls| tls.ca_pems.iter().map(String::len).sum())
    };
    let all: usize = snapshot.clusters.iter().map(|it| authorities(it)).sum();
    let largest = snapshot.clusters.iter().max_by_key(|it| authorities(it));
    match largest.filter(|it| authorities(it) > 0) {
        Some(cluster) => format!(
            "{all} of them authorities of BackendTLSPolicies, {} for {} alone",
            authorities(cluster),
            cluster.key
        ),
        None => "none of them authorities of BackendTLSPolicies".to_owned(),
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
