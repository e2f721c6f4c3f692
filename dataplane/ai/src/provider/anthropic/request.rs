//! Requests in Anthropic's format, read for providers of another format.

use std::cell::RefCell;

use serde_json::value::RawValue;

use crate::chat::{
    AnswerFormat, Media, Part, Reasoning, Request, Tool, ToolCall, ToolChoice, ToolResult, Turn,
};
use crate::failure::Failure;
use crate::json::{self, Kind, Members, Text};
use crate::left_behind::LeftBehind;
use crate::provider::fields::{Fields, effort_of, magnitude, must_be};

/// How messages name where an image or a document comes from.
const SOURCE: &str = "messages[].content[].source";

/// Reads a request for messages.
pub(crate) fn read<'a>(body: &'a str, left: &RefCell<LeftBehind>) -> Result<Request<'a>, Failure> {
    let mut fields = Fields::read(body, "", left)?;
    let messages = fields.objects("messages", "messages[]")?;
    if messages.is_empty() {
        return Err(Failure::invalid("`messages` is missing or empty").about("messages"));
    }
    for name in ["mcp_servers", "container"] {
        if fields.raw(name).is_some() {
            let message = format!("this provider cannot do `{name}`");
            return Err(Failure::unsupported(name, message));
        }
    }
    let mut turns = Vec::with_capacity(messages.len() + 1);
    if let Some(system) = fields.raw("system") {
        turns.push(Turn::System(system_texts(system, &fields)?));
    }
    for message in messages {
        turns.push(turn(message)?);
    }
    let (tool_choice, parallel_tool_calls) = tool_choice(&mut fields)?;
    let thinking = thinking(&mut fields)?;
    let (effort, format) = output_config(&mut fields)?;
    let mut request = Request {
        turns,
        max_tokens: fields.number("max_tokens")?,
        temperature: fields.number("temperature")?,
        top_p: fields.number("top_p")?,
        top_k: fields.number("top_k")?,
        stop: fields.texts("stop_sequences")?,
        tools: tools(&mut fields)?,
        tool_choice,
        parallel_tool_calls,
        format,
        reasoning: effort.or(thinking),
        user: None,
        is_stream: fields.bool("stream")?.unwrap_or(false),
        ..Request::default()
    };
    if let Some(metadata) = fields.object("metadata")? {
        request.user = fields.inner(metadata, "metadata")?.text("user_id")?;
    }
    // The model is the service's affair.
    let _ = fields.raw("model");
    Ok(request)
}

fn system_texts<'a>(
    system: &'a RawValue,
    request: &Fields<'a, '_>,
) -> Result<Vec<Text<'a>>, Failure> {
    const WRONG: &str = "a string or a list of text blocks";
    match json::kind(system) {
        Kind::String => Ok(Text::of(system).into_iter().collect()),
        Kind::Array => json::items(system)
            .unwrap_or_default()
            .into_iter()
            .map(|block| {
                let mut block = request.inner(block, "system[]")?;
                let _ = block.text("type")?;
                block.needed_text("text")
            })
            .collect(),
        _ => Err(must_be("system", WRONG)),
    }
}

fn turn<'a>(mut fields: Fields<'a, '_>) -> Result<Turn<'a>, Failure> {
    let role = fields.needed_text("role")?;
    let parts = content(&mut fields)?;
    match role.raw() {
        "user" => Ok(Turn::User(parts)),
        "assistant" => Ok(Turn::Assistant(parts)),
        "system" => {
            let text = |part| match part {
                Part::Text(text) => Ok(text),
                _ => Err(must_be("messages[].content", "text in instructions")),
            };
            let texts: Result<_, Failure> = parts.into_iter().map(text).collect();
            Ok(Turn::System(texts?))
        }
        other => {
            let message = format!("`{other}` is not a role");
            Err(Failure::invalid(message).about("messages[].role"))
        }
    }
}

/// What stands in a message, or in the result of a tool.
fn content<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Part<'a>>, Failure> {
    let Some(content) = fields.raw("content") else {
        return Ok(Vec::new());
    };
    match json::kind(content) {
        Kind::String => Ok(Text::of(content).map(Part::Text).into_iter().collect()),
        Kind::Array => {
            let mut parts = Vec::new();
            for block in json::items(content).unwrap_or_default() {
                parts.extend(part(fields.inner(block, "messages[].content[]")?)?);
            }
            Ok(parts)
        }
        _ => Err(must_be(
            "messages[].content",
            "a string or a list of blocks",
        )),
    }
}

/// Nothing for thoughts, which only the model that had them understands.
fn part<'a>(mut fields: Fields<'a, '_>) -> Result<Option<Part<'a>>, Failure> {
    let kind = fields.needed_text("type")?;
    Ok(Some(match kind.raw() {
        "text" => Part::Text(fields.needed_text("text")?),
        "image" => Part::Image(source(&mut fields)?),
        "document" => match fields.object("source")? {
            Some(source) if is_plain(source) => {
                let mut source = fields.inner(source, SOURCE)?;
                let _ = (source.raw("type"), source.raw("media_type"));
                Part::Text(source.needed_text("data")?)
            }
            Some(raw) => Part::Document(media(fields.inner(raw, SOURCE)?)?),
            None => return Err(must_be(SOURCE, "an object")),
        },
        "thinking" | "redacted_thinking" => {
            // One name for all that belongs to them.
            let _ = ["thinking", "signature", "data"].map(|name| fields.raw(name));
            fields.leave("thinking");
            return Ok(None);
        }
        "tool_use" => {
            let input = fields.object("input")?;
            Part::ToolCall(ToolCall {
                id: fields.needed_text("id")?,
                name: fields.needed_text("name")?,
                arguments: input.map_or("{}", RawValue::get).to_owned(),
            })
        }
        "tool_result" => {
            let is_error = fields.bool("is_error")?.unwrap_or(false);
            if is_error {
                fields.leave("is_error");
            }
            Part::ToolResult(ToolResult {
                id: fields.needed_text("tool_use_id")?,
                name: None,
                content: content(&mut fields)?,
                is_error,
            })
        }
        other => {
            let message = format!("blocks of type `{other}` are not supported by this provider");
            return Err(Failure::unsupported("messages[].content[]", message));
        }
    }))
}

fn is_plain(source: &RawValue) -> bool {
    let mut members = Members::read(source.get()).unwrap_or_default();
    let kind = members.take("type").and_then(Text::of);
    kind.is_some_and(|kind| kind.raw() == "text")
}

fn source<'a>(fields: &mut Fields<'a, '_>) -> Result<Media<'a>, Failure> {
    let source = fields.object("source")?;
    let source = source.ok_or_else(|| must_be(SOURCE, "an object"))?;
    media(fields.inner(source, SOURCE)?)
}

fn media<'a>(mut source: Fields<'a, '_>) -> Result<Media<'a>, Failure> {
    let kind = source.needed_text("type")?;
    match kind.raw() {
        "base64" => Ok(Media::Base64 {
            media_type: source.needed_text("media_type")?,
            data: source.needed_text("data")?,
        }),
        "url" => Ok(Media::Url(source.needed_text("url")?)),
        other => {
            let message = format!("sources of type `{other}` are not supported by this provider");
            Err(Failure::unsupported(SOURCE, message))
        }
    }
}

fn tools<'a>(fields: &mut Fields<'a, '_>) -> Result<Vec<Tool<'a>>, Failure> {
    let mut tools = Vec::new();
    for mut tool in fields.objects("tools", "tools[]")? {
        if let Some(kind) = tool.text("type")?
            && kind.raw() != "custom"
        {
            let message = format!("tools of type `{}` run at Anthropic only", kind.raw());
            return Err(Failure::unsupported("tools[].type", message));
        }
        tools.push(Tool {
            name: tool.needed_text("name")?,
            description: tool.text("description")?,
            schema: tool.object("input_schema")?,
            is_strict: tool.bool("strict")?,
        });
    }
    Ok(tools)
}

type Choice<'a> = (Option<ToolChoice<'a>>, Option<bool>);

fn tool_choice<'a>(fields: &mut Fields<'a, '_>) -> Result<Choice<'a>, Failure> {
    let Some(choice) = fields.object("tool_choice")? else {
        return Ok((None, None));
    };
    let mut choice = fields.inner(choice, "tool_choice")?;
    let kind = choice.needed_text("type")?;
    let made = match kind.raw() {
        "auto" => ToolChoice::Auto,
        "any" => ToolChoice::Any,
        "none" => ToolChoice::None,
        "tool" => ToolChoice::Named(choice.needed_text("name")?),
        other => {
            let message = format!("`{other}` is not a choice of tools");
            return Err(Failure::invalid(message).about("tool_choice.type"));
        }
    };
    let is_single = choice.bool("disable_parallel_tool_use")?;
    Ok((
        Some(made),
        is_single.filter(|single| *single).map(|_| false),
    ))
}

fn thinking(fields: &mut Fields<'_, '_>) -> Result<Option<Reasoning>, Failure> {
    let Some(raw) = fields.object("thinking")? else {
        return Ok(None);
    };
    let mut thinking = fields.inner(raw, "thinking")?;
    let kind = thinking.needed_text("type")?;
    if kind.raw() != "enabled" {
        // How others think is for them to decide, as long as nobody names an effort.
        fields.leave("thinking");
        return Ok(None);
    }
    let budget = thinking.number("budget_tokens")?.map_or(0.0, magnitude);
    Ok(Some(match budget {
        ..2048.0 => Reasoning::Low,
        ..8192.0 => Reasoning::Medium,
        _ => Reasoning::High,
    }))
}

type Output<'a> = (Option<Reasoning>, AnswerFormat<'a>);

fn output_config<'a>(fields: &mut Fields<'a, '_>) -> Result<Output<'a>, Failure> {
    let mut format = fields.object("output_format")?;
    let mut effort = None;
    if let Some(config) = fields.object("output_config")? {
        let mut config = fields.inner(config, "output_config")?;
        format = config.object("format")?.or(format);
        effort = match config.text("effort")? {
            None => None,
            Some(word) => Some(effort_of(word.raw(), "output_config.effort")?),
        };
    }
    let Some(format) = format else {
        return Ok((effort, AnswerFormat::Text));
    };
    let mut format = fields.inner(format, "output_config.format")?;
    let _ = format.text("type")?;
    let schema = format.object("schema")?;
    let schema = schema.ok_or_else(|| must_be("output_config.format.schema", "an object"))?;
    let format = AnswerFormat::JsonSchema {
        name: None,
        schema,
        is_strict: Some(true),
    };
    Ok((effort, format))
}
