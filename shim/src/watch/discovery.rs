//! Which kinds are installed, in which version, looked at again when CRDs change.
//!
//! [`run`] asks the API server, starts a [`super::kind::follow`] for each kind it finds and looks
//! again after every change of a CustomResourceDefinition, and from time to time in case it may not
//! watch those. A kind that is missing is no fault: what needs it is not there. Every kind of our own
//! group is followed, so that a new one needs no line here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::{Api, PartialObjectMeta};
use kube::runtime::watcher::{self, watcher};
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::kind::{Change, Source, follow};
use super::secrets;
use crate::metrics::Metrics;

/// How long changes of CRDs are gathered: they come in bunches.
const QUIET: Duration = Duration::from_millis(200);
/// How often it is looked without a reason.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// A look takes no longer than this.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Pause after a look that failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Group of our own kinds: all of them are followed.
const OWN_GROUP: &str = "gateway.nantian.dev";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Group, kind and the versions we can read, the best first.
const KINDS: &[(&str, &str, &[&str])] = &[
    ("", "Namespace", &["v1"]),
    ("", "Service", &["v1"]),
    ("discovery.k8s.io", "EndpointSlice", &["v1"]),
    ("multicluster.x-k8s.io", "ServiceImport", &["v1alpha1"]),
    (GATEWAY_API, "GatewayClass", &["v1"]),
    (GATEWAY_API, "Gateway", &["v1"]),
    (GATEWAY_API, "ListenerSet", &["v1"]),
    (GATEWAY_API, "HTTPRoute", &["v1"]),
    (GATEWAY_API, "GRPCRoute", &["v1"]),
    (GATEWAY_API, "TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    (GATEWAY_API, "TCPRoute", &["v1", "v1alpha2"]),
    (GATEWAY_API, "UDPRoute", &["v1", "v1alpha2"]),
    (GATEWAY_API, "ReferenceGrant", &["v1", "v1beta1"]),
    (GATEWAY_API, "BackendTLSPolicy", &["v1", "v1alpha3"]),
    (GATEWAY_API, "BackendLBPolicy", &["v1alpha2"]),
    (
        "gateway.networking.x-k8s.io",
        "XBackendTrafficPolicy",
        &["v1alpha1"],
    ),
];

/// The same, where routes may have Services as parents.
const MESH_KINDS: &[(&str, &str, &[&str])] = &[("", "Pod", &["v1"])];

/// Kinds without which there is no gateway; others may well be missing.
const NEEDED: &[&str] = &["GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant"];

/// True for kinds whose objects can stay unseen without changing what others mean: more is open or
/// reachable in none of the cases.
pub(super) fn can_lack(kind: &str) -> bool {
    const KINDS: &[&str] = &[
        "ListenerSet",
        "GRPCRoute",
        "TLSRoute",
        "TCPRoute",
        "UDPRoute",
        "ServiceImport",
        "BackendLBPolicy",
        "XBackendTrafficPolicy",
    ];
    KINDS.contains(&kind)
}

/// Starts and ends reflectors as kinds come and go; runs until dropped.
///
/// With `namespaces` kinds are followed in these alone, but for those that are in none.
pub(super) async fn run(
    client: Client,
    has_mesh: bool,
    namespaces: Arc<[Arc<str>]>,
    changes: Sender<Change>,
    metrics: Arc<Metrics>,
) {
    let look = Arc::new(Notify::new());
    let mut running: BTreeMap<Source, Task> = BTreeMap::new();
    let _secrets = secrets::follow_all(&client, &namespaces, &changes);
    let _crds = Task(tokio::spawn(watch_crds(client.clone(), Arc::clone(&look))));
    let mut missing = BTreeSet::new();
    loop {
        let found = match timeout(LOOK_MAX, installed(&client, has_mesh, &namespaces)).await {
            Ok(Ok(found)) => found,
            failed => {
                match failed {
                    Ok(Err(error)) => warn!(%error, "the API server does not say what it has"),
                    _ => warn!("the API server does not answer"),
                }
                sleep(PAUSE).await;
                continue;
            }
        };
        // A reflector that ended did so because the kind was gone; it may be back.
        running.retain(|_, task| !task.0.is_finished());
        let gone: Vec<_> = running
            .keys()
            .filter(|s| !found.contains(s))
            .cloned()
            .collect();
        for source in gone {
            running.remove(&source);
            if changes.send(Change::Gone(source)).await.is_err() {
                return;
            }
        }
        note_missing(&found, &mut missing, &metrics);
        let installed = found.iter().cloned().collect();
        if changes.send(Change::Installed(installed)).await.is_err() {
            return;
        }
        for source in found {
            running.entry(source).or_insert_with_key(|source| {
                debug!(kind = %source, "is followed");
                Task(tokio::spawn(follow(
                    client.clone(),
                    source.clone(),
                    changes.clone(),
                )))
            });
        }
        tokio::select! {
            () = look.notified() => sleep(QUIET).await,
            () = ended(&mut running) => sleep(QUIET).await,
            () = sleep(LOOK_AGAIN) => {}
        }
    }
}

/// A task that ends with its owner.
pub(super) struct Task(pub(super) JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Completes when a reflector has ended.
async fn ended(running: &mut BTreeMap<Source, Task>) {
    let mut tasks = futures_util::stream::FuturesUnordered::new();
    for task in running.values_mut() {
        tasks.push(&mut task.0);
    }
    if tasks.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

fn note_missing(found: &BTreeSet<Source>, missing: &mut BTreeSet<&str>, metrics: &Metrics) {
    let kinds = KINDS.iter().filter(|(group, kind, _)| {
        let is_it = |source: &Source| &*source.group == *group && source.kind == *kind;
        !found.iter().any(is_it)
    });
    let now: BTreeSet<&str> = kinds.map(|(_, kind, _)| *kind).collect();
    for kind in now.difference(missing) {
        if NEEDED.contains(kind) {
            warn!(
                kind,
                "is not installed: install the CRDs of the Gateway API; looking again"
            );
        } else {
            info!(kind, "is not installed, it is picked up when it is");
        }
    }
    for kind in missing.difference(&now) {
        info!(kind, "is installed now");
    }
    metrics
        .kinds_missing
        .set(i64::try_from(now.len()).unwrap_or(i64::MAX));
    *missing = now
        .iter()
        .filter_map(|kind| {
            KINDS
                .iter()
                .map(|(_, known, _)| *known)
                .find(|known| known == kind)
        })
        .collect();
}

/// Every kind that is served and that we can read, in each of the namespaces if there are any.
async fn installed(
    client: &Client,
    has_mesh: bool,
    namespaces: &[Arc<str>],
) -> kube::Result<BTreeSet<Source>> {
    let groups = client.list_api_groups().await?;
    let served = groups.groups.iter().flat_map(|group| {
        let versions = group.versions.iter();
        versions.map(|version| (group.name.as_str(), version.version.as_str()))
    });
    let served: BTreeSet<(&str, &str)> = served.chain([("", "v1")]).collect();
    let mut offers: BTreeMap<(&str, &str), Vec<Offer>> = BTreeMap::new();
    let mut wanted: BTreeSet<(&str, &str)> = BTreeSet::from([(OWN_GROUP, "v1alpha1")]);
    for (group, _, versions) in KINDS {
        wanted.extend(versions.iter().map(|version| (*group, *version)));
    }
    for (group, version) in wanted {
        if offers.contains_key(&(group, version)) || !served.contains(&(group, version)) {
            continue;
        }
        let resources = if group.is_empty() {
            client.list_core_api_resources(version).await?
        } else {
            match client
                .list_api_group_resources(&format!("{group}/{version}"))
                .await
            {
                // It went between the two questions.
                Err(kube::Error::Api(status)) if status.code == 404 => continue,
                answer => answer?,
            }
        };
        let kinds = resources.resources.into_iter();
        let kinds = kinds
            .filter(|resource| !resource.name.contains('/'))
            .map(|resource| Offer {
                kind: resource.kind,
                plural: resource.name,
                is_namespaced: resource.namespaced,
            });
        offers.insert((group, version), kinds.collect());
    }
    let mut found = BTreeSet::new();
    let of_mesh = if has_mesh { MESH_KINDS } else { &[] };
    for (group, kind, versions) in KINDS.iter().chain(of_mesh) {
        let offer = versions.iter().find_map(|version| {
            let mut offered = offers.get(&(*group, *version))?.iter();
            let offer = offered.find(|offer| offer.kind == *kind)?;
            Some((*version, offer))
        });
        if let Some((version, offer)) = offer {
            found.extend(offer.sources(group, version, namespaces));
        }
    }
    for offer in offers.get(&(OWN_GROUP, "v1alpha1")).into_iter().flatten() {
        found.extend(offer.sources(OWN_GROUP, "v1alpha1", namespaces));
    }
    Ok(found)
}

/// A kind as an API server offers it.
struct Offer {
    kind: String,
    plural: String,
    is_namespaced: bool,
}

impl Offer {
    /// What is followed of it.
    fn sources(&self, group: &str, version: &str, namespaces: &[Arc<str>]) -> Vec<Source> {
        let everywhere = Source {
            group: group.into(),
            version: version.into(),
            kind: self.kind.clone(),
            plural: self.plural.clone(),
            namespace: None,
        };
        if namespaces.is_empty() || !self.is_namespaced {
            return vec![everywhere];
        }
        let within = |namespace: &Arc<str>| Source {
            namespace: Some(Arc::clone(namespace)),
            ..everywhere.clone()
        };
        namespaces.iter().map(within).collect()
    }
}

/// Says when a CRD changed; ends silently where that may not be watched.
async fn watch_crds(client: Client, look: Arc<Notify>) {
    let api: Api<PartialObjectMeta<CustomResourceDefinition>> = Api::all(client);
    let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
    let mut ready_at = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => {
                look.notify_one();
                ready_at = Some(Instant::now());
            }
            Ok(watcher::Event::InitDone) if ready_at.is_none() => ready_at = Some(Instant::now()),
            // The list after an outage: anything may have changed meanwhile.
            Ok(watcher::Event::InitDone) => look.notify_one(),
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "CRDs cannot be watched");
                sleep(Duration::from_secs(2)).await;
            }
        }
    }
}
