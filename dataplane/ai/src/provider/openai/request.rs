//! Requests in OpenAI's format, read for providers of another format.
//!
//! Reading refuses what changes the question and has no counterpart anywhere (audio, several answers), and
//! notes what has none and changes nothing. A request that stays in this format is never read here.

use crate::chat::{
    AnswerFormat, Media, Part, Reasoning, Request, Tool, ToolCall, ToolChoice, ToolResult, Turn,
};
use crate::failure::Failure;
use crate::json::{self, Kind, Text};
use crate::provider::fields::{Fields, effort_of, magnitude, must_be};

use serde_json::value::RawValue;

/// Reads a request for chat completions.
pub(crate) fn read(body: &str) -> Result<Request<'_>, Failure> {
    let mut fields = Fields::read(body, "")?;
    let turns = fields.list("messages")?;
    if turns.is_empty() {
        return Err(Failure::invalid("`messages` is missing or empty").about("messages"));
    }
    refuse_others(&mut fields)?;
    let max_tokens = fields.number("max_tokens")?;
    let mut request = Request {
        turns: read_turns(&turns)?,
        max_tokens: fields.number("max_completion_tokens")?.or(max_tokens),
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.number("top_k")?,
        seed: fields.number("seed")?,
        frequency_penalty: fields.number("frequency_penalty")?,
        presence_penalty: fields.number("presence_penalty")?,
        stop: stop(&mut fields)?,
        tools: tools(&mut fields)?,
        tool_choice: tool_choice(&mut fields)?,
        parallel_tool_calls: fields.bool("parallel_tool_calls")?,
        format: answer_format(&mut fields)?,
        reasoning: reasoning(&mut fields)?,
        user: None,
        is_stream: fields.bool("stream")?.unwrap_or(false),
        left_behind: Vec::new(),
    };
    let identifier = fields.text("safety_identifier")?;
    request.user = fields.text("user")?.or(identifier);
    // The model is the service's affair, and streams are asked for in the provider's own way.
    let _ = (fields.raw("model"), fields.raw("stream_options"));
    request.left_behind = fields.left().collect();
    Ok(request)
}

fn refuse_others(fields: &mut Fields<'_>) -> Result<(), Failure> {
    if let Some(n) = fields.number("n")?
        && magnitude(n) != 1.0
    {
        let message = format!("`n` is {}, this provider gives one answer", n.get());
        return Err(Failure::unsupported("n", message));
    }
    let modalities = fields.texts("modalities")?;
    if modalities.iter().any(|modality| modality.raw() != "text") || fields.raw("audio").is_some() {
        let message = "this provider answers in text only, `modalities` may hold nothing else";
        return Err(Failure::unsupported("modalities", message));
    }
    Ok(())
}

fn read_turns<'a>(messages: &[&'a RawValue]) -> Result<Vec<Turn<'a>>, Failure> {
    let mut turns: Vec<Turn<'a>> = Vec::with_capacity(messages.len());
    let mut legacy_calls = 0_u32;
    for message in messages {
        let mut fields = Fields::read(message.get(), "messages[]")?;
        let role = fields.needed_text("role")?;
        match role.raw() {
            "system" | "developer" => turns.push(Turn::System(texts(&mut fields)?)),
            "user" => {
                let parts = parts(&mut fields)?;
                match turns.last_mut() {
                    // Text after results of tools belongs into the turn of the results.
                    Some(Turn::User(before)) if is_results(before) => before.extend(parts),
                    _ => turns.push(Turn::User(parts)),
                }
            }
            "assistant" => turns.push(assistant(&mut fields, &mut legacy_calls)?),
            "tool" => {
                let id = fields.needed_text("tool_call_id")?;
                result(&mut turns, id, None, &mut fields)?;
            }
            "function" => {
                let name = fields.needed_text("name")?;
                let id = legacy_id(legacy_calls);
                result(&mut turns, id, Some(name), &mut fields)?;
            }
            other => {
                let message = format!("`{other}` is not a role");
                return Err(Failure::invalid(message).about("messages[].role"));
            }
        }
    }
    Ok(turns)
}

fn is_results(parts: &[Part<'_>]) -> bool {
    matches!(parts.last(), Some(Part::ToolResult(_)))
}

/// Results of one turn's calls belong into one turn.
fn result<'a>(
    turns: &mut Vec<Turn<'a>>,
    id: Text<'a>,
    name: Option<Text<'a>>,
    fields: &mut Fields<'a>,
) -> Result<(), Failure> {
    let content = parts(fields)?;
    let result = Part::ToolResult(ToolResult {
        id,
        name,
        content,
        is_error: false,
    });
    match turns.last_mut() {
        Some(Turn::User(before)) if is_results(before) => before.push(result),
        _ => turns.push(Turn::User(vec![result])),
    }
    Ok(())
}

/// Calls of the old kind have no id; each is answered before the next.
fn legacy_id(number: u32) -> Text<'static> {
    Text::new(&format!("call_{number}"))
}

fn assistant<'a>(fields: &mut Fields<'a>, legacy_calls: &mut u32) -> Result<Turn<'a>, Failure> {
    let mut parts = parts(fields)?;
    if let Some(refusal) = fields.text("refusal")? {
        parts.push(Part::Text(refusal));
    }
    for call in fields.list("tool_calls")? {
        let mut call = Fields::read(call.get(), "messages[].tool_calls[]")?;
        let id = call.needed_text("id")?;
        let Some(function) = call.object("function")? else {
            let kind = call.text("type")?.unwrap_or_default();
            let message = format!("calls of type `{}` are not supported here", kind.raw());
            return Err(Failure::unsupported(
                "messages[].tool_calls[].type",
                message,
            ));
        };
        parts.push(Part::ToolCall(read_call(id, function)?));
    }
    if let Some(function) = fields.object("function_call")? {
        *legacy_calls += 1;
        let call = read_call(legacy_id(*legacy_calls), function)?;
        parts.push(Part::ToolCall(call));
    }
    Ok(Turn::Assistant(parts))
}

fn read_call<'a>(id: Text<'a>, function: &'a RawValue) -> Result<ToolCall<'a>, Failure> {
    let mut function = Fields::read(function.get(), "messages[].tool_calls[].function")?;
    let name = function.needed_text("name")?;
    let arguments = function.text("arguments")?.unwrap_or_default();
    let arguments = arguments_object(&arguments).ok_or_else(|| {
        let path = "messages[].tool_calls[].function.arguments";
        let message = format!(
            "the arguments of the call `{}` are not a JSON object",
            id.plain()
        );
        Failure::invalid(message).about(path)
    })?;
    Ok(ToolCall {
        id,
        name,
        arguments,
    })
}

/// The object that a text of arguments holds; nothing is an empty one.
pub(crate) fn arguments_object(arguments: &Text<'_>) -> Option<String> {
    if arguments.is_blank() {
        return Some("{}".to_owned());
    }
    let plain = arguments.plain();
    let object: &RawValue = serde_json::from_str(&plain).ok()?;
    (json::kind(object) == Kind::Object).then(|| object.get().to_owned())
}

fn texts<'a>(fields: &mut Fields<'a>) -> Result<Vec<Text<'a>>, Failure> {
    parts(fields)?
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Ok(text),
            _ => Err(must_be("messages[].content", "text in instructions")),
        })
        .collect()
}

fn parts<'a>(fields: &mut Fields<'a>) -> Result<Vec<Part<'a>>, Failure> {
    let Some(content) = fields.raw("content") else {
        return Ok(Vec::new());
    };
    match json::kind(content) {
        Kind::String => Ok(Text::of(content).map(Part::Text).into_iter().collect()),
        Kind::Array => json::items(content)
            .unwrap_or_default()
            .into_iter()
            .map(part)
            .collect(),
        _ => Err(must_be("messages[].content", "a string or a list of parts")),
    }
}

fn part(raw: &RawValue) -> Result<Part<'_>, Failure> {
    const PATH: &str = "messages[].content[]";
    let mut fields = Fields::read(raw.get(), PATH)?;
    let kind = fields.needed_text("type")?;
    match kind.raw() {
        "text" => Ok(Part::Text(fields.needed_text("text")?)),
        "refusal" => Ok(Part::Text(fields.needed_text("refusal")?)),
        "image_url" => {
            let url = match fields.raw("image_url") {
                Some(raw) if json::kind(raw) == Kind::String => Text::of(raw).unwrap_or_default(),
                Some(raw) => {
                    Fields::read(raw.get(), "messages[].content[].image_url")?.needed_text("url")?
                }
                None => return Err(must_be("messages[].content[].image_url", "an object")),
            };
            media(url).map(Part::Image)
        }
        "file" => {
            let file = fields.object("file")?;
            let file = file.ok_or_else(|| must_be("messages[].content[].file", "an object"))?;
            let mut file = Fields::read(file.get(), "messages[].content[].file")?;
            let data = file.text("file_data")?.ok_or_else(|| {
                let path = "messages[].content[].file";
                Failure::unsupported(path, "this provider takes files as `file_data` only")
            })?;
            media(data).map(Part::Document)
        }
        other => {
            let message = format!("content of type `{other}` is not supported by this provider");
            Err(Failure::unsupported(PATH, message))
        }
    }
}

/// A data URL taken apart, its bytes as they are; any other URL as it is.
fn media(url: Text<'_>) -> Result<Media<'_>, Failure> {
    if !url.raw().starts_with("data:") {
        return Ok(Media::Url(url));
    }
    let plain = url.plain();
    let halves = plain["data:".len()..].split_once(',');
    let Some((kind, data)) = halves.and_then(|(kind, data)| {
        let kind = kind.strip_suffix(";base64")?;
        Some((kind.split(';').next().unwrap_or_default(), data))
    }) else {
        let message = "a data URL must read `data:MEDIA-TYPE;base64,DATA`";
        return Err(Failure::invalid(message).about("messages[].content[]"));
    };
    Ok(Media::Base64 {
        media_type: Text::new(kind),
        data: Text::new(data),
    })
}

fn stop<'a>(fields: &mut Fields<'a>) -> Result<Vec<Text<'a>>, Failure> {
    match fields.raw("stop") {
        None => Ok(Vec::new()),
        Some(raw) => match json::kind(raw) {
            Kind::String => Ok(Text::of(raw).into_iter().collect()),
            Kind::Array => {
                let texts = json::items(raw).unwrap_or_default().into_iter();
                let texts: Option<Vec<_>> = texts.map(Text::of).collect();
                texts.ok_or_else(|| must_be("stop", "a string or a list of strings"))
            }
            _ => Err(must_be("stop", "a string or a list of strings")),
        },
    }
}

fn tools<'a>(fields: &mut Fields<'a>) -> Result<Vec<Tool<'a>>, Failure> {
    let mut tools = Vec::new();
    for raw in fields.list("tools")? {
        let mut tool = Fields::read(raw.get(), "tools[]")?;
        let kind = tool.text("type")?;
        let function = tool.object("function")?;
        match (kind.as_ref().map_or("function", Text::raw), function) {
            ("function", Some(function)) => tools.push(read_tool(function)?),
            ("function", None) => return Err(must_be("tools[].function", "an object")),
            (other, _) => {
                let message = format!("tools of type `{other}` are not supported by this provider");
                return Err(Failure::unsupported("tools[].type", message));
            }
        }
    }
    for raw in fields.list("functions")? {
        tools.push(read_tool(raw)?);
    }
    Ok(tools)
}

fn read_tool(raw: &RawValue) -> Result<Tool<'_>, Failure> {
    let mut function = Fields::read(raw.get(), "tools[].function")?;
    Ok(Tool {
        name: function.needed_text("name")?,
        description: function.text("description")?,
        schema: function.object("parameters")?,
        is_strict: function.bool("strict")?,
    })
}

fn tool_choice<'a>(fields: &mut Fields<'a>) -> Result<Option<ToolChoice<'a>>, Failure> {
    let legacy = fields.raw("function_call");
    let Some(choice) = fields.raw("tool_choice").or(legacy) else {
        return Ok(None);
    };
    if let Some(word) = Text::of(choice) {
        return match word.raw() {
            "auto" => Ok(Some(ToolChoice::Auto)),
            "none" => Ok(Some(ToolChoice::None)),
            "required" => Ok(Some(ToolChoice::Any)),
            other => {
                let message = format!("`{other}` is not a choice of tools");
                Err(Failure::invalid(message).about("tool_choice"))
            }
        };
    }
    let mut choice = Fields::read(choice.get(), "tool_choice")?;
    if let Some(function) = choice.object("function")? {
        let mut function = Fields::read(function.get(), "tool_choice.function")?;
        return Ok(Some(ToolChoice::Named(function.needed_text("name")?)));
    }
    match choice.text("type")? {
        None => Ok(Some(ToolChoice::Named(choice.needed_text("name")?))),
        Some(kind) => {
            let message = format!("choices of type `{}` are not supported here", kind.raw());
            Err(Failure::unsupported("tool_choice.type", message))
        }
    }
}

fn answer_format<'a>(fields: &mut Fields<'a>) -> Result<AnswerFormat<'a>, Failure> {
    let Some(format) = fields.object("response_format")? else {
        return Ok(AnswerFormat::Text);
    };
    let mut format = Fields::read(format.get(), "response_format")?;
    let kind = format.needed_text("type")?;
    match kind.raw() {
        "text" => Ok(AnswerFormat::Text),
        "json_object" => Ok(AnswerFormat::JsonObject),
        "json_schema" => {
            const PATH: &str = "response_format.json_schema";
            let schema = format.object("json_schema")?;
            let schema = schema.ok_or_else(|| must_be(PATH, "an object"))?;
            let mut named = Fields::read(schema.get(), PATH)?;
            let schema = named.object("schema")?;
            Ok(AnswerFormat::JsonSchema {
                name: named.text("name")?,
                schema: schema
                    .ok_or_else(|| must_be("response_format.json_schema.schema", "an object"))?,
                is_strict: named.bool("strict")?,
            })
        }
        other => {
            let message = format!("`{other}` is not a format of answers");
            Err(Failure::unsupported("response_format.type", message))
        }
    }
}

fn reasoning(fields: &mut Fields<'_>) -> Result<Option<Reasoning>, Failure> {
    let Some(effort) = fields.text("reasoning_effort")? else {
        return Ok(None);
    };
    Ok(Some(match effort.raw() {
        "none" => Reasoning::None,
        "minimal" => Reasoning::Minimal,
        other => effort_of(other, "reasoning_effort")?,
    }))
}
