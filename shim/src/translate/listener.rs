//! One listener of a Gateway or ListenerSet on its own: protocol, port, host name, certificates,
//! allowed routes.
//!
//! [`super::gateway`] calls [`draft`] for each and then sees which drafts can live beside each other.
//! A draft carries its conditions; a listener that cannot serve is left out, the others stay.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use gateway_api::experimental::gateways as api;
use ir::Hostname;
use ir::listener::{ClientValidation, ListenerProtocol, ListenerTls, TlsVersion};

use super::allotment::Allotment;
use super::certificate::Certificates;
use super::reference::{From, Grants, To};
use super::{GATEWAY_API, Settings, client_certificate, tls_option};
use crate::cluster_view::{ClusterView, Object};
use crate::conditions::{ConditionType, Conditions};

/// The kinds of routes that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RouteKind {
    Http,
    Grpc,
    Tcp,
    Udp,
    Tls,
}

impl RouteKind {
    /// The kinds that a listener of that protocol takes.
    fn of(protocol: Option<ListenerProtocol>) -> &'static [Self] {
        match protocol {
            Some(ListenerProtocol::Tcp) => &[Self::Tcp],
            Some(ListenerProtocol::Udp) => &[Self::Udp],
            Some(ListenerProtocol::Tls) => &[Self::Tls, Self::Tcp],
            Some(ListenerProtocol::TlsPassthrough) => &[Self::Tls],
            _ => &[Self::Http, Self::Grpc],
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "HTTPRoute",
            Self::Grpc => "GRPCRoute",
            Self::Tcp => "TCPRoute",
            Self::Udp => "UDPRoute",
            Self::Tls => "TLSRoute",
        }
    }
}

/// Whose routes a listener takes.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum NamespaceRule {
    All,
    Same,
    Selector(Selector),
}

/// A label selector.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Selector {
    labels: BTreeMap<String, String>,
    expressions: Vec<(String, String, Vec<String>)>,
}

impl NamespaceRule {
    /// True when routes of `namespace`, which has those labels, may attach.
    pub(super) fn allow(
        &self,
        own: &str,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        match self {
            Self::All => true,
            Self::Same => own == namespace,
            Self::Selector(selector) => selector.matches(labels),
        }
    }
}

impl Selector {
    /// From labels, and expressions as key, operator and values.
    pub(super) fn new(
        labels: BTreeMap<String, String>,
        expressions: Vec<(String, String, Vec<String>)>,
    ) -> Self {
        Self {
            labels,
            expressions,
        }
    }

    /// True for an object with those labels.
    pub(super) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = self
            .labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value));
        equal
            && self.expressions.iter().all(|(key, operator, values)| {
                let value = labels.get(key);
                let is_listed = value.is_some_and(|value| values.contains(value));
                match operator.as_str() {
                    "In" => is_listed,
                    "NotIn" => !is_listed,
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    // An operator nobody knows must not open the door.
                    _ => false,
                }
            })
    }
}

/// A listener before it is known whether it can live beside the others.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    /// Key of the ListenerSet it is written in; absent for a listener of the Gateway itself.
    pub(super) set: Option<Arc<str>>,
    pub(super) section: String,
    /// The port as written, which routes refer to; 0 when it is no port.
    pub(super) port: u16,
    /// The port to bind.
    pub(super) bound_port: Option<NonZeroU16>,
    /// Absent when the protocol is not supported or something else rules the listener out.
    pub(super) protocol: Option<ListenerProtocol>,
    pub(super) hostname: Option<Hostname>,
    pub(super) tls: Option<ListenerTls>,
    pub(super) kinds: Vec<RouteKind>,
    pub(super) namespaces: NamespaceRule,
    pub(super) conditions: Conditions,
    /// It may serve, as far as can be told from itself.
    pub(super) can_serve: bool,
}

/// What a listener is read with.
pub(super) struct Context<'a> {
    pub(super) view: &'a ClusterView,
    pub(super) grants: &'a Grants,
    pub(super) settings: &'a Settings,
    /// Where the Gateway listens.
    pub(super) allotment: &'a Allotment,
    pub(super) gateway: &'a Object<api::Gateway>,
    /// The object it is written in.
    pub(super) owner: Owner<'a>,
}

/// The object that references of a listener start from, and its conditions are about.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) kind: &'static str,
    /// Key of the ListenerSet, if it is one.
    pub(super) set: Option<&'a Arc<str>>,
    pub(super) namespace: &'a str,
    pub(super) generation: i64,
}

/// Reads the listener at `index` of its Gateway.
pub(super) fn draft(
    spec: &api::GatewayListeners,
    index: usize,
    context: &Context<'_>,
    certificates: &mut Certificates,
) -> Draft {
    let path = format!("spec.listeners[{index}]");
    let mut conditions = Conditions::new(context.owner.generation);
    conditions.hold(ConditionType::Accepted, "Accepted");
    conditions.hold(ConditionType::ResolvedRefs, "ResolvedRefs");
    let mut draft = Draft {
        set: context.owner.set.cloned(),
        section: spec.name.clone(),
        port: u16::try_from(spec.port).unwrap_or_default(),
        bound_port: None,
        protocol: None,
        hostname: None,
        tls: None,
        kinds: Vec::new(),
        namespaces: NamespaceRule::Same,
        conditions,
        can_serve: true,
    };
    read_protocol(&mut draft, spec, &path);
    read_address(&mut draft, spec, &path, context);
    if draft.protocol.is_some() {
        read_allowed_routes(&mut draft, spec, &path);
    }
    if draft.protocol == Some(ListenerProtocol::TlsPassthrough) {
        draft.tls = Some(passthrough());
    }
    if matches!(
        draft.protocol,
        Some(ListenerProtocol::Https | ListenerProtocol::Tls)
    ) {
        read_tls(&mut draft, spec, &path, context, certificates);
    }
    draft
}

impl Draft {
    /// Rules the listener out.
    pub(super) fn refuse(&mut self, reason: &'static str, message: String) {
        self.conditions
            .fail(ConditionType::Accepted, reason, message);
        self.can_serve = false;
    }

    /// A reference that leads nowhere.
    fn unresolved(&mut self, reason: &'static str, message: String) {
        self.conditions
            .fail(ConditionType::ResolvedRefs, reason, message);
    }
}

fn read_protocol(draft: &mut Draft, spec: &api::GatewayListeners, path: &str) {
    match spec.protocol.as_str() {
        "HTTP" => draft.protocol = Some(ListenerProtocol::Http),
        "HTTPS" => draft.protocol = Some(ListenerProtocol::Https),
        "TCP" => draft.protocol = Some(ListenerProtocol::Tcp),
        "TLS" => match spec.tls.as_ref().map(|tls| tls.mode.clone()) {
            None => draft.refuse(
                "UnsupportedValue",
                format!("{path}.tls: is missing, protocol TLS needs a mode"),
            ),
            Some(Some(api::GatewayListenersTlsMode::Passthrough)) => {
                draft.protocol = Some(ListenerProtocol::TlsPassthrough);
            }
            Some(_) => draft.protocol = Some(ListenerProtocol::Tls),
        },
        "UDP" => draft.protocol = Some(ListenerProtocol::Udp),
        other => draft.refuse(
            "UnsupportedProtocol",
            format!("{path}.protocol: {other:?} is not known, use HTTP, HTTPS, TLS, TCP or UDP"),
        ),
    }
    if let Some(ListenerProtocol::Tcp | ListenerProtocol::Udp) = draft.protocol {
        for (field, is_written) in [
            ("tls", spec.tls.is_some()),
            (
                "hostname",
                spec.hostname.as_ref().is_some_and(|name| !name.is_empty()),
            ),
        ] {
            if is_written {
                let message = format!(
                    "{path}.{field}: is not allowed with protocol {}",
                    spec.protocol
                );
                draft.refuse("UnsupportedValue", message);
            }
        }
    }
    if draft.protocol == Some(ListenerProtocol::Http) && spec.tls.is_some() {
        let message = format!("{path}.tls: is not allowed with protocol HTTP, use HTTPS");
        draft.refuse("UnsupportedValue", message);
    }
}

fn read_address(
    draft: &mut Draft,
    spec: &api::GatewayListeners,
    path: &str,
    context: &Context<'_>,
) {
    draft.bound_port = context.allotment.bound(draft.port, context.settings);
    if draft.bound_port.is_none() {
        let message = format!("{path}.port: {} is no port that can be bound", spec.port);
        draft.refuse("PortUnavailable", message);
    }
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        match Hostname::new(name) {
            Ok(name) => draft.hostname = Some(name),
            Err(error) => {
                draft.refuse(
                    "UnsupportedValue",
                    format!("{path}.hostname: {name:?} {error}"),
                );
            }
        }
    }
}

fn read_allowed_routes(draft: &mut Draft, spec: &api::GatewayListeners, path: &str) {
    use api::GatewayListenersAllowedRoutesNamespacesFrom as Whose;
    let allowed = spec.allowed_routes.clone().unwrap_or_default();
    let kinds = allowed.kinds.unwrap_or_default();
    let mut unknown = Vec::new();
    for kind in &kinds {
        let is_ours = kind.group.as_deref().unwrap_or(GATEWAY_API) == GATEWAY_API;
        let known = RouteKind::of(draft.protocol)
            .iter()
            .copied()
            .find(|k| is_ours && k.as_str() == kind.kind);
        match known {
            Some(known) if !draft.kinds.contains(&known) => draft.kinds.push(known),
            Some(_) => {}
            None => unknown.push(kind.kind.clone()),
        }
    }
    if kinds.is_empty() {
        draft.kinds = RouteKind::of(draft.protocol).to_vec();
    }
    if !unknown.is_empty() {
        let message = format!(
            "{path}.allowedRoutes.kinds: {} cannot attach to protocol {}",
            unknown.join(", "),
            spec.protocol
        );
        draft.unresolved("InvalidRouteKinds", message);
    }
    let namespaces = allowed.namespaces.unwrap_or_default();
    draft.namespaces = match namespaces.from {
        None | Some(Whose::Same) => NamespaceRule::Same,
        Some(Whose::All) => NamespaceRule::All,
        Some(Whose::Selector) => {
            let Some(selector) = namespaces.selector else {
                let place = format!("{path}.allowedRoutes.namespaces.selector");
                draft.refuse("UnsupportedValue", format!("{place}: is missing"));
                return;
            };
            let expressions = selector.match_expressions.into_iter().flatten();
            NamespaceRule::Selector(Selector::new(
                selector.match_labels.unwrap_or_default(),
                expressions
                    .map(|e| (e.key, e.operator, e.values.unwrap_or_default()))
                    .collect(),
            ))
        }
    };
}

/// TLS that is not ours to end.
fn passthrough() -> ListenerTls {
    ListenerTls {
        passthrough: true,
        certificate_refs: Vec::new(),
        sni_hosts: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        client_validation: None,
    }
}

fn read_tls(
    draft: &mut Draft,
    spec: &api::GatewayListeners,
    path: &str,
    context: &Context<'_>,
    certificates: &mut Certificates,
) {
    let path = format!("{path}.tls");
    let tls = spec.tls.clone().unwrap_or_default();
    if tls.mode == Some(api::GatewayListenersTlsMode::Passthrough) {
        let message = format!("{path}.mode: Passthrough is not for protocol HTTPS, use Terminate");
        draft.refuse("UnsupportedValue", message);
        return;
    }
    let mut good = Vec::new();
    let mut bad: Option<(&'static str, String)> = None;
    for (index, reference) in tls.certificate_refs.iter().flatten().enumerate() {
        let reference = SecretReference {
            group: reference.group.as_deref(),
            kind: reference.kind.as_deref(),
            namespace: reference.namespace.as_deref(),
            name: &reference.name,
        };
        match certificate(reference, "InvalidCertificateRef", context, certificates) {
            Ok(key) => good.push(key),
            Err(Unusable {
                reason,
                message,
                former,
            }) => {
                good.extend(former);
                let message = format!("{path}.certificateRefs[{index}]: {message}");
                let (reason, before) = bad.unwrap_or((reason, String::new()));
                let glue = if before.is_empty() { "" } else { "; " };
                bad = Some((reason, format!("{before}{glue}{message}")));
            }
        }
    }
    if good.is_empty() {
        draft.can_serve = false;
        bad = bad.or_else(|| {
            Some((
                "InvalidCertificateRef",
                format!("{path}.certificateRefs: names no certificate"),
            ))
        });
    }
    if let Some((reason, message)) = bad {
        draft.unresolved(reason, message);
    }
    let versions = tls_option::versions(tls.options.as_ref());
    let (min_version, max_version) = versions.unwrap_or_else(|message| {
        draft.refuse("UnsupportedValue", format!("{path}.options: {message}"));
        (TlsVersion::V1_2, TlsVersion::V1_3)
    });
    draft.tls = Some(ListenerTls {
        passthrough: false,
        certificate_refs: good,
        sni_hosts: Vec::new(),
        min_version,
        max_version,
        client_validation: ask_clients(draft, spec, context),
    });
}

/// What clients must show. Letting everybody in where certificates are asked for would be worse than
/// not serving.
fn ask_clients(
    draft: &mut Draft,
    spec: &api::GatewayListeners,
    context: &Context<'_>,
) -> Option<ClientValidation> {
    let asked = client_certificate::asked(context, spec.port)?;
    if let Some((reason, message)) = asked.fault {
        if asked.validation.is_none() {
            draft.refuse("NoValidCACertificate", message.clone());
        }
        draft.unresolved(reason, message);
    }
    asked.validation
}

/// A reference to a Secret, as the generated types write it in several places.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretReference<'a> {
    pub(super) group: Option<&'a str>,
    pub(super) kind: Option<&'a str>,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

/// Why a reference leads to no certificate.
#[derive(Clone, Debug)]
pub(super) struct Unusable {
    /// Reason of the condition.
    pub(super) reason: &'static str,
    /// What is wrong with it.
    pub(super) message: String,
    /// The key of the Secret where an edit broke it, and its certificate of before serves on.
    pub(super) former: Option<Arc<str>>,
}

/// The key of the Secret that a reference of the owner leads to; `invalid` is the reason when it leads
/// nowhere.
pub(super) fn certificate(
    reference: SecretReference<'_>,
    invalid: &'static str,
    context: &Context<'_>,
    certificates: &mut Certificates,
) -> Result<Arc<str>, Unusable> {
    let unusable = |reason, message| Unusable {
        reason,
        message,
        former: None,
    };
    let invalid = |message: String| unusable(invalid, message);
    let kind = reference.kind.unwrap_or("Secret");
    if kind != "Secret" || !reference.group.unwrap_or_default().is_empty() {
        return Err(invalid(format!(
            "kind {kind} holds no certificate here, use a Secret"
        )));
    }
    let Owner {
        kind: owner,
        namespace: own,
        ..
    } = context.owner;
    let namespace = reference.namespace.unwrap_or(own);
    let key = format!("{namespace}/{}", reference.name);
    let to = To {
        group: "",
        kind: "Secret",
        namespace,
        name: reference.name,
    };
    if !context.grants.allow(From::gateway_api(owner, own), to) {
        let message =
            format!("Secret {key} is in another namespace, which needs a ReferenceGrant there");
        return Err(unusable("RefNotPermitted", message));
    }
    let Some(secret) = context.view.secrets.get(&key) else {
        return Err(invalid(format!("there is no Secret {key}")));
    };
    let Err(fault) = certificates.check(secret) else {
        return Ok(secret.key.clone());
    };
    let mut unusable = invalid(format!("Secret {key} ({}): {fault}", secret.origin));
    let former = context.view.former_secrets.get(&key);
    if let Some(former) = former.filter(|former| certificates.check(former).is_ok()) {
        unusable
            .message
            .push_str("; its certificate of before serves on until the Secret is mended");
        unusable.former = Some(former.key.clone());
    }
    Err(unusable)
}
