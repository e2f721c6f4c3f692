//! What a call costs, and what is written down of it; settled whatever happens.
//!
//! A [`Tally`] holds what was taken from a budget and the answer that streams by. When it is dropped,
//! be it because the client's connection is gone, the real count takes the estimate's place and the
//! figures are brought up to date: an answer that is broken off is charged, too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use dataplane_ai::call::{Answer, AnswerStream, Call, Operation};
use dataplane_ai::failure::{Failure, FailureReason};
use dataplane_ai::redact::{Counts, StreamRedactor};
use dataplane_ai::service::Target;
use dataplane_ai::token::Usage;
use dataplane_ai::token_policy::{Reservation, Standing, Verdict};
use dataplane_config::{AiCluster, Budget};
use dataplane_telemetry::metrics::{CallName, Gathered, Times};
use dataplane_telemetry::trace::AskedModel;
use dataplane_upstream::since_start;

use crate::context::AiCall;
use crate::phase;

/// The label of models that the configuration does not name.
const OTHER: &str = "other";
/// Of what a provider says that stands in the log.
const SHOWN_BYTES_MAX: usize = 256;

/// What went wrong when nothing did but that nobody waited.
const GIVEN_UP: &str = "given_up";
/// Pieces for which a stream keeps room.
pub(super) const PIECES_KEPT: usize = 16;

/// The account of one call.
pub(super) struct Tally<'c> {
    ai: &'c AiCluster,
    started: Instant,
    held: Option<(&'c Budget, Reservation)>,
    standing: Option<Standing>,
    /// Tokens of the question by our own count, where one was made.
    estimated_input: Option<u64>,
    target: Option<&'c Target>,
    /// The model that is asked.
    model: String,
    /// What it is called in metrics; empty as long as nobody knows.
    label: String,
    stream: Option<Stream>,
    usage: Usage,
    is_answered: bool,
    written: AiCall,
    is_settled: bool,
}

/// An answer in pieces, on its way.
struct Stream {
    answer: AnswerStream,
    redactor: Option<StreamRedactor>,
    first: Option<Instant>,
    last: Option<Instant>,
    /// From each piece of the answer to the next; told at the end, because pieces may come by the
    /// hundred thousand a second.
    gaps: Gathered<Times>,
    pieces: Vec<Bytes>,
}

impl<'c> Tally<'c> {
    pub(super) fn new(ai: &'c AiCluster, operation: Operation, started: Instant) -> Self {
        Self {
            ai,
            started,
            held: None,
            standing: None,
            estimated_input: None,
            target: None,
            model: String::new(),
            label: String::new(),
            stream: None,
            usage: Usage::default(),
            is_answered: false,
            written: AiCall {
                operation: operation.as_str(),
                ..AiCall::default()
            },
            is_settled: false,
        }
    }

    /// Notes the model that the client named.
    pub(super) fn asks(&mut self, call: &Call) {
        call.model().clone_into(&mut self.written.request_model);
        self.written.is_stream = call.is_stream();
        if let Ok(service) = &self.ai.service {
            self.labels(service.model_for(call.model()));
        }
    }

    /// Notes what redaction found.
    pub(super) fn redacted(&mut self, counts: &Counts) {
        for (kind, times) in counts {
            self.written.redacted += times;
            self.ai.metrics.redacted(kind, *times);
        }
    }

    /// Notes what a budget said.
    pub(super) fn reserved(&mut self, budget: &'c Budget, verdict: &Verdict, input: u64) {
        self.held = verdict.reservation.map(|reservation| (budget, reservation));
        self.standing = Some(verdict.standing);
        self.estimated_input = Some(input);
    }

    /// Notes the provider that is asked, and the model there.
    pub(super) fn sends(&mut self, target: &'c Target, model: &str) {
        self.target = Some(target);
        model.clone_into(&mut self.model);
        self.labels(model);
    }

    /// Models that the configuration does not name share a label.
    fn labels(&mut self, model: &str) {
        let Ok(service) = &self.ai.service else {
            return;
        };
        let label = match service.names_model(model) {
            true => model,
            false => OTHER,
        };
        label.clone_into(&mut self.label);
    }

    /// What is asked at `path` of a provider, for traces.
    pub(super) fn asked_model(&self, target: &Target, path: &str) -> AskedModel {
        AskedModel {
            operation: self.written.operation,
            provider: target.provider.clone(),
            name: self.model.clone(),
            server: target.authority().to_owned(),
            path: path.to_owned(),
        }
    }

    fn name(&self) -> CallName<'_> {
        CallName {
            operation: self.written.operation,
            provider: self.target.map_or("", |target| target.provider.as_str()),
            model: &self.label,
        }
    }

    /// Notes what the question is about, for answers that do not tell.
    pub(super) fn estimates(&mut self, input: u64) {
        self.estimated_input.get_or_insert(input);
    }

    /// Counts a failure, by a word of a fixed list; the last one is what is written down.
    pub(super) fn failed(&mut self, kind: &'static str) {
        self.ai.metrics.failed(self.name(), kind);
        self.written.error = kind;
    }

    /// Tells the client where it stands with its budget.
    pub(super) fn stamp(&self, headers: &mut HeaderMap) {
        if let Some(standing) = &self.standing {
            phase::ai::stamp(standing, headers);
        }
    }

    /// Notes a whole answer of a provider.
    pub(super) fn answered(&mut self, answer: &Answer) {
        self.is_answered = true;
        self.written.error = "";
        self.usage = answer.usage;
        self.written.finish = answer.finish.unwrap_or_default();
        if let Some(model) = &answer.model {
            self.written.response_model = shown(model);
        }
    }

    /// Begins an answer in pieces.
    pub(super) fn streams(&mut self, answer: AnswerStream, redactor: Option<StreamRedactor>) {
        self.is_answered = true;
        self.written.error = "";
        self.stream = Some(Stream {
            answer,
            redactor,
            first: None,
            last: None,
            gaps: Gathered::default(),
            pieces: Vec::new(),
        });
    }

    /// True while an answer in pieces is under way.
    pub(super) fn is_streaming(&self) -> bool {
        self.stream.is_some()
    }

    /// Takes a piece of the provider's answer; `out` gets what goes to the client.
    pub(super) fn push(&mut self, piece: Bytes, now: Instant, out: &mut Vec<Bytes>) {
        if let Some(stream) = &mut self.stream {
            let before = stream.answer.deltas();
            stream.step(self.target, out, |answer, out| answer.push(piece, out));
            let came = stream.answer.deltas() - before;
            stream.came(u32::try_from(came).unwrap_or(u32::MAX), now);
        }
    }

    /// The provider's answer has ended.
    pub(super) fn end(&mut self, out: &mut Vec<Bytes>) {
        if let Some(stream) = &mut self.stream {
            stream.step(self.target, out, AnswerStream::end);
            stream.let_go(out);
        }
    }

    /// The provider's answer broke off: `out` gets what tells the client so.
    pub(super) fn abort(&mut self, failure: Failure, out: &mut Vec<Bytes>) {
        if let Some(stream) = &mut self.stream {
            stream.step(self.target, out, |answer, out| answer.abort(failure, out));
            stream.let_go(out);
        }
    }

    /// Why the answer in pieces failed, if it did.
    pub(super) fn stream_failure(&self) -> Option<&Failure> {
        self.stream.as_ref()?.answer.failure()
    }

    /// True when nothing more can come of the answer in pieces.
    pub(super) fn is_over(&self) -> bool {
        self.stream
            .as_ref()
            .is_none_or(|stream| stream.answer.is_over())
    }

    /// Settles, and gives what is written down.
    pub(super) fn finish(mut self) -> Box<AiCall> {
        self.settle();
        Box::new(std::mem::take(&mut self.written))
    }

    fn settle(&mut self) {
        if std::mem::replace(&mut self.is_settled, true) {
            return;
        }
        let stream = self.stream.take();
        if let Some(stream) = &stream {
            self.stream_ended(stream);
        } else if !self.is_answered && self.written.error.is_empty() {
            // Its client left, or a deadline passed, before anybody answered.
            self.failed(GIVEN_UP);
        }
        if self.is_answered && self.usage.input.is_none() {
            self.usage.input = self.estimated_input;
            self.written.is_estimated |= self.estimated_input.is_some();
        }
        if let Some((budget, reservation)) = self.held.take() {
            let used = match self.is_answered {
                true => self.usage.total(),
                // Whoever leaves before the answer begins has asked all the same.
                false if self.written.error == GIVEN_UP && self.target.is_some() => {
                    self.estimated_input.unwrap_or(0)
                }
                // Failed answers are free.
                false => 0,
            };
            budget.settle(reservation, used, now());
        }
        let written = &mut self.written;
        written.usage = self.usage;
        if written.response_model.is_empty() {
            written.response_model.clone_from(&self.model);
        }
        if let Some(target) = self.target {
            written.provider.clone_from(&target.provider);
        }
        self.count(stream.as_ref().map(|stream| &stream.gaps));
    }

    /// Brings the figures up to date.
    fn count(&mut self, gaps: Option<&Gathered<Times>>) {
        let metrics = &self.ai.metrics;
        let took = self.started.elapsed();
        let error = self.written.error;
        if !error.is_empty() {
            metrics.ended_badly(self.name(), error, took);
        }
        if !self.is_answered {
            return;
        }
        if let Ok(service) = &self.ai.service {
            let price = service.price(&self.model);
            self.written.cost = price.map(|price| self.usage.cost(price));
        }
        let calls = metrics.calls(self.name());
        calls.answered.increment();
        if error.is_empty() {
            calls.duration.took(took);
        }
        let Usage {
            input,
            cached,
            output,
            ..
        } = self.usage;
        for (tokens, count) in [
            (&calls.input, input),
            (&calls.cached, cached),
            (&calls.output, output),
        ] {
            if let Some(count) = count {
                tokens.observe(count);
            }
        }
        if let Some(first) = self.written.first_token {
            calls.first_chunk.took(first);
        }
        if let Some(gaps) = gaps {
            calls.output_chunk.add(gaps);
        }
    }

    /// Takes over what is known of an answer in pieces.
    fn stream_ended(&mut self, stream: &Stream) {
        let answer = &stream.answer;
        self.usage = answer.usage(&self.model);
        self.written.is_estimated = !answer.is_usage_reported();
        self.written.finish = answer.finish().unwrap_or_default();
        let repeats = |model: &str| {
            self.target
                .is_some_and(|it| it.repeats_key(model.as_bytes()))
        };
        if let Some(model) = answer.model().filter(|model| !repeats(model)) {
            self.written.response_model = shown(model);
        }
        let counts = stream.redactor.as_ref().map(StreamRedactor::counts);
        if let Some(counts) = counts {
            self.redacted(&counts.clone());
        }
        if let Some(failure) = answer.failure() {
            self.failed(failure.reason.as_str());
            // What the provider itself calls failed is no answer, and free like any other failure.
            self.is_answered = failure.reason != FailureReason::Provider;
        } else if !answer.is_over() {
            self.failed("client_aborted");
        }
        self.written.first_token = stream
            .first
            .map(|at| at.saturating_duration_since(self.started));
        self.written.output_chunk = stream.gaps.mean().map(Duration::from_nanos);
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Stream {
    /// Has the answer do something, and passes on what may leave.
    fn step(
        &mut self,
        target: Option<&Target>,
        out: &mut Vec<Bytes>,
        act: impl FnOnce(&mut AnswerStream, &mut Vec<Bytes>),
    ) {
        act(&mut self.answer, &mut self.pieces);
        let has_failed = self.answer.failure().is_some();
        for mut piece in self.pieces.drain(..) {
            if let Some(target) = target {
                // Whole frames: a key that one of them repeats is never cut in two.
                piece = match has_failed {
                    true => target.error_without_key(piece),
                    false => target.without_key(piece),
                };
            }
            match &mut self.redactor {
                None => out.push(piece),
                Some(redactor) => redactor.push(piece, out),
            }
        }
        // One read may hold very many pieces; a stream that goes on shall not hold their room.
        self.pieces.shrink_to(PIECES_KEPT);
    }

    /// Notes that pieces of the answer came, all at once.
    fn came(&mut self, pieces: u32, now: Instant) {
        if pieces == 0 {
            return;
        }
        match self.last.replace(now) {
            None => self.first = Some(now),
            Some(last) => self.gaps.took(now.saturating_duration_since(last)),
        }
        self.gaps.observe(0, pieces - 1);
    }

    fn let_go(&mut self, out: &mut Vec<Bytes>) {
        if let Some(redactor) = &mut self.redactor {
            redactor.end(out);
        }
    }
}

/// A model's name as a provider tells it, as far as anybody wants to read it.
fn shown(model: &str) -> String {
    model[..model.floor_char_boundary(SHOWN_BYTES_MAX)].to_owned()
}

/// The time that budgets count by.
pub(super) fn now() -> Duration {
    since_start(Instant::now())
}
