//! What an attempt says about its endpoint and its cluster, and whether their breaker lets it begin.
//!
//! An attempt is judged once: at its end, or earlier where its outcome is certain and something
//! waits for it. What a client brought about is held against nobody. Clusters that are not watched
//! and have no breaker cost two looks at the configuration, and no clock is read for them.

use std::time::{Duration, Instant};

use http::{HeaderMap, header};

use dataplane_telemetry::Reason;
use dataplane_upstream::{Outcome, since_start};

use crate::context::Context;
use crate::exchange::Failure;
use crate::message::Response;
use crate::phase::Step;
use crate::reply::Reply;

/// Lets the next attempt begin, unless the cluster's breaker is open.
pub(crate) fn enter(ctx: &mut Context<'_>) -> Step {
    ctx.pass = None;
    ctx.answered = None;
    ctx.answers_grpc = false;
    ctx.is_judged = false;
    let Some(breaker) = ctx.breaker() else {
        return Step::Continue;
    };
    // The request may have begun long ago: its body was waited for, or somebody was asked about it.
    match breaker.enter(since_start(Instant::now())) {
        Ok(pass) => {
            ctx.pass = Some(pass);
            Step::Continue
        }
        Err(refused) => {
            if let Some(cluster) = ctx.cluster {
                cluster.metrics.circuit_refused();
            }
            let reply = Reply::new(Reason::CircuitOpen).retry_after(refused.retry_after);
            Step::reply(reply)
        }
    }
}

/// Notes the head of a final response.
///
/// A failure is judged here. A trial of a half-open breaker ends here, too: one that streams for
/// hours must not keep others out.
pub(crate) fn answered(ctx: &mut Context<'_>, response: &Response, began: Option<Instant>) {
    if !ctx.is_watched() {
        return;
    }
    let outcome = outcome_of(response);
    ctx.answered = Some(outcome);
    ctx.answers_grpc = is_grpc(&response.headers);
    if let (Some(endpoint), Some(began)) = (&ctx.endpoint, began) {
        endpoint.load().answered_in(began.elapsed());
    }
    if outcome != Outcome::Success {
        // Nothing that follows makes it better, and whoever is told must find it counted.
        ended(ctx, outcome);
    } else if ctx.pass.as_ref().is_some_and(|pass| pass.is_trial()) {
        tell_breaker(ctx, outcome, Instant::now());
    }
}

/// Notes the trailers of a response: a call over gRPC mostly says there how it ended.
pub(crate) fn trailed(ctx: &mut Context<'_>, trailers: &HeaderMap) {
    if !ctx.answers_grpc || ctx.answered != Some(Outcome::Success) {
        return;
    }
    if let Some(outcome) = of_grpc_status(trailers) {
        ctx.answered = Some(outcome);
    }
}

/// The response is what counts, whatever becomes of the rest.
pub(crate) fn judge(ctx: &mut Context<'_>) {
    if let Some(outcome) = ctx.answered {
        ended(ctx, outcome);
    }
}

/// The exchange ended whole.
pub(crate) fn succeeded(ctx: &mut Context<'_>) {
    if ctx.is_watched() {
        let outcome = ctx.answered.unwrap_or(Outcome::Success);
        ended(ctx, outcome);
    }
}

/// The attempt broke. `was_reused` says that the connection had served a request before.
pub(crate) fn failed(ctx: &mut Context<'_>, failure: Failure, was_reused: bool) {
    if !ctx.is_watched() {
        return;
    }
    match failure.reason {
        // That is nobody's fault.
        _ if failure.is_race(was_reused) => {}
        Reason::ConnectFailed
        | Reason::ConnectTimeout
        | Reason::UpstreamTls
        | Reason::UpstreamCertificate
        | Reason::UpstreamReset
        | Reason::UpstreamProtocol => ended(ctx, Outcome::GatewayFailure),
        _ => judge(ctx),
    }
}

/// A deadline passed; the endpoint had been waited for so long, of `limit`.
///
/// It is held against the endpoint when no response had begun and at least half of the time went
/// to waiting for it. Otherwise a client that sends slowly could have any endpoint left out.
pub(crate) fn timed_out(ctx: &mut Context<'_>, waited: Option<Duration>, limit: Option<Duration>) {
    if !ctx.is_watched() {
        return;
    }
    match (ctx.answered, waited, limit) {
        (None, Some(waited), Some(limit)) if waited >= limit / 2 => {
            ended(ctx, Outcome::GatewayFailure);
        }
        _ => judge(ctx),
    }
}

fn ended(ctx: &mut Context<'_>, outcome: Outcome) {
    let (Some(config), Some(endpoint)) = (ctx.cluster, &ctx.endpoint) else {
        return;
    };
    if std::mem::replace(&mut ctx.is_judged, true) {
        return;
    }
    let now = Instant::now();
    if let Some(lasts) = config.cluster.report(endpoint, outcome, now) {
        config.metrics.ejected();
        tracing::info!(
            cluster = &**config.cluster.key(),
            endpoint = %endpoint.address(),
            lasts_ms = lasts.as_millis(),
            "an endpoint keeps failing and is left out"
        );
    }
    tell_breaker(ctx, outcome, now);
}

fn tell_breaker(ctx: &mut Context<'_>, outcome: Outcome, now: Instant) {
    let Some(pass) = ctx.pass.take() else { return };
    match outcome {
        Outcome::Success => pass.succeeded(),
        Outcome::ServerError | Outcome::GatewayFailure => {
            let opened = pass.failed(since_start(now));
            if let (true, Some(config)) = (opened, ctx.cluster) {
                config.metrics.circuit_opened();
                tracing::info!(
                    cluster = &**config.cluster.key(),
                    "a cluster keeps failing, its breaker is open"
                );
            }
        }
    }
}

/// What the head of a response says; a gRPC server that fails at once says it there, under 200.
fn outcome_of(response: &Response) -> Outcome {
    match Outcome::of_status(response.status.as_u16()) {
        Outcome::Success => of_grpc(&response.headers).unwrap_or(Outcome::Success),
        failure => failure,
    }
}

fn of_grpc(headers: &HeaderMap) -> Option<Outcome> {
    is_grpc(headers).then(|| of_grpc_status(headers)).flatten()
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// What `grpc-status` says, in a head or in trailers.
fn of_grpc_status(headers: &HeaderMap) -> Option<Outcome> {
    const UNKNOWN: &[u8] = b"2";
    const INTERNAL: &[u8] = b"13";
    const UNAVAILABLE: &[u8] = b"14";
    const DATA_LOSS: &[u8] = b"15";
    match headers.get("grpc-status")?.as_bytes() {
        UNAVAILABLE => Some(Outcome::GatewayFailure),
        UNKNOWN | INTERNAL | DATA_LOSS => Some(Outcome::ServerError),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, StatusCode};

    use crate::h1::BodyLength;

    use super::*;

    #[test]
    fn heads_tell_of_the_endpoint_in_http_and_in_grpc() {
        for (status, kind, grpc_status, expected) in [
            (200, "text/plain", None, Outcome::Success),
            (404, "text/plain", None, Outcome::Success),
            (500, "text/plain", None, Outcome::ServerError),
            (503, "text/plain", None, Outcome::GatewayFailure),
            (200, "application/grpc", Some("0"), Outcome::Success),
            (200, "application/grpc", Some("4"), Outcome::Success),
            (200, "application/grpc", Some("13"), Outcome::ServerError),
            (
                200,
                "application/grpc+proto",
                Some("14"),
                Outcome::GatewayFailure,
            ),
            (200, "text/plain", Some("14"), Outcome::Success),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            if let Some(grpc_status) = grpc_status {
                headers.insert("grpc-status", HeaderValue::from_static(grpc_status));
            }
            let response = Response {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: BodyLength::None,
                declared: BodyLength::None,
            };
            assert_eq!(outcome_of(&response), expected, "{status} {grpc_status:?}");
        }
    }
}
