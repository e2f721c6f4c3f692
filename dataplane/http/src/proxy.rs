//! THE REQUEST LINE: the phases of a request in their order, and nothing else.
//!
//! [`handle`] is called by `connection` for each request. It alone decides order and early exits;
//! phases compute, `attempt` and `exchange` talk to the endpoint, `reply` makes our own answers.
//! Every request ends in the log phase, whatever happened, a panic included.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::{FutureExt, poll};
use tokio::task::unconstrained;
use tokio::time::timeout;

use dataplane_telemetry::Reason;

use crate::arrival::Arrival;
use crate::context::Context;
use crate::deadline::{Timer, Watch};
use crate::downstream::{ClientError, RequestBody, Responder, stamp};
use crate::exchange::{Again, Failure};
use crate::h1::{BodyLength, Frame};
use crate::message::{Request, Response};
use crate::mirror;
use crate::phase::{self, Step, log::Carried, retry::Failed};
use crate::reply::Reply;
use crate::worker::Worker;

mod attempt;

use attempt::{Fault, attempt};

/// Serves one request to its end, and says how it ended.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    timer: &Timer,
    mut request: Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
) -> Reason {
    let config = worker.config();
    let mut ctx = Context::new(&config);
    let line = run(
        worker,
        arrival,
        timer,
        &mut ctx,
        &mut request,
        body,
        responder,
    );
    let ended = match caught(line).await {
        Some(ended) => ended,
        None => {
            ctx.reason = Reason::Internal;
            responder.close_after();
            match responder.has_head() {
                true => Err(ClientError::Gone),
                false => Ok(Step::reply(Reply::new(Reason::Internal))),
            }
        }
    };
    let answered = match ended {
        Ok(Step::Continue) => Ok(()),
        Ok(Step::Reply(reply)) => answer(worker, &mut ctx, &request, responder, *reply).await,
        Err(error) => Err(error),
    };
    if answered.is_err() {
        responder.abort();
        if ctx.reason == Reason::Ok {
            ctx.reason = Reason::ClientAborted;
        }
    }
    let carried = Carried {
        received: body.bytes(),
        sent: responder.bytes(),
    };
    phase::log::record(&ctx, &request, arrival, carried, &worker.log);
    ctx.reason
}

/// A panic on the line is a fault of ours: it costs this request and its connection, not the worker.
///
/// `None` after a panic; where it happened is told by the hook of the process.
async fn caught<T>(line: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(line).catch_unwind().await;
    if ended.is_err() {
        tracing::error!("a request panicked, its connection ends; please report the backtrace");
    }
    ended.ok()
}

/// The line itself. `Continue` means that the backend's response went out whole.
async fn run(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    timer: &Timer,
    ctx: &mut Context<'_>,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
) -> Result<Step, ClientError> {
    if let Step::Reply(reply) = phase::route::find(ctx, request, arrival) {
        return Ok(Step::Reply(reply));
    }
    let _places = match phase::limit::enter(worker, ctx) {
        Ok(places) => places,
        Err(reply) => return Ok(Step::Reply(reply)),
    };
    if let Step::Reply(reply) = phase::filter::on_request(ctx, request, arrival, worker) {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = phase::upstream::choose(ctx, request, arrival) {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = phase::filter::on_backend_request(ctx, request, arrival, worker) {
        return Ok(Step::Reply(reply));
    }
    let Some(rule) = ctx.rule else {
        return Ok(Step::reply(Reply::new(Reason::Internal)));
    };
    let body_max = rule
        .request_body_bytes_max
        .or(worker.settings.request_body_bytes_max);
    if let (BodyLength::Length(length), Some(max)) = (request.body, body_max)
        && length > max
    {
        return Ok(Step::reply(Reply::new(Reason::BodyTooLarge)));
    }
    body.limit(body_max);
    if !ctx.mirrors.is_empty() {
        let copies = std::mem::take(&mut ctx.mirrors);
        mirror::start(worker, copies, request.body, body, &rule.metrics);
    }
    let watch = Watch::new(&worker.settings, rule.request_timeout);
    loop {
        if let Step::Reply(reply) = phase::upstream::pick(ctx) {
            return Ok(Step::Reply(reply));
        }
        watch.start_attempt(rule.backend_request_timeout);
        let mut was_reused = false;
        let ended = {
            let attempt = pin!(attempt(worker, ctx, request, body, responder, &watch));
            until_due(attempt, &watch, timer).await
        };
        let failure = match ended {
            Ok(done) => {
                was_reused |= done.was_reused;
                match done.result {
                    Ok(()) => return Ok(Step::Continue),
                    Err(Fault::Client(error)) => return client_fault(ctx, responder, error),
                    Err(Fault::Upstream(failure)) => failure,
                }
            }
            Err(reason) => Failure {
                reason,
                again: Again::Never,
            },
        };
        let failed = Failed {
            failure,
            was_reused,
            body_started: body.is_started(),
            head_sent: responder.has_head(),
        };
        if !phase::retry::again(ctx, request, failed, &worker.settings) {
            ctx.reason = failure.reason;
            if responder.has_head() {
                return Err(ClientError::Gone);
            }
            return Ok(Step::reply(Reply::new(failure.reason)));
        }
    }
}

/// Waits for `work`, unless a deadline passes first.
async fn until_due<F: Future>(
    mut work: Pin<&mut F>,
    watch: &Watch,
    timer: &Timer,
) -> Result<F::Output, Reason> {
    if let Poll::Ready(done) = poll!(work.as_mut()) {
        return Ok(done);
    }
    // Work that always finds bytes uses up the task's budget, of which the timer needs none.
    let mut due = pin!(unconstrained(watch.expired(timer)));
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Ok(done));
        }
        due.as_mut().poll(cx).map(Err)
    })
    .await
}

/// What a fault on the client's side becomes.
fn client_fault(
    ctx: &mut Context<'_>,
    responder: &Responder<'_>,
    error: ClientError,
) -> Result<Step, ClientError> {
    ctx.reason = match error {
        ClientError::Gone => Reason::ClientAborted,
        ClientError::Malformed(_) => Reason::BadRequest,
        ClientError::TooLarge => Reason::BodyTooLarge,
        ClientError::Unsendable => Reason::UpstreamProtocol,
    };
    match error {
        ClientError::Malformed(_) | ClientError::TooLarge if !responder.has_head() => {
            Ok(Step::reply(Reply::new(ctx.reason)))
        }
        error => Err(error),
    }
}

/// Gives an answer of our own, to a client that takes it.
async fn answer(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &Request,
    responder: &mut Responder<'_>,
    reply: Reply,
) -> Result<(), ClientError> {
    ctx.reason = reply.reason;
    let is_meant = matches!(reply.reason, Reason::DirectResponse | Reason::CorsPreflight);
    let is_grpc = request.is_grpc() && !is_meant;
    let reply = if is_grpc { reply.into_grpc() } else { reply };
    send_reply(
        worker,
        responder,
        reply,
        request.method == http::Method::HEAD,
        ctx,
    )
    .await
}

async fn send_reply(
    worker: &Worker,
    responder: &mut Responder<'_>,
    reply: Reply,
    is_head_request: bool,
    ctx: &mut Context<'_>,
) -> Result<(), ClientError> {
    let (mut response, body) = reply.into_parts(is_head_request);
    phase::filter::on_response(ctx, &mut response);
    stamp(&mut response.headers, &worker.date());
    ctx.status = Some(response.status);
    responder.head(&mut response)?;
    let sending = async {
        if response.body != BodyLength::None && !body.is_empty() {
            responder.frame(Frame::Data(body)).await?;
        }
        responder.frame(Frame::End).await
    };
    taken_in_time(worker, sending).await
}

/// A write to the client outside of any attempt.
async fn taken_in_time(
    worker: &Worker,
    write: impl Future<Output = Result<(), ClientError>>,
) -> Result<(), ClientError> {
    timeout(worker.settings.write_idle, write)
        .await
        .unwrap_or(Err(ClientError::Gone))
}

/// Refuses a request that could not even be read as one.
pub(crate) async fn refuse(
    worker: &Worker,
    responder: &mut Responder<'_>,
    reply: Reply,
) -> Result<(), ClientError> {
    let (mut response, body): (Response, Bytes) = reply.into_parts(false);
    stamp(&mut response.headers, &worker.date());
    responder.close_after();
    responder.head(&mut response)?;
    let sending = async {
        responder.frame(Frame::Data(body)).await?;
        responder.frame(Frame::End).await
    };
    let sent = taken_in_time(worker, sending).await;
    if sent.is_err() {
        responder.abort();
    }
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_on_the_line_is_caught_and_nothing_else_is_touched() {
        assert_eq!(caught(async { 7 }).now_or_never(), Some(Some(7)));
        let panics = async {
            assert!(std::hint::black_box(false), "on purpose");
        };
        assert_eq!(caught(panics).now_or_never(), Some(None));
    }
}
