//! Whether a failed attempt is followed by another, and after which pause.
//!
//! Never once the client has the head of a response, or when a part of the body was sent and not
//! kept. A request that may have arrived is sent again only when its method is idempotent (RFC 9110
//! 9.2.2), whatever a policy says. Without a policy only what certainly did not arrive is tried
//! elsewhere, and what a kept connection lost in the moment it was closed; a rule's policy adds
//! statuses, resets and timeouts, within the budget of the cluster.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, Method, header};

use dataplane_resilience::circuit_breaker::{Breaker, State};
use dataplane_telemetry::metrics::Denied;
use dataplane_upstream::since_start;

use crate::context::Context;
use crate::exchange::{Again, Failure};
use crate::message::{Response, decimal};
use crate::retry_policy::{Chance, Policy};
use crate::settings::Settings;

/// How often a request is sent again because a kept connection ended just then.
const RACES_MAX: u8 = 2;

/// Facts about the attempt that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) was_reused: bool,
    pub(crate) body_started: bool,
    pub(crate) head_sent: bool,
}

/// Notes the rule's policy in the context, and the request in the cluster's budget.
pub(crate) fn begin(ctx: &mut Context<'_>, settings: &Settings) {
    let Some(rule) = ctx.rule else { return };
    let Some(retry) = &rule.settings.retry else {
        return;
    };
    let own = ctx.cluster.and_then(|cluster| cluster.retry_allowance);
    let allowance = own.or(settings.retry_budget);
    if let Some(cluster) = ctx.cluster {
        cluster.metrics.retryable();
        if let Some(allowance) = allowance {
            cluster.retries.request(allowance);
        }
    }
    let until = rule
        .settings
        .next_upstream_timeout
        .map(|limit| ctx.started + limit);
    ctx.retry = Some(Box::new(Policy::new(retry, allowance, until)));
}

/// The pause before the attempt that follows a failed one; `None` when none does. Notes the endpoint
/// to avoid.
pub(crate) fn after_failure(
    ctx: &mut Context<'_>,
    method: &Method,
    failed: Failed,
    chance: Chance,
    settings: &Settings,
) -> Option<Duration> {
    let again = failed.failure.again;
    let may_repeat = match again {
        Again::Safe | Again::Closing => true,
        Again::Closed | Again::IfIdempotent => method.is_idempotent(),
        Again::Never => false,
    };
    if !may_repeat || failed.head_sent {
        return None;
    }
    if failed.body_started {
        body_is_gone(ctx);
        return None;
    }
    if failed.failure.is_race(failed.was_reused) && ctx.races < RACES_MAX {
        ctx.races += 1;
        return Some(Duration::ZERO);
    }
    note_tried(ctx);
    if !is_bearable(ctx) {
        return None;
    }
    // Nothing of the request has arrived anywhere: it costs no backend anything.
    let is_unprocessed = matches!(again, Again::Safe | Again::Closing);
    let is_free = is_unprocessed && ctx.attempts <= settings.connect_retries;
    match (ctx.cluster, &mut ctx.retry) {
        (Some(cluster), Some(policy)) => policy.next(cluster, is_free, Duration::ZERO, chance),
        _ => is_free.then_some(Duration::ZERO),
    }
}

/// Whether the next attempt may use a kept connection: not once two of them have ended in its hands.
pub(crate) fn may_reuse(ctx: &Context<'_>) -> bool {
    ctx.races < RACES_MAX
}

/// How long dialling the endpoint of the context may take, if less than ever: where another one would
/// be tried next, waiting long for this one is not worth it.
pub(crate) fn dial_limit(ctx: &Context<'_>, settings: &Settings) -> Option<Duration> {
    let limit = settings.connect_timeout_elsewhere?;
    let (config, endpoint) = (ctx.cluster?, ctx.endpoint.as_ref()?);
    let is_free = ctx.attempts <= settings.connect_retries;
    let policy = ctx.retry.as_deref();
    let follows = policy.map_or(is_free, |policy| policy.would_follow(is_free, limit));
    let has_other = || config.cluster.has_other(endpoint.address(), &ctx.tried);
    (follows && has_other() && is_well(ctx)).then_some(limit)
}

/// The pause before an attempt that replaces this response, whose status the policy lists; `None`
/// when it goes to the client, as one does that asks for a longer pause (Retry-After) than there may be.
pub(crate) fn instead_of(
    ctx: &mut Context<'_>,
    method: &Method,
    response: &Response,
    chance: Chance,
    settings: &Settings,
) -> Option<Duration> {
    if !method.is_idempotent() {
        return None;
    }
    let asked = retry_after(&response.headers, SystemTime::now()).unwrap_or_default();
    if asked > settings.retry_after_max {
        denied(ctx, Denied::RetryAfter);
        return None;
    }
    note_tried(ctx);
    if !is_bearable(ctx) {
        return None;
    }
    let cluster = ctx.cluster?;
    ctx.retry.as_mut()?.next(cluster, false, asked, chance)
}

/// Whether the cluster is well enough for more than was asked of it: its breaker is closed, and not so
/// many endpoints fail that all are used again. A half-open breaker's trials are for new requests.
fn is_bearable(ctx: &Context<'_>) -> bool {
    let is_bearable = is_well(ctx);
    if !is_bearable {
        denied(ctx, Denied::Unwell);
    }
    is_bearable
}

fn is_well(ctx: &Context<'_>) -> bool {
    let is_closed = |breaker: &Breaker| breaker.state(since_start(Instant::now())) == State::Closed;
    let cluster = ctx.cluster.map(|config| &config.cluster);
    cluster.is_some_and(|cluster| !cluster.is_in_panic()) && ctx.breaker().is_none_or(is_closed)
}

/// Counts that there is no other attempt because a part of the body is gone.
pub(crate) fn body_is_gone(ctx: &Context<'_>) {
    denied(ctx, Denied::Body);
}

/// Counts an attempt that the policy would have made.
fn denied(ctx: &Context<'_>, cause: Denied) {
    if let (Some(config), Some(policy)) = (ctx.cluster, &ctx.retry)
        && policy.has_more()
    {
        config.metrics.retry_denied(cause);
    }
}

fn note_tried(ctx: &mut Context<'_>) {
    if let Some(endpoint) = &ctx.endpoint {
        ctx.tried.push(endpoint.address());
    }
}

/// How long a response asks to be left alone (RFC 9110 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(header::RETRY_AFTER)?;
    if let Some(seconds) = decimal(value.as_bytes()) {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value.to_str().ok()?).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_how_long_it_wants_to_be_left_alone() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let cases = [
            ("7", Some(7)),
            ("0", Some(0)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:27 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("99999999999999999999", None),
        ];
        for (text, seconds) in cases {
            let headers = HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(
                retry_after(&headers, now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }
}
