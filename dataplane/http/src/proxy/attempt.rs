//! One attempt at the endpoint in the context: request out, response back, both at once.
//!
//! Called by the line in `proxy` as often as the retry phase allows. Here are the pumps between
//! client and endpoint and the filters on the way back; whether there is another attempt, and what
//! a failure becomes, is decided in `proxy`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context as Task, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::{BackendMetrics, LifeLimit};
use dataplane_wasm::Direction;

use crate::context::Context;
use crate::deadline::{Wait, Watch};
use crate::downstream::{ClientError, RequestBody, Responder, stamp};
use crate::exchange::{Again, Channel, Failure, Head, Outgoing, Owner, Peer, Receiver, Sender};
use crate::h1::Frame;
use crate::message::{GrpcForm, Request, Response};
use crate::phase;
use crate::plugins::BodyLine;
use crate::reply::Reply;
use crate::retry_policy::{Chance, Policy};
use crate::tunnel;
use crate::worker::Worker;

/// How an attempt ended, and whether on a kept connection.
pub(super) struct Attempted {
    pub(super) result: Result<(), Fault>,
    pub(super) was_reused: bool,
}

impl Attempted {
    /// Nothing was tried, because nothing may be.
    fn failed(reason: Reason) -> Self {
        let failure = Failure {
            reason,
            again: Again::Never,
        };
        Self {
            result: Err(failure.into()),
            was_reused: false,
        }
    }
}

/// Why an attempt is not the last.
pub(super) enum Fault {
    /// The client's side broke.
    Client(ClientError),
    /// The endpoint's side broke.
    Upstream(Failure),
    /// The response was thrown away in favour of another attempt, after this pause.
    Unwanted(Duration),
}

impl From<ClientError> for Fault {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Box<Reply>> for Fault {
    fn from(reply: Box<Reply>) -> Self {
        Self::Client(reply.into())
    }
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        Self::Upstream(failure)
    }
}

/// One attempt at the endpoint in the context.
pub(super) async fn attempt(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Attempted {
    let (Some(endpoint), Some(cluster), Some(rule)) = (ctx.endpoint.clone(), ctx.cluster, ctx.rule)
    else {
        return Attempted::failed(Reason::NoEndpoint);
    };
    let peer = Peer::new(
        &endpoint,
        cluster,
        rule.kind,
        ctx.listener,
        rule.settings.connect_timeout,
        &worker.settings,
    );
    let mut peer = match peer {
        Ok(peer) if request.wants_websocket => peer.for_upgrade(),
        Ok(peer) => peer,
        Err(reason) => return Attempted::failed(reason),
    };
    watch.start_attempt(rule.settings.backend_request_timeout);
    watch.await_upstream(Wait::ResponseStart);
    if ctx.attempts == 1 {
        ctx.routing_us = ctx.micros(watch.now());
    }
    let began = ctx.is_watched().then(Instant::now);
    let owner = Owner::new(cluster, &endpoint);
    let settings = &worker.settings;
    let opened = match kept(worker, ctx, &peer, owner, watch) {
        Some(channel) => Ok(channel),
        None => {
            peer.dialled_within(phase::retry::dial_limit(ctx, settings));
            // Boxed, because most requests dial nobody and shall not carry the room for it.
            let dialling = Box::pin(Channel::dialled(&worker.pool, &peer, owner, settings));
            or_gone(pin!(dialling), responder).await
        }
    };
    let mut channel = match opened {
        Ok(channel) => channel,
        Err(fault) => {
            if let Fault::Upstream(failure) = &fault {
                cluster.metrics.connection_failed(failure.reason);
                let handshake = [Reason::UpstreamTls, Reason::UpstreamCertificate];
                if handshake.contains(&failure.reason) {
                    let took = watch.now().elapsed();
                    worker.metrics.upstream.handshake_failed(took);
                }
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
    ctx.request_sent = true;
    let way = Way {
        worker,
        watch,
        began,
    };
    let result = converse(&way, ctx, request, body, responder, &mut channel).await;
    let result = result.and_then(|done| {
        if done.is_reusable {
            channel.keep(&worker.pool, &peer, owner, &worker.settings, watch.now());
        }
        done.unwanted
            .map_or(Ok(()), |pause| Err(Fault::Unwanted(pause)))
    });
    Attempted { result, was_reused }
}

/// A kept connection to the endpoint, if the attempt may have one.
fn kept(
    worker: &Worker,
    ctx: &Context<'_>,
    peer: &Peer,
    owner: Owner<'_>,
    watch: &Watch,
) -> Option<Channel> {
    let take = || Channel::kept(&worker.pool, peer, owner, &worker.settings, watch.now());
    phase::retry::may_reuse(ctx).then(take).flatten()
}

/// Passes an interim response on; the time it takes is the client's.
async fn pass_on(
    responder: &mut Responder<'_>,
    watch: &Watch,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<(), ClientError> {
    watch.await_client_write(true);
    responder.interim(status, headers).await?;
    watch.await_client_write(false);
    Ok(())
}

/// How an exchange ended in which nothing broke.
struct Conversed {
    /// The connection may serve another request.
    is_reusable: bool,
    /// The response was thrown away; after this pause there is another attempt.
    unwanted: Option<Duration>,
}

/// What an exchange goes by.
struct Way<'a> {
    worker: &'a Worker,
    watch: &'a Watch,
    /// When it began, if anybody wants to know.
    began: Option<Instant>,
}

/// Request out, response back.
async fn converse(
    way: &Way<'_>,
    ctx: &mut Context<'_>,
    request: &mut Request,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    channel: &mut Channel,
) -> Result<Conversed, Fault> {
    let Way { worker, watch, .. } = *way;
    let outgoing = Outgoing {
        method: &request.method,
        authority: &request.authority,
        target: &request.target,
        headers: &request.headers,
        unrecorded: ctx.unrecorded,
        body: request.body,
        websocket: request.wants_websocket,
        takes_trailers: request.takes_trailers,
    };
    // What a new HTTP/1.1 connection loses may have arrived: only a policy sends it again.
    let is_last = ctx.retry.is_none() && channel.is_new_http1();
    let (sender, mut receiver) = channel.send(&outgoing, &worker.settings)?;
    if is_last {
        ctx.forget_large_head(request);
    }
    let protocol_fault = Failure {
        reason: Reason::UpstreamProtocol,
        again: Again::Never,
    };
    watch.await_upstream(Wait::ResponseStart);
    let between = Between::default();
    let switched = {
        let mut interims = 0;
        let interims_max = worker.settings.interim_responses_max;
        let sending = pin!(upload(&mut *body, sender, watch, &between));
        let mut upload = Upload::new(sending);
        let response = loop {
            let head = {
                let head = pin!(unless_gone(responder, |cx| receiver.poll_head(cx)));
                upload.beside(head).await??
            };
            match head {
                Head::Interim(status, headers) if interims < interims_max => {
                    interims += 1;
                    pass_on(responder, watch, status, &headers).await?;
                }
                Head::Switched(response) if request.wants_websocket => break Err(response),
                Head::Interim(..) | Head::Switched(_) => return Err(protocol_fault.into()),
                Head::Final(response) => break Ok(response),
            }
        };
        match response {
            Err(response) => {
                answered(way, ctx, &response);
                response
            }
            Ok(mut response) => {
                answered(way, ctx, &response);
                let unwanted = unwanted(worker, ctx, request, &response, watch, &between);
                if unwanted.is_some() {
                    watch.start_attempt(None);
                    let is_reusable = upload.is_done() && emptied(worker, ctx, &mut receiver).await;
                    return Ok(Conversed {
                        is_reusable,
                        unwanted,
                    });
                }
                if ctx.plugins.is_some() {
                    // Boxed for the same reason as dialling; the watch is off, plugins have their own limits.
                    watch.upstream_done();
                    let showing = phase::plugin::on_response(ctx, request, &mut response);
                    upload.beside(Box::pin(showing).as_mut()).await??;
                }
                between.is_final.set(true);
                begin_response(worker, watch.now(), ctx, &mut response, responder)?;
                ctx.forget_large_head(request);
                {
                    let plugins = ctx.plugins.as_deref();
                    match plugins.and_then(|plugins| plugins.body(Direction::Response)) {
                        None => {
                            let download = pin!(download(ctx, &mut receiver, responder, watch));
                            upload.beside(download).await??;
                        }
                        Some(line) => {
                            let download =
                                download_through(line, ctx, &mut receiver, responder, watch);
                            upload.beside(Box::pin(download).as_mut()).await??;
                        }
                    }
                }
                let is_reusable = upload.is_done() && receiver.is_reusable();
                return Ok(Conversed {
                    is_reusable,
                    unwanted,
                });
            }
        }
    };
    // Boxed for the same reason.
    let receiver = &mut receiver;
    Box::pin(switch(
        worker, ctx, switched, body, responder, receiver, watch,
    ))
    .await?;
    Ok(Conversed {
        is_reusable: false,
        unwanted: None,
    })
}

/// Notes that the endpoint has answered.
fn answered(way: &Way<'_>, ctx: &mut Context<'_>, response: &Response) {
    if let Some(cluster) = ctx.cluster {
        let waited = way.watch.owed_for();
        cluster.metrics.answered(response.status.as_u16(), waited);
    }
    phase::health::answered(ctx, response, way.began);
    phase::trace::answered(ctx, response.status);
}

/// The pause before an attempt that is made instead of passing this response on.
fn unwanted(
    worker: &Worker,
    ctx: &mut Context<'_>,
    request: &Request,
    response: &Response,
    watch: &Watch,
    between: &Between,
) -> Option<Duration> {
    let is_listed = |retry: &Policy<'_>| retry.lists(response.status);
    if !ctx.retry.as_deref().is_some_and(is_listed) {
        return None;
    }
    if between.is_body_gone.get() {
        phase::retry::body_is_gone(ctx);
        return None;
    }
    // Before it is decided whether the cluster bears another attempt.
    phase::health::judge(ctx);
    let chance = Chance {
        due: watch.due(),
        random: worker.random(),
    };
    phase::retry::instead_of(ctx, &request.method, response, chance, &worker.settings)
}

/// [`discard`] for the cluster of the context.
async fn emptied(worker: &Worker, ctx: &Context<'_>, receiver: &mut Receiver<'_>) -> bool {
    let metrics = ctx.cluster.map(|it| &*it.metrics);
    // Boxed, because few need the room.
    Box::pin(discard(receiver, worker, metrics)).await
}

/// Reads a response that nobody wants, as long as that is cheaper than another connection; true when
/// the connection may serve another request. What is too much is counted.
pub(super) async fn discard(
    receiver: &mut Receiver<'_>,
    worker: &Worker,
    metrics: Option<&BackendMetrics>,
) -> bool {
    let settings = &worker.settings;
    let rest = async {
        let mut left = settings.discard_bytes_max;
        loop {
            match receiver.frame().await {
                Ok(Frame::Data(data)) if data.len() <= left => left -= data.len(),
                Ok(Frame::Trailers(_)) => {}
                Ok(Frame::End) => return Some(true),
                Ok(Frame::Data(_)) => return None,
                Err(_) => return Some(false),
            }
        }
    };
    let ended = timeout(settings.discard_time, rest).await.ok().flatten();
    if let (None, Some(metrics)) = (ended, metrics) {
        metrics.not_kept();
    }
    ended == Some(true) && receiver.is_reusable()
}

/// Filters on the way back, then the head goes out.
pub(super) fn begin_response(
    worker: &Worker,
    now: Instant,
    ctx: &mut Context<'_>,
    response: &mut Response,
    responder: &mut Responder<'_>,
) -> Result<(), ClientError> {
    phase::filter::on_response(ctx, response);
    phase::rate::stamp(ctx, &mut response.headers);
    phase::upstream::stamp_session(ctx, &mut response.headers);
    stamp(&mut response.headers, &worker.date(now));
    ctx.first_byte_us = ctx.micros(now);
    ctx.status = Some(response.status);
    phase::plugin::response_sent(ctx, response);
    let grpc_status = GrpcForm::status(ctx.grpc, &response.headers);
    responder.head(response)?;
    ctx.grpc_status = grpc_status;
    Ok(())
}

/// Carries an upgraded connection to its end.
async fn switch(
    worker: &Worker,
    ctx: &mut Context<'_>,
    mut response: Response,
    body: &mut RequestBody<'_>,
    responder: &mut Responder<'_>,
    receiver: &mut Receiver<'_>,
    watch: &Watch,
) -> Result<(), Fault> {
    phase::filter::on_response(ctx, &mut response);
    phase::rate::stamp(ctx, &mut response.headers);
    phase::upstream::stamp_session(ctx, &mut response.headers);
    ctx.first_byte_us = ctx.micros(watch.now());
    ctx.status = Some(response.status);
    responder.close_after();
    phase::plugin::response_sent(ctx, &response);
    responder.head(&mut response)?;
    poll_fn(|cx| responder.poll_flush(cx)).await?;
    watch.switched();
    let rest = receiver.take_rest();
    let (Some((client, client_buf)), Some(upstream)) = (body.raw(), receiver.raw()) else {
        return Err(ClientError::Gone.into());
    };
    let mut carried = tunnel::Carried::default();
    let ends = tunnel::Ends {
        client,
        upstream,
        drain: ctx.drain,
        drain_time: worker.settings.tunnel_drain,
        shutdown_time: worker.settings.shutdown_time,
    };
    let ended = tunnel::run(ends, client_buf, rest, watch, &mut carried).await;
    if carried.is_parted
        && let Some(rule) = ctx.rule
    {
        rule.metrics.connection_ended(LifeLimit::TunnelDrain);
    }
    body.add_bytes(carried.from_client);
    responder.add_bytes(carried.to_client);
    ended.map_err(|_| ClientError::Gone.into())
}

/// What the way out and the way back tell each other.
#[derive(Default)]
struct Between {
    /// A part of the body was sent and not kept.
    is_body_gone: Cell<bool>,
    /// The response goes to the client, so the body is not sent again.
    is_final: Cell<bool>,
}

/// The client's body to the endpoint.
async fn upload(
    body: &mut RequestBody<'_>,
    mut sender: Sender<'_>,
    watch: &Watch,
    between: &Between,
) -> Result<Uploaded, ClientError> {
    between.is_body_gone.set(body.is_started());
    loop {
        if between.is_final.get() {
            body.forget();
        }
        let frame = match poll_now(|cx| body.poll_frame(cx)).await {
            Poll::Ready(frame) => frame?,
            Poll::Pending => {
                // What was gathered must not wait for a client that is slow.
                if poll_fn(|cx| sender.poll_flush(cx)).await.is_err() {
                    return Ok(Uploaded::Refused);
                }
                watch.await_client_body(true);
                let frame = poll_fn(|cx| body.poll_frame(cx)).await?;
                watch.await_client_body(false);
                frame
            }
        };
        between.is_body_gone.set(body.is_started());
        let ends = matches!(frame, Frame::End);
        let mut sent = sender.put(frame);
        if sent.is_ok() {
            sent = match poll_now(|cx| sender.poll_taken(cx)).await {
                Poll::Ready(sent) => sent,
                Poll::Pending => {
                    let sent = poll_fn(|cx| sender.poll_taken(cx)).await;
                    watch.upload_moved();
                    sent
                }
            };
        }
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
    ctx: &mut Context<'_>,
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<(), Fault> {
    watch.await_upstream(Wait::ResponseBody);
    loop {
        let frame = match poll_now(|cx| receiver.poll_frame(cx)).await {
            Poll::Ready(frame) => frame?,
            Poll::Pending => {
                // What was gathered must not wait for an endpoint that is slow.
                taken(responder, watch, Responder::poll_flush).await?;
                watch.await_upstream(Wait::ResponseBody);
                unless_gone(responder, |cx| receiver.poll_frame(cx)).await?
            }
        };
        let ends = passed_on(ctx, frame, responder, watch)?;
        taken(responder, watch, Responder::poll_taken).await?;
        if ends {
            return Ok(());
        }
    }
}

/// The same through plugins, which may hold a part back for as long as their own limits say.
async fn download_through(
    mut line: Box<BodyLine>,
    ctx: &mut Context<'_>,
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<(), Fault> {
    loop {
        watch.await_upstream(Wait::ResponseBody);
        let next =
            |cx: &mut Task<'_>| line.poll(cx, |cx| receiver.poll_frame(cx).map_err(Fault::from));
        let mut next = next;
        let frame = match poll_now(&mut next).await {
            Poll::Ready(frame) => frame?,
            Poll::Pending => {
                taken(responder, watch, Responder::poll_flush).await?;
                poll_fn(|cx| match next(cx) {
                    Poll::Pending => responder
                        .poll_gone(cx)
                        .map(|()| Err(ClientError::Gone.into())),
                    ready => ready,
                })
                .await?
            }
        };
        let ends = passed_on(ctx, frame, responder, watch)?;
        taken(responder, watch, Responder::poll_taken).await?;
        if ends {
            return Ok(());
        }
    }
}

/// Hands a frame of the response over; true for the last. [`taken`] says when there is room for another.
///
/// The code of a call over gRPC is noted behind that: a client that is gone was told none.
fn passed_on(
    ctx: &mut Context<'_>,
    frame: Frame,
    responder: &mut Responder<'_>,
    watch: &Watch,
) -> Result<bool, ClientError> {
    let mut grpc_status = None;
    if let Frame::Trailers(trailers) = &frame {
        phase::health::trailed(ctx, trailers);
        phase::plugin::trailers_sent(ctx, trailers);
        grpc_status = GrpcForm::status(ctx.grpc, trailers);
    }
    let ends = matches!(frame, Frame::End);
    if ends {
        watch.upstream_done();
    }
    responder.put(frame)?;
    if grpc_status.is_some() {
        ctx.grpc_status = grpc_status;
    }
    Ok(ends)
}

/// A write to the client, with the time it takes held against the client.
pub(super) async fn taken<'a>(
    responder: &mut Responder<'a>,
    watch: &Watch,
    poll_write: fn(&mut Responder<'a>, &mut Task<'_>) -> Poll<Result<(), ClientError>>,
) -> Result<(), ClientError> {
    if let Poll::Ready(done) = poll_now(|cx| poll_write(responder, cx)).await {
        return done;
    }
    watch.await_client_write(true);
    let done = poll_fn(|cx| poll_write(responder, cx)).await;
    watch.await_client_write(false);
    done
}

/// Polls once, and says what that gave.
pub(super) fn poll_now<T>(
    mut poll: impl FnMut(&mut Task<'_>) -> Poll<T>,
) -> impl Future<Output = Poll<T>> {
    poll_fn(move |cx| Poll::Ready(poll(cx)))
}

/// How sending the body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Uploaded {
    /// All of it was sent.
    Whole,
    /// The endpoint took no more; its answer may still come.
    Refused,
}

/// The upload, polled beside whatever else is waited for.
pub(super) struct Upload<'a, F> {
    future: Pin<&'a mut F>,
    result: Option<Uploaded>,
}

impl<'a, F: Future<Output = Result<Uploaded, ClientError>>> Upload<'a, F> {
    pub(super) fn new(future: Pin<&'a mut F>) -> Self {
        Self {
            future,
            result: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.result == Some(Uploaded::Whole)
    }

    /// Waits for `main` and moves the upload along; a fault of the client ends both.
    pub(super) fn beside<M: Future>(
        &mut self,
        mut main: Pin<&mut M>,
    ) -> impl Future<Output = Result<M::Output, ClientError>> {
        // Not an async function, here and below: its future would hold `main` twice.
        poll_fn(move |cx| {
            if self.result.is_none()
                && let Poll::Ready(ended) = self.future.as_mut().poll(cx)
            {
                self.result = Some(ended?);
            }
            main.as_mut().poll(cx).map(Ok)
        })
    }
}

/// Waits for the endpoint, unless the client gives up first.
pub(super) fn or_gone<T>(
    mut head: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    responder: &mut Responder<'_>,
) -> impl Future<Output = Result<T, Fault>> {
    unless_gone(responder, move |cx| head.as_mut().poll(cx))
}

/// The same for one that is polled.
pub(super) fn unless_gone<T>(
    responder: &mut Responder<'_>,
    mut poll: impl FnMut(&mut Task<'_>) -> Poll<Result<T, Failure>>,
) -> impl Future<Output = Result<T, Fault>> {
    poll_fn(move |cx| {
        if let Poll::Ready(ended) = poll(cx) {
            return Poll::Ready(ended.map_err(Fault::from));
        }
        let gone = responder.poll_gone(cx);
        gone.map(|()| Err(ClientError::Gone.into()))
    })
}

#[cfg(test)]
mod tests;
