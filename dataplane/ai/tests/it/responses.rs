//! Whole answers and errors: sections 4, 6 and 7 of the rules.

use bytes::Bytes;
use dataplane_ai::call::Operation::{Chat, Messages};
use dataplane_ai::provider::Dialect::{Anthropic, Ollama, OpenAi};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use crate::support::{REASONS, answered, assert_holds, json, send};

fn anthropic(members: &str) -> String {
    format!(
        r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude-x",{members},"usage":{{"input_tokens":10,"cache_read_input_tokens":5,"cache_creation_input_tokens":3,"output_tokens":7,"output_tokens_details":{{"thinking_tokens":2}}}}}}"#
    )
}

#[test]
fn an_answer_of_anthropic_reads_like_one_of_openai() {
    let body = anthropic(
        r#""content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"one "},{"type":"server_tool_use"},{"type":"text","text":"two"},{"type":"tool_use","id":"t1","name":"f","input":{"z":9007199254740993,"a":1.0}},{"type":"tool_use","id":"t2","name":"g","input":{}}],"stop_reason":"tool_use","stop_sequence":null"#,
    );
    let (status, found) = answered(Chat, Anthropic, 200, &body);
    assert_eq!(status, 200);
    assert_eq!(
        json(&found),
        json!({
            "id": "msg_1", "object": "chat.completion", "created": 1_700_000_000, "model": "claude-x",
            "choices": [{"index": 0, "message": {
                "role": "assistant", "content": "one two", "refusal": null, "reasoning_content": "hm",
                "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"z\":9007199254740993,\"a\":1.0}"}},
                    {"id": "t2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            }, "logprobs": null, "finish_reason": "tool_calls"}],
            "usage": {
                "prompt_tokens": 18, "completion_tokens": 7, "total_tokens": 25,
                "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
        })
    );
}

#[test]
fn every_reason_to_stop_has_a_word_that_clients_know() {
    for (reason, expected) in REASONS {
        let body = anthropic(&format!(r#""content":[],"stop_reason":"{reason}""#));
        let (_, found) = answered(Chat, Anthropic, 200, &body);
        let found = json(&found);
        assert_eq!(found["choices"][0]["finish_reason"], expected, "{reason}");
        assert_eq!(found["choices"][0]["message"]["content"], json!(null));
    }
}

#[test]
fn an_answer_of_openai_reads_like_one_of_anthropic() {
    let body = r#"{"id":"chatcmpl-1","model":"gpt-x","choices":[{"index":0,"message":{"role":"assistant","content":"hi","reasoning_content":"hm","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"n\":9007199254740993}"}},{"id":"","type":"function","function":{"name":"g","arguments":""}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":18,"completion_tokens":7,"total_tokens":25,"prompt_tokens_details":{"cached_tokens":5}}}"#;
    let (_, found) = answered(Messages, OpenAi, 200, body);
    assert!(
        found.contains(r#""input":{"n":9007199254740993}"#),
        "{found}"
    );
    assert_eq!(
        json(&found),
        json!({
            "id": "chatcmpl-1", "type": "message", "role": "assistant", "model": "gpt-x",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": ""},
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": 9_007_199_254_740_993_u64}},
                {"type": "tool_use", "id": "call_00000000000000070001", "name": "g", "input": {}},
            ],
            "stop_reason": "tool_use", "stop_sequence": null,
            "usage": {"input_tokens": 13, "cache_read_input_tokens": 5, "output_tokens": 7},
        })
    );
    for (word, expected) in [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("content_filter", "refusal"),
        ("function_call", "tool_use"),
    ] {
        let body =
            format!(r#"{{"choices":[{{"message":{{"content":"x"}},"finish_reason":"{word}"}}]}}"#);
        let (_, found) = answered(Messages, OpenAi, 200, &body);
        assert_eq!(json(&found)["stop_reason"], expected);
        assert_eq!(json(&found)["id"], "msg_0000000000000007");
        assert_eq!(json(&found)["model"], "m");
    }
}

#[test]
fn an_answer_of_ollama_reads_like_one_of_openai() {
    let body = r#"{"model":"llama3","created_at":"2026-01-01T00:00:00.123456789Z","message":{"role":"assistant","content":"","thinking":"hm","tool_calls":[{"function":{"index":0,"name":"f","arguments":{"a":1.0}}},{"function":{"name":"g","arguments":{}}}]},"done":true,"done_reason":"stop","prompt_eval_count":9,"eval_count":4}"#;
    let (_, found) = answered(Chat, Ollama, 200, body);
    let found = json(&found);
    assert_holds(
        &found["choices"][0],
        &json!({"finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": null, "refusal": null, "reasoning_content": "hm",
            "tool_calls": found["choices"][0]["message"]["tool_calls"],
        }}),
        "ollama",
    );
    let calls = found["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap();
    assert_eq!(calls[0]["function"]["arguments"], "{\"a\":1.0}");
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_ne!(calls[0]["id"], "");
    assert_eq!(
        found["usage"],
        json!({"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13})
    );
    for (reason, expected) in [("stop", "stop"), ("length", "length"), ("load", "stop")] {
        let body =
            format!(r#"{{"message":{{"content":"a"}},"done":true,"done_reason":"{reason}"}}"#);
        let (_, found) = answered(Chat, Ollama, 200, &body);
        assert_eq!(json(&found)["choices"][0]["finish_reason"], expected);
    }
}

#[test]
fn errors_keep_the_providers_words_and_a_status_that_clients_understand() {
    let anthropic = |kind: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"why"}},"request_id":"r"}}"#
        )
    };
    let rows = [
        (400, "invalid_request_error", 400),
        (402, "billing_error", 402),
        (403, "permission_error", 403),
        (404, "not_found_error", 404),
        (409, "conflict", 409),
        (413, "request_too_large", 413),
        (422, "invalid_request_error", 422),
        (429, "rate_limit_error", 429),
        (500, "api_error", 500),
        (504, "timeout_error", 504),
        (529, "overloaded_error", 503),
    ];
    for (said, kind, expected) in rows {
        let (status, found) = answered(Chat, Anthropic, said, &anthropic(kind));
        assert_eq!(status, expected, "{kind}");
        assert_eq!(
            json(&found),
            json!({"error": {"message": "why", "type": kind, "param": null, "code": null}})
        );
        // The same dialect: the same bytes.
        let body = anthropic(kind);
        assert_eq!(answered(Messages, Anthropic, said, &body), (said, body));
    }
    let openai = r#"{"error":{"message":"why","type":"invalid_request_error","param":"x","code":"c","extra":1.0}}"#;
    let (status, found) = answered(Messages, OpenAi, 400, openai);
    assert_eq!(
        (status, json(&found)),
        (
            400,
            json!({"type": "error", "error": {"type": "invalid_request_error", "message": "why"}})
        )
    );
    assert_eq!(
        answered(Chat, OpenAi, 400, openai),
        (400, openai.to_owned())
    );
    let (status, found) = answered(Chat, Ollama, 404, r#"{"error":"model 'x' not found"}"#);
    assert_eq!(status, 404);
    assert_eq!(
        json(&found),
        json!({"error": {"message": "model 'x' not found", "type": "not_found_error", "param": "model", "code": "model_not_found"}})
    );
}

#[test]
fn a_refused_key_is_never_shown() {
    let body = r#"{"error":{"message":"Incorrect API key provided: sk-canary","type":"invalid_request_error","code":"invalid_api_key"}}"#;
    for operation in [Chat, Messages] {
        let (status, found) = answered(operation, OpenAi, 401, body);
        assert_eq!(status, 401);
        assert!(!found.contains("canary"), "{found}");
        assert!(found.contains("gateway's credentials"));
    }
}

#[test]
fn what_is_no_answer_is_an_error_of_the_gateway() {
    let rows = [
        (200, "<html>"),
        (200, ""),
        (200, "{\"id\":"),
        (200, "[]"),
        (302, "moved"),
        (307, r#"{"error":{"message":"moved"}}"#),
    ];
    for (status, body) in rows {
        for (operation, dialect) in [
            (Chat, Anthropic),
            (Chat, OpenAi),
            (Chat, Ollama),
            (Messages, OpenAi),
        ] {
            let (found, text) = answered(operation, dialect, status, body);
            assert_eq!(found, 502, "{body} {dialect:?}");
            assert!(json(&text)["error"]["message"].is_string(), "{text}");
        }
    }
    for (said, expected) in [(500, 502), (502, 502), (503, 503), (504, 504), (404, 404)] {
        let (status, text) = answered(Chat, OpenAi, said, "<html>proxy</html>");
        assert_eq!(status, expected);
        assert!(!text.contains("html"), "{text}");
    }
}

#[test]
fn when_to_try_again_is_passed_on() {
    let request = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let answering = send(Chat, Anthropic, "m", request).unwrap().answering;
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("7"));
    headers.insert(
        "anthropic-ratelimit-requests-remaining",
        HeaderValue::from_static("0"),
    );
    headers.insert("set-cookie", HeaderValue::from_static("a=b"));
    let body = Bytes::from_static(br#"{"error":{"type":"rate_limit_error","message":"slow"}}"#);
    let answer = answering.whole(StatusCode::TOO_MANY_REQUESTS, &headers, body);
    assert_eq!(answer.failure.unwrap().retry_after.unwrap().as_secs(), 7);
    let mut client = HeaderMap::new();
    answering.head(&headers, &mut client);
    assert_eq!(client["retry-after"], "7");
    assert_eq!(client["x-ratelimit-remaining-requests"], "0");
    assert_eq!(client.len(), 2);
}
