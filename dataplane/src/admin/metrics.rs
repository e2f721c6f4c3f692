//! `/metrics`: all families in the Prometheus text format.
//!
//! Written by a thread of the blocking pool, because a large configuration has many series. States
//! that nobody counts (of endpoints, breakers, limits) are looked up here at each scrape.

use std::time::Instant;

use http::StatusCode;

use dataplane_config::{ClusterConfig, Limiter, RuntimeConfig};
use dataplane_resilience::circuit_breaker::State;
use dataplane_resilience::retry::Allowance;
use dataplane_telemetry::metrics::{CONTENT_TYPE, Live, LiveBackend, LiveRateLimit};
use dataplane_upstream::since_start;

use super::Context;
use super::answer::Answer;

/// Answers a scrape.
pub(super) async fn scrape(context: &Context) -> Answer {
    let Ok(place) = context.large.clone().try_acquire_owned() else {
        let message = "too many large answers are being written, try again";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let metrics = context.state.metrics.clone();
    let config = context.state.store.load_full();
    let http = context.state.http.clone();
    let is_ready = context.state.readiness.is_ready();
    let written = tokio::task::spawn_blocking(move || {
        metrics.inventory.ready.set(i64::from(is_ready));
        metrics.set_rate_limit_evictions(config.kept.rate_limit_keys().0);
        metrics.set_token_budget_evictions(config.kept.token_budgets_lost());
        let mut text = String::new();
        metrics.encode_text_with(&live(&config, &http), &mut text);
        drop(place);
        text
    });
    match written.await {
        Ok(text) => Answer::whole(StatusCode::OK, CONTENT_TYPE, text),
        Err(_) => {
            let message = "the scrape failed, see the log";
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }
}

fn live(config: &RuntimeConfig, http: &dataplane_http::Settings) -> Live {
    let now = Instant::now();
    let clusters = config.snapshot.clusters.iter();
    let held = clusters.filter_map(|cluster| config.clusters.get(&cluster.key));
    let allowance = http.retry_budget;
    let mut rate_limits = config.kept.rate_limits();
    rate_limits.sort_by(|(a, one), (b, other)| {
        (one.scope(), a, one.name()).cmp(&(other.scope(), b, other.name()))
    });
    Live {
        backends: held.map(|held| backend(held, allowance, now)).collect(),
        inflight_max: http.upstream_limits.requests.unwrap_or(0),
        retry_budget: allowance.map(|it| (it.ratio_percent, it.burst)),
        rate_limits: rate_limits
            .iter()
            .map(|(object, limiter)| rate_limit(object, limiter, now))
            .collect(),
    }
}

fn backend(held: &ClusterConfig, allowance: Option<Allowance>, now: Instant) -> LiveBackend {
    let cluster = &held.cluster;
    let endpoints = cluster.endpoints().iter();
    let breaker = held.breaker.as_ref();
    let left = held.retry_allowance.or(allowance);
    LiveBackend {
        name: cluster.key().clone(),
        endpoints: endpoints
            .map(|it| (it.address().to_string(), cluster.uses(it, now)))
            .collect(),
        ejected: cluster.ejected(now),
        inflight: cluster.admission().requests_active(),
        breaker: breaker.map(|breaker| match breaker.state(since_start(now)) {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }),
        retries_left: left
            .filter(|_| held.retries.is_used())
            .map(|allowance| held.retries.left(allowance)),
    }
}

fn rate_limit(object: &str, limiter: &Limiter, now: Instant) -> LiveRateLimit {
    let source = limiter.source();
    let period_ms = source.period.as_millis().max(1);
    let per_second = (u128::from(source.requests) * 1000).div_ceil(period_ms);
    LiveRateLimit {
        scope: limiter.scope(),
        object: object.to_owned(),
        limit: limiter.name().to_owned(),
        per_second: u64::try_from(per_second).unwrap_or(u64::MAX),
        burst: limiter.burst(),
        left: limiter.peek(since_start(now)).map(|left| left.remaining),
    }
}
