//! One attempt at one provider: its address, the request out, the answer back, whole or in pieces.
//!
//! Called by the line in `proxy::ai` as often as the service allows. Each piece of an answer leaves
//! when it arrives, and none is read while the client does not take the one before. Whether there is
//! another attempt is decided by the line.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header};

use dataplane_ai::call::{Answering, Call};
use dataplane_ai::failure::{Failure, FailureReason};
use dataplane_ai::service::{Service, Target};
use dataplane_config::ClusterTls;
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::{Ask, Cluster, Endpoint, Outcome};

use crate::context::Context;
use crate::deadline::Wait;
use crate::downstream::{ClientError, Responder};
use crate::exchange::{self, Channel, Head, Outgoing, Owner, Peer, Receiver, Sender};
use crate::h1::{BodyLength, Frame};
use crate::message::{Request, Response};
use crate::phase;
use crate::reply::Reply;

use super::super::attempt::{
    Fault, Upload, Uploaded, begin_response, discard, or_gone, poll_now, taken, unless_gone,
};
use super::Line;
use super::prepare::{Asked, At, Prepared, place, prepare, refused, unreachable};
use super::tally::Tally;

/// Interim responses (1xx) that are passed over.
const INTERIM_MAX: usize = 32;
/// Pieces of a whole answer that are handed over at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Questions up to this size are counted by their tokens when nobody else does; of larger ones the
/// count is taken to be a quarter of their bytes.
const COUNTED_BYTES_MAX: usize = 16 * 1024;

/// How an attempt ended.
pub(super) enum Ended {
    /// The answer went out; what went wrong on the way stands in the context.
    Done,
    /// Nothing went to the client.
    Failed(Box<Failed>),
    /// The client's side broke.
    Client(ClientError),
}

/// An attempt of which the client has seen nothing.
pub(super) struct Failed {
    /// What the client is told when there is no other.
    pub(super) reply: Box<Reply>,
    pub(super) again: Again,
    /// How long the provider asks to be left alone.
    pub(super) pause: Option<Duration>,
}

/// Whether another attempt makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// Nobody would answer otherwise.
    Never,
    /// At another provider.
    Elsewhere,
    /// At this one too.
    Here,
    /// At this one, right now: nothing of it has arrived.
    AtOnce,
}

impl From<ClientError> for Ended {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

/// How a provider is reached.
struct Way<'a> {
    cluster: &'a Arc<Cluster>,
    tls: &'a ClusterTls,
    metrics: &'a Arc<BackendMetrics>,
}

/// Asks a provider once; what ends it early stands on the error's side.
#[expect(
    clippy::too_many_arguments,
    reason = "the line, the call, and its two ends"
)]
pub(super) async fn attempt<'c>(
    line: &Line<'_, 'c>,
    target: &'c Target,
    ctx: &mut Context<'c>,
    request: &Request,
    asked: &mut Asked,
    tried: &mut Vec<SocketAddr>,
    responder: &mut Responder<'_>,
    tally: &mut Tally<'c>,
) -> Result<Ended, Ended> {
    let prepared = prepare(line, target, request, asked, tally)?;
    let watch = line.waiting.watch;
    let own = ctx.rule.and_then(|rule| rule.backend_request_timeout);
    watch.start_attempt(line.service.timeout.or(own));
    watch.await_upstream(Wait::ResponseBody);
    let place = place(line, target, ctx, tally).await?;
    let way = match &place {
        At::Cluster(config) => Way {
            cluster: &config.cluster,
            tls: &config.tls,
            metrics: &config.metrics,
        },
        At::Site(reached) => Way {
            cluster: &reached.cluster,
            tls: &reached.tls,
            metrics: &reached.metrics,
        },
    };
    let ask = Ask {
        tried: tried.as_slice(),
        ..Ask::default()
    };
    let Some(endpoint) = way.cluster.pick(&ask, ctx.started) else {
        return Err(unreachable(
            line,
            target,
            tally,
            Reason::NoEndpoint,
            Again::Elsewhere,
        ));
    };
    ctx.endpoint = Some(endpoint.clone());
    ctx.attempts += 1;
    ctx.request_sent = false;
    let asking = Asking {
        line,
        target,
        way: &way,
        endpoint: &endpoint,
    };
    let ended = asking
        .exchange(prepared, ctx, asked, responder, tally)
        .await;
    if let Err(Ended::Failed(failed)) = &ended
        && failed.again != Again::Elsewhere
    {
        tried.push(endpoint.address());
    }
    ended
}

/// An attempt with an address.
struct Asking<'a, 'l, 'c> {
    line: &'a Line<'l, 'c>,
    target: &'c Target,
    way: &'a Way<'a>,
    endpoint: &'a Arc<Endpoint>,
}

impl<'c> Asking<'_, '_, 'c> {
    async fn exchange(
        &self,
        prepared: Prepared,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Ended, Ended> {
        let Line {
            worker, waiting, ..
        } = *self.line;
        let settings = &*worker.settings;
        let peer = Peer::of(
            self.endpoint,
            (self.way.cluster, self.way.tls),
            RouteKind::Http,
            ctx.listener,
            ctx.rule.and_then(|rule| rule.connect_timeout),
            settings,
        )
        .map_err(|reason| self.failed(tally, reason, Again::Elsewhere))?;
        let owner = Owner {
            cluster: self.way.cluster,
            metrics: self.way.metrics,
            load: self.endpoint.load(),
        };
        let now = waiting.watch.now();
        let opened = match Channel::kept(&worker.pool, &peer, owner, settings, now) {
            Some(channel) => Ok(channel),
            None => {
                let dialling = Box::pin(Channel::dialled(&worker.pool, &peer, owner, settings));
                or_gone(pin!(dialling), responder).await
            }
        };
        let mut channel = opened.map_err(|fault| {
            if let Fault::Upstream(failure) = &fault {
                self.way.metrics.connection_failed(failure.reason);
            }
            self.broken(tally, fault, false)
        })?;
        let was_reused = channel.is_reused;
        ctx.connect_time = channel.connect_time;
        let _active = self.endpoint.load().request_started();
        ctx.request_sent = true;
        let is_reusable = self
            .converse(
                prepared,
                &mut channel,
                was_reused,
                ctx,
                asked,
                responder,
                tally,
            )
            .await;
        if let Ok((true, _)) = is_reusable {
            channel.keep(&worker.pool, &peer, owner, settings, waiting.watch.now());
        }
        is_reusable.and_then(|(_, ended)| match ended {
            None => Ok(Ended::Done),
            Some(failed) => Err(failed),
        })
    }

    /// Request out, answer back. Says whether the connection may serve another request, and what
    /// became of the attempt when its answer did not go to the client.
    #[expect(
        clippy::too_many_arguments,
        reason = "the request, the connection, and what becomes of them"
    )]
    async fn converse(
        &self,
        prepared: Prepared,
        channel: &mut Channel,
        was_reused: bool,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<(bool, Option<Ended>), Ended> {
        let Prepared {
            headers,
            authority,
            path,
            body,
            length,
            answering,
            left_behind,
        } = prepared;
        let outgoing = Outgoing {
            method: &Method::POST,
            authority: &authority,
            target: &path,
            headers: &headers,
            body: BodyLength::Length(length),
            websocket: false,
            takes_trailers: false,
        };
        let sent = channel.send(&outgoing, &self.line.worker.settings);
        let (sender, mut receiver) =
            sent.map_err(|failure| self.broken(tally, failure.into(), was_reused))?;
        drop(headers);
        let sending = pin!(upload(sender, body));
        let mut upload = Upload::new(sending);
        let response = {
            let head = pin!(head(&mut receiver, responder));
            upload.beside(head).await?
        };
        let mut response = response.map_err(|fault| self.broken(tally, fault, was_reused))?;
        self.report(&response);
        if answering.is_stream(response.status, &response.headers) {
            self.begin(
                &answering,
                &left_behind,
                &mut response,
                ctx,
                asked,
                responder,
                tally,
            )?;
            let ended = {
                let streaming = pin!(self.stream(&mut receiver, ctx, responder, tally));
                upload.beside(streaming).await?
            };
            ended?;
            let is_reusable = upload.is_done() && Box::pin(discard(&mut receiver)).await;
            return Ok((is_reusable, None));
        }
        let read = {
            let max = self.line.worker.settings.ai_body_bytes_max;
            let reading = pin!(whole(&mut receiver, responder, max));
            upload.beside(reading).await?
        };
        let body = match read {
            Ok(Some(body)) => body,
            Ok(None) => {
                let failure = Failure::bad_answer("the provider's answer is too large");
                return Err(refused(self.line, tally, &failure, Again::Elsewhere));
            }
            Err(fault) => return Err(self.broken(tally, fault, false)),
        };
        let is_reusable = upload.is_done() && receiver.is_reusable();
        let ended = self
            .answer(
                &answering,
                &left_behind,
                response,
                body,
                ctx,
                asked,
                responder,
                tally,
            )
            .await?;
        Ok((is_reusable, ended))
    }

    /// Tells the cluster how its endpoint does.
    fn report(&self, response: &Response) {
        if self.way.cluster.is_watched() {
            let outcome = Outcome::of_status(response.status.as_u16());
            self.told(outcome);
        }
    }

    fn told(&self, outcome: Outcome) {
        let cluster = self.way.cluster;
        if cluster
            .report(self.endpoint, outcome, Instant::now())
            .is_some()
        {
            self.way.metrics.ejected();
        }
    }

    fn failed(&self, tally: &mut Tally<'_>, reason: Reason, again: Again) -> Ended {
        unreachable(self.line, self.target, tally, reason, again)
    }

    /// What a connection that broke before an answer makes of the attempt.
    fn broken(&self, tally: &mut Tally<'_>, fault: Fault, was_reused: bool) -> Ended {
        let failure = match fault {
            Fault::Client(error) => return Ended::Client(error),
            Fault::Unwanted(_) => return self.failed(tally, Reason::Internal, Again::Never),
            Fault::Upstream(failure) => failure,
        };
        let is_race = was_reused && failure.again != exchange::Again::Never;
        if !is_race && self.way.cluster.is_watched() {
            self.told(Outcome::GatewayFailure);
        }
        let again = if is_race { Again::AtOnce } else { Again::Here };
        self.failed(tally, failure.reason, again)
    }

    /// A whole answer: to the client, unless it is one that another attempt may better.
    #[expect(
        clippy::too_many_arguments,
        reason = "the answer, and what becomes of it"
    )]
    async fn answer(
        &self,
        answering: &Answering,
        left_behind: &[String],
        response: Response,
        body: Bytes,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Option<Ended>, Ended> {
        let Line { worker, .. } = *self.line;
        let Response {
            status, headers, ..
        } = response;
        let mut answer = answering.whole(status, &headers, body);
        let mut fields = match answering.is_converted() {
            true => HeaderMap::new(),
            false => phase::ai::fields_to_pass(&headers),
        };
        answering.head(&headers, &mut fields);
        let kind = answering.content_type(false);
        let kind = kind.or_else(|| fields.get(header::CONTENT_TYPE).cloned());
        let json = || HeaderValue::from_static("application/json");
        let is_ours = answer.failure.is_some();
        let kind = kind.filter(|_| !is_ours).unwrap_or_else(json);
        fields.insert(header::CONTENT_TYPE, kind);
        phase::ai::stamp_ignored(left_behind, &mut fields);
        if let Some(failure) = answer.failure.take() {
            tally.failed(failure.reason.as_str());
            let again = match failure.reason {
                FailureReason::Credentials => Again::Elsewhere,
                _ if Service::is_retryable(failure.status) => Again::Here,
                _ => Again::Never,
            };
            let reply = Reply {
                reason: phase::ai::reason_of(&failure),
                status: answer.status,
                headers: fields,
                body: answer.body,
            };
            return Ok(Some(Ended::Failed(Box::new(Failed {
                reply: Box::new(reply),
                again,
                pause: failure.retry_after,
            }))));
        }
        if !answer.usage.is_complete() {
            self.estimate(asked, &mut answer, tally);
        }
        tally.answered(&answer);
        if let (Some(redactor), Some(vault)) = (&self.line.service.redactor, &mut asked.vault) {
            let redacted = redactor.answer(&answer.body, vault);
            tally.redacted(&redacted.counts);
            answer.body = redacted.body;
        }
        asked.call = None;
        tally.stamp(&mut fields);
        let length = answer.body.len() as u64;
        fields.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        let mut response = Response {
            status: answer.status,
            headers: fields,
            body: BodyLength::Length(length),
            declared: BodyLength::Length(length),
        };
        let watch = self.line.waiting.watch;
        watch.upstream_done();
        begin_response(worker, watch.now(), ctx, &mut response, responder)?;
        let mut body = answer.body;
        while !body.is_empty() {
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            put(Frame::Data(piece), responder, watch).await?;
        }
        put(Frame::End, responder, watch).await?;
        Ok(None)
    }

    /// Counts what the provider did not.
    fn estimate(
        &self,
        asked: &Asked,
        answer: &mut dataplane_ai::call::Answer,
        tally: &mut Tally<'_>,
    ) {
        let Some(call) = &asked.call else { return };
        tally.estimates(estimated(call));
        if answer.usage.output.is_none() && answer.body.len() <= COUNTED_BYTES_MAX {
            let text = std::str::from_utf8(&answer.body).unwrap_or_default();
            answer.usage.output = Some(dataplane_ai::token::of_request(call.model(), text));
        }
    }

    /// The head of an answer in pieces goes out; there will be no other attempt.
    #[expect(
        clippy::too_many_arguments,
        reason = "the answer, and what becomes of it"
    )]
    fn begin(
        &self,
        answering: &Answering,
        left_behind: &[String],
        response: &mut Response,
        ctx: &mut Context<'c>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<(), Ended> {
        let provider = std::mem::take(&mut response.headers);
        let mut fields = match answering.is_converted() {
            true => HeaderMap::new(),
            false => phase::ai::fields_to_pass(&provider),
        };
        answering.head(&provider, &mut fields);
        if let Some(kind) = answering.content_type(true) {
            fields.insert(header::CONTENT_TYPE, kind);
        }
        let no_cache = HeaderValue::from_static("no-cache");
        fields.entry(header::CACHE_CONTROL).or_insert(no_cache);
        phase::ai::stamp_ignored(left_behind, &mut fields);
        tally.stamp(&mut fields);
        // Not held while the answer streams, which may take long.
        if let Some(call) = asked.call.take() {
            tally.estimates(estimated(&call));
        }
        let vault = asked.vault.take().unwrap_or_default();
        let redactor = self.line.service.redactor.as_ref();
        tally.streams(
            answering.stream(),
            redactor.map(|redactor| redactor.stream(vault)),
        );
        let mut head = Response {
            status: response.status,
            headers: fields,
            body: BodyLength::Chunked,
            declared: BodyLength::Chunked,
        };
        let Line {
            worker, waiting, ..
        } = *self.line;
        begin_response(worker, waiting.watch.now(), ctx, &mut head, responder)?;
        Ok(())
    }

    /// The pieces of an answer, each when it comes.
    async fn stream(
        &self,
        receiver: &mut Receiver<'_>,
        ctx: &mut Context<'c>,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<(), Ended> {
        let watch = self.line.waiting.watch;
        let mut out = Vec::new();
        loop {
            watch.await_upstream(Wait::ResponseBody);
            let frame = match poll_now(|cx| receiver.poll_frame(cx)).await {
                Poll::Ready(frame) => frame.map_err(Fault::from),
                Poll::Pending => {
                    // What was gathered must not wait for a provider that is slow.
                    taken(responder, watch, Responder::poll_flush).await?;
                    watch.await_upstream(Wait::ResponseBody);
                    unless_gone(responder, |cx| receiver.poll_frame(cx)).await
                }
            };
            match frame {
                Ok(Frame::Data(piece)) => tally.push(piece, watch.now(), &mut out),
                Ok(Frame::Trailers(_)) => {}
                Ok(Frame::End) => tally.end(&mut out),
                Err(Fault::Client(error)) => return Err(error.into()),
                Err(_) => tally.abort(Failure::broken_stream(), &mut out),
            }
            let is_over = tally.is_over();
            if is_over {
                tally.end(&mut out);
            }
            for piece in out.drain(..) {
                put(Frame::Data(piece), responder, watch).await?;
            }
            if is_over {
                if let Some(failure) = tally.stream_failure() {
                    ctx.reason = phase::ai::reason_of(failure);
                }
                watch.upstream_done();
                return Ok(put(Frame::End, responder, watch).await?);
            }
        }
    }
}

/// About how many tokens a question is, at a price that any call can pay.
fn estimated(call: &Call) -> u64 {
    let bytes = call.body().len();
    match bytes <= COUNTED_BYTES_MAX {
        true => call.estimated_input(call.model()),
        false => bytes as u64 / 4,
    }
}

async fn put(
    frame: Frame,
    responder: &mut Responder<'_>,
    watch: &crate::deadline::Watch,
) -> Result<(), ClientError> {
    responder.put(frame)?;
    taken(responder, watch, Responder::poll_taken).await
}

/// The body of the request.
async fn upload(mut sender: Sender<'_>, body: Vec<Bytes>) -> Result<Uploaded, ClientError> {
    for piece in body {
        if sender.frame(Frame::Data(piece)).await.is_err() {
            return Ok(Uploaded::Refused);
        }
    }
    match sender.frame(Frame::End).await {
        Ok(()) => Ok(Uploaded::Whole),
        Err(_) => Ok(Uploaded::Refused),
    }
}

async fn head(
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
) -> Result<Response, Fault> {
    let protocol = exchange::Failure {
        reason: Reason::UpstreamProtocol,
        again: exchange::Again::Never,
    };
    let mut interims = 0;
    loop {
        match unless_gone(responder, |cx| receiver.poll_head(cx)).await? {
            Head::Interim(..) if interims < INTERIM_MAX => interims += 1,
            Head::Interim(..) | Head::Switched(_) => return Err(protocol.into()),
            Head::Final(response) => return Ok(response),
        }
    }
}

/// All of a body; absent when it is too large.
async fn whole(
    receiver: &mut Receiver<'_>,
    responder: &mut Responder<'_>,
    bytes_max: usize,
) -> Result<Option<Bytes>, Fault> {
    let mut first = Bytes::new();
    let mut body = BytesMut::new();
    loop {
        match unless_gone(responder, |cx| receiver.poll_frame(cx)).await? {
            Frame::Data(data) if first.len() + body.len() + data.len() > bytes_max => {
                return Ok(None);
            }
            Frame::Data(data) if first.is_empty() && body.is_empty() => first = data,
            Frame::Data(data) => {
                body.extend_from_slice(&std::mem::take(&mut first));
                body.extend_from_slice(&data);
            }
            Frame::Trailers(_) => {}
            Frame::End if body.is_empty() => return Ok(Some(first)),
            Frame::End => return Ok(Some(body.freeze())),
        }
    }
}
