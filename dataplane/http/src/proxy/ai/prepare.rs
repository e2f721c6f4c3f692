//! What one attempt needs before it begins: the request in the provider's words, and where that is.
//!
//! Called by `exchange` for each attempt anew, because dialect, model and credentials differ from one
//! provider to the next. What cannot be made ready is refused here, before anything is sent.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, header};
use tokio::time::timeout;

use dataplane_ai::call::{Answering, Call};
use dataplane_ai::failure::Failure;
use dataplane_ai::redact::Vault;
use dataplane_ai::service::{Service, Target};
use dataplane_config::{Place, Reached};
use dataplane_resilience::circuit_breaker::OwnedPass;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::{Cluster, Endpoint, Outcome, since_start};

use crate::context::Context;
use crate::h1::Authority;
use crate::message::Request;
use crate::phase;

use super::Line;
use super::exchange::{Again, Ended, Failed};
use super::tally::Tally;

/// A call as it is asked of one provider after another.
pub(super) struct Asked {
    /// Until an answer in pieces has begun, when there will be no other attempt.
    pub(super) call: Option<Call>,
    pub(super) vault: Option<Vault>,
    /// Seconds since 1970.
    pub(super) now: u64,
    pub(super) unique: u64,
    /// The model that a budget asks for.
    pub(super) degraded: Option<String>,
    /// Leave of the route's breaker, until it is told how the call went.
    pub(super) of_route: Option<OwnedPass>,
    /// Leave of the provider's breaker for the attempt at hand.
    pub(super) pass: Option<OwnedPass>,
    /// Another provider that is well is asked behind the one at hand.
    pub(super) has_next: bool,
    /// The one at hand may be asked again.
    pub(super) may_repeat: bool,
    /// Whether the attempt at hand was held against its endpoint, or counted for it.
    pub(super) is_judged: bool,
}

/// Notes how an attempt ended, once: for its endpoint, and for the breaker in front of the provider.
pub(super) fn judge(
    asked: &mut Asked,
    cluster: &Cluster,
    metrics: &BackendMetrics,
    endpoint: &Endpoint,
    outcome: Outcome,
) {
    if std::mem::replace(&mut asked.is_judged, true) {
        return;
    }
    let now = Instant::now();
    if cluster.is_watched() && cluster.report(endpoint, outcome, now).is_some() {
        metrics.ejected();
    }
    let Some(pass) = asked.pass.take() else {
        return;
    };
    match outcome {
        Outcome::Success => pass.succeeded(),
        Outcome::ServerError | Outcome::GatewayFailure => {
            if pass.failed(since_start(now)) {
                metrics.circuit_opened();
                tracing::info!(
                    cluster = &**cluster.key(),
                    "a provider keeps failing, its breaker is open"
                );
            }
        }
    }
}

/// A request that is ready for a provider.
pub(super) struct Prepared {
    pub(super) headers: HeaderMap,
    pub(super) authority: Authority,
    pub(super) path: PathAndQuery,
    pub(super) body: Vec<Bytes>,
    pub(super) length: u64,
    pub(super) answering: Answering,
    pub(super) left_behind: Vec<String>,
}

pub(super) fn prepare<'c>(
    line: &Line<'_, 'c>,
    target: &'c Target,
    request: &Request,
    asked: &Asked,
    tally: &mut Tally<'c>,
) -> Result<Prepared, Ended> {
    let service: &'c Service = line.service;
    let Some(call) = &asked.call else {
        return Err(refused(line, tally, &phase::ai::unusable(), Again::Never));
    };
    let model = match &asked.degraded {
        Some(model) => model,
        None => service.model_at(target, call.model()),
    };
    tally.sends(target, model);
    let to = service.destination(target, model, asked.now, asked.unique);
    let outgoing = call
        .send(&to)
        .map_err(|failure| refused(line, tally, &failure, Again::Elsewhere))?;
    let mut headers = phase::ai::fields_to_send(request);
    service.head(target, &outgoing.answering, &mut headers);
    let length = outgoing.body_bytes() as u64;
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let authority = Bytes::copy_from_slice(target.authority().as_bytes());
    let path = target.path(&outgoing.answering);
    let path = Bytes::from(path);
    let (Ok(authority), Ok(path)) = (
        Authority::parse(authority),
        PathAndQuery::from_maybe_shared(path),
    ) else {
        return Err(refused(
            line,
            tally,
            &phase::ai::unusable(),
            Again::Elsewhere,
        ));
    };
    Ok(Prepared {
        headers,
        authority,
        path,
        body: outgoing.body,
        length,
        answering: outgoing.answering,
        left_behind: outgoing.left_behind,
    })
}

/// Where a provider is.
pub(super) enum At<'c> {
    Cluster(&'c dataplane_config::ClusterConfig),
    Site(Arc<Reached>),
}

pub(super) async fn place<'c>(
    line: &Line<'_, 'c>,
    target: &Target,
    ctx: &Context<'c>,
    tally: &mut Tally<'c>,
) -> Result<At<'c>, Ended> {
    let found = match line.ai.provider(target) {
        Some((Place::Cluster(key), _)) => {
            let found = ctx.config.clusters.get(key);
            found.map(|it| At::Cluster(it))
        }
        Some((Place::Site(site), _)) => {
            if site.reached().is_none() {
                let limit = line.worker.settings.connect_timeout;
                let _ = timeout(limit, site.known()).await;
            }
            site.reached().map(At::Site)
        }
        None => None,
    };
    found.ok_or_else(|| unreachable(line, target, tally, Reason::NoEndpoint, Again::Elsewhere))
}

pub(super) fn refused(
    line: &Line<'_, '_>,
    tally: &mut Tally<'_>,
    failure: &Failure,
    again: Again,
) -> Ended {
    tally.failed(failure.reason.as_str());
    let reason = phase::ai::reason_of(failure);
    Ended::Failed(Box::new(Failed {
        reply: Box::new(phase::ai::refusal(failure, line.format, reason)),
        again,
        pause: None,
    }))
}

pub(super) fn unreachable(
    line: &Line<'_, '_>,
    target: &Target,
    tally: &mut Tally<'_>,
    reason: Reason,
    again: Again,
) -> Ended {
    let failure = match reason {
        Reason::ConnectTimeout => target.timed_out(),
        _ => target.unreachable(),
    };
    tally.failed(failure.reason.as_str());
    Ended::Failed(Box::new(Failed {
        reply: Box::new(phase::ai::refusal(&failure, line.format, reason)),
        again,
        pause: None,
    }))
}
