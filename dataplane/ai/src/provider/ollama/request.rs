//! Requests for `/api/chat`, written for clients of another format.

use std::collections::HashMap;

use serde_json::value::RawValue;

use crate::chat::{AnswerFormat, Media, Part, Reasoning, Request, ToolCall, ToolChoice, Turn};
use crate::failure::Failure;
use crate::json::{Object, Text, array, quote};
use crate::left_behind::LeftBehind;
use crate::provider::openai::write_request::{bool_word, write_tool};

/// Writes a request for chat.
pub(crate) fn write(
    request: &Request<'_>,
    model: &str,
    left_behind: &mut LeftBehind,
) -> Result<String, Failure> {
    let mut out = String::with_capacity(1024);
    let mut body = Object::open(&mut out);
    body.text("model", &Text::new(model));
    let messages = messages(&request.turns)?;
    array(body.member("messages"), &messages, |out, message| {
        out.push_str(message);
    });
    // Ollama streams unless it is told not to.
    body.raw("stream", bool_word(request.is_stream));
    match &request.format {
        AnswerFormat::Text => {}
        AnswerFormat::JsonObject => {
            body.word("format", "json");
        }
        AnswerFormat::JsonSchema { schema, .. } => {
            body.raw("format", schema.get());
        }
    }
    tools(request, &mut body, left_behind);
    match request.reasoning {
        None => {}
        Some(Reasoning::None) => {
            body.raw("think", "false");
        }
        Some(effort) => {
            body.word(
                "think",
                match effort {
                    Reasoning::None | Reasoning::Minimal | Reasoning::Low => "low",
                    Reasoning::Medium => "medium",
                    Reasoning::High => "high",
                    Reasoning::XHigh | Reasoning::Max => "max",
                },
            );
        }
    }
    options(request, &mut body);
    if request.user.is_some() {
        left_behind.note("user");
    }
    body.close();
    Ok(out)
}

fn options(request: &Request<'_>, body: &mut Object<'_>) {
    let numbers: [(&str, Option<&RawValue>); 7] = [
        ("num_predict", request.max_tokens),
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("top_k", request.top_k),
        ("seed", request.seed),
        ("frequency_penalty", request.frequency_penalty),
        ("presence_penalty", request.presence_penalty),
    ];
    if request.stop.is_empty() && numbers.iter().all(|(_, number)| number.is_none()) {
        return;
    }
    body.object("options", |options| {
        for (name, number) in numbers {
            options.maybe(name, number);
        }
        if !request.stop.is_empty() {
            options.list("stop", &request.stop, |out, stop| quote(out, stop));
        }
    });
}

/// Ollama has no choice of tools: none is said by leaving them out, one by offering no other.
fn tools(request: &Request<'_>, body: &mut Object<'_>, left_behind: &mut LeftBehind) {
    let is_offered = |name: &Text<'_>| match &request.tool_choice {
        Some(ToolChoice::None) => false,
        Some(ToolChoice::Named(only)) => name == only,
        _ => true,
    };
    let offered = request.tools.iter().filter(|tool| is_offered(&tool.name));
    let offered: Vec<_> = offered.collect();
    if matches!(
        request.tool_choice,
        Some(ToolChoice::Any | ToolChoice::Named(_))
    ) {
        left_behind.note("tool_choice");
    }
    if offered.is_empty() {
        return;
    }
    if request.parallel_tool_calls.is_some() {
        left_behind.note("parallel_tool_calls");
    }
    body.list("tools", offered, |out, tool| write_tool(out, tool));
}

fn messages(turns: &[Turn<'_>]) -> Result<Vec<String>, Failure> {
    let mut messages = Vec::with_capacity(turns.len());
    // Templates need the tool's name beside its result; it stands with the call.
    let mut names: HashMap<&str, &Text<'_>> = HashMap::new();
    for turn in turns {
        match turn {
            Turn::System(texts) => {
                let mut joined = Text::default();
                for text in texts.iter().filter(|text| !text.is_blank()) {
                    joined.append_line(text);
                }
                messages.push(message("system", &joined, &[], |_| {}));
            }
            Turn::User(parts) => user(parts, &names, &mut messages)?,
            Turn::Assistant(parts) => {
                let (text, images, turn_calls) = split(parts)?;
                messages.push(message("assistant", &text, &images, |message| {
                    if !turn_calls.is_empty() {
                        message.list("tool_calls", &turn_calls, |out, call| {
                            write_call(out, call);
                        });
                    }
                }));
                names.extend(turn_calls.iter().map(|call| (call.id.raw(), &call.name)));
            }
        }
    }
    Ok(messages)
}

fn user(
    parts: &[Part<'_>],
    names: &HashMap<&str, &Text<'_>>,
    messages: &mut Vec<String>,
) -> Result<(), Failure> {
    for part in parts {
        let Part::ToolResult(result) = part else {
            continue;
        };
        let (text, images, _) = split(&result.content)?;
        let of_call = || names.get(result.id.raw()).copied();
        let name = result.name.as_ref().or_else(of_call);
        messages.push(message("tool", &text, &images, |message| {
            if let Some(name) = name {
                message.text("tool_name", name);
            }
            message.text("tool_call_id", &result.id);
        }));
    }
    if parts
        .iter()
        .any(|part| !matches!(part, Part::ToolResult(_)))
    {
        let (text, images, _) = split(parts)?;
        messages.push(message("user", &text, &images, |_| {}));
    }
    Ok(())
}

type Split<'r, 'a> = (Text<'a>, Vec<&'r Text<'a>>, Vec<&'r ToolCall<'a>>);

/// Text, images and calls of a turn, apart, as Ollama has them.
fn split<'r, 'a>(parts: &'r [Part<'a>]) -> Result<Split<'r, 'a>, Failure> {
    let mut text = Text::default();
    let mut images = Vec::new();
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::Text(more) => text.append_line(more),
            Part::Image(Media::Base64 { data, .. }) => images.push(data),
            Part::Image(Media::Url(_)) => {
                let message = "this provider takes images as data URLs only, it fetches nothing";
                return Err(Failure::unsupported(
                    "messages[].content[].image_url",
                    message,
                ));
            }
            Part::Document(_) => {
                let message = "this provider takes no documents";
                return Err(Failure::unsupported("messages[].content[]", message));
            }
            Part::ToolCall(call) => calls.push(call),
            Part::Thinking(_) | Part::ToolResult(_) => {}
        }
    }
    Ok((text, images, calls))
}

fn message(
    role: &str,
    text: &Text<'_>,
    images: &[&Text<'_>],
    more: impl FnOnce(&mut Object<'_>),
) -> String {
    let mut out = String::with_capacity(64 + text.raw().len());
    let mut message = Object::open(&mut out);
    message.word("role", role).text("content", text);
    if !images.is_empty() {
        message.list("images", images, |out, image| quote(out, image));
    }
    more(&mut message);
    message.close();
    out
}

fn write_call(out: &mut String, call: &ToolCall<'_>) {
    let mut entry = Object::open(out);
    entry.text("id", &call.id);
    entry.object("function", |function| {
        function
            .text("name", &call.name)
            .raw("arguments", &call.arguments);
    });
    entry.close();
}
