//! What a TokenPolicy says, and which budget a cluster has.
//!
//! Budgets are a cluster's. A policy that names a backend holds there; else the oldest of those that
//! name an HTTPRoute which leads there, as long as the backend is in the policy's own namespace. A policy that another one keeps from a backend is told so.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use crds::TokenPolicySpec;
use ir::ai::{OnLimit, TokenPolicy, TokenScope};
use ir::http_route::HttpRule;

use super::super::ai::{self, AiServices};
use super::super::{Memos, backend};
use super::target::{Reference, Target};
use super::{Fault, Judged, OwnPolicies, Payload, Read, broken};
use crate::cluster_view::{Kind, Object};

/// The reason for a policy that counts nothing, as no AIService is in front of what it names.
pub(super) const NO_AI_SERVICE: &str = "NoAIService";

/// A policy for an HTTPRoute.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ByRoute {
    pub(super) route: Arc<str>,
    pub(super) policy: Arc<str>,
    pub(super) tokens: Arc<TokenPolicy>,
}

pub(super) fn read(object: &Object<crds::TokenPolicy>) -> Read {
    let spec = &object.value.spec;
    let targets = spec.target_refs.iter().map(|target| {
        let reference = Reference::from(target);
        let found = Target::read(&reference, object.namespace())?;
        let message = match &found {
            Target::Service(_) | Target::AiService(_) | Target::Route(Kind::HttpRoute, _) => {
                if reference.section.is_none() {
                    return Ok(found);
                }
                "a part of it cannot be a target, leave out sectionName".to_owned()
            }
            _ => {
                let kind = reference.kind;
                format!("kind {kind} has no budget, use an AIService, an HTTPRoute or a Service")
            }
        };
        Err((found, Fault::new("InvalidKind", message)))
    });
    let targets: Vec<_> = targets.collect();
    let tokens = tokens(spec);
    let mut without_effect = Vec::new();
    if tokens.on_limit == OnLimit::Degrade && tokens.degrade_to.is_none() {
        let message = "spec.onLimit: degrade without degradeTo has no model to go to, so requests \
                       beyond the limit are refused";
        without_effect.push(message.to_owned());
    }
    Read {
        payload: match broken(&object.value) {
            Some(fault) => Err(fault),
            None => Ok(Payload::Token(Arc::new(tokens))),
        },
        targets,
        without_effect,
    }
}

/// The schema allows no other scopes and actions, and asks for the names that go with them.
fn tokens(spec: &TokenPolicySpec) -> TokenPolicy {
    let limit = |limit: Option<i64>| {
        let limit = limit.and_then(|limit| u64::try_from(limit).ok());
        limit.and_then(NonZeroU64::new)
    };
    let header = spec.header_name.as_deref().unwrap_or_default();
    let claim = spec.claim_name.clone().unwrap_or_default();
    TokenPolicy {
        tokens_per_minute: limit(spec.tokens_per_minute),
        tokens_per_hour: limit(spec.tokens_per_hour),
        requests_per_minute: limit(spec.requests_per_minute),
        scope: match spec.scope.as_deref() {
            Some("sourceIP") => TokenScope::SourceIp,
            Some("header") => TokenScope::Header(header.to_ascii_lowercase()),
            Some("jwtClaim") => TokenScope::JwtClaim(claim),
            Some("user" | "per-user") => TokenScope::User,
            Some("model") => TokenScope::Model,
            Some("route") => TokenScope::Route,
            Some("global") => TokenScope::Global,
            _ => TokenScope::ApiKey,
        },
        // Zero is what is not written, on the wire.
        burst: spec.burst.filter(|burst| *burst > 0.0).unwrap_or(1.0),
        on_limit: match spec.on_limit.as_deref() {
            Some("queue") => OnLimit::Queue,
            Some("degrade") => OnLimit::Degrade,
            Some("warn") => OnLimit::Warn,
            _ => OnLimit::Reject,
        },
        degrade_to: spec.degrade_to.clone(),
        is_dry_run: spec.dry_run.unwrap_or_default(),
    }
}

fn not_counted(name: &str) -> String {
    format!(
        "requests to {name} are not counted, as it is not the first provider of an AIService: make \
         one with that endpoint the backend of the route"
    )
}

fn namespace_of(key: &str) -> &str {
    key.split_once('/').map_or("", |(namespace, _)| namespace)
}

/// Budgets that clusters have by HTTPRoutes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Budgets {
    clusters: BTreeMap<Arc<str>, Arc<TokenPolicy>>,
    /// By policy and route.
    lost: BTreeMap<(Arc<str>, Arc<str>), Lost>,
}

/// Where a policy for a route does not hold.
#[derive(Clone, Debug, PartialEq)]
struct Lost {
    messages: Vec<String>,
    is_everywhere: bool,
    /// Another policy or another namespace is in the way, and not only that nothing is counted there.
    is_conflict: bool,
}

impl OwnPolicies {
    /// AIServices for which something else holds than in `other`, by their clusters.
    pub(in super::super) fn changed_ai_clusters(&self, other: &Self) -> BTreeSet<Arc<str>> {
        let budgets = self.ai_services.keys().chain(other.ai_services.keys());
        let budgets =
            budgets.filter(|key| self.ai_services.get(*key) != other.ai_services.get(*key));
        let settings = self.ai_backends.keys().chain(other.ai_backends.keys());
        let settings =
            settings.filter(|key| self.ai_backends.get(*key) != other.ai_backends.get(*key));
        budgets
            .chain(settings)
            .map(|key| ai::cluster_key(key))
            .collect()
    }

    /// True when a TokenPolicy is about an HTTPRoute.
    pub(in super::super) fn is_by_route(&self) -> bool {
        !self.by_route.is_empty()
    }

    /// Follows HTTPRoutes with a policy to the clusters that they lead to.
    pub(in super::super) fn budgets(
        &self,
        routes: &Memos<HttpRule>,
        services: &AiServices,
    ) -> Budgets {
        let mut budgets = Budgets::default();
        let mut holders: BTreeMap<Arc<str>, &Arc<str>> = BTreeMap::new();
        for by_route in &self.by_route {
            let outcome = routes.get(&by_route.route);
            let clusters = outcome.into_iter().flat_map(|outcome| &outcome.clusters);
            // Services behind an AIService are part of it.
            let behind = services.behind(clusters.clone());
            let clusters = clusters.filter(|cluster| !behind.contains(cluster));
            let mut messages = Vec::new();
            let mut count = 0;
            let mut is_conflict = false;
            for cluster in clusters {
                count += 1;
                let name = match ai::service_of(cluster) {
                    Some(service) => format!("AIService {service}"),
                    None => format!("Service {cluster}"),
                };
                let in_the_way = if namespace_of(cluster) != namespace_of(&by_route.policy) {
                    // Otherwise a route would be enough to limit somebody else's service for all.
                    Some(format!(
                        "{name} is in another namespace, where it does not hold"
                    ))
                } else if self.has_own(cluster) {
                    Some(format!("{name} has a policy of its own"))
                } else {
                    let holder = *holders.entry(cluster.clone()).or_insert(&by_route.policy);
                    let is_other = *holder != by_route.policy;
                    is_other.then(|| format!("TokenPolicy {holder} is older and holds for {name}"))
                };
                is_conflict |= in_the_way.is_some();
                if in_the_way.is_none() {
                    let tokens = by_route.tokens.clone();
                    budgets.clusters.insert(cluster.clone(), tokens);
                }
                let is_plain = ai::service_of(cluster).is_none();
                messages.extend(in_the_way.or_else(|| is_plain.then(|| not_counted(&name))));
            }
            if !messages.is_empty() {
                let is_everywhere = messages.len() == count;
                let key = (by_route.policy.clone(), by_route.route.clone());
                let lost = Lost {
                    messages,
                    is_everywhere,
                    is_conflict,
                };
                budgets.lost.insert(key, lost);
            }
        }
        budgets
    }

    /// True when a policy names the cluster's backend itself.
    fn has_own(&self, cluster: &str) -> bool {
        match ai::service_of(cluster) {
            Some(service) => self.ai_services.contains_key(service),
            None => self
                .backends
                .get(backend::service_key(cluster))
                .is_some_and(|on| on.tokens.is_some()),
        }
    }
}

impl Budgets {
    pub(in super::super) fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.lost.is_empty()
    }

    /// The budget that a cluster has by a route.
    pub(in super::super) fn of_cluster(&self, cluster: &str) -> Option<Arc<TokenPolicy>> {
        self.clusters.get(cluster).cloned()
    }

    /// Clusters that have another budget than in `other`.
    pub(in super::super) fn changed_clusters(&self, other: &Self) -> BTreeSet<Arc<str>> {
        let all = self.clusters.keys().chain(other.clusters.keys());
        all.filter(|key| self.clusters.get(*key) != other.clusters.get(*key))
            .cloned()
            .collect()
    }

    /// What became of a policy, once it is known where routes and AIServices lead to.
    pub(super) fn judged(&self, judged: &Judged, services: &AiServices) -> Judged {
        let mut judged = judged.clone();
        for (target, outcome) in &mut judged.targets {
            if let Target::Service(service) = target
                && outcome.is_ok()
                && !services.is_behind_one(service)
            {
                let message = not_counted(&format!("Service {service}"));
                *outcome = Err(Fault::new(NO_AI_SERVICE, message));
            }
            let Target::Route(_, route) = target else {
                continue;
            };
            let lost = self.lost.get(&(judged.key.clone(), route.clone()));
            let Some(lost) = lost.filter(|_| outcome.is_ok()) else {
                continue;
            };
            let message = lost.messages.join("; ");
            if lost.is_everywhere {
                let reason = match lost.is_conflict {
                    true => "Conflicted",
                    false => NO_AI_SERVICE,
                };
                *outcome = Err(Fault::new(reason, message));
            } else {
                judged.without_effect.push(message);
            }
        }
        judged
    }
}
