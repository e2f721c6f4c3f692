//! Rules of HTTP and gRPC routes, as a request reads them.
//!
//! Called by `listeners` for each route that is attached to the listener at hand. Policies, limits and
//! breakers of a route are found here once, not by its requests.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ir::http_route::Timeouts;
use ir::policy::{RoutePolicy, SessionPersistence};
use ir::resource::Metadata;
use ir::{GrpcRoute, HttpRoute, Listener};

use dataplane_resilience::circuit_breaker::Breaker;
use dataplane_route::table::{CompiledRoute, RouteKind};
use dataplane_telemetry::metrics::{Metrics, RouteMetrics};
use dataplane_upstream::weighted::WeightedChoice;

use crate::access::AddressLists;
use crate::filters::Filters;
use crate::kept::Kept;
use crate::observed;
use crate::rate_limits::Limits;
use crate::runtime::{Backend, Rule};
use crate::sessions::{self, Place, SessionPolicy, path_of};

pub(super) fn compile_http(
    route: &HttpRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let hosts = hosts_on(route, listener)?;
    let limits = kept.route_limits(&route.key, route.security_policy.as_deref(), metrics);
    let registry = metrics;
    let metrics = registry.route(&route.key, &listener.name);
    let access = AddressLists::compile(route.security_policy.as_deref());
    Some(CompiledRoute::http(route, &hosts, |index| {
        let rule = &route.rules[index];
        let parts = Parts {
            route: &route.key,
            policy: route.policy.as_deref(),
            access: access.clone(),
            kept,
            limits: &limits,
            filters: &rule.filters,
            plugins: &rule.plugins,
            backends: &rule.backends,
            session: rule.session_persistence.as_ref(),
            annotations: &route.annotations,
            path: path_of(&rule.matches),
            registry,
        };
        let base = parts.rule(RouteKind::Http, index, rule.name.clone(), metrics.clone());
        let timeouts = &rule.timeouts;
        let limit = |own: Option<Duration>, base| own.map_or(base, non_zero);
        Arc::new(Rule {
            request_timeout: limit(timeouts.request, base.request_timeout),
            backend_request_timeout: limit(timeouts.backend_request, base.backend_request_timeout),
            has_timeouts: base.has_timeouts || *timeouts != Timeouts::default(),
            retry: rule.retry.clone(),
            ..base
        })
    }))
}

pub(super) fn compile_grpc(
    route: &GrpcRoute,
    listener: &Listener,
    kept: &Kept,
    metrics: &Metrics,
) -> Option<CompiledRoute<Rule>> {
    let hosts = hosts_on(route, listener)?;
    let limits = kept.route_limits(&route.key, route.security_policy.as_deref(), metrics);
    let registry = metrics;
    let metrics = registry.route(&route.key, &listener.name);
    let access = AddressLists::compile(route.security_policy.as_deref());
    Some(CompiledRoute::grpc(route, &hosts, |index| {
        let rule = &route.rules[index];
        let parts = Parts {
            route: &route.key,
            policy: route.policy.as_deref(),
            access: access.clone(),
            kept,
            limits: &limits,
            filters: &rule.filters,
            plugins: &rule.plugins,
            backends: &rule.backends,
            session: rule.session_persistence.as_ref(),
            annotations: &route.annotations,
            path: "/",
            registry,
        };
        Arc::new(parts.rule(RouteKind::Grpc, index, rule.name.clone(), metrics.clone()))
    }))
}

/// The hosts that a route serves on a listener; `None` when it serves none.
fn hosts_on<R>(route: &ir::http_route::Route<R>, listener: &Listener) -> Option<Vec<ir::Hostname>> {
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

/// What HTTP and gRPC rules have in common.
struct Parts<'a> {
    route: &'a Arc<str>,
    policy: Option<&'a RoutePolicy>,
    access: Option<Arc<AddressLists>>,
    kept: &'a Kept,
    limits: &'a Limits,
    filters: &'a [ir::Filter],
    plugins: &'a [Arc<str>],
    backends: &'a [ir::http_route::BackendRef],
    session: Option<&'a SessionPersistence>,
    annotations: &'a Metadata,
    /// The path for which cookies are sent back.
    path: &'a str,
    registry: &'a Metrics,
}

impl Parts<'_> {
    /// The route's own breaker in front of the cluster that is meant.
    fn breaker(&self, target: &ir::backend::BackendTarget) -> Option<Arc<Breaker>> {
        let thresholds = self.policy?.breaker.as_ref()?;
        // By what it names and not by a key: of two ports of a Service each is a cluster.
        let is_resolved = !target.cluster_keys.is_empty();
        is_resolved.then(|| self.kept.breaker(self.route, &target.display, thresholds))
    }

    /// How the rule keeps clients at their endpoints, if it does.
    fn session(
        &self,
        kind: RouteKind,
        index: usize,
        name: Option<&str>,
    ) -> Option<Arc<SessionPolicy>> {
        let source = self.session?;
        // A rule with a name is the same one wherever it stands.
        let name = match name {
            Some(name) => format!("{kind:?}/{}/{name}", self.route),
            None => format!("{kind:?}/{}/{index}", self.route),
        };
        let place = Place {
            kind: sessions::Kind::Rule,
            name: &name,
            path: self.path,
        };
        self.kept.sessions(Some(source), place, self.registry)
    }

    fn rule(
        self,
        kind: RouteKind,
        index: usize,
        name: Option<String>,
        metrics: Arc<RouteMetrics>,
    ) -> Rule {
        let backends = self.backends.iter().map(|backend| Backend {
            display: backend.target.display.clone(),
            cluster_keys: backend.target.cluster_keys.clone(),
            filters: Filters::compile(&backend.filters),
            breaker: self.breaker(&backend.target),
            weight: backend.weight,
        });
        let choice = WeightedChoice::new(self.backends.iter().map(|backend| backend.weight));
        let none = RoutePolicy::default();
        let policy = self.policy.unwrap_or(&none);
        let session = self.session(kind, index, name.as_deref());
        Rule {
            route: self.route.clone(),
            kind,
            index,
            name,
            limits: self.limits.clone(),
            access: self.access.clone(),
            filters: Filters::compile(self.filters),
            plugins: self.plugins.to_vec(),
            backends: backends.collect(),
            choice,
            session,
            request_timeout: policy.request_timeout,
            backend_request_timeout: policy.backend_request_timeout,
            has_timeouts: policy.request_timeout.is_some()
                || policy.backend_request_timeout.is_some(),
            retry: None,
            next_upstream_timeout: policy.next_upstream_timeout,
            connect_timeout: policy.connect_timeout,
            request_body_bytes_max: policy.request_body_bytes_max,
            request_body_buffer_bytes: policy.request_body_buffer_bytes,
            request_buffering: policy.request_buffering.unwrap_or(false),
            request_header_bytes_max: policy.request_header_bytes_max,
            keepalive_requests_max: policy.keepalive_requests,
            log: observed::access_log(self.annotations, self.kept.access_log_prefix()),
            trace_ratio: observed::trace_ratio(self.annotations),
            metrics,
        }
    }
}
