//! Answers in OpenAI's format, whole ones: read from providers, written for clients.

use serde_json::value::RawValue;

use super::write_request::write_call;
use crate::chat::{Finish, Part, Response, ToolCall};
use crate::failure::{Failure, FailureReason};
use crate::json::{self, Kind, Members, Object, Text};
use crate::provider::Stamp;
use crate::provider::openai::request::arguments_object;
use crate::token::Usage;

/// Reads an answer of chat completions.
pub(crate) fn read(body: &str) -> Result<Response<'_>, Failure> {
    let mut answer = members(body)?;
    let choice = answer.take("choices").and_then(json::items);
    let choice = choice.and_then(|choices| choices.first().copied());
    let choice = choice.ok_or_else(|| bad("it holds no choice"))?;
    let mut choice = members(choice.get())?;
    let message = choice
        .take("message")
        .ok_or_else(|| bad("it holds no message"))?;
    let mut message = members(message.get())?;
    let mut parts = Vec::new();
    let thoughts = message.take("reasoning_content");
    if let Some(thoughts) = thoughts
        .or_else(|| message.take("reasoning"))
        .and_then(Text::of)
    {
        parts.push(Part::Thinking(thoughts));
    }
    if let Some(content) = message.take("content") {
        parts.extend(content_texts(content).into_iter().map(Part::Text));
    }
    let refusal = message.take("refusal").and_then(Text::of);
    let is_refusal = refusal.is_some();
    parts.extend(refusal.map(Part::Text));
    let calls = message.take("tool_calls").and_then(json::items);
    for call in calls.unwrap_or_default() {
        parts.push(Part::ToolCall(read_call(call)?));
    }
    if let Some(call) = message.take("function_call") {
        let (name, arguments) = read_function(call)?;
        let id = Text::literal("call_0");
        parts.push(Part::ToolCall(ToolCall {
            id,
            name,
            arguments,
        }));
    }
    Ok(Response {
        id: answer.take("id").and_then(Text::of),
        model: answer.take("model").and_then(Text::of),
        parts,
        is_refusal,
        finish: choice
            .take("finish_reason")
            .and_then(Text::of)
            .map_or(Finish::Stop, |word| finish(word.raw())),
        usage: answer.take("usage").map(usage),
    })
}

pub(super) fn members(json: &str) -> Result<Members<'_>, Failure> {
    Members::read(json).map_err(|error| bad(&error.to_string()))
}

pub(super) fn bad(what: &str) -> Failure {
    Failure::bad_answer(format!("the provider's answer cannot be read: {what}"))
}

/// Text as a string or, as some servers write it, as a list of parts.
pub(super) fn content_texts(content: &RawValue) -> Vec<Text<'_>> {
    match json::kind(content) {
        Kind::String => Text::of(content).into_iter().collect(),
        Kind::Array => {
            let items = json::items(content).unwrap_or_default().into_iter();
            let text = |item: &RawValue| {
                let json = item.get();
                let mut part = Members::read(json).ok()?;
                part.take("text").and_then(Text::of).map(Text::into_owned)
            };
            items.filter_map(text).collect()
        }
        _ => Vec::new(),
    }
}

fn read_call(call: &RawValue) -> Result<ToolCall<'_>, Failure> {
    let mut call = members(call.get())?;
    let id = call.take("id").and_then(Text::of).unwrap_or_default();
    let function = call
        .take("function")
        .ok_or_else(|| bad("a call names no function"))?;
    let (name, arguments) = read_function(function)?;
    Ok(ToolCall {
        id,
        name,
        arguments,
    })
}

fn read_function(function: &RawValue) -> Result<(Text<'_>, String), Failure> {
    let mut function = members(function.get())?;
    let name = function.take("name").and_then(Text::of);
    let name = name.ok_or_else(|| bad("a call names no function"))?;
    let arguments = function
        .take("arguments")
        .and_then(Text::of)
        .unwrap_or_default();
    let arguments = arguments_object(&arguments)
        .ok_or_else(|| bad("the arguments of a call are not a JSON object"))?;
    Ok((name, arguments))
}

/// The meaning of a `finish_reason`.
pub(crate) fn finish(word: &str) -> Finish<'static> {
    match word {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        "content_filter" => Finish::Refusal,
        _ => Finish::Stop,
    }
}

/// Reads the member `usage` of chat completions, completions or embeddings.
pub(crate) fn usage(raw: &RawValue) -> Usage {
    let Ok(mut usage) = Members::read(raw.get()) else {
        return Usage::default();
    };
    let details = |raw: Option<&'_ RawValue>, name: &str| {
        let mut details = Members::read(raw?.get()).ok()?;
        details.take(name).and_then(json::count)
    };
    let input = usage
        .take("prompt_tokens")
        .or_else(|| usage.take("input_tokens"));
    let output = usage
        .take("completion_tokens")
        .or_else(|| usage.take("output_tokens"));
    let of_input = usage.take("prompt_tokens_details");
    let of_input = of_input.or_else(|| usage.take("input_tokens_details"));
    let of_output = usage.take("completion_tokens_details");
    let of_output = of_output.or_else(|| usage.take("output_tokens_details"));
    let input = input.and_then(json::count);
    let total = usage.take("total_tokens").and_then(json::count);
    let rest = total
        .zip(input)
        .map(|(total, input)| total.saturating_sub(input));
    Usage {
        input,
        cached: details(of_input, "cached_tokens"),
        cache_write: details(of_input, "cache_write_tokens"),
        // Embeddings have no answer; what is missing is the rest of the total.
        output: output.and_then(json::count).or(rest),
        reasoning: details(of_output, "reasoning_tokens"),
    }
}

/// Writes an answer of chat completions.
pub(crate) fn write(response: &Response<'_>, stamp: &Stamp) -> String {
    let mut out = String::with_capacity(512);
    let mut answer = Object::open(&mut out);
    match &response.id {
        Some(id) if !id.is_empty() => answer.text("id", id),
        _ => answer.text("id", &stamp.id("chatcmpl-")),
    };
    answer
        .word("object", "chat.completion")
        .number("created", stamp.created);
    answer.text("model", &stamp.model_or(response.model.as_ref()));
    answer.list("choices", [response], |out, response| {
        let mut choice = Object::open(out);
        choice.number("index", 0);
        choice.object("message", |message| write_message(message, response, stamp));
        choice.raw("logprobs", "null");
        choice.word("finish_reason", response.finish.as_str());
        choice.close();
    });
    if let Some(usage) = &response.usage {
        answer.object("usage", |member| write_usage(member, usage));
    }
    answer.close();
    out
}

fn write_message(message: &mut Object<'_>, response: &Response<'_>, stamp: &Stamp) {
    let mut content: Option<Text<'_>> = None;
    let mut thoughts: Option<Text<'_>> = None;
    let mut calls = Vec::new();
    for part in &response.parts {
        match part {
            Part::Text(text) => content.get_or_insert_default().append(text),
            Part::Thinking(text) => thoughts.get_or_insert_default().append(text),
            Part::ToolCall(call) => calls.push(call),
            _ => {}
        }
    }
    message.word("role", "assistant");
    let refusal = content.take_if(|_| response.is_refusal);
    for (name, text) in [("content", &content), ("refusal", &refusal)] {
        match text {
            Some(text) => message.text(name, text),
            None => message.raw(name, "null"),
        };
    }
    if let Some(thoughts) = &thoughts {
        message.text("reasoning_content", thoughts);
    }
    if !calls.is_empty() {
        let calls = (0..).zip(calls);
        message.list("tool_calls", calls, |out, (slot, call)| {
            if call.id.is_empty() {
                write_call(out, call, &stamp.call_id(slot));
            } else {
                write_call(out, call, &call.id);
            }
        });
    }
}

/// Writes the members of `usage`.
pub(crate) fn write_usage(member: &mut Object<'_>, usage: &Usage) {
    member
        .number("prompt_tokens", usage.input.unwrap_or(0))
        .number("completion_tokens", usage.output.unwrap_or(0))
        .number("total_tokens", usage.total());
    if usage.cached.is_some() || usage.cache_write.is_some() {
        member.object("prompt_tokens_details", |details| {
            details.number("cached_tokens", usage.cached.unwrap_or(0));
            if let Some(written) = usage.cache_write {
                details.number("cache_write_tokens", written);
            }
        });
    }
    if let Some(reasoning) = usage.reasoning {
        member.object("completion_tokens_details", |details| {
            details.number("reasoning_tokens", reasoning);
        });
    }
}

/// Reads an error of a provider that speaks this dialect; `None` when the body holds none.
pub(crate) fn error(body: &str, failure: &mut Failure) -> Option<()> {
    let mut members = Members::read(body).ok()?;
    read_error(members.take("error")?, failure)
}

/// Reads the member `error`, which some servers write as a string.
pub(crate) fn read_error(error: &RawValue, failure: &mut Failure) -> Option<()> {
    if let Some(text) = Text::of(error) {
        failure.message = text.plain().into_owned();
        failure.reason = FailureReason::Provider;
        return Some(());
    }
    let mut error = Members::read(error.get()).ok()?;
    let mut word = |name: &str| {
        let raw = error.take(name)?;
        // Codes are numbers with some servers.
        Some(Text::of(raw).map_or_else(|| raw.get().to_owned(), |text| text.plain().into_owned()))
    };
    failure.message = word("message")?;
    failure.kind = word("type");
    failure.param = word("param");
    failure.code = word("code");
    failure.reason = FailureReason::Provider;
    Some(())
}
