//! Rules of HTTP and gRPC routes, as a request reads them.
//!
//! Called by `listeners` for each route that is attached to the listener at hand. Policies, limits and
//! breakers of a route are found here once, not by its requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ir::http_route::{GrpcRule, HttpRule, Route, Timeouts};
use ir::policy::{RoutePolicy, SessionPersistence};
use ir::{GrpcRoute, Hostname, HttpRoute, Listener};

use dataplane_resilience::circuit_breaker::Breaker;
use dataplane_route::table::{CompiledRoute, RouteKind};
use dataplane_telemetry::metrics::{Metrics, RouteMetrics};
use dataplane_upstream::weighted::WeightedChoice;

use crate::access::AddressLists;
use crate::filters::Filters;
use crate::kept::Kept;
use crate::observed;
use crate::rate_limits::Limits;
use crate::rule_settings::RuleSettings;
use crate::runtime::{Backend, Rule};
use crate::sessions::{self, Place, SessionPolicy, path_of};

pub(super) fn compile_http(
    route: &HttpRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let served = Served::on(listener, RouteKind::Http, route, kept, metrics)?;
    Some(CompiledRoute::http(route, &served.hosts, |index| {
        let rule = &route.rules[index];
        let base = &served.settings;
        let timeouts = &rule.timeouts;
        if *timeouts == Timeouts::default() && rule.retry.is_none() {
            return Arc::new(served.rule(index, rule.into(), base.clone()));
        }
        let limit = |own: Option<Duration>, base| own.map_or(base, non_zero);
        let settings = RuleSettings {
            request_timeout: limit(timeouts.request, base.request_timeout),
            backend_request_timeout: limit(timeouts.backend_request, base.backend_request_timeout),
            has_timeouts: base.has_timeouts || *timeouts != Timeouts::default(),
            retry: rule.retry.clone(),
            ..RuleSettings::clone(base)
        };
        Arc::new(served.rule(index, rule.into(), Arc::new(settings)))
    }))
}

pub(super) fn compile_grpc(
    route: &GrpcRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let served = Served::on(listener, RouteKind::Grpc, route, kept, metrics)?;
    Some(CompiledRoute::grpc(route, &served.hosts, |index| {
        let rule = &route.rules[index];
        Arc::new(served.rule(index, rule.into(), served.settings.clone()))
    }))
}

/// The hosts that a route serves on a listener; `None` when it serves none.
fn hosts_on<R>(route: &Route<R>, listener: &Listener) -> Option<Vec<Hostname>> {
    if !route.listeners.contains(&listener.name) {
        return None;
    }
    // A mesh listener stands for its Service, whatever the client calls it (GEP-1294).
    if route.hostnames.is_empty() || listener.is_mesh() {
        return Some(listener.hostnames.clone());
    }
    if listener.hostnames.is_empty() {
        return Some(route.hostnames.clone());
    }
    let hosts: BTreeSet<_> = route
        .hostnames
        .iter()
        .flat_map(|host| {
            listener
                .hostnames
                .iter()
                .filter_map(|served| host.intersect(served))
        })
        .collect();
    (!hosts.is_empty()).then(|| hosts.into_iter().collect())
}

/// Gateway API: a timeout of zero is none.
fn non_zero(duration: Duration) -> Option<Duration> {
    (!duration.is_zero()).then_some(duration)
}

/// A route on one of its listeners, with what all its rules share.
struct Served<'a, R> {
    route: &'a Route<R>,
    kind: RouteKind,
    hosts: Vec<Hostname>,
    access: Option<Arc<AddressLists>>,
    limits: Limits,
    /// What holds for rules that say nothing of their own.
    settings: Arc<RuleSettings>,
    metrics: Arc<RouteMetrics>,
    kept: &'a Kept,
    registry: &'a Metrics,
}

/// What a rule of either kind says.
struct Written<'a> {
    name: Option<&'a String>,
    filters: &'a [ir::Filter],
    plugins: &'a [Arc<str>],
    backends: &'a [ir::http_route::BackendRef],
    session: Option<&'a SessionPersistence>,
    /// The path for which cookies are sent back.
    path: &'a str,
}

impl<'a> From<&'a HttpRule> for Written<'a> {
    fn from(rule: &'a HttpRule) -> Self {
        Self {
            name: rule.name.as_ref(),
            filters: &rule.filters,
            plugins: &rule.plugins,
            backends: &rule.backends,
            session: rule.session_persistence.as_deref(),
            path: path_of(&rule.matches),
        }
    }
}

impl<'a> From<&'a GrpcRule> for Written<'a> {
    fn from(rule: &'a GrpcRule) -> Self {
        Self {
            name: rule.name.as_ref(),
            filters: &rule.filters,
            plugins: &rule.plugins,
            backends: &rule.backends,
            session: rule.session_persistence.as_deref(),
            path: "/",
        }
    }
}

impl<'a, R> Served<'a, R> {
    /// `None` when the listener has nothing of the route.
    fn on(
        listener: &Listener,
        kind: RouteKind,
        route: &'a Route<R>,
        kept: &'a Kept,
        registry: &'a Metrics,
    ) -> Option<Self> {
        let security = route.security_policy.as_deref();
        Some(Self {
            hosts: hosts_on(route, listener)?,
            access: AddressLists::compile(security),
            limits: kept.route_limits(&route.key, security, registry),
            settings: settings(route, kept),
            metrics: registry.route(&format!("{kind:?}/{}", route.key), &listener.name),
            route,
            kind,
            kept,
            registry,
        })
    }

    /// The route's own breaker in front of the cluster that is meant.
    fn breaker(&self, target: &ir::backend::BackendTarget) -> Option<Arc<Breaker>> {
        let thresholds = self.route.policy.as_ref()?.breaker.as_ref()?;
        // By what it names and not by a key: of two ports of a Service each is a cluster.
        let is_resolved = !target.cluster_keys.is_empty();
        let breaker = || {
            self.kept
                .breaker(&self.route.key, &target.display, thresholds)
        };
        is_resolved.then(breaker)
    }

    /// How the rule keeps clients at their endpoints, if it does.
    fn session(&self, index: usize, rule: &Written<'_>) -> Option<Arc<SessionPolicy>> {
        let source = rule.session?;
        let (kind, route) = (self.kind, &self.route.key);
        // A rule with a name is the same one wherever it stands.
        let name = match rule.name {
            Some(name) => format!("{kind:?}/{route}/{name}"),
            None => format!("{kind:?}/{route}/{index}"),
        };
        let place = Place {
            kind: sessions::Kind::Rule,
            name: &name,
            path: rule.path,
        };
        self.kept.sessions(Some(source), place, self.registry)
    }

    fn rule(&self, index: usize, rule: Written<'_>, settings: Arc<RuleSettings>) -> Rule {
        let backends = rule.backends.iter().map(|backend| Backend {
            display: backend.target.display.clone(),
            cluster_keys: backend.target.cluster_keys.as_slice().into(),
            filters: Filters::compile(&backend.filters),
            breaker: self.breaker(&backend.target),
            weight: backend.weight,
        });
        Rule {
            route: self.route.key.clone(),
            kind: self.kind,
            index,
            name: rule.name.map(|name| name.as_str().into()),
            limits: self.limits.clone(),
            access: self.access.clone(),
            filters: Filters::compile(rule.filters),
            plugins: rule.plugins.into(),
            backends: backends.collect(),
            choice: WeightedChoice::new(rule.backends.iter().map(|backend| backend.weight)),
            session: self.session(index, &rule),
            settings,
            metrics: self.metrics.clone(),
        }
    }
}

/// What the policy and the annotations of a route say for all of its rules.
fn settings<R>(route: &Route<R>, kept: &Kept) -> Arc<RuleSettings> {
    if route.policy.is_none() && route.annotations.is_empty() {
        return kept.plain_settings().clone();
    }
    let none = RoutePolicy::default();
    let policy = route.policy.as_deref().unwrap_or(&none);
    Arc::new(RuleSettings {
        request_timeout: policy.request_timeout,
        backend_request_timeout: policy.backend_request_timeout,
        has_timeouts: policy.request_timeout.is_some() || policy.backend_request_timeout.is_some(),
        retry: None,
        next_upstream_timeout: policy.next_upstream_timeout,
        connect_timeout: policy.connect_timeout,
        request_body_bytes_max: policy.request_body_bytes_max,
        request_body_buffer_bytes: policy.request_body_buffer_bytes,
        request_buffering: policy.request_buffering.unwrap_or(false),
        request_header_bytes_max: policy.request_header_bytes_max,
        keepalive_requests_max: policy.keepalive_requests,
        log: observed::access_log(&route.annotations, kept.access_log_prefix()),
        trace_ratio: observed::trace_ratio(&route.annotations),
    })
}
