//! Reflectors keep a [`ClusterView`] of a real API server, and hand out a [`Files`] for every change.
//!
//! `control_plane.rs` calls [`start`] for `serve --source kube`. [`discovery`] says which kinds are
//! installed, [`kind`] follows one of them, [`references`] says which Secrets and ConfigMaps are
//! needed: only those are kept. One task, the [`Collector`], is the only writer of the view. Nothing
//! is handed out before everything installed has been listed once, because a part of a
//! configuration would take routes away. The view stays as it is while the API server is gone.

mod discovery;
mod kind;
mod known;
mod references;
mod secrets;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{DynamicObject, ObjectMeta};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info};

pub use self::kind::client;
use self::kind::{Change, Source};
pub use self::known::{Entry, Known};
use self::secrets::Secrets;
use self::window::Window;
use crate::cluster_view::{AnyObject, ClusterView, Kind};
use crate::files::object::{Outcome, object};
use crate::files::{Fault, Files};
use crate::metrics::Metrics;
use crate::settings::Cluster as Settings;

/// Changes waiting to be taken in; reflectors wait beyond.
const CHANGES_MAX: usize = 1024;
/// How often it is said what is still awaited at start.
const PATIENCE: Duration = Duration::from_secs(10);

/// What follows an API server.
pub struct Watch {
    /// Gives the view once all of it is known.
    pub files: oneshot::Receiver<watch::Receiver<Files>>,
    /// Statuses as the API server has them.
    pub known: Arc<Known>,
}

/// Starts to follow the API server of `client` until `shutdown`.
pub fn start(
    client: Client,
    settings: &Settings,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> Watch {
    let (changes, received) = mpsc::channel(CHANGES_MAX);
    let (synced, files) = oneshot::channel();
    let known = Arc::new(Known::default());
    let namespaces: Arc<[Arc<str>]> = settings.watch_namespaces.clone().into();
    let collector = Collector {
        view: ClusterView::default(),
        sources: HashMap::new(),
        faults: BTreeMap::new(),
        forbidden: BTreeMap::new(),
        secrets: Secrets::new(client.clone(), namespaces.clone(), changes.clone()),
        known: Arc::clone(&known),
        metrics: Arc::clone(&metrics),
        settle_delay: settings.settle_delay,
        sync_period: settings.sync_period,
        max_input_objects: settings.limits.max_input_objects,
        is_discovered: false,
        last_good: None,
    };
    let has_mesh = settings.mesh.is_some();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = discovery::run(client, has_mesh, namespaces, changes, metrics) => {}
        }
    });
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = collector.run(received, synced) => {}
        }
    });
    Watch { files, known }
}

/// What is known of one kind.
#[derive(Default)]
struct Kept {
    /// It has been listed once.
    is_done: bool,
    /// Keys of its objects.
    keys: HashSet<Arc<str>>,
    /// Keys seen by the list that is under way.
    seen: Option<HashSet<Arc<str>>>,
}

/// The only writer of the view.
struct Collector {
    view: ClusterView,
    sources: HashMap<Source, Kept>,
    faults: BTreeMap<(Source, Arc<str>), Fault>,
    /// Kinds that may not be listed.
    forbidden: BTreeMap<Source, Fault>,
    secrets: Secrets,
    known: Arc<Known>,
    metrics: Arc<Metrics>,
    settle_delay: Duration,
    sync_period: Duration,
    max_input_objects: Option<usize>,
    is_discovered: bool,
    /// The last view within the limits, while the present one is not.
    last_good: Option<ClusterView>,
}

impl Collector {
    async fn run(
        mut self,
        mut changes: mpsc::Receiver<Change>,
        synced: oneshot::Sender<watch::Receiver<Files>>,
    ) {
        let started = Instant::now();
        let mut remind = started + PATIENCE;
        while !self.is_synced() {
            tokio::select! {
                change = changes.recv() => match change {
                    Some(change) => drop(self.take_in(change)),
                    None => return,
                },
                () = sleep_until(remind) => {
                    info!(awaited = self.awaited(), "waiting for the API server");
                    remind += PATIENCE;
                }
            }
        }
        info!(
            objects = self.view.len(),
            seconds = started.elapsed().as_secs_f64(),
            "synced"
        );
        let (sender, receiver) = watch::channel(self.current());
        if synced.send(receiver).is_err() {
            return;
        }
        let mut resync = Instant::now() + self.sync_period;
        loop {
            let change = tokio::select! {
                change = changes.recv() => change,
                () = sleep_until(resync) => {
                    resync = Instant::now() + self.sync_period;
                    let current = self.current();
                    sender.send_replace(current);
                    self.known.resync();
                    continue;
                }
            };
            let Some(change) = change else { return };
            if !self.take_in(change) {
                continue;
            }
            if !self.settle(&mut changes).await {
                return;
            }
            let current = self.current();
            sender.send_replace(current);
        }
    }

    /// Takes in what comes soon after a change; false when nothing more can come.
    async fn settle(&mut self, changes: &mut mpsc::Receiver<Change>) -> bool {
        let mut window = Window::opened(Instant::now(), self.settle_delay);
        loop {
            tokio::select! {
                biased;
                () = sleep_until(window.end()) => return true,
                change = changes.recv() => match change {
                    Some(change) => if self.take_in(change) {
                        window.moved(Instant::now());
                    },
                    None => return false,
                },
            }
        }
    }

    fn is_synced(&self) -> bool {
        self.is_discovered
            && self.sources.values().all(|kept| kept.is_done)
            && self.secrets.is_idle()
    }

    fn awaited(&self) -> String {
        if !self.is_discovered {
            return "which kinds it has".to_owned();
        }
        let kinds = self.sources.iter().filter(|(_, kept)| !kept.is_done);
        let mut kinds: Vec<_> = kinds.map(|(source, _)| source.kind.as_str()).collect();
        kinds.sort_unstable();
        if kinds.is_empty() {
            "Secrets and ConfigMaps".to_owned()
        } else {
            kinds.join(", ")
        }
    }

    /// What there is now; the last view within the limits when the present one is not.
    fn current(&mut self) -> Files {
        let faults = self.forbidden.values().chain(self.faults.values());
        let mut faults: Vec<_> = faults.cloned().collect();
        let count = self.view.len();
        let view = match self.max_input_objects {
            Some(limit) if count > limit => {
                let message = format!(
                    "{count} objects are more than translatorLimits.maxInputObjects {limit}; the \
                     configuration before stays, raise the limit"
                );
                error!(%message, "the cluster is too large");
                faults.push(Fault {
                    file: "".into(),
                    line: 0,
                    object: String::new(),
                    path: String::new(),
                    message,
                });
                self.last_good.get_or_insert_default().clone()
            }
            Some(_) => {
                self.last_good = Some(self.view.clone());
                self.view.clone()
            }
            None => self.view.clone(),
        };
        self.metrics
            .watched_objects
            .set(i64::try_from(count).unwrap_or(i64::MAX));
        Files {
            view,
            faults: faults.into(),
            skipped: Arc::default(),
        }
    }

    /// Takes a change in; true when the view differs.
    fn take_in(&mut self, change: Change) -> bool {
        match change {
            Change::Installed(sources) => {
                self.is_discovered = true;
                for source in sources {
                    self.sources.entry(source).or_default();
                }
                false
            }
            Change::Forbidden(source, said) => self.forbid(source, &said),
            Change::Gone(source) => {
                let mut changed = self.forbidden.remove(&source).is_some();
                let Some(kept) = self.sources.remove(&source) else {
                    return changed;
                };
                info!(kind = %source, "is not installed any more, its objects are gone");
                for key in kept.keys {
                    changed |= self.remove(&source, &key);
                }
                changed
            }
            Change::ListBegins(source) => {
                self.sources.entry(source).or_default().seen = Some(HashSet::new());
                false
            }
            Change::Listed(source, object) => self.put(&source, *object),
            Change::ListEnds(source) => {
                let kept = self.sources.entry(source.clone()).or_default();
                kept.is_done = true;
                let seen = kept.seen.take().unwrap_or_default();
                let gone: Vec<_> = kept.keys.difference(&seen).cloned().collect();
                let mut changed = self.forbidden.remove(&source).is_some();
                if changed {
                    info!(kind = %source, "may be listed now");
                }
                for key in gone {
                    changed |= self.remove(&source, &key);
                    self.forget(&source, &key);
                }
                debug!(kind = %source, "listed");
                changed
            }
            Change::Deleted(source, key) => {
                self.forget(&source, &key);
                self.remove(&source, &key)
            }
            Change::Secret(change) => self.secrets.take_in(change, &mut self.view),
        }
    }

    /// A kind may not be listed. What is known of it stays as it is. At start, routes and listeners
    /// that nobody may see are not served and all others are; without what says where requests go
    /// and who may come in, nothing is handed out.
    fn forbid(&mut self, source: Source, said: &str) -> bool {
        let can_lack = discovery::can_lack(&source.kind);
        let kept = self.sources.entry(source.clone()).or_default();
        let outcome = match (kept.is_done, can_lack) {
            (true, _) => "what was known of it serves on",
            (false, true) => "its objects are not served, all others are",
            (false, false) => "nothing is served before it may",
        };
        kept.is_done |= can_lack;
        let message = format!(
            "may not be listed, so {outcome}; grant the shim what manifests/shim/rbac.yaml names: \
             {said}"
        );
        error!(kind = %source, %message, "the API server refuses");
        let fault = Fault {
            file: "".into(),
            line: 0,
            object: source.to_string(),
            path: String::new(),
            message,
        };
        self.forbidden.insert(source, fault);
        true
    }

    fn forget(&mut self, source: &Source, key: &Arc<str>) {
        if let Some(kept) = self.sources.get_mut(source) {
            kept.keys.remove(key);
            if let Some(seen) = &mut kept.seen {
                seen.remove(key);
            }
        }
    }

    fn put(&mut self, source: &Source, mut raw: DynamicObject) -> bool {
        let key = key_of(&raw);
        let kept = self.sources.entry(source.clone()).or_default();
        kept.keys.insert(key.clone());
        if let Some(seen) = &mut kept.seen {
            seen.insert(key.clone());
        }
        self.known.put(source, &key, &raw);
        tidy(source, &mut raw);
        if self.differs_by_status_alone(source, &key, &raw) {
            return false;
        }
        let wanted = references::of(&source.kind, &raw);
        let mut changed = self
            .secrets
            .refer((source.clone(), key.clone()), wanted, &mut self.view);
        match read(source, &mut raw) {
            Outcome::Object(object) => {
                changed |= self.faults.remove(&(source.clone(), key.clone())).is_some();
                changed |= insert(&mut self.view, object);
            }
            Outcome::Fault(fault) => {
                changed |= self.take_out(source, &key);
                let before = self.faults.insert((source.clone(), key), fault.clone());
                changed |= before.as_ref() != Some(&fault);
            }
            Outcome::Skipped(_) => {}
        }
        changed
    }

    /// True when the view holds the object with the same metadata. With a custom resource the
    /// generation is part of that and grows with everything else but the status.
    fn differs_by_status_alone(&self, source: &Source, key: &str, raw: &DynamicObject) -> bool {
        let is_custom = source.group.contains("gateway") && raw.metadata.generation.is_some();
        let held = Kind::parse(&source.kind).filter(|_| is_custom);
        let held = held.and_then(|kind| self.view.get(kind, key));
        held.is_some_and(|held| *held.metadata() == raw.metadata)
    }

    fn remove(&mut self, source: &Source, key: &Arc<str>) -> bool {
        self.known.remove(source, key);
        let referrer = (source.clone(), key.clone());
        let mut changed = self
            .secrets
            .refer(referrer.clone(), BTreeSet::new(), &mut self.view);
        changed |= self.faults.remove(&referrer).is_some();
        changed | self.take_out(source, key)
    }

    fn take_out(&mut self, source: &Source, key: &str) -> bool {
        let kind = Kind::parse(&source.kind);
        kind.is_some_and(|kind| self.view.remove(kind, key).is_some())
    }
}

/// `namespace/name`, or the name alone.
fn key_of(raw: &DynamicObject) -> Arc<str> {
    let name = raw.metadata.name.as_deref().unwrap_or_default();
    match &raw.metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}").into(),
        None => name.into(),
    }
}

/// Leaves out what changes without meaning anything.
fn tidy(source: &Source, raw: &mut DynamicObject) {
    raw.metadata.managed_fields = None;
    raw.metadata.resource_version = None;
    if let Some(annotations) = &mut raw.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if source.kind == "Pod" {
        raw.metadata = names_alone(&raw.metadata);
        raw.data = addresses_alone(&raw.data);
    } else if let Some(data) = raw.data.as_object_mut() {
        data.remove("status");
    }
}

/// Reads an object as if it stood in a file.
fn read(source: &Source, raw: &mut DynamicObject) -> Outcome {
    raw.types = Some(kube::api::TypeMeta {
        api_version: source.api_version(),
        kind: source.kind.clone(),
    });
    match serde_yaml::to_value(&*raw) {
        Ok(value) => object(value),
        Err(error) => Outcome::Fault(Fault {
            file: "".into(),
            line: 0,
            object: format!("{} {}", source.kind, key_of(raw)),
            path: String::new(),
            message: error.to_string(),
        }),
    }
}

fn names_alone(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta {
        name: metadata.name.clone(),
        namespace: metadata.namespace.clone(),
        ..ObjectMeta::default()
    }
}

/// The addresses of a pod that are its own and in use: there are many pods, and they change often.
fn addresses_alone(pod: &Value) -> Value {
    let is_over = matches!(
        pod.pointer("/status/phase").and_then(Value::as_str),
        Some("Succeeded" | "Failed")
    );
    let is_hosts = pod.pointer("/spec/hostNetwork") == Some(&Value::Bool(true));
    match pod.pointer("/status/podIPs") {
        Some(addresses) if !is_over && !is_hosts => json!({ "status": { "podIPs": addresses } }),
        _ => json!({}),
    }
}

/// Puts an object in, unless it is there already just so.
fn insert(view: &mut ClusterView, object: AnyObject) -> bool {
    if view.get(object.kind(), object.key()).as_ref() == Some(&object) {
        return false;
    }
    view.insert(object);
    true
}

#[cfg(test)]
mod tests;
