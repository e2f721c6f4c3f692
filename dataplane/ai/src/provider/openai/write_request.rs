//! Requests in OpenAI's format, written for clients of another format.

use serde_json::value::RawValue;

use crate::chat::{
    AnswerFormat, Media, Part, Reasoning, Request, Tool, ToolCall, ToolChoice, Turn,
};
use crate::failure::Failure;
use crate::json::{Members, Object, Text, array, quote};
use crate::left_behind::LeftBehind;
use crate::provider::Limit;
use crate::provider::fields::must_be;

/// Writes a request for chat completions. Streams are always asked for their usage.
pub(crate) fn write(
    request: &Request<'_>,
    model: &str,
    limit: Limit,
    left_behind: &mut LeftBehind,
) -> Result<String, Failure> {
    let mut out = String::with_capacity(1024);
    let mut body = Object::open(&mut out);
    body.text("model", &Text::new(model));
    let mut result = Ok(());
    array_of_messages(&request.turns, body.member("messages"), &mut result);
    result?;
    let limit = match limit.has_older_name {
        true => "max_tokens",
        false => "max_completion_tokens",
    };
    body.maybe(limit, request.max_tokens)
        .maybe("temperature", request.temperature)
        .maybe("top_p", request.top_p)
        .maybe("seed", request.seed)
        .maybe("frequency_penalty", request.frequency_penalty)
        .maybe("presence_penalty", request.presence_penalty);
    if request.top_k.is_some() {
        left_behind.note("top_k");
    }
    if !request.stop.is_empty() {
        body.list("stop", &request.stop, |out, text| quote(out, text));
    }
    if !request.tools.is_empty() {
        body.list("tools", &request.tools, |out, tool| write_tool(out, tool));
        if let Some(choice) = &request.tool_choice {
            match choice {
                ToolChoice::Auto => body.word("tool_choice", "auto"),
                ToolChoice::Any => body.word("tool_choice", "required"),
                ToolChoice::None => body.word("tool_choice", "none"),
                ToolChoice::Named(name) => body.object("tool_choice", |choice| {
                    choice.word("type", "function");
                    choice.object("function", |function| {
                        function.text("name", name);
                    });
                }),
            };
        }
        if let Some(parallel) = request.parallel_tool_calls {
            body.raw("parallel_tool_calls", bool_word(parallel));
        }
    }
    write_format(&mut body, &request.format);
    if let Some(effort) = request.reasoning {
        body.word("reasoning_effort", effort_word(effort));
    }
    if let Some(user) = &request.user {
        body.text("user", user);
    }
    if request.is_stream {
        body.raw("stream", "true");
        body.raw("stream_options", r#"{"include_usage":true}"#);
    }
    body.close();
    Ok(out)
}

fn write_format(body: &mut Object<'_>, format: &AnswerFormat<'_>) {
    match format {
        AnswerFormat::Text => {}
        AnswerFormat::JsonObject => {
            body.raw("response_format", r#"{"type":"json_object"}"#);
        }
        AnswerFormat::JsonSchema {
            name,
            schema,
            is_strict,
        } => {
            body.object("response_format", |format| {
                format.word("type", "json_schema");
                format.object("json_schema", |named| {
                    let default = Text::literal("answer");
                    named.text("name", name.as_ref().unwrap_or(&default));
                    named.raw("schema", schema.get());
                    if let Some(is_strict) = is_strict {
                        named.raw("strict", bool_word(*is_strict));
                    }
                });
            });
        }
    }
}

pub(crate) fn bool_word(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

fn effort_word(effort: Reasoning) -> &'static str {
    match effort {
        Reasoning::None => "none",
        Reasoning::Minimal => "minimal",
        Reasoning::Low => "low",
        Reasoning::Medium => "medium",
        Reasoning::High => "high",
        Reasoning::XHigh | Reasoning::Max => "xhigh",
    }
}

/// Writes a tool as OpenAI and Ollama read it.
pub(crate) fn write_tool(out: &mut String, tool: &Tool<'_>) {
    let mut entry = Object::open(out);
    entry.word("type", "function");
    entry.object("function", |function| {
        function.text("name", &tool.name);
        if let Some(description) = &tool.description {
            function.text("description", description);
        }
        function.maybe("parameters", tool.schema);
        if let Some(is_strict) = tool.is_strict {
            function.raw("strict", bool_word(is_strict));
        }
    });
    entry.close();
}

fn array_of_messages(turns: &[Turn<'_>], out: &mut String, result: &mut Result<(), Failure>) {
    let mut messages: Vec<String> = Vec::with_capacity(turns.len());
    for turn in turns {
        match turn {
            Turn::System(texts) => messages.push(system(texts)),
            Turn::User(parts) => {
                if let Err(failure) = user(parts, &mut messages) {
                    *result = Err(failure);
                }
            }
            Turn::Assistant(parts) => messages.push(write_assistant(parts)),
        }
    }
    array(out, &messages, |out, message| out.push_str(message));
}

fn system(texts: &[Text<'_>]) -> String {
    let mut joined = Text::default();
    for text in texts.iter().filter(|text| !text.is_blank()) {
        joined.append_line(text);
    }
    let mut out = String::new();
    let mut message = Object::open(&mut out);
    message.word("role", "system").text("content", &joined);
    message.close();
    out
}

/// Results of tools are messages of their own and come first; their images go to the user's message.
fn user(parts: &[Part<'_>], messages: &mut Vec<String>) -> Result<(), Failure> {
    let mut rest: Vec<&Part<'_>> = Vec::new();
    for part in parts {
        let Part::ToolResult(result) = part else {
            rest.push(part);
            continue;
        };
        let mut text = Text::default();
        for part in &result.content {
            match part {
                Part::Text(more) => text.append_line(more),
                other => rest.push(other),
            }
        }
        let mut out = String::new();
        let mut message = Object::open(&mut out);
        message
            .word("role", "tool")
            .text("tool_call_id", &result.id)
            .text("content", &text);
        message.close();
        messages.push(out);
    }
    if rest.is_empty() {
        return Ok(());
    }
    let mut out = String::new();
    let mut message = Object::open(&mut out);
    message.word("role", "user");
    if let [Part::Text(text)] = rest.as_slice() {
        message.text("content", text);
    } else {
        let mut failed = None;
        message.list("content", rest, |out, part| {
            if let Err(failure) = write_part(out, part) {
                failed = Some(failure);
            }
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
    }
    message.close();
    messages.push(out);
    Ok(())
}

fn write_part(out: &mut String, part: &Part<'_>) -> Result<(), Failure> {
    let mut entry = Object::open(out);
    match part {
        Part::Text(text) | Part::Thinking(text) => {
            entry.word("type", "text").text("text", text);
        }
        Part::Image(media) => {
            entry.word("type", "image_url");
            entry.object("image_url", |image| {
                image.text("url", &data_url(media));
            });
        }
        Part::Document(media @ Media::Base64 { .. }) => {
            entry.word("type", "file");
            entry.object("file", |file| {
                file.word("filename", "document");
                file.text("file_data", &data_url(media));
            });
        }
        Part::Document(Media::Url(_)) => {
            let message = "this provider takes documents as base64 only";
            return Err(Failure::unsupported("messages[].content[].source", message));
        }
        Part::ToolCall(_) | Part::ToolResult(_) => {
            return Err(must_be("messages[].content[]", "allowed in this place"));
        }
    }
    entry.close();
    Ok(())
}

fn data_url(media: &Media<'_>) -> Text<'static> {
    match media {
        Media::Url(url) => url.clone().into_owned(),
        Media::Base64 { media_type, data } => {
            let mut url = Text::literal("data:");
            url.append(media_type);
            url.append(&Text::literal(";base64,"));
            url.append(data);
            url
        }
    }
}

fn write_assistant(parts: &[Part<'_>]) -> String {
    let mut text: Option<Text<'_>> = None;
    let mut calls = Vec::new();
    for part in parts {
        match part {
            Part::Text(more) => text.get_or_insert_default().append_line(more),
            Part::ToolCall(call) => calls.push(call),
            _ => {}
        }
    }
    let mut out = String::new();
    let mut message = Object::open(&mut out);
    message.word("role", "assistant");
    match &text {
        Some(text) => message.text("content", text),
        None => message.raw("content", "null"),
    };
    if !calls.is_empty() {
        message.list("tool_calls", calls, |out, call| {
            write_call(out, call, &call.id)
        });
    }
    message.close();
    out
}

/// Writes a call with its arguments as a string.
pub(crate) fn write_call(out: &mut String, call: &ToolCall<'_>, id: &Text<'_>) {
    let mut entry = Object::open(out);
    entry.text("id", id).word("type", "function");
    entry.object("function", |function| {
        function
            .text("name", &call.name)
            .text("arguments", &Text::new(&call.arguments));
    });
    entry.close();
}

/// A schema that names its type, as others ask for: an object when nothing is said.
pub(crate) fn object_schema(schema: Option<&RawValue>) -> Result<String, Failure> {
    let Some(schema) = schema else {
        return Ok(r#"{"type":"object","properties":{}}"#.to_owned());
    };
    let mut members = Members::read(schema.get())
        .map_err(|_| must_be("tools[].function.parameters", "an object"))?;
    if members.take("type").is_some() {
        return Ok(schema.get().to_owned());
    }
    let rest = schema.get().trim_start_matches('{').trim_start();
    let comma = if rest == "}" { "" } else { "," };
    Ok(format!(r#"{{"type":"object"{comma}{rest}"#))
}
