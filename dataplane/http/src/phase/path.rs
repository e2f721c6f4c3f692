//! The path of a request in its normal form, as the listener wants it.
//!
//! Comes between client and rule, so that what is matched is what is forwarded. What the normal form
//! is stands in `path`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use dataplane_telemetry::Reason;
use ir::listener::EscapedSlashes;

use crate::arrival::Arrival;
use crate::context::Context;
use crate::forwarded::Scheme;
use crate::message::Request;
use crate::path::{EscapedSlash, Rules, has_escaped_slash};
use crate::phase::Step;
use crate::reply::Reply;

/// Normalises the path, refuses it, or sends the client to the normal form.
pub(crate) fn normalise(ctx: &mut Context<'_>, request: &mut Request, arrival: &Arrival) -> Step {
    let Some(listener) = ctx.listener else {
        return Step::Continue;
    };
    let (escaped_slash, redirects) = match listener.escaped_slashes {
        EscapedSlashes::Keep => (EscapedSlash::Keep, false),
        EscapedSlashes::Refuse => (EscapedSlash::Refuse, false),
        EscapedSlashes::Decode => (EscapedSlash::Decode, false),
        EscapedSlashes::Redirect => (EscapedSlash::Decode, true),
    };
    let redirects = redirects && has_escaped_slash(request.target.path());
    let rules = Rules {
        escaped_slash,
        merge_slashes: listener.merge_slashes,
    };
    let normalised = request.normalise(rules).map(|before| {
        if let Some(before) = before {
            ctx.keep_asked(&request.authority, &before);
        }
    });
    match normalised {
        Ok(()) if redirects => Step::reply(redirected(request, ctx.scheme(arrival))),
        Ok(()) => Step::Continue,
        Err(refusal) => Step::reply(Reply::with_detail(
            Reason::BadRequest,
            refusal.status,
            refusal.detail,
        )),
    }
}

/// An absolute URL, because a path may begin with two slashes, which would be read as a host.
fn redirected(request: &Request, scheme: Scheme) -> Reply {
    let location = format!(
        "{}://{}{}",
        scheme.as_str(),
        request.authority.as_str(),
        request.target
    );
    match HeaderValue::from_maybe_shared(Bytes::from(location)) {
        Ok(location) => {
            let mut headers = HeaderMap::with_capacity(4);
            headers.insert(header::LOCATION, location);
            Reply::empty(Reason::Redirected, StatusCode::TEMPORARY_REDIRECT, headers)
        }
        Err(_) => Reply::new(Reason::Internal),
    }
}
