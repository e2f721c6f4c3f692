//! The control-plane half of a configuration update: files → view → translation → snapshot.
//!
//! One task, the only writer: `files` says what the folder holds now, `translate` makes a snapshot
//! and conditions of it, `history` makes the snapshot public, and the streams of `serve` take it
//! from there. What data planes refuse is left out between the two, and comes back by way of
//! [`Quarantine`]; so is what does not fit together. The admin API and `standalone` watch the
//! [`State`] that is left behind.

use std::sync::Arc;
use std::time::SystemTime;

use ir::encode::growth;
use ir::{Snapshot, Violations};
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
use crate::translate::{self, PartName, Refused, Translation, keep_former_certificates, translate};

/// What was read last and what became of it.
#[derive(Debug, Default)]
pub struct State {
    /// Objects and what could not be read.
    pub files: Files,
    /// Snapshot parts and conditions.
    pub translation: Translation,
    /// What data planes refuse.
    pub quarantine: Vec<Kept>,
    /// What the translation was finished without.
    pub left_out: Vec<Refused>,
    /// How large the snapshot is as a message.
    pub bytes: u64,
    /// How often the files have changed; what else changes is the doing of data planes and time.
    pub edits: u64,
}

impl State {
    /// The same without the objects that these violations blame; nothing when that changes nothing.
    fn without(&self, violations: &Violations) -> Option<Self> {
        let is_out = |part: &PartName| {
            let mut out = self.left_out.iter().filter(|known| !known.is_tried);
            out.any(|known| known.part == *part)
        };
        let blamed = violations.iter().filter_map(|violation| {
            let part = PartName::parse(&violation.object)?;
            (!is_out(&part)).then(|| Refused {
                part,
                path: violation.path.clone(),
                message: format!("it does not fit to the others: {}", violation.message),
                is_tried: false,
            })
        });
        let blamed: Vec<_> = blamed.collect();
        if blamed.is_empty() {
            return None;
        }
        let left_out = [&*self.left_out, &*blamed].concat();
        let translation = self.translation.clone().without(&left_out);
        let growth = growth(self.translation.snapshot(), translation.snapshot());
        Some(Self {
            files: self.files.clone(),
            translation,
            quarantine: self.quarantine.clone(),
            left_out,
            bytes: self.bytes.saturating_add_signed(growth),
            edits: self.edits,
        })
    }
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
                left_out: refused,
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
        if let Some(state) = self.publish(state) {
            let sequence = self.store.current().map_or(0, |current| current.sequence);
            self.applied.send_replace(Applied { state, sequence });
        }
        true
    }

    /// Makes the snapshot public; what does not fit together is left out, so that it stops nobody
    /// else's. Gives back what was published, nothing when the snapshot before stays.
    fn publish(&self, mut state: Arc<State>) -> Option<Arc<State>> {
        loop {
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
                return None;
            }
            let violations = match self.store.publish(snapshot, SystemTime::now()) {
                Ok(None) => return Some(state),
                Ok(Some(published)) => {
                    info!(
                        version = %published.snapshot.version,
                        listeners = published.snapshot.listeners.len(),
                        http_routes = published.snapshot.http_routes.len(),
                        grpc_routes = published.snapshot.grpc_routes.len(),
                        clusters = published.snapshot.clusters.len(),
                        "snapshot published"
                    );
                    return Some(state);
                }
                Err(violations) => violations,
            };
            self.metrics.build_failures.inc();
            self.metrics.last_build_success.set(0);
            let Some(rest) = state.without(&violations) else {
                error!(%violations, "objects do not fit together, the snapshot before stays");
                return None;
            };
            error!(%violations, "objects do not fit together and are left out");
            state = Arc::new(rest);
        }
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

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::num::NonZeroU16;

    use ir::Listener;
    use ir::listener::{ListenerProtocol, ListenerSettings};

    use super::*;

    fn listener(name: &str, port: u16) -> Listener {
        Listener {
            name: name.into(),
            addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
            port: NonZeroU16::new(port).unwrap(),
            protocol: ListenerProtocol::Http,
            hostnames: Vec::new(),
            tls: None,
            metadata: ir::resource::Metadata::default(),
            backend_client_certificate: None,
            security_policy: None,
            settings: ListenerSettings::default(),
            plugins: Vec::new(),
        }
    }

    #[test]
    fn what_does_not_fit_together_is_left_out_and_the_rest_published() {
        let store = Arc::new(Store::new(1, Arc::default()));
        let pipeline = Pipeline {
            settings: translate::Settings::default(),
            store: Arc::clone(&store),
            quarantine: Arc::new(Quarantine::new(std::time::Duration::from_secs(1))),
            metrics: Arc::default(),
            state: watch::Sender::default(),
            applied: watch::Sender::default(),
            limits: TranslatorLimits::default(),
        };
        let listeners = [("a/one", 80), ("b/two", 80), ("c/three", 81)];
        let translation =
            Translation::with_listeners(listeners.map(|(name, port)| listener(name, port).into()));
        let state = State {
            translation,
            ..State::default()
        };
        let published = pipeline.publish(Arc::new(state)).unwrap();
        let current = store.current().unwrap();
        let names: Vec<_> = current
            .snapshot
            .listeners
            .iter()
            .map(|it| &*it.name)
            .collect();
        assert_eq!(names, ["a/one", "c/three"]);
        let left_out = &published.left_out[0];
        assert_eq!(left_out.part.to_string(), "Listener b/two");
        assert!(left_out.message.contains("a/one"), "{}", left_out.message);
        assert_eq!(pipeline.state.borrow().left_out.len(), 1);
    }
}
