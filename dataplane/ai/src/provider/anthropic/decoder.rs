//! Streams in Anthropic's format become steps.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::response::{Counts, error, finish};
use crate::chat::Step;
use crate::event_stream::Frame;
use crate::failure::{Failure, FailureReason};
use crate::json::Text;

/// Blocks of one answer that are calls of tools; more is no answer but an attack on memory.
const TOOL_CALLS_MAX: usize = 1024;

/// Reads a stream of events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    counts: Counts,
    /// The calls of tools so far; their place here is their slot.
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Call {
    block: u64,
    has_arguments: bool,
    is_open: bool,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(default)]
    index: Option<u64>,
    #[serde(borrow, default)]
    message: Option<Message<'a>>,
    #[serde(borrow, default)]
    content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    delta: Option<Delta<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    model: Option<Text<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Text<'a>,
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Delta<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(borrow, default)]
    partial_json: Option<Text<'a>>,
    #[serde(borrow, default)]
    thinking: Option<Text<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    stop_sequence: Option<Text<'a>>,
}

impl Decoder {
    /// Reads one frame. Events that are not known are passed over, as Anthropic asks.
    pub(crate) fn frame(&mut self, frame: &Frame, step: &mut dyn FnMut(Step<'_>)) {
        if frame.data.is_empty() {
            return;
        }
        let event: Event<'_> = match serde_json::from_slice(&frame.data) {
            Ok(event) => event,
            Err(_) => {
                let message = "the provider's stream holds an event that cannot be read";
                return step(Step::Failed(Failure::bad_answer(message)));
            }
        };
        let kind = event.kind.as_ref().map_or("", Text::raw);
        match kind {
            "content_block_delta" => self.delta(event, step),
            "content_block_start" => self.start(event, step),
            "content_block_stop" => self.stop(event.index, step),
            "message_start" => {
                let message = event.message;
                let usage = message.as_ref().and_then(|message| message.usage);
                let (id, model) = message.map_or((None, None), |it| (it.id, it.model));
                step(Step::Start { id, model });
                self.usage(usage, step);
            }
            "message_delta" => {
                if let Some(delta) = event.delta
                    && let Some(reason) = delta.stop_reason
                {
                    step(Step::Finish(finish(reason.raw(), delta.stop_sequence)));
                }
                self.usage(event.usage, step);
            }
            "message_stop" => step(Step::Done),
            "error" => step(Step::Failed(in_stream(&frame.data))),
            _ => {}
        }
    }

    fn usage(&mut self, usage: Option<&RawValue>, step: &mut dyn FnMut(Step<'_>)) {
        if let Some(usage) = usage {
            self.counts.update(usage);
            step(Step::Usage(self.counts.usage()));
        }
    }

    fn start(&mut self, event: Event<'_>, step: &mut dyn FnMut(Step<'_>)) {
        let Some(block) = event.content_block else {
            return;
        };
        if let Some(text) = block.text.filter(|text| !text.is_empty()) {
            step(Step::Text(text));
        }
        if block.kind.raw() != "tool_use" {
            return;
        }
        let Some(slot) = u32::try_from(self.calls.len())
            .ok()
            .filter(|_| self.calls.len() < TOOL_CALLS_MAX)
        else {
            let message = "the provider's answer calls too many tools";
            return step(Step::Failed(Failure::bad_answer(message)));
        };
        let input = block.input.map(RawValue::get);
        let input = input.filter(|input| input.bytes().any(|b| !b"{} \t\r\n".contains(&b)));
        self.calls.push(Call {
            block: event.index.unwrap_or(0),
            has_arguments: input.is_some(),
            is_open: true,
        });
        step(Step::ToolStart {
            slot,
            id: block.id,
            name: block.name.unwrap_or_default(),
        });
        if let Some(input) = input {
            let piece = Text::new(input);
            step(Step::ToolArguments { slot, piece });
        }
    }

    fn delta(&mut self, event: Event<'_>, step: &mut dyn FnMut(Step<'_>)) {
        let Some(delta) = event.delta else {
            return;
        };
        let some = |text: Option<Text<'_>>| text.is_some_and(|text| !text.is_empty());
        if let Some(text) = delta.text.filter(|text| !text.is_empty()) {
            step(Step::Text(text));
        } else if let Some(text) = delta.thinking.filter(|text| !text.is_empty()) {
            step(Step::Thinking(text));
        } else if some(delta.partial_json.as_ref().map(Text::borrowed))
            && let Some((slot, call)) = self.open_call(event.index)
        {
            call.has_arguments = true;
            let piece = delta.partial_json.unwrap_or_default();
            step(Step::ToolArguments { slot, piece });
        }
    }

    fn stop(&mut self, index: Option<u64>, step: &mut dyn FnMut(Step<'_>)) {
        let Some((slot, call)) = self.open_call(index) else {
            return;
        };
        call.is_open = false;
        if !call.has_arguments {
            let piece = Text::literal("{}");
            step(Step::ToolArguments { slot, piece });
        }
    }

    fn open_call(&mut self, block: Option<u64>) -> Option<(u32, &mut Call)> {
        let block = block.unwrap_or(0);
        let is_it = |call: &Call| call.is_open && call.block == block;
        let at = self.calls.iter().rposition(is_it)?;
        Some((u32::try_from(at).ok()?, &mut self.calls[at]))
    }
}

fn in_stream(data: &[u8]) -> Failure {
    let mut failure = Failure::bad_answer("the provider failed in the middle of its answer");
    failure.reason = FailureReason::Provider;
    if let Ok(text) = std::str::from_utf8(data) {
        // Without a message of its own, ours stays.
        let _ = error(text, &mut failure);
    }
    if failure.kind.as_deref() == Some("overloaded_error") {
        failure.status = http::StatusCode::SERVICE_UNAVAILABLE;
    }
    failure
}
