//! Which rule takes the request: listener by client and host, then the listener's table. Between the two the
//! listener's settings bring path and fields into the form that is matched.
//!
//! The listener is the most specific one for the host among those on the socket, and only its
//! routes count (Gateway API listener isolation). Over TLS it must be the one the handshake was
//! made for, else the client is told to use another connection (421, GEP-3567).

use dataplane_config::Rule;
use dataplane_route::Request as View;
use dataplane_telemetry::Reason;

use crate::arrival::Arrival;
use crate::context::Context;
use crate::message::Request;
use crate::phase::Step;
use crate::reply::Reply;

/// Notes the listener in the context.
pub(crate) fn listener(ctx: &mut Context<'_>, request: &Request, arrival: &Arrival) -> Step {
    let host = host(request);
    let Some(bind) = ctx.config.binds.get(&arrival.bind) else {
        return Step::reply(Reply::new(Reason::RouteNotFound));
    };
    // A kept connection may be older than what its socket speaks by now.
    if bind.tls.is_some() != arrival.tls.is_some() {
        return Step::reply(Reply::new(Reason::MisdirectedRequest));
    }
    // Gateway API: a host of no listener is 404, whatever the handshake was for.
    let Some(listener) = bind.listener(arrival.client.ip().to_canonical(), host) else {
        return Step::reply(Reply::new(Reason::RouteNotFound));
    };
    ctx.listener = Some(listener);
    if arrival
        .tls
        .as_ref()
        .is_some_and(|tls| tls.listener != listener.listener.name)
    {
        return Step::reply(Reply::new(Reason::MisdirectedRequest));
    }
    Step::Continue
}

/// Sends away who was let in by another authority, or without being asked for a certificate, and
/// would not be by now: it has to come in again.
pub(crate) fn admission(ctx: &Context<'_>, arrival: &Arrival) -> Step {
    let bind = ctx.config.binds.get(&arrival.bind);
    if let Some(admission) = arrival
        .tls
        .as_ref()
        .and_then(|tls| tls.admission.as_deref())
        && let Some(tls) = bind.and_then(|bind| bind.tls.as_ref())
        && !tls.admits(admission)
    {
        return Step::reply(Reply::new(Reason::MisdirectedRequest));
    }
    Step::Continue
}

/// Notes the rule in the context.
pub(crate) fn rule(ctx: &mut Context<'_>, request: &Request) -> Step {
    let Some(listener) = ctx.listener else {
        return Step::reply(Reply::new(Reason::RouteNotFound));
    };
    let Some(found) = listener.table.lookup(&view(request)) else {
        return Step::reply(Reply::new(Reason::RouteNotFound));
    };
    let is_whole = request.target.path() == "*";
    ctx.prefix_len = found.prefix_len.filter(|_| !is_whole);
    ctx.rule = Some(found.rule);
    Step::Continue
}

/// What rules are matched against.
pub(crate) fn view(request: &Request) -> View<'_> {
    View {
        host: host(request),
        // What OPTIONS asks of the server as a whole belongs to the rules for all paths.
        path: match request.target.path() {
            "*" => "/",
            path => path,
        },
        query: request.target.query(),
        method: &request.method,
        headers: &request.headers,
    }
}

/// The host as routes name it.
fn host(request: &Request) -> &str {
    let host = request.authority.routed_host();
    host.strip_suffix('.').unwrap_or(host)
}

/// Refuses a head that is larger than the rule allows.
pub(crate) fn admit(rule: &Rule, request: &Request) -> Step {
    match rule.settings.request_header_bytes_max {
        Some(max) if request.head_bytes() as u64 > max => {
            Step::reply(Reply::new(Reason::HeadTooLarge))
        }
        _ => Step::Continue,
    }
}
