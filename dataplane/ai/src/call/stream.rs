//! An answer in pieces on its way back to the client.
//!
//! Each piece is turned as soon as it is there; what is held is one frame that is not complete yet. The
//! stream ends well only when the provider said so: anything else becomes an error in the client's format.

use bytes::Bytes;

use super::{Answering, Operation};
use crate::chat::{Finish, Step};
use crate::event_stream::{Frame, Splitter};
use crate::failure::{ClientFormat, Failure, FailureReason};
use crate::provider::{Decoder, Dialect, Encoder};
use crate::token::{Meter, Usage};

/// An answer in pieces.
#[derive(Debug)]
pub struct AnswerStream {
    client: ClientFormat,
    /// A provider of this dialect may end its stream without a word when it has said why.
    may_end_silently: bool,
    splitter: Splitter,
    decoder: Decoder,
    /// Absent when the client reads the provider's own frames.
    encoder: Option<Encoder>,
    hides_usage: bool,
    seen: Seen,
    written: String,
}

/// What went by.
#[derive(Debug, Default)]
struct Seen {
    usage: Usage,
    meter: Meter,
    model: Option<String>,
    finish: Option<Finish<'static>>,
    is_done: bool,
    failure: Option<Failure>,
    /// Pieces of the answer, for telemetry.
    deltas: u64,
}

impl Seen {
    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Start { model, .. } => {
                self.model = model.as_ref().map(|model| model.plain().into_owned());
            }
            Step::Text(text) | Step::Refusal(text) | Step::Thinking(text) => {
                self.deltas += 1;
                self.meter.see(text);
            }
            Step::ToolStart { name, .. } => self.meter.see(name),
            Step::ToolArguments { piece, .. } => {
                self.deltas += 1;
                self.meter.see(piece);
            }
            Step::Finish(finish) => self.finish = Some(finish.clone().into_owned()),
            Step::Usage(usage) => self.usage.update(usage),
            Step::Done => self.is_done = true,
            Step::Failed(failure) => self.failure = Some(failure.clone()),
        }
    }

    fn is_over(&self) -> bool {
        self.is_done || self.failure.is_some()
    }
}

impl AnswerStream {
    pub(super) fn new(answering: &Answering, frame_bytes_max: usize) -> Self {
        let decoder = match answering.operation {
            Operation::Responses => Decoder::Responses,
            _ => Decoder::new(answering.dialect),
        };
        let encoder = answering.is_converted().then(|| {
            let stamp = answering.stamp.clone();
            Encoder::new(answering.client, stamp, answering.wants_usage)
        });
        Self {
            client: answering.client,
            may_end_silently: answering.dialect == Dialect::OpenAi,
            splitter: Splitter::new(answering.dialect.framing(), frame_bytes_max),
            decoder,
            encoder,
            hides_usage: answering.hides_usage,
            seen: Seen::default(),
            written: String::new(),
        }
    }

    /// Takes a piece of the provider's body and adds what the client gets for it to `out`.
    pub fn push(&mut self, piece: Bytes, out: &mut Vec<Bytes>) {
        if self.seen.failure.is_some() {
            return;
        }
        self.splitter.push(piece);
        loop {
            match self.splitter.next_frame() {
                Ok(Some(frame)) => self.frame(frame, out),
                Ok(None) => break,
                Err(error) => {
                    self.fail(Failure::bad_answer(error.to_string()));
                }
            }
            if self.seen.failure.is_some() {
                break;
            }
        }
        self.flush(out);
    }

    /// The provider's body has ended: `out` gets what is left to say.
    pub fn end(&mut self, out: &mut Vec<Bytes>) {
        if let Some(frame) = self.splitter.rest() {
            self.rest(frame, out);
        }
        if !self.seen.is_over() {
            let has_said_why = self.seen.finish.is_some();
            if has_said_why && self.may_end_silently {
                self.done();
            } else {
                self.fail(Failure::broken_stream());
            }
        }
        self.flush(out);
    }

    /// What came after the last whole frame: the last words without a blank line, or a line break that
    /// came late. A frame that was cut off is neither.
    fn rest(&mut self, frame: Frame, out: &mut Vec<Bytes>) {
        let is_blank = frame.raw.iter().all(u8::is_ascii_whitespace);
        let is_whole = is_json(&frame.data) || frame.data.trim_ascii() == b"[DONE]";
        if self.seen.is_over() {
            if is_blank && self.encoder.is_none() {
                out.push(frame.raw);
            }
        } else if is_whole {
            self.frame(frame, out);
            if self.encoder.is_none() {
                out.push(Bytes::from_static(b"\n\n"));
            }
        }
    }

    /// The provider's body broke, or took too long: the client is told in its own format.
    pub fn abort(&mut self, failure: Failure, out: &mut Vec<Bytes>) {
        if !self.seen.is_over() {
            self.fail(failure);
        }
        self.flush(out);
    }

    /// True when nothing more can come of it.
    pub fn is_over(&self) -> bool {
        self.seen.is_over()
    }

    /// What the provider said was used; what it did not say is counted from what went by, so that an
    /// answer that is broken off is charged, too.
    pub fn usage(&self, model: &str) -> Usage {
        let mut usage = self.seen.usage;
        let is_counted = self.seen.is_done && usage.output.is_some();
        if !is_counted {
            let seen = self.seen.meter.tokens(model);
            usage.output = Some(usage.output.unwrap_or(0).max(seen));
        }
        usage
    }

    /// True when all counts are the provider's own.
    pub fn is_usage_reported(&self) -> bool {
        self.seen.is_done && self.seen.usage.is_complete()
    }

    /// Why it ended, in OpenAI's words.
    pub fn finish(&self) -> Option<&'static str> {
        self.seen.finish.as_ref().map(Finish::as_str)
    }

    /// The model that answers.
    pub fn model(&self) -> Option<&str> {
        self.seen.model.as_deref()
    }

    /// What went wrong, if something did.
    pub fn failure(&self) -> Option<&Failure> {
        self.seen.failure.as_ref()
    }

    /// Pieces of the answer so far.
    pub fn deltas(&self) -> u64 {
        self.seen.deltas
    }

    fn frame(&mut self, frame: Frame, out: &mut Vec<Bytes>) {
        if self.seen.is_done && self.encoder.is_some() {
            return;
        }
        let Self {
            decoder,
            encoder,
            seen,
            written,
            ..
        } = self;
        let mut has_choice = false;
        let mut has_usage = false;
        match encoder {
            Some(encoder) => decoder.frame(&frame, &mut |step| {
                if !seen.is_over() {
                    seen.step(&step);
                    encoder.step(step, written);
                }
            }),
            None => {
                let mut unread = None;
                decoder.frame(&frame, &mut |step| {
                    has_usage |= matches!(step, Step::Usage(_));
                    has_choice |= !matches!(step, Step::Usage(_) | Step::Start { .. });
                    match step {
                        // A server may write what is not known here; what is no JSON is not passed on.
                        Step::Failed(failure) if failure.reason == FailureReason::BadAnswer => {
                            unread = Some(failure);
                        }
                        step => seen.step(&step),
                    }
                });
                if let Some(failure) = unread
                    && !is_json(&frame.data)
                {
                    out.push(failure.frame(self.client));
                    seen.failure = Some(failure);
                    return;
                }
                let is_hidden =
                    self.hides_usage && has_usage && !has_choice && is_usage_only(&frame);
                if !is_hidden {
                    out.push(frame.raw);
                }
            }
        }
    }

    fn done(&mut self) {
        self.seen.is_done = true;
        if let Some(encoder) = &mut self.encoder {
            encoder.step(Step::Done, &mut self.written);
        }
    }

    fn fail(&mut self, failure: Failure) {
        let frame = failure.frame(self.client);
        self.written
            .push_str(std::str::from_utf8(&frame).unwrap_or_default());
        self.seen.failure = Some(failure);
    }

    fn flush(&mut self, out: &mut Vec<Bytes>) {
        if !self.written.is_empty() {
            out.push(Bytes::from(std::mem::take(&mut self.written)));
        }
    }
}

fn is_json(data: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok()
}

/// True for the chunk that OpenAI adds for usage: it has an empty list of choices.
fn is_usage_only(frame: &Frame) -> bool {
    let text = std::str::from_utf8(&frame.data).unwrap_or_default();
    let members = crate::json::Members::read(text).ok();
    let choices = members.and_then(|mut members| members.take("choices"));
    choices
        .and_then(crate::json::items)
        .is_some_and(|items| items.is_empty())
}
