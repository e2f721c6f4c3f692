//! ListenerSets: which Gateway takes their listeners, and what they are told (GEP-1713).
//!
//! [`super::gateway`] asks which sets stand with which Gateway before it looks at any listener, and
//! lets [`status`] tell a set what became of it. A set that no Gateway takes has no listeners, and
//! routes that name it are told why. Listeners themselves are read by [`super::listener`], whatever
//! they are written in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::experimental::gateways as api;
use gateway_api::experimental::listenersets::{
    ListenerSet, ListenerSetListeners, ListenerSetListenersAllowedRoutesNamespacesFrom as From,
    ListenerSetListenersTlsMode as TlsMode,
};

use super::GATEWAY_API;
use super::listener::Selector;
use crate::cluster_view::{ClusterView, Object};
use crate::conditions::{
    Condition, ConditionType, Conditions, ListenerStatus, ObjectStatus, Truth,
};

/// Listeners of one set that are served (Gateway API `ListenerSetSpec.listeners`).
pub(super) const LISTENERS_MAX: usize = 64;

/// Sets by the Gateway that takes them, and those that none takes.
#[derive(Default)]
pub(super) struct Attached<'a> {
    by_gateway: BTreeMap<Arc<str>, Vec<&'a Arc<Object<ListenerSet>>>>,
    /// Sets of Gateways of ours that may not attach, and of Gateways that are not there.
    pub(super) refused: Vec<(&'a Arc<Object<ListenerSet>>, Refusal)>,
    /// Sets that another controller answers for.
    pub(super) foreign: Vec<&'a Arc<Object<ListenerSet>>>,
}

/// Why a set is not attached.
pub(super) struct Refusal {
    truth: Truth,
    reason: &'static str,
    pub(super) message: String,
}

impl<'a> Attached<'a> {
    /// Finds a place for every set; `ours` are our Gateways.
    pub(super) fn new(view: &'a ClusterView, ours: &[&Arc<Object<api::Gateway>>]) -> Self {
        let ours: BTreeMap<&str, _> = ours.iter().map(|it| (&*it.key, *it)).collect();
        let mut attached = Self::default();
        for set in view.listener_sets.iter() {
            let parent = &set.value.spec.parent_ref;
            let namespace = parent
                .namespace
                .as_deref()
                .unwrap_or_else(|| set.namespace());
            let key = format!("{namespace}/{}", parent.name);
            let kind = parent.kind.as_deref().unwrap_or("Gateway");
            let is_gateway =
                kind == "Gateway" && parent.group.as_deref().unwrap_or(GATEWAY_API) == GATEWAY_API;
            let refusal = match ours.get(&*key) {
                _ if !is_gateway => Refusal {
                    truth: Truth::False,
                    reason: "Invalid",
                    message: format!(
                        "spec.parentRef: kind {kind} has no listeners, name a Gateway"
                    ),
                },
                Some(gateway) if allows(gateway, set, view) => {
                    let sets = attached.by_gateway.entry(gateway.key.clone());
                    sets.or_default().push(set);
                    continue;
                }
                Some(_) => Refusal {
                    truth: Truth::False,
                    reason: "NotAllowed",
                    message: format!(
                        "spec.parentRef: Gateway {key} takes no ListenerSets of namespace {}, see \
                         its spec.allowedListeners",
                        set.namespace()
                    ),
                },
                None if view.gateways.get(&key).is_some() => {
                    attached.foreign.push(set);
                    continue;
                }
                // It may become anybody's.
                None => Refusal {
                    truth: Truth::Unknown,
                    reason: "Pending",
                    message: format!("spec.parentRef: there is no Gateway {key}"),
                },
            };
            attached.refused.push((set, refusal));
        }
        for sets in attached.by_gateway.values_mut() {
            sets.sort_by_key(|it| (it.created_at().is_none(), it.created_at(), it.key.clone()));
        }
        attached
    }

    /// The sets of one Gateway in the order of their precedence.
    pub(super) fn of(&self, gateway: &str) -> &[&'a Arc<Object<ListenerSet>>] {
        self.by_gateway.get(gateway).map_or(&[], Vec::as_slice)
    }

    /// Ports that the sets of a Gateway write.
    pub(super) fn ports(&self, gateway: &str) -> BTreeSet<u16> {
        let listeners = self.of(gateway).iter().flat_map(|set| listeners(set));
        listeners
            .filter_map(|listener| u16::try_from(listener.port).ok())
            .collect()
    }
}

/// The listeners of a set, as far as they are looked at.
pub(super) fn listeners(set: &Object<ListenerSet>) -> impl Iterator<Item = &ListenerSetListeners> {
    set.value.spec.listeners.iter().take(LISTENERS_MAX)
}

fn allows(gateway: &Object<api::Gateway>, set: &Object<ListenerSet>, view: &ClusterView) -> bool {
    use api::GatewayAllowedListenersNamespacesFrom as Whose;
    let allowed = gateway.value.spec.allowed_listeners.as_ref();
    let Some(namespaces) = allowed.and_then(|allowed| allowed.namespaces.as_ref()) else {
        return false;
    };
    match namespaces.from {
        None | Some(Whose::None) => false,
        Some(Whose::All) => true,
        Some(Whose::Same) => gateway.namespace() == set.namespace(),
        Some(Whose::Selector) => namespaces.selector.clone().is_some_and(|selector| {
            let expressions = selector.match_expressions.into_iter().flatten();
            let selector = Selector::new(
                selector.match_labels.unwrap_or_default(),
                expressions
                    .map(|e| (e.key, e.operator, e.values.unwrap_or_default()))
                    .collect(),
            );
            selector.matches(&view.namespace_labels(set.namespace()))
        }),
    }
}

/// A listener of a set in the shape of one of a Gateway, field by field.
pub(super) fn as_listener(written: &ListenerSetListeners) -> api::GatewayListeners {
    let routes = written.allowed_routes.as_ref();
    let tls = written.tls.as_ref();
    api::GatewayListeners {
        name: written.name.clone(),
        port: written.port,
        protocol: written.protocol.clone(),
        hostname: written.hostname.clone(),
        allowed_routes: routes.map(|routes| api::GatewayListenersAllowedRoutes {
            kinds: routes.kinds.as_ref().map(|kinds| {
                let kind = |it: &gateway_api::experimental::listenersets::ListenerSetListenersAllowedRoutesKinds| {
                    api::GatewayListenersAllowedRoutesKinds {
                        group: it.group.clone(),
                        kind: it.kind.clone(),
                    }
                };
                kinds.iter().map(kind).collect()
            }),
            namespaces: routes.namespaces.as_ref().map(|namespaces| {
                api::GatewayListenersAllowedRoutesNamespaces {
                    from: namespaces.from.as_ref().map(|from| match from {
                        From::All => api::GatewayListenersAllowedRoutesNamespacesFrom::All,
                        From::Same => api::GatewayListenersAllowedRoutesNamespacesFrom::Same,
                        From::Selector => api::GatewayListenersAllowedRoutesNamespacesFrom::Selector,
                    }),
                    selector: namespaces.selector.as_ref().map(selector),
                }
            }),
        }),
        tls: tls.map(|tls| api::GatewayListenersTls {
            certificate_refs: tls.certificate_refs.as_ref().map(|refs| {
                let one = |it: &gateway_api::experimental::listenersets::ListenerSetListenersTlsCertificateRefs| {
                    api::GatewayListenersTlsCertificateRefs {
                        group: it.group.clone(),
                        kind: it.kind.clone(),
                        name: it.name.clone(),
                        namespace: it.namespace.clone(),
                    }
                };
                refs.iter().map(one).collect()
            }),
            mode: tls.mode.as_ref().map(|mode| match mode {
                TlsMode::Terminate => api::GatewayListenersTlsMode::Terminate,
                TlsMode::Passthrough => api::GatewayListenersTlsMode::Passthrough,
            }),
            options: tls.options.clone(),
        }),
    }
}

fn selector(
    written: &gateway_api::experimental::listenersets::ListenerSetListenersAllowedRoutesNamespacesSelector,
) -> api::GatewayListenersAllowedRoutesNamespacesSelector {
    let expressions = written.match_expressions.as_ref();
    api::GatewayListenersAllowedRoutesNamespacesSelector {
        match_labels: written.match_labels.clone(),
        match_expressions: expressions.map(|list| {
            list.iter()
                .map(
                    |it| api::GatewayListenersAllowedRoutesNamespacesSelectorMatchExpressions {
                        key: it.key.clone(),
                        operator: it.operator.clone(),
                        values: it.values.clone(),
                    },
                )
                .collect()
        }),
    }
}

/// What a set is told that no Gateway takes.
pub(super) fn refused(set: &Object<ListenerSet>, refusal: &Refusal) -> ObjectStatus {
    let mut conditions = Conditions::new(set.generation());
    for kind in [ConditionType::Accepted, ConditionType::Programmed] {
        let Refusal {
            truth,
            reason,
            message,
        } = refusal;
        conditions.set(kind, *truth, reason, message.clone());
    }
    let mut status = ObjectStatus::new(set);
    status.conditions = conditions.finish();
    status
}

/// What a set is told whose Gateway took it; `is_refused` when that Gateway as a whole is not served.
pub(super) fn status(
    set: &Object<ListenerSet>,
    listeners: Vec<ListenerStatus>,
    is_refused: bool,
) -> ObjectStatus {
    let mut status = ObjectStatus::new(set);
    status.conditions = conditions(set.generation(), &listeners, is_refused);
    status.listeners = listeners;
    let left_out = set.value.spec.listeners.len().saturating_sub(LISTENERS_MAX);
    if left_out > 0 {
        let warning = format!(
            "spec.listeners: only the first {LISTENERS_MAX} are looked at, {left_out} are left out"
        );
        status.warnings.push(warning);
    }
    status
}

/// Brings the conditions of a set up to date after those of its listeners were changed.
pub(super) fn summarize(status: &mut ObjectStatus) {
    let Some(first) = status.conditions.first() else {
        return;
    };
    let is_refused = first.reason == PARENT_NOT_ACCEPTED;
    status.conditions = conditions(first.observed_generation, &status.listeners, is_refused);
}

const PARENT_NOT_ACCEPTED: &str = "ParentNotAccepted";

fn conditions(generation: i64, listeners: &[ListenerStatus], is_refused: bool) -> Vec<Condition> {
    let mut conditions = Conditions::new(generation);
    if is_refused {
        let message = "the Gateway of spec.parentRef is not accepted, see its conditions";
        conditions.fail(ConditionType::Accepted, PARENT_NOT_ACCEPTED, message);
        conditions.fail(ConditionType::Programmed, "ParentNotProgrammed", message);
        return conditions.finish();
    }
    let is_served = |listener: &&ListenerStatus| {
        let programmed = |c: &&Condition| c.kind == ConditionType::Programmed;
        let programmed = listener.conditions.iter().find(programmed);
        programmed.is_some_and(|condition| !condition.is_problem())
    };
    let invalid: Vec<_> = listeners.iter().filter(|it| !is_served(it)).collect();
    let names: Vec<_> = invalid.iter().map(|it| it.name.as_str()).collect();
    let reason = "ListenersNotValid";
    let message = format!("these listeners are not served: {}", names.join(", "));
    if invalid.is_empty() && !listeners.is_empty() {
        conditions.hold(ConditionType::Accepted, "Accepted");
        conditions.hold(ConditionType::Programmed, "Programmed");
    } else if invalid.len() < listeners.len() {
        conditions.set(ConditionType::Accepted, Truth::True, reason, message);
        conditions.hold(ConditionType::Programmed, "Programmed");
    } else {
        conditions.fail(ConditionType::Accepted, reason, message.clone());
        conditions.fail(ConditionType::Programmed, reason, message);
    }
    conditions.finish()
}
