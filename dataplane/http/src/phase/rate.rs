//! Whether limits of rate let a request pass, and what they say about it in the response.
//!
//! Asked twice: behind the route for the rules of process, listener and route, and behind the choice
//! of a backend for those that count by cluster. A request takes one token from each rule or from
//! none; where a rule says so it waits for its token, and `proxy` does the waiting. Without rules
//! this costs a look at empty lists.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};

use dataplane_config::{Asked, Key, Limiter, client_of};
use dataplane_resilience::admission::Place;
use dataplane_resilience::token_bucket::Empty;
use dataplane_telemetry::Reason;
use dataplane_upstream::since_start;
use ir::policy::RateLimitKey;

use crate::context::{Context, Rated};
use crate::message::{Request, cookie};
use crate::reply::Reply;
use crate::settings::Settings;

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Which rules are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Those that are known once the route is.
    Entry,
    /// Those that count by cluster.
    Backend,
}

/// What the rules say.
pub(crate) enum Said<'c> {
    Pass,
    /// To be asked again after this time, with the place in the queue held until then.
    Wait(Duration, Place<'c>),
    Refuse(Box<Reply>),
}

/// Takes a token from each rule of that stage, unless one has none.
pub(crate) fn take<'c>(
    ctx: &mut Context<'c>,
    request: &Request,
    stage: Stage,
    settings: &Settings,
) -> Said<'c> {
    let listener = ctx.listener.map(|it| &it.limits);
    let rule = ctx.rule.map(|it| &it.limits);
    let cluster = ctx.cluster.map(|it| &it.limits);
    let lists = match stage {
        Stage::Entry => [listener.map(|it| &it.early), rule.map(|it| &it.early), None],
        Stage::Backend => [
            listener.map(|it| &it.late),
            rule.map(|it| &it.late),
            cluster.map(|it| &it.early),
        ],
    };
    if lists.iter().all(|list| list.is_none_or(|it| it.is_empty())) {
        return Said::Pass;
    }
    let asked = Asked {
        listener: ctx.listener.map_or("", |it| &it.listener.name),
        route: ctx.rule.map_or("", |it| &it.route),
        cluster: ctx.cluster.map_or("", |it| it.cluster.key()),
    };
    let now = match (stage, ctx.queued) {
        (Stage::Entry, Duration::ZERO) => ctx.started,
        // An authorization service or a plugin may have taken its time.
        _ => Instant::now(),
    };
    let now = since_start(now);
    let before = ctx.rates.len();
    let mut taken: Vec<(&'c Limiter, Key)> = Vec::new();
    for limiter in lists.into_iter().flatten().flat_map(|list| list.iter()) {
        let key = key_of(limiter, ctx.client, request, &asked);
        match limiter.take(key, now) {
            Ok(left) => {
                taken.push((limiter, key));
                if !limiter.source().is_dry_run {
                    ctx.rates.push(Rated {
                        limiter,
                        remaining: left.remaining,
                        reset: left.full_after,
                    });
                }
            }
            Err(_) if limiter.source().is_dry_run => limiter.metrics.would_reject.increment(),
            Err(empty) => {
                // What was taken is used by another one.
                taken
                    .iter()
                    .for_each(|(limiter, key)| limiter.give_back(*key));
                ctx.rates.truncate(before);
                return wait_or_refuse(ctx, limiter, empty, settings);
            }
        }
    }
    Said::Pass
}

fn wait_or_refuse<'c>(
    ctx: &mut Context<'c>,
    limiter: &'c Limiter,
    empty: Empty,
    settings: &Settings,
) -> Said<'c> {
    let pause = empty.retry_after.unwrap_or(settings.rate_queue_time);
    if limiter.source().queue
        && ctx.queued + pause <= settings.rate_queue_time
        && let Some(place) = limiter.waiting.enter(Some(settings.rate_queue_max))
    {
        if ctx.queued.is_zero() {
            limiter.metrics.queued.increment();
        }
        let pause = pause.max(Duration::from_millis(1));
        ctx.queued += pause;
        return Said::Wait(pause, place);
    }
    limiter.metrics.rejected.increment();
    ctx.rates.push(Rated {
        limiter,
        remaining: 0,
        reset: pause,
    });
    let reply = Reply::new(Reason::RateLimited).retry_after(pause);
    Said::Refuse(Box::new(reply))
}

/// Says in a response what the rules said.
pub(crate) fn stamp(ctx: &Context<'_>, headers: &mut HeaderMap) {
    for rated in &ctx.rates {
        let limiter = rated.limiter;
        let reset = rated.reset.as_secs() + u64::from(rated.reset.subsec_nanos() > 0);
        let left = format!("\"{}\";r={};t={reset}", limiter.name(), rated.remaining);
        let values = [(POLICY, limiter.policy().into_string()), (LIMIT, left)];
        for (name, value) in values {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.append(name, value);
            }
        }
    }
}

/// The bucket of a request. Those without the header field or cookie share one.
fn key_of(limiter: &Limiter, client: IpAddr, request: &Request, asked: &Asked<'_>) -> Key {
    match &limiter.source().key {
        RateLimitKey::Route => limiter.key(None, asked),
        RateLimitKey::SourceIp => {
            let (bytes, length) = client_of(client);
            limiter.key(bytes.get(..length), asked)
        }
        RateLimitKey::Header(name) => {
            let value = request.headers.get(name.as_str());
            limiter.key(value.map(HeaderValue::as_bytes), asked)
        }
        RateLimitKey::Cookie(name) => limiter.key(cookie(&request.headers, name), asked),
    }
}
