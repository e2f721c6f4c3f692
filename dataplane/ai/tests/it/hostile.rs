//! Whatever a client or a provider sends: no panic, and every body that leaves is JSON.

use bytes::Bytes;
use dataplane_ai::call::Call;
use dataplane_ai::call::Operation::{Chat, Completions, Embeddings, Messages, Responses};
use dataplane_ai::provider::Dialect::{Anthropic, Ollama, OpenAi};
use http::{HeaderMap, StatusCode};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::support::to;

const NAMES: [&str; 36] = [
    "model",
    "messages",
    "role",
    "content",
    "type",
    "text",
    "image_url",
    "url",
    "tool_calls",
    "id",
    "function",
    "name",
    "arguments",
    "tools",
    "parameters",
    "stream",
    "stream_options",
    "stop",
    "system",
    "source",
    "data",
    "media_type",
    "tool_choice",
    "response_format",
    "json_schema",
    "schema",
    "choices",
    "message",
    "delta",
    "usage",
    "input",
    "error",
    "finish_reason",
    "n",
    "tool_call_id",
    "input_schema",
];
const WORDS: [&str; 20] = [
    "user",
    "assistant",
    "system",
    "tool",
    "text",
    "image_url",
    "function",
    "auto",
    "required",
    "{}",
    "{\"a\":1}",
    "data:image/png;base64,AA",
    "data:x",
    "json_schema",
    "tool_use",
    "tool_result",
    "base64",
    "",
    " ",
    "é\u{0}\u{1F600}",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(6, 60, 6, |inner| {
        let member = (prop::sample::select(&NAMES[..]), inner.clone());
        prop_oneof![
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
            3 => prop::collection::vec(member, 0..6).prop_map(object),
        ]
    })
}

fn object(members: Vec<(&'static str, Value)>) -> Value {
    let members = members
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    Value::Object(members.collect::<Map<_, _>>())
}

/// Something between nonsense and a request.
fn request() -> impl Strategy<Value = Value> {
    let message = (prop::sample::select(&WORDS[..5]), value(), value());
    let message = message.prop_map(|(role, content, calls)| {
        json!({"role": role, "content": content, "tool_calls": calls, "tool_call_id": "c"})
    });
    let messages = prop::collection::vec(message, 0..4);
    (messages, value(), value()).prop_map(|(messages, tools, more)| {
        let mut request = json!({"model": "m", "messages": messages});
        request["tools"] = tools;
        if let Value::Object(more) = more {
            for (name, value) in more {
                request[name] = value;
            }
        }
        request
    })
}

proptest! {
    #[test]
    fn every_request_is_refused_or_leaves_as_json(request in prop_oneof![request(), value()]) {
        let body = Bytes::from(request.to_string());
        for operation in [Chat, Messages, Completions, Embeddings, Responses] {
            for dialect in [OpenAi, Anthropic, Ollama] {
                let Ok(call) = Call::read(operation, body.clone()) else {
                    continue;
                };
                match call.send(&to(dialect, "other")) {
                    Ok(outgoing) => {
                        let left: Result<Value, _> = serde_json::from_slice(&outgoing.body.concat());
                        prop_assert!(left.is_ok(), "{request}");
                    }
                    Err(failure) => prop_assert_eq!(failure.status, 400),
                }
            }
        }
    }

    #[test]
    fn every_answer_is_turned_into_json(answer in value(), status in 200..600u16) {
        let body = Bytes::from(answer.to_string());
        let request = Bytes::from_static(br#"{"model":"m","messages":[{"role":"user","content":"a"}]}"#);
        for operation in [Chat, Messages] {
            for dialect in [OpenAi, Anthropic, Ollama] {
                let call = Call::read(operation, request.clone()).unwrap();
                let answering = call.send(&to(dialect, "")).unwrap().answering;
                let status = StatusCode::from_u16(status).unwrap();
                let found = answering.whole(status, &HeaderMap::new(), body.clone());
                let read: Result<Value, _> = serde_json::from_slice(&found.body);
                prop_assert!(read.is_ok(), "{answer}");
            }
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Call::read(Chat, Bytes::from(bytes));
    }
}

#[test]
fn depth_is_no_danger() {
    for depth in [100, 10_000, 100_000] {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let body = format!(
            r#"{{"model":"m","messages":[{{"role":"user","content":"a"}}],"metadata":{deep},"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"x":{deep}}}}}}}]}}"#
        );
        for dialect in [OpenAi, Anthropic, Ollama] {
            let call = Call::read(Chat, Bytes::from(body.clone()));
            if let Ok(call) = call {
                let _ = call.send(&to(dialect, "x"));
                let _ = call.estimated_input("gpt-4o");
            }
        }
    }
}
