//! THE LINE OF A CALL to an AI service: gather, read, redact, reserve, then one provider after another.
//!
//! Called by the request line once the chosen cluster is an AI service; everything before it (limits,
//! filters, admission) was the same as for any request. One attempt at one provider is in `exchange`,
//! what the call costs and how it is written down in `tally`. Requests to other clusters come nowhere
//! near this.

use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use dataplane_ai::call::{Call, Operation};
use dataplane_ai::failure::{ClientFormat, Failure};
use dataplane_ai::redact::Vault;
use dataplane_ai::service::{Service, Target};
use dataplane_ai::token_policy::Outcome;
use dataplane_config::{AiCluster, Budget};
use dataplane_telemetry::Reason;

use crate::context::Context;
use crate::downstream::{ClientError, RequestBody, Responder};
use crate::h1::{BodyLength, Frame};
use crate::message::Request;
use crate::phase::{self, Step};
use crate::reply::Reply;
use crate::worker::Worker;

use super::{Waiting, client_fault, given_up, rest, taken_in_time};

mod exchange;
mod prepare;
mod tally;

use exchange::{Again, Ended, Failed, attempt};
use prepare::Asked;
use tally::Tally;

/// The first pause before an attempt at the same provider, unless the service says otherwise.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(250);
/// The longest pause; a provider that asks for more is not asked again.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// What stays the same over a call.
struct Line<'l, 'c> {
    worker: &'l Worker,
    waiting: &'l Waiting<'l>,
    service: &'c Service,
    ai: &'c AiCluster,
    format: ClientFormat,
}

/// Serves a call to its end.
pub(super) async fn serve<'c>(
    worker: &Worker,
    ctx: &mut Context<'c>,
    request: &mut Request,
    (body, responder): (&mut RequestBody<'_>, &mut Responder<'_>),
    waiting: &Waiting<'_>,
    ai: &'c AiCluster,
) -> Result<Step, ClientError> {
    let refuse = |failure: &Failure, format, reason| {
        let reply = phase::ai::refusal(failure, format, reason);
        Ok(Step::reply(reply))
    };
    let Some(operation) = Operation::of(&request.method, request.target.path()) else {
        let failure = phase::ai::unknown_path(request.target.path());
        return refuse(&failure, ClientFormat::OpenAi, Reason::RouteNotFound);
    };
    let format = operation.client();
    let Ok(service) = &ai.service else {
        ai.metrics.failed("", "service_unusable");
        return refuse(&phase::ai::unusable(), format, Reason::InvalidBackend);
    };
    if operation == Operation::Models {
        let list = service.models(ai.created);
        return Ok(Step::reply(phase::ai::models(list)));
    }
    let line = Line {
        worker,
        waiting,
        service,
        ai,
        format,
    };
    let mut tally = Tally::new(ai, operation, ctx.started);
    let ended = line
        .run(operation, ctx, request, body, responder, &mut tally)
        .await;
    ctx.ai = Some(tally.finish());
    ended
}

impl<'c> Line<'_, 'c> {
    async fn run(
        &self,
        operation: Operation,
        ctx: &mut Context<'c>,
        request: &mut Request,
        body: &mut RequestBody<'_>,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Step, ClientError> {
        let gathered = match self.gather(ctx, request, body, responder).await? {
            Ok(gathered) => gathered,
            Err(step) => {
                tally.failed("body");
                return Ok(step);
            }
        };
        let mut vault = Vault::default();
        let call = match self.read(operation, gathered, &mut vault, tally) {
            Ok(call) => call,
            Err(failure) => return Ok(self.refuse(&failure, tally)),
        };
        let degraded = match &self.ai.budget {
            None => None,
            Some(budget) => {
                let reserving = self.reserve(budget, ctx, request, &call, responder, tally);
                match Box::pin(reserving).await? {
                    Ok(degraded) => degraded,
                    Err(step) => return Ok(step),
                }
            }
        };
        self.providers(ctx, request, call, degraded, vault, responder, tally)
            .await
    }

    fn refuse(&self, failure: &Failure, tally: &mut Tally<'_>) -> Step {
        tally.failed(failure.reason.as_str());
        let reason = phase::ai::reason_of(failure);
        let mut reply = phase::ai::refusal(failure, self.format, reason);
        tally.stamp(&mut reply.headers);
        Step::reply(reply)
    }

    /// The whole body, within the limit.
    async fn gather(
        &self,
        ctx: &mut Context<'c>,
        request: &mut Request,
        body: &mut RequestBody<'_>,
        responder: &mut Responder<'_>,
    ) -> Result<Result<Bytes, Step>, ClientError> {
        let bytes_max = self.worker.settings.ai_body_bytes_max;
        let too_large = |responder: &mut Responder<'_>| {
            self.ai.metrics.too_large.increment();
            // Where the next request would begin is not known.
            responder.close_after();
            let failure = phase::ai::too_large(bytes_max);
            let reply = phase::ai::refusal(&failure, self.format, Reason::BodyTooLarge);
            Ok(Err(Step::reply(reply)))
        };
        if let BodyLength::Length(length) = request.body
            && length > bytes_max as u64
        {
            return too_large(responder);
        }
        if request.headers.remove(header::EXPECT).is_some() && !body.is_done() {
            let continues = StatusCode::CONTINUE;
            responder.interim(continues, &HeaderMap::new()).await?;
        }
        let watch = self.waiting.watch;
        watch.tick();
        watch.await_client_body(true);
        let read = {
            // One byte more tells a body that ends here from one that goes on.
            let reading = body.read_ahead(bytes_max + 1, || watch.await_client_body(true));
            self.waiting.until_due(pin!(reading)).await
        };
        watch.await_client_body(false);
        let bytes = match read {
            Ok(Ok(prefix)) if prefix.bytes.len() > bytes_max => return too_large(responder),
            Ok(Ok(prefix)) => prefix.bytes,
            Ok(Err(ClientError::TooLarge)) => return too_large(responder),
            Ok(Err(error)) => return client_fault(ctx, responder, error).map(Err),
            Err(reason) => return given_up(ctx, responder, reason).map(Err),
        };
        // From here on the call is the only one that holds them.
        while !matches!(body.frame().await?, Frame::End) {}
        Ok(Ok(bytes))
    }

    /// Looks at the request, and takes out what must not leave.
    fn read(
        &self,
        operation: Operation,
        body: Bytes,
        vault: &mut Vault,
        tally: &mut Tally<'_>,
    ) -> Result<Call, Failure> {
        let call = Call::read(operation, body)?;
        tally.asks(call.model());
        let Some(redactor) = &self.service.redactor else {
            return Ok(call);
        };
        let redacted = redactor.request(call.body(), vault)?;
        tally.redacted(&redacted.counts);
        if redacted.body.as_ptr() == call.body().as_ptr() {
            return Ok(call);
        }
        call.with_body(redacted.body)
    }

    /// Takes from the caller's budget; gives the model to use instead, if there shall be another.
    async fn reserve(
        &self,
        budget: &'c Budget,
        ctx: &mut Context<'c>,
        request: &Request,
        call: &Call,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Result<Option<String>, Step>, ClientError> {
        let model = self.service.model_for(call.model());
        let account = phase::ai::account(budget, ctx, request, call, model);
        let tokens = call.reservation(model);
        let verdict = budget.reserve(account, tokens, tally::now());
        tally.reserved(budget, &verdict, call.estimated_input(model));
        let metrics = &self.ai.metrics;
        match verdict.outcome {
            Outcome::Pass => Ok(Ok(None)),
            Outcome::PassOver => {
                metrics.over.increment();
                Ok(Ok(None))
            }
            Outcome::Degrade(model) => {
                metrics.degraded.increment();
                Ok(Ok(Some(model)))
            }
            Outcome::Wait(pause) => {
                metrics.queued.increment();
                match rest(pause, responder, self.waiting).await {
                    Ok(()) => Ok(Ok(None)),
                    Err(reason) => given_up(ctx, responder, reason).map(Err),
                }
            }
            Outcome::Refuse { retry_after } => {
                metrics.rejected.increment();
                let failure = phase::ai::over_budget(retry_after);
                Ok(Err(self.refuse(&failure, tally)))
            }
        }
    }

    /// Asks one provider after another until one answers.
    #[expect(
        clippy::too_many_arguments,
        reason = "the call, what was decided about it, and its two ends"
    )]
    async fn providers(
        &self,
        ctx: &mut Context<'c>,
        request: &Request,
        call: Call,
        degraded: Option<String>,
        vault: Vault,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Step, ClientError> {
        let mut asked = Asked {
            call: Some(call),
            vault: Some(vault),
            now: unix_seconds(),
            unique: self.worker.draw(),
            degraded,
        };
        let mut last: Option<Box<Reply>> = None;
        for target in self.service.order(self.worker.draw()) {
            if last.is_some() {
                self.ai.metrics.failovers.increment();
            }
            match self
                .provider(target, ctx, request, &mut asked, responder, tally)
                .await?
            {
                Gave::Step(step) => return Ok(step),
                Gave::Up(reply) => last = Some(reply),
            }
        }
        match last {
            Some(mut reply) => {
                tally.stamp(&mut reply.headers);
                Ok(Step::Reply(reply))
            }
            None => Ok(self.refuse(&phase::ai::unusable(), tally)),
        }
    }

    /// Asks one provider, as often as the service says.
    async fn provider(
        &self,
        target: &'c Target,
        ctx: &mut Context<'c>,
        request: &Request,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Gave, ClientError> {
        let watch = self.waiting.watch;
        let mut tried = Vec::new();
        let mut retries = 0;
        let mut races = 0;
        loop {
            let ended = {
                let attempt = attempt(
                    self, target, ctx, request, asked, &mut tried, responder, tally,
                );
                let ended = async { attempt.await.unwrap_or_else(|ended| ended) };
                self.waiting.until_due(pin!(ended)).await
            };
            let Failed {
                reply,
                again,
                pause,
            } = match ended {
                Ok(Ended::Done) => return Ok(Gave::Step(Step::Continue)),
                Ok(Ended::Client(error)) => {
                    return client_fault(ctx, responder, error).map(Gave::Step);
                }
                Ok(Ended::Failed(failed)) => *failed,
                Err(reason) => match self.overdue(target, ctx, responder, tally, reason).await? {
                    Overdue::Over(step) => return Ok(Gave::Step(step)),
                    Overdue::Failed(failed) => failed,
                },
            };
            match again {
                Again::Never => {
                    let mut reply = reply;
                    tally.stamp(&mut reply.headers);
                    return Ok(Gave::Step(Step::Reply(reply)));
                }
                Again::Elsewhere => return Ok(Gave::Up(reply)),
                // Closed in the moment in which it was used again.
                Again::AtOnce if races < 2 => {
                    races += 1;
                    continue;
                }
                Again::AtOnce | Again::Here => {}
            }
            if retries == self.service.retries_max {
                return Ok(Gave::Up(reply));
            }
            let Some(pause) = self.pause(retries, pause) else {
                return Ok(Gave::Up(reply));
            };
            retries += 1;
            self.ai.metrics.retries.increment();
            watch.start_attempt(None);
            if let Err(reason) = Box::pin(rest(pause, responder, self.waiting)).await {
                return given_up(ctx, responder, reason).map(Gave::Step);
            }
        }
    }

    /// How long to wait before the next attempt at the same provider; absent when that is too long.
    fn pause(&self, retries: u32, asked_for: Option<Duration>) -> Option<Duration> {
        let base = self.service.retry_backoff.unwrap_or(BACKOFF_DEFAULT);
        let grown = base.saturating_mul(1 << retries.min(6)).min(PAUSE_MAX);
        // Half of it is drawn, so that callers do not come back together.
        let drawn = grown.mul_f64(0.5 + self.worker.random() / 2.0);
        let pause = asked_for.map_or(drawn, |time| time.max(drawn));
        let due = self.waiting.watch.due();
        let fits = due.is_none_or(|due| std::time::Instant::now() + pause < due);
        (pause <= PAUSE_MAX && fits).then_some(pause)
    }

    /// A deadline passed, or the client has gone.
    async fn overdue(
        &self,
        target: &Target,
        ctx: &mut Context<'_>,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'_>,
        reason: Reason,
    ) -> Result<Overdue, ClientError> {
        let is_theirs = matches!(reason, Reason::UpstreamTimeout | Reason::RequestTimeout);
        if is_theirs && responder.has_head() && tally.is_streaming() {
            let mut out = Vec::new();
            tally.abort(target.timed_out(), &mut out);
            ctx.reason = reason;
            let ending = async {
                for piece in out {
                    responder.frame(Frame::Data(piece)).await?;
                }
                responder.frame(Frame::End).await
            };
            taken_in_time(self.worker, ending).await?;
            return Ok(Overdue::Over(Step::Continue));
        }
        if responder.has_head() || !is_theirs {
            return given_up(ctx, responder, reason).map(Overdue::Over);
        }
        let failure = target.timed_out();
        tally.failed(failure.reason.as_str());
        let reply = phase::ai::refusal(&failure, self.format, reason);
        let again = match reason {
            Reason::RequestTimeout => Again::Never,
            _ => Again::Here,
        };
        Ok(Overdue::Failed(Failed {
            reply: Box::new(reply),
            again,
            pause: None,
        }))
    }
}

/// What came of one provider.
enum Gave {
    /// The call is over.
    Step(Step),
    /// It could not answer; what its client is told when nobody can.
    Up(Box<Reply>),
}

/// What a deadline that passed makes of a call.
enum Overdue {
    Over(Step),
    Failed(Failed),
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
