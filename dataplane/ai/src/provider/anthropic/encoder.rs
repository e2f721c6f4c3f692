//! Steps become a stream of events in Anthropic's format.

use crate::chat::{Finish, Step};
use crate::failure::ClientFormat;
use crate::json::{Object, Text, push_number, quote};
use crate::provider::Stamp;
use crate::provider::anthropic::response::{write_finish, write_usage};
use crate::token::Usage;

/// Writes a stream of events.
#[derive(Debug)]
pub(crate) struct Encoder {
    stamp: Stamp,
    has_begun: bool,
    blocks: u64,
    /// The block of text or thoughts that is open; calls of tools stay open to the end, because some
    /// providers write several at once.
    open: Option<(Prose, u64)>,
    /// The block of each call, by slot.
    calls: Vec<Option<u64>>,
    finish: Option<Finish<'static>>,
    usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prose {
    Text,
    Thinking,
}

impl Encoder {
    pub(crate) fn new(stamp: Stamp) -> Self {
        Self {
            stamp,
            has_begun: false,
            blocks: 0,
            open: None,
            calls: Vec::new(),
            finish: None,
            usage: Usage::default(),
        }
    }

    /// Writes one step.
    pub(crate) fn step(&mut self, step: Step<'_>, out: &mut String) {
        match step {
            Step::Start { id, model } => self.begin(id, model, out),
            Step::Text(text) => self.prose(Prose::Text, &text, out),
            Step::Refusal(text) => {
                self.finish = Some(Finish::Refusal);
                self.prose(Prose::Text, &text, out);
            }
            Step::Thinking(text) => self.prose(Prose::Thinking, &text, out),
            Step::ToolStart { slot, id, name } => self.call(slot, id, &name, out),
            Step::ToolArguments { slot, piece } => {
                if let Some(Some(block)) = self.calls.get(slot as usize) {
                    delta(out, *block, "input_json_delta", "partial_json", &piece);
                }
            }
            Step::Finish(finish) => {
                if self.finish != Some(Finish::Refusal) {
                    self.finish = Some(finish.into_owned());
                }
            }
            Step::Usage(usage) => self.usage.update(&usage),
            Step::Done => self.end(out),
            Step::Failed(failure) => {
                let frame = failure.frame(ClientFormat::Anthropic);
                out.push_str(std::str::from_utf8(&frame).unwrap_or_default());
            }
        }
    }

    fn begin(&mut self, id: Option<Text<'_>>, model: Option<Text<'_>>, out: &mut String) {
        self.has_begun = true;
        out.push_str("event: message_start\ndata: ");
        let mut event = Object::open(out);
        event.word("type", "message_start");
        event.object("message", |message| {
            match id.filter(|id| !id.is_empty()) {
                Some(id) => message.text("id", &id),
                None => message.text("id", &self.stamp.id("msg_")),
            };
            message
                .word("type", "message")
                .word("role", "assistant")
                .text("model", &self.stamp.model_or(model.as_ref()))
                .raw("content", "[]")
                .raw("stop_reason", "null")
                .raw("stop_sequence", "null");
            message.object("usage", |member| write_usage(member, &self.usage));
        });
        event.close();
        out.push_str("\n\n");
    }

    fn prose(&mut self, kind: Prose, text: &Text<'_>, out: &mut String) {
        let block = match self.open {
            Some((open, block)) if open == kind => block,
            _ => {
                self.close_prose(out);
                let block = self.start_block(out);
                out.push_str(match kind {
                    Prose::Text => r#"{"type":"text","text":""}"#,
                    Prose::Thinking => r#"{"type":"thinking","thinking":"","signature":""}"#,
                });
                out.push_str("}\n\n");
                self.open = Some((kind, block));
                block
            }
        };
        match kind {
            Prose::Text => delta(out, block, "text_delta", "text", text),
            Prose::Thinking => delta(out, block, "thinking_delta", "thinking", text),
        }
    }

    fn call(&mut self, slot: u32, id: Option<Text<'_>>, name: &Text<'_>, out: &mut String) {
        self.close_prose(out);
        let block = self.start_block(out);
        let mut entry = Object::open(out);
        entry.word("type", "tool_use");
        match id {
            Some(id) => entry.text("id", &id),
            None => entry.text("id", &self.stamp.call_id(slot)),
        };
        entry.text("name", name).raw("input", "{}");
        entry.close();
        out.push_str("}\n\n");
        let at = slot as usize;
        if self.calls.len() <= at {
            self.calls.resize(at + 1, None);
        }
        self.calls[at] = Some(block);
    }

    /// Begins the event that begins a block, up to the block itself.
    fn start_block(&mut self, out: &mut String) -> u64 {
        if !self.has_begun {
            self.begin(None, None, out);
        }
        let block = self.blocks;
        self.blocks += 1;
        out.push_str(
            "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":",
        );
        push_number(out, block);
        out.push_str(",\"content_block\":");
        block
    }

    fn close_prose(&mut self, out: &mut String) {
        if let Some((_, block)) = self.open.take() {
            stop_block(out, block);
        }
    }

    fn end(&mut self, out: &mut String) {
        if !self.has_begun {
            self.begin(None, None, out);
        }
        self.close_prose(out);
        for block in std::mem::take(&mut self.calls).into_iter().flatten() {
            stop_block(out, block);
        }
        out.push_str("event: message_delta\ndata: ");
        let mut event = Object::open(out);
        event.word("type", "message_delta");
        let finish = self.finish.take().unwrap_or_default();
        event.object("delta", |delta| write_finish(delta, &finish));
        event.object("usage", |member| write_usage(member, &self.usage));
        event.close();
        out.push_str("\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
    }
}

fn delta(out: &mut String, block: u64, kind: &str, name: &str, text: &Text<'_>) {
    out.push_str("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
    push_number(out, block);
    out.push_str(",\"delta\":{\"type\":\"");
    out.push_str(kind);
    out.push_str("\",\"");
    out.push_str(name);
    out.push_str("\":");
    quote(out, text);
    out.push_str("}}\n\n");
}

fn stop_block(out: &mut String, block: u64) {
    out.push_str("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":");
    push_number(out, block);
    out.push_str("}\n\n");
}
