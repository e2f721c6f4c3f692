//! Where the request goes: backend by weight, its cluster, an endpoint of it.
//!
//! The backend is chosen once per request, so that a retry stays in the share it was counted for;
//! the endpoint is chosen anew for each attempt and avoids those that failed.

use std::net::IpAddr;

use dataplane_resilience::admission::Place;
use dataplane_telemetry::Reason;
use dataplane_upstream::admission::Limits;
use dataplane_upstream::{Ask, Cluster};
use http::HeaderMap;
use ir::cluster::HashKey;

use crate::context::Context;
use crate::message::{Request, cookie};
use crate::phase::Step;
use crate::reply::Reply;
use crate::session::Bound;

/// Notes backend and cluster in the context.
pub(crate) fn choose(ctx: &mut Context<'_>, request: &Request) -> Step {
    let Some(rule) = ctx.rule else {
        return Step::reply(Reply::new(Reason::Internal));
    };
    if let Some(policy) = rule.session.as_deref() {
        let bound = Bound::begin(policy, &request.headers);
        ctx.session = Some(Box::new(bound));
    }
    let of_session = ctx.session.as_deref();
    let of_session = of_session.and_then(|bound| bound.backend(rule, ctx.config));
    // Gateway API: a rule whose backends all have weight 0, or that has none, answers 500.
    let in_turn = || rule.choice.next().and_then(|at| rule.backends.get(at));
    ctx.backend = of_session.or_else(in_turn);
    let cluster = ctx.backend.and_then(|backend| ctx.config.cluster(backend));
    match cluster {
        // TLS without anything to judge certificates by, and never plain text instead.
        Some(config) if config.tls.is_refused() => Step::reply(Reply::new(Reason::InvalidBackend)),
        Some(config) => {
            ctx.cluster = Some(config);
            ctx.hash = config
                .cluster
                .hash_key()
                .and_then(|key| hash(key, request, ctx.client));
            // A rule's own policy takes precedence over its backend's (GEP-1619).
            if let (None, Some(policy)) = (&ctx.session, config.session.as_deref()) {
                let bound = Bound::begin(policy, &request.headers);
                ctx.session = Some(Box::new(bound));
            }
            Step::Continue
        }
        None => Step::reply(Reply::new(Reason::InvalidBackend)),
    }
}

/// A place among the requests that the chosen cluster may have at once, held to the end of the
/// response; retries run within it.
pub(crate) fn enter<'a>(
    ctx: &Context<'a>,
    limits: Limits,
) -> Result<Option<Place<'a>>, Box<Reply>> {
    let Some(config) = ctx.cluster else {
        return Ok(None);
    };
    let cluster = &config.cluster;
    match cluster.admission().request(&cluster.limits(limits)) {
        Some(place) => Ok(Some(place)),
        None => {
            config.metrics.connection_failed(Reason::BackendOverload);
            Err(Box::new(Reply::new(Reason::BackendOverload)))
        }
    }
}

/// Notes the endpoint of the next attempt in the context.
pub(crate) fn pick(ctx: &mut Context<'_>) -> Step {
    let endpoint = ctx.cluster.and_then(|config| {
        let bound = ctx.session.as_deref();
        let ask = Ask {
            tried: &ctx.tried,
            hash: ctx.hash,
            session: bound.and_then(|bound| bound.endpoint(&config.cluster)),
        };
        config.cluster.pick(&ask, ctx.started)
    });
    match endpoint {
        Some(endpoint) => {
            ctx.endpoint = Some(endpoint);
            ctx.attempts += 1;
            ctx.request_sent = false;
            Step::Continue
        }
        None => Step::reply(Reply::new(Reason::NoEndpoint)),
    }
}

/// Tells a client that is kept at its endpoint which one that is.
pub(crate) fn stamp_session(ctx: &Context<'_>, headers: &mut HeaderMap) {
    let Some(bound) = &ctx.session else { return };
    let (Some(config), Some(endpoint)) = (ctx.cluster, &ctx.endpoint) else {
        return;
    };
    let is_secured = ctx.listener.is_some_and(|it| it.listener.tls.is_some());
    bound.stamp(&config.cluster, endpoint.address(), is_secured, headers);
}

/// The hash of what the cluster's policy names; nothing when the request does not have it.
fn hash(key: &HashKey, request: &Request, client: IpAddr) -> Option<u64> {
    match key {
        HashKey::SourceIp => Some(match client {
            IpAddr::V4(address) => Cluster::hash(&address.octets()),
            IpAddr::V6(address) => Cluster::hash(&address.octets()),
        }),
        HashKey::Header(name) => {
            let value = request.headers.get(name.as_str())?;
            Some(Cluster::hash(value.as_bytes()))
        }
        HashKey::Cookie(name) => cookie(&request.headers, name).map(Cluster::hash),
        HashKey::Hostname => Some(Cluster::hash(request.authority.host().as_bytes())),
    }
}
