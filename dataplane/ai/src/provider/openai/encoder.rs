//! Steps become a stream of chunks in OpenAI's format.

use crate::chat::{Finish, Step};
use crate::failure::ClientFormat;
use crate::json::{Object, Text, push_number, quote};
use crate::provider::Stamp;
use crate::provider::openai::response::write_usage;
use crate::token::Usage;

/// Writes a stream of chunks.
#[derive(Debug)]
pub(crate) struct Encoder {
    stamp: Stamp,
    /// What all chunks begin with; empty until the answer has begun.
    head: String,
    wants_usage: bool,
    finish: Option<Finish<'static>>,
    usage: Usage,
}

impl Encoder {
    /// One for a client that asked for usage, or not.
    pub(crate) fn new(stamp: Stamp, wants_usage: bool) -> Self {
        Self {
            stamp,
            head: String::new(),
            wants_usage,
            finish: None,
            usage: Usage::default(),
        }
    }

    /// Writes one step.
    pub(crate) fn step(&mut self, step: Step<'_>, out: &mut String) {
        match step {
            Step::Start { id, model } => self.begin(id, model, out),
            Step::Text(text) => self.delta("content", &text, out),
            Step::Refusal(text) => self.delta("refusal", &text, out),
            Step::Thinking(text) => self.delta("reasoning_content", &text, out),
            Step::ToolStart { slot, id, name } => {
                self.open(out);
                out.push_str(r#"{"tool_calls":[{"index":"#);
                push_number(out, u64::from(slot));
                out.push_str(r#","id":"#);
                match id {
                    Some(id) => quote(out, &id),
                    None => quote(out, &self.stamp.call_id(slot)),
                }
                out.push_str(r#","type":"function","function":{"name":"#);
                quote(out, &name);
                out.push_str(r#","arguments":""}}]}"#);
                close(out);
            }
            Step::ToolArguments { slot, piece } => {
                self.open(out);
                out.push_str(r#"{"tool_calls":[{"index":"#);
                push_number(out, u64::from(slot));
                out.push_str(r#","function":{"arguments":"#);
                quote(out, &piece);
                out.push_str("}}]}");
                close(out);
            }
            Step::Finish(finish) => self.finish = Some(finish.into_owned()),
            Step::Usage(usage) => self.usage.update(&usage),
            Step::Done => self.end(out),
            Step::Failed(failure) => {
                let frame = failure.frame(ClientFormat::OpenAi);
                out.push_str(std::str::from_utf8(&frame).unwrap_or_default());
            }
        }
    }

    fn begin(&mut self, id: Option<Text<'_>>, model: Option<Text<'_>>, out: &mut String) {
        let mut head = String::with_capacity(160);
        head.push_str("data: ");
        // The object is closed by each chunk.
        let mut chunk = Object::open(&mut head);
        match id.filter(|id| !id.is_empty()) {
            Some(id) => chunk.text("id", &id),
            None => chunk.text("id", &self.stamp.id("chatcmpl-")),
        };
        chunk
            .word("object", "chat.completion.chunk")
            .number("created", self.stamp.created)
            .text("model", &self.stamp.model_or(model.as_ref()));
        self.head = head;
        self.open(out);
        out.push_str(r#"{"role":"assistant","content":""}"#);
        close(out);
    }

    fn delta(&mut self, name: &str, text: &Text<'_>, out: &mut String) {
        self.open(out);
        out.push_str("{\"");
        out.push_str(name);
        out.push_str("\":\"");
        out.push_str(text.raw());
        out.push_str("\"}");
        close(out);
    }

    /// Begins a chunk with one choice, up to its delta.
    fn open(&mut self, out: &mut String) {
        if self.head.is_empty() {
            self.begin(None, None, out);
        }
        out.push_str(&self.head);
        out.push_str(r#","choices":[{"index":0,"delta":"#);
    }

    fn end(&mut self, out: &mut String) {
        self.open(out);
        out.push_str(r#"{},"finish_reason":""#);
        out.push_str(self.finish.take().unwrap_or_default().as_str());
        out.push_str("\"}]}\n\n");
        if self.wants_usage {
            out.push_str(&self.head);
            out.push_str(r#","choices":[],"usage":"#);
            let mut usage = Object::open(out);
            write_usage(&mut usage, &self.usage);
            usage.close();
            out.push_str("}\n\n");
        }
        out.push_str("data: [DONE]\n\n");
    }
}

/// Ends a chunk after its delta.
fn close(out: &mut String) {
    out.push_str(",\"finish_reason\":null}]}\n\n");
}
