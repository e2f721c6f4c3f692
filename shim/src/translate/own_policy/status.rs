//! What each policy is told, by ancestor: the Gateways that it concerns, or its targets where none does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::ai::{self, AiServices};
use super::super::listener_name::gateway_of;
use super::super::{Memos, backend};
use super::publish::{agreed, said};
use super::target::Target;
use super::token::NO_AI_SERVICE;
use super::{Budgets, Family, Fault, Judged, OwnPolicies, Payload};
use crate::cluster_view::{ClusterView, Kind, Object, Watched};
use crate::conditions::{Condition, ConditionType, Conditions, ObjectStatus, ParentStatus, Truth};

/// More ancestors than this are not told (Gateway API `PolicyStatus.ancestors`).
const ANCESTORS_MAX: usize = 16;

/// More routes than this are counted and not named.
const SHARED_MAX: usize = 5;

/// Which Gateways a target is reached from.
pub(in super::super) struct Reach {
    /// By Service.
    pub(in super::super) services: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// By kind and key of a route.
    pub(in super::super) routes: BTreeMap<(Kind, Arc<str>), BTreeSet<Arc<str>>>,
    /// Routes that Gateways share and that a policy of one of them is not applied to, by its target.
    shared: BTreeMap<(Family, Arc<str>), BTreeSet<String>>,
}

impl Reach {
    /// Looks where routes lead to and where they are attached; `kind` is that of routes that a policy
    /// can be about.
    pub(in super::super) fn add<R>(&mut self, kind: Option<Kind>, memos: &Memos<R>) {
        for (key, outcome) in memos {
            let listeners = outcome.attached.iter();
            let gateways = listeners.map(|listener| gateway_of(listener));
            let gateways = gateways.filter(|it| !it.is_empty()).map(Arc::from);
            let gateways: BTreeSet<Arc<str>> = gateways.collect();
            if let Some(found) = kind.and_then(|kind| self.routes.get_mut(&(kind, key.clone()))) {
                found.extend(gateways.iter().cloned());
            }
            if self.services.is_empty() {
                continue;
            }
            for cluster in &outcome.clusters {
                if let Some(found) = self.services.get_mut(backend::service_key(cluster)) {
                    found.extend(gateways.iter().cloned());
                }
            }
        }
    }
}

/// Kind, namespace, name and part of an ancestor.
type Ancestor = (String, String, String, Option<String>);

impl OwnPolicies {
    /// Services and routes whose Gateways [`OwnPolicies::statuses`] wants to know.
    pub(in super::super) fn wanted(&self) -> Reach {
        let mut reach = Reach {
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            shared: BTreeMap::new(),
        };
        for (target, _) in self.judged.iter().flat_map(|policy| &policy.targets) {
            match target {
                Target::Service(key) => drop(reach.services.insert(key.clone(), BTreeSet::new())),
                Target::AiService(key) => {
                    reach.services.insert(ai::cluster_key(key), BTreeSet::new());
                }
                Target::Route(kind, key) | Target::Rule(kind, key, _) => {
                    reach.routes.insert((*kind, key.clone()), BTreeSet::new());
                }
                Target::Gateway(..) | Target::Other { .. } => {}
            }
        }
        reach
    }

    /// Looks for routes that policies of Gateways are not applied to, because the route is another
    /// Gateway's as well.
    pub(in super::super) fn note_shared<R>(&self, reach: &mut Reach, kind: Kind, memos: &Memos<R>) {
        if self.gateways.is_empty() {
            return;
        }
        for (key, outcome) in memos {
            let mut note = |family: Family, targets: Vec<&Arc<str>>| {
                for target in targets {
                    let shared = reach.shared.entry((family, target.clone())).or_default();
                    shared.insert(format!("{kind} {key}"));
                }
            };
            let attached = || outcome.attached.iter();
            let settings = said(self, attached(), |on| on.settings.as_ref());
            if agreed(&settings).is_none() {
                let targets = settings.iter().flatten().map(|(target, _)| *target);
                note(Family::Route, targets.collect());
            }
            let cors = said(self, attached(), |on| on.cors.as_ref());
            if agreed(&cors).is_none() {
                let targets = cors.iter().flatten().map(|(target, _)| *target);
                note(Family::Security, targets.collect());
            }
        }
    }

    /// What every policy is told.
    pub(in super::super) fn statuses(
        &self,
        view: &ClusterView,
        reach: &Reach,
        budgets: &Budgets,
        services: &AiServices,
    ) -> Vec<ObjectStatus> {
        let told = self.judged.iter().filter_map(|judged| {
            let key = &judged.key;
            match judged.family {
                Family::Token => {
                    let judged = budgets.judged(judged, services);
                    Some(status(&judged, view.token_policies.get(key)?, reach))
                }
                Family::Backend => Some(status(judged, view.backend_lb_policies.get(key)?, reach)),
                Family::Traffic => Some(status(
                    judged,
                    view.backend_traffic_policies.get(key)?,
                    reach,
                )),
                Family::Route => Some(status(judged, view.route_policies.get(key)?, reach)),
                Family::Plugin => Some(status(judged, view.wasm_plugins.get(key)?, reach)),
                Family::Security => Some(status(judged, view.security_policies.get(key)?, reach)),
            }
        });
        told.collect()
    }

    /// Kind and key of every policy.
    pub(in super::super) fn keys(&self) -> impl Iterator<Item = (Kind, Arc<str>)> {
        self.judged
            .iter()
            .map(|judged| (judged.kind, judged.key.clone()))
    }
}

fn status<T: Watched>(judged: &Judged, object: &Object<T>, reach: &Reach) -> ObjectStatus {
    let mut status = ObjectStatus::new(object);
    status.warnings.clone_from(&judged.without_effect);
    if judged.targets.is_empty() {
        let mut conditions = Conditions::new(object.generation());
        let message = "spec.targetRefs: is empty, so the policy is about nothing";
        conditions.fail(ConditionType::Accepted, "Invalid", message);
        status.conditions = conditions.finish();
        return status;
    }
    let mut ancestors = BTreeMap::<Ancestor, Vec<_>>::new();
    for entry in &judged.targets {
        for ancestor in ancestors_of(&entry.0, reach) {
            ancestors.entry(ancestor).or_default().push(entry);
        }
    }
    if ancestors.len() > ANCESTORS_MAX {
        let count = ancestors.len();
        let message = format!("it concerns {count} Gateways, of which {ANCESTORS_MAX} can be told");
        status.warnings.push(message);
    }
    let told = ancestors.into_iter().take(ANCESTORS_MAX);
    status.parents = told
        .map(
            |((kind, namespace, name, section_name), targets)| ParentStatus {
                kind,
                namespace,
                name,
                section_name,
                port: None,
                conditions: conditions(judged, object.generation(), &targets, reach),
            },
        )
        .collect();
    status
}

/// The Gateways through which the target is reached; without any the target itself.
fn ancestors_of(target: &Target, reach: &Reach) -> Vec<Ancestor> {
    let gateways = match target {
        Target::Service(key) => reach.services.get(key),
        Target::AiService(key) => reach.services.get(&ai::cluster_key(key)),
        Target::Route(kind, key) | Target::Rule(kind, key, _) => {
            reach.routes.get(&(*kind, key.clone()))
        }
        Target::Gateway(..) | Target::Other { .. } => None,
    };
    let found: Vec<_> = gateways
        .into_iter()
        .flatten()
        .filter_map(|key| {
            let (namespace, name) = key.split_once('/')?;
            Some((
                "Gateway".to_owned(),
                namespace.to_owned(),
                name.to_owned(),
                None,
            ))
        })
        .collect();
    if !found.is_empty() {
        return found;
    }
    let (kind, namespace, name, section) = target.parts();
    vec![(
        kind.to_owned(),
        namespace.to_owned(),
        name.to_owned(),
        section.map(str::to_owned),
    )]
}

fn conditions(
    judged: &Judged,
    generation: i64,
    targets: &[&(Target, Result<(), Fault>)],
    reach: &Reach,
) -> Vec<Condition> {
    let mut conditions = Conditions::new(generation);
    let faults: Vec<_> = targets
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().err())
        .collect();
    match (&judged.payload, faults.first()) {
        (Err(fault), _) => {
            conditions.fail(ConditionType::Accepted, fault.reason, &*fault.message);
        }
        (Ok(_), Some(first)) => {
            let messages: Vec<_> = faults.iter().map(|fault| &*fault.message).collect();
            let reason = match first.reason {
                "InvalidKind" => "Invalid",
                reason => reason,
            };
            conditions.fail(ConditionType::Accepted, reason, messages.join("; "));
        }
        (Ok(_), None) => {
            let mut messages = judged.without_effect.clone();
            messages.extend(targets.iter().filter_map(|(target, _)| {
                let key = target.gateway_key()?;
                let routes = reach.shared.get(&(judged.family, key))?;
                Some(not_applied(judged.family, routes))
            }));
            let message = messages.join("; ");
            conditions.set(ConditionType::Accepted, Truth::True, "Accepted", message);
        }
    }
    let own =
        judged.payload.as_ref().err().filter(|fault| {
            fault.reason.ends_with("NotFound") || fault.reason == "RefNotPermitted"
        });
    // What it names is there, and something else keeps it from holding.
    let is_there = |reason: &str| matches!(reason, "Conflicted" | NO_AI_SERVICE);
    let mut unresolved = faults.iter().filter(|fault| !is_there(fault.reason));
    match own.or_else(|| unresolved.next().copied()) {
        Some(fault) => {
            conditions.fail(ConditionType::ResolvedRefs, fault.reason, &*fault.message);
        }
        None => {
            let told = match &judged.payload {
                Ok(Payload::Plugin(planned)) => planned.told.clone(),
                _ => String::new(),
            };
            let reason = "ResolvedRefs";
            conditions.set(ConditionType::ResolvedRefs, Truth::True, reason, told);
        }
    }
    conditions.finish()
}

/// That a policy of a Gateway is not applied to routes that others share.
fn not_applied(family: Family, routes: &BTreeSet<String>) -> String {
    let what = match family {
        Family::Security => "its CORS settings are",
        _ => "it is",
    };
    let named: Vec<_> = routes.iter().take(SHARED_MAX).map(String::as_str).collect();
    let more = match routes.len().saturating_sub(SHARED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "{what} not applied to {}{more}, which another parent without the same settings has as well: \
         aim a policy at the route, or say the same for all its Gateways",
        named.join(", ")
    )
}
