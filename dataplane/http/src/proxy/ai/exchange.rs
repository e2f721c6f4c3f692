//! One attempt at one provider: its address, the request out, the answer back, whole or in pieces.
//!
//! Called by the line in `proxy::ai` as often as the service allows. Each piece of an answer leaves
//! when it arrives, and none is read while the client does not take the one before. Whether there is
//! another attempt is decided by the line.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;

use dataplane_ai::failure::Failure;
use dataplane_ai::service::Target;
use dataplane_config::ClusterTls;
use dataplane_resilience::circuit_breaker::OwnedPass;
use dataplane_route::table::RouteKind;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::{Ask, Cluster, Endpoint, Outcome};

use crate::context::Context;
use crate::deadline::Wait;
use crate::downstream::{ClientError, Responder};
use crate::exchange::{Channel, Outgoing, Owner, Peer};
use crate::h1::BodyLength;
use crate::message::{Request, Response};
use crate::phase;
use crate::reply::Reply;

mod answer;
mod transfer;

use super::super::attempt::{Fault, Upload, discard, or_gone};
use super::Line;
use super::prepare::{Asked, At, Prepared, judge, place, prepare, refused, unreachable};
use super::tally::Tally;
use transfer::{head, upload, whole};

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

impl Failed {
    /// Whether the provider's answer made no sense.
    fn is_nonsense(&self) -> bool {
        self.reply.reason == Reason::UpstreamProtocol
    }
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
    let mut prepared = prepare(line, target, request, asked, tally)?;
    let watch = line.waiting.watch;
    let own = ctx
        .rule
        .and_then(|rule| rule.settings.backend_request_timeout);
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
    asked.is_judged = false;
    if ctx.attempts == 1 {
        ctx.routing_us = ctx.micros(watch.now());
    }
    let is_tls = matches!(way.tls, ClusterTls::Policy(_));
    let fields = &mut prepared.headers;
    phase::trace::begin_call(ctx, fields, line.worker, is_tls, || {
        tally.asked_model(target, prepared.path.as_str())
    });
    // Waiting long for one is not worth it where another is asked next.
    let settings = &line.worker.settings;
    let dial_limit = settings.connect_timeout_elsewhere.filter(|limit| {
        let has_other = || way.cluster.has_other(endpoint.address(), tried);
        let follows = asked.has_next || (asked.may_repeat && has_other());
        let due = watch.due();
        follows && due.is_none_or(|due| Instant::now() + *limit < due)
    });
    let asking = Asking {
        line,
        dial_limit,
        target,
        way: &way,
        endpoint: &endpoint,
        request,
    };
    let ended = asking
        .exchange(prepared, ctx, asked, responder, tally)
        .await;
    phase::trace::end_attempt(ctx, failure_of(&ended));
    if let Err(Ended::Failed(failed)) = &ended
        && failed.again != Again::Elsewhere
    {
        tried.push(endpoint.address());
    }
    ended
}

/// Why an attempt failed; what a provider said is told by its status.
fn failure_of(ended: &Result<Ended, Ended>) -> Option<Reason> {
    match ended {
        Ok(Ended::Done) | Err(Ended::Done) => None,
        Ok(Ended::Failed(failed)) | Err(Ended::Failed(failed)) => {
            Some(failed.reply.reason).filter(|reason| *reason != Reason::Ok)
        }
        Ok(Ended::Client(_)) | Err(Ended::Client(_)) => Some(Reason::ClientAborted),
    }
}

/// An attempt with an address.
struct Asking<'a, 'l, 'c> {
    line: &'a Line<'l, 'c>,
    /// Less time for dialling than ever.
    dial_limit: Option<Duration>,
    target: &'c Target,
    way: &'a Way<'a>,
    endpoint: &'a Arc<Endpoint>,
    request: &'a Request,
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
        let mut peer = Peer::of(
            self.endpoint,
            (self.way.cluster, self.way.tls),
            RouteKind::Http,
            ctx.listener,
            ctx.rule.and_then(|rule| rule.settings.connect_timeout),
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
                peer.dialled_within(self.dial_limit);
                let dialling = Box::pin(Channel::dialled(&worker.pool, &peer, owner, settings));
                or_gone(pin!(dialling), responder).await
            }
        };
        let mut channel = opened.map_err(|fault| {
            if let Fault::Upstream(failure) = &fault {
                self.way.metrics.connection_failed(failure.reason);
            }
            self.broken(asked, tally, fault, false)
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
        if let Ok((_, ended)) = &is_reusable {
            let outcome = match ended {
                None if tally.stream_failure().is_some() => Outcome::GatewayFailure,
                Some(Ended::Failed(failed)) if failed.is_nonsense() => Outcome::ServerError,
                _ => Outcome::Success,
            };
            self.judge(asked, outcome);
        }
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
            unrecorded: None,
            body: BodyLength::Length(length),
            websocket: false,
            takes_trailers: false,
        };
        let watch = self.line.waiting.watch;
        let began = watch.now();
        let sent = channel.send(&outgoing, &self.line.worker.settings);
        let (sender, mut receiver) =
            sent.map_err(|failure| self.broken(asked, tally, failure.into(), was_reused))?;
        drop(headers);
        let sending = pin!(upload(sender, body));
        let mut upload = Upload::new(sending);
        let response = {
            let interims_max = self.line.worker.settings.interim_responses_max;
            let head = pin!(head(&mut receiver, responder, interims_max));
            upload.beside(head).await?
        };
        let mut response =
            response.map_err(|fault| self.broken(asked, tally, fault, was_reused))?;
        let waited = watch.now().saturating_duration_since(began);
        let metrics = self.way.metrics;
        metrics.answered(response.status.as_u16(), waited);
        phase::trace::answered(ctx, response.status);
        self.report(asked, &response);
        if let Some(failure) = answering.unreadable(&response.headers) {
            return Err(refused(self.line, tally, &failure, Again::Elsewhere));
        }
        if answering.is_stream(response.status, &response.headers) {
            self.begin(
                &answering,
                &left_behind,
                &mut response,
                ctx,
                asked,
                responder,
                tally,
            )
            .await?;
            let ended = {
                let streaming = pin!(self.stream(&mut receiver, ctx, responder, tally));
                upload.beside(streaming).await?
            };
            ended?;
            let metrics = Some(&**self.way.metrics);
            let rest = discard(&mut receiver, self.line.worker, metrics);
            let is_reusable = upload.is_done() && Box::pin(rest).await;
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
            Err(fault) => return Err(self.broken(asked, tally, fault, false)),
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

    /// Notes the head of an answer. A failure is judged here, as whoever is told must find it
    /// counted; so is a trial of a breaker, as an answer may take long.
    fn report(&self, asked: &mut Asked, response: &Response) {
        let outcome = Outcome::of_status(response.status.as_u16());
        if outcome != Outcome::Success {
            self.judge(asked, outcome);
        } else if asked.pass.as_ref().is_some_and(OwnedPass::is_trial)
            && let Some(pass) = asked.pass.take()
        {
            pass.succeeded();
        }
    }

    fn judge(&self, asked: &mut Asked, outcome: Outcome) {
        judge(
            asked,
            self.way.cluster,
            self.way.metrics,
            self.endpoint,
            outcome,
        );
    }

    fn failed(&self, tally: &mut Tally<'_>, reason: Reason, again: Again) -> Ended {
        unreachable(self.line, self.target, tally, reason, again)
    }

    /// What a connection that broke before an answer makes of the attempt.
    fn broken(
        &self,
        asked: &mut Asked,
        tally: &mut Tally<'_>,
        fault: Fault,
        was_reused: bool,
    ) -> Ended {
        let failure = match fault {
            Fault::Client(error) => return Ended::Client(error),
            Fault::Unwanted(_) => return self.failed(tally, Reason::Internal, Again::Never),
            Fault::Upstream(failure) => failure,
        };
        let is_race = failure.is_race(was_reused);
        if !is_race {
            self.judge(asked, Outcome::GatewayFailure);
        }
        let again = if is_race { Again::AtOnce } else { Again::Here };
        self.failed(tally, failure.reason, again)
    }
}
