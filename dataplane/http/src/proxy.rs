//! THE REQUEST LINE: the phases of a request in their order, and nothing else.
//!
//! [`handle`] is called by `connection` for each request. It alone decides order and early exits;
//! phases compute, `exchange` talks to the endpoint, `reply` makes our own answers. Every request
//! ends in the log phase, whatever happened.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use futures_util::poll;
use http::{HeaderMap, StatusCode, header};
use tokio::task::unconstrained;
use tokio::time::timeout;

use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;

use crate::arrival::Arrival;
use crate::context::Context;
use crate::deadline::{Timer, Wait, Watch};
use crate::downstream::{ClientError, RequestBody, Responder, stamp};
use crate::exchange::{Again, Channel, Failure, Head, Outgoing, Peer, Receiver, Sender};
use crate::h1::{BodyLength, Frame};
use crate::message::{Request, Response};
use crate::phase::{self, Step, log::Carried, retry::Failed};
use crate::reply::Reply;
use crate::tunnel;
use crate::worker::Worker;

/// Interim responses (1xx) that are passed on for one request.
const INTERIM_MAX: usize = 32;

/// Serves one request to its end, and says how it ended.
pub(crate) async fn handle(
    worker: &Worker,
    arrival: &Arrival,
    timer: &Timer,
    mut request: Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
) -> Reason {
    let config = worker.config();
    let mut ctx = Context::new(&config);
    let ended = run(
        worker,
        arrival,
        timer,
        &mut ctx,
        &mut request,
        body,
        responder,
    )
    .await;
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

/// The line itself. `Continue` means that the backend's response went out whole.
async fn run(
    worker: &Worker,
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
    if let Step::Reply(reply) = phase::filter::on_request(ctx, request, arrival) {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = phase::upstream::choose(ctx) {
        return Ok(Step::Reply(reply));
    }
    if let Step::Reply(reply) = phase::filter::on_backend_request(ctx, request, arrival) {
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

/// How an attempt ended, and whether on a kept connection.
struct Attempted {
    result: Result<(), Fault>,
    was_reused: bool,
}

/// Whose side broke.
enum Fault {
    Client(ClientError),
    Upstream(Failure),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

/// One attempt at the endpoint in the context.
async fn attempt(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Attempted {
    let (Some(endpoint), Some(cluster)) = (ctx.endpoint.clone(), ctx.cluster) else {
        let failure = Failure {
            reason: Reason::NoEndpoint,
            again: Again::Never,
        };
        return Attempted {
            result: Err(failure.into()),
            was_reused: false,
        };
    };
    let rule_timeout = ctx.rule.and_then(|rule| rule.connect_timeout);
    let peer = Peer {
        address: endpoint.address(),
        key: endpoint.id(),
        protocol: match ctx.rule.map(|rule| rule.kind) {
            Some(RouteKind::Grpc) => cluster.cluster.grpc_protocol(),
            _ => cluster.cluster.protocol(),
        },
        connect_timeout: rule_timeout.unwrap_or_else(|| {
            let limit = worker.settings.connect_timeout;
            cluster.cluster.connect_timeout().min(limit)
        }),
    };
    watch.await_upstream(Wait::ResponseStart);
    let opening = Channel::open(&worker.pool, &peer, &worker.settings);
    let mut channel = match or_gone(opening, responder).await {
        Ok(channel) => channel,
        Err(fault) => {
            if let Fault::Upstream(failure) = &fault {
                cluster.metrics.connection_failed(failure.reason);
            }
            return Attempted {
                result: Err(fault),
                was_reused: false,
            };
        }
    };
    let was_reused = channel.is_reused;
    ctx.connect_time = channel.connect_time;
    let _active = endpoint.load().request_started();
    let result = converse(worker, ctx, request, body, responder, watch, &mut channel).await;
    let result = result.map(|is_reusable| {
        if is_reusable {
            channel.keep(&worker.pool, &peer, &worker.settings);
        }
    });
    Attempted { result, was_reused }
}

/// Request out, response back; true when the connection may serve another request.
async fn converse(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
    channel: &mut Channel,
) -> Result<bool, Fault> {
    let outgoing = Outgoing {
        method: &request.method,
        authority: &request.authority,
        target: &request.target,
        headers: &request.headers,
        body: request.body,
        websocket: request.wants_websocket,
        takes_trailers: request.takes_trailers,
    };
    if channel.hides_interim() && request.headers.contains_key(header::EXPECT) {
        // The endpoint's own 100 would not arrive, and the client may wait for it for long.
        responder
            .interim(StatusCode::CONTINUE, &HeaderMap::new())
            .await?;
    }
    let (sender, mut receiver) = channel.send(&outgoing, &worker.settings)?;
    let protocol_fault = Failure {
        reason: Reason::UpstreamProtocol,
        again: Again::Never,
    };
    watch.await_upstream(Wait::ResponseStart);
    let switched = {
        let mut interims = 0;
        let sending = pin!(upload(&mut *body, sender, watch));
        let mut upload = Upload::new(sending);
        let response = loop {
            match upload.beside(or_gone(receiver.head(), responder)).await?? {
                Head::Interim(status, headers) if interims < INTERIM_MAX => {
                    interims += 1;
                    responder.interim(status, &headers).await?;
                }
                Head::Switched(response) if request.wants_websocket => break Err(response),
                Head::Interim(..) | Head::Switched(_) => return Err(protocol_fault.into()),
                Head::Final(response) => break Ok(response),
            }
        };
        match response {
            Err(response) => response,
            Ok(mut response) => {
                begin_response(worker, ctx, &mut response, responder)?;
                upload
                    .beside(download(&mut receiver, responder, watch))
                    .await??;
                return Ok(upload.is_done() && receiver.is_reusable());
            }
        }
    };
    switch(ctx, switched, body, responder, &mut receiver, watch).await?;
    Ok(false)
}

/// Filters on the way back, then the head goes out.
fn begin_response(
    worker: &Worker,
    ctx: &mut Context<'_>,
    response: &mut Response,
    responder: &mut Responder<'_>,
) -> Result<(), ClientError> {
    phase::filter::on_response(ctx, response);
    stamp(&mut response.headers, &worker.date());
    ctx.status = Some(response.status);
    responder.head(response)
}

/// Carries an upgraded connection to its end.
async fn switch(
    ctx: &mut Context<'_>,
    mut response: Response,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    receiver: &mut Receiver<'_>,
    watch: &Watch,
) -> Result<(), Fault> {
    phase::filter::on_response(ctx, &mut response);
    ctx.status = Some(response.status);
    responder.close_after();
    responder.head(&mut response)?;
    responder.flush().await?;
    watch.switched();
    let rest = receiver.take_rest();
    let (Some((client, client_buf)), Some(upstream)) = (body.raw(), receiver.raw()) else {
        return Err(ClientError::Gone.into());
    };
    let mut carried = tunnel::Carried::default();
    let ended = tunnel::run(client, client_buf, upstream, rest, watch, &mut carried).await;
    body.add_bytes(carried.from_client);
    responder.add_bytes(carried.to_client);
    ended.map_err(|_| ClientError::Gone.into())
}

/// The client's body to the endpoint.
async fn upload(
    body: &mut RequestBody<'_>,
    mut sender: Sender<'_>,
    watch: &Watch,
) -> Result<Uploaded, ClientError> {
    loop {
        let frame = {
            let mut next = pin!(body.frame());
            match poll!(next.as_mut()) {
                Poll::Ready(frame) => frame?,
                Poll::Pending => {
                    // What was gathered must not wait for a client that is slow.
                    if sender.flush().await.is_err() {
                        return Ok(Uploaded::Refused);
                    }
                    watch.await_client_body(true);
                    let frame = next.await?;
                    watch.await_client_body(false);
                    frame
                }
            }
        };
        let ends = matches!(frame, Frame::End);
        let sent = {
            let mut sending = pin!(sender.frame(frame));
            match poll!(sending.as_mut()) {
                Poll::Ready(sent) => sent,
                Poll::Pending => {
                    let sent = sending.await;
                    watch.upload_moved();
                    sent
                }
            }
        };
        if sent.is_err() {
            return Ok(Uploaded::Refused);
        }
        if ends {
            return Ok(Uploaded::Whole);
        }
    }
}

/// The endpoint's body to the client.
async fn download(
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<(), Fault> {
    watch.await_upstream(Wait::ResponseBody);
    loop {
        let frame = {
            let mut next = pin!(receiver.frame());
            match poll!(next.as_mut()) {
                Poll::Ready(frame) => frame?,
                Poll::Pending => {
                    // What was gathered must not wait for an endpoint that is slow.
                    taken(responder.flush(), watch).await?;
                    watch.await_upstream(Wait::ResponseBody);
                    or_gone(next, responder).await?
                }
            }
        };
        let ends = matches!(frame, Frame::End);
        if ends {
            watch.upstream_done();
        }
        taken(responder.frame(frame), watch).await?;
        if ends {
            return Ok(());
        }
    }
}

/// A write to the client, with the time it takes held against the client.
async fn taken<T>(write: impl Future<Output = T>, watch: &Watch) -> T {
    let mut write = pin!(write);
    if let Poll::Ready(done) = poll!(write.as_mut()) {
        return done;
    }
    watch.await_client_write(true);
    let done = write.await;
    watch.await_client_write(false);
    done
}

/// How sending the body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Uploaded {
    /// All of it was sent.
    Whole,
    /// The endpoint took no more; its answer may still come.
    Refused,
}

/// The upload, polled beside whatever else is waited for.
struct Upload<'a, F> {
    future: Pin<&'a mut F>,
    result: Option<Uploaded>,
}

impl<'a, F: Future<Output = Result<Uploaded, ClientError>>> Upload<'a, F> {
    fn new(future: Pin<&'a mut F>) -> Self {
        Self {
            future,
            result: None,
        }
    }

    fn is_done(&self) -> bool {
        self.result == Some(Uploaded::Whole)
    }

    /// Waits for `main` and moves the upload along; a fault of the client ends both.
    async fn beside<M: Future>(&mut self, main: M) -> Result<M::Output, ClientError> {
        let mut main = pin!(main);
        poll_fn(|cx| {
            if self.result.is_none()
                && let Poll::Ready(ended) = self.future.as_mut().poll(cx)
            {
                self.result = Some(ended?);
            }
            main.as_mut().poll(cx).map(Ok)
        })
        .await
    }
}

/// Waits for the endpoint, unless the client gives up first.
async fn or_gone<T>(
    head: impl Future<Output = Result<T, Failure>>,
    responder: &mut Responder<'_>,
) -> Result<T, Fault> {
    let mut head = pin!(head);
    let mut gone = pin!(responder.client_gone());
    poll_fn(|cx| {
        if let Poll::Ready(head) = head.as_mut().poll(cx) {
            return Poll::Ready(head.map_err(Fault::from));
        }
        gone.as_mut()
            .poll(cx)
            .map(|()| Err(ClientError::Gone.into()))
    })
    .await
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
    let is_grpc = request.is_grpc() && reply.reason != Reason::DirectResponse;
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
