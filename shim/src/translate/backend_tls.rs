//! BackendTLSPolicies: which policy holds for which port of a Service, and what policies are told.
//!
//! [`Policies`] is built from the policies and what they name, not from Services, so that a change
//! of one is a change of those it targets and of nothing else. [`super::backend`] asks it for every
//! reference and every cluster. A policy that cannot be used still holds: its Service is refused
//! rather than reached in plain text. What one policy says on its own is judged in [`judge`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::backendtlspolicies::{BackendTlsPolicy, BackendTlsPolicyTargetRefs};
use imbl::OrdMap;
use k8s_openapi::api::core::v1::ServicePort;

use self::judge::Known;
pub(super) use self::judge::{Authorities, Fault, Verdict};
use crate::cluster_view::{ClusterView, Object};
use crate::conditions::{ConditionType, Conditions, ObjectStatus, ParentStatus};

mod judge;

/// More ancestors than this are not told (Gateway API `PolicyStatus.ancestors`).
const ANCESTORS_MAX: usize = 16;

/// How many routes lead from a Gateway to a Service, by Service and Gateway.
pub(super) type Reached = OrdMap<(Arc<str>, Arc<str>), usize>;

/// Every policy, judged, and the Services they target.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: BTreeMap<Arc<str>, Known>,
    services: BTreeMap<Arc<str>, Claims>,
}

/// The policies that target one Service, the one that holds first.
#[derive(Debug, Default, PartialEq, Eq)]
struct Claims {
    whole: Vec<Arc<Verdict>>,
    sections: BTreeMap<String, Vec<Arc<Verdict>>>,
}

impl Claims {
    fn of(&self, section: Option<&str>) -> &[Arc<Verdict>] {
        match section {
            Some(section) => self.sections.get(section).map_or(&[], Vec::as_slice),
            None => &self.whole,
        }
    }
}

impl Policies {
    /// Judges every policy of the view; what `previous` knows is taken over as long as it is so.
    pub(super) fn new(view: &ClusterView, previous: &Self) -> Self {
        let mut policies: Vec<_> = view.backend_tls_policies.iter().collect();
        // The older one holds, and of two of the same age the first by name.
        policies.sort_by_key(|policy| {
            let created_at = policy.created_at();
            (created_at.is_none(), created_at, policy.key.clone())
        });
        let mut next = Self::default();
        for policy in policies {
            let known = previous
                .known
                .get(&policy.key)
                .filter(|known| known.is_of(policy, view))
                .cloned()
                .unwrap_or_else(|| Known::new(policy, view));
            let mut targets = BTreeSet::new();
            for target in &policy.value.spec.target_refs {
                let Some(service) = service_of(policy, target) else {
                    continue;
                };
                if !targets.insert((service.clone(), section_of(target))) {
                    continue;
                }
                let claims = next.services.entry(service).or_default();
                let claims = match section_of(target) {
                    Some(section) => claims.sections.entry(section.to_owned()).or_default(),
                    None => &mut claims.whole,
                };
                claims.push(known.verdict.clone());
            }
            next.known.insert(policy.key.clone(), known);
        }
        next
    }

    /// Services for which other policies hold than in `other`.
    pub(super) fn changed_services(&self, other: &Self) -> BTreeSet<Arc<str>> {
        let all = self.services.keys().chain(other.services.keys());
        all.filter(|key| self.services.get(*key) != other.services.get(*key))
            .cloned()
            .collect()
    }

    /// The policy that holds for that port of a Service. One that names the port goes before one
    /// for the whole Service.
    pub(super) fn of_port(&self, service: &str, port: &ServicePort) -> Option<&Arc<Verdict>> {
        let claims = self.services.get(service)?;
        let named = port.name.as_deref().map(|name| claims.of(Some(name)));
        let named = named.and_then(<[_]>::first);
        named.or_else(|| claims.whole.first())
    }

    /// What every policy is told.
    pub(super) fn statuses(&self, view: &ClusterView, reached: &Reached) -> Vec<ObjectStatus> {
        let policies = view.backend_tls_policies.iter();
        policies
            .filter_map(|policy| {
                let verdict = &self.known.get(&policy.key)?.verdict;
                Some(self.status(policy, verdict, view, reached))
            })
            .collect()
    }

    fn status(
        &self,
        policy: &Object<BackendTlsPolicy>,
        verdict: &Verdict,
        view: &ClusterView,
        reached: &Reached,
    ) -> ObjectStatus {
        let mut status = ObjectStatus::new(policy);
        // By Gateway: what keeps the policy from holding for the targets it is reached by there.
        let mut ancestors: BTreeMap<Arc<str>, Vec<Fault>> = BTreeMap::new();
        for (index, target) in policy.value.spec.target_refs.iter().enumerate() {
            let path = format!("spec.targetRefs[{index}]");
            let Some(service) = service_of(policy, target) else {
                let message = format!("{path}: kind {} has no TLS, use a Service", target.kind);
                status.warnings.push(message);
                continue;
            };
            if view.services.get(&service).is_none() {
                let message = format!("{path}: there is no Service {service}");
                status.warnings.push(message);
            }
            let fault = self.target_fault(&service, target, &path, verdict, view);
            for gateway in gateways_of(&service, reached) {
                let faults = ancestors.entry(gateway.clone()).or_default();
                faults.extend(fault.clone());
            }
        }
        if ancestors.is_empty() {
            let own = [&verdict.accepted, &verdict.resolved];
            let faults = own.into_iter().filter_map(|outcome| outcome.as_ref().err());
            let messages = faults.map(|fault| format!("{}: {}", fault.reason, fault.message));
            status.warnings.extend(messages);
            let message = "spec.targetRefs: no route of a Gateway sends there";
            status.warnings.push(message.to_owned());
        }
        if ancestors.len() > ANCESTORS_MAX {
            let message = format!(
                "it is used at {} Gateways, of which {ANCESTORS_MAX} can be told",
                ancestors.len()
            );
            status.warnings.push(message);
        }
        let told = ancestors.into_iter().take(ANCESTORS_MAX);
        status.parents = told
            .filter_map(|(gateway, faults)| {
                let (namespace, name) = gateway.split_once('/')?;
                Some(ParentStatus {
                    kind: "Gateway".to_owned(),
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    section_name: None,
                    port: None,
                    conditions: conditions(policy.generation(), verdict, faults),
                })
            })
            .collect();
        status
    }

    /// Why the policy does not hold for one of its targets though it is valid.
    fn target_fault(
        &self,
        service: &str,
        target: &BackendTlsPolicyTargetRefs,
        path: &str,
        verdict: &Verdict,
        view: &ClusterView,
    ) -> Option<Fault> {
        let section = section_of(target);
        let first = self.services.get(service)?.of(section).first()?;
        if first.policy != verdict.policy {
            let message = format!(
                "{path}: BackendTLSPolicy {} came first and holds for Service {service}{}",
                first.policy,
                section.map_or_else(String::new, |name| format!(", port {name}"))
            );
            return Some(Fault::new("Conflicted", message));
        }
        let ports = view.services.get(service)?.value.spec.as_ref()?;
        let section = section?;
        let mut names = ports
            .ports
            .iter()
            .flatten()
            .map(|port| port.name.as_deref());
        if names.any(|name| name == Some(section)) {
            return None;
        }
        let message = format!("{path}.sectionName: Service {service} has no port named {section}");
        Some(Fault::new("TargetNotFound", message))
    }
}

fn conditions(
    generation: i64,
    verdict: &Verdict,
    faults: Vec<Fault>,
) -> Vec<crate::conditions::Condition> {
    let mut conditions = Conditions::new(generation);
    let accepted = match &verdict.accepted {
        Ok(()) => Fault::joined(faults).map_or(Ok(()), Err),
        Err(fault) => Err(fault.clone()),
    };
    match accepted {
        Ok(()) => conditions.hold(ConditionType::Accepted, "Accepted"),
        Err(fault) => conditions.fail(ConditionType::Accepted, fault.reason, fault.message),
    }
    match &verdict.resolved {
        Ok(()) => conditions.hold(ConditionType::ResolvedRefs, "ResolvedRefs"),
        Err(fault) => {
            let message = fault.message.clone();
            conditions.fail(ConditionType::ResolvedRefs, fault.reason, message);
        }
    }
    conditions.finish()
}

/// Gateways whose routes send to a Service.
fn gateways_of<'a>(
    service: &'a Arc<str>,
    reached: &'a Reached,
) -> impl Iterator<Item = &'a Arc<str>> {
    let first = (service.clone(), Arc::from(""));
    let pairs = reached.range(first..).map(|(pair, _)| pair);
    pairs
        .take_while(move |(known, _)| known == service)
        .map(|(_, gateway)| gateway)
}

/// The Service a target names; policies target what is in their own namespace.
fn service_of(
    policy: &Object<BackendTlsPolicy>,
    target: &BackendTlsPolicyTargetRefs,
) -> Option<Arc<str>> {
    let is_service = target.kind == "Service" && target.group.is_empty();
    is_service.then(|| format!("{}/{}", policy.namespace(), target.name).into())
}

/// The port a target names; nothing means all of them.
fn section_of(target: &BackendTlsPolicyTargetRefs) -> Option<&str> {
    target
        .section_name
        .as_deref()
        .filter(|name| !name.is_empty())
}
