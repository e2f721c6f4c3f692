//! Secrets and ConfigMaps: all are heard of, only those somebody names are fetched and kept.
//!
//! A cluster holds far more of them than a gateway needs, some of them large and none of our
//! business. So only their metadata is watched; what an object names is fetched, and fetched again
//! when its metadata change. [`super::Collector`] calls; the view is its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, PartialObjectMeta};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::{self, Event, watcher};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Sender;
use tracing::{debug, warn};

use super::discovery::Task;
use super::kind::{Change, Pause, Source};
use super::references::Wanted;
use super::{insert, read};
use crate::cluster_view::{ClusterView, Kind};
use crate::files::object::Outcome;

/// Fetches at a time.
const FETCHES_MAX: usize = 16;
/// Pause before a fetch that failed is tried again; it doubles up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// Longest name of a namespace (RFC 1123 label), and of an object in it (RFC 1123 subdomain).
const NAMESPACE_BYTES_MAX: usize = 63;
const NAME_BYTES_MAX: usize = 253;

/// What happened to Secrets or ConfigMaps.
pub(super) enum SecretChange {
    /// One has changed, or is gone, or may have changed.
    Touched(Kind, Arc<str>),
    /// Everything of the kind may have changed.
    Listed(Kind),
    /// One was fetched; nothing when there is none.
    Fetched(Kind, Arc<str>, Option<Box<DynamicObject>>),
    /// One was asked for in vain.
    Failed(Kind, Arc<str>, Failure),
}

/// Why a fetch brought nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The API server will not give it: waiting for it may last for ever.
    Refused,
    /// The API server could not be asked.
    Unanswered,
}

/// A fetch under way.
#[derive(Default)]
struct Fetch {
    /// It changed meanwhile.
    again: bool,
    /// It was refused before, so nothing waits for it.
    is_refused: bool,
    /// Failures in a row.
    failures: u32,
}

/// Which Secrets and ConfigMaps are needed, and what is under way.
pub(super) struct Secrets {
    client: Client,
    changes: Sender<Change>,
    slots: Arc<Semaphore>,
    /// What each object names.
    named: HashMap<(Source, Arc<str>), BTreeSet<Wanted>>,
    /// How many name it.
    needed: BTreeMap<Wanted, usize>,
    /// Fetches under way, and those that failed and will be tried again.
    fetching: HashMap<Wanted, Fetch>,
    /// Those of other namespaces may not be fetched, and count as missing; empty for all.
    namespaces: Arc<[Arc<str>]>,
}

/// Watches the metadata of all Secrets and ConfigMaps, of these namespaces if there are any, as long
/// as the tasks live.
pub(super) fn follow_all(
    client: &Client,
    namespaces: &[Arc<str>],
    changes: &Sender<Change>,
) -> Vec<Task> {
    let within = namespaces.iter().map(|namespace| Some(&**namespace));
    let everywhere = namespaces.is_empty().then_some(None);
    let places = within.chain(everywhere);
    let tasks = places.flat_map(|namespace| {
        let (secrets, config_maps) = match namespace {
            Some(name) => (
                Api::namespaced(client.clone(), name),
                Api::namespaced(client.clone(), name),
            ),
            None => (Api::all(client.clone()), Api::all(client.clone())),
        };
        let (one, other) = (changes.clone(), changes.clone());
        [
            tokio::spawn(follow::<Secret>(secrets, Kind::Secret, one)),
            tokio::spawn(follow::<ConfigMap>(config_maps, Kind::ConfigMap, other)),
        ]
    });
    tasks.map(Task).collect()
}

async fn follow<K>(api: Api<PartialObjectMeta<K>>, kind: Kind, changes: Sender<Change>)
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + Send
        + 'static,
{
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut pause = Pause::default();
    while let Some(event) = events.next().await {
        let change = match event {
            Ok(Event::Apply(object) | Event::Delete(object)) => {
                let namespace = object.metadata.namespace.unwrap_or_default();
                let name = object.metadata.name.unwrap_or_default();
                SecretChange::Touched(kind, format!("{namespace}/{name}").into())
            }
            Ok(Event::InitDone) => SecretChange::Listed(kind),
            Ok(_) => continue,
            Err(error) => {
                pause.after(&kind, &error).await;
                continue;
            }
        };
        pause.reset();
        if changes.send(Change::Secret(change)).await.is_err() {
            return;
        }
    }
}

impl Secrets {
    pub(super) fn new(
        client: Client,
        namespaces: Arc<[Arc<str>]>,
        changes: Sender<Change>,
    ) -> Self {
        Self {
            client,
            changes,
            namespaces,
            slots: Arc::new(Semaphore::new(FETCHES_MAX)),
            named: HashMap::new(),
            needed: BTreeMap::new(),
            fetching: HashMap::new(),
        }
    }

    /// True when nothing is awaited. What is refused counts as missing until it is not.
    pub(super) fn is_idle(&self) -> bool {
        self.fetching.values().all(|fetch| fetch.is_refused)
    }

    /// An object names these from now on; true when that changed the view.
    pub(super) fn refer(
        &mut self,
        referrer: (Source, Arc<str>),
        mut wanted: BTreeSet<Wanted>,
        view: &mut ClusterView,
    ) -> bool {
        wanted.retain(|(_, key)| can_exist(key) && self.may_see(key));
        let before = self.named.get(&referrer).cloned().unwrap_or_default();
        if before == wanted {
            return false;
        }
        for new in wanted.difference(&before) {
            let count = self.needed.entry(new.clone()).or_insert(0);
            *count += 1;
            if *count == 1 {
                self.fetch(new.clone());
            }
        }
        let mut changed = false;
        for old in before.difference(&wanted) {
            let count = self.needed.get_mut(old);
            if count.is_some_and(|count| {
                *count -= 1;
                *count == 0
            }) {
                self.needed.remove(old);
                changed |= view.remove(old.0, &old.1).is_some();
            }
        }
        if wanted.is_empty() {
            self.named.remove(&referrer);
        } else {
            self.named.insert(referrer, wanted);
        }
        changed
    }

    fn may_see(&self, key: &str) -> bool {
        let namespace = key.split('/').next().unwrap_or_default();
        self.namespaces.is_empty() || self.namespaces.iter().any(|it| **it == *namespace)
    }

    /// Takes a change in; true when the view differs.
    pub(super) fn take_in(&mut self, change: SecretChange, view: &mut ClusterView) -> bool {
        match change {
            SecretChange::Touched(kind, key) => {
                let wanted = (kind, key);
                if self.needed.contains_key(&wanted) {
                    self.fetch(wanted);
                }
                false
            }
            SecretChange::Listed(kind) => {
                let all: Vec<_> = self
                    .needed
                    .keys()
                    .filter(|it| it.0 == kind)
                    .cloned()
                    .collect();
                all.into_iter().for_each(|wanted| self.fetch(wanted));
                false
            }
            SecretChange::Fetched(kind, key, object) => {
                let wanted = (kind, key);
                if self.fetching.remove(&wanted).is_some_and(|it| it.again) {
                    self.fetch(wanted.clone());
                }
                if !self.needed.contains_key(&wanted) {
                    return false;
                }
                let outcome = object.map(|mut object| read(&source(kind), &mut object));
                match outcome {
                    Some(Outcome::Object(object)) => insert(view, object),
                    _ => view.remove(kind, &wanted.1).is_some(),
                }
            }
            SecretChange::Failed(kind, key, failure) => {
                self.try_again((kind, key), failure);
                false
            }
        }
    }

    /// Fetches one, or once more after the fetch that is under way.
    fn fetch(&mut self, wanted: Wanted) {
        if let Some(fetch) = self.fetching.get_mut(&wanted) {
            fetch.again = true;
            return;
        }
        self.fetching.insert(wanted.clone(), Fetch::default());
        self.ask(wanted, Duration::ZERO, true);
    }

    /// Fetches one that failed once more, later and later, as long as somebody names it.
    fn try_again(&mut self, wanted: Wanted, failure: Failure) {
        let is_needed = self.needed.contains_key(&wanted);
        let Some(fetch) = self.fetching.get_mut(&wanted).filter(|_| is_needed) else {
            self.fetching.remove(&wanted);
            return;
        };
        let pause = PAUSE_MAX.min(PAUSE * 2_u32.pow(fetch.failures.min(8)));
        fetch.again = false;
        fetch.is_refused |= failure == Failure::Refused;
        fetch.failures += 1;
        self.ask(wanted, pause, false);
    }

    /// Asks for one after a pause, which takes no slot from others.
    fn ask(&self, wanted: Wanted, pause: Duration, is_first: bool) {
        let (client, changes) = (self.client.clone(), self.changes.clone());
        let slots = Arc::clone(&self.slots);
        tokio::spawn(async move {
            let (kind, key) = wanted;
            let Some((namespace, name)) = key.split_once('/') else {
                return;
            };
            let resource: ApiResource = source(kind).resource();
            let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
            tokio::time::sleep(pause).await;
            let slot = slots.acquire().await;
            let answer = api.get_opt(name).await;
            drop(slot);
            let change = match answer {
                Ok(object) => SecretChange::Fetched(kind, key.clone(), object.map(Box::new)),
                Err(error) => {
                    if is_first {
                        warn!(%kind, %key, %error, "cannot be fetched, trying again");
                    } else {
                        debug!(%kind, %key, %error, "still cannot be fetched");
                    }
                    SecretChange::Failed(kind, key.clone(), failure(&error))
                }
            };
            drop(changes.send(Change::Secret(change)).await);
        });
    }
}

/// What a failure is worth: one that is about this object may last, one that is about the API server
/// or about who we are will not.
fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status)
            if (400..500).contains(&status.code) && !matches!(status.code, 401 | 408 | 429) =>
        {
            Failure::Refused
        }
        _ => Failure::Unanswered,
    }
}

/// True when `namespace/name` can be an object at all: Gateway API lets references name anything, and
/// a name that is none would be part of a path.
fn can_exist(key: &str) -> bool {
    let Some((namespace, name)) = key.split_once('/') else {
        return false;
    };
    namespace.len() <= NAMESPACE_BYTES_MAX
        && is_label(namespace)
        && name.len() <= NAME_BYTES_MAX
        && name.split('.').all(is_label)
}

/// An RFC 1123 label, of any length.
fn is_label(label: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !label.is_empty()
        && label.bytes().all(is_inside)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn source(kind: Kind) -> Source {
    Source {
        group: "".into(),
        version: "v1".into(),
        kind: kind.as_str().to_owned(),
        plural: format!("{}s", kind.as_str().to_lowercase()),
        namespace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_that_an_object_can_have_is_asked_for() {
        let long = "x".repeat(253);
        for name in ["a", "a.b-c.1", "0", &long] {
            assert!(can_exist(&format!("shop/{name}")), "{name}");
        }
        let too_long = "x".repeat(254);
        for name in [
            "", "a/b", "..", ".", "a..b", "A", "-a", "a-", "a.-b", "a_b", "a b", &too_long,
        ] {
            assert!(!can_exist(&format!("shop/{name}")), "{name}");
        }
        let long = "x".repeat(64);
        for namespace in ["", "a.b", "..", "Shop", &long] {
            assert!(!can_exist(&format!("{namespace}/a")), "{namespace}");
        }
        assert!(!can_exist("a"));
    }
}
