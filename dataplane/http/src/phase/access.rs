//! Whether the client may come in by its address: the lists of listener, rule and cluster.
//!
//! All that stand before a request hold. The address is the one that `client` found, so a proxy that
//! is believed does not hide who is behind it. Where no policy has lists this is a look at pointers.

use dataplane_config::AddressLists;
use dataplane_telemetry::Reason;

use crate::context::Context;
use crate::phase::Step;
use crate::reply::Reply;

/// Asks the lists of the listener and of the rule, where there is one.
pub(crate) fn entry(ctx: &Context<'_>) -> Step {
    let listener = ctx.listener.and_then(|it| it.access.as_deref());
    let rule = ctx.rule.and_then(|it| it.access.as_deref());
    admit(ctx, [listener, rule])
}

/// Asks the list of the cluster.
pub(crate) fn backend(ctx: &Context<'_>) -> Step {
    admit(ctx, [ctx.cluster.and_then(|it| it.access.as_deref()), None])
}

fn admit(ctx: &Context<'_>, lists: [Option<&AddressLists>; 2]) -> Step {
    match lists.into_iter().flatten().all(|it| it.admit(ctx.client)) {
        true => Step::Continue,
        false => Step::reply(Reply::new(Reason::AddressDenied)),
    }
}
