//! Streams in OpenAI's format become steps: chat completions, legacy completions and responses.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::response::{content_texts, finish, read_error, usage};
use crate::chat::Step;
use crate::event_stream::Frame;
use crate::failure::{Failure, FailureReason};
use crate::json::{self, Members, Text};

/// Calls of tools in one answer; more is no answer but an attack on memory.
const TOOL_CALLS_MAX: u64 = 1024;

/// Reads a stream of chunks.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    has_begun: bool,
    /// By index of the provider: whether the call has begun.
    calls: Vec<bool>,
}

#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    model: Option<&'a RawValue>,
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    /// Of legacy completions.
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    refusal: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<Text<'a>>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<Call<'a>>>,
}

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    index: Option<&'a RawValue>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    function: Option<Function<'a>>,
}

#[derive(Deserialize)]
struct Function<'a> {
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

impl Decoder {
    /// Reads one frame. Steps of choices other than the first are given too.
    pub(crate) fn frame(&mut self, frame: &Frame, step: &mut dyn FnMut(Step<'_>)) {
        if frame.data.is_empty() {
            return;
        }
        if frame.data.trim_ascii() == b"[DONE]" {
            return step(Step::Done);
        }
        let chunk: Chunk<'_> = match serde_json::from_slice(&frame.data) {
            Ok(chunk) => chunk,
            Err(_) => return step(Step::Failed(unreadable())),
        };
        if let Some(error) = chunk.error.filter(|error| error.get() != "null") {
            return step(Step::Failed(in_stream(error)));
        }
        if !self.has_begun {
            self.has_begun = true;
            step(Step::Start {
                id: chunk.id.and_then(Text::of),
                model: chunk.model.and_then(Text::of),
            });
        }
        for choice in chunk.choices.unwrap_or_default() {
            self.choice(choice, step);
        }
        if let Some(counts) = chunk.usage.filter(|usage| usage.get() != "null") {
            step(Step::Usage(usage(counts)));
        }
    }

    fn choice(&mut self, choice: Choice<'_>, step: &mut dyn FnMut(Step<'_>)) {
        if let Some(text) = choice.text.filter(|text| !text.is_empty()) {
            step(Step::Text(text));
        }
        let is_first = choice.index.unwrap_or(0) == 0;
        if let Some(delta) = choice.delta {
            let thoughts = delta.reasoning_content;
            let thoughts = thoughts.or_else(|| delta.reasoning.and_then(Text::of));
            if let Some(thoughts) = thoughts.filter(|text| !text.is_empty()) {
                step(Step::Thinking(thoughts));
            }
            for text in delta.content.map(content_texts).unwrap_or_default() {
                if !text.is_empty() {
                    step(Step::Text(text));
                }
            }
            if let Some(refusal) = delta.refusal.filter(|text| !text.is_empty()) {
                step(Step::Refusal(refusal));
            }
            for call in delta.tool_calls.unwrap_or_default() {
                self.call(call, step);
            }
        }
        let word = choice.finish_reason.and_then(Text::of);
        if let Some(word) = word.filter(|word| is_first && !word.is_empty()) {
            step(Step::Finish(finish(word.raw())));
        }
    }

    fn call(&mut self, call: Call<'_>, step: &mut dyn FnMut(Step<'_>)) {
        let index = call.index.and_then(json::count);
        // Servers that leave the index out mean the last call, or a new one when they name it.
        let is_named = call.function.as_ref().is_some_and(|f| f.name.is_some());
        let known = self.calls.len() as u64;
        let last = known.saturating_sub(1);
        let index = index.unwrap_or(if is_named { known } else { last });
        let Some(slot) = u32::try_from(index).ok().filter(|_| index < TOOL_CALLS_MAX) else {
            return step(Step::Failed(Failure::bad_answer(
                "the provider's answer calls too many tools",
            )));
        };
        let at = slot as usize;
        if self.calls.len() <= at {
            self.calls.resize(at + 1, false);
        }
        let function = call.function;
        let name = function.as_ref().and_then(|function| function.name.clone());
        if let (false, Some(name)) = (self.calls[at], name) {
            self.calls[at] = true;
            let id = call.id.filter(|id| !id.is_empty());
            step(Step::ToolStart { slot, id, name });
        }
        let Some(arguments) = function.and_then(|function| function.arguments) else {
            return;
        };
        let piece = match Text::of(arguments) {
            Some(piece) => piece,
            // Some servers write an object.
            None if arguments.get().starts_with('{') => Text::new(arguments.get()),
            None => return,
        };
        if !piece.is_empty() {
            step(Step::ToolArguments { slot, piece });
        }
    }
}

fn unreadable() -> Failure {
    Failure::bad_answer("the provider's stream holds a frame that cannot be read")
}

/// The failure of an event of the Responses API, which may say nothing about it.
fn failed(error: Option<&RawValue>) -> Failure {
    error.map_or_else(in_the_middle, in_stream)
}

fn in_the_middle() -> Failure {
    let mut failure = Failure::bad_answer("the provider failed in the middle of its answer");
    failure.reason = FailureReason::Provider;
    failure
}

/// The failure that a provider tells in the middle of a stream.
pub(crate) fn in_stream(error: &RawValue) -> Failure {
    let mut failure = in_the_middle();
    // Shown as it is when it has an unknown form.
    if read_error(error, &mut failure).is_none() {
        failure.message = error.get().chars().take(512).collect();
    }
    failure
}

/// Reads a stream of the Responses API as far as its end, its text and its usage go.
pub(crate) fn responses_frame(frame: &Frame, step: &mut dyn FnMut(Step<'_>)) {
    let Ok(text) = std::str::from_utf8(&frame.data) else {
        return;
    };
    let Ok(mut event) = Members::read(text) else {
        return;
    };
    let Some(kind) = event.take("type").and_then(Text::of) else {
        return;
    };
    match kind.raw() {
        "response.output_text.delta" => {
            if let Some(text) = event.take("delta").and_then(Text::of) {
                step(Step::Text(text));
            }
        }
        "response.completed" | "response.incomplete" | "response.failed" => {
            let response = event.take("response").map(RawValue::get);
            let response = response.and_then(|json| Members::read(json).ok());
            let mut response = response.unwrap_or_default();
            if let Some(counts) = response.take("usage") {
                step(Step::Usage(usage(counts)));
            }
            step(match kind.raw() {
                "response.failed" => Step::Failed(failed(response.take("error"))),
                _ => Step::Done,
            });
        }
        "error" => {
            // Its members stand in the event itself, or in one of it with other servers.
            let told = event.take("error");
            step(Step::Failed(failed(
                told.or_else(|| serde_json::from_str(text).ok()),
            )));
        }
        _ => {}
    }
}
