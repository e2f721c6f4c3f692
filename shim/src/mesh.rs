//! Leads the traffic of Services with routes to data planes, and back.
//!
//! Of each such Service a shadow keeps the endpoints: a headless Service with the same selector. Then
//! EndpointSlices lead the ports with routes to the mesh listeners of data planes and the others past
//! them, and last one more key in the selector, which no pod has as a label, makes Kubernetes take its
//! own endpoints away. Its address, name and everything else stay as they are. The way back is the
//! same in reverse. Whoever loads balances over endpoints does the rest; nothing here needs a
//! privilege on a node. Without `mesh.enabled` only what stands of an earlier time is taken away.

pub mod xmesh;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use imbl::OrdSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::cluster_view::{ClusterView, Kind, Object};
use crate::pipeline::Applied;
use crate::services::{MANAGED_LABEL, MANAGER, Wanted, data_planes};
use crate::settings::Mesh as Settings;
use crate::translate::{
    DIRECT_LABEL, FAMILIES, FRONTEND, MARK, MeshSocket, ORIGINAL_NAME, ROLE_LABEL, SHADOW,
    Translation, fingerprint,
};

/// Annotation and label that the contract knows besides.
const SHADOW_NAME: &str = "nantian.dev/mesh-shadow-service";
const ORIGINAL_NAMESPACE: &str = "nantian.dev/original-service-namespace";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// A write is not repeated before its effect had this long to come back.
const PAUSE: Duration = Duration::from_secs(2);
/// One that failed, such as for want of a right, is tried again after this.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(15);
/// Longest name of a Service.
const NAME_BYTES_MAX: usize = 63;

/// Keeps Services with routes led to data planes.
pub struct Keeper {
    /// Writes with this.
    pub client: Client,
    /// Where data planes are; absent where the mesh is off.
    pub settings: Option<Settings>,
    /// Services and their ports.
    pub applied: watch::Receiver<Applied>,
    /// Whether this replica may write.
    pub leading: watch::Receiver<bool>,
}

/// One thing to be done.
enum Task {
    Apply(Wanted),
    /// One more key in the selector, or one less.
    Mark(Arc<str>, Option<String>),
    Delete(Kind, Arc<str>),
}

impl Task {
    fn id(&self) -> (Kind, Arc<str>, String) {
        match self {
            Self::Apply(wanted) => (wanted.kind, wanted.key.clone(), wanted.hash.clone()),
            Self::Mark(key, shadow) => (Kind::Service, key.clone(), format!("mark {shadow:?}")),
            Self::Delete(kind, key) => (*kind, key.clone(), "delete".to_owned()),
        }
    }
}

impl Keeper {
    /// Writes whatever differs, for as long as this is polled.
    pub async fn run(mut self) {
        let mut sent: HashMap<(Kind, Arc<str>, String), Instant> = HashMap::new();
        loop {
            if self.leading.wait_for(|leading| *leading).await.is_err() {
                return;
            }
            let translation = self.applied.borrow_and_update().state.translation.clone();
            let now = Instant::now();
            sent.retain(|_, until| *until > now);
            let tasks = self.tasks(&translation);
            let look_again = (!tasks.is_empty()).then(|| now + PAUSE);
            for task in tasks {
                let id = task.id();
                if sent.contains_key(&id) {
                    continue;
                }
                let pause = match self.perform(&task).await {
                    Ok(()) => PAUSE,
                    Err(error) => {
                        let hint = "manifests/mesh/rbac.yaml names the rights it takes";
                        warn!(kind = %id.0, key = %id.1, %error, hint, "was not written");
                        PAUSE_AFTER_FAILURE
                    }
                };
                sent.insert(id, Instant::now() + pause);
            }
            tokio::select! {
                changed = self.applied.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = until(look_again) => {}
            }
        }
    }

    /// What there is to do, as far as it may be done by now.
    fn tasks(&self, translation: &Translation) -> Vec<Task> {
        let view = translation.view();
        let mut tasks = Vec::new();
        let frontends = translation.mesh_frontends();
        let standing = translation.mesh_standing();
        if let Some(settings) = &self.settings {
            for (key, sockets) in frontends {
                if let Some(service) = view.services.get(key) {
                    let frontend = Frontend::new(service, sockets, standing.get(key), view);
                    tasks.extend(frontend.tasks(settings, view));
                }
            }
        }
        for (key, slices) in standing
            .iter()
            .filter(|(key, _)| !frontends.contains_key(*key))
        {
            tasks.extend(give_back(key, slices, view));
        }
        tasks
    }

    async fn perform(&self, task: &Task) -> kube::Result<()> {
        let (kind, key, _) = task.id();
        let (namespace, name) = key.split_once('/').unwrap_or(("", &key));
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        match task {
            Task::Apply(wanted) => {
                let params = PatchParams::apply(MANAGER).force();
                let patch = Patch::Apply(&wanted.object);
                match kind {
                    Kind::Service => drop(services.patch(name, &params, &patch).await?),
                    _ => drop(slices.patch(name, &params, &patch).await?),
                }
            }
            Task::Mark(_, shadow) => {
                let mark = shadow.as_ref().map(|_| "true");
                let patch = json!({
                    "metadata": { "annotations": { MARK: mark, SHADOW_NAME: shadow } },
                    "spec": { "selector": { MARK: mark } },
                });
                let params = PatchParams::default();
                services.patch(name, &params, &Patch::Merge(&patch)).await?;
            }
            Task::Delete(..) => {
                let params = DeleteParams::default();
                let gone = match kind {
                    Kind::Service => services.delete(name, &params).await.map(drop),
                    _ => slices.delete(name, &params).await.map(drop),
                };
                match gone {
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    gone => gone?,
                }
            }
        }
        match task {
            Task::Apply(_) => info!(%kind, %key, "written for the mesh"),
            Task::Mark(_, Some(_)) => info!(%key, "is led to data planes"),
            Task::Mark(_, None) => info!(%key, "is led to its own endpoints again"),
            Task::Delete(..) => info!(%kind, %key, "taken away"),
        }
        Ok(())
    }
}

/// A Service that data planes shall stand in for.
struct Frontend<'a> {
    service: &'a Arc<Object<Service>>,
    sockets: &'a [MeshSocket],
    shadow: String,
    /// Slices of the shadow.
    kept: Vec<&'a Arc<Object<EndpointSlice>>>,
    /// Slices of ours that there are.
    ours: Vec<&'a Arc<Object<EndpointSlice>>>,
}

impl<'a> Frontend<'a> {
    fn new(
        service: &'a Arc<Object<Service>>,
        sockets: &'a [MeshSocket],
        slices: Option<&'a OrdSet<Arc<str>>>,
        view: &'a ClusterView,
    ) -> Self {
        let made = slices.iter().flat_map(|keys| keys.iter());
        let made = made.filter_map(|key| view.endpoint_slices.get(key));
        let (ours, kept) = made.partition(|slice| is_ours(slice));
        Self {
            service,
            sockets,
            shadow: shadow_name(service.name()),
            kept,
            ours,
        }
    }

    fn tasks(&self, settings: &Settings, view: &ClusterView) -> Vec<Task> {
        let mut tasks = Vec::new();
        let shadow = self.shadow_service();
        if !shadow.is_written(view) {
            tasks.push(Task::Apply(shadow));
        }
        if self.kept.is_empty() {
            return tasks;
        }
        let mut slices = self.frontend_slices(settings, view);
        if slices.is_empty() {
            // Nobody would answer.
            return tasks;
        }
        slices.extend(self.direct_slices());
        let ours = self.ours.iter().map(|slice| slice.key.clone());
        let mut stale: BTreeSet<Arc<str>> = ours.collect();
        for slice in slices {
            stale.remove(&slice.key);
            if !slice.is_written(view) {
                tasks.push(Task::Apply(slice));
            }
        }
        let is_ready = tasks.is_empty();
        let gone = stale.into_iter();
        tasks.extend(gone.map(|key| Task::Delete(Kind::EndpointSlice, key)));
        if is_ready && !is_marked(&self.service.value) {
            tasks.push(Task::Mark(
                self.service.key.clone(),
                Some(self.shadow.clone()),
            ));
        }
        tasks
    }

    fn shadow_service(&self) -> Wanted {
        let spec = self.service.value.spec.clone().unwrap_or_default();
        let selector = spec.selector.unwrap_or_default();
        let selector: BTreeMap<_, _> = selector
            .into_iter()
            .filter(|(key, _)| key != MARK)
            .collect();
        let ports = spec.ports.unwrap_or_default().into_iter().map(|mut port| {
            port.node_port = None;
            json!(port)
        });
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": self.metadata(&self.shadow, SHADOW),
            "spec": {
                "clusterIP": "None",
                "selector": selector,
                "ports": ports.collect::<Vec<_>>(),
                "publishNotReadyAddresses": spec.publish_not_ready_addresses.unwrap_or(false),
            },
        });
        Wanted::new(Kind::Service, self.key(&self.shadow), object)
    }

    /// The data planes' addresses, one slice for each family.
    fn frontend_slices(&self, settings: &Settings, view: &ClusterView) -> Vec<Wanted> {
        let ports = self.sockets.iter();
        let ports: Vec<_> = ports
            .map(|socket| json!({ "name": socket.name, "port": socket.bound, "protocol": "TCP" }))
            .collect();
        let slices = FAMILIES.into_iter().filter_map(|family| {
            let endpoints = data_planes(view, &settings.data_plane, family);
            let name = self.slice_name(&family.to_lowercase());
            let metadata = self.slice_metadata(&name);
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata, "addressType": family,
                "ports": ports, "endpoints": endpoints,
            });
            let wanted = Wanted::new(Kind::EndpointSlice, self.key(&name), object);
            (!endpoints.is_empty()).then_some(wanted)
        });
        slices.collect()
    }

    /// For ports without routes the endpoints as they are.
    fn direct_slices(&self) -> Vec<Wanted> {
        let is_led = |name: &str| self.sockets.iter().any(|socket| socket.name == name);
        let slices = self.kept.iter().filter_map(|kept| {
            let ports = kept.value.ports.iter().flatten();
            let ports: Vec<_> = ports
                .filter(|port| !is_led(port.name.as_deref().unwrap_or_default()))
                .collect();
            if ports.is_empty() {
                return None;
            }
            let part = format!("{:08x}", fingerprint(kept.name()) & 0xffff_ffff);
            let name = self.slice_name(&part);
            let mut metadata = self.slice_metadata(&name);
            metadata["labels"][DIRECT_LABEL] = "true".into();
            let object = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": metadata, "addressType": kept.value.address_type,
                "ports": ports, "endpoints": kept.value.endpoints,
            });
            Some(Wanted::new(Kind::EndpointSlice, self.key(&name), object))
        });
        slices.collect()
    }

    fn key(&self, name: &str) -> Arc<str> {
        format!("{}/{name}", self.service.namespace()).into()
    }

    fn slice_name(&self, part: &str) -> String {
        format!("{}-nantian-mesh-{part}", self.service.name())
    }

    fn slice_metadata(&self, name: &str) -> Value {
        let mut metadata = self.metadata(name, FRONTEND);
        metadata["labels"][SERVICE_NAME] = self.service.name().into();
        metadata["labels"]["endpointslice.kubernetes.io/managed-by"] = MANAGER.into();
        metadata
    }

    fn metadata(&self, name: &str, role: &str) -> Value {
        let (namespace, original) = (self.service.namespace(), self.service.name());
        json!({
            "namespace": namespace,
            "name": name,
            "labels": {
                ROLE_LABEL: role,
                ORIGINAL_NAME: original,
                ORIGINAL_NAMESPACE: namespace,
                MANAGED_LABEL: MANAGER,
            },
            "annotations": {},
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": original,
                "uid": self.service.value.metadata.uid,
            }],
        })
    }
}

/// Leads a Service back to its endpoints and takes away what was made for it, once they are there.
fn give_back(key: &Arc<str>, slices: &OrdSet<Arc<str>>, view: &ClusterView) -> Vec<Task> {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let shadow = shadow_name(name);
    let mut tasks = Vec::new();
    if let Some(service) = view.services.get(key) {
        if is_marked(&service.value) {
            return vec![Task::Mark(key.clone(), None)];
        }
        let has_endpoints = |service: &str| {
            let mut slices = slices_of(namespace, service, view);
            slices.any(|slice| !is_ours(slice) && !slice.value.endpoints.is_empty())
        };
        let (has_own, has_kept) = (has_endpoints(name), has_endpoints(&shadow));
        if has_kept && !has_own {
            return tasks;
        }
    }
    let ours = slices.iter().filter(|key| {
        let slice = view.endpoint_slices.get(key);
        slice.is_some_and(|slice| is_ours(slice))
    });
    tasks.extend(ours.map(|key| Task::Delete(Kind::EndpointSlice, key.clone())));
    let shadow: Arc<str> = format!("{namespace}/{shadow}").into();
    if tasks.is_empty() && view.services.get(&shadow).is_some() {
        tasks.push(Task::Delete(Kind::Service, shadow));
    }
    tasks
}

/// EndpointSlices with the name of a Service.
fn slices_of<'a>(
    namespace: &'a str,
    service: &'a str,
    view: &'a ClusterView,
) -> impl Iterator<Item = &'a Arc<Object<EndpointSlice>>> {
    view.endpoint_slices.iter().filter(move |slice| {
        let labels = slice.value.metadata.labels.as_ref();
        slice.namespace() == namespace
            && labels
                .and_then(|it| it.get(SERVICE_NAME))
                .is_some_and(|it| it == service)
    })
}

/// Made here, and not by Kubernetes for the shadow.
fn is_ours(slice: &Object<EndpointSlice>) -> bool {
    let labels = slice.value.metadata.labels.as_ref();
    let role = labels.and_then(|labels| labels.get(ROLE_LABEL));
    role.is_some_and(|role| role == FRONTEND)
}

fn is_marked(service: &Service) -> bool {
    let selector = service
        .spec
        .as_ref()
        .and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| selector.contains_key(MARK))
}

/// The name of a Service's shadow, cut and made unique where it is too long.
fn shadow_name(service: &str) -> String {
    let name = format!("nantian-gw-shadow-{service}");
    if name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let cut = name[..NAME_BYTES_MAX - 9].trim_end_matches('-');
    format!("{cut}-{:08x}", fingerprint(service) & 0xffff_ffff)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_shadows_are_names_and_tell_services_apart() {
        assert_eq!(shadow_name("cart"), "nantian-gw-shadow-cart");
        let (one, other) = (shadow_name(&"a".repeat(62)), shadow_name(&"a".repeat(63)));
        assert_ne!(one, other);
        assert!(one.len() <= NAME_BYTES_MAX, "{one}");
    }
}
