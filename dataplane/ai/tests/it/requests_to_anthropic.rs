//! A client that speaks OpenAI's format, a provider that is Anthropic: section 3 of the rules.

use dataplane_ai::call::Operation::Chat;
use dataplane_ai::provider::Dialect::Anthropic;
use serde_json::json;

use crate::support::{assert_holds, json, send, sent};

const USER: &str = r#"{"role":"user","content":"hi"}"#;

fn check(members: &str, expected: &serde_json::Value) {
    check_model("claude-sonnet-4-0", members, expected);
}

fn check_model(model: &str, members: &str, expected: &serde_json::Value) {
    let body = if members.contains(r#""messages""#) {
        format!(r#"{{"model":"alias",{members}}}"#)
    } else {
        format!(r#"{{"model":"alias","messages":[{USER}],{members}}}"#)
    };
    let found = json(&sent(Chat, Anthropic, model, &body));
    assert_holds(&found, expected, members);
}

#[test]
fn the_model_is_the_services_and_unknown_members_are_never_forwarded() {
    let body = format!(
        r#"{{"model":"fast","messages":[{USER}],"logprobs":true,"store":true,"x_vendor":{{"a":1}},"seed":5,"stream_options":{{"include_usage":true}}}}"#
    );
    let outgoing = send(Chat, Anthropic, "claude-opus-4-1", &body).unwrap();
    let found = String::from_utf8(outgoing.body.concat()).unwrap();
    assert_eq!(
        found,
        r#"{"model":"claude-opus-4-1","max_tokens":4096,"messages":[{"role":"user","content":"hi"}]}"#
    );
    assert_eq!(
        outgoing.left_behind,
        ["logprobs", "store", "x_vendor", "seed"]
    );
}

#[test]
fn instructions_are_hoisted_in_order_and_never_glued() {
    check(
        r#""messages":[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":" "}]},{"role":"user","content":"hi"},{"role":"system","content":"c"}]"#,
        &json!({
            "system": [
                {"type": "text", "text": "a"},
                {"type": "text", "text": "b"},
                {"type": "text", "text": "c"},
            ],
            "messages": [{"role": "user", "content": "hi"}],
        }),
    );
}

#[test]
fn content_keeps_its_order_and_blank_parts_go() {
    check(
        r#""messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"text","text":"\n "},{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBOR/+=","detail":"low"}},{"type":"image_url","image_url":{"url":"https://x.example/a.jpg"}},{"type":"file","file":{"filename":"a.pdf","file_data":"data:application/pdf;base64,JVBE"}}],"name":"ann"}]"#,
        &json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "see"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBOR/+="}},
            {"type": "image", "source": {"type": "url", "url": "https://x.example/a.jpg"}},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBE"}},
        ]}]}),
    );
}

#[test]
fn calls_become_blocks_after_the_text_and_results_one_turn() {
    check(
        r#""tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"go"},
        {"role":"assistant","content":"on it","tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"n\":9007199254740993}"}},{"id":"c2","type":"function","function":{"name":"f","arguments":""}}]},
        {"role":"tool","tool_call_id":"c1","content":"one"},{"role":"tool","tool_call_id":"c2","content":""},{"role":"tool","tool_call_id":"c3","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]},
        {"role":"user","content":"and now?"}]"#,
        &json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "on it"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"n": 9_007_199_254_740_993_u64}},
                {"type": "tool_use", "id": "c2", "name": "f", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "one"},
                {"type": "tool_result", "tool_use_id": "c2"},
                {"type": "tool_result", "tool_use_id": "c3", "content": [
                    {"type": "text", "text": "x"}, {"type": "text", "text": "y"},
                ]},
                {"type": "text", "text": "and now?"},
            ]},
        ]}),
    );
}

#[test]
fn results_come_first_whatever_the_order_was() {
    check(
        r#""tools":[{"type":"function","function":{"name":"f"}}],"messages":[{"role":"user","content":"go"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"user","content":"wait"},{"role":"tool","tool_call_id":"c1","content":"1"}]"#,
        &json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "1"},
                {"type": "text", "text": "wait"},
            ]},
        ]}),
    );
}

#[test]
fn numbers_and_key_order_inside_arguments_are_kept_to_the_byte() {
    let found = sent(
        Chat,
        Anthropic,
        "m",
        r#"{"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","z":1.0,"$defs":{"a":1e2}}}}],"messages":[{"role":"user","content":"caf\u00e9 \ud83d\ude00"},{"role":"assistant","content":"","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"z\":1.50,\"a\":12345678901234567890, \"q\":\"\\u00e9\"}"}}]}]}"#,
    );
    assert!(
        found.contains(r#""content":"caf\u00e9 \ud83d\ude00""#),
        "{found}"
    );
    assert!(
        found.contains(r#""input":{"z":1.50,"a":12345678901234567890, "q":"\u00e9"}"#),
        "{found}"
    );
    assert!(
        found.contains(r#""input_schema":{"type":"object","z":1.0,"$defs":{"a":1e2}}"#),
        "{found}"
    );
}

#[test]
fn assistant_turns_that_are_empty_go_and_prefills_end_without_space() {
    check(
        r#""messages":[{"role":"user","content":"a"},{"role":"assistant","content":" "},{"role":"user","content":"b"},{"role":"assistant","content":"Sure: \n","refusal":null}]"#,
        &json!({"messages": [
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "Sure:"},
        ]}),
    );
    check(
        r#""messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"refusal":"no"},{"role":"user","content":"b"}]"#,
        &json!({"messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "no"},
            {"role": "user", "content": "b"},
        ]}),
    );
}

#[test]
fn limits_and_sampling_follow_the_rules() {
    let rows = [
        (r#""max_tokens":5"#, json!({"max_tokens": 5})),
        (
            r#""max_tokens":5,"max_completion_tokens":7"#,
            json!({"max_tokens": 7}),
        ),
        (
            r#""temperature":0"#,
            json!({"temperature": 0, "max_tokens": 4096}),
        ),
        (r#""temperature":1.7"#, json!({"temperature": 1})),
        (
            r#""temperature":0.3,"top_p":0.9"#,
            json!({"temperature": 0.3, "top_p": 0.9}),
        ),
        (r#""stop":"END""#, json!({"stop_sequences": ["END"]})),
        (
            r#""stop":["a"," ","b"]"#,
            json!({"stop_sequences": ["a", "b"]}),
        ),
        (r#""stop":[" "]"#, json!({"stop_sequences": null})),
        (r#""stop":null"#, json!({"stop_sequences": null})),
        (r#""n":1"#, json!({"n": null})),
        (
            r#""user":"u1""#,
            json!({"metadata": {"user_id": "u1"}, "user": null}),
        ),
        (
            r#""safety_identifier":"u2""#,
            json!({"metadata": {"user_id": "u2"}}),
        ),
        (
            r#""stream":true,"stream_options":{"include_usage":true}"#,
            json!({"stream": true, "stream_options": null}),
        ),
        (r#""stream":false"#, json!({"stream": null})),
        (
            r#""seed":1,"logit_bias":{"1":2},"presence_penalty":1"#,
            json!({"seed": null, "logit_bias": null, "presence_penalty": null}),
        ),
    ];
    for (members, expected) in rows {
        check(members, &expected);
    }
}

#[test]
fn models_that_refuse_sampling_get_none() {
    let rows = [
        (
            "claude-opus-4-7",
            json!({"temperature": null, "top_p": null}),
        ),
        (
            "claude-sonnet-5",
            json!({"temperature": null, "top_p": null}),
        ),
        (
            "claude-opus-4-1",
            json!({"temperature": 0.5, "top_p": null}),
        ),
        (
            "claude-3-haiku-20240307",
            json!({"temperature": 0.5, "top_p": 0.9}),
        ),
        ("someone-elses", json!({"temperature": 0.5, "top_p": 0.9})),
    ];
    for (model, expected) in rows {
        check_model(model, r#""temperature":0.5,"top_p":0.9"#, &expected);
    }
}

#[test]
fn tools_are_taken_over() {
    const F: &str = r#""tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"properties":{}},"strict":true}}]"#;
    check(
        F,
        &json!({
            "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}, "strict": true}],
            "tool_choice": null,
        }),
    );
    check(
        r#""tools":[{"type":"function","function":{"name":"f"}}]"#,
        &json!({"tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}]}),
    );
    let rows = [
        (r#""tool_choice":"auto""#, json!({"type": "auto"})),
        (r#""tool_choice":"required""#, json!({"type": "any"})),
        (r#""tool_choice":"none""#, json!({"type": "none"})),
        (
            r#""tool_choice":{"type":"function","function":{"name":"f"}}"#,
            json!({"type": "tool", "name": "f"}),
        ),
        (
            r#""parallel_tool_calls":false"#,
            json!({"type": "auto", "disable_parallel_tool_use": true}),
        ),
        (
            r#""parallel_tool_calls":false,"tool_choice":"required""#,
            json!({"type": "any", "disable_parallel_tool_use": true}),
        ),
    ];
    for (members, choice) in rows {
        check(&format!("{F},{members}"), &json!({"tool_choice": choice}));
        // Without tools there is nothing to choose.
        check(members, &json!({"tool_choice": null, "tools": null}));
    }
    check(
        r#""functions":[{"name":"f","parameters":{"type":"object"}}],"function_call":{"name":"f"}"#,
        &json!({
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "tool", "name": "f"},
        }),
    );
}

#[test]
fn a_history_with_calls_names_its_tools_even_when_the_request_does_not() {
    check(
        r#""messages":[{"role":"user","content":"go"},{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"c","content":"1"}]"#,
        &json!({
            "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
            "tool_choice": {"type": "none"},
        }),
    );
}

#[test]
fn deprecated_calls_of_functions_are_paired() {
    check(
        r#""functions":[{"name":"f"}],"messages":[{"role":"user","content":"go"},{"role":"assistant","content":null,"function_call":{"name":"f","arguments":"{}"}},{"role":"function","name":"f","content":"1"}]"#,
        &json!({"messages": [
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "1"}]},
        ]}),
    );
}

#[test]
fn formats_and_efforts_have_their_counterparts() {
    const SCHEMA: &str = r#""response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"},"strict":true}}"#;
    let format = json!({"type": "json_schema", "schema": {"type": "object"}});
    check_model(
        "claude-opus-4-5",
        SCHEMA,
        &json!({"output_config": {"format": format}}),
    );
    check(
        r#""response_format":{"type":"json_object"}"#,
        &json!({"system": [{"type": "text", "text": "Answer with one JSON object and nothing else."}]}),
    );
    check_model(
        "claude-opus-4-5",
        r#""reasoning_effort":"high""#,
        &json!({"output_config": {"effort": "high"}, "thinking": null}),
    );
    let rows = [
        (r#""reasoning_effort":"high""#, json!({"thinking": null})),
        (
            r#""reasoning_effort":"high","max_tokens":8000"#,
            json!({"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        ),
        (
            r#""reasoning_effort":"high","max_tokens":2000"#,
            json!({"thinking": {"type": "enabled", "budget_tokens": 1999}}),
        ),
        (
            r#""reasoning_effort":"low","max_tokens":1024"#,
            json!({"thinking": null}),
        ),
        (
            r#""reasoning_effort":"none","max_tokens":8000"#,
            json!({"thinking": null}),
        ),
        (
            r#""reasoning_effort":"low","max_tokens":8000,"temperature":0.2"#,
            json!({"temperature": null}),
        ),
    ];
    for (members, mut expected) in rows {
        if members == r#""reasoning_effort":"high""# {
            expected = json!({"thinking": {"type": "enabled", "budget_tokens": 4095}});
        }
        check(members, &expected);
    }
}

/// Such a turn would have to begin with thoughts, which a client of OpenAI's format cannot send back.
#[test]
fn a_turn_that_has_begun_goes_on_without_thoughts() {
    const CALL: &str = r#"{"role":"assistant","tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]}"#;
    const RESULT: &str = r#"{"role":"tool","tool_call_id":"c","content":"7"}"#;
    const SAID: &str = r#"{"role":"assistant","content":"a"}"#;
    let model = "claude-sonnet-4-5";
    for (turns, thinks) in [
        (vec![USER], true),
        (vec![USER, CALL, RESULT], false),
        (vec![USER, CALL, RESULT, USER], false),
        (vec![USER, CALL, RESULT, CALL, RESULT], false),
        (vec![USER, CALL, RESULT, SAID, USER], true),
        (vec![USER, SAID], false),
    ] {
        let body = format!(
            r#"{{"model":"m","reasoning_effort":"low","max_tokens":8000,"temperature":0.5,"messages":[{}]}}"#,
            turns.join(",")
        );
        let outgoing = send(Chat, Anthropic, model, &body).unwrap();
        let found = json(std::str::from_utf8(&outgoing.body.concat()).unwrap());
        assert_eq!(found["thinking"].is_object(), thinks, "{turns:?}");
        assert_eq!(found["temperature"].is_null(), thinks, "{turns:?}");
        let told = match thinks {
            true => "temperature",
            false => "reasoning_effort",
        };
        assert_eq!(outgoing.left_behind, [told], "{turns:?}");
    }
}

#[test]
fn what_anthropic_cannot_do_is_refused_with_a_reason() {
    let rows = [
        (r#""n":2"#, "n"),
        (r#""modalities":["text","audio"]"#, "modalities"),
        (
            r#""messages":[{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}]}]"#,
            "messages[].content[]",
        ),
        (
            r#""messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f1"}}]}]"#,
            "messages[].content[].file",
        ),
        (
            r#""messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png,x"}}]}]"#,
            "messages[].content[]",
        ),
        (
            r#""messages":[{"role":"user","content":"a"},{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{oops"}}]}]"#,
            "messages[].tool_calls[].function.arguments",
        ),
        (
            r#""messages":[{"role":"system","content":"a"}]"#,
            "messages",
        ),
        (r#""messages":[]"#, "messages"),
        (
            r#""messages":[{"role":"king","content":"a"}]"#,
            "messages[].role",
        ),
        (r#""messages":[{"content":"a"}]"#, "messages[].role"),
        (
            r#""messages":[{"role":"tool","content":"a"}]"#,
            "messages[].tool_call_id",
        ),
        (
            r#""messages":[{"role":"user","content":5}]"#,
            "messages[].content",
        ),
        (r#""temperature":"hot""#, "temperature"),
        (r#""stop":7"#, "stop"),
        (r#""tools":[{"type":"web_search"}]"#, "tools[].type"),
        (
            r#""response_format":{"type":"grammar"}"#,
            "response_format.type",
        ),
        (r#""reasoning_effort":"extreme""#, "reasoning_effort"),
    ];
    for (members, param) in rows {
        let body = if members.contains(r#""messages""#) {
            format!(r#"{{"model":"m",{members}}}"#)
        } else {
            format!(r#"{{"model":"m","messages":[{USER}],{members}}}"#)
        };
        let failure = send(Chat, Anthropic, "m", &body).unwrap_err();
        assert_eq!(failure.status, 400, "{members}");
        assert_eq!(
            failure.param.as_deref(),
            Some(param),
            "{members}: {failure}"
        );
        assert!(!failure.message.is_empty());
    }
}

#[test]
fn bodies_that_are_no_requests_go_nowhere() {
    for body in [
        "",
        "x",
        "[]",
        "{}",
        "{\"messages\":\"hi\"}",
        "{\"model\":1,\"messages\":[]}",
        "{\"a\":1,\"a\":2}",
    ] {
        let failure = send(Chat, Anthropic, "m", body).unwrap_err();
        assert_eq!(failure.status, 400, "{body}");
    }
}
