//! A client that speaks OpenAI's format, a provider that is Ollama: section 7 of the rules.

use dataplane_ai::call::Operation::Chat;
use dataplane_ai::provider::Dialect::Ollama;
use serde_json::json;

use crate::support::{assert_holds, json, send, sent};

fn check(members: &str, expected: &serde_json::Value) {
    let body = if members.contains(r#""messages""#) {
        format!(r#"{{"model":"alias",{members}}}"#)
    } else {
        format!(r#"{{"model":"alias","messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
    };
    assert_holds(
        &json(&sent(Chat, Ollama, "llama3", &body)),
        expected,
        members,
    );
}

#[test]
fn messages_are_strings_with_images_beside_them() {
    check(
        r#""messages":[{"role":"developer","content":"be brief"},{"role":"user","content":[{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}}]}]"#,
        &json!({"model": "llama3", "stream": false, "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "a\nb", "images": ["AAAA"]},
        ]}),
    );
}

#[test]
fn calls_have_objects_and_results_the_tools_name() {
    check(
        r#""messages":[{"role":"user","content":"go"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c1","content":"one"}]"#,
        &json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}]},
            {"role": "tool", "content": "one", "tool_name": "f", "tool_call_id": "c1"},
        ]}),
    );
}

#[test]
fn options_formats_and_thoughts_have_their_counterparts() {
    let rows = [
        (
            r#""max_completion_tokens":9,"temperature":0,"top_p":0.5,"seed":9007199254740993,"stop":"x","presence_penalty":1,"frequency_penalty":0.5"#,
            json!({"options": {"num_predict": 9, "temperature": 0, "top_p": 0.5, "seed": 9_007_199_254_740_993_u64, "stop": ["x"], "presence_penalty": 1, "frequency_penalty": 0.5}}),
        ),
        (r#""stream":true"#, json!({"stream": true, "options": null})),
        (
            r#""response_format":{"type":"json_object"}"#,
            json!({"format": "json"}),
        ),
        (
            r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}"#,
            json!({"format": {"type": "object"}}),
        ),
        (r#""reasoning_effort":"none""#, json!({"think": false})),
        (r#""reasoning_effort":"minimal""#, json!({"think": "low"})),
        (r#""reasoning_effort":"medium""#, json!({"think": "medium"})),
        (r#""reasoning_effort":"xhigh""#, json!({"think": "max"})),
    ];
    for (members, expected) in rows {
        check(members, &expected);
    }
}

#[test]
fn tools_are_left_out_when_none_may_be_called() {
    const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}},{"type":"function","function":{"name":"g"}}]"#;
    let f =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}});
    let g = json!({"type": "function", "function": {"name": "g"}});
    check(TOOLS, &json!({"tools": [f, g], "tool_choice": null}));
    check(
        &format!(r#"{TOOLS},"tool_choice":"none""#),
        &json!({"tools": null}),
    );
    check(
        &format!(r#"{TOOLS},"tool_choice":{{"type":"function","function":{{"name":"g"}}}}"#),
        &json!({"tools": [g]}),
    );
}

#[test]
fn what_ollama_cannot_do_is_refused_and_what_it_ignores_is_told() {
    for content in [
        r#"{"type":"image_url","image_url":{"url":"https://x.example/a.png"}}"#,
        r#"{"type":"file","file":{"file_data":"data:application/pdf;base64,AA"}}"#,
    ] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{content}]}}]}}"#);
        let failure = send(Chat, Ollama, "m", &body).unwrap_err();
        assert_eq!(failure.status, 400, "{content}");
    }
    let body = r#"{"messages":[{"role":"user","content":"a"}],"user":"u","logit_bias":{},"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required"}"#;
    let outgoing = send(Chat, Ollama, "m", body).unwrap();
    assert_eq!(outgoing.left_behind, ["logit_bias", "tool_choice", "user"]);
}
