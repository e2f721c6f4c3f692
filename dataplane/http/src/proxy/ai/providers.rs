//! One provider after another: who is asked, how often, and who is given a rest.
//!
//! Called by the line in `proxy::ai` once a call is ready. A provider whose breaker is open, or whose
//! endpoints are all left out, is asked behind the others; where a policy has set the breaker it is not
//! asked at all. One attempt is in `exchange`.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane_ai::call::Call;
use dataplane_ai::failure::Failure;
use dataplane_ai::redact::Vault;
use dataplane_ai::service::Target;
use dataplane_config::Place;
use dataplane_resilience::circuit_breaker::{Breaker, OwnedPass, State};
use dataplane_telemetry::Reason;
use dataplane_upstream::{Cluster, Endpoint, Outcome, since_start};

use crate::context::Context;
use crate::downstream::{ClientError, Responder};
use crate::h1::Frame;
use crate::message::Request;
use crate::phase::{self, Step};
use crate::reply::Reply;

use super::super::{client_fault, given_up, rest, taken_in_time};
use super::Line;
use super::exchange::{Again, Ended, Failed, attempt};
use super::prepare::{Asked, judge};
use super::tally::Tally;

/// The first pause before an attempt at the same provider, unless the service says otherwise.
const BACKOFF_DEFAULT: Duration = Duration::from_millis(250);

impl<'c> Line<'_, 'c> {
    /// Asks one provider after another until one answers.
    #[expect(
        clippy::too_many_arguments,
        reason = "the call, what was decided about it, and its two ends"
    )]
    pub(super) async fn providers(
        &self,
        ctx: &mut Context<'c>,
        request: &Request,
        call: Call,
        degraded: Option<String>,
        vault: Vault,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'c>,
    ) -> Result<Step, ClientError> {
        let of_route = match self.enter_route(ctx) {
            Ok(pass) => pass,
            Err(failure) => {
                let failed = phase::ai::refusal(&failure, self.format, Reason::CircuitOpen);
                tally.failed("circuit_open");
                return Ok(Step::reply(failed));
            }
        };
        let mut asked = Asked {
            call: Some(call),
            vault: Some(vault),
            now: unix_seconds(),
            unique: self.worker.draw(),
            degraded,
            of_route,
            pass: None,
            has_next: false,
            may_repeat: false,
            is_judged: false,
        };
        let mut last: Option<Box<Reply>> = None;
        let order = self.service.order(self.worker.draw());
        let mut turns: VecDeque<_> = order.map(|target| (target, Turn::First)).collect();
        while let Some((target, turn)) = turns.pop_front() {
            asked.pass = match self.leave(target, ctx) {
                Ok(pass) => pass,
                Err(_) if turn == Turn::First => {
                    turns.push_back((target, Turn::Last));
                    continue;
                }
                // Better than asking nobody.
                Err(Rest::Advised) => None,
                Err(Rest::Ordered(wait)) => {
                    last.get_or_insert_with(|| self.at_rest(target, wait, tally));
                    continue;
                }
            };
            if last.is_some() {
                self.ai.metrics.failovers.increment();
            }
            asked.has_next = turns.iter().any(|(next, _)| self.is_well(next, ctx));
            match self
                .provider(target, ctx, request, &mut asked, responder, tally)
                .await?
            {
                Gave::Step(step) => {
                    self.tell_route(ctx, &mut asked, &step);
                    return Ok(step);
                }
                Gave::Up(reply) => last = Some(reply),
            }
        }
        let step = match last {
            Some(mut reply) => {
                tally.stamp(&mut reply.headers);
                Step::Reply(reply)
            }
            None => self.refuse(&phase::ai::unusable(), tally),
        };
        self.tell_route(ctx, &mut asked, &step);
        Ok(step)
    }

    /// Leave of the breaker that the route has in front of the service.
    fn enter_route(&self, ctx: &Context<'_>) -> Result<Option<OwnedPass>, Failure> {
        let Some(breaker) = ctx.backend.and_then(|backend| backend.breaker.as_ref()) else {
            return Ok(None);
        };
        match breaker.enter_owned(since_start(Instant::now())) {
            Ok(pass) => Ok(Some(pass)),
            Err(refused) => {
                if let Some(cluster) = ctx.cluster {
                    cluster.metrics.circuit_refused();
                }
                let message = "the service keeps failing and is given a rest";
                Err(phase::ai::circuit_open(message, refused.retry_after))
            }
        }
    }

    /// Tells the route's breaker how the call ended, unless that is told already.
    fn tell_route(&self, ctx: &Context<'_>, asked: &mut Asked, step: &Step) {
        let Some(pass) = asked.of_route.take() else {
            return;
        };
        let has_failed = matches!(step, Step::Reply(reply) if reply.status.is_server_error());
        if !has_failed {
            pass.succeeded();
        } else if pass.failed(since_start(Instant::now()))
            && let Some(cluster) = ctx.cluster
        {
            cluster.metrics.circuit_opened();
        }
    }

    /// Leave to ask a provider; one that keeps failing is asked behind the others, or not at all.
    fn leave(&self, target: &Target, ctx: &Context<'_>) -> Result<Option<OwnedPass>, Rest> {
        let now = Instant::now();
        let Some(front) = self.front(target, ctx, now) else {
            return Ok(None);
        };
        if front.is_out {
            return Err(Rest::Advised);
        }
        let Some(breaker) = front.breaker else {
            return Ok(None);
        };
        match breaker.enter_owned(since_start(now)) {
            Ok(pass) => Ok(Some(pass)),
            Err(refused) if front.refuses => Err(Rest::Ordered(refused.retry_after)),
            Err(_) => Err(Rest::Advised),
        }
    }

    /// Whether nothing speaks against asking a provider.
    fn is_well(&self, target: &Target, ctx: &Context<'_>) -> bool {
        let now = Instant::now();
        let is_closed = |breaker: &Breaker| breaker.state(since_start(now)) == State::Closed;
        self.front(target, ctx, now).is_none_or(|front| {
            !front.is_out && front.breaker.is_none_or(|breaker| is_closed(breaker))
        })
    }

    /// What stands in front of a provider.
    fn front<'a>(
        &'a self,
        target: &Target,
        ctx: &'a Context<'_>,
        now: Instant,
    ) -> Option<Front<'a>> {
        let (place, guard) = self.ai.provider(target)?;
        let is_out =
            |cluster: &Cluster| cluster.unwell() > 0 && cluster.ejected(now) >= cluster.available();
        let (is_out, own) = match place {
            Place::Cluster(key) => {
                let found = ctx.config.clusters.get(key);
                let is_out = found.is_some_and(|it| is_out(&it.cluster));
                (is_out, found.and_then(|it| it.breaker.as_ref()))
            }
            Place::Site(site) => {
                let reached = site.reached();
                (reached.is_some_and(|it| is_out(&it.cluster)), None)
            }
        };
        Some(Front {
            is_out,
            breaker: own.or(guard.breaker.as_ref()),
            refuses: own.is_some() || guard.refuses,
        })
    }

    /// What a client is told when everybody who could answer is at rest.
    fn at_rest(&self, target: &Target, wait: Duration, tally: &mut Tally<'_>) -> Box<Reply> {
        tally.failed("circuit_open");
        let provider = &target.provider;
        let message = format!("the provider {provider} keeps failing and is given a rest");
        let failure = phase::ai::circuit_open(&message, wait);
        Box::new(phase::ai::refusal(
            &failure,
            self.format,
            Reason::CircuitOpen,
        ))
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
            asked.may_repeat = retries < self.service.retries_max;
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
                Err(reason) => match self
                    .overdue(target, ctx, asked, responder, tally, reason)
                    .await?
                {
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
            // A retry is never a trial of a breaker.
            asked.pass = match self.leave(target, ctx) {
                Ok(pass) if pass.as_ref().is_none_or(|pass| !pass.is_trial()) => pass,
                _ => return Ok(Gave::Up(reply)),
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
        let pause_max = self.worker.settings.ai_retry_pause_max;
        let grown = base.saturating_mul(1 << retries.min(6)).min(pause_max);
        // Half of it is drawn, so that callers do not come back together.
        let drawn = grown.mul_f64(0.5 + self.worker.random() / 2.0);
        let pause = asked_for.map_or(drawn, |time| time.max(drawn));
        let due = self.waiting.watch.due();
        let fits = due.is_none_or(|due| Instant::now() + pause < due);
        (pause <= pause_max && fits).then_some(pause)
    }

    /// A deadline passed, or the client has gone.
    async fn overdue(
        &self,
        target: &Target,
        ctx: &mut Context<'_>,
        asked: &mut Asked,
        responder: &mut Responder<'_>,
        tally: &mut Tally<'_>,
        reason: Reason,
    ) -> Result<Overdue, ClientError> {
        let is_theirs = matches!(reason, Reason::UpstreamTimeout | Reason::RequestTimeout);
        if is_theirs && let Some(endpoint) = ctx.endpoint.clone() {
            self.judge_late(target, ctx, asked, &endpoint);
        }
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

    /// Holds a deadline that passed against the endpoint that was waited for.
    fn judge_late(
        &self,
        target: &Target,
        ctx: &Context<'_>,
        asked: &mut Asked,
        endpoint: &Endpoint,
    ) {
        let late = Outcome::GatewayFailure;
        match self.ai.provider(target) {
            Some((Place::Cluster(key), _)) => {
                if let Some(found) = ctx.config.clusters.get(key) {
                    judge(asked, &found.cluster, &found.metrics, endpoint, late);
                }
            }
            Some((Place::Site(site), _)) => {
                if let Some(found) = site.reached() {
                    judge(asked, &found.cluster, &found.metrics, endpoint, late);
                }
            }
            None => {}
        }
    }
}

/// When a provider has its turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    /// Behind all others, because it keeps failing.
    Last,
}

/// What stands in front of a provider.
struct Front<'a> {
    /// All its endpoints are left out.
    is_out: bool,
    breaker: Option<&'a Arc<Breaker>>,
    /// Calls are refused while the breaker is open, and not only sent elsewhere first.
    refuses: bool,
}

/// Why a provider is not asked now.
enum Rest {
    /// Others come first.
    Advised,
    /// A policy says so, for that long.
    Ordered(Duration),
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
