//! The filters of a rule or a backend, in their order, with the pauses in which a service is asked, and
//! the plugins behind them.
//!
//! Called by the line in `proxy`, which decides what an end here means; what filters do stands in
//! `phase::filter` and `authorize`, what plugins do in `phase::plugin`.

use crate::arrival::Arrival;
use crate::authorize;
use crate::context::Context;
use crate::downstream::{ClientError, RequestBody, Responder};
use crate::message::Request;
use crate::phase::filter::{self, Filtered, Level};
use crate::phase::plugin::Place;
use crate::phase::{self, Step};
use crate::worker::Worker;

use super::{Waiting, client_fault, given_up};

/// True when neither a filter nor a plugin of that level has to see the request, as with most.
pub(super) fn are_idle(ctx: &Context<'_>, level: Level) -> bool {
    filter::are_idle(ctx, level) && phase::plugin::names(ctx, place(level)).is_empty()
}

/// Applies the filters of that level to the request, and shows it to the plugins of that level.
pub(super) async fn run(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
    (body, responder): (&mut RequestBody<'_>, &mut Responder<'_>),
    waiting: &Waiting<'_>,
    level: Level,
) -> Result<Step, ClientError> {
    phase::trace::tell(ctx, request);
    let mut from = 0;
    loop {
        match filter::on_request(ctx, request, arrival, worker, level, from) {
            Filtered::Done(Step::Continue) => break,
            Filtered::Done(reply) => return Ok(reply),
            Filtered::Asks(auth, next) => {
                // Boxed, because most requests ask nobody and shall not carry the room for it.
                let streams = (&mut *body, &mut *responder);
                let asked = authorize::ask(worker, arrival, ctx, request, streams, auth);
                let mut asked = Box::pin(asked);
                let answer = waiting.until_due(asked.as_mut()).await;
                drop(asked);
                match answer {
                    Ok(Ok(None)) => {}
                    Ok(Ok(Some(reply))) => return Ok(Step::reply(reply)),
                    Ok(Err(error)) => return client_fault(ctx, responder, error),
                    Err(reason) => return given_up(ctx, responder, reason),
                }
                from = next;
            }
        }
    }
    Ok(plugged(worker, arrival, ctx, request, place(level)).await)
}

fn place(level: Level) -> Place {
    match level {
        Level::Rule => Place::Rule,
        Level::Backend => Place::Cluster,
    }
}

/// Shows the request's head to the plugins of that place; what they make of its path is brought into the
/// normal form.
pub(super) async fn plugged(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
    place: Place,
) -> Step {
    if phase::plugin::names(ctx, place).is_empty() {
        return Step::Continue;
    }
    ctx.keep_asked(&request.authority, &request.target);
    // Boxed, because most requests meet no plugin and shall not carry the room for it.
    let showing = phase::plugin::on_request(worker, arrival, ctx, request, place);
    match Box::pin(showing).await {
        Step::Continue => phase::path::normalise(ctx, request, arrival),
        reply => reply,
    }
}
