//! A whole answer of chat completions as the stream that its client asked for.
//!
//! Some servers do not stream whatever they are asked. Members stay as they were written, those that are
//! not known here among them.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::decoder::in_stream;
use super::response::{bad, members};
use crate::failure::Failure;
use crate::json::{self, Members, Object, Text};

/// Members that all chunks of a stream have.
const OF_ALL_CHUNKS: [&str; 5] = [
    "id",
    "created",
    "model",
    "system_fingerprint",
    "service_tier",
];

type Member<'a> = (Cow<'a, str>, &'a RawValue);

/// Writes it: for each choice a chunk with all it says and one with its end, then the usage if it is
/// wanted. `answer` has no line breaks.
pub(crate) fn write(answer: &str, wants_usage: bool) -> Result<String, Failure> {
    let mut answer = members(answer)?;
    if let Some(error) = answer.take("error") {
        return Err(in_stream(error));
    }
    let choices = answer.take("choices").and_then(json::items);
    let choices = choices.ok_or_else(|| bad("it holds no choice"))?;
    let usage = answer.take("usage");
    let (of_all, mut of_first): (Vec<_>, Vec<_>) = answer
        .others("object")
        .into_iter()
        .partition(|(name, _)| OF_ALL_CHUNKS.contains(&name.as_ref()));
    let mut out = String::with_capacity(1024);
    for choice in choices {
        let mut choice = members(choice.get())?;
        let index = choice.take("index").map_or("0", RawValue::get);
        let finish = choice
            .take("finish_reason")
            .map_or("\"stop\"", RawValue::get);
        let message = choice.take("message");
        let message = members(message.ok_or_else(|| bad("it holds no message"))?.get())?;
        let mut of_choice = choice.others("finish_reason");
        chunk(&mut out, &of_all, |chunk| {
            chunk.list("choices", [message], |out, message| {
                let mut entry = Object::open(out);
                entry.raw("index", index);
                entry.object("delta", |delta| write_delta(delta, message));
                rest(&mut entry, std::mem::take(&mut of_choice));
                entry.raw("finish_reason", "null");
                entry.close();
            });
            rest(chunk, std::mem::take(&mut of_first));
        });
        chunk(&mut out, &of_all, |chunk| {
            chunk.list("choices", [finish], |out, finish| {
                let mut entry = Object::open(out);
                entry.raw("index", index).raw("delta", "{}");
                entry.raw("finish_reason", finish);
                entry.close();
            });
        });
    }
    if let Some(usage) = usage.filter(|_| wants_usage) {
        chunk(&mut out, &of_all, |chunk| {
            chunk.raw("choices", "[]").raw("usage", usage.get());
        });
    }
    out.push_str("data: [DONE]\n\n");
    Ok(out)
}

/// One chunk, with what all of them have.
fn chunk(out: &mut String, of_all: &[Member<'_>], write: impl FnOnce(&mut Object<'_>)) {
    out.push_str("data: ");
    let mut chunk = Object::open(out);
    chunk.word("object", "chat.completion.chunk");
    rest(&mut chunk, of_all.iter().cloned());
    write(&mut chunk);
    chunk.close();
    out.push_str("\n\n");
}

fn rest<'a>(object: &mut Object<'_>, members: impl IntoIterator<Item = Member<'a>>) {
    for (name, value) in members {
        object.raw(Text::new(&name).raw(), value.get());
    }
}

/// A message as a delta: in streams the calls of tools are counted.
fn write_delta(delta: &mut Object<'_>, mut message: Members<'_>) {
    let role = message.take("role").map_or("\"assistant\"", RawValue::get);
    delta.raw("role", role);
    let calls = message.take("tool_calls").and_then(json::items);
    rest(delta, message.others("role"));
    let calls = calls.unwrap_or_default();
    if calls.is_empty() {
        return;
    }
    delta.list("tool_calls", (0..).zip(calls), |out, (slot, call)| {
        let mut entry = Object::open(out);
        entry.number("index", slot);
        let call = Members::read(call.get()).unwrap_or_default();
        rest(&mut entry, call.others("index"));
        entry.close();
    });
}
