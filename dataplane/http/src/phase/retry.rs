//! Whether a failed attempt is followed by another.
//!
//! Never when a byte of the response was seen or a part of the body was used up; a request that may
//! have arrived is sent again only when its method is idempotent (RFC 9110 9.2.2). A kept connection
//! that the endpoint closed in the same moment is not the client's problem: such an attempt is made
//! once more even when all else was tried.

use http::Method;

use crate::context::Context;
use crate::exchange::{Again, Failure};
use crate::message::Request;
use crate::settings::Settings;

/// Facts about the attempt that failed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) was_reused: bool,
    pub(crate) body_started: bool,
    pub(crate) head_sent: bool,
}

/// True when another attempt may be made; notes the endpoint to avoid.
pub(crate) fn again(
    ctx: &mut Context<'_>,
    request: &Request,
    failed: Failed,
    settings: &Settings,
) -> bool {
    let may_repeat = match failed.failure.again {
        Again::Safe => true,
        Again::IfIdempotent => is_idempotent(&request.method),
        Again::Never => false,
    };
    if !may_repeat || failed.body_started || failed.head_sent {
        return false;
    }
    if failed.was_reused {
        return ctx.attempts <= settings.connect_retries + 1;
    }
    if let Some(endpoint) = &ctx.endpoint {
        ctx.tried.push(endpoint.address());
    }
    // Without a kept connection in play, only what certainly did not arrive is tried elsewhere.
    failed.failure.again == Again::Safe && ctx.attempts <= settings.connect_retries
}

fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
}
