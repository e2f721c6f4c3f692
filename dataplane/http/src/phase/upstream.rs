//! Where the request goes: backend by weight, its cluster, an endpoint of it.
//!
//! The backend is chosen once per request, so that a retry stays in the share it was counted for;
//! the endpoint is chosen anew for each attempt and avoids those that failed.

use dataplane_telemetry::Reason;

use crate::context::Context;
use crate::phase::Step;
use crate::reply::Reply;

/// Notes backend and cluster in the context.
pub(crate) fn choose(ctx: &mut Context) -> Step {
    let Some(rule) = &ctx.rule else {
        return Step::reply(Reply::new(Reason::Internal));
    };
    // Gateway API: a rule whose backends all have weight 0, or that has none, answers 500.
    let Some(index) = rule.choice.next() else {
        return Step::reply(Reply::new(Reason::InvalidBackend));
    };
    let cluster = rule
        .backends
        .get(index)
        .and_then(|backend| ctx.config.cluster(backend));
    let Some(cluster) = cluster.cloned() else {
        ctx.backend = Some(index);
        return Step::reply(Reply::new(Reason::InvalidBackend));
    };
    ctx.backend = Some(index);
    // Never in plain text to a backend that is meant to be reached over TLS.
    if cluster.cluster.tls().is_used() {
        return Step::reply(Reply::new(Reason::InvalidBackend));
    }
    ctx.cluster = Some(cluster);
    Step::Continue
}

/// Notes the endpoint of the next attempt in the context.
pub(crate) fn pick(ctx: &mut Context) -> Step {
    let endpoint = ctx
        .cluster
        .as_ref()
        .and_then(|config| config.cluster.pick_avoiding(&ctx.tried));
    match endpoint {
        Some(endpoint) => {
            ctx.endpoint = Some(endpoint);
            ctx.attempts += 1;
            Step::Continue
        }
        None => Step::reply(Reply::new(Reason::NoEndpoint)),
    }
}
