//! `/metrics`: all families in the Prometheus text format, or in OpenMetrics.
//!
//! Written by a thread of the blocking pool, because a large configuration has many series. States
//! that nobody counts (of endpoints, breakers, limits, certificates) are looked up here at each
//! scrape.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{StatusCode, header};
use ir::Secret;

use dataplane_config::{ClusterConfig, Limiter, RuntimeConfig};
use dataplane_resilience::circuit_breaker::State;
use dataplane_resilience::retry::Allowance;
use dataplane_telemetry::metrics::{self, Format, Live, LiveBackend, LiveRateLimit};
use dataplane_tls::CertificateDetails;
use dataplane_upstream::since_start;

use super::Context;
use super::answer::Answer;
use super::endpoint::Request;
use super::inventory::routes_inflight;
use super::query::Query;

/// When certificates end, by secret; read once of each, since they are signed for good.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<EndsByName>);

type EndsByName = HashMap<Arc<str>, (Arc<Secret>, i64)>;

impl Ends {
    fn of(&self, config: &RuntimeConfig) -> Vec<(Arc<str>, i64)> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = HashMap::with_capacity(known.len());
        let mut all = Vec::new();
        for secret in config.snapshot.secrets.iter() {
            let before = known.remove(&secret.key);
            let before = before.filter(|(held, _)| Arc::ptr_eq(held, secret));
            let read = || CertificateDetails::of(secret.certificate.as_ref()?).ok();
            let at = before.map(|(_, at)| at);
            if let Some(at) = at.or_else(|| Some(read()?.not_after)) {
                all.push((secret.key.clone(), at));
                now.insert(secret.key.clone(), (secret.clone(), at));
            }
        }
        *known = now;
        all
    }
}

/// Answers a scrape, in OpenMetrics where the scraper prefers that.
pub(super) async fn scrape(context: &Context, request: Request<'_>) -> Answer {
    let Ok(place) = context.large.clone().try_acquire_owned() else {
        let message = "too many large answers are being written, try again";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let accepted = request.headers.get_all(header::ACCEPT).iter();
    let format = preferred(accepted.filter_map(|it| it.to_str().ok()));
    let query = Query::of(request.query);
    let with_former = query.get("former_names").is_some_and(|it| it == "true");
    let (state, ends) = (context.state.clone(), context.ends.clone());
    let written = tokio::task::spawn_blocking(move || {
        let config = state.store.load_full();
        let metrics = &state.metrics;
        let is_ready = state.readiness.is_ready();
        metrics.inventory.ready.set(i64::from(is_ready));
        metrics.set_rate_limit_evictions(config.kept.rate_limit_keys().0);
        metrics.set_token_budget_evictions(config.kept.token_budgets_lost());
        let live = Live {
            routes_inflight: routes_inflight(&state.overload, &config.snapshot),
            certificates: ends.of(&config),
            ..live(&config, &state.http)
        };
        let mut text = String::new();
        metrics.encode(&live, format, &mut text);
        if with_former {
            metrics::repeat_with_former_names(&mut text, 0);
        }
        metrics::end(format, &mut text);
        drop(place);
        text
    });
    match written.await {
        Ok(text) => Answer::whole(StatusCode::OK, format.content_type(), text),
        Err(_) => {
            let message = "the scrape failed, see the log";
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }
}

/// OpenMetrics where it is asked for and nothing else is wanted more (RFC 9110, 12.5.1).
fn preferred<'a>(accepted: impl Iterator<Item = &'a str>) -> Format {
    let mut weights = [0.0_f32; 2];
    for part in accepted.flat_map(|it| it.split(',')) {
        let mut parameters = part.split(';').map(str::trim);
        let place = match parameters.next().unwrap_or_default() {
            media if media.eq_ignore_ascii_case("application/openmetrics-text") => 0,
            media if media.eq_ignore_ascii_case("text/plain") => 1,
            _ => continue,
        };
        let weight = parameters.find_map(|it| it.strip_prefix("q=")?.parse().ok());
        weights[place] = weight.unwrap_or(1.0_f32).max(weights[place]);
    }
    match weights {
        [open, text] if open > 0.0 && open >= text => Format::OpenMetrics,
        _ => Format::Text,
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
        ..Live::default()
    }
}

fn backend(held: &ClusterConfig, allowance: Option<Allowance>, now: Instant) -> LiveBackend {
    let cluster = &held.cluster;
    let endpoints = cluster.endpoints().iter();
    let breaker = held.breaker.as_ref();
    let left = held.retry_allowance.or(allowance);
    LiveBackend {
        name: cluster.key().clone(),
        is_used: held.metrics.is_used(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_form_that_it_wants_more() {
        // The third is what Prometheus 2 sends.
        for (accept, expected) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            (
                "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("application/openmetrics-text; q=0", Format::Text),
            (
                "application/openmetrics-text;q=0.2, text/plain;q=0.3",
                Format::Text,
            ),
        ] {
            assert_eq!(preferred([accept].into_iter()), expected, "{accept}");
        }
    }
}
