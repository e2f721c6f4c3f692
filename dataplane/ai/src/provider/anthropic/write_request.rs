//! Requests in Anthropic's format, written for clients of another format.
//!
//! Anthropic refuses members it does not know, turns that are empty and results that are not where it
//! expects them, so all of that is put right here and what has no counterpart stays behind.

use std::collections::HashSet;

use serde_json::value::RawValue;

use super::model::Model;
use crate::chat::{AnswerFormat, Media, Part, Reasoning, Request, ToolChoice, ToolResult, Turn};
use crate::failure::Failure;
use crate::json::{Object, Text, array, quote};
use crate::left_behind::LeftBehind;
use crate::provider::fields::magnitude;
use crate::provider::openai::write_request::{bool_word, object_schema};

/// The least budget of tokens for thoughts.
const BUDGET_MIN: u64 = 1024;
/// What stands in for an answer format that Anthropic has no word for.
const JSON_ONLY: &str = "Answer with one JSON object and nothing else.";

/// Writes a request for messages.
pub(crate) fn write(
    request: &Request<'_>,
    model: &str,
    default_max_tokens: u32,
    left_behind: &mut LeftBehind,
) -> Result<String, Failure> {
    let known = Model::of(model);
    let default = default_max_tokens.to_string();
    let max_tokens = request.max_tokens.map_or(default.as_str(), RawValue::get);
    let mut out = String::with_capacity(1024);
    let mut body = Object::open(&mut out);
    body.text("model", &Text::new(model));
    body.raw("max_tokens", max_tokens);
    system(request, &mut body);
    let groups = groups(&request.turns);
    if groups.is_empty() {
        let message = "`messages` holds nothing but instructions, add a message of the user";
        return Err(Failure::invalid(message).about("messages"));
    }
    let last = groups.len() - 1;
    body.list("messages", groups.iter().enumerate(), |out, (at, group)| {
        write_group(out, group, at == last);
    });
    let thinking = thinking(request, known, max_tokens).filter(|_| !goes_on(&groups));
    sampling(request, known, thinking.is_some(), &mut body, left_behind);
    let stops: Vec<_> = request
        .stop
        .iter()
        .filter(|stop| !stop.is_blank())
        .collect();
    if !stops.is_empty() {
        body.list("stop_sequences", stops, |out, stop| quote(out, stop));
    }
    tools(request, &mut body, left_behind)?;
    if let Some(budget) = thinking {
        body.object("thinking", |thinking| {
            thinking
                .word("type", "enabled")
                .number("budget_tokens", budget);
        });
    }
    let effort = effort(request, known);
    output_config(request, effort, &mut body);
    let asks_for_thoughts = !matches!(
        request.reasoning,
        None | Some(Reasoning::None | Reasoning::Minimal)
    );
    if asks_for_thoughts && thinking.is_none() && effort.is_none() {
        left_behind.note("reasoning_effort");
    }
    if let Some(user) = &request.user {
        body.object("metadata", |metadata| {
            metadata.text("user_id", user);
        });
    }
    if request.is_stream {
        body.raw("stream", "true");
    }
    body.close();
    for (name, value) in [
        ("seed", request.seed),
        ("frequency_penalty", request.frequency_penalty),
        ("presence_penalty", request.presence_penalty),
    ] {
        if value.is_some() {
            left_behind.note(name);
        }
    }
    Ok(out)
}

/// All instructions, wherever they stood; each a block of its own.
fn system(request: &Request<'_>, body: &mut Object<'_>) {
    let json_only = Text::literal(JSON_ONLY);
    let is_json = matches!(request.format, AnswerFormat::JsonObject);
    let texts: Vec<&Text<'_>> = request
        .turns
        .iter()
        .filter_map(|turn| match turn {
            Turn::System(texts) => Some(texts),
            _ => None,
        })
        .flatten()
        .filter(|text| !text.is_blank())
        .chain(is_json.then_some(&json_only))
        .collect();
    if !texts.is_empty() {
        body.list("system", texts, |out, text| write_text(out, text));
    }
}

struct Group<'r, 'a> {
    role: &'static str,
    parts: Vec<&'r Part<'a>>,
}

/// Turns in the order and shape that Anthropic accepts: neighbours of one role joined, results of tools
/// first, nothing blank, nothing empty.
fn groups<'r, 'a>(turns: &'r [Turn<'a>]) -> Vec<Group<'r, 'a>> {
    let mut groups: Vec<Group<'r, 'a>> = Vec::new();
    for turn in turns {
        let (role, parts) = match turn {
            Turn::System(_) => continue,
            Turn::User(parts) => ("user", parts),
            Turn::Assistant(parts) => ("assistant", parts),
        };
        let is_kept = |part: &&Part<'_>| match part {
            Part::Text(text) => !text.is_blank(),
            Part::Thinking(_) => false,
            _ => true,
        };
        let parts = parts.iter().filter(is_kept);
        match groups.last_mut() {
            Some(group) if group.role == role => group.parts.extend(parts),
            _ => {
                let parts: Vec<_> = parts.collect();
                if !parts.is_empty() {
                    groups.push(Group { role, parts });
                }
            }
        }
    }
    for group in &mut groups {
        // Stable, so that the order among results and among the rest stays.
        group.parts.sort_by_key(|part| match (group.role, part) {
            ("user", Part::ToolResult(_)) => 0,
            (_, Part::ToolCall(_)) => 2,
            _ => 1,
        });
    }
    groups
}

fn write_group(out: &mut String, group: &Group<'_, '_>, is_last: bool) {
    let mut message = Object::open(out);
    message.word("role", group.role);
    let is_prefill = is_last && group.role == "assistant";
    match group.parts.as_slice() {
        [Part::Text(text)] if is_prefill => message.text("content", &trimmed(text)),
        [Part::Text(text)] => message.text("content", text),
        parts => message.list(
            "content",
            parts.iter().enumerate(),
            |out, (at, part)| match part {
                Part::Text(text) if is_prefill && at + 1 == parts.len() => {
                    write_text(out, &trimmed(text));
                }
                part => write_part(out, part),
            },
        ),
    };
    message.close();
}

/// What the model is to go on with must not end in white space.
fn trimmed(text: &Text<'_>) -> Text<'static> {
    Text::new(text.plain().trim_end())
}

fn write_text(out: &mut String, text: &Text<'_>) {
    let mut block = Object::open(out);
    block.word("type", "text").text("text", text);
    block.close();
}

fn write_part(out: &mut String, part: &Part<'_>) {
    match part {
        Part::Text(text) | Part::Thinking(text) => write_text(out, text),
        Part::Image(media) => write_media(out, "image", media),
        Part::Document(media) => write_media(out, "document", media),
        Part::ToolCall(call) => {
            let mut block = Object::open(out);
            block
                .word("type", "tool_use")
                .text("id", &call.id)
                .text("name", &call.name)
                .raw("input", &call.arguments);
            block.close();
        }
        Part::ToolResult(result) => write_result(out, result),
    }
}

fn write_media(out: &mut String, kind: &str, media: &Media<'_>) {
    let mut block = Object::open(out);
    block.word("type", kind);
    block.object("source", |source| match media {
        Media::Base64 { media_type, data } => {
            source
                .word("type", "base64")
                .text("media_type", media_type)
                .text("data", data);
        }
        Media::Url(url) => {
            source.word("type", "url").text("url", url);
        }
    });
    block.close();
}

fn write_result(out: &mut String, result: &ToolResult<'_>) {
    let mut block = Object::open(out);
    block
        .word("type", "tool_result")
        .text("tool_use_id", &result.id);
    let is_blank = |part: &&Part<'_>| !matches!(part, Part::Text(text) if text.is_blank());
    let parts: Vec<_> = result.content.iter().filter(is_blank).collect();
    match parts.as_slice() {
        [] => {}
        [Part::Text(text)] => {
            block.text("content", text);
        }
        parts => {
            block.list("content", parts, |out, part| write_part(out, part));
        }
    }
    if result.is_error {
        block.raw("is_error", "true");
    }
    block.close();
}

fn sampling(
    request: &Request<'_>,
    known: Option<Model<'_>>,
    is_thinking: bool,
    body: &mut Object<'_>,
    left_behind: &mut LeftBehind,
) {
    let refuses = is_thinking || known.is_some_and(Model::refuses_sampling);
    if refuses {
        for (name, value) in [
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("top_k", request.top_k),
        ] {
            if value.is_some() {
                left_behind.note(name);
            }
        }
        return;
    }
    if let Some(temperature) = request.temperature {
        // Anthropic's range ends at 1; so does its own compatibility layer.
        let is_in_range = magnitude(temperature) <= 1.0;
        body.raw(
            "temperature",
            if is_in_range { temperature.get() } else { "1" },
        );
    }
    let is_either =
        request.temperature.is_some() && known.is_some_and(Model::refuses_both_samplings);
    if is_either && request.top_p.is_some() {
        left_behind.note("top_p");
    } else {
        body.maybe("top_p", request.top_p);
    }
    body.maybe("top_k", request.top_k);
}

fn tools(
    request: &Request<'_>,
    body: &mut Object<'_>,
    left_behind: &mut LeftBehind,
) -> Result<(), Failure> {
    if request.tools.is_empty() {
        // Without tools there is nothing to choose.
        if request.tool_choice.is_some() {
            left_behind.note("tool_choice");
        }
        if request.parallel_tool_calls.is_some() {
            left_behind.note("parallel_tool_calls");
        }
        // A history with calls is refused unless tools are named; these are only for the record.
        let names = names_in_history(&request.turns);
        if !names.is_empty() {
            body.list("tools", names, |out, name| {
                let mut tool = Object::open(out);
                tool.text("name", name);
                tool.raw("input_schema", r#"{"type":"object","properties":{}}"#);
                tool.close();
            });
            body.raw("tool_choice", r#"{"type":"none"}"#);
        }
        return Ok(());
    }
    let mut entries = Vec::with_capacity(request.tools.len());
    for tool in &request.tools {
        let mut out = String::new();
        let mut entry = Object::open(&mut out);
        entry.text("name", &tool.name);
        if let Some(description) = &tool.description {
            entry.text("description", description);
        }
        entry.raw("input_schema", &object_schema(tool.schema)?);
        if let Some(is_strict) = tool.is_strict {
            entry.raw("strict", bool_word(is_strict));
        }
        entry.close();
        entries.push(out);
    }
    array(body.member("tools"), &entries, |out, entry| {
        out.push_str(entry);
    });
    let is_single = request.parallel_tool_calls == Some(false);
    let choice = match &request.tool_choice {
        None if is_single => &ToolChoice::Auto,
        None => return Ok(()),
        Some(choice) => choice,
    };
    body.object("tool_choice", |entry| {
        match choice {
            ToolChoice::Auto => entry.word("type", "auto"),
            ToolChoice::Any => entry.word("type", "any"),
            ToolChoice::None => entry.word("type", "none"),
            ToolChoice::Named(name) => entry.word("type", "tool").text("name", name),
        };
        if is_single && *choice != ToolChoice::None {
            entry.raw("disable_parallel_tool_use", "true");
        }
    });
    Ok(())
}

fn names_in_history<'r>(turns: &'r [Turn<'_>]) -> Vec<&'r Text<'r>> {
    let mut known = HashSet::new();
    let mut names: Vec<&Text<'_>> = Vec::new();
    for turn in turns {
        let Turn::Assistant(parts) = turn else {
            continue;
        };
        for part in parts {
            if let Part::ToolCall(call) = part
                && known.insert(call.name.raw())
            {
                names.push(&call.name);
            }
        }
    }
    names
}

/// A budget of tokens for thoughts, for models that think by one: at least 1024 and below the answer's
/// limit. Forced calls of tools and thoughts exclude each other.
fn thinking(request: &Request<'_>, known: Option<Model<'_>>, max_tokens: &str) -> Option<u64> {
    known.filter(|model| model.thinks_by_budget() && !model.never_thinks())?;
    let wanted = match request.reasoning? {
        Reasoning::None | Reasoning::Minimal => return None,
        Reasoning::Low => BUDGET_MIN,
        Reasoning::Medium => 2 * BUDGET_MIN,
        Reasoning::High => 4 * BUDGET_MIN,
        Reasoning::XHigh | Reasoning::Max => 8 * BUDGET_MIN,
    };
    if matches!(
        request.tool_choice,
        Some(ToolChoice::Any | ToolChoice::Named(_))
    ) {
        return None;
    }
    let most = max_tokens.parse::<u64>().ok()?.checked_sub(1)?;
    (most >= BUDGET_MIN).then_some(wanted.min(most))
}

/// True when the answer goes on with a turn of the model that has begun: behind what its tools gave, or in
/// the middle of a text. A model that thinks must have begun such a turn with a thought, and thoughts are
/// not sent back, so Anthropic would refuse it.
fn goes_on(groups: &[Group<'_, '_>]) -> bool {
    groups.last().is_some_and(|group| {
        let mut parts = group.parts.iter();
        group.role == "assistant" || parts.any(|part| matches!(part, Part::ToolResult(_)))
    })
}

/// The word for all other models.
fn effort(request: &Request<'_>, known: Option<Model<'_>>) -> Option<&'static str> {
    if known.is_some_and(Model::thinks_by_budget) {
        return None;
    }
    Some(match request.reasoning? {
        Reasoning::None => return None,
        Reasoning::Minimal | Reasoning::Low => "low",
        Reasoning::Medium => "medium",
        Reasoning::High => "high",
        Reasoning::XHigh => "xhigh",
        Reasoning::Max => "max",
    })
}

fn output_config(request: &Request<'_>, effort: Option<&'static str>, body: &mut Object<'_>) {
    let schema = match &request.format {
        AnswerFormat::JsonSchema { schema, .. } => Some(schema),
        _ => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    body.object("output_config", |config| {
        if let Some(effort) = effort {
            config.word("effort", effort);
        }
        if let Some(schema) = schema {
            config.object("format", |format| {
                format
                    .word("type", "json_schema")
                    .raw("schema", schema.get());
            });
        }
    });
}
