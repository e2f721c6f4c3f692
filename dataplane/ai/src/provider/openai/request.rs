//! Requests in OpenAI's format, read for providers of another format.
//!
//! Reading refuses what changes the question and has no counterpart anywhere (audio, several answers), and
//! notes what has none and changes nothing. A request that stays in this format is never read here.

use std::cell::RefCell;

use crate::chat::{
    AnswerFormat, Media, Part, Reasoning, Request, Tool, ToolCall, ToolChoice, ToolResult, Turn,
};
use crate::failure::Failure;
use crate::json::{self, Kind, Text};
use crate::left_behind::LeftBehind;
use crate::provider::fields::{Fields, effort_of, magnitude, must_be};

use serde_json::value::RawValue;

/// Reads a request for chat completions.
pub(crate) fn read<'a>(body: &'a str, left: &RefCell<LeftBehind>) -> Result<Request<'a>, Failure> {
    let mut fields = Fields::read(body, "", left)?;
    let messages = fields.objects("messages", "messages[]")?;
    if messages.is_empty() {
        return Err(Failure::invalid("`messages` is missing or empty").about("messages"));
    }
    refuse_others(&mut fields)?;
    let mut request = Request {
        turns: read_turns(messages)?,
        max_tokens: max_tokens(&mut fields)?,
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
    };
    let identifier = fields.text("safety_identifier")?;
    request.user = fields.text("user")?;
    match (&request.user, identifier) {
        (None, identifier) => request.user = identifier,
        (Some(user), Some(other)) if *user != other => fields.leave("safety_identifier"),
        _ => {}
    }
    // The model is the service's affair, and streams are asked for in the provider's own way.
    let _ = fields.raw("model");
    if let Some(options) = fields.object("stream_options")? {
        let _ = fields
            .inner(options, "stream_options")?
            .raw("include_usage");
    }
    Ok(request)
}

/// The newer name wins.
fn max_tokens<'a>(fields: &mut Fields<'a, '_>) -> Result<Option<&'a RawValue>, Failure> {
    let older = fields.number("max_tokens")?;
    let newer = fields.number("max_completion_tokens")?;
    if let (Some(older), Some(newer)) = (older, newer)
        && older.get() != newer.get()
    {
        fields.leave("max_tokens");
    }
    Ok(newer.or(older))
}

fn refuse_others(fields: &mut Fields<'_, '_>) -> Result<(), Failure> {
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

fn read_turns<'a>(messages: Vec<Fields<'a, '_>>) -> Result<Vec<Turn<'a>>, Failure> {
    let mut turns: Vec<Turn<'a>> = Vec::with_capacity(messages.len());
    let mut legacy_calls = 0_u32;
    for mut fields in messages {
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
    fields: &mut Fields<'a, '_>,
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

fn assistant<'a>(fields: &mut Fields<'a, '_>, legacy_calls: &mut u32) -> Result<Turn<'a>, Failure> {
    let mut parts = parts(fields)?;
    if let Some(refusal) = fields.text("refusal")? {
        parts.push(Part::Text(refusal));
    }
    for mut call in fields.objects("tool_calls", "messages[].tool_calls[]")? {
        let id = call.needed_text("id")?;
        let kind = call.text("type")?.unwrap_or_default();
        let Some(function) = call.object("function")? else {
            let message = format!("calls of type `{}` are not supported here", kind.raw());
            return Err(Failure::unsupported(
                "messages[].tool_calls[].type",
                message,
            ));
        };
        let function = call.inner(function, "messages[].tool_calls[].function")?;
        parts.push(Part::ToolCall(read_call(id, function)?));
    }
    if let Some(function) = fields.object("function_call")? {
        *legacy_calls += 1;
        let function = fields.inner(function, "messages[].function_call")?;
        let call = read_call(legacy_id(*legacy_calls), function)?;
        parts.push(Part::ToolCall(call));
    }
    Ok(Turn::Assistant(parts))
}

fn read_call<'a>(id: Text<'a>, mut function: Fields<'a, '_>) -> Result<ToolCall<'a>, Failure> {
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

fn texts<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Text<'a>>, Failure> {
    parts(fields)?
        .into_iter()
        .map(|part| match part {
            Part::Text(text) => Ok(text),
            _ => Err(must_be("messages[].content", "text in instructions")),
        })
        .collect()
}

fn parts<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Part<'a>>, Failure> {
    let Some(content) = fields.raw("content") else {
        return Ok(Vec::new());
    };
    match json::kind(content) {
        Kind::String => Ok(Text::of(content).map(Part::Text).into_iter().collect()),
        Kind::Array => json::items(content)
            .unwrap_or_default()
            .into_iter()
            .map(|raw| part(fields.inner(raw, "messages[].content[]")?))
            .collect(),
        _ => Err(must_be("messages[].content", "a string or a list of parts")),
    }
}

fn part<'a>(mut fields: Fields<'a, '_>) -> Result<Part<'a>, Failure> {
    let kind = fields.needed_text("type")?;
    match kind.raw() {
        "text" => Ok(Part::Text(fields.needed_text("text")?)),
        "refusal" => Ok(Part::Text(fields.needed_text("refusal")?)),
        "image_url" => {
            let url = match fields.raw("image_url") {
                Some(raw) if json::kind(raw) == Kind::String => Text::of(raw).unwrap_or_default(),
                Some(raw) => fields
                    .inner(raw, "messages[].content[].image_url")?
                    .needed_text("url")?,
                None => return Err(must_be("messages[].content[].image_url", "an object")),
            };
            media(url).map(Part::Image)
        }
        "file" => {
            let file = fields.object("file")?;
            let file = file.ok_or_else(|| must_be("messages[].content[].file", "an object"))?;
            let mut file = fields.inner(file, "messages[].content[].file")?;
            let data = file.text("file_data")?.ok_or_else(|| {
                let path = "messages[].content[].file";
                Failure::unsupported(path, "this provider takes files as `file_data` only")
            })?;
            media(data).map(Part::Document)
        }
        other => {
            let message = format!("content of type `{other}` is not supported by this provider");
            Err(Failure::unsupported("messages[].content[]", message))
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

fn stop<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Text<'a>>, Failure> {
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

fn tools<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Tool<'a>>, Failure> {
    let mut tools = Vec::new();
    for mut tool in fields.objects("tools", "tools[]")? {
        let kind = tool.text("type")?;
        let function = tool.object("function")?;
        match (kind.as_ref().map_or("function", Text::raw), function) {
            ("function", Some(function)) => {
                tools.push(read_tool(tool.inner(function, "tools[].function")?)?);
            }
            ("function", None) => return Err(must_be("tools[].function", "an object")),
            (other, _) => {
                let message = format!("tools of type `{other}` are not supported by this provider");
                return Err(Failure::unsupported("tools[].type", message));
            }
        }
    }
    for function in fields.objects("functions", "functions[]")? {
        tools.push(read_tool(function)?);
    }
    Ok(tools)
}

fn read_tool<'a>(mut function: Fields<'a, '_>) -> Result<Tool<'a>, Failure> {
    Ok(Tool {
        name: function.needed_text("name")?,
        description: function.text("description")?,
        schema: function.object("parameters")?,
        is_strict: function.bool("strict")?,
    })
}

fn tool_choice<'a>(fields: &mut Fields<'a, '_>) -> Result<Option<ToolChoice<'a>>, Failure> {
    let legacy = fields.raw("function_call");
    let choice = fields.raw("tool_choice");
    if choice.is_some() && legacy.is_some() {
        fields.leave("function_call");
    }
    let Some(choice) = choice.or(legacy) else {
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
    let mut choice = fields.inner(choice, "tool_choice")?;
    let kind = choice.text("type")?;
    if let Some(function) = choice.object("function")? {
        let mut function = choice.inner(function, "tool_choice.function")?;
        return Ok(Some(ToolChoice::Named(function.needed_text("name")?)));
    }
    match kind {
        None => Ok(Some(ToolChoice::Named(choice.needed_text("name")?))),
        Some(kind) => {
            let message = format!("choices of type `{}` are not supported here", kind.raw());
            Err(Failure::unsupported("tool_choice.type", message))
        }
    }
}

fn answer_format<'a>(fields: &mut Fields<'a, '_>) -> Result<AnswerFormat<'a>, Failure> {
    let Some(format) = fields.object("response_format")? else {
        return Ok(AnswerFormat::Text);
    };
    let mut format = fields.inner(format, "response_format")?;
    let kind = format.needed_text("type")?;
    match kind.raw() {
        "text" => Ok(AnswerFormat::Text),
        "json_object" => Ok(AnswerFormat::JsonObject),
        "json_schema" => {
            const PATH: &str = "response_format.json_schema";
            let schema = format.object("json_schema")?;
            let schema = schema.ok_or_else(|| must_be(PATH, "an object"))?;
            let mut named = format.inner(schema, PATH)?;
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

fn reasoning(fields: &mut Fields<'_, '_>) -> Result<Option<Reasoning>, Failure> {
    let Some(effort) = fields.text("reasoning_effort")? else {
        return Ok(None);
    };
    Ok(Some(match effort.raw() {
        "none" => Reasoning::None,
        "minimal" => Reasoning::Minimal,
        other => effort_of(other, "reasoning_effort")?,
    }))
}
