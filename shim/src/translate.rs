//! Pure: cluster view → snapshot and conditions.
//!
//! [`translate`] is the conductor. It is a function of the view and the settings alone; a previous
//! [`Translation`] only saves work: whatever did not change, and depends on nothing that did, is
//! taken over. The law, held by tests: `translate(view, Some(any)) == translate(view, None)`. Callers
//! are `serve` and `check`; nothing here reads files, opens sockets or knows the time.

mod ai;
mod allotment;
mod annotation;
mod attachment;
mod backend;
mod backend_identity;
mod backend_tls;
mod certificate;
mod client_certificate;
mod conflict;
mod counts;
mod filter;
mod gateway;
mod grpc_route;
mod http_route;
mod listener;
mod listener_name;
mod listener_set;
mod mesh;
mod notes;
mod own_policy;
mod policy;
mod reference;
mod refused;
mod rivals;
mod route;
mod route_annotation;
mod settings;
mod stream_route;
mod tls_option;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use imbl::{OrdMap, OrdSet};
use ir::http_route::{GrpcRule, HttpRule};
use ir::stream_route::{StreamKind, StreamRoute, StreamRule};
use ir::{Resources, Snapshot, Violation, Violations};

use self::ai::AiServices;
pub use self::allotment::{FAMILIES, fingerprint, port_name, service_key, slice_key};
use self::backend_tls::{Policies, Reached};
pub use self::certificate::keep_former_certificates;
use self::gateway::Gateways;
use self::mesh::Mesh;
pub use self::mesh::{DIRECT_LABEL, FRONTEND, MARK, MeshSocket, ORIGINAL_NAME, ROLE_LABEL, SHADOW};
use self::own_policy::{Budgets, OwnPolicies};
use self::reference::Grants;
pub use self::refused::{PartKind, PartName, Refused};
use self::rivals::{Lost, Rivals};
use self::route::Outcome;
pub use self::settings::{Addressing, CONTROLLER_NAME, Classes, PortMap, Settings};
use crate::cluster_view::{ClusterView, Kind, Objects, Watched};
use crate::conditions::ObjectStatus;

/// Label of Services that were made for a Gateway (Gateway API `GatewayNameLabelKey`).
pub const GATEWAY_NAME_LABEL: &str = "gateway.networking.k8s.io/gateway-name";
/// API group of the Gateway API.
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// A view translated: the snapshot for data planes, and what each object is told.
///
/// Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Translation {
    settings: Settings,
    view: ClusterView,
    snapshot: Snapshot,
    statuses: OrdMap<(Kind, Arc<str>), Arc<ObjectStatus>>,
    gateways: Arc<Gateways>,
    grants: Arc<Grants>,
    own_policies: Arc<OwnPolicies>,
    policies: Arc<Policies>,
    ai: Arc<AiServices>,
    /// Budgets that clusters have by the HTTPRoutes that lead there.
    budgets: Arc<Budgets>,
    http: Memos<HttpRule>,
    grpc: Memos<GrpcRule>,
    rivals: Rivals,
    tcp: Memos<StreamRule>,
    udp: Memos<StreamRule>,
    tls: Memos<StreamRule>,
    /// How many routes each listener took.
    attached: OrdMap<Arc<str>, usize>,
    /// How many routes lead from each Gateway to each Service.
    reached: Reached,
    /// How many routes send to each cluster.
    uses: OrdMap<Arc<str>, usize>,
    /// EndpointSlices of each Service.
    slices: OrdMap<Arc<str>, OrdSet<Arc<str>>>,
    /// What follows from routes with Services as parents.
    mesh: Mesh,
    /// Clusters that were left out, and why.
    cluster_faults: OrdMap<Arc<str>, Violations>,
    /// What differs from the above because data planes refuse some of it, see [`refused`].
    served: Option<Served>,
}

/// The part of a translation that others see, without what data planes refuse.
#[derive(Clone, Debug)]
struct Served {
    snapshot: Snapshot,
    statuses: OrdMap<(Kind, Arc<str>), Arc<ObjectStatus>>,
    cluster_faults: OrdMap<Arc<str>, Violations>,
}

/// What became of every route of a kind.
type Memos<R> = OrdMap<Arc<str>, Arc<Outcome<R>>>;

impl Translation {
    /// The snapshot; its version is empty, naming it is up to whoever serves it.
    pub fn snapshot(&self) -> &Snapshot {
        self.served
            .as_ref()
            .map_or(&self.snapshot, |served| &served.snapshot)
    }

    /// The snapshot as it would be if no data plane refused anything.
    pub fn wanted(&self) -> &Snapshot {
        &self.snapshot
    }

    /// What every object is told, by kind and key.
    pub fn statuses(&self) -> impl Iterator<Item = &Arc<ObjectStatus>> {
        self.all_statuses().values()
    }

    /// What one object is told; nothing when there is nothing to say about it.
    pub fn status(&self, kind: Kind, key: &str) -> Option<&ObjectStatus> {
        self.all_statuses()
            .get(&(kind, Arc::from(key)))
            .map(|status| &**status)
    }

    /// Every fault that keeps an object out of the snapshot.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.statuses()
            .flat_map(|status| &status.violations)
            .chain(self.cluster_violations())
    }

    /// Every fault that keeps a cluster out of the snapshot; a Service has no conditions of its own.
    pub fn cluster_violations(&self) -> impl Iterator<Item = &Violation> {
        let faults = self
            .served
            .as_ref()
            .map_or(&self.cluster_faults, |served| &served.cluster_faults);
        faults.values().flat_map(Violations::iter)
    }

    fn all_statuses(&self) -> &OrdMap<(Kind, Arc<str>), Arc<ObjectStatus>> {
        self.served
            .as_ref()
            .map_or(&self.statuses, |served| &served.statuses)
    }
}

/// Translates a view; `previous` may be any earlier translation.
pub fn translate(
    view: &ClusterView,
    settings: &Settings,
    previous: Option<&Translation>,
) -> Translation {
    let fresh;
    let before = match previous {
        Some(previous) if previous.settings == *settings => previous,
        _ => {
            fresh = Translation {
                settings: settings.clone(),
                ..Translation::default()
            };
            &fresh
        }
    };
    let mut next = Translation {
        view: view.clone(),
        served: None,
        ..before.clone()
    };
    let changed = next.update_surroundings(before);
    let mut touched = Touched::default();
    let http = next.update_http_routes(before, &changed, &mut touched);
    let grpc = next.update_grpc_routes(before, &changed, &mut touched);
    let routes = [(Kind::HttpRoute, http), (Kind::GrpcRoute, grpc)];
    next.update_rivals(before, routes, &mut touched);
    next.update_tcp_routes(before, &changed, &mut touched);
    next.update_udp_routes(before, &changed, &mut touched);
    next.update_tls_routes(before, &changed, &mut touched);
    next.update_mesh(before, &mut touched);
    next.update_budgets(before, &mut touched);
    next.update_plugins(before, &mut touched);
    next.update_clusters(&changed, &touched);
    next.publish_secrets(before, &touched);
    next.update_policy_statuses(before);
    next.update_gateway_statuses(before);
    next.update_ai_statuses(before);
    next.update_own_policy_statuses(before);
    next
}

/// Objects that changed and that routes and clusters may depend on.
#[derive(Debug, Default)]
struct Changed {
    gateways: BTreeSet<Arc<str>>,
    namespaces: BTreeSet<Arc<str>>,
    grants: bool,
    /// Services that routes see differently.
    services: BTreeSet<Arc<str>>,
    direct_responses: BTreeSet<Arc<str>>,
    /// AIServices that routes see differently.
    ai_services: BTreeSet<Arc<str>>,
    /// Clusters of AIServices that must be built again.
    ai_clusters: BTreeSet<Arc<str>>,
    /// Services whose clusters must be built again.
    endpoints: BTreeSet<Arc<str>>,
}

impl Changed {
    fn concerns_routes(&self) -> bool {
        self.grants
            || !self.gateways.is_empty()
            || !self.namespaces.is_empty()
            || !self.services.is_empty()
            || !self.ai_services.is_empty()
            || !self.direct_responses.is_empty()
    }
}

/// Clusters whose use by routes may be other than before.
#[derive(Debug, Default)]
struct Touched(BTreeSet<Arc<str>>);

/// What a route is translated with.
struct Scope<'a> {
    view: &'a ClusterView,
    gateways: &'a Gateways,
    grants: &'a Grants,
    policies: &'a Policies,
    ai: &'a AiServices,
    /// Absent where routes cannot have Services as parents.
    mesh: Option<&'a Mesh>,
    /// Listeners that routes of another kind have got before it.
    lost: Option<&'a Lost>,
    /// Services that the route stands in front of.
    fronts: BTreeSet<String>,
    /// What the route carries is TLS already, up to the backend.
    passes_tls: bool,
    /// Kind of the route.
    kind: &'static str,
    /// Namespace of the route.
    namespace: &'a str,
}

impl<'a> Scope<'a> {
    /// The same for a route with these parents.
    fn with_parents(&self, parents: &[HttpRouteParentRefs]) -> Self {
        let fronts = match self.mesh {
            Some(_) => mesh::fronts(parents, self.namespace),
            None => BTreeSet::new(),
        };
        Self { fronts, ..*self }
    }

    /// True for routes of bytes.
    fn is_stream(&self) -> bool {
        [Kind::TcpRoute, Kind::TlsRoute, Kind::UdpRoute]
            .iter()
            .any(|kind| kind.as_str() == self.kind)
    }

    /// Labels of the route's namespace.
    fn namespace_labels(&self) -> BTreeMap<String, String> {
        self.view.namespace_labels(self.namespace)
    }
}

impl Translation {
    /// Brings everything but routes and clusters up to date; tells what that changes for them.
    fn update_surroundings(&mut self, before: &Self) -> Changed {
        let (old, new) = (&before.view, &self.view);
        let mut changed = Changed {
            namespaces: changed_keys(&old.namespaces, &new.namespaces),
            services: changed_keys(&old.services, &new.services),
            direct_responses: changed_keys(&old.direct_responses, &new.direct_responses),
            ..Changed::default()
        };
        let imports = changed_keys(&old.service_imports, &new.service_imports);
        let imports = imports.iter().map(|key| backend::import_key(key));
        changed.services.extend(imports);
        if !old.reference_grants.is_same(&new.reference_grants) {
            let grants = Grants::new(new);
            if grants != *before.grants {
                self.grants = Arc::new(grants);
                changed.grants = true;
            }
        }
        let is_same = old.backend_tls_policies.is_same(&new.backend_tls_policies)
            && old.config_maps.is_same(&new.config_maps)
            && old.secrets.is_same(&new.secrets);
        if !is_same {
            let policies = Policies::new(new, &before.policies);
            let services = policies.changed_services(&before.policies);
            changed.services.extend(services);
            self.policies = Arc::new(policies);
        }
        let is_mesh_touched = self.mesh.note_slices(old, new, self.settings.mesh);
        let is_same = self.mesh.led == before.mesh.led
            && old.gateway_classes.is_same(&new.gateway_classes)
            && old.gateways.is_same(&new.gateways)
            && old.listener_sets.is_same(&new.listener_sets)
            && (new.listener_sets.is_empty() || old.namespaces.is_same(&new.namespaces))
            && old.secrets.is_same(&new.secrets)
            && old.config_maps.is_same(&new.config_maps)
            && !allotment::is_moved(old, new, &self.settings)
            && !changed.grants;
        if !is_same {
            changed.gateways = self.update_gateways(before);
        }
        let (old, new) = (&before.view, &self.view);
        let parents = self.mesh.update(
            old,
            new,
            &changed.services,
            &self.gateways,
            self.settings.mesh,
            is_mesh_touched,
        );
        changed.gateways.extend(parents);
        if OwnPolicies::is_concerned(&before.view, &self.view) {
            let policies = OwnPolicies::new(&self.view, &self.grants, &before.own_policies);
            if policies != *before.own_policies {
                self.own_policies = Arc::new(policies);
            }
        }
        self.publish_listeners(before);
        self.update_ai_services(before, &mut changed);
        let policies = self.own_policies.changed_services(&before.own_policies);
        changed.endpoints = self.update_slices(&before.view);
        changed.endpoints.extend(policies);
        let budgets = self.own_policies.changed_ai_clusters(&before.own_policies);
        changed.ai_clusters.extend(budgets);
        changed.endpoints.extend(changed.services.iter().cloned());
        changed
    }

    /// Translates the Gateways again; gives back those that routes see differently.
    fn update_gateways(&mut self, before: &Self) -> BTreeSet<Arc<str>> {
        let gateways = gateway::translate(
            &self.view,
            &self.settings,
            &self.grants,
            &self.mesh.led,
            &before.gateways,
        );
        let (old, new) = (&before.gateways.parents, &gateways.parents);
        let keys = old.keys().chain(new.keys());
        let changed = keys
            .filter(|key| old.get(*key) != new.get(*key))
            .cloned()
            .collect();
        self.gateways = Arc::new(gateways);
        changed
    }

    /// Brings the index of EndpointSlices up to date; gives back the Services concerned.
    fn update_slices(&mut self, before: &ClusterView) -> BTreeSet<Arc<str>> {
        let mut concerned = BTreeSet::new();
        for (old, new) in before.endpoint_slices.changes(&self.view.endpoint_slices) {
            let of = |slice| backend::services_of(slice).into_iter();
            for (service, slice) in old
                .into_iter()
                .flat_map(|slice| of(slice).map(move |service| (service, slice)))
            {
                let mut known = self.slices.remove(&service).unwrap_or_default();
                known.remove(&slice.key);
                if !known.is_empty() {
                    self.slices.insert(service.clone(), known);
                }
                concerned.insert(service);
            }
            for (service, slice) in new
                .into_iter()
                .flat_map(|slice| of(slice).map(move |service| (service, slice)))
            {
                self.slices
                    .entry(service.clone())
                    .or_default()
                    .insert(slice.key.clone());
                concerned.insert(service);
            }
        }
        concerned
    }

    fn update_http_routes(
        &mut self,
        before: &Self,
        changed: &Changed,
        touched: &mut Touched,
    ) -> BTreeSet<Arc<str>> {
        let (old, new) = (&before.view.http_routes, &self.view.http_routes);
        let stale = stale(old, new, &self.http, changed);
        self.translate_http_routes(&stale, touched);
        if self.own_policies.differs_in_front(&before.own_policies) {
            for (key, outcome) in &self.http {
                let route = outcome.route.clone();
                let route = route.map(|route| own_policy::http_route(&self.own_policies, route));
                put(&mut self.snapshot.http_routes, key, route);
            }
        }
        stale
    }

    fn translate_http_routes(&mut self, keys: &BTreeSet<Arc<str>>, touched: &mut Touched) {
        let kind = Kind::HttpRoute;
        let mut memos = std::mem::take(&mut self.http);
        for key in keys {
            let outcome = self.view.http_routes.get(key).map(|object| {
                let lost = self.rivals.lost(kind, key);
                let scope = self.scope(object.namespace(), kind);
                http_route::translate(object, &Scope { lost, ..scope })
            });
            self.settle(kind, key, &mut memos, outcome, touched);
            let route = memos.get(key).and_then(|outcome| outcome.route.clone());
            let route = route.map(|route| own_policy::http_route(&self.own_policies, route));
            put(&mut self.snapshot.http_routes, key, route);
        }
        self.http = memos;
    }

    fn update_grpc_routes(
        &mut self,
        before: &Self,
        changed: &Changed,
        touched: &mut Touched,
    ) -> BTreeSet<Arc<str>> {
        let (old, new) = (&before.view.grpc_routes, &self.view.grpc_routes);
        let stale = stale(old, new, &self.grpc, changed);
        self.translate_grpc_routes(&stale, touched);
        if self.own_policies.differs_in_front(&before.own_policies) {
            for (key, outcome) in &self.grpc {
                let route = outcome.route.clone();
                let route = route.map(|route| own_policy::grpc_route(&self.own_policies, route));
                put(&mut self.snapshot.grpc_routes, key, route);
            }
        }
        stale
    }

    fn translate_grpc_routes(&mut self, keys: &BTreeSet<Arc<str>>, touched: &mut Touched) {
        let kind = Kind::GrpcRoute;
        let mut memos = std::mem::take(&mut self.grpc);
        for key in keys {
            let outcome = self.view.grpc_routes.get(key).map(|object| {
                let lost = self.rivals.lost(kind, key);
                let scope = self.scope(object.namespace(), kind);
                grpc_route::translate(object, &Scope { lost, ..scope })
            });
            self.settle(kind, key, &mut memos, outcome, touched);
            let route = memos.get(key).and_then(|outcome| outcome.route.clone());
            let route = route.map(|route| own_policy::grpc_route(&self.own_policies, route));
            put(&mut self.snapshot.grpc_routes, key, route);
        }
        self.grpc = memos;
    }

    fn update_tcp_routes(&mut self, before: &Self, changed: &Changed, touched: &mut Touched) {
        let mut memos = std::mem::take(&mut self.tcp);
        let (old, new) = (&before.view.tcp_routes, &self.view.tcp_routes);
        for key in stale(old, new, &memos, changed) {
            let outcome = self.view.tcp_routes.get(&key).map(|object| {
                stream_route::tcp(object, &self.scope(object.namespace(), Kind::TcpRoute))
            });
            self.settle(Kind::TcpRoute, &key, &mut memos, outcome, touched);
            self.put_stream(StreamKind::Tcp, &key, memos.get(&key));
        }
        self.tcp = memos;
    }

    fn update_udp_routes(&mut self, before: &Self, changed: &Changed, touched: &mut Touched) {
        let mut memos = std::mem::take(&mut self.udp);
        let (old, new) = (&before.view.udp_routes, &self.view.udp_routes);
        for key in stale(old, new, &memos, changed) {
            let outcome = self.view.udp_routes.get(&key).map(|object| {
                stream_route::udp(object, &self.scope(object.namespace(), Kind::UdpRoute))
            });
            self.settle(Kind::UdpRoute, &key, &mut memos, outcome, touched);
            self.put_stream(StreamKind::Udp, &key, memos.get(&key));
        }
        self.udp = memos;
    }

    fn update_tls_routes(&mut self, before: &Self, changed: &Changed, touched: &mut Touched) {
        let mut memos = std::mem::take(&mut self.tls);
        let (old, new) = (&before.view.tls_routes, &self.view.tls_routes);
        for key in stale(old, new, &memos, changed) {
            let outcome = self.view.tls_routes.get(&key).map(|object| {
                stream_route::tls(object, &self.scope(object.namespace(), Kind::TlsRoute))
            });
            self.settle(Kind::TlsRoute, &key, &mut memos, outcome, touched);
            self.put_stream(StreamKind::Tls, &key, memos.get(&key));
        }
        self.tls = memos;
    }

    fn put_stream(
        &mut self,
        kind: StreamKind,
        key: &str,
        outcome: Option<&Arc<Outcome<StreamRule>>>,
    ) {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        let route = outcome.and_then(|outcome| outcome.route.as_ref());
        let route = route.map(|route| Arc::new(stream_route::published(kind, route)));
        let key = StreamRoute::key_of(kind, namespace, name);
        put(&mut self.snapshot.stream_routes, &key, route);
    }

    fn scope<'a>(&'a self, namespace: &'a str, kind: Kind) -> Scope<'a> {
        Scope {
            view: &self.view,
            gateways: &self.gateways,
            grants: &self.grants,
            policies: &self.policies,
            ai: &self.ai,
            mesh: self.settings.mesh.as_ref().map(|_| &self.mesh),
            lost: None,
            fronts: BTreeSet::new(),
            passes_tls: false,
            kind: kind.as_str(),
            namespace,
        }
    }

    /// Puts a route's new outcome in the place of its old one and keeps the books.
    fn settle<R>(
        &mut self,
        kind: Kind,
        key: &Arc<str>,
        memos: &mut Memos<R>,
        outcome: Option<Outcome<R>>,
        touched: &mut Touched,
    ) {
        if let Some(old) = memos.remove(key) {
            old.attached
                .iter()
                .for_each(|listener| subtract(&mut self.attached, listener));
            old.clusters
                .iter()
                .for_each(|cluster| subtract(&mut self.uses, cluster));
            old.reached()
                .for_each(|pair| subtract(&mut self.reached, &pair));
            touched.0.extend(old.clusters.iter().cloned());
        }
        let Some(outcome) = outcome else {
            self.statuses.remove(&(kind, key.clone()));
            return;
        };
        outcome
            .attached
            .iter()
            .for_each(|listener| add(&mut self.attached, listener));
        outcome
            .clusters
            .iter()
            .for_each(|cluster| add(&mut self.uses, cluster));
        outcome
            .reached()
            .for_each(|pair| add(&mut self.reached, &pair));
        touched.0.extend(outcome.clusters.iter().cloned());
        self.statuses
            .insert((kind, key.clone()), outcome.status.clone());
        memos.insert(key.clone(), Arc::new(outcome));
    }

    /// Builds the clusters whose use or Service changed, drops those nobody uses.
    fn update_clusters(&mut self, changed: &Changed, touched: &Touched) {
        let mut keys = touched.0.clone();
        keys.extend(self.ai_clusters(changed));
        for service in &changed.endpoints {
            let first: Arc<str> = format!("{service}:").into();
            let of_service = self.uses.range(first.clone()..).map(|(key, _)| key);
            keys.extend(
                of_service
                    .take_while(|key| key.starts_with(&*first))
                    .cloned(),
            );
        }
        for key in keys {
            let cluster = if self.uses.contains_key(&key) {
                self.cluster(&key)
            } else {
                None
            };
            let checked = cluster.map(|cluster| {
                ir::decode::cluster(ir::encode::cluster(&cluster)).map(|_| Arc::new(cluster))
            });
            self.cluster_faults.remove(&key);
            let cluster = checked.and_then(|checked| {
                let fault = |violations| self.cluster_faults.insert(key.clone(), violations);
                checked.map_err(fault).ok()
            });
            put(&mut self.snapshot.clusters, &key, cluster);
        }
    }

    fn cluster(&self, key: &Arc<str>) -> Option<ir::Cluster> {
        if let Some(service) = ai::service_of(key) {
            let mut cluster = self.ai_cluster(service)?;
            let by_route = || self.budgets.of_cluster(key);
            cluster.token_policy = cluster.token_policy.or_else(by_route);
            return Some(cluster);
        }
        let slices = self.slices.get(backend::service_key(key));
        let slices = slices.into_iter().flatten();
        let slices = slices.filter_map(|slice| self.view.endpoint_slices.get(slice));
        let cluster = backend::cluster(key, &self.view, &self.policies, slices)?;
        let service = backend::service_key(key);
        let mut cluster = own_policy::cluster(&self.own_policies, service, cluster);
        let by_route = || self.budgets.of_cluster(key);
        cluster.token_policy = cluster.token_policy.or_else(by_route);
        Some(cluster)
    }

    /// Brings the budgets of clusters in line with the routes that lead there.
    fn update_budgets(&mut self, before: &Self, touched: &mut Touched) {
        let is_same = Arc::ptr_eq(&self.own_policies, &before.own_policies)
            && Arc::ptr_eq(&self.ai, &before.ai)
            && self.http.ptr_eq(&before.http);
        if is_same || !self.own_policies.is_by_route() && before.budgets.is_empty() {
            return;
        }
        let budgets = self.own_policies.budgets(&self.http, &self.ai);
        if budgets != *before.budgets {
            touched.0.extend(budgets.changed_clusters(&before.budgets));
            self.budgets = Arc::new(budgets);
        }
    }

    /// Puts plugins into the snapshot, and the clusters that they may call.
    fn update_plugins(&mut self, before: &Self, touched: &mut Touched) {
        if Arc::ptr_eq(&self.own_policies, &before.own_policies) {
            return;
        }
        for cluster in before.own_policies.plugin_clusters() {
            subtract(&mut self.uses, cluster);
            touched.0.insert(cluster.clone());
        }
        for cluster in self.own_policies.plugin_clusters() {
            add(&mut self.uses, cluster);
            touched.0.insert(cluster.clone());
        }
        replace(
            &mut self.snapshot.wasm_plugins,
            &self.own_policies.plugins(),
        );
    }

    /// Tells policies what became of them, after routes are known to reach their targets.
    fn update_policy_statuses(&mut self, before: &Self) {
        let is_same = Arc::ptr_eq(&before.policies, &self.policies)
            && before.reached.ptr_eq(&self.reached)
            && before.view.services.is_same(&self.view.services);
        if is_same {
            return;
        }
        let gone = before.view.backend_tls_policies.iter();
        for policy in gone.filter(|old| self.view.backend_tls_policies.get(&old.key).is_none()) {
            let key = (Kind::BackendTlsPolicy, policy.key.clone());
            self.statuses.remove(&key);
        }
        for status in self.policies.statuses(&self.view, &self.reached) {
            let key = (status.kind, status.key.clone());
            if self
                .statuses
                .get(&key)
                .is_none_or(|known| **known != status)
            {
                self.statuses.insert(key, Arc::new(status));
            }
        }
    }

    /// Puts the listeners into the snapshot, with what policies say about them.
    fn publish_listeners(&mut self, before: &Self) {
        let is_same = Arc::ptr_eq(&self.gateways, &before.gateways)
            && !self.own_policies.differs_in_front(&before.own_policies);
        if is_same {
            return;
        }
        let mut listeners = Resources::default();
        for found in self.gateways.listeners.iter() {
            listeners.insert(own_policy::listener(&self.own_policies, found));
        }
        replace(&mut self.snapshot.listeners, &listeners);
    }

    /// Tells our own policies what became of them, by the Gateways that reach their targets.
    fn update_own_policy_statuses(&mut self, before: &Self) {
        let is_same = Arc::ptr_eq(&self.own_policies, &before.own_policies)
            && self.http.ptr_eq(&before.http)
            && self.grpc.ptr_eq(&before.grpc)
            && self.tcp.ptr_eq(&before.tcp)
            && self.tls.ptr_eq(&before.tls)
            && Arc::ptr_eq(&self.ai, &before.ai)
            && !OwnPolicies::is_concerned(&before.view, &self.view);
        if is_same {
            return;
        }
        for key in before.own_policies.keys() {
            self.statuses.remove(&key);
        }
        if self.own_policies.is_empty() {
            return;
        }
        let mut reach = self.own_policies.wanted();
        reach.add(Some(Kind::HttpRoute), &self.http);
        reach.add(Some(Kind::GrpcRoute), &self.grpc);
        reach.add(None, &self.tcp);
        reach.add(None, &self.tls);
        let policies = &self.own_policies;
        policies.note_shared(&mut reach, Kind::HttpRoute, &self.http);
        policies.note_shared(&mut reach, Kind::GrpcRoute, &self.grpc);
        for status in self
            .own_policies
            .statuses(&self.view, &reach, &self.budgets, &self.ai)
        {
            let key = (status.kind, status.key.clone());
            self.statuses.insert(key, Arc::new(status));
        }
    }
}

fn changed_keys<T: Watched>(old: &Objects<T>, new: &Objects<T>) -> BTreeSet<Arc<str>> {
    old.changes(new)
        .filter_map(|(old, new)| Some(new.or(old)?.key.clone()))
        .collect()
}

/// Routes that must be translated again: changed ones, and those that depend on what changed.
fn stale<T: Watched, R>(
    old: &Objects<T>,
    new: &Objects<T>,
    memos: &Memos<R>,
    changed: &Changed,
) -> BTreeSet<Arc<str>> {
    let mut keys = changed_keys(old, new);
    if changed.concerns_routes() {
        let stale = memos
            .iter()
            .filter(|(_, outcome)| outcome.is_stale(changed));
        keys.extend(stale.map(|(key, _)| key.clone()));
    }
    keys
}

fn put<T: ir::Resource>(resources: &mut Resources<T>, key: &str, resource: Option<Arc<T>>) {
    match resource {
        // The old value is kept where nothing differs, so that a diff need not look inside.
        Some(resource) if resources.get(key).is_some_and(|known| *known == resource) => {}
        Some(resource) => drop(resources.insert(resource)),
        None => drop(resources.remove(key)),
    }
}

/// Makes `resources` equal to `next` and keeps what is equal already.
fn replace<T: ir::Resource>(resources: &mut Resources<T>, next: &Resources<T>) {
    let gone: Vec<_> = resources
        .iter()
        .map(|known| known.key().clone())
        .filter(|key| next.get(key).is_none())
        .collect();
    for key in gone {
        resources.remove(&key);
    }
    for resource in next.iter() {
        put(resources, resource.key(), Some(resource.clone()));
    }
}

fn add<K: Ord + Clone>(counts: &mut OrdMap<K, usize>, key: &K) {
    *counts.entry(key.clone()).or_insert(0) += 1;
}

fn subtract<K: Ord + Clone>(counts: &mut OrdMap<K, usize>, key: &K) {
    match counts.get(key).copied() {
        Some(count) if count > 1 => drop(counts.insert(key.clone(), count - 1)),
        _ => drop(counts.remove(key)),
    }
}
