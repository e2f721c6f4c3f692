//! AIServices: each becomes a cluster of its own, with the Secrets that it names.
//!
//! [`AiServices::new`] judges every service; what one says is read in [`service`], what its providers
//! name in [`provider`]. [`super::backend`] asks it for references of routes, and [`Translation`] for
//! clusters and Secrets. A service that cannot be used is no backend, and its routes are told; a further
//! provider that cannot be used is left out, and the service serves with the others.

mod provider;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::AIService;
use ir::ai::AiService;
use ir::cluster::{BackendTls, ClusterProtocol};
use ir::resource::Metadata;
use ir::{BackendTarget, Cluster, Resource, Resources, Secret, SecretText};

pub(super) use self::provider::value as secret_value;
use self::service::Seen;
use super::reference::{From, To};
use super::{Changed, Scope, Touched, Translation, backend, own_policy, replace};
use crate::cluster_view::{ClusterView, Kind, Object};
use crate::conditions::{ConditionType, Conditions, ObjectStatus, Truth};
use crate::translate::notes::Notes;

/// Group and kind, as a route's `backendRefs` name it.
pub(super) const GROUP: &str = crds::GROUP;
const KIND: &str = "AIService";
/// What a cluster of an AIService has at the end of its name. No name of a Service holds a dot, so that
/// a Service and an AIService of one name never meet.
const SUFFIX: &str = ".aiservice";

/// The key of the cluster that an AIService (`namespace/name`) becomes.
pub(super) fn cluster_key(service: &str) -> Arc<str> {
    format!("{service}{SUFFIX}").into()
}

/// The AIService of a cluster's key.
pub(super) fn service_of(cluster: &str) -> Option<&str> {
    cluster.strip_suffix(SUFFIX)
}

/// Every AIService, judged.
#[derive(Debug, Default)]
pub(super) struct AiServices(BTreeMap<Arc<str>, Known>);

/// A verdict and what it was made of.
#[derive(Clone, Debug)]
struct Known {
    object: Arc<Object<AIService>>,
    seen: Vec<Seen>,
    verdict: Arc<Verdict>,
}

/// What became of one AIService.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    /// What is published; absent when nothing may be sent.
    planned: Option<Planned>,
    accepted: Result<(), Fault>,
    resolved: Result<(), Fault>,
    /// What it says and nobody acts by.
    without_effect: Vec<String>,
}

/// The cluster of a service and what it needs.
#[derive(Clone, Debug, PartialEq)]
struct Planned {
    service: Arc<AiService>,
    protocol: ClusterProtocol,
    tls: Option<Arc<BackendTls>>,
    /// `namespace/service:port` whose endpoints are those of the first provider.
    endpoints_of: Option<Arc<str>>,
    /// Clusters of Services that further providers are reached at.
    others: BTreeSet<Arc<str>>,
    /// By Secret, the keys that are named.
    secrets: BTreeMap<Arc<str>, BTreeMap<String, SecretText>>,
}

/// Why something does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    reason: &'static str,
    message: String,
}

impl Fault {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }
}

impl AiServices {
    /// Judges every service of the view; what `previous` knows is taken over as long as it is so.
    fn new(view: &ClusterView, previous: &Self) -> Self {
        let known = view.ai_services.iter().map(|object| {
            let before = previous.0.get(&object.key).filter(|known| {
                Arc::ptr_eq(&known.object, object)
                    && known.seen.iter().all(|seen| seen.is_current(view))
            });
            let known = before.cloned().unwrap_or_else(|| {
                let mut seen = Vec::new();
                let verdict = service::judge(object, view, &mut seen);
                Known {
                    object: object.clone(),
                    seen,
                    verdict: Arc::new(verdict),
                }
            });
            (object.key.clone(), known)
        });
        Self(known.collect())
    }

    fn planned(&self, service: &str) -> Option<&Planned> {
        self.0.get(service)?.verdict.planned.as_ref()
    }

    /// The clusters that a route to it leads to.
    fn clusters(&self, service: &str) -> Option<BTreeSet<Arc<str>>> {
        let planned = self.planned(service)?;
        let mut clusters = planned.others.clone();
        clusters.insert(cluster_key(service));
        Some(clusters)
    }

    /// The clusters of Services that are further providers of AIServices among `clusters`.
    pub(super) fn behind<'a>(
        &'a self,
        clusters: impl Iterator<Item = &'a Arc<str>>,
    ) -> BTreeSet<&'a Arc<str>> {
        let services = clusters.filter_map(|cluster| self.planned(service_of(cluster)?));
        services.flat_map(|planned| &planned.others).collect()
    }

    /// True when a Service (`namespace/name`) is the first provider of an AIService.
    pub(super) fn is_behind_one(&self, service: &str) -> bool {
        let planned = self
            .0
            .values()
            .filter_map(|known| known.verdict.planned.as_ref());
        let mut at = planned.filter_map(|planned| planned.endpoints_of.as_deref());
        at.any(|cluster| backend::service_key(cluster) == service)
    }

    /// Services that differ from those of `before`, and those among them that lead elsewhere.
    fn changes(&self, before: &Self) -> (BTreeSet<Arc<str>>, BTreeSet<Arc<str>>) {
        let keys: BTreeSet<_> = self.0.keys().chain(before.0.keys()).collect();
        let verdict = |all: &Self, key: &str| all.0.get(key).map(|known| known.verdict.clone());
        let differs = keys
            .into_iter()
            .filter(|key| verdict(self, key) != verdict(before, key));
        let differs: BTreeSet<_> = differs.cloned().collect();
        let elsewhere = differs.iter().filter(|key| {
            self.0.contains_key(&***key) != before.0.contains_key(&***key)
                || self.clusters(key) != before.clusters(key)
        });
        let elsewhere = elsewhere.cloned().collect();
        (differs, elsewhere)
    }
}

/// Finds the cluster of a reference to an AIService; why there is none is noted.
pub(super) fn resolve(
    (namespace, name): (&str, &str),
    has_port: bool,
    path: &str,
    scope: &Scope<'_>,
    notes: &mut Notes,
) -> BackendTarget {
    let key = format!("{namespace}/{name}");
    let target = BackendTarget::new(GROUP, KIND, namespace, &format!("{name}{SUFFIX}"), None);
    notes.ai_services.insert(key.as_str().into());
    if has_port {
        notes.warn(&format!("{path}.port"), "means nothing for an AIService");
    }
    if namespace != scope.namespace {
        notes.crosses_namespaces = true;
    }
    let from = From::gateway_api(scope.kind, scope.namespace);
    let to = To {
        group: GROUP,
        kind: KIND,
        namespace,
        name,
    };
    let (reason, message) = if !scope.grants.allow(from, to) {
        let message =
            format!("AIService {key} is in another namespace, which needs a ReferenceGrant there");
        ("RefNotPermitted", message)
    } else if let Some(clusters) = scope.ai.clusters(&key) {
        notes.clusters.extend(clusters);
        return target;
    } else if scope.view.ai_services.get(&key).is_some() {
        let message = format!("AIService {key} cannot be used; see what it is told");
        ("InvalidAIService", message)
    } else {
        ("BackendNotFound", format!("there is no AIService {key}"))
    };
    notes.unresolved(reason, path, message);
    target.unresolved()
}

impl Translation {
    /// Judges AIServices anew where something about them changed.
    pub(super) fn update_ai_services(&mut self, before: &Self, changed: &mut Changed) {
        let (old, new) = (&before.view, &self.view);
        let is_same = old.ai_services.is_same(&new.ai_services)
            && (new.ai_services.is_empty()
                || (old.secrets.is_same(&new.secrets)
                    && old.config_maps.is_same(&new.config_maps)
                    && old.services.is_same(&new.services)));
        if is_same {
            return;
        }
        let services = AiServices::new(new, &before.ai);
        let (differs, elsewhere) = services.changes(&before.ai);
        changed.ai_clusters = differs.iter().map(|key| cluster_key(key)).collect();
        changed.ai_services = elsewhere;
        self.ai = Arc::new(services);
    }

    /// Clusters of AIServices among `changed`, and those whose endpoints are of a Service among them.
    pub(super) fn ai_clusters(&self, changed: &Changed) -> Vec<Arc<str>> {
        let of_service = self.ai.0.iter().filter(|(_, known)| {
            let planned = known.verdict.planned.as_ref();
            let key = planned.and_then(|planned| planned.endpoints_of.as_deref());
            key.is_some_and(|key| changed.endpoints.contains(backend::service_key(key)))
        });
        let of_service = of_service.map(|(service, _)| cluster_key(service));
        changed
            .ai_clusters
            .iter()
            .cloned()
            .chain(of_service)
            .collect()
    }

    /// The cluster of an AIService.
    pub(super) fn ai_cluster(&self, service: &str) -> Option<Cluster> {
        let planned = self.ai.planned(service)?;
        let key = cluster_key(service);
        let base = planned
            .endpoints_of
            .as_ref()
            .and_then(|of| self.cluster(of));
        let mut cluster =
            base.unwrap_or_else(|| Cluster::new(key.clone(), planned.protocol.clone()));
        let name = service.split_once('/').map_or(service, |(_, name)| name);
        cluster.metadata = Metadata::from([("service".to_owned(), name.to_owned())]);
        if planned.tls.is_some() {
            cluster.tls.clone_from(&planned.tls);
        }
        if planned.protocol == ClusterProtocol::Https {
            cluster.protocol = ClusterProtocol::Https;
        }
        cluster.ai_service = Some(planned.service.clone());
        cluster.key = key;
        let at = planned.endpoints_of.as_deref();
        let at = at.map(backend::service_key);
        let policies = &self.own_policies;
        Some(own_policy::ai_cluster(policies, service, at, cluster))
    }

    /// Puts the Secrets of listeners, of AIServices in use and of plugins into the snapshot.
    pub(super) fn publish_secrets(&mut self, before: &Self, touched: &Touched) {
        let is_ai = |key: &Arc<str>| service_of(key).is_some();
        let is_same = Arc::ptr_eq(&self.gateways, &before.gateways)
            && Arc::ptr_eq(&self.ai, &before.ai)
            && Arc::ptr_eq(&self.own_policies, &before.own_policies)
            && !touched.0.iter().any(is_ai);
        if is_same {
            return;
        }
        let mut secrets = self.gateways.secrets.clone();
        for (service, known) in &self.ai.0 {
            let is_used = self.uses.contains_key(&cluster_key(service));
            let planned = known.verdict.planned.as_ref().filter(|_| is_used);
            for (key, values) in planned.into_iter().flat_map(|planned| &planned.secrets) {
                add_values(&mut secrets, key, values);
            }
        }
        for (key, values) in self.own_policies.plugin_secrets() {
            add_values(&mut secrets, key, values);
        }
        replace(&mut self.snapshot.secrets, &secrets);
    }

    /// Tells AIServices what became of them.
    pub(super) fn update_ai_statuses(&mut self, before: &Self) {
        if Arc::ptr_eq(&self.ai, &before.ai) {
            return;
        }
        for key in before.ai.0.keys() {
            self.statuses.remove(&(Kind::AiService, key.clone()));
        }
        for (key, known) in &self.ai.0 {
            let status = status(known);
            self.statuses
                .insert((Kind::AiService, key.clone()), Arc::new(status));
        }
    }
}

/// Adds what somebody reads of a Secret to what others read of it.
fn add_values(
    secrets: &mut Resources<Secret>,
    key: &Arc<str>,
    values: &BTreeMap<String, SecretText>,
) {
    let known = secrets.get(key).map(|secret| Secret::clone(secret));
    let mut secret = known.unwrap_or_else(|| Secret {
        key: key.clone(),
        certificate: None,
        htpasswd: None,
        oidc_client_secret: None,
        values: BTreeMap::new(),
    });
    let values = values.iter().map(|(key, text)| (key.clone(), text.clone()));
    secret.values.extend(values);
    debug_assert!(secret.key() == key, "a secret stands under its own key");
    secrets.insert(secret);
}

fn status(known: &Known) -> ObjectStatus {
    let verdict = &known.verdict;
    let mut conditions = Conditions::new(known.object.generation());
    match &verdict.accepted {
        Ok(()) => {
            let message = verdict.without_effect.join("; ");
            conditions.set(ConditionType::Accepted, Truth::True, "Accepted", message);
        }
        Err(fault) => conditions.fail(ConditionType::Accepted, fault.reason, &*fault.message),
    }
    match &verdict.resolved {
        Ok(()) => conditions.hold(ConditionType::ResolvedRefs, "ResolvedRefs"),
        Err(fault) => conditions.fail(ConditionType::ResolvedRefs, fault.reason, &*fault.message),
    }
    let mut status = ObjectStatus::new(&*known.object);
    status.conditions = conditions.finish();
    status.warnings.clone_from(&verdict.without_effect);
    status
}
