//! Answers in Anthropic's format, whole ones: read from providers, written for clients.

use serde_json::value::RawValue;

use crate::chat::{Finish, Part, Response, ToolCall};
use crate::failure::{Failure, FailureReason};
use crate::json::{self, Kind, Members, Object, Text};
use crate::provider::Stamp;
use crate::token::Usage;

/// The counts of an answer as Anthropic names them; in streams the last of each holds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    uncached: Option<u64>,
    read: Option<u64>,
    written: Option<u64>,
    output: Option<u64>,
    thinking: Option<u64>,
}

impl Counts {
    /// Takes over what a member `usage` says.
    pub(super) fn update(&mut self, raw: &RawValue) {
        let Ok(mut usage) = Members::read(raw.get()) else {
            return;
        };
        let mut count = |name: &str| usage.take(name).and_then(json::count);
        self.uncached = count("input_tokens").or(self.uncached);
        self.read = count("cache_read_input_tokens").or(self.read);
        self.written = count("cache_creation_input_tokens").or(self.written);
        self.output = count("output_tokens").or(self.output);
        let details = usage.take("output_tokens_details").map(RawValue::get);
        let details = details.and_then(|json| Members::read(json).ok());
        let thinking = details.and_then(|mut details| details.take("thinking_tokens"));
        self.thinking = thinking.and_then(json::count).or(self.thinking);
    }

    /// The counts as all the rest of the crate means them: cached tokens are part of the input.
    pub(super) fn usage(&self) -> Usage {
        let cached = self
            .read
            .unwrap_or(0)
            .saturating_add(self.written.unwrap_or(0));
        Usage {
            input: self
                .uncached
                .map(|uncached| uncached.saturating_add(cached)),
            cached: self.read,
            cache_write: self.written,
            output: self.output,
            reasoning: self.thinking,
        }
    }
}

/// Reads an answer of messages.
pub(crate) fn read(body: &str) -> Result<Response<'_>, Failure> {
    let bad =
        |what: &str| Failure::bad_answer(format!("the provider's answer cannot be read: {what}"));
    let mut answer = Members::read(body).map_err(|error| bad(&error.to_string()))?;
    let content = answer.take("content");
    let content = content.filter(|raw| json::kind(raw) == Kind::Array);
    let content = content.ok_or_else(|| bad("it holds no content"))?;
    let mut parts = Vec::new();
    for mut block in json::objects(content).map_err(|error| bad(&error.to_string()))? {
        let kind = block.take("type").and_then(Text::of).unwrap_or_default();
        let mut text = |name: &str| block.take(name).and_then(Text::of).unwrap_or_default();
        match kind.raw() {
            "text" => parts.push(Part::Text(text("text"))),
            "thinking" => parts.push(Part::Thinking(text("thinking"))),
            "tool_use" => {
                let (id, name) = (text("id"), text("name"));
                let input = block.take("input").map_or("{}", RawValue::get);
                let arguments = input.to_owned();
                parts.push(Part::ToolCall(ToolCall {
                    id,
                    name,
                    arguments,
                }));
            }
            _ => {}
        }
    }
    let reason = answer
        .take("stop_reason")
        .and_then(Text::of)
        .unwrap_or_default();
    let sequence = answer.take("stop_sequence").and_then(Text::of);
    let finish = finish(reason.raw(), sequence);
    let mut counts = Counts::default();
    let usage = answer.take("usage").map(|raw| {
        counts.update(raw);
        counts.usage()
    });
    Ok(Response {
        id: answer.take("id").and_then(Text::of),
        model: answer.take("model").and_then(Text::of),
        parts,
        is_refusal: false,
        finish,
        usage,
    })
}

/// The meaning of a `stop_reason`; the list grows, and what is new has ended well.
pub(super) fn finish<'a>(reason: &str, sequence: Option<Text<'a>>) -> Finish<'a> {
    match reason {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::ToolCalls,
        "refusal" => Finish::Refusal,
        "stop_sequence" => Finish::StopSequence(sequence),
        _ => Finish::Stop,
    }
}

/// The same without the text that stopped it.
pub(crate) fn finish_of(reason: &str) -> Finish<'static> {
    finish(reason, None)
}

/// Reads the member `usage` of messages.
pub(crate) fn usage(raw: &RawValue) -> Usage {
    let mut counts = Counts::default();
    counts.update(raw);
    counts.usage()
}

/// Writes `stop_reason` and `stop_sequence`.
pub(super) fn write_finish(object: &mut Object<'_>, finish: &Finish<'_>) {
    let (reason, sequence) = match finish {
        Finish::Stop => ("end_turn", None),
        Finish::StopSequence(sequence) => ("stop_sequence", sequence.as_ref()),
        Finish::Length => ("max_tokens", None),
        Finish::ToolCalls => ("tool_use", None),
        Finish::Refusal => ("refusal", None),
    };
    object.word("stop_reason", reason);
    match sequence {
        Some(sequence) => object.text("stop_sequence", sequence),
        None => object.raw("stop_sequence", "null"),
    };
}

/// Writes the members of `usage`: cached tokens come on top of the input here.
pub(super) fn write_usage(member: &mut Object<'_>, usage: &Usage) {
    let cached = usage
        .cached
        .unwrap_or(0)
        .saturating_add(usage.cache_write.unwrap_or(0));
    member.number(
        "input_tokens",
        usage.input.unwrap_or(0).saturating_sub(cached),
    );
    if let Some(written) = usage.cache_write {
        member.number("cache_creation_input_tokens", written);
    }
    if let Some(read) = usage.cached {
        member.number("cache_read_input_tokens", read);
    }
    member.number("output_tokens", usage.output.unwrap_or(0));
}

/// Writes an answer of messages.
pub(crate) fn write(response: &Response<'_>, stamp: &Stamp) -> String {
    let mut out = String::with_capacity(512);
    let mut answer = Object::open(&mut out);
    match &response.id {
        Some(id) if !id.is_empty() => answer.text("id", id),
        _ => answer.text("id", &stamp.id("msg_")),
    };
    answer.word("type", "message").word("role", "assistant");
    answer.text("model", &stamp.model_or(response.model.as_ref()));
    let is_kept = |part: &&Part<'_>| match part {
        Part::Text(text) | Part::Thinking(text) => !text.is_empty(),
        Part::ToolCall(_) => true,
        _ => false,
    };
    let mut calls = 0;
    answer.list(
        "content",
        response.parts.iter().filter(is_kept),
        |out, part| {
            let mut block = Object::open(out);
            match part {
                Part::Thinking(text) => {
                    block
                        .word("type", "thinking")
                        .text("thinking", text)
                        .word("signature", "");
                }
                Part::ToolCall(call) => {
                    block.word("type", "tool_use");
                    if call.id.is_empty() {
                        block.text("id", &stamp.call_id(calls));
                    } else {
                        block.text("id", &call.id);
                    }
                    calls += 1;
                    block.text("name", &call.name).raw("input", &call.arguments);
                }
                Part::Text(text) => {
                    block.word("type", "text").text("text", text);
                }
                _ => {}
            }
            block.close();
        },
    );
    if response.is_refusal {
        write_finish(&mut answer, &Finish::Refusal);
    } else {
        write_finish(&mut answer, &response.finish);
    }
    answer.object("usage", |member| {
        write_usage(member, &response.usage.unwrap_or_default());
    });
    answer.close();
    out
}

/// Reads an error of a provider that speaks this dialect; `None` when the body holds none.
pub(crate) fn error(body: &str, failure: &mut Failure) -> Option<()> {
    let error = Members::read(body).ok()?.take("error")?;
    let mut error = Members::read(error.get()).ok()?;
    let message = error.take("message").and_then(Text::of)?;
    failure.message = message.plain().into_owned();
    let kind = error.take("type").and_then(Text::of);
    failure.kind = kind.map(|kind| kind.plain().into_owned());
    failure.reason = FailureReason::Provider;
    Some(())
}
