//! THE LINE OF A CALL to an AI service: gather, read, redact, reserve, then one provider after another.
//!
//! Called by the request line once the chosen cluster is an AI service; everything before it (limits,
//! filters, admission) was the same as for any request. One attempt at one provider is in `exchange`,
//! what the call costs and how it is written down in `tally`. Requests to other clusters come nowhere
//! near this.

use std::pin::pin;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use dataplane_ai::call::{Call, Operation};
use dataplane_ai::failure::{ClientFormat, Failure};
use dataplane_ai::redact::Vault;
use dataplane_ai::service::Service;
use dataplane_ai::token_policy::Outcome;
use dataplane_config::{AiCluster, Budget};
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::CallName;

use crate::context::Context;
use crate::downstream::{ClientError, RequestBody, Responder};
use crate::h1::{BodyLength, Frame};
use crate::message::Request;
use crate::phase::{self, Step};
use crate::worker::Worker;

use super::{Waiting, client_fault, given_up, rest};

mod exchange;
mod prepare;
mod providers;
mod tally;

use tally::Tally;

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
        let reply = phase::ai::not_served(request.target.path());
        return Ok(Step::reply(reply));
    };
    let format = operation.client();
    let Ok(service) = &ai.service else {
        let name = CallName {
            operation: operation.as_str(),
            provider: "",
            model: "",
        };
        ai.metrics.failed(name, "service_unusable");
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
        tally.asks(&call);
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
        let queue_time = self.worker.settings.ai_queue_time;
        let verdict = budget.reserve(account, tokens, queue_time, tally::now());
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
}
