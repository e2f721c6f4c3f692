//! Clusters, routes and listeners with what policies say about them.
//!
//! Each function gives back what it was given where no policy is about it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ir::filter::Filter;
use ir::http_route::{GrpcRule, HttpRule, Route};
use ir::policy::{RoutePolicy, SecurityPolicy};
use ir::{Cluster, Listener};

use super::super::listener_name::gateway_of;
use super::{OnRoute, OwnPolicies, route};
use crate::cluster_view::Kind;

/// The cluster of a Service.
pub(in super::super) fn cluster(
    policies: &OwnPolicies,
    service: &str,
    mut cluster: Cluster,
) -> Cluster {
    let Some(on) = policies.backends.get(service) else {
        return cluster;
    };
    cluster.security_policy.clone_from(&on.security);
    cluster.token_policy.clone_from(&on.tokens);
    cluster.plugins.clone_from(&on.plugins);
    // What the Service itself asks for.
    let mut policy = cluster
        .policy
        .take()
        .map(Arc::unwrap_or_clone)
        .unwrap_or_default();
    if let Some(settings) = &on.traffic {
        cluster.session_persistence.clone_from(&settings.session);
        policy.retry_budget = settings.policy.retry_budget;
    }
    if let Some(settings) = &on.own {
        let before = policy;
        policy = settings.policy.clone();
        policy.retry_budget = policy.retry_budget.or(before.retry_budget);
        if !settings.speaks_of_zones {
            policy.prefers_own_zone = before.prefers_own_zone;
        }
        if settings.session.is_some() {
            cluster.session_persistence.clone_from(&settings.session);
        }
        cluster.balancing = settings.balancing.clone().unwrap_or_default();
        cluster.max_inflight_requests = settings.max_inflight_requests;
    }
    if policy != ir::BackendPolicy::default() {
        cluster.policy = Some(policy.into());
    }
    cluster
}

/// The cluster of an AIService: its budget, and how its providers are watched and limited. `at` is the
/// Service where its first provider is, whose budget holds unless the AIService has its own.
pub(in super::super) fn ai_cluster(
    policies: &OwnPolicies,
    service: &str,
    at: Option<&str>,
    mut cluster: Cluster,
) -> Cluster {
    let of_service = || policies.backends.get(at?)?.tokens.clone();
    let own = policies.ai_services.get(service).cloned();
    cluster.token_policy = own.or_else(of_service);
    if let Some(settings) = policies.ai_backends.get(service) {
        let policy = ir::BackendPolicy {
            health_check: None,
            retry_budget: None,
            ..settings.policy.clone()
        };
        if policy != ir::BackendPolicy::default() {
            cluster.policy = Some(policy.into());
        }
        cluster.balancing = settings.balancing.clone().unwrap_or_default();
        cluster.max_inflight_requests = settings.max_inflight_requests;
    }
    cluster
}

/// What holds for one route.
struct Effective<'a> {
    plugins: &'a [(Option<String>, Arc<str>)],
    settings: Option<Arc<RoutePolicy>>,
    security: Option<Arc<SecurityPolicy>>,
    cors: Option<Filter>,
}

/// What each Gateway of these listeners says, and the key of the target that it says it for.
type Said<'a, T> = Vec<Option<(&'a Arc<str>, &'a T)>>;

/// What the Gateways of a route say about it; a Service in front of which it stands says nothing.
pub(super) fn said<'a, 'l, T>(
    policies: &'a OwnPolicies,
    listeners: impl Iterator<Item = &'l Arc<str>>,
    pick: fn(&OnRoute) -> Option<&T>,
) -> Said<'a, T> {
    if policies.gateways.is_empty() {
        return Vec::new();
    }
    let mut said = BTreeMap::new();
    for name in listeners {
        let gateway = gateway_of(name);
        let both = [name, gateway].into_iter();
        let mut both = both.filter_map(|key| policies.gateways.get_key_value(key));
        let found = both.find_map(|(key, on)| Some((key, pick(on)?)));
        let known = said.entry(gateway).or_default();
        *known = Option::or(*known, found);
    }
    said.into_values().collect()
}

/// What they all say: a route is the same at all its Gateways, and a policy of one of them must not
/// act on what comes in at another.
pub(super) fn agreed<'a, T: PartialEq>(said: &Said<'a, T>) -> Option<&'a T> {
    let (_, first) = (*said.first()?)?;
    let is_same = |it: &Option<(_, &T)>| it.is_some_and(|(_, it)| it == first);
    said.iter().all(is_same).then_some(first)
}

fn effective<'a, R>(
    policies: &'a OwnPolicies,
    kind: Kind,
    found: &Route<R>,
) -> Option<Effective<'a>> {
    let own = policies.routes.get(&(kind, found.key.clone()));
    let listeners = || found.listeners.iter();
    let settings_above = agreed(&said(policies, listeners(), |on| on.settings.as_ref()));
    let cors_above = agreed(&said(policies, listeners(), |on| on.cors.as_ref()));
    if own.is_none() && settings_above.is_none() && cors_above.is_none() {
        return None;
    }
    let plugins = own.map(|own| own.plugins.as_slice()).unwrap_or_default();
    let none = OnRoute::default();
    let own = own.unwrap_or(&none);
    let settings = match (&own.settings, settings_above) {
        (Some(own), Some(above)) => Some(route::merged(own, above)),
        (Some(one), None) | (None, Some(one)) => Some((**one).clone()),
        (None, None) => None,
    };
    let cors = own.cors.as_ref().or(cors_above);
    Some(Effective {
        plugins,
        settings: settings.map(|settings| Arc::new(route::final_form(settings))),
        security: own.security.clone(),
        cors: cors.map(|cors| Filter::Cors((**cors).clone())),
    })
}

/// An HTTP route as it is published.
pub(in super::super) fn http_route(
    policies: &OwnPolicies,
    found: Arc<Route<HttpRule>>,
) -> Arc<Route<HttpRule>> {
    published(policies, Kind::HttpRoute, found)
}

/// A gRPC route as it is published.
pub(in super::super) fn grpc_route(
    policies: &OwnPolicies,
    found: Arc<Route<GrpcRule>>,
) -> Arc<Route<GrpcRule>> {
    published(policies, Kind::GrpcRoute, found)
}

/// A rule as far as policies are about it: name, filters and plugins.
trait Rule: Clone {
    fn parts(&mut self) -> (Option<&str>, &mut Vec<Filter>, &mut Vec<Arc<str>>);
}

impl Rule for HttpRule {
    fn parts(&mut self) -> (Option<&str>, &mut Vec<Filter>, &mut Vec<Arc<str>>) {
        (self.name.as_deref(), &mut self.filters, &mut self.plugins)
    }
}

impl Rule for GrpcRule {
    fn parts(&mut self) -> (Option<&str>, &mut Vec<Filter>, &mut Vec<Arc<str>>) {
        (self.name.as_deref(), &mut self.filters, &mut self.plugins)
    }
}

fn published<R: Rule>(policies: &OwnPolicies, kind: Kind, found: Arc<Route<R>>) -> Arc<Route<R>> {
    let Some(effective) = effective(policies, kind, &found) else {
        return found;
    };
    let mut route = (*found).clone();
    route.policy = effective.settings;
    route.security_policy = effective.security;
    for rule in &mut route.rules {
        let (name, filters, plugins) = rule.parts();
        if let Some(cors) = &effective.cors {
            add_cors(filters, cors);
        }
        for (section, plugin) in effective.plugins {
            let is_meant = section.is_none() || section.as_deref() == name;
            // A plugin may name both the route and one of its rules.
            if is_meant && !plugins.contains(plugin) {
                plugins.push(plugin.clone());
            }
        }
    }
    Arc::new(route)
}

/// In front of the others, unless the rule has one of its own.
fn add_cors(filters: &mut Vec<Filter>, cors: &Filter) {
    if !filters
        .iter()
        .any(|filter| matches!(filter, Filter::Cors(_)))
    {
        filters.insert(0, cors.clone());
    }
}

/// A listener as it is published: its own policy, or else its Gateway's, and the plugins of both.
pub(in super::super) fn listener(policies: &OwnPolicies, found: &Arc<Listener>) -> Arc<Listener> {
    let both = [
        policies.gateways.get(&found.name),
        policies.gateways.get(gateway_of(&found.name)),
    ];
    let both: Vec<_> = both.into_iter().flatten().collect();
    let security = both.iter().find_map(|on| on.security.clone());
    let plugins = both.iter().flat_map(|on| &on.plugins);
    let mut names: Vec<Arc<str>> = Vec::new();
    for (_, plugin) in plugins {
        if !names.contains(plugin) {
            names.push(plugin.clone());
        }
    }
    if security.is_none() && names.is_empty() {
        return found.clone();
    }
    let mut listener = (**found).clone();
    listener.security_policy = security;
    listener.plugins = names;
    Arc::new(listener)
}
