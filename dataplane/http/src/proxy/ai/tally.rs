//! What a call costs, and what is written down of it; settled whatever happens.
//!
//! A [`Tally`] holds what was taken from a budget and the answer that streams by. When it is dropped,
//! be it because the client's connection is gone, the real count takes the estimate's place and the
//! figures are brought up to date: an answer that is broken off is charged, too.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;

use dataplane_ai::call::{Answer, AnswerStream, Operation};
use dataplane_ai::failure::Failure;
use dataplane_ai::redact::{Counts, StreamRedactor};
use dataplane_ai::service::Target;
use dataplane_ai::token::Usage;
use dataplane_ai::token_policy::{Reservation, Standing, Verdict};
use dataplane_config::{AiCluster, Budget};
use dataplane_upstream::since_start;

use crate::context::AiCall;
use crate::phase;

/// The label of models that the configuration does not name.
const OTHER: &str = "other";

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
    pub(super) fn asks(&mut self, model: &str) {
        model.clone_into(&mut self.written.request_model);
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
    }

    /// Notes what the question is about, for answers that do not tell.
    pub(super) fn estimates(&mut self, input: u64) {
        self.estimated_input.get_or_insert(input);
    }

    /// Counts a failure, by a word of a fixed list; the last one is what is written down.
    pub(super) fn failed(&mut self, kind: &'static str) {
        let provider = self.target.map_or("", |target| target.provider.as_str());
        self.ai.metrics.failed(provider, kind);
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
            self.written.response_model.clone_from(model);
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
            stream.step(out, |answer, out| answer.push(piece, out));
            if stream.answer.deltas() > before {
                stream.first.get_or_insert(now);
                stream.last = Some(now);
            }
        }
    }

    /// The provider's answer has ended.
    pub(super) fn end(&mut self, out: &mut Vec<Bytes>) {
        if let Some(stream) = &mut self.stream {
            stream.step(out, AnswerStream::end);
            stream.let_go(out);
        }
    }

    /// The provider's answer broke off: `out` gets what tells the client so.
    pub(super) fn abort(&mut self, failure: Failure, out: &mut Vec<Bytes>) {
        if let Some(stream) = &mut self.stream {
            stream.step(out, |answer, out| answer.abort(failure, out));
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
        let (mut first, mut chunk) = (None, None);
        if let Some(stream) = self.stream.take() {
            (first, chunk) = self.stream_ended(&stream);
        }
        if self.is_answered && self.usage.input.is_none() {
            self.usage.input = self.estimated_input;
            self.written.is_estimated |= self.estimated_input.is_some();
        }
        if let Some((budget, reservation)) = self.held.take() {
            // Failed answers are free.
            let used = if self.is_answered {
                self.usage.total()
            } else {
                0
            };
            budget.settle(reservation, used, now());
        }
        let written = &mut self.written;
        written.usage = self.usage;
        written.first_token = first;
        written.output_chunk = chunk;
        if written.response_model.is_empty() {
            written.response_model.clone_from(&self.model);
        }
        let Some(target) = self.target else { return };
        written.provider.clone_from(&target.provider);
        if !self.is_answered {
            return;
        }
        let Ok(service) = &self.ai.service else {
            return;
        };
        written.cost = service
            .price(&self.model)
            .map(|price| self.usage.cost(price));
        let label = match service.names_model(&self.model) {
            true => &self.model,
            false => OTHER,
        };
        let calls = self.ai.metrics.calls(&target.provider, label);
        calls.input.add(self.usage.input.unwrap_or(0));
        calls.cached.add(self.usage.cached.unwrap_or(0));
        calls.output.add(self.usage.output.unwrap_or(0));
        calls.took(self.started.elapsed(), first, chunk);
    }

    /// Takes over what is known of an answer in pieces; gives the time to its first piece and the
    /// average between two.
    fn stream_ended(&mut self, stream: &Stream) -> (Option<Duration>, Option<Duration>) {
        let answer = &stream.answer;
        self.usage = answer.usage(&self.model);
        self.written.is_estimated = !answer.is_usage_reported();
        self.written.finish = answer.finish().unwrap_or_default();
        if let Some(model) = answer.model() {
            model.clone_into(&mut self.written.response_model);
        }
        let counts = stream.redactor.as_ref().map(StreamRedactor::counts);
        if let Some(counts) = counts {
            self.redacted(&counts.clone());
        }
        if let Some(failure) = answer.failure() {
            self.failed(failure.reason.as_str());
        } else if !answer.is_over() {
            self.failed("client_aborted");
        }
        let first = stream
            .first
            .map(|at| at.saturating_duration_since(self.started));
        let gaps = u32::try_from(answer.deltas().saturating_sub(1)).unwrap_or(u32::MAX);
        let chunk = match (stream.first, stream.last) {
            (Some(first), Some(last)) if gaps > 0 => {
                Some(last.saturating_duration_since(first) / gaps)
            }
            _ => None,
        };
        (first, chunk)
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Stream {
    /// Has the answer do something, and passes on what may leave.
    fn step(&mut self, out: &mut Vec<Bytes>, act: impl FnOnce(&mut AnswerStream, &mut Vec<Bytes>)) {
        match &mut self.redactor {
            None => act(&mut self.answer, out),
            Some(redactor) => {
                act(&mut self.answer, &mut self.pieces);
                for piece in self.pieces.drain(..) {
                    redactor.push(piece, out);
                }
            }
        }
    }

    fn let_go(&mut self, out: &mut Vec<Bytes>) {
        if let Some(redactor) = &mut self.redactor {
            redactor.end(out);
        }
    }
}

/// The time that budgets count by.
pub(super) fn now() -> Duration {
    since_start(Instant::now())
}
