//! A client that speaks Anthropic's format, providers that speak another.

use dataplane_ai::call::Operation::Messages;
use dataplane_ai::provider::Dialect::{Ollama, OpenAi};
use serde_json::json;

use crate::support::{assert_holds, json, send, sent};

const BODY: &str = r#"{"model":"claude","max_tokens":100,"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}],
"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},
{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"ok"},{"type":"tool_use","id":"t1","name":"f","input":{"n":9007199254740993,"x":1.0}}]},
{"role":"user","content":[{"type":"text","text":"go on"},{"type":"tool_result","tool_use_id":"t1","content":[{"type":"text","text":"one"},{"type":"text","text":"two"}],"is_error":true}]}],
"tools":[{"name":"f","description":"d","input_schema":{"type":"object"}}],"tool_choice":{"type":"any","disable_parallel_tool_use":true},
"stop_sequences":["END"],"temperature":0.5,"top_k":4,"metadata":{"user_id":"u"},"thinking":{"type":"enabled","budget_tokens":4000},"stream":true}"#;

#[test]
fn openai_gets_messages_of_its_own_kind() {
    let text = sent(Messages, OpenAi, "gpt", BODY);
    assert!(
        text.contains(r#""arguments":"{\"n\":9007199254740993,\"x\":1.0}""#),
        "{text}"
    );
    assert_holds(
        &json(&text),
        &json!({
            "model": "gpt",
            "max_completion_tokens": 100,
            "temperature": 0.5,
            "top_k": null,
            "stop": ["END"],
            "user": "u",
            "reasoning_effort": "medium",
            "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
            "tool_choice": "required",
            "parallel_tool_calls": false,
            "messages": [
                {"role": "system", "content": "a\nb"},
                {"role": "user", "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                ]},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{\"n\":9007199254740993,\"x\":1.0}"}},
                ]},
                {"role": "tool", "tool_call_id": "t1", "content": "one\ntwo"},
                {"role": "user", "content": "go on"},
            ],
        }),
        "openai",
    );
    let outgoing = send(Messages, OpenAi, "gpt", BODY).unwrap();
    assert_eq!(
        outgoing.left_behind,
        [
            "system[].cache_control",
            "messages[].content[].thinking",
            "messages[].content[].is_error",
            "top_k"
        ]
    );
    for kind in ["adaptive", "disabled", "between_tools"] {
        let body = format!(
            r#"{{"max_tokens":9,"messages":[{{"role":"user","content":"hi"}}],"thinking":{{"type":"{kind}"}}}}"#
        );
        let outgoing = send(Messages, OpenAi, "gpt", &body).unwrap();
        assert_eq!(outgoing.left_behind, ["thinking"]);
    }
}

#[test]
fn ollama_gets_messages_of_its_own_kind() {
    assert_holds(
        &json(&sent(Messages, Ollama, "llama", BODY)),
        &json!({
            "model": "llama",
            "stream": true,
            "think": "medium",
            "messages": [
                {"role": "system", "content": "a\nb"},
                {"role": "user", "content": "see", "images": ["AAAA"]},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "t1", "function": {"name": "f", "arguments": {"n": 9_007_199_254_740_993_u64, "x": 1.0}}},
                ]},
                {"role": "tool", "content": "one\ntwo", "tool_name": "f", "tool_call_id": "t1"},
                {"role": "user", "content": "go on"},
            ],
        }),
        "ollama",
    );
}

#[test]
fn structured_output_and_choices_have_their_counterparts() {
    let rows = [
        (
            r#""output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}}"#,
            json!({
                "reasoning_effort": "low",
                "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": true}},
            }),
        ),
        (
            r#""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"f"}"#,
            json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}),
        ),
        (
            r#""tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"none"}"#,
            json!({"tool_choice": "none"}),
        ),
        (
            r#""system":"one""#,
            json!({"messages": [{"role": "system", "content": "one"}, {"role": "user", "content": "hi"}]}),
        ),
    ];
    for (members, expected) in rows {
        let body = format!(
            r#"{{"model":"c","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}],{members}}}"#
        );
        assert_holds(
            &json(&sent(Messages, OpenAi, "gpt", &body)),
            &expected,
            members,
        );
    }
}

#[test]
fn what_only_anthropic_can_do_is_refused() {
    let rows = [
        (r#""mcp_servers":[{"url":"x"}]"#, "mcp_servers"),
        (
            r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#,
            "tools[].type",
        ),
        (
            r#""messages":[{"role":"user","content":[{"type":"container_upload"}]}]"#,
            "messages[].content[]",
        ),
        (
            r#""messages":[{"role":"user","content":[{"type":"document","source":{"type":"url","url":"https://x"}}]}]"#,
            "messages[].content[].source",
        ),
    ];
    for (members, param) in rows {
        let base = r#""max_tokens":9"#;
        let body = if members.contains("messages") {
            format!("{{{base},{members}}}")
        } else {
            format!(r#"{{{base},"messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
        };
        let failure = send(Messages, OpenAi, "gpt", &body).unwrap_err();
        assert_eq!(failure.param.as_deref(), Some(param), "{members}");
        let text = String::from_utf8(
            failure
                .body(dataplane_ai::failure::ClientFormat::Anthropic)
                .to_vec(),
        );
        assert!(
            text.unwrap()
                .starts_with(r#"{"type":"error","error":{"type":"invalid_request_error","#)
        );
    }
}
