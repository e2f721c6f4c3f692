//! What the tables share: a call made and sent, JSON compared by meaning.

use bytes::Bytes;
use dataplane_ai::call::{AnswerStream, Call, Destination, Operation, Outgoing};
use dataplane_ai::failure::Failure;
use dataplane_ai::provider::Dialect;
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// Anthropic's reasons to stop, and OpenAI's words for them.
pub(crate) const REASONS: [(&str, &str); 8] = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
    ("pause_turn", "stop"),
    ("something_new", "stop"),
];

pub(crate) fn to(dialect: Dialect, model: &str) -> Destination<'_> {
    Destination {
        dialect,
        model,
        default_max_tokens: 4096,
        is_ollama: dialect == Dialect::Ollama,
        now: 1_700_000_000,
        unique: 7,
    }
}

pub(crate) fn send(
    operation: Operation,
    dialect: Dialect,
    model: &str,
    body: &str,
) -> Result<Outgoing, Failure> {
    Call::read(operation, Bytes::from(body.to_owned()))?.send(&to(dialect, model))
}

/// The body that a provider gets.
pub(crate) fn sent(operation: Operation, dialect: Dialect, model: &str, body: &str) -> String {
    let outgoing = send(operation, dialect, model, body).unwrap_or_else(|e| panic!("{body}: {e}"));
    String::from_utf8(outgoing.body.concat()).unwrap()
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Every member of `expected` stands in `found` with that value; `null` means that it stands nowhere.
pub(crate) fn assert_holds(found: &Value, expected: &Value, about: &str) {
    for (name, value) in expected.as_object().unwrap() {
        match (found.get(name), value) {
            (None, Value::Null) => {}
            (found, value) => assert_eq!(found, Some(value), "{name} of {about}"),
        }
    }
}

/// The whole answer that a client gets.
pub(crate) fn answered(
    operation: Operation,
    dialect: Dialect,
    status: u16,
    body: &str,
) -> (u16, String) {
    let request = r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"max_tokens":9}"#;
    let outgoing = send(operation, dialect, "", request).unwrap();
    let status = StatusCode::from_u16(status).unwrap();
    let body = Bytes::from(body.to_owned());
    let answer = outgoing.answering.whole(status, &HeaderMap::new(), body);
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    (answer.status.as_u16(), body)
}

/// Opens the way of an answer in pieces.
pub(crate) fn stream(operation: Operation, dialect: Dialect, usage: bool) -> AnswerStream {
    let options = if usage {
        r#","stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    let request = format!(
        r#"{{"model":"m","stream":true,"max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]{options}}}"#
    );
    let outgoing = send(operation, dialect, "", &request).unwrap();
    outgoing.answering.stream(4 << 20)
}

/// What a client gets of a stream that comes in these pieces.
pub(crate) fn streamed(mut stream: AnswerStream, pieces: &[&[u8]]) -> (String, AnswerStream) {
    let mut out = Vec::new();
    for piece in pieces {
        stream.push(Bytes::copy_from_slice(piece), &mut out);
    }
    stream.end(&mut out);
    (String::from_utf8(out.concat()).unwrap(), stream)
}

/// The data of each frame.
pub(crate) fn frames(stream: &str) -> Vec<String> {
    stream
        .split("\n\n")
        .filter_map(|frame| frame.lines().find_map(|line| line.strip_prefix("data: ")))
        .map(str::to_owned)
        .collect()
}
