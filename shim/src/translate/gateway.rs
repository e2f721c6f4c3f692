//! GatewayClasses, Gateways and their ListenerSets: which are ours, where they listen, what they are
//! told.
//!
//! Gateways are translated all together, because listeners can be in each other's way; there are few
//! of them and they seldom change. Certificates are checked once per Secret. How many routes are
//! attached is not known here; [`super::Translation`] adds it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;
use std::sync::Arc;

use gateway_api::experimental::gatewayclasses::GatewayClass;
use gateway_api::experimental::gateways::{Gateway, GatewayListeners};
use gateway_api::experimental::listenersets::ListenerSet;
use ir::listener::{ListenerProtocol, ListenerSettings};
use ir::resource::Metadata;
use ir::{Hostname, Listener, Resources, Violations};

use super::allotment::{Allotment, allot};
use super::certificate::Certificates;
use super::listener::{Context, Draft, NamespaceRule, Owner, RouteKind, draft};
use super::listener_name::ListenerName;
use super::listener_set::{self, Attached};
use super::reference::Grants;
use super::{Classes, Settings, annotation, backend_identity, client_certificate, conflict};
use crate::cluster_view::{ClusterView, Kind, Object, Watched};
use crate::conditions::{
    Condition, ConditionType, Conditions, ListenerStatus, ObjectStatus, Truth,
};

/// Everything that follows from GatewayClasses, Gateways and their Secrets.
#[derive(Debug, Default)]
pub(super) struct Gateways {
    /// Every Gateway and ListenerSet as routes see it, by [`parent_key`].
    pub(super) parents: BTreeMap<Arc<str>, Arc<Parent>>,
    /// Listeners that serve.
    pub(super) listeners: Resources<Listener>,
    /// Secrets they name.
    pub(super) secrets: Resources<ir::Secret>,
    /// Statuses of classes, Gateways and ListenerSets; no routes are counted yet.
    pub(super) statuses: Vec<ObjectStatus>,
    /// Which of the statuses tells of a listener, by its name in the snapshot.
    pub(super) owners: BTreeMap<Arc<str>, usize>,
    /// Where each Gateway of ours listens.
    pub(super) allotments: BTreeMap<Arc<str>, Allotment>,
    /// Addresses that each Gateway of ours is bound to.
    pub(super) addresses: BTreeMap<Arc<str>, Vec<IpAddr>>,
    /// Ports that each Gateway of ours has with its sets, as written, and the protocol as written.
    pub(super) ports: BTreeMap<Arc<str>, BTreeSet<(u16, &'static str)>>,
    certificates: Certificates,
}

/// A Gateway or a ListenerSet as routes see it.
#[derive(Debug, PartialEq)]
pub(super) struct Parent {
    pub(super) kind: Kind,
    pub(super) key: Arc<str>,
    pub(super) namespace: String,
    /// Its class is ours; else another controller answers for it.
    pub(super) is_ours: bool,
    /// Why it takes nobody, for a ListenerSet that no Gateway takes.
    pub(super) refusal: Option<String>,
    pub(super) listeners: Vec<ParentListener>,
}

impl Parent {
    fn new<T: Watched>(object: &Object<T>, is_ours: bool) -> Self {
        Self {
            kind: T::KIND,
            key: object.key.clone(),
            namespace: object.namespace().to_owned(),
            is_ours,
            refusal: None,
            listeners: Vec::new(),
        }
    }

    /// `Gateway infra/gw`, as messages name it.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.kind, self.key)
    }
}

/// Key of a parent of routes: a ListenerSet may be named as a Gateway is.
pub(super) fn parent_key(kind: &str, namespace: &str, name: &str) -> Arc<str> {
    match kind {
        "Gateway" => format!("{namespace}/{name}").into(),
        kind => format!("{kind} {namespace}/{name}").into(),
    }
}

/// A listener as routes see it.
#[derive(Debug, PartialEq)]
pub(super) struct ParentListener {
    /// Its name in the snapshot, see [`ListenerName`].
    pub(super) name: Arc<str>,
    /// Its name within its Gateway or ListenerSet.
    pub(super) section: String,
    /// The port as written.
    pub(super) port: u16,
    pub(super) hostname: Option<Hostname>,
    pub(super) kinds: Vec<RouteKind>,
    pub(super) namespaces: NamespaceRule,
    /// It is handed to the data plane.
    pub(super) serves: bool,
    /// What comes in is TLS and stays so up to the backend.
    pub(super) passes_tls: bool,
}

/// A Gateway under translation.
pub(super) struct Candidate<'a> {
    pub(super) object: &'a Arc<Object<Gateway>>,
    /// ListenerSets it has taken, in the order of their precedence.
    sets: &'a [&'a Arc<Object<ListenerSet>>],
    /// Its own listeners, then those of the sets.
    pub(super) drafts: Vec<Draft>,
    pub(super) addresses: Vec<IpAddr>,
    /// What its annotations ask for.
    pub(super) settings: ListenerSettings,
    /// Why no address, or not every one, can be used: the condition it shows in, reason, message.
    address_fault: Option<(ConditionType, &'static str, String)>,
    /// The Secret whose certificate backends are shown.
    backend_identity: backend_identity::Asked,
}

impl Candidate<'_> {
    /// The Gateway as a whole cannot be served, whatever its listeners are.
    pub(super) fn is_refused(&self) -> bool {
        matches!(&self.address_fault, Some((ConditionType::Accepted, ..)))
    }
}

/// Translates all classes and Gateways; `mesh` are ports that Services are led to, `previous` lends
/// what it knows of certificates.
pub(super) fn translate(
    view: &ClusterView,
    settings: &Settings,
    grants: &Grants,
    mesh: &BTreeSet<NonZeroU16>,
    previous: &Gateways,
) -> Gateways {
    let mut gateways = Gateways {
        certificates: previous.certificates.clone(),
        ..Gateways::default()
    };
    gateways.certificates.forget_use();
    let mut candidates = Vec::new();
    gateways.statuses.extend(
        view.gateway_classes
            .iter()
            .filter_map(|c| class_status(c, settings)),
    );
    let mut ours = Vec::new();
    for object in view.gateways.iter() {
        match ownership(object, view, settings) {
            Ownership::Ours => ours.push(object),
            Ownership::Other => gateways.add_foreign(object),
            Ownership::NoClass(status) => {
                gateways.add_foreign(object);
                gateways.statuses.push(status);
            }
        }
    }
    // The oldest keeps its place when two Gateways want the same.
    ours.sort_by_key(|it| (it.created_at().is_none(), it.created_at(), it.key.clone()));
    let attached = Attached::new(view, &ours);
    gateways.add_outsiders(&attached);
    let ports = |gateway: &Object<Gateway>| {
        let own = gateway.value.spec.listeners.iter();
        let own = own.filter_map(|listener| u16::try_from(listener.port).ok());
        own.chain(attached.ports(&gateway.key)).collect()
    };
    gateways.allotments = allot(ours.iter().copied(), &ports, view, settings);
    let everywhere = Allotment::default();
    for object in ours {
        let context = Context {
            view,
            grants,
            settings,
            allotment: gateways.allotments.get(&object.key).unwrap_or(&everywhere),
            gateway: object,
            owner: Owner {
                kind: "Gateway",
                set: None,
                namespace: object.namespace(),
                generation: object.generation(),
            },
        };
        let sets = attached.of(&object.key);
        candidates.push(candidate(
            object,
            sets,
            &context,
            &mut gateways.certificates,
        ));
    }
    conflict::with_mesh(&mut candidates, mesh);
    conflict::within_gateways(&mut candidates);
    conflict::between_gateways(&mut candidates);
    for candidate in candidates {
        gateways.add(candidate);
    }
    gateways
        .statuses
        .sort_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
    for (index, status) in gateways.statuses.iter().enumerate() {
        let names = status.listeners.iter().map(|listener| &listener.id);
        gateways
            .owners
            .extend(names.map(|name| (name.clone(), index)));
    }
    gateways.certificates.drop_unused();
    gateways
}

enum Ownership {
    Ours,
    Other,
    NoClass(ObjectStatus),
}

fn ownership(object: &Object<Gateway>, view: &ClusterView, settings: &Settings) -> Ownership {
    let name = &object.value.spec.gateway_class_name;
    match (&settings.classes, view.gateway_classes.get(name)) {
        (Classes::Any, _) => Ownership::Ours,
        (Classes::Controller(ours), Some(class)) if class.value.spec.controller_name == *ours => {
            Ownership::Ours
        }
        (Classes::Controller(_), Some(_)) => Ownership::Other,
        (Classes::Controller(ours), None) => {
            let mut conditions = Conditions::new(object.generation());
            let message = format!(
                "spec.gatewayClassName: there is no GatewayClass {name}, create it with \
                 controllerName {ours}"
            );
            conditions.set(ConditionType::Accepted, Truth::Unknown, "Pending", message);
            let mut status = ObjectStatus::new(object);
            status.conditions = conditions.finish();
            Ownership::NoClass(status)
        }
    }
}

fn class_status(object: &Object<GatewayClass>, settings: &Settings) -> Option<ObjectStatus> {
    if !settings.classes.include(&object.value.spec.controller_name) {
        return None;
    }
    let mut status = ObjectStatus::new(object);
    let mut conditions = Conditions::new(object.generation());
    match &object.value.spec.parameters_ref {
        None => conditions.hold(ConditionType::Accepted, "Accepted"),
        Some(reference) => {
            let (kind, group) = (&reference.kind, &reference.group);
            let message = unknown_parameters("spec.parametersRef", kind, group);
            conditions.fail(ConditionType::Accepted, "InvalidParameters", message);
        }
    }
    status.conditions = conditions.finish();
    Some(status)
}

/// The listeners of one object.
fn drafts<'s>(
    listeners: impl Iterator<Item = Cow<'s, GatewayListeners>>,
    context: &Context<'_>,
    certificates: &mut Certificates,
) -> Vec<Draft> {
    let listeners = listeners.enumerate();
    let mut drafts: Vec<_> = listeners
        .map(|(index, spec)| draft(&spec, index, context, certificates))
        .collect();
    let mut names = BTreeSet::new();
    for draft in &mut drafts {
        if !names.insert(draft.section.clone()) {
            let message = format!(
                "the name {} is used twice in this {}",
                draft.section, context.owner.kind
            );
            draft.refuse("UnsupportedValue", message);
        } else if draft.section.is_empty() || draft.section.contains('/') {
            draft.refuse(
                "UnsupportedValue",
                format!("{:?} is no name of a listener", draft.section),
            );
        }
    }
    drafts
}

fn candidate<'a>(
    object: &'a Arc<Object<Gateway>>,
    sets: &'a [&'a Arc<Object<ListenerSet>>],
    context: &Context<'_>,
    certificates: &mut Certificates,
) -> Candidate<'a> {
    let own = object.value.spec.listeners.iter().map(Cow::Borrowed);
    let mut drafts = drafts(own, context, certificates);
    for set in sets {
        let context = Context {
            owner: Owner {
                kind: "ListenerSet",
                set: Some(&set.key),
                namespace: set.namespace(),
                generation: set.generation(),
            },
            ..*context
        };
        let listeners = listener_set::listeners(set);
        let listeners = listeners.map(|it| Cow::Owned(listener_set::as_listener(it)));
        drafts.extend(self::drafts(listeners, &context, certificates));
    }
    let asked = annotation::settings(object.value.metadata.annotations.as_ref());
    if let Err(message) = &asked {
        for draft in &mut drafts {
            draft.refuse("UnsupportedValue", message.clone());
        }
    }
    let (addresses, address_fault) = addresses(object, context.allotment, context.settings);
    let address_fault = parameters_fault(&object.value).or(address_fault);
    Candidate {
        object,
        sets,
        drafts,
        addresses,
        settings: asked.unwrap_or_default(),
        address_fault,
        backend_identity: backend_identity::asked(context, certificates),
    }
}

/// There is no kind of parameters that we know, and what they ask for cannot be told.
fn unknown_parameters(path: &str, kind: &str, group: &str) -> String {
    format!("{path}: kind {kind} of group {group:?} is not known here, remove it")
}

fn parameters_fault(gateway: &Gateway) -> AddressFault {
    let infrastructure = gateway.spec.infrastructure.as_ref()?;
    let reference = infrastructure.parameters_ref.as_ref()?;
    let path = "spec.infrastructure.parametersRef";
    let message = unknown_parameters(path, &reference.kind, &reference.group);
    Some((ConditionType::Accepted, "InvalidParameters", message))
}

type AddressFault = Option<(ConditionType, &'static str, String)>;

/// The addresses to bind: those the Gateway asks for, else those of the settings.
fn addresses(
    object: &Object<Gateway>,
    allotment: &Allotment,
    settings: &Settings,
) -> (Vec<IpAddr>, AddressFault) {
    let written = object.value.spec.addresses.as_deref().unwrap_or_default();
    let mut addresses = Vec::new();
    let mut fault = None;
    let mut wanted = 0;
    for (index, address) in written.iter().enumerate() {
        let path = format!("spec.addresses[{index}]");
        let kind = address.r#type.as_deref().unwrap_or("IPAddress");
        let Some(value) = address.value.as_deref().filter(|value| !value.is_empty()) else {
            continue;
        };
        wanted += 1;
        match value.parse::<IpAddr>() {
            _ if kind != "IPAddress" => {
                let message = format!("{path}: type {kind} is not supported, use IPAddress");
                fault = Some((ConditionType::Accepted, "UnsupportedAddress", message));
            }
            Err(_) => {
                let message = format!("{path}: {value} is no IP address");
                fault = Some((ConditionType::Accepted, "UnsupportedAddress", message));
            }
            // Its Service asks for them; what it got is seen in its status.
            Ok(_) if allotment.ports.is_some() => wanted -= 1,
            Ok(ip) if !settings.may_bind(ip) => {
                let message = format!("{path}: {ip} is no address of this host");
                fault = fault.or(Some((
                    ConditionType::Programmed,
                    "AddressNotUsable",
                    message,
                )));
            }
            Ok(ip) if !addresses.contains(&ip) => addresses.push(ip),
            Ok(_) => {}
        }
    }
    if let (0, Some(own)) = (wanted, allotment.address) {
        addresses.push(own);
    } else if wanted == 0 {
        addresses.clone_from(&settings.addresses);
        if addresses.is_empty() {
            addresses.push(Ipv4Addr::UNSPECIFIED.into());
        }
    }
    (addresses, fault)
}

/// What the listeners of one Gateway have in common, its sets' among them.
struct Shared<'a> {
    addresses: &'a [IpAddr],
    settings: &'a ListenerSettings,
    backend_identity: Option<Arc<str>>,
    /// The Gateway as a whole is not served.
    is_refused: bool,
}

/// What came of the listeners of one object.
#[derive(Default)]
struct Built {
    statuses: Vec<ListenerStatus>,
    listeners: Vec<ParentListener>,
}

impl Gateways {
    /// Ports of TCP that listeners have in this range.
    pub(super) fn ports_within(
        &self,
        (first, last): (NonZeroU16, NonZeroU16),
    ) -> BTreeSet<NonZeroU16> {
        let listeners = self.listeners.iter();
        let listeners = listeners.filter(|listener| listener.protocol != ListenerProtocol::Udp);
        let ports = listeners.map(|listener| listener.port);
        ports.filter(|port| (first..=last).contains(port)).collect()
    }

    fn add_foreign(&mut self, object: &Object<Gateway>) {
        let parent = Parent::new(object, false);
        self.parents.insert(object.key.clone(), Arc::new(parent));
    }

    /// ListenerSets that stand with no Gateway of ours.
    fn add_outsiders(&mut self, attached: &Attached<'_>) {
        for set in &attached.foreign {
            self.add_parent(Parent::new(set, false));
        }
        for (set, refusal) in &attached.refused {
            self.add_parent(Parent {
                refusal: Some(refusal.message.clone()),
                ..Parent::new(set, true)
            });
            self.statuses.push(listener_set::refused(set, refusal));
        }
    }

    fn add_parent(&mut self, parent: Parent) {
        let (namespace, name) = parent.key.split_once('/').unwrap_or(("", &parent.key));
        let key = parent_key(parent.kind.as_str(), namespace, name);
        self.parents.insert(key, Arc::new(parent));
    }

    fn add(&mut self, candidate: Candidate<'_>) {
        let is_refused = candidate.is_refused();
        let Candidate {
            object,
            sets,
            drafts,
            addresses,
            settings,
            address_fault,
            backend_identity,
        } = candidate;
        let shared = Shared {
            addresses: &addresses,
            settings: &settings,
            backend_identity: backend_identity.shown,
            is_refused,
        };
        self.addresses.insert(object.key.clone(), addresses.clone());
        let mut built: BTreeMap<Option<Arc<str>>, Built> = BTreeMap::new();
        let mut ports = BTreeSet::new();
        for draft in drafts {
            if let (Some(_), Some(protocol)) = (draft.bound_port, draft.protocol) {
                let is_udp = protocol == ListenerProtocol::Udp;
                ports.insert((draft.port, if is_udp { "UDP" } else { "TCP" }));
            }
            let whose = built.entry(draft.set.clone()).or_default();
            let (status, listener) = self.listener(object, draft, &shared);
            whose.statuses.push(status);
            whose.listeners.push(listener);
        }
        self.ports.insert(object.key.clone(), ports);
        let mut taken = 0;
        for set in sets {
            let built = built.remove(&Some(set.key.clone())).unwrap_or_default();
            self.add_parent(Parent {
                listeners: built.listeners,
                ..Parent::new(set, true)
            });
            let status = listener_set::status(set, built.statuses, is_refused);
            let accepted = status.condition(ConditionType::Accepted);
            taken += usize::from(accepted.is_some_and(|it| it.status == Truth::True));
            self.statuses.push(status);
        }
        let Built {
            statuses,
            listeners,
        } = built.remove(&None).unwrap_or_default();
        let mut status = ObjectStatus::new(object);
        let allows_sets = object.value.spec.allowed_listeners.is_some();
        status.attached_listener_sets = allows_sets.then_some(taken);
        status.conditions = gateway_conditions(
            object.generation(),
            &statuses,
            address_fault,
            backend_identity.fault,
        );
        if client_certificate::is_insecure(&object.value) {
            let mut conditions = Conditions::resume(status.conditions);
            let kind = ConditionType::InsecureFrontendValidationMode;
            let message = "spec.tls.frontend: AllowInsecureFallback lets in clients without a \
                           valid certificate";
            conditions.set(
                kind,
                Truth::True,
                "ConfigurationChanged",
                message.to_owned(),
            );
            status.conditions = conditions.finish();
        }
        status.listeners = statuses;
        let allotment = self.allotments.get(&object.key);
        let has_service = allotment.is_some_and(|allotment| allotment.ports.is_some());
        status.warnings = without_effect(&object.value, has_service);
        let annotations = object.value.metadata.annotations.as_ref();
        status.warnings.extend(annotation::unknown(annotations));
        self.statuses.push(status);
        self.add_parent(Parent {
            listeners,
            ..Parent::new(object, true)
        });
    }

    /// Hands a listener to data planes, if it may serve; gives back what it is told and what routes
    /// see of it.
    fn listener(
        &mut self,
        object: &Object<Gateway>,
        mut draft: Draft,
        shared: &Shared<'_>,
    ) -> (ListenerStatus, ParentListener) {
        let name = ListenerName {
            gateway: &object.key,
            set: draft.set.as_deref(),
            section: &draft.section,
        };
        let name = name.written();
        let mut serves = draft.can_serve && !shared.is_refused && !shared.addresses.is_empty();
        if serves && let Err(violations) = self.serve(&name, object, &draft, shared) {
            draft.refuse("UnsupportedValue", violations.to_string());
            serves = false;
        }
        if serves {
            draft
                .conditions
                .hold(ConditionType::Programmed, "Programmed");
        } else {
            let message = "it is not handed to the data plane, see the other conditions";
            let reason = match draft.conditions.problem(ConditionType::Conflicted) {
                // The suite asks for it there, and for `Invalid` on Gateways.
                Some(conflict) if draft.set.is_some() => conflict.reason,
                _ => "Invalid",
            };
            draft
                .conditions
                .fail(ConditionType::Programmed, reason, message);
        }
        let status = ListenerStatus {
            name: draft.section.clone(),
            id: name.clone(),
            supported_kinds: draft.kinds.iter().map(|kind| kind.as_str()).collect(),
            attached_routes: 0,
            conditions: draft.conditions.finish(),
        };
        let listener = ParentListener {
            name,
            section: draft.section,
            port: draft.port,
            hostname: draft.hostname,
            kinds: draft.kinds,
            namespaces: draft.namespaces,
            serves,
            passes_tls: draft.protocol == Some(ListenerProtocol::TlsPassthrough),
        };
        (status, listener)
    }

    fn serve(
        &mut self,
        name: &Arc<str>,
        object: &Object<Gateway>,
        draft: &Draft,
        shared: &Shared<'_>,
    ) -> Result<(), Violations> {
        let (Some(port), Some(protocol)) = (draft.bound_port, draft.protocol) else {
            return Ok(());
        };
        let listener = Listener {
            name: name.clone(),
            addresses: shared.addresses.to_vec(),
            port,
            protocol,
            hostnames: draft.hostname.iter().cloned().collect(),
            tls: draft.tls.clone(),
            metadata: Metadata::from([
                ("gateway".to_owned(), object.name().to_owned()),
                ("namespace".to_owned(), object.namespace().to_owned()),
            ]),
            backend_client_certificate: shared.backend_identity.clone(),
            security_policy: None,
            settings: ListenerSettings {
                // Said only where ports are mapped, so that it costs nothing elsewhere.
                public_port: NonZeroU16::new(draft.port).filter(|written| *written != port),
                ..shared.settings.clone()
            },
            plugins: Vec::new(),
        };
        ir::decode::listener(ir::encode::listener(&listener))?;
        let own = draft.tls.iter().flat_map(|tls| &tls.certificate_refs);
        for key in own.chain(&shared.backend_identity) {
            if let Some(secret) = self.certificates.secret(key) {
                self.secrets.insert(secret);
            }
        }
        self.listeners.insert(listener);
        Ok(())
    }
}

/// Fields that are written and have no effect yet.
fn without_effect(gateway: &Gateway, has_service: bool) -> Vec<String> {
    let spec = &gateway.spec;
    let fields = [
        (
            "spec.infrastructure",
            !has_service && spec.infrastructure.is_some(),
        ),
        ("spec.defaultScope", spec.default_scope.is_some()),
    ];
    let written = fields.iter().filter(|(_, is_written)| *is_written);
    written
        .map(|(field, _)| format!("{field}: has no effect yet"))
        .collect()
}

/// Brings the conditions of a Gateway up to date after those of its listeners were changed.
pub(super) fn summarize(status: &mut ObjectStatus) {
    let Some(first) = status.conditions.first() else {
        return;
    };
    let generation = first.observed_generation;
    let is_address = |c: &&Condition| {
        let of_the_whole = [
            "UnsupportedAddress",
            "AddressNotUsable",
            "InvalidParameters",
        ];
        of_the_whole.contains(&c.reason)
    };
    let address_fault = status.conditions.iter().find(is_address);
    let address_fault = address_fault.map(|c| (c.kind, c.reason, c.message.clone()));
    let is_reference =
        |c: &&Condition| matches!(c.reason, "InvalidClientCertificateRef" | "RefNotPermitted");
    let reference_fault = status.conditions.iter().find(is_reference);
    let reference_fault = reference_fault.map(|c| (c.reason, c.message.clone()));
    let is_extra = |c: &Condition| c.kind == ConditionType::InsecureFrontendValidationMode;
    let extra: Vec<_> = status
        .conditions
        .iter()
        .filter(|c| is_extra(c))
        .cloned()
        .collect();
    let listeners = &status.listeners;
    status.conditions = gateway_conditions(generation, listeners, address_fault, reference_fault);
    status.conditions.extend(extra);
}

fn gateway_conditions(
    generation: i64,
    listeners: &[ListenerStatus],
    address_fault: AddressFault,
    reference_fault: Option<backend_identity::Fault>,
) -> Vec<Condition> {
    let mut conditions = Conditions::new(generation);
    let invalid: Vec<_> = listeners
        .iter()
        .filter(|listener| {
            let programmed = |c: &&Condition| c.kind == ConditionType::Programmed;
            listener
                .conditions
                .iter()
                .find(programmed)
                .is_some_and(|c| c.is_problem())
        })
        .map(|listener| listener.name.as_str())
        .collect();
    let serving = listeners.len() - invalid.len();
    if let Some((ConditionType::Accepted, reason, message)) = &address_fault {
        conditions.fail(ConditionType::Accepted, reason, message.clone());
    } else if invalid.is_empty() && !listeners.is_empty() {
        conditions.hold(ConditionType::Accepted, "Accepted");
    } else {
        let message = if listeners.is_empty() {
            "spec.listeners: is empty, add a listener".to_owned()
        } else {
            format!("these listeners are not served: {}", invalid.join(", "))
        };
        let truth = if serving > 0 {
            Truth::True
        } else {
            Truth::False
        };
        conditions.set(ConditionType::Accepted, truth, "ListenersNotValid", message);
    }
    match address_fault {
        Some((ConditionType::Programmed, reason, message)) => {
            conditions.fail(ConditionType::Programmed, reason, message);
        }
        _ if serving > 0 => conditions.hold(ConditionType::Programmed, "Programmed"),
        _ => conditions.fail(
            ConditionType::Programmed,
            "Invalid",
            "no listener is served",
        ),
    }
    match reference_fault.or_else(|| unresolved(listeners)) {
        None => conditions.hold(ConditionType::ResolvedRefs, "ResolvedRefs"),
        Some((reason, message)) => conditions.fail(ConditionType::ResolvedRefs, reason, message),
    }
    conditions.finish()
}

/// That listeners name what is not there, for the Gateway they belong to.
fn unresolved(listeners: &[ListenerStatus]) -> Option<(&'static str, String)> {
    let is_unresolved = |c: &Condition| c.kind == ConditionType::ResolvedRefs && c.is_problem();
    let names: Vec<_> = listeners
        .iter()
        .filter(|listener| listener.conditions.iter().any(is_unresolved))
        .map(|listener| listener.name.as_str())
        .collect();
    let message = format!("see ResolvedRefs of the listeners {}", names.join(", "));
    (!names.is_empty()).then_some(("ListenersNotResolved", message))
}
