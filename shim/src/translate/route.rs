//! What HTTPRoutes and GRPCRoutes have in common: host names, parents, conditions.
//!
//! [`super::http_route`] and [`super::grpc_route`] translate their rules and leave the rest to
//! [`finish`]. An [`Outcome`] also says what it depends on, so that [`super::Translation`] knows when
//! it still holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_api::experimental::httproutes::HttpRouteParentRefs;
use ir::http_route::Route;
use ir::{Hostname, Violations};

use super::attachment::{Attachment, attach};
use super::listener::RouteKind;
use super::listener_name::gateway_of;
use super::notes::Notes;
use super::route_annotation;
use super::{Changed, Scope};
use crate::cluster_view::{Object, Watched};
use crate::conditions::{ConditionType, Conditions, ObjectStatus, ParentStatus, Truth};

/// The parents of a route in the form that all share: the generated types write the same schema once
/// per kind.
macro_rules! parent_refs {
    ($spec:expr) => {
        $spec
            .parent_refs
            .iter()
            .flatten()
            .map(
                |parent| gateway_api::experimental::httproutes::HttpRouteParentRefs {
                    group: parent.group.clone(),
                    kind: parent.kind.clone(),
                    name: parent.name.clone(),
                    namespace: parent.namespace.clone(),
                    port: parent.port,
                    section_name: parent.section_name.clone(),
                },
            )
            .collect()
    };
}
pub(super) use parent_refs;

/// What became of one route.
#[derive(Debug)]
pub(super) struct Outcome<R> {
    /// The route, unless it was left out or nobody took it.
    pub(super) route: Option<Arc<Route<R>>>,
    /// What there is to say about it.
    pub(super) status: Arc<ObjectStatus>,
    /// Listeners that count it as attached.
    pub(super) attached: BTreeSet<Arc<str>>,
    /// Listeners that would count it, had not one of another kind come first.
    pub(super) lost: BTreeSet<Arc<str>>,
    /// Clusters it sends to; empty when it was left out.
    pub(super) clusters: BTreeSet<Arc<str>>,
    namespace: Arc<str>,
    gateways: BTreeSet<Arc<str>>,
    services: BTreeSet<Arc<str>>,
    /// Services it may send to.
    reached: BTreeSet<Arc<str>>,
    ai_services: BTreeSet<Arc<str>>,
    direct_responses: BTreeSet<Arc<str>>,
    crosses_namespaces: bool,
}

impl<R> Outcome<R> {
    /// True when something it was made of changed.
    pub(super) fn is_stale(&self, changed: &Changed) -> bool {
        (changed.grants && self.crosses_namespaces)
            || changed.namespaces.contains(&self.namespace)
            || meets(&self.gateways, &changed.gateways)
            || meets(&self.services, &changed.services)
            || meets(&self.ai_services, &changed.ai_services)
            || meets(&self.direct_responses, &changed.direct_responses)
    }

    /// Every Service it sends to from every Gateway that took it.
    pub(super) fn reached(&self) -> impl Iterator<Item = (Arc<str>, Arc<str>)> {
        let listeners = self.attached.iter();
        let gateways = listeners.map(|name| gateway_of(name));
        // A mesh listener belongs to no Gateway.
        let gateways: BTreeSet<&str> = gateways.filter(|it| !it.is_empty()).collect();
        gateways.into_iter().flat_map(|gateway| {
            let services = self.reached.iter();
            services.map(move |service| (service.clone(), Arc::from(gateway)))
        })
    }
}

fn meets(wanted: &BTreeSet<Arc<str>>, changed: &BTreeSet<Arc<str>>) -> bool {
    !changed.is_empty() && wanted.iter().any(|key| changed.contains(key))
}

/// The parts of a route that both kinds write alike.
pub(super) struct Head<'a> {
    pub(super) kind: RouteKind,
    pub(super) parent_refs: Vec<HttpRouteParentRefs>,
    pub(super) hostnames: &'a [String],
    /// How many rules the route has, as written.
    pub(super) rules: usize,
}

/// Puts a route together from its head, its translated rules and what came up meanwhile.
pub(super) fn finish<T: Watched, R>(
    object: &Object<T>,
    head: Head<'_>,
    rules: Vec<R>,
    mut notes: Notes,
    scope: &Scope<'_>,
    check: impl FnOnce(&Route<R>) -> Result<(), Violations>,
) -> Outcome<R> {
    if head.parent_refs.is_empty() {
        notes.warn(
            "spec.parentRefs",
            "is absent, so the route is attached to nothing",
        );
    }
    let hostnames = hostnames(head.hostnames, &mut notes);
    let attachment = attach(head.kind, &head.parent_refs, &hostnames, scope, &mut notes);
    let metadata = object.value.metadata();
    route_annotation::judge(metadata.annotations.as_ref(), head.kind, &mut notes);
    let route = Route {
        key: object.key.clone(),
        hostnames,
        listeners: attachment.listeners.clone(),
        parent_refs: attachment
            .parents
            .iter()
            .map(|(parent, _)| parent.clone())
            .collect(),
        rules,
        labels: metadata.labels.clone().unwrap_or_default().into(),
        annotations: gateway_annotations(metadata.annotations.as_ref()),
        policy: None,
        security_policy: None,
        created_at: object.created_at(),
    };
    // What we would say ourselves is clearer; this is for what only the contract knows.
    if notes.violations.is_empty()
        && let Err(violations) = check(&route)
    {
        notes.violations.extend(violations.iter().cloned());
    }
    let is_valid = notes.violations.is_empty() && !all_unsupported(&notes, head.rules);
    let route = (is_valid && !attachment.listeners.is_empty()).then(|| Arc::new(route));
    let mut status = ObjectStatus::new(object);
    status.parents = parents(object.generation(), &attachment, &notes, head.rules);
    status.violations = notes.violations;
    status.warnings = notes.warnings;
    Outcome {
        clusters: if route.is_some() {
            notes.clusters
        } else {
            BTreeSet::new()
        },
        route,
        status: Arc::new(status),
        attached: if is_valid {
            attachment.counted
        } else {
            BTreeSet::new()
        },
        lost: if is_valid {
            attachment.lost
        } else {
            BTreeSet::new()
        },
        namespace: object.namespace().into(),
        gateways: attachment.gateways,
        services: notes.services,
        reached: notes.reached,
        ai_services: notes.ai_services,
        direct_responses: notes.direct_responses,
        crosses_namespaces: notes.crosses_namespaces,
    }
}

fn hostnames(written: &[String], notes: &mut Notes) -> Vec<Hostname> {
    if written.len() > 16 {
        notes.violation(
            "spec.hostnames",
            "holds more than 16 names, split the route",
        );
    }
    let mut hostnames = Vec::with_capacity(written.len());
    for (index, name) in written.iter().enumerate() {
        match Hostname::new(name) {
            Ok(name) => hostnames.push(name),
            Err(error) => {
                notes.violation(
                    &format!("spec.hostnames[{index}]"),
                    format!("{name:?} {error}"),
                );
            }
        }
    }
    hostnames
}

fn all_unsupported(notes: &Notes, rules: usize) -> bool {
    let unsupported: BTreeSet<_> = notes.unsupported.iter().map(|(rule, _)| rule).collect();
    rules > 0 && unsupported.len() == rules
}

/// Annotations that concern the gateway; kubectl's own would carry the whole manifest along.
fn gateway_annotations(
    written: Option<&std::collections::BTreeMap<String, String>>,
) -> ir::resource::Metadata {
    let concerns = |key: &str| key.contains("nantian.dev/") || key.contains("nantian-gw");
    written
        .into_iter()
        .flatten()
        .filter(|(key, _)| concerns(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn parents(
    generation: i64,
    attachment: &Attachment,
    notes: &Notes,
    rules: usize,
) -> Vec<ParentStatus> {
    let status = |(parent, outcome): &(ir::http_route::ParentRef, Result<(), _>)| ParentStatus {
        kind: parent.kind.to_string(),
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section_name: parent.section_name.clone(),
        port: parent.port,
        conditions: {
            let mut conditions = Conditions::new(generation);
            judge(&mut conditions, outcome, notes, rules);
            conditions.finish()
        },
    };
    attachment.parents.iter().map(status).collect()
}

fn judge(
    conditions: &mut Conditions,
    outcome: &Result<(), (&'static str, String)>,
    notes: &Notes,
    rules: usize,
) {
    let joined = |list: &mut dyn Iterator<Item = String>| list.collect::<Vec<_>>().join("; ");
    let unsupported = joined(&mut notes.unsupported.iter().map(|(_, message)| message.clone()));
    if let Err((reason, message)) = outcome {
        conditions.fail(ConditionType::Accepted, reason, message.clone());
    } else if !notes.violations.is_empty() {
        let faults = notes
            .violations
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message));
        let message = joined(&mut faults.take(8));
        conditions.fail(ConditionType::Accepted, "UnsupportedValue", message);
    } else if all_unsupported(notes, rules) {
        conditions.fail(ConditionType::Accepted, "UnsupportedValue", unsupported);
    } else {
        let without_effect = notes.warnings.join("; ");
        conditions.set(
            ConditionType::Accepted,
            Truth::True,
            "Accepted",
            without_effect,
        );
        if !unsupported.is_empty() {
            let reason = "UnsupportedValue";
            conditions.set(
                ConditionType::PartiallyInvalid,
                Truth::True,
                reason,
                unsupported,
            );
        }
    }
    match notes.unresolved.first() {
        None => conditions.hold(ConditionType::ResolvedRefs, "ResolvedRefs"),
        Some((reason, _)) => {
            let message = joined(&mut notes.unresolved.iter().map(|(_, message)| message.clone()));
            conditions.fail(ConditionType::ResolvedRefs, reason, message);
        }
    }
}
