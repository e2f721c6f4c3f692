//! Statuses as the API server has them, for whoever writes them.
//!
//! The view leaves statuses out, because they must not cause a translation; here they are kept beside
//! it, with what a checked write needs. The collector writes, `status.rs` reads and is told what
//! changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::Notify;

use super::kind::Source;
use crate::cluster_view::Kind;
use crate::translate::GATEWAY_NAME_LABEL;

/// Kinds whose status nobody here writes.
const WITHOUT: &[&str] = &[
    "EndpointSlice",
    "Namespace",
    "ReferenceGrant",
    "DirectResponse",
];

/// What is known of one object besides its content.
#[derive(Clone, Debug)]
pub struct Entry {
    /// How to address it.
    pub source: Arc<Source>,
    /// Its version, for a checked write.
    pub resource_version: String,
    /// Its identity.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// The status as text; empty when there is none.
    pub status: Arc<str>,
    /// `spec.parentRefs` or `spec.targetRefs` as written.
    pub references: Arc<Value>,
}

/// Every object that carries a status of ours.
#[derive(Debug, Default)]
pub struct Known {
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    objects: HashMap<(Kind, Arc<str>), Entry>,
    sources: HashMap<Source, Arc<Source>>,
    touched: BTreeSet<(Kind, Arc<str>)>,
}

impl Known {
    /// Knows one HTTPRoute.
    #[cfg(test)]
    pub(crate) fn of_route(route: Value) -> Self {
        Self::of("HTTPRoute", "httproutes", route)
    }

    /// Knows one object of the Gateway API.
    #[cfg(test)]
    pub(crate) fn of(kind: &str, plural: &str, object: Value) -> Self {
        let source = Source {
            group: "gateway.networking.k8s.io".into(),
            version: "v1".into(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
            namespace: None,
        };
        let object: DynamicObject = serde_json::from_value(object).expect("it is an object");
        let known = Self::default();
        known.put(&source, &super::key_of(&object), &object);
        known
    }

    /// One object.
    pub fn get(&self, kind: Kind, key: &str) -> Option<Entry> {
        self.lock().objects.get(&(kind, Arc::from(key))).cloned()
    }

    /// Objects that changed since this was asked last.
    pub fn take_touched(&self) -> BTreeSet<(Kind, Arc<str>)> {
        std::mem::take(&mut self.lock().touched)
    }

    /// Completes after a change.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Everything counts as changed.
    pub(super) fn resync(&self) {
        let mut entries = self.lock();
        let all: Vec<_> = entries.objects.keys().cloned().collect();
        entries.touched.extend(all);
        drop(entries);
        self.changed.notify_one();
    }

    /// Notes what the API server answered to a write, unless the watch has brought something newer
    /// meanwhile: with an old version every write after it would be refused.
    pub fn note(&self, kind: Kind, key: &Arc<str>, written: &DynamicObject) {
        let version = written.metadata.resource_version.clone();
        let version = version.unwrap_or_default();
        if let Some(entry) = self.lock().objects.get_mut(&(kind, key.clone()))
            && !is_older(&version, &entry.resource_version)
        {
            entry.resource_version = version;
            entry.status = status_of(written);
        }
    }

    pub(super) fn put(&self, source: &Source, key: &Arc<str>, object: &DynamicObject) {
        let Some(kind) = Kind::parse(&source.kind).filter(|_| is_written(source, object)) else {
            return;
        };
        let mut entries = self.lock();
        let source = entries
            .sources
            .entry(source.clone())
            .or_insert_with_key(|source| Arc::new(source.clone()))
            .clone();
        let metadata = &object.metadata;
        let spec = object.data.get("spec");
        let references = ["parentRefs", "targetRefs"]
            .iter()
            .find_map(|field| spec?.get(field).cloned());
        let entry = Entry {
            source,
            resource_version: metadata.resource_version.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            status: status_of(object),
            references: Arc::new(references.unwrap_or_default()),
        };
        entries.objects.insert((kind, key.clone()), entry);
        entries.touched.insert((kind, key.clone()));
        drop(entries);
        self.changed.notify_one();
    }

    pub(super) fn remove(&self, source: &Source, key: &Arc<str>) {
        let Some(kind) = Kind::parse(&source.kind) else {
            return;
        };
        let mut entries = self.lock();
        if entries.objects.remove(&(kind, key.clone())).is_some() {
            entries.touched.insert((kind, key.clone()));
            drop(entries);
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when the version is known to be older: they are numbers that grow (Kubernetes API concepts,
/// "Resource versions"); of others nothing can be said.
fn is_older(version: &str, than: &str) -> bool {
    let number = |text: &str| text.parse::<u128>().ok();
    number(version)
        .zip(number(than))
        .is_some_and(|(version, than)| version < than)
}

fn is_written(source: &Source, object: &DynamicObject) -> bool {
    match source.kind.as_str() {
        "Service" => {
            let labels = object.metadata.labels.as_ref();
            labels.is_some_and(|labels| labels.contains_key(GATEWAY_NAME_LABEL))
        }
        kind => !WITHOUT.contains(&kind),
    }
}

fn status_of(object: &DynamicObject) -> Arc<str> {
    let status = object.data.get("status");
    status.map_or_else(|| "".into(), |status| status.to_string().into())
}

#[cfg(test)]
mod tests {
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn object(version: &str, reason: &str) -> DynamicObject {
        DynamicObject {
            types: None,
            metadata: ObjectMeta {
                name: Some("r".to_owned()),
                resource_version: Some(version.to_owned()),
                ..ObjectMeta::default()
            },
            data: json!({ "status": { "reason": reason } }),
        }
    }

    #[test]
    fn an_answer_that_the_watch_has_overtaken_changes_nothing() {
        let known = Known::default();
        let source = Source {
            group: "gateway.networking.k8s.io".into(),
            version: "v1".into(),
            kind: "HTTPRoute".to_owned(),
            plural: "httproutes".to_owned(),
            namespace: None,
        };
        let key: Arc<str> = "r".into();
        known.put(&source, &key, &object("99", "first"));
        for (answered, expected) in [("100", "100"), ("9", "100"), ("101", "101"), ("x", "x")] {
            known.note(Kind::HttpRoute, &key, &object(answered, answered));
            let entry = known.get(Kind::HttpRoute, &key).unwrap();
            assert_eq!(entry.resource_version, expected);
            assert_eq!(*entry.status, *json!({ "reason": expected }).to_string());
        }
    }
}
