//! Whole answers to clients that asked for a stream: some servers do not stream whatever they are asked.

use bytes::Bytes;
use dataplane_ai::call::Operation::{self, Chat, Completions, Messages, Responses};
use dataplane_ai::provider::Dialect::{self, Anthropic, Ollama, OpenAi};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::support::{frames, json, send};

/// What the client gets for a whole answer; the status of the refusal when it is none.
fn pieces(
    operation: Operation,
    dialect: Dialect,
    usage: bool,
    body: &str,
) -> Result<String, (u16, String)> {
    let options = if usage {
        r#","stream_options":{"include_usage":true}"#
    } else {
        ""
    };
    let request = format!(
        r#"{{"model":"m","stream":true,"max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]{options}}}"#
    );
    let answering = send(operation, dialect, "", &request).unwrap().answering;
    let body = Bytes::from(body.to_owned());
    let mut answer = answering.whole(StatusCode::OK, &HeaderMap::new(), body);
    let is_in_pieces = answering.in_pieces(&mut answer);
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    match is_in_pieces {
        true => Ok(body),
        false => Err((answer.status.as_u16(), body)),
    }
}

fn chunks(text: &str) -> Vec<Value> {
    let frames = frames(text);
    assert_eq!(frames.last().unwrap(), "[DONE]", "{text}");
    let chunks = frames[..frames.len() - 1].iter();
    chunks.map(|frame| json(frame)).collect()
}

#[test]
fn an_answer_of_openai_becomes_chunks_and_nothing_of_it_is_lost() {
    let body = "{\n \"id\":\"c1\",\"object\":\"chat.completion\",\"created\":7,\"model\":\"gpt-x\",\"x_vendor\":9007199254740993,\r\n\
        \"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"caf\\u00e9\\n\",\"reasoning_content\":\"hm\",\
        \"tool_calls\":[{\"id\":\"t0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\": 1.0}\"}},{\"id\":\"t1\",\"type\":\"function\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]},\
        \"logprobs\":{\"content\":[]},\"finish_reason\":\"tool_calls\"},\
        {\"index\":1,\"message\":{\"role\":\"assistant\",\"content\":\"two\"},\"finish_reason\":\"length\"}],\
        \"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2,\"total_tokens\":5,\"x\":1.0}}";
    let found = pieces(Chat, OpenAi, true, body).unwrap();
    assert!(found.contains(r#""x_vendor":9007199254740993"#), "{found}");
    assert!(found.contains(r#""content":"caf\u00e9\n""#), "{found}");
    let head =
        json!({"object": "chat.completion.chunk", "id": "c1", "created": 7, "model": "gpt-x"});
    let chunk = |more: Value| {
        let mut chunk = head.clone();
        chunk
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        chunk
    };
    let call = |index: u32, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        chunks(&found),
        [
            chunk(json!({"x_vendor": 9_007_199_254_740_993_u64, "choices": [{
                "index": 0, "finish_reason": null, "logprobs": {"content": []},
                "delta": {
                    "role": "assistant", "content": "café\n", "reasoning_content": "hm",
                    "tool_calls": [call(0, "t0", "f", "{\"a\": 1.0}"), call(1, "t1", "g", "{}")],
                },
            }]})),
            chunk(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})),
            chunk(
                json!({"choices": [{"index": 1, "delta": {"role": "assistant", "content": "two"}, "finish_reason": null}]})
            ),
            chunk(json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]})),
            chunk(
                json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "x": 1.0}})
            ),
        ]
    );
    let found = pieces(Chat, OpenAi, false, body).unwrap();
    assert!(!found.contains("usage"), "{found}");
}

#[test]
fn an_answer_of_anthropic_becomes_events_and_nothing_of_it_is_lost() {
    let body = r#"{"id":"m1","type":"message","role":"assistant","model":"claude-x","content":[
        {"type":"thinking","thinking":"hm","signature":"s"},
        {"type":"text","text":"caf\u00e9","citations":[{"x":1.0}]},
        {"type":"tool_use","id":"t","name":"f","input":{"a": 9007199254740993}},
        {"type":"block_of_tomorrow","x":[1]},
        {"type":"text","text":""}],
        "stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":3,"output_tokens":2,"x":1.0},"container":{"id":"k"}}"#;
    let found = pieces(Messages, Anthropic, false, body).unwrap();
    let start = |index: u32, block: Value| json!({"type": "content_block_start", "index": index, "content_block": block});
    let delta = |index: u32, delta: Value| json!({"type": "content_block_delta", "index": index, "delta": delta});
    let stop = |index: u32| json!({"type": "content_block_stop", "index": index});
    let usage = json!({"input_tokens": 3, "output_tokens": 2, "x": 1.0});
    let events: Vec<Value> = frames(&found).iter().map(|frame| json(frame)).collect();
    assert_eq!(
        events,
        [
            json!({"type": "message_start", "message": {
                "id": "m1", "type": "message", "role": "assistant", "model": "claude-x", "content": [],
                "stop_reason": null, "stop_sequence": null, "usage": usage, "container": {"id": "k"},
            }}),
            start(
                0,
                json!({"type": "thinking", "thinking": "", "signature": ""})
            ),
            delta(0, json!({"type": "thinking_delta", "thinking": "hm"})),
            delta(0, json!({"type": "signature_delta", "signature": "s"})),
            stop(0),
            start(
                1,
                json!({"type": "text", "text": "", "citations": [{"x": 1.0}]})
            ),
            delta(1, json!({"type": "text_delta", "text": "café"})),
            stop(1),
            start(
                2,
                json!({"type": "tool_use", "id": "t", "name": "f", "input": {}})
            ),
            delta(
                2,
                json!({"type": "input_json_delta", "partial_json": "{\"a\": 9007199254740993}"})
            ),
            stop(2),
            start(3, json!({"type": "block_of_tomorrow", "x": [1]})),
            stop(3),
            start(4, json!({"type": "text", "text": ""})),
            stop(4),
            json!({"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": null}, "usage": usage}),
            json!({"type": "message_stop"}),
        ]
    );
    for (frame, event) in found.split("\n\n").zip(&events) {
        let kind = event["type"].as_str().unwrap();
        assert!(
            frame.starts_with(&format!("event: {kind}\ndata: ")),
            "{frame}"
        );
    }
}

#[test]
fn answers_of_other_dialects_are_converted_first() {
    let anthropic = r#"{"id":"m1","content":[{"type":"text","text":"hi"}],"stop_reason":"max_tokens","usage":{"input_tokens":3,"output_tokens":2}}"#;
    let ollama = r#"{"message":{"content":"hi"},"done":true,"done_reason":"length","prompt_eval_count":3,"eval_count":2}"#;
    let openai = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"length"}],"usage":{"prompt_tokens":3,"completion_tokens":2}}"#;
    for (dialect, body) in [(Anthropic, anthropic), (Ollama, ollama), (OpenAi, openai)] {
        let found = chunks(&pieces(Chat, dialect, true, body).unwrap());
        assert_eq!(
            found[0]["choices"][0]["delta"]["content"], "hi",
            "{dialect:?}"
        );
        assert_eq!(found[1]["choices"][0]["finish_reason"], "length");
        assert_eq!(found[2]["usage"]["completion_tokens"], 2);
        let found = pieces(Messages, dialect, false, body).unwrap();
        assert!(
            found.contains(r#""delta":{"type":"text_delta","text":"hi"}"#),
            "{found}"
        );
        assert!(found.contains(r#""stop_reason":"max_tokens""#), "{found}");
        assert!(
            found.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
            "{found}"
        );
    }
}

#[test]
fn what_is_no_answer_is_refused_and_what_is_only_passed_on_stays() {
    for operation in [Chat, Messages] {
        for dialect in [OpenAi, Anthropic, Ollama] {
            for body in [
                "{}",
                r#"{"choices":7,"content":7}"#,
                r#"{"choices":[7],"content":[7]}"#,
            ] {
                let (status, found) = pieces(operation, dialect, false, body).unwrap_err();
                assert_eq!(status, 502, "{body} of {dialect:?}: {found}");
            }
        }
    }
    let openai = r#"{"error":{"message":"overloaded","type":"server_error"}}"#;
    let anthropic =
        r#"{"type":"error","error":{"type":"overloaded_error","message":"overloaded"}}"#;
    for (operation, dialect, body) in [(Chat, OpenAi, openai), (Messages, Anthropic, anthropic)] {
        let (status, found) = pieces(operation, dialect, false, body).unwrap_err();
        assert_eq!(
            (status, &json(&found)["error"]["message"]),
            (502, &json!("overloaded"))
        );
    }
    for operation in [Completions, Responses] {
        let body = r#"{"usage":null}"#;
        let unchanged = Err((200, body.to_owned()));
        assert_eq!(pieces(operation, OpenAi, false, body), unchanged);
    }
}
