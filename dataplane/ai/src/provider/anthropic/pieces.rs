//! A whole answer of messages as the stream that its client asked for.
//!
//! Blocks whose text comes in deltas get theirs in one; others begin with all they are, as Anthropic does
//! it with results of its own tools.

use serde_json::value::RawValue;

use super::response::error;
use crate::failure::Failure;
use crate::json::{self, Kind, Members, Object, Text};

/// Writes it; `answer` has no line breaks.
pub(crate) fn write(answer: &str) -> Result<String, Failure> {
    let bad =
        |what: &str| Failure::bad_answer(format!("the provider's answer cannot be read: {what}"));
    let mut failure = Failure::bad_answer(String::new());
    if error(answer, &mut failure).is_some() {
        return Err(failure);
    }
    let mut message = Members::read(answer).map_err(|error| bad(&error.to_string()))?;
    let content = message.take("content").and_then(json::items);
    let content = content.ok_or_else(|| bad("it holds no content"))?;
    let usage = message.take("usage").map_or("{}", RawValue::get);
    let reason = message.take("stop_reason");
    let sequence = message.take("stop_sequence");
    let mut out = String::with_capacity(1024);
    event(&mut out, "message_start", |event| {
        event.object("message", |start| {
            for (name, value) in message.others("content") {
                start.raw(Text::new(&name).raw(), value.get());
            }
            start.raw("content", "[]");
            start
                .raw("stop_reason", "null")
                .raw("stop_sequence", "null");
            start.raw("usage", usage);
        });
    });
    for (index, block) in (0..).zip(content) {
        let block = Members::read(block.get()).map_err(|error| bad(&error.to_string()))?;
        write_block(&mut out, index, block);
    }
    event(&mut out, "message_delta", |event| {
        event.object("delta", |delta| {
            delta.raw("stop_reason", reason.map_or("\"end_turn\"", RawValue::get));
            delta.raw("stop_sequence", sequence.map_or("null", RawValue::get));
        });
        event.raw("usage", usage);
    });
    event(&mut out, "message_stop", |_| {});
    Ok(out)
}

fn write_block(out: &mut String, index: u64, mut block: Members<'_>) {
    let kind = block.take("type").and_then(Text::of).unwrap_or_default();
    // The member that comes in a delta, what stands for it at the begin, the delta, and its member.
    let (member, empty, delta, piece) = match kind.raw() {
        "text" => ("text", "\"\"", "text_delta", "text"),
        "thinking" => ("thinking", "\"\"", "thinking_delta", "thinking"),
        "tool_use" | "server_tool_use" => ("input", "{}", "input_json_delta", "partial_json"),
        _ => ("", "", "", ""),
    };
    let said = block.take(member);
    let signature = match kind.raw() {
        "thinking" => block.take("signature"),
        _ => None,
    };
    event(out, "content_block_start", |event| {
        event.number("index", index);
        event.object("content_block", |start| {
            start.text("type", &kind);
            if !member.is_empty() {
                start.raw(member, empty);
            }
            if signature.is_some() {
                start.raw("signature", "\"\"");
            }
            for (name, value) in block.others(member) {
                start.raw(Text::new(&name).raw(), value.get());
            }
        });
    });
    let said = said.and_then(|said| match json::kind(said) {
        Kind::String => Text::of(said).filter(|text| !text.is_empty()),
        _ => Some(Text::new(said.get())),
    });
    for (delta, piece, text) in [
        (delta, piece, said),
        ("signature_delta", "signature", signature.and_then(Text::of)),
    ] {
        let Some(text) = text else { continue };
        event(out, "content_block_delta", |event| {
            event.number("index", index);
            event.object("delta", |entry| {
                entry.word("type", delta).text(piece, &text);
            });
        });
    }
    event(out, "content_block_stop", |event| {
        event.number("index", index);
    });
}

fn event(out: &mut String, kind: &str, write: impl FnOnce(&mut Object<'_>)) {
    out.push_str("event: ");
    out.push_str(kind);
    out.push_str("\ndata: ");
    let mut event = Object::open(out);
    event.word("type", kind);
    write(&mut event);
    event.close();
    out.push_str("\n\n");
}
