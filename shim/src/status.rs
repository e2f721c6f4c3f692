//! Conditions back to the API server: what every object is told, written where it differs.
//!
//! `control_plane.rs` runs one [`Writer`] beside the pipeline. It learns of translations by
//! [`Applied`], of answers from data planes by [`Nodes`], and of what the API server holds by
//! [`Known`]. A Gateway is called programmed only once every connected data plane serves the snapshot
//! that came of it ([`progress`]); [`compose`] makes a status, which is sent with the version it was
//! made from, so that nobody's change is lost. Only a leader writes, and only once there is a translation.

mod compose;
mod due;
mod events;
mod features;
mod pace;
mod progress;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use self::compose::{Composed, Composer};
use self::due::Due;
use self::events::Events;
pub use self::features::{SUPPORTED, supported};
use self::pace::Pace;
use self::progress::{Moved, Progress};
use crate::cluster_view::Kind;
use crate::history::Store;
use crate::metrics::{Metrics, ReasonLabel};
use crate::nodes::Nodes;
use crate::pipeline::Applied;
use crate::translate::Translation;
use crate::watch::{Entry, Known};

/// Writes at a time.
const IN_FLIGHT_MAX: usize = 16;
/// Objects that are looked at before others have their turn. Every `syncPeriod` all of them are due,
/// and what is being published must not wait for thousands.
const LOOKS_MAX: usize = 32;
/// Writes that may come at once, and how many more a second.
const BURST: f64 = 400.0;
const WRITES_PER_SECOND: f64 = 200.0;
/// Many say something of a Gateway; it is written no more often than this, counts less often still.
const GATEWAY_PAUSE: Duration = Duration::from_millis(100);
/// A write takes no longer than this.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// Pause after a conflict: the watch brings the newer version meanwhile.
const CONFLICT_PAUSE: Duration = Duration::from_millis(50);

/// An object, as this module names it.
type Id = (Kind, Arc<str>);

/// What statuses are written with.
pub struct Settings {
    /// The name entries of ours carry.
    pub controller_name: String,
    /// Shown for a Gateway that is bound to all addresses.
    pub status_address: IpAddr,
    /// Gateways have Services, whose addresses are shown.
    pub has_services: bool,
    /// Pause after a failure.
    pub retry_backoff: Duration,
}

/// What the writer listens to.
pub struct Inputs {
    /// Translations and which snapshot came of them.
    pub applied: watch::Receiver<Applied>,
    /// Who serves what.
    pub nodes: Arc<Nodes>,
    /// Which version is which.
    pub store: Arc<Store>,
    /// What the API server holds.
    pub known: Arc<Known>,
    /// Whether this replica may write.
    pub leading: watch::Receiver<bool>,
}

/// Writes statuses.
pub struct Writer {
    client: Client,
    inputs: Inputs,
    composer: Composer,
    progress: Progress,
    events: Events,
    metrics: Arc<Metrics>,
    retry_backoff: Duration,
    dirty: Due,
    in_flight: BTreeSet<Id>,
    /// What must be looked at once its write has ended.
    held_up: BTreeSet<Id>,
    /// What claims something that data planes have not borne out yet.
    unconfirmed: BTreeSet<Id>,
    /// How often counts are written.
    pace: Pace,
    /// What was written or refused just now, and rests until then.
    resting: BTreeMap<Id, Instant>,
    writes: JoinSet<Written>,
    /// Failures in a row.
    failures: BTreeMap<Id, u32>,
    told: Translation,
    tokens: f64,
    refilled: Instant,
}

/// How a write ended.
struct Written {
    id: Id,
    outcome: Result<DynamicObject, kube::Error>,
}

impl Writer {
    /// A writer that has looked at nothing yet.
    pub fn new(client: Client, settings: Settings, inputs: Inputs, metrics: Arc<Metrics>) -> Self {
        let events = Events::new(client.clone(), &settings.controller_name);
        Self {
            client,
            inputs,
            retry_backoff: settings.retry_backoff,
            composer: Composer::new(settings),
            progress: Progress::default(),
            events,
            metrics,
            dirty: Due::default(),
            in_flight: BTreeSet::new(),
            held_up: BTreeSet::new(),
            unconfirmed: BTreeSet::new(),
            pace: Pace::default(),
            resting: BTreeMap::new(),
            writes: JoinSet::new(),
            failures: BTreeMap::new(),
            told: Translation::default(),
            tokens: BURST,
            refilled: Instant::now(),
        }
    }

    /// Writes whatever differs, for as long as this is polled.
    pub async fn run(mut self) {
        let mut nodes = self.inputs.nodes.subscribe();
        let known = Arc::clone(&self.inputs.known);
        // Before the first translation nobody is told anything: all that stands would be taken away.
        if self.inputs.applied.changed().await.is_err() {
            return;
        }
        loop {
            if self
                .inputs
                .leading
                .wait_for(|leading| *leading)
                .await
                .is_err()
            {
                return;
            }
            self.take_in_translation();
            self.take_in_progress();
            let now = Instant::now();
            let touched = known.take_touched();
            touched.into_iter().for_each(|id| self.mark(id, now));
            self.settle();
            let next = self.next_due();
            tokio::select! {
                changed = self.inputs.applied.changed() => if changed.is_err() { return },
                changed = nodes.changed() => if changed.is_err() { return },
                changed = self.inputs.leading.changed() => if changed.is_err() { return },
                () = known.changed() => {}
                Some(ended) = self.writes.join_next() => {
                    if let Ok(written) = ended {
                        self.note(written);
                    }
                }
                () = until(next) => {}
            }
        }
    }

    fn mark(&mut self, id: Id, at: Instant) {
        if self.in_flight.contains(&id) {
            self.held_up.insert(id);
            return;
        }
        let at = self.resting.get(&id).map_or(at, |rest| at.max(*rest));
        self.dirty.add(id, at);
    }

    /// Marks what the newest translation says differently.
    fn take_in_translation(&mut self) {
        let applied = self.inputs.applied.borrow_and_update().clone();
        let translation = &applied.state.translation;
        let now = Instant::now();
        for id in self.told.changed_statuses(translation) {
            if counts(&id) {
                self.pace.moved(&id, now);
            }
            self.mark(id, now);
        }
        self.told = translation.clone();
        self.progress.add(applied);
    }

    /// Marks what waits for data planes when they have moved on.
    fn take_in_progress(&mut self) {
        for key in self.progress.changed_plugins(&self.inputs.nodes) {
            self.mark((Kind::WasmPlugin, key.into()), Instant::now());
        }
        let waiting: Vec<Id> = match self.progress.update(&self.inputs.nodes, &self.inputs.store) {
            Moved::Nothing => return,
            Moved::Onwards => self.unconfirmed.iter().cloned().collect(),
            Moved::Everything => {
                let kinds = [Kind::Gateway, Kind::ListenerSet].into_iter();
                let all = kinds.flat_map(|kind| self.told.told(kind).map(move |key| (kind, key)));
                all.map(|(kind, key)| (kind, key.clone())).collect()
            }
        };
        let now = Instant::now();
        waiting.into_iter().for_each(|id| self.mark(id, now));
    }

    /// Starts the writes that are due.
    fn settle(&mut self) {
        let now = Instant::now();
        let gained = (now - self.refilled).as_secs_f64() * WRITES_PER_SECOND;
        self.tokens = (self.tokens + gained).min(BURST);
        self.refilled = now;
        self.resting.retain(|_, until| *until > now);
        for _ in 0..LOOKS_MAX {
            if self.in_flight.len() >= IN_FLIGHT_MAX || self.tokens < 1.0 {
                return;
            }
            let Some(id) = self.dirty.pop(now) else {
                return;
            };
            let Some(entry) = self.inputs.known.get(id.0, &id.1) else {
                self.failures.remove(&id);
                self.unconfirmed.remove(&id);
                continue;
            };
            if id.0 == Kind::Service {
                self.mark_gateway_of(&id.1, now);
                continue;
            }
            self.note_claims(&id);
            let composed =
                self.composer
                    .compose(&id, &entry, &self.told, &self.progress, &self.inputs.known);
            let status = match composed {
                Composed::Same => {
                    self.failures.remove(&id);
                    continue;
                }
                Composed::Wait(until) => {
                    self.mark(id, until);
                    continue;
                }
                Composed::Count(status) => match self.pace.wait(&id, now) {
                    Some(until) => {
                        self.mark(id, until);
                        continue;
                    }
                    None => status,
                },
                Composed::New(status) => status,
            };
            self.tokens -= 1.0;
            self.events.tell(&id, &entry, &status);
            self.write(id, &entry, &status);
        }
    }

    /// Remembers what must be looked at when data planes have moved on.
    fn note_claims(&mut self, id: &Id) {
        if !counts(id) {
            return;
        }
        let status = self.told.status(id.0, &id.1);
        if status.is_none_or(|status| self.progress.bears_out(status)) {
            self.unconfirmed.remove(id);
        } else {
            self.unconfirmed.insert(id.clone());
        }
    }

    /// A Gateway shows the address of its Service.
    fn mark_gateway_of(&mut self, service: &str, now: Instant) {
        let Some((namespace, _)) = service.split_once('/') else {
            return;
        };
        let gateways = self.told.told(Kind::Gateway).filter(|key| {
            let rest = key.strip_prefix(namespace);
            rest.is_some_and(|rest| rest.starts_with('/'))
        });
        let ids: Vec<_> = gateways.map(|key| (Kind::Gateway, key.clone())).collect();
        ids.into_iter().for_each(|id| self.mark(id, now));
    }

    fn write(&mut self, id: Id, entry: &Entry, status: &Value) {
        debug!(kind = %id.0, key = %id.1, "writing status");
        self.in_flight.insert(id.clone());
        let resource = entry.source.resource();
        let (api, name): (Api<DynamicObject>, _) = match id.1.split_once('/') {
            Some((namespace, name)) => {
                let client = self.client.clone();
                (
                    Api::namespaced_with(client, namespace, &resource),
                    name.to_owned(),
                )
            }
            None => (
                Api::all_with(self.client.clone(), &resource),
                id.1.to_string(),
            ),
        };
        let patch = json!({
            "metadata": { "resourceVersion": entry.resource_version },
            "status": status,
        });
        self.writes.spawn(async move {
            let params = PatchParams::default();
            let patch = Patch::Merge(patch);
            let write = api.patch_status(&name, &params, &patch);
            let outcome = match tokio::time::timeout(WRITE_MAX, write).await {
                Ok(outcome) => outcome,
                Err(_) => Err(kube::Error::Service("no answer in time".into())),
            };
            Written { id, outcome }
        });
    }

    fn note(&mut self, written: Written) {
        let Written { id, outcome } = written;
        let now = Instant::now();
        self.in_flight.remove(&id);
        let is_held_up = self.held_up.remove(&id);
        self.note_outcome(id.clone(), outcome, now);
        if is_held_up {
            self.mark(id, now);
        }
    }

    fn note_outcome(&mut self, id: Id, outcome: Result<DynamicObject, kube::Error>, now: Instant) {
        match outcome {
            Ok(object) => {
                self.metrics.status_writes.inc();
                self.failures.remove(&id);
                self.inputs.known.note(id.0, &id.1, &object);
                if counts(&id) {
                    self.pace.written(&id, now);
                    self.rest(id, now + GATEWAY_PAUSE);
                }
            }
            // It is gone, or its CRD has no status.
            Err(kube::Error::Api(status)) if status.code == 404 => {
                self.count("not_found");
                self.failures.remove(&id);
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.count("conflict");
                self.rest(id, now + CONFLICT_PAUSE);
            }
            Err(error) => {
                self.count("other");
                let failures = self.failures.entry(id.clone()).or_insert(0);
                *failures += 1;
                let pause = self.retry_backoff * 2_u32.pow((*failures - 1).min(5));
                warn!(kind = %id.0, key = %id.1, %error, "status was not written, trying again");
                self.rest(id, now + pause);
            }
        }
    }

    /// Not before `until`, then once more.
    fn rest(&mut self, id: Id, until: Instant) {
        self.resting.insert(id.clone(), until);
        self.dirty.put_off(id, until);
    }

    fn count(&self, reason: &'static str) {
        let failures = &self.metrics.status_write_failures;
        failures.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// When something is due by time alone.
    fn next_due(&self) -> Option<Instant> {
        let first = self.dirty.first()?;
        // Full hands, no tokens, or others' turn: not at once again.
        Some(first.max(Instant::now() + Duration::from_millis(5)))
    }
}

/// Objects that count routes.
fn counts(id: &Id) -> bool {
    matches!(id.0, Kind::Gateway | Kind::ListenerSet)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::fake_api::{self, Answer};

    #[tokio::test]
    async fn no_status_is_written_before_the_first_translation() {
        let (sent, mut written) = mpsc::channel(16);
        let client = fake_api::client(move |method, path| {
            if method == http::Method::PATCH {
                drop(sent.try_send(path.to_owned()));
            }
            Answer::error(404)
        });
        let known = Known::of_route(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "first", "namespace": "shop", "generation": 1 },
            "spec": { "parentRefs": [{ "name": "gw" }] },
            "status": { "parents": [
                { "controllerName": "ours", "parentRef": { "name": "gw" }, "conditions": [] },
            ] },
        }));
        let metrics = Arc::new(Metrics::default());
        let (applied, received) = watch::channel(Applied::default());
        let (_leading, leads) = watch::channel(true);
        let settings = Settings {
            controller_name: "ours".to_owned(),
            status_address: Ipv4Addr::LOCALHOST.into(),
            has_services: false,
            retry_backoff: Duration::from_secs(1),
        };
        let inputs = Inputs {
            applied: received,
            nodes: Arc::default(),
            store: Arc::new(Store::new(2, Arc::clone(&metrics))),
            known: Arc::new(known),
            leading: leads,
        };
        let writer = Writer::new(client, settings, inputs, metrics);
        let running = tokio::spawn(writer.run());
        let early = timeout(Duration::from_millis(200), written.recv()).await;
        assert!(early.is_err(), "{early:?} was written");
        applied.send_replace(Applied::default());
        let path = timeout(Duration::from_secs(20), written.recv()).await;
        let expected = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/first/status";
        assert_eq!(path.ok().flatten().as_deref(), Some(expected));
        running.abort();
    }
}
