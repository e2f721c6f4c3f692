//! The filters of a rule or a backend, in their order, with the pauses in which a service is asked.
//!
//! Called by the line in `proxy`, which decides what an end here means; what filters do stands in
//! `phase::filter` and `authorize`.

use crate::arrival::Arrival;
use crate::authorize;
use crate::context::Context;
use crate::downstream::{ClientError, RequestBody, Responder};
use crate::message::Request;
use crate::phase::Step;
use crate::phase::filter::{self, Filtered, Level};
use crate::worker::Worker;

use super::{Waiting, given_up};

/// Applies the filters of that level to the request.
pub(super) async fn run(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
    (body, responder): (&mut RequestBody<'_>, &mut Responder<'_>),
    waiting: &Waiting<'_>,
    level: Level,
) -> Result<Step, ClientError> {
    let mut from = 0;
    loop {
        match filter::on_request(ctx, request, arrival, worker, level, from) {
            Filtered::Done(step) => return Ok(step),
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
                    Ok(Err(error)) => return Err(error),
                    Err(reason) => return given_up(ctx, responder, reason),
                }
                from = next;
            }
        }
    }
}
