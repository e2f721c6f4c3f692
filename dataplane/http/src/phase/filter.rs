//! The filters of rule and backend: on the request in order, on the response in reverse.
//!
//! What a filter does to a message is decided in `dataplane/route`; here is when it happens.

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use dataplane_config::{ExternalAuth, Filters, Mirror, RequestFilter, ResponseFilter};
use dataplane_route::filter::cors::Asked;
use dataplane_route::filter::redirect::{Origin, Redirect};
use dataplane_route::filter::rewrite::Rewrite;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::MirrorResult;

use crate::arrival::Arrival;
use crate::call::Way;
use crate::context::Context;
use crate::forwarded::Scheme;
use crate::h1::Authority;
use crate::message::{Request, Response};
use crate::mirror;
use crate::phase::Step;
use crate::reply::Reply;
use crate::worker::Worker;

/// Whose filters are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    Rule,
    /// The chosen backend.
    Backend,
}

/// How far the filters of a level have come.
pub(crate) enum Filtered<'c> {
    /// To their end.
    Done(Step),
    /// To one that asks a service; if it lets the request pass, the filter at this place is next.
    Asks(&'c ExternalAuth, usize),
}

/// True when no filter of that level has to see the request.
pub(crate) fn are_idle(ctx: &Context<'_>, level: Level) -> bool {
    of_level(ctx, level).is_some_and(|it| it.request.is_empty() && !it.has_cors)
}

fn of_level<'c>(ctx: &Context<'c>, level: Level) -> Option<&'c Filters> {
    match level {
        Level::Rule => ctx.rule.map(|rule| &rule.filters),
        Level::Backend => ctx.backend.map(|backend| &backend.filters),
    }
}

/// Applies the filters of a level to the request, beginning with the one at `from`.
pub(crate) fn on_request<'c>(
    ctx: &mut Context<'c>,
    request: &mut Request,
    arrival: &Arrival,
    worker: &Worker,
    level: Level,
    from: usize,
) -> Filtered<'c> {
    let Some(filters) = of_level(ctx, level) else {
        return Filtered::Done(Step::reply(Reply::new(Reason::Internal)));
    };
    if filters.has_cors && ctx.cors.is_none() {
        // Now, because the filters that follow may change what the request says.
        let asked = Asked::read(&request.method, &request.headers);
        ctx.cors = Some(Box::new(asked));
    }
    for (at, filter) in filters.request.iter().enumerate().skip(from) {
        if let RequestFilter::ExternalAuth(auth) = filter {
            return Filtered::Asks(auth, at + 1);
        }
        if let Step::Reply(reply) = apply(filter, ctx, request, arrival, worker) {
            return Filtered::Done(Step::Reply(reply));
        }
    }
    Filtered::Done(Step::Continue)
}

/// Applies the filters of backend and rule to the response.
pub(crate) fn on_response(ctx: &Context<'_>, response: &mut Response) {
    let Some(rule) = ctx.rule else { return };
    for edit in &ctx.response_edits {
        // Without room the field is missing, which a service cannot rely on.
        let _ = edit.apply(&mut response.headers);
    }
    let backend = ctx
        .backend
        .map_or(&[][..], |backend| &backend.filters.response);
    for filter in backend.iter().chain(&rule.filters.response) {
        match filter {
            ResponseFilter::Headers(edit) => edit.apply(&mut response.headers),
            ResponseFilter::Cors(cors) => {
                if let Some(asked) = &ctx.cors {
                    cors.apply(asked, &mut response.headers);
                }
            }
        }
    }
}

fn apply(
    filter: &RequestFilter,
    ctx: &mut Context<'_>,
    request: &mut Request,
    arrival: &Arrival,
    worker: &Worker,
) -> Step {
    match filter {
        RequestFilter::Mirror(mirror) => note_copy(mirror, ctx, request, worker),
        RequestFilter::Cors => {
            if ctx.cors.as_ref().is_some_and(|asked| asked.is_preflight()) {
                let status = StatusCode::NO_CONTENT;
                let reply = Reply::empty(Reason::CorsPreflight, status, HeaderMap::new());
                return Step::reply(reply);
            }
        }
        RequestFilter::Headers(edit) => edit.apply(&mut request.headers),
        RequestFilter::Rewrite(rewrite) => {
            if rewritten(rewrite, ctx, request).is_none() {
                return Step::reply(Reply::new(Reason::Internal));
            }
        }
        RequestFilter::Redirect(redirect) => {
            return Step::reply(redirected(redirect, ctx, request, arrival));
        }
        RequestFilter::DirectResponse(direct) => return Step::reply(direct_reply(direct)),
        // The line asks, not a phase.
        RequestFilter::ExternalAuth(_) => return Step::reply(Reply::new(Reason::Internal)),
        RequestFilter::Unsupported => {
            return Step::reply(Reply::new(Reason::UnsupportedFilter));
        }
    }
    Step::Continue
}

/// Takes the request down as it is now, when it is one of those that are copied.
fn note_copy(mirror: &Mirror, ctx: &mut Context<'_>, request: &Request, worker: &Worker) {
    // An upgraded connection is no request that could be copied.
    if request.wants_websocket || !mirror.takes_next() {
        return;
    }
    let Some(rule) = ctx.rule else { return };
    let cluster = ctx.config.cluster_by_keys(&mirror.cluster_keys);
    let way = cluster.and_then(|cluster| {
        Way::choose(cluster, rule.kind, ctx.listener, worker, ctx.started).ok()
    });
    match way {
        Some(way) => ctx.mirrors.push(mirror::Copy::new(way, request)),
        None => rule.metrics.mirrored(MirrorResult::NoBackend),
    }
}

/// Changes host and path; `None` when the outcome would be no legal request.
fn rewritten(rewrite: &Rewrite, ctx: &mut Context<'_>, request: &mut Request) -> Option<()> {
    ctx.keep_asked(&request.authority, &request.target);
    if let Some(host) = rewrite.host() {
        request.authority = Authority::parse(Bytes::copy_from_slice(host.as_bytes())).ok()?;
    }
    let target = &request.target;
    if let Some(new) = rewrite.path_and_query(target.path(), target.query(), ctx.prefix_len) {
        request.target = PathAndQuery::from_maybe_shared(Bytes::from(new)).ok()?;
    }
    Some(())
}

fn redirected(
    redirect: &Redirect,
    ctx: &Context<'_>,
    request: &Request,
    arrival: &Arrival,
) -> Reply {
    let ours = || ctx.listener.map_or(0, |l| l.listener.public_port().get());
    let origin = Origin {
        scheme: match ctx.scheme(arrival) {
            Scheme::Https => ir::filter::Scheme::Https,
            Scheme::Http => ir::filter::Scheme::Http,
        },
        host: request.authority.host(),
        listener_port: ctx.front.port.unwrap_or_else(ours),
        path: request.target.path(),
        query: request.target.query(),
        prefix_len: ctx.prefix_len,
    };
    match redirect.location(&origin) {
        Ok(location) => {
            let mut headers = HeaderMap::with_capacity(4);
            headers.insert(header::LOCATION, location);
            Reply::empty(Reason::Redirected, redirect.status(), headers)
        }
        Err(_) => Reply::new(Reason::Internal),
    }
}

fn direct_reply(direct: &ir::filter::DirectResponse) -> Reply {
    let mut headers = HeaderMap::with_capacity(4);
    let content_type = match direct.content_type.as_str() {
        "" => Ok(HeaderValue::from_static("text/plain")),
        text => HeaderValue::from_str(text),
    };
    if let Ok(value) = content_type {
        headers.insert(header::CONTENT_TYPE, value);
    }
    Reply {
        reason: Reason::DirectResponse,
        status: StatusCode::from_u16(direct.status).unwrap_or(StatusCode::OK),
        headers,
        body: Bytes::copy_from_slice(direct.body.as_bytes()),
    }
}
