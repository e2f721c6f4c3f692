//! Routes whose parent is a Service: which mesh listeners there are, and who is sent to which.
//!
//! A data plane stands in for a port of a Service on a port of its own, the mesh listener; `mesh.rs`
//! of the crate leads the Service's traffic there. Routes of the Service's namespace serve every
//! client (producer routes), those of another one only workloads of that one (consumer routes), by a
//! listener of their own on the same port. A client that no route is meant for is sent on to the
//! Service. All of this is off unless [`super::Settings::mesh`] is there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use gateway_api::experimental::grpcroutes::GrpcRoute;
use gateway_api::experimental::httproutes::{self, HttpRouteParentRefs};
use imbl::{OrdMap, OrdSet};
use ir::http_route::{BackendRef, HttpMatch, HttpRule, PathMatch, Timeouts};
use ir::listener::{
    CONSUMER_NAMESPACE, FRONTEND_KIND, FRONTEND_NAME, FRONTEND_NAMESPACE, FRONTEND_PORT,
    ListenerProtocol, ListenerSettings,
};
use ir::resource::Metadata;
use ir::snapshot::Workload;
use ir::{BackendTarget, HttpRoute, Listener};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::allotment::{MeshPort, ports_apart};
use super::gateway::{Gateways, Parent, ParentListener, parent_key};
use super::listener::{NamespaceRule, RouteKind};
use super::{Touched, Translation, add, grpc_route, put, subtract};
use crate::cluster_view::{ClusterView, Kind, Object, Watched};

/// Label of everything made for the mesh.
pub const ROLE_LABEL: &str = "nantian.dev/service-role";
/// Role of a Service, and of its EndpointSlices, that keeps the endpoints of another one.
pub const SHADOW: &str = "mesh-backend-shadow";
/// Role of an EndpointSlice that leads a Service to data planes.
pub const FRONTEND: &str = "mesh-frontend";
/// Label that names the Service something of the mesh was made for.
pub const ORIGINAL_NAME: &str = "nantian.dev/original-service-name";
/// Annotation of a Service that data planes stand in for, and in its selector, where it lets no pod
/// match.
pub const MARK: &str = "nantian.dev/mesh-frontend";

/// A port of a Service that data planes stand in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeshSocket {
    /// Name of the port; empty for none.
    pub name: String,
    /// Number of the port.
    pub port: u16,
    /// Where data planes listen for it.
    pub bound: NonZeroU16,
    /// The listener that serves every client.
    pub listener: Arc<str>,
}

/// A reference of a route to a Service: the Service, the route's namespace and a port or 0.
type Reference = (Arc<str>, Arc<str>, u16);

/// Everything that follows from references to Services.
#[derive(Clone, Debug, Default)]
pub(super) struct Mesh {
    /// How many references there are.
    references: OrdMap<Reference, usize>,
    /// EndpointSlices made for the mesh, by the Service they were made for.
    standing: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    /// Ports that these lead to; while they do, no Gateway can have them.
    pub(super) led: Arc<BTreeSet<NonZeroU16>>,
    /// Ports of the range that Gateways have.
    of_gateways: BTreeSet<NonZeroU16>,
    /// Services as routes see them, by [`parent_key`].
    pub(super) parents: Arc<BTreeMap<Arc<str>, Arc<Parent>>>,
    sockets: Arc<BTreeMap<Arc<str>, Vec<MeshSocket>>>,
    /// Of these, the ones that routes are attached to.
    active: Arc<BTreeMap<Arc<str>, Vec<MeshSocket>>>,
    /// Listeners in the snapshot.
    listeners: BTreeSet<Arc<str>>,
    /// Routes in the snapshot that send on who is not meant by any other.
    defaults: BTreeSet<Arc<str>>,
    /// Namespaces whose workloads are told apart.
    consumers: BTreeSet<Arc<str>>,
}

/// The listener that a route of `namespace` attaches to, given that for every client.
pub(super) fn listener_of(listener: &Arc<str>, parent: &Parent, namespace: &str) -> Arc<str> {
    if parent.kind == Kind::Service && parent.namespace != namespace {
        return format!("{listener}@{namespace}").into();
    }
    listener.clone()
}

/// Services that a route stands in front of; none where a Gateway is among its parents.
pub(super) fn fronts(references: &[HttpRouteParentRefs], namespace: &str) -> BTreeSet<String> {
    if references.iter().any(|reference| !is_service(reference)) {
        return BTreeSet::new();
    }
    let key = |reference: &HttpRouteParentRefs| service_of(reference, namespace);
    references.iter().map(key).collect()
}

fn is_service(reference: &HttpRouteParentRefs) -> bool {
    reference.group.as_deref() == Some("") && reference.kind.as_deref() == Some("Service")
}

fn service_of(reference: &HttpRouteParentRefs, namespace: &str) -> String {
    let namespace = reference.namespace.as_deref().unwrap_or(namespace);
    format!("{namespace}/{}", reference.name)
}

fn references<T: Watched>(
    object: Option<&Arc<Object<T>>>,
    parents: impl Fn(&T) -> Vec<HttpRouteParentRefs>,
) -> Vec<Reference> {
    let Some(object) = object else {
        return Vec::new();
    };
    let namespace = object.namespace();
    let parents = parents(&object.value);
    let ours = parents.iter().filter(|reference| is_service(reference));
    let make = |reference: &HttpRouteParentRefs| {
        let port = reference.port.and_then(|port| u16::try_from(port).ok());
        let service = service_of(reference, namespace).into();
        (service, namespace.into(), port.unwrap_or_default())
    };
    ours.map(make).collect()
}

/// The role of a slice in the mesh, and the Service it was made for.
pub(super) fn role(slice: &Object<EndpointSlice>) -> Option<(&str, Arc<str>)> {
    let labels = slice.value.metadata.labels.as_ref()?;
    let role = labels.get(ROLE_LABEL)?;
    let name = labels.get(ORIGINAL_NAME)?;
    Some((role, format!("{}/{name}", slice.namespace()).into()))
}

impl Mesh {
    /// Brings the books up to date; gives back the Services that routes see differently. `is_touched`
    /// is what [`Self::note_slices`] said.
    pub(super) fn update(
        &mut self,
        before: &ClusterView,
        view: &ClusterView,
        services: &BTreeSet<Arc<str>>,
        gateways: &Gateways,
        range: Option<(NonZeroU16, NonZeroU16)>,
        mut is_touched: bool,
    ) -> BTreeSet<Arc<str>> {
        let Some(range) = range else {
            return BTreeSet::new();
        };
        let of_gateways = gateways.ports_within(range);
        is_touched |= of_gateways != self.of_gateways;
        self.of_gateways = of_gateways;
        is_touched |= self.count(before, view);
        is_touched |= services
            .iter()
            .any(|service| self.knows(service) || self.standing.contains_key(service));
        if !is_touched {
            return BTreeSet::new();
        }
        let old = Arc::clone(&self.parents);
        self.rebuild(view, range);
        let keys = old.keys().chain(self.parents.keys());
        keys.filter(|key| old.get(*key) != self.parents.get(*key))
            .cloned()
            .collect()
    }

    fn knows(&self, service: &Arc<str>) -> bool {
        let first: Reference = (service.clone(), "".into(), 0);
        let mut range = self.references.range(first..);
        range.next().is_some_and(|(found, _)| found.0 == *service)
    }

    fn count(&mut self, before: &ClusterView, view: &ClusterView) -> bool {
        let mut changes: Vec<(Vec<Reference>, Vec<Reference>)> = Vec::new();
        for (old, new) in before.http_routes.changes(&view.http_routes) {
            let of = |object| references(object, |it: &httproutes::HttpRoute| parents_of(&it.spec));
            changes.push((of(old), of(new)));
        }
        for (old, new) in before.grpc_routes.changes(&view.grpc_routes) {
            let of =
                |object| references(object, |it: &GrpcRoute| grpc_route::parent_refs(&it.spec));
            changes.push((of(old), of(new)));
        }
        let mut is_touched = false;
        for (old, new) in changes.into_iter().filter(|(old, new)| old != new) {
            is_touched = true;
            old.iter().for_each(|it| subtract(&mut self.references, it));
            new.iter().for_each(|it| add(&mut self.references, it));
        }
        is_touched
    }

    /// Brings what stands up to date, which is known without a mesh, too; true when that changed.
    pub(super) fn note_slices(
        &mut self,
        before: &ClusterView,
        view: &ClusterView,
        range: Option<(NonZeroU16, NonZeroU16)>,
    ) -> bool {
        let mut is_touched = false;
        for (old, new) in before.endpoint_slices.changes(&view.endpoint_slices) {
            if let Some((slice, (_, service))) = old.and_then(|slice| Some((slice, role(slice)?))) {
                let mut known = self.standing.remove(&service).unwrap_or_default();
                known.remove(&slice.key);
                if !known.is_empty() {
                    self.standing.insert(service, known);
                }
                is_touched = true;
            }
            if let Some((slice, (_, service))) = new.and_then(|slice| Some((slice, role(slice)?))) {
                let known = self.standing.entry(service).or_default();
                known.insert(slice.key.clone());
                is_touched = true;
            }
        }
        if let (true, Some((first, last))) = (is_touched, range) {
            let services = self.standing.keys();
            let led = services.flat_map(|service| self.bound(service, view).into_values());
            self.led = Arc::new(led.filter(|port| (first..=last).contains(port)).collect());
        }
        is_touched
    }

    fn rebuild(&mut self, view: &ClusterView, range: (NonZeroU16, NonZeroU16)) {
        let mut asked: BTreeMap<Arc<str>, BTreeSet<u16>> = BTreeMap::new();
        for ((service, _, port), _) in &self.references {
            asked.entry(service.clone()).or_default().insert(*port);
        }
        let mut wanted = Vec::new();
        for (key, numbers) in &asked {
            if let Some(service) = view.services.get(key)
                && refusal(&service.value).is_none()
            {
                wanted.extend(ports(&service.value, numbers).map(|port| (key.clone(), port)));
            }
        }
        let standing = self.standing.keys();
        let bound: BTreeMap<Arc<str>, BTreeMap<String, NonZeroU16>> = standing
            .map(|key| (key.clone(), self.bound(key, view)))
            .collect();
        // A port that is led to data planes stays open until it is not any more.
        for (key, bound) in &bound {
            let Some(service) = view.services.get(key) else {
                continue;
            };
            let ports = service.value.spec.iter().flat_map(|it| it.ports.iter());
            for port in ports
                .flatten()
                .filter(|port| bound.contains_key(name_of(port)))
            {
                if !wanted
                    .iter()
                    .any(|(known, it)| known == key && it.port == port.port)
                {
                    wanted.push((key.clone(), port));
                }
            }
        }
        let ports = wanted.iter().map(|(key, port)| MeshPort {
            service: key,
            name: name_of(port),
            known: bound.get(key).and_then(|it| it.get(name_of(port))).copied(),
        });
        let places = ports_apart(&ports.collect::<Vec<_>>(), range, &self.of_gateways);
        let mut sockets: BTreeMap<Arc<str>, Vec<MeshSocket>> = BTreeMap::new();
        for ((key, port), bound) in wanted.iter().zip(places) {
            let (Some(bound), Ok(number)) = (bound, u16::try_from(port.port)) else {
                continue;
            };
            sockets.entry(key.clone()).or_default().push(MeshSocket {
                name: name_of(port).to_owned(),
                port: number,
                bound,
                listener: format!("mesh/{key}/{bound}").into(),
            });
        }
        let parents = asked.keys().filter_map(|key| {
            let service = view.services.get(key)?;
            let parent = parent(service, sockets.get(key).map_or(&[], |it| it));
            let key = parent_key("Service", service.namespace(), service.name());
            Some((key, Arc::new(parent)))
        });
        self.parents = Arc::new(parents.collect());
        self.sockets = Arc::new(sockets);
    }

    /// Where data planes listen for the ports of a Service already, by port names.
    fn bound(&self, service: &str, view: &ClusterView) -> BTreeMap<String, NonZeroU16> {
        let slices = self.standing.get(service).into_iter().flatten();
        let slices = slices.filter_map(|key| view.endpoint_slices.get(key));
        let ours = slices.filter(|slice| {
            let labels = slice.value.metadata.labels.as_ref();
            role(slice).is_some_and(|(role, _)| role == FRONTEND)
                && labels.is_some_and(|labels| !labels.contains_key(DIRECT_LABEL))
        });
        let ports = ours.flat_map(|slice| slice.value.ports.iter().flatten());
        let pair = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
            let bound = NonZeroU16::new(u16::try_from(port.port?).ok()?)?;
            Some((port.name.clone().unwrap_or_default(), bound))
        };
        ports.filter_map(pair).collect()
    }
}

/// Label of an EndpointSlice of the mesh that leads past data planes, for ports without routes.
pub const DIRECT_LABEL: &str = "nantian.dev/mesh-direct";

fn parents_of(spec: &httproutes::HttpRouteSpec) -> Vec<HttpRouteParentRefs> {
    spec.parent_refs.clone().unwrap_or_default()
}

fn name_of(port: &ServicePort) -> &str {
    port.name.as_deref().unwrap_or_default()
}

/// Why no route can have this Service as its parent.
fn refusal(service: &Service) -> Option<&'static str> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return Some("it is of type ExternalName, which has no address of its own");
    }
    if spec.cluster_ip.as_deref() == Some("None") {
        return Some("it is headless, so its clients go to its pods themselves");
    }
    let selector = spec.selector.as_ref();
    if selector.is_none_or(|selector| selector.keys().all(|key| key == MARK)) {
        return Some("it has no selector, and its endpoints cannot be kept apart without one");
    }
    None
}

/// The ports that are meant by these numbers, of which 0 means all that may speak HTTP.
fn ports<'a>(
    service: &'a Service,
    numbers: &'a BTreeSet<u16>,
) -> impl Iterator<Item = &'a ServicePort> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter());
    ports.flatten().filter(|port| {
        let is_tcp = port.protocol.as_deref().is_none_or(|it| it == "TCP");
        let number = u16::try_from(port.port).unwrap_or_default();
        is_tcp && (numbers.contains(&number) || (numbers.contains(&0) && may_speak_http(port)))
    })
}

/// False where the port says that it speaks something else, or looks very much like it.
fn may_speak_http(port: &ServicePort) -> bool {
    match port.app_protocol.as_deref() {
        Some(protocol) => {
            let protocol = protocol.to_ascii_lowercase();
            let plain = protocol.strip_prefix("kubernetes.io/").unwrap_or(&protocol);
            matches!(plain, "http" | "h2c" | "ws" | "grpc")
        }
        None => {
            let name = name_of(port);
            let is_other = ["https", "tls", "tcp"]
                .iter()
                .any(|it| name.starts_with(it));
            port.port != 443 && !is_other
        }
    }
}

fn parent(service: &Object<Service>, sockets: &[MeshSocket]) -> Parent {
    let listeners = sockets.iter().map(|socket| ParentListener {
        name: socket.listener.clone(),
        section: match socket.name.as_str() {
            "" => socket.port.to_string(),
            name => name.to_owned(),
        },
        port: socket.port,
        hostname: None,
        kinds: vec![RouteKind::Http, RouteKind::Grpc],
        namespaces: NamespaceRule::All,
        serves: true,
        passes_tls: false,
    });
    Parent {
        kind: Kind::Service,
        key: service.key.clone(),
        namespace: service.namespace().to_owned(),
        is_ours: true,
        refusal: refusal(&service.value).map(str::to_owned),
        listeners: listeners.collect(),
    }
}

impl Translation {
    /// Services that routes are attached to, and the ports that data planes stand in for.
    pub fn mesh_frontends(&self) -> &BTreeMap<Arc<str>, Vec<MeshSocket>> {
        &self.mesh.active
    }

    /// Services that something of the mesh was made for, and the EndpointSlices among that.
    pub fn mesh_standing(&self) -> &OrdMap<Arc<str>, OrdSet<Arc<str>>> {
        &self.mesh.standing
    }

    /// Puts mesh listeners into the snapshot, and what goes with them; routes are attached by now.
    pub(super) fn update_mesh(&mut self, before: &Self, touched: &mut Touched) {
        if self.settings.mesh.is_none() {
            return;
        }
        let mut mesh = std::mem::take(&mut self.mesh);
        let sockets = Arc::clone(&mesh.sockets);
        let mut active: BTreeMap<Arc<str>, Vec<MeshSocket>> = BTreeMap::new();
        let (mut listeners, mut defaults) = (BTreeSet::new(), BTreeMap::new());
        let mut consumers = BTreeSet::new();
        for (service, socket) in sockets
            .iter()
            .flat_map(|(service, sockets)| sockets.iter().map(move |socket| (service, socket)))
        {
            let own = self.consumers_of(&socket.listener);
            let is_attached = self.attached.contains_key(&socket.listener);
            if is_attached || !own.is_empty() {
                let known = active.entry(service.clone()).or_default();
                known.push(socket.clone());
            } else if !mesh.standing.contains_key(service) {
                continue;
            }
            let listener = listener(service, socket, None);
            listeners.insert(listener.name.clone());
            put(
                &mut self.snapshot.listeners,
                &socket.listener,
                Some(listener.into()),
            );
            for namespace in own {
                let listener = self::listener(service, socket, Some(&namespace));
                listeners.insert(listener.name.clone());
                let name = listener.name.clone();
                put(&mut self.snapshot.listeners, &name, Some(listener.into()));
                consumers.insert(namespace);
            }
            if !is_attached {
                let route = default_route(service, socket);
                defaults.insert(route.key.clone(), route);
            }
        }
        for gone in mesh.listeners.difference(&listeners) {
            self.snapshot.listeners.remove(gone);
        }
        for gone in mesh
            .defaults
            .iter()
            .filter(|it| !defaults.contains_key(*it))
        {
            self.snapshot.http_routes.remove(gone);
            subtract(&mut self.uses, gone);
            touched.0.insert(gone.clone());
        }
        for (key, route) in &defaults {
            if !mesh.defaults.contains(key) {
                add(&mut self.uses, key);
                touched.0.insert(key.clone());
            }
            put(
                &mut self.snapshot.http_routes,
                key,
                Some(Arc::new(route.clone())),
            );
        }
        mesh.active = Arc::new(active);
        mesh.listeners = listeners;
        mesh.defaults = defaults.into_keys().collect();
        if consumers != mesh.consumers || !before.view.pods.is_same(&self.view.pods) {
            let workloads = workloads(&consumers, &self.view);
            if *self.snapshot.workloads != *workloads {
                self.snapshot.workloads = workloads.into();
            }
            mesh.consumers = consumers;
        }
        self.mesh = mesh;
    }

    /// Namespaces with routes of their own at this listener.
    fn consumers_of(&self, listener: &str) -> Vec<Arc<str>> {
        let first: Arc<str> = format!("{listener}@").into();
        let own = self.attached.range(first.clone()..).map(|(name, _)| name);
        own.map_while(|name| name.strip_prefix(&*first))
            .map(Arc::from)
            .collect()
    }
}

fn listener(service: &str, socket: &MeshSocket, consumer: Option<&str>) -> Listener {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    let port = socket.port.to_string();
    let pairs = [
        (FRONTEND_KIND, "Service"),
        (FRONTEND_NAMESPACE, namespace),
        (FRONTEND_NAME, name),
        (FRONTEND_PORT, &port),
    ];
    let consumer_pair = consumer.map(|consumer| (CONSUMER_NAMESPACE, consumer));
    let metadata: Metadata = pairs
        .into_iter()
        .chain(consumer_pair)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Listener {
        name: match consumer {
            Some(namespace) => format!("{}@{namespace}", socket.listener).into(),
            None => socket.listener.clone(),
        },
        addresses: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        port: socket.bound,
        protocol: ListenerProtocol::Http,
        hostnames: Vec::new(),
        tls: None,
        metadata,
        backend_client_certificate: None,
        security_policy: None,
        settings: ListenerSettings {
            public_port: NonZeroU16::new(socket.port),
            ..ListenerSettings::default()
        },
        plugins: Vec::new(),
    }
}

/// Sends everything on to the Service, as without a mesh. Its key is that of its cluster, which no
/// object's key can be.
fn default_route(service: &Arc<str>, socket: &MeshSocket) -> HttpRoute {
    let (namespace, name) = service.split_once('/').unwrap_or(("", service));
    let target = BackendTarget::new("", "Service", namespace, name, NonZeroU16::new(socket.port));
    HttpRoute {
        key: target.display.clone(),
        hostnames: Vec::new(),
        listeners: vec![socket.listener.clone()],
        parent_refs: Vec::new(),
        rules: vec![HttpRule {
            name: None,
            matches: vec![HttpMatch {
                path: PathMatch::Prefix("/".to_owned()),
                method: None,
                headers: Vec::new(),
                query_params: Vec::new(),
            }],
            filters: Vec::new(),
            backends: vec![BackendRef {
                target,
                weight: 1,
                filters: Vec::new(),
            }],
            timeouts: Timeouts::default(),
            retry: None,
            session_persistence: None,
            plugins: Vec::new(),
        }],
        labels: Metadata::default(),
        annotations: Metadata::default(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}

/// Pods of these namespaces that have an address of their own.
fn workloads(namespaces: &BTreeSet<Arc<str>>, view: &ClusterView) -> Vec<Workload> {
    if namespaces.is_empty() {
        return Vec::new();
    }
    let mut workloads = Vec::new();
    for pod in view
        .pods
        .iter()
        .filter(|pod| namespaces.contains(pod.namespace()))
    {
        let status = pod.value.status.as_ref();
        let single = status.and_then(|it| it.pod_ip.as_deref());
        let all = status
            .and_then(|it| it.pod_ips.as_deref())
            .unwrap_or_default();
        let all = all.iter().map(|it| it.ip.as_str()).chain(single);
        let addresses: BTreeSet<IpAddr> = all.filter_map(|it| it.parse().ok()).collect();
        workloads.extend(addresses.into_iter().map(|ip| Workload {
            namespace: pod.namespace().to_owned(),
            name: pod.name().to_owned(),
            ip,
        }));
    }
    workloads
}
