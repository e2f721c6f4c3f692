//! Which snapshot is current, and the ones before it.
//!
//! `pipeline.rs` publishes what the translation made; every stream watches for the newest and asks
//! for older ones by version, to bring a data plane up to date by a delta. Versions are made of the
//! content, so a restarted shim names the same configuration the same and a data plane that holds
//! it is left alone. Snapshots share everything that did not change, so keeping some is cheap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use ir::delta::{apply, diff};
use ir::{Snapshot, TypeVersions, Version, Violations};
use tokio::sync::watch;

use crate::metrics::{Metrics, ResourceLabel};
use crate::projection::{FULL, FeatureUse};

/// A snapshot that was made public, with its version.
#[derive(Debug)]
pub struct Published {
    /// The whole configuration, in the full profile.
    pub snapshot: Snapshot,
    /// The how-manieth it is.
    pub sequence: u64,
    /// When it was made public.
    pub published_at: Instant,
    /// Versions of its parts, by type of resource.
    pub type_versions: TypeVersions,
}

/// The current snapshot and a bounded number of older ones.
#[derive(Debug)]
pub struct Store {
    history: Mutex<History>,
    current: watch::Sender<Option<Arc<Published>>>,
    metrics: Arc<Metrics>,
}

impl Store {
    /// Nothing published yet; `size` older snapshots will be kept.
    pub fn new(size: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            history: Mutex::new(History::new(size)),
            current: watch::Sender::new(None),
            metrics,
        }
    }

    /// Makes a snapshot the current one, unless it says the same as the current one.
    ///
    /// Its version, time, profile and features are set here. What equals the snapshot before is
    /// taken from there, so that the two share it. Fails when objects do not fit together, which
    /// every data plane would refuse; the current snapshot then stays.
    pub fn publish(
        &self,
        mut made: Snapshot,
        now: SystemTime,
    ) -> Result<Option<Arc<Published>>, Violations> {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let history = &mut *history;
        let current = self.current.borrow().clone();
        let (before, types) = match &current {
            Some(current) => (current.snapshot.clone(), current.type_versions),
            None => Default::default(),
        };
        made.generated_at = Some(now);
        made.compatibility_profile = FULL.to_owned();
        // What was made before shares its tree with this; what was published does not.
        let mut delta = diff(&history.made, &made);
        delta.base = before.version.clone();
        let features = history.features.after(&before, &delta);
        delta.required_features = features.names();
        let type_versions = types.after(&before, &delta);
        delta.version = version_of(&type_versions, &made);
        if current.is_some() && delta.version == before.version {
            history.made = made;
            return Ok(None);
        }
        let snapshot = apply(&before, &delta)?;
        history.made = made;
        history.features = features;
        self.count(&snapshot);
        let published = Arc::new(Published {
            snapshot,
            sequence: current.map_or(1, |current| current.sequence + 1),
            published_at: Instant::now(),
            type_versions,
        });
        history.add(Arc::clone(&published));
        self.current.send_replace(Some(Arc::clone(&published)));
        Ok(Some(published))
    }

    /// The current snapshot, and word of every newer one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.current.subscribe()
    }

    /// The current snapshot.
    pub fn current(&self) -> Option<Arc<Published>> {
        self.current.borrow().clone()
    }

    /// A snapshot by its version, as long as it is remembered.
    pub fn find(&self, version: &Version) -> Option<Arc<Published>> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.find(version)
    }

    /// The how-manieth the snapshot of that version is, as long as it is remembered.
    pub fn sequence(&self, version: &str) -> Option<u64> {
        let found = self.find(&Version::new(version))?;
        Some(found.sequence)
    }

    fn count(&self, snapshot: &Snapshot) {
        self.metrics.published.inc();
        let counts = [
            ("listener", snapshot.listeners.len()),
            ("http_route", snapshot.http_routes.len()),
            ("grpc_route", snapshot.grpc_routes.len()),
            ("stream_route", snapshot.stream_routes.len()),
            ("backend", snapshot.clusters.len()),
            ("secret", snapshot.secrets.len()),
        ];
        for (resource, count) in counts {
            let gauge = self
                .metrics
                .resource_count
                .get_or_create_owned(&ResourceLabel { resource });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Snapshots by age; the current one and `size` older ones.
#[derive(Debug)]
struct History {
    snapshots: VecDeque<Arc<Published>>,
    size: usize,
    /// The newest as it was handed in.
    made: Snapshot,
    /// What it makes use of.
    features: FeatureUse,
}

impl History {
    fn new(size: usize) -> Self {
        Self {
            snapshots: VecDeque::new(),
            size,
            made: Snapshot::default(),
            features: FeatureUse::default(),
        }
    }

    fn add(&mut self, published: Arc<Published>) {
        // A state that comes back has its old version; only the newer entry is kept.
        self.snapshots
            .retain(|older| older.snapshot.version != published.snapshot.version);
        self.snapshots.push_back(published);
        while self.snapshots.len() > self.size + 1 {
            self.snapshots.pop_front();
        }
    }

    fn find(&self, version: &Version) -> Option<Arc<Published>> {
        self.snapshots
            .iter()
            .rev()
            .find(|published| published.snapshot.version == *version)
            .cloned()
    }
}

/// One name for the content: the versions of all types, and the pods, which belong to none.
fn version_of(types: &TypeVersions, snapshot: &Snapshot) -> Version {
    // The versions are uniform already; an odd multiplier keeps equal ones of two types apart.
    const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;
    let mix = |mixed: u128, part: u128| (mixed ^ part).wrapping_mul(SPREAD).rotate_left(61);
    let types = types.to_map();
    let mut mixed = types
        .values()
        .flat_map(|version| u128::from_str_radix(version, 16))
        .fold(SPREAD, mix);
    for workload in snapshot.workloads.iter() {
        let text = format!("{}/{}={};", workload.namespace, workload.name, workload.ip);
        mixed = text.bytes().map(u128::from).fold(mixed, mix);
    }
    Version::new(&format!("{mixed:032x}"))
}

#[cfg(test)]
mod tests;
