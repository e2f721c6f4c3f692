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
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, poll};
use http::{HeaderMap, StatusCode, header};
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use dataplane_config::Rule;
use dataplane_telemetry::Reason;
use dataplane_wasm::Direction;

use crate::arrival::Arrival;
use crate::context::Context;
use crate::deadline::{Client, Timer, Watch};
use crate::downstream::{ClientError, RequestBody, Responder, stamp};
use crate::exchange::{Again, Failure};
use crate::h1::{BodyLength, Frame};
use crate::io::Duplex;
use crate::message::{GrpcForm, Request, Response};
use crate::mirror;
use crate::phase::plugin::Place;
use crate::phase::rate::{Said, Stage};
use crate::phase::{self, Step, filter::Level, log::Carried, retry::Failed};
use crate::reply::Reply;
use crate::retry_policy::Chance;
use crate::worker::Worker;

mod ai;
mod attempt;
mod filters;

use attempt::{Attempted, Fault, attempt, or_gone};

/// Serves one request to its end, and says how it ended.
pub(crate) async fn handle(
    worker: &Rc<Worker>,
    arrival: &Arrival,
    timer: &Timer,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
) -> Reason {
    let config = worker.config();
    let mut ctx = Context::new(&config, arrival);
    let ended = {
        let request = &mut *request;
        let line = run(worker, arrival, timer, &mut ctx, request, body, responder);
        // Pinned here, so that it is not moved again: it is the largest part of a request's state.
        caught(pin!(line)).await
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            worker.metrics.process.request_panicked();
            ctx.reason = Reason::Internal;
            // It may have been in the middle of one.
            ctx.plugins = None;
            responder.close_after();
            match responder.has_head() {
                true => Err(ClientError::Gone),
                false => Ok(Step::reply(Reply::new(Reason::Internal))),
            }
        }
    };
    let answered = match ended {
        Ok(Step::Continue) => Ok(()),
        // Boxed, because most requests are answered by somebody else.
        Ok(Step::Reply(reply)) => {
            Box::pin(answer(worker, &mut ctx, request, responder, *reply)).await
        }
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
    if ctx.rule.is_none() {
        // Those that never came as far as a rule.
        phase::trace::begin(&mut ctx, request, worker);
    }
    phase::plugin::ended(&ctx, request, carried.received, carried.sent);
    phase::log::record(&mut ctx, request, arrival, carried, worker);
    ctx.reason
}

/// A panic on the line is a fault of ours: it costs this request and its connection, not the worker.
///
/// `None` after a panic; where it happened is told by the hook of the process.
async fn caught<T>(line: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let ended = AssertUnwindSafe(line).catch_unwind().await;
    if ended.is_err() {
        tracing::error!("a request panicked, its connection ends; please report the backtrace");
    }
    ended.ok()
}

/// Who asks, and for which path; a refusal ends the connection.
fn introduced(
    worker: &Worker,
    arrival: &Arrival,
    ctx: &mut Context<'_>,
    request: &mut Request,
) -> Step {
    if arrival.tls.is_some()
        && let Step::Reply(reply) = phase::route::admission(ctx, arrival)
    {
        return Step::Reply(reply);
    }
    phase::client::identify(ctx, request, arrival, worker);
    phase::path::normalise(ctx, request, arrival)
}

/// Which rule takes the request, and whether its trace is recorded.
fn ruled(worker: &Worker, ctx: &mut Context<'_>, request: &mut Request) -> Step {
    let found = phase::route::rule(ctx, request);
    phase::trace::begin(ctx, request, worker);
    found
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
    if let Step::Reply(reply) = phase::route::listener(ctx, request, arrival) {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = introduced(worker, arrival, ctx, request) {
        responder.close_after();
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) =
        filters::plugged(worker, arrival, ctx, request, Place::Listener).await
    {
        return Ok(Step::Reply(reply));
    }
    let found = ruled(worker, ctx, request);
    // Those that no route takes count too.
    if let Step::Reply(reply) = rated(worker, ctx, request, responder, Stage::Entry).await? {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = found {
        return Ok(Step::Reply(reply));
    }
    let _places = match phase::limit::enter(worker, ctx) {
        Ok(places) => places,
        Err(reply) => return Ok(Step::Reply(reply)),
    };
    let Some(rule) = ctx.rule else {
        return Ok(Step::reply(Reply::new(Reason::Internal)));
    };
    let admitted = phase::route::admit(rule, request).and_then(|| phase::hops::count(request));
    if let Step::Reply(reply) = admitted {
        return Ok(Step::Reply(reply));
    }
    if let Some(max) = rule.settings.keepalive_requests_max {
        responder.close_after_requests(max);
    }
    let bytes_max = body_bytes_max(worker, rule);
    body.limit(bytes_max);
    ctx.grpc = request.grpc_form();
    let watch = watch(worker, ctx, rule, request);
    let waiting = Waiting {
        client: responder.connection(),
        watch: &watch,
        timer,
    };
    let streams = (&mut *body, &mut *responder);
    let level = Level::Rule;
    if !filters::are_idle(ctx, level)
        && let Step::Reply(reply) =
            filters::run(worker, arrival, ctx, request, streams, &waiting, level).await?
    {
        return Ok(Step::Reply(reply));
    }
    phase::trace::note(ctx, "filtered", String::new);
    if let Step::Reply(reply) = phase::upstream::choose(ctx, request) {
        return Ok(Step::Reply(reply));
    }
    let chosen = ctx.backend;
    phase::trace::note(ctx, "backend chosen", || {
        chosen.map_or_else(String::new, |it| it.display.to_string())
    });
    let streams = (&mut *body, &mut *responder);
    let level = Level::Backend;
    if !filters::are_idle(ctx, level)
        && let Step::Reply(reply) =
            filters::run(worker, arrival, ctx, request, streams, &waiting, level).await?
    {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = rated(worker, ctx, request, responder, Stage::Backend).await? {
        return Ok(Step::Reply(reply));
    }
    let _place = match phase::upstream::enter(ctx, worker.settings.upstream_limits) {
        Ok(place) => place,
        Err(reply) => return Ok(Step::Reply(reply)),
    };
    if let (BodyLength::Length(length), Some(max)) = (request.body, bytes_max)
        && length > max
    {
        return Ok(Step::reply(Reply::new(Reason::BodyTooLarge)));
    }
    if ctx.plugins.is_some() {
        shown(ctx, request, body);
    }
    if !ctx.mirrors.is_empty() {
        mirrored(worker, ctx, rule, request, body);
    }
    if let Some(ai) = ctx.cluster.and_then(|cluster| cluster.ai.as_deref()) {
        phase::trace::tell(ctx, request);
        let call = ai::serve(worker, ctx, request, (body, responder), &waiting, ai);
        return Box::pin(call).await;
    }
    phase::retry::begin(ctx, &worker.settings);
    if rule.settings.request_buffering || rule.settings.retry.is_some() {
        let keeping = keep_body(worker, ctx, rule, request, body, responder, &waiting);
        if let Step::Reply(reply) = Box::pin(keeping).await? {
            return Ok(Step::Reply(reply));
        }
    }
    attempts(worker, ctx, request, body, responder, &waiting).await
}

/// The largest body of a request: the rule's limit, else that of the process.
fn body_bytes_max(worker: &Worker, rule: &Rule) -> Option<u64> {
    let own = rule.settings.request_body_bytes_max;
    own.or(worker.settings.request_body_bytes_max)
}

/// Plugins keep the head as it is by now, and the body goes through those that want it.
fn shown(ctx: &Context<'_>, request: &Request, body: &mut RequestBody<'_>) {
    phase::plugin::request_sent(ctx, request);
    if let Some(plugins) = ctx.plugins.as_deref()
        && let Some(line) = plugins.body(Direction::Request)
        && !request.body.is_empty()
    {
        body.go_through(line);
    }
}

/// The copies that filters asked for set out.
fn mirrored(
    worker: &Rc<Worker>,
    ctx: &mut Context<'_>,
    rule: &Rule,
    request: &Request,
    body: &mut RequestBody<'_>,
) {
    let copies = std::mem::take(&mut ctx.mirrors);
    mirror::start(worker, copies, request.body, body, &rule.metrics);
}

/// Asks the lists of addresses and the limits of rate, and waits where one says so.
async fn rated(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &Request,
    responder: &mut Responder<'_>,
    stage: Stage,
) -> Result<Step, ClientError> {
    let admitted = match stage {
        Stage::Entry => phase::access::entry(ctx),
        Stage::Backend => phase::access::backend(ctx),
    };
    if let Step::Reply(reply) = admitted {
        return Ok(Step::Reply(reply));
    }
    loop {
        match phase::rate::take(ctx, request, stage, &worker.settings) {
            Said::Pass => return Ok(Step::Continue),
            Said::Refuse(reply) => return Ok(Step::Reply(reply)),
            Said::Wait(pause, _place) => {
                // Boxed, because most requests wait for nothing and shall not carry the room for it.
                let mut waiting = Box::pin(sleep(pause).map(Ok));
                if or_gone(waiting.as_mut(), responder).await.is_err() {
                    ctx.reason = Reason::ClientAborted;
                    return Err(ClientError::Gone);
                }
            }
        }
    }
}

/// The deadlines of a request: the route's, and what a gRPC call says about itself.
fn watch(worker: &Worker, ctx: &Context<'_>, rule: &Rule, request: &Request) -> Watch {
    let call = call_timeout(ctx, request);
    let limit = match (rule.settings.request_timeout, call) {
        (Some(rule), Some(call)) => Some(rule.min(call)),
        (rule, call) => rule.or(call),
    };
    let due = limit.and_then(|limit| ctx.started.checked_add(limit));
    let is_told = rule.settings.has_timeouts || call.is_some();
    let now = match ctx.queued {
        Duration::ZERO => Instant::from_std(ctx.started),
        _ => Instant::now(),
    };
    Watch::new(&worker.settings, now, due.map(Instant::from_std), is_told)
}

/// How long the caller waits, where that is a call over gRPC.
fn call_timeout(ctx: &Context<'_>, request: &Request) -> Option<Duration> {
    ctx.grpc.and_then(|_| request.grpc_timeout())
}

/// What a request waits under: its deadlines, and a client that may go.
struct Waiting<'a> {
    /// Where the client's going shows, when its connection serves this request alone.
    client: Option<&'a Duplex>,
    watch: &'a Watch,
    timer: &'a Timer,
}

impl Waiting<'_> {
    /// Waits for `work`, unless a deadline passes first or the client resets its connection. The
    /// clock is read whenever `work` gets a turn.
    async fn until_due<F: Future>(&self, mut work: Pin<&mut F>) -> Result<F::Output, Reason> {
        self.watch.tick();
        if let Poll::Ready(done) = poll!(work.as_mut()) {
            return Ok(done);
        }
        let client = || self.client.map_or(Client::Waits, client);
        // Work that always finds bytes uses up the task's budget, of which the timer needs none.
        let mut due = pin!(unconstrained(self.watch.expired(self.timer, client)));
        // Just now; whatever wakes it wakes this task.
        let mut had_turn = true;
        poll_fn(|cx| {
            if !std::mem::take(&mut had_turn) {
                self.watch.tick();
                if let Poll::Ready(done) = work.as_mut().poll(cx) {
                    return Poll::Ready(Ok(done));
                }
            }
            due.as_mut().poll(cx).map(Err)
        })
        .await
    }
}

/// What the client's connection shows of it.
fn client(io: &Duplex) -> Client {
    if io.is_reset() {
        Client::Gone
    } else if io.has_ended() {
        Client::Ended
    } else {
        Client::Waits
    }
}

/// Prepares the body for what the route wants of it: to be sent again, or to be read first.
async fn keep_body(
    worker: &Worker,
    ctx: &mut Context<'_>,
    rule: &Rule,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    waiting: &Waiting<'_>,
) -> Result<Step, ClientError> {
    let bytes = rule
        .settings
        .request_body_buffer_bytes
        .map_or(worker.settings.request_body_buffer_bytes, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
    if rule.settings.retry.is_some() {
        body.keep(bytes);
    }
    if !rule.settings.request_buffering || body.is_done() {
        return Ok(Step::Continue);
    }
    if request.headers.remove(header::EXPECT).is_some() {
        responder
            .interim(StatusCode::CONTINUE, &HeaderMap::new())
            .await?;
    }
    waiting.watch.tick();
    waiting.watch.await_client_body(true);
    let read = {
        let reading = body.read_ahead(bytes, || waiting.watch.await_client_body(true));
        waiting.until_due(pin!(reading)).await
    };
    waiting.watch.await_client_body(false);
    match read {
        Ok(Ok(_)) => Ok(Step::Continue),
        Ok(Err(error)) => client_fault(ctx, responder, error),
        Err(reason) => given_up(ctx, responder, reason),
    }
}

/// One attempt after another, until one succeeds or no further one is allowed.
async fn attempts(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    waiting: &Waiting<'_>,
) -> Result<Step, ClientError> {
    let watch = waiting.watch;
    loop {
        if let Step::Reply(reply) = phase::health::enter(ctx) {
            return Ok(Step::Reply(reply));
        }
        if let Step::Reply(reply) = phase::upstream::pick(ctx) {
            return Ok(Step::Reply(reply));
        }
        phase::trace::begin_attempt(ctx, &mut request.headers, worker);
        let ended = {
            let attempt = pin!(attempt(worker, ctx, request, body, responder, watch));
            waiting.until_due(attempt).await
        };
        phase::trace::end_attempt(ctx, failure_of(&ended));
        let (fault, was_reused) = match ended {
            Ok(done) => match done.result {
                Ok(()) => {
                    phase::health::succeeded(ctx);
                    return Ok(Step::Continue);
                }
                Err(fault) => (fault, done.was_reused),
            },
            Err(reason) => {
                let limit = limit_of(ctx, request, reason);
                phase::health::timed_out(ctx, watch.awaited_upstream(), limit);
                (Fault::Upstream(timed_out(ctx, reason)), false)
            }
        };
        let pause = match fault {
            Fault::Client(error) => {
                phase::health::judge(ctx);
                return client_fault(ctx, responder, error);
            }
            Fault::Unwanted(pause) => pause,
            Fault::Upstream(failure) => {
                phase::health::failed(ctx, failure, was_reused);
                let failed = Failed {
                    failure,
                    was_reused,
                    body_started: body.is_started(),
                    head_sent: responder.has_head(),
                };
                let chance = Chance {
                    due: watch.due(),
                    random: worker.random(),
                };
                let settings = &worker.settings;
                let pause =
                    phase::retry::after_failure(ctx, &request.method, failed, chance, settings);
                let Some(pause) = pause else {
                    return given_up(ctx, responder, failure.reason);
                };
                pause
            }
        };
        body.rewind();
        watch.start_attempt(None);
        if !pause.is_zero()
            && let Err(reason) = Box::pin(rest(pause, responder, waiting)).await
        {
            return given_up(ctx, responder, reason);
        }
    }
}

/// Why an attempt failed; a response that is thrown away is none.
fn failure_of(ended: &Result<Attempted, Reason>) -> Option<Reason> {
    match ended {
        Ok(done) => match &done.result {
            Ok(()) | Err(Fault::Unwanted(_)) => None,
            Err(Fault::Client(_)) => Some(Reason::ClientAborted),
            Err(Fault::Upstream(failure)) => Some(failure.reason),
        },
        Err(reason) => Some(*reason),
    }
}

/// The pause between two attempts, unless the request ends first.
async fn rest(
    pause: Duration,
    responder: &mut Responder<'_>,
    waiting: &Waiting<'_>,
) -> Result<(), Reason> {
    let resting = pin!(sleep(pause).map(Ok));
    let resting = pin!(or_gone(resting, responder));
    let rested = waiting.until_due(resting).await?;
    rested.map_err(|_| Reason::ClientAborted)
}

/// The time that the operator gave for what did not come in time; `None` when it was the client who
/// said how long to wait, or who was waited for.
fn limit_of(ctx: &Context<'_>, request: &Request, reason: Reason) -> Option<Duration> {
    let rule = ctx.rule?;
    match reason {
        // Without a limit for the attempt, all of the time went to waiting for the response.
        Reason::UpstreamTimeout => Some(rule.settings.backend_request_timeout.unwrap_or_default()),
        Reason::RequestTimeout => rule
            .settings
            .request_timeout
            .filter(|limit| call_timeout(ctx, request).is_none_or(|call| *limit <= call)),
        _ => None,
    }
}

/// What a deadline that passed says about its attempt.
fn timed_out(ctx: &Context<'_>, reason: Reason) -> Failure {
    let again = match reason {
        Reason::UpstreamTimeout if ctx.request_sent => Again::IfIdempotent,
        Reason::UpstreamTimeout => Again::Safe,
        // The client's own time, or all there was, is up.
        _ => Again::Never,
    };
    Failure { reason, again }
}

/// Ends a request that no attempt could serve.
fn given_up(
    ctx: &mut Context<'_>,
    responder: &Responder<'_>,
    reason: Reason,
) -> Result<Step, ClientError> {
    ctx.reason = reason;
    if responder.has_head() || reason == Reason::ClientAborted {
        return Err(ClientError::Gone);
    }
    Ok(Step::reply(Reply::new(reason)))
}

/// What a fault on the client's side becomes.
fn client_fault(
    ctx: &mut Context<'_>,
    responder: &mut Responder<'_>,
    error: ClientError,
) -> Result<Step, ClientError> {
    ctx.reason = match error {
        ClientError::Gone => Reason::ClientAborted,
        ClientError::Malformed(_) => Reason::BadRequest,
        ClientError::TooLarge => Reason::BodyTooLarge,
        ClientError::Unsendable => Reason::UpstreamProtocol,
        ClientError::Answered(ref reply) => reply.reason,
    };
    match error {
        ClientError::Malformed(_) | ClientError::TooLarge if !responder.has_head() => {
            // Where the next request would begin is not known.
            responder.close_after();
            Ok(Step::reply(Reply::new(ctx.reason)))
        }
        ClientError::Answered(reply) if !responder.has_head() => Ok(Step::Reply(reply)),
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
    let reply = reply.after_overload(worker.settings.overload_retry_after);
    let is_head = request.method == http::Method::HEAD;
    let (mut response, mut body) = told(ctx, request, reply).into_parts(is_head);
    if ctx.plugins.is_some() {
        let showing = phase::plugin::on_whole_response(ctx, request, &mut response, &mut body);
        // Boxed, because most requests meet no plugin.
        match Box::pin(showing).await {
            Ok(()) => {}
            Err(ClientError::Answered(other)) => {
                ctx.reason = other.reason;
                (response, body) = told(ctx, request, *other).into_parts(is_head);
            }
            Err(error) => return Err(error),
        }
    }
    phase::filter::on_response(ctx, &mut response);
    phase::rate::stamp(ctx, &mut response.headers);
    let now = Instant::now().into_std();
    stamp(&mut response.headers, &worker.date(now));
    ctx.status = Some(response.status);
    phase::plugin::response_sent(ctx, &response);
    let grpc_status = GrpcForm::status(request.grpc_form(), &response.headers);
    responder.head(&mut response)?;
    ctx.grpc_status = grpc_status;
    let sending = async {
        if response.body != BodyLength::None && !body.is_empty() {
            responder.frame(Frame::Data(body)).await?;
        }
        responder.frame(Frame::End).await
    };
    taken_in_time(worker, sending).await
}

/// An answer as this client understands it.
fn told(ctx: &Context<'_>, request: &Request, reply: Reply) -> Reply {
    let is_meant = matches!(
        reply.reason,
        Reason::DirectResponse | Reason::CorsPreflight | Reason::PluginReply
    );
    match request.is_grpc() && !is_meant {
        true => reply.into_grpc(),
        false => phase::ai::in_format(ctx, request, reply),
    }
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
    arrival: &Arrival,
    responder: &mut Responder<'_>,
    reply: Reply,
) -> Result<(), ClientError> {
    let (reason, status) = (reply.reason, reply.status);
    let reply = reply.after_overload(worker.settings.overload_retry_after);
    let (mut response, body): (Response, Bytes) = reply.into_parts(false);
    let now = Instant::now().into_std();
    stamp(&mut response.headers, &worker.date(now));
    responder.close_after();
    let sent = match responder.head(&mut response) {
        Ok(()) => {
            let sending = async {
                responder.frame(Frame::Data(body)).await?;
                responder.frame(Frame::End).await
            };
            taken_in_time(worker, sending).await
        }
        Err(error) => Err(error),
    };
    if sent.is_err() {
        responder.abort();
    }
    let status = sent.is_ok().then_some(status);
    phase::log::refused(
        worker,
        arrival,
        responder.version(),
        reason,
        status,
        responder.bytes(),
    );
    sent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_on_the_line_is_caught_and_nothing_else_is_touched() {
        assert_eq!(caught(pin!(async { 7 })).now_or_never(), Some(Some(7)));
        let panics = pin!(async {
            assert!(std::hint::black_box(false), "on purpose");
        });
        assert_eq!(caught(panics).now_or_never(), Some(None));
    }
}
