//! What is spared, limited and left out at this moment, and why.
//!
//! Answers `/v1/circuit-breakers`, `/v1/rate-limits` and `/v1/endpoints` from one configuration and
//! the state that outlives it. Nothing here changes anything, and no client is named: of limits
//! that tell clients apart only the rule is shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use dataplane_config::{ClusterConfig, Limiter, RuntimeConfig};
use dataplane_resilience::circuit_breaker::Breaker;
use dataplane_resilience::health_check::Record;
use dataplane_upstream::{Endpoint, since_start};
use ir::Cluster;
use ir::policy::RateLimitKey;

use super::Context;
use super::answer::Answer;
use super::inventory::{clusters, list_of};
use super::query::Filter;

/// The route, the backend and the breaker that the one has for the other.
type RouteBreaker = (Arc<str>, Arc<str>, Arc<Breaker>);

/// `/v1/circuit-breakers`: what each backend carries, and whether its breakers let anything pass.
pub(super) fn circuit_breakers(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let page = clusters(&config, filter);
    let of_routes = config.kept.breakers();
    let path = "/v1/circuit-breakers";
    let row = move |config: &RuntimeConfig, cluster: &Arc<Cluster>| {
        let held = config.clusters.get(&cluster.key)?;
        Some(circuit_breaker(held, &of_routes))
    };
    list_of(context, config, filter, path, page, row)
}

fn circuit_breaker(held: &ClusterConfig, of_routes: &[RouteBreaker]) -> Value {
    let now = since_start(Instant::now());
    let mut row = carried(held);
    row["breaker"] = held
        .breaker
        .as_ref()
        .map_or(Value::Null, |it| breaker(it, now));
    if let Some(ai) = &held.ai {
        let providers = ai.guards.iter().filter_map(|guard| {
            let mut row = breaker(guard.breaker.as_ref()?, now);
            row["provider"] = guard.name().into();
            row["refuses"] = guard.refuses.into();
            Some(row)
        });
        row["providers"] = providers.collect();
    }
    let own = of_routes.iter().filter(|(_, key, _)| {
        // A cluster without a port serves whatever port a route names.
        let rest = key.strip_prefix(&**held.cluster.key());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    });
    let own = own.map(|(route, _, it)| {
        let mut row = breaker(it, now);
        row["route"] = (&**route).into();
        row
    });
    row["routes"] = own.collect();
    row
}

fn carried(held: &ClusterConfig) -> Value {
    let cluster = &held.cluster;
    let admission = cluster.admission();
    json!({
        "backend": &**cluster.key(),
        "requests_active": admission.requests_active(),
        "requests_pending": admission.requests_pending(),
        "connections_active": admission.connections_active(),
        "max_inflight_requests": cluster.source().max_inflight_requests,
        "max_connections": cluster.source().policy.as_deref().and_then(|it| it.max_connections),
        "max_pending_requests":
            cluster.source().policy.as_deref().and_then(|it| it.max_pending_requests),
        "endpoints_available": cluster.available(),
        "endpoints_ejected": cluster.ejected(Instant::now()),
        "endpoints_unwell": cluster.unwell(),
        "panic": cluster.is_in_panic(),
    })
}

fn breaker(breaker: &Breaker, now: Duration) -> Value {
    let settings = breaker.settings();
    json!({
        "state": breaker.state(now).as_str(),
        "count": breaker.count(),
        "open_for_ms": millis(breaker.open_for(now)),
        "failure_threshold": settings.failure_threshold,
        "success_threshold": settings.success_threshold,
        "open_time_ms": millis(settings.timeout),
    })
}

/// `/v1/rate-limits`: every rule, and what is left where there is one bucket.
pub(super) fn rate_limits(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let key = |(object, limiter): &(Box<str>, Arc<Limiter>)| {
        format!("{} {object} {}", limiter.scope(), limiter.name())
    };
    let mut all = config.kept.rate_limits();
    all.sort_by_cached_key(key);
    let wanted = all
        .into_iter()
        .filter(|(object, _)| filter.takes_key(object));
    let page = filter.page(wanted, key);
    let path = "/v1/rate-limits";
    let row = |_: &RuntimeConfig, (object, limiter): &(Box<str>, Arc<Limiter>)| {
        Some(rate_limit(object, limiter, since_start(Instant::now())))
    };
    list_of(context, config, filter, path, page, row)
}

fn rate_limit(object: &str, limiter: &Limiter, now: Duration) -> Value {
    let source = limiter.source();
    let left = limiter.peek(now);
    let key = match &source.key {
        RateLimitKey::Route => "route".to_owned(),
        RateLimitKey::SourceIp => "sourceIP".to_owned(),
        RateLimitKey::Header(name) => format!("header {name}"),
        RateLimitKey::Cookie(name) => format!("cookie {name}"),
    };
    json!({
        "scope": limiter.scope(),
        "object": object,
        "name": limiter.name(),
        "requests": source.requests,
        "period_ms": millis(source.period),
        "burst": limiter.burst(),
        "key": key,
        "queue": source.queue,
        "dry_run": source.is_dry_run,
        "sharers": limiter.sharers(),
        "available_tokens": left.map(|left| left.remaining),
        "full_after_ms": left.map(|left| millis(left.full_after)),
        "waiting": limiter.waiting.current(),
        "rejected": limiter.metrics.rejected.value(),
        "would_reject": limiter.metrics.would_reject.value(),
        "queued": limiter.metrics.queued.value(),
    })
}

/// `/v1/endpoints`: every endpoint of every backend, its state and why.
pub(super) fn endpoints(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let wanted = config.snapshot.clusters.iter();
    let wanted = wanted.filter(|cluster| filter.takes_key(&cluster.key));
    let held = wanted.filter_map(|cluster| config.clusters.get(&cluster.key));
    let all = held.flat_map(|held| {
        let count = held.cluster.endpoints().len();
        (0..count).map(move |at| (held.clone(), at))
    });
    let page = filter.page(all, |(held, at)| format!("{}#{at:06}", held.cluster.key()));
    let path = "/v1/endpoints";
    list_of(context, config, filter, path, page, |_, (held, at)| {
        let now = since_start(Instant::now());
        Some(endpoint(held, held.cluster.endpoints().get(*at)?, now))
    })
}

/// The state of an endpoint in one word, and why it is so.
pub(super) fn health(
    held: &ClusterConfig,
    endpoint: &Endpoint,
    now: Duration,
) -> (&'static str, String) {
    let load = endpoint.load();
    let is_ejected = !ejected_for(held, endpoint, now).is_zero();
    let (_, _, ejections) = load.held_against();
    let checks = load.checks();
    let unchecked = || match checks.fault() {
        Some(fault) => format!("it does not pass its health checks: {fault}"),
        None => "it has not passed enough health checks yet".to_owned(),
    };
    let is_in_panic = held.cluster.is_in_panic();
    let (state, why) = match () {
        () if endpoint.is_ending() => ("ending", "it ends, and keeps its sessions until then"),
        () if !endpoint.is_ready() => ("not_ready", "the control plane says that it is not ready"),
        () if endpoint.weight() == 0 => ("unused", "its weight is 0"),
        () if checks.is_unwell() && is_in_panic => {
            let crowded = format!("{}; but too few others are well", unchecked());
            return ("unhealthy_in_use", crowded);
        }
        () if checks.is_unwell() => return ("unhealthy", unchecked()),
        () if is_ejected && is_in_panic => (
            "ejected_in_use",
            "it keeps failing, but too few others are well",
        ),
        () if is_ejected => ("ejected", "it keeps failing"),
        () if ejections > 0 => (
            "on_probation",
            "it was left out and has not succeeded since",
        ),
        () => ("well", ""),
    };
    (state, why.to_owned())
}

fn ejected_for(held: &ClusterConfig, endpoint: &Endpoint, now: Duration) -> Duration {
    match held.cluster.is_watched() {
        true => endpoint.load().ejected_for(now),
        false => Duration::ZERO,
    }
}

fn endpoint(held: &ClusterConfig, endpoint: &Endpoint, now: Duration) -> Value {
    let load = endpoint.load();
    let (failures, gateway_failures, ejections) = load.held_against();
    let checks = load.checks();
    let (state, why) = health(held, endpoint, now);
    json!({
        "backend": &**held.cluster.key(),
        "address": endpoint.address().to_string(),
        "state": state,
        "why": why,
        "ejected_for_ms": millis(ejected_for(held, endpoint, now)),
        "ejections": ejections,
        "failures_in_a_row": failures,
        "gateway_failures_in_a_row": gateway_failures,
        "health_check": health_check(checks),
        "health_check_fault": checks.fault().map(|fault| fault.to_string()),
        "latency_ms": load.latency().map(|latency| latency.as_secs_f64() * 1000.0),
        "weight": endpoint.weight(),
        "zone": endpoint.zone(),
        "requests_active": load.requests_active(),
        "connections_active": load.connections_active(),
        "picks": load.picks(),
    })
}

fn health_check(checks: &Record) -> &'static str {
    match (checks.is_checked(), checks.is_unwell()) {
        (false, _) => "none",
        (true, false) => "passing",
        (true, true) => "failing",
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
