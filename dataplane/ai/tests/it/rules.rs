//! Rows of the rules of conversion that belong to no other table: what is ignored and told, spellings of
//! effort, what streams and answers leave out, what Ollama does by itself.

use bytes::Bytes;
use dataplane_ai::call::Operation::{Chat, Messages};
use dataplane_ai::call::{Call, Destination};
use dataplane_ai::provider::Dialect::{Anthropic, Ollama, OpenAi};
use dataplane_ai::provider::retry_after;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use crate::support::{
    REASONS, answered, assert_holds, frames, json, send, sent, stream, streamed, to,
};

fn chat(members: &str) -> String {
    format!(r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],{members}}}"#)
}

#[test]
fn every_member_without_a_counterpart_is_told_and_never_forwarded() {
    for (name, value) in [
        ("logprobs", "true"),
        ("top_logprobs", "3"),
        ("logit_bias", r#"{"1":2}"#),
        ("seed", "5"),
        ("presence_penalty", "1"),
        ("frequency_penalty", "0.5"),
        ("store", "true"),
        ("metadata", r#"{"a":"b"}"#),
        ("service_tier", r#""auto""#),
        ("prediction", r#"{"type":"content","content":"x"}"#),
        ("prompt_cache_key", r#""k""#),
        ("verbosity", r#""low""#),
        ("x_vendor", "[1.0]"),
    ] {
        let outgoing = send(Chat, Anthropic, "m", &chat(&format!(r#""{name}":{value}"#))).unwrap();
        let body = String::from_utf8(outgoing.body.concat()).unwrap();
        assert_eq!(
            body, r#"{"model":"m","max_tokens":4096,"messages":[{"role":"user","content":"hi"}]}"#,
            "{name}"
        );
        assert_eq!(outgoing.left_behind, [name]);
    }
    // Text alone is what every provider answers with.
    let outgoing = send(Chat, Anthropic, "m", &chat(r#""modalities":["text"]"#)).unwrap();
    assert!(outgoing.left_behind.is_empty());
}

#[test]
fn efforts_limits_and_sampling_have_one_spelling_each() {
    for (model, members, expected) in [
        (
            "claude-opus-4-5",
            r#""reasoning_effort":"low""#,
            json!({"output_config": {"effort": "low"}}),
        ),
        (
            "claude-opus-4-5",
            r#""reasoning_effort":"medium""#,
            json!({"output_config": {"effort": "medium"}}),
        ),
        (
            "claude-opus-4-5",
            r#""reasoning_effort":"minimal""#,
            json!({"output_config": {"effort": "low"}}),
        ),
        (
            "claude-opus-4-5",
            r#""reasoning_effort":"none""#,
            json!({"output_config": null, "thinking": null}),
        ),
        (
            "claude-sonnet-4-0",
            r#""max_completion_tokens":3"#,
            json!({"max_tokens": 3}),
        ),
        (
            "claude-sonnet-4-0",
            r#""max_tokens":null,"max_completion_tokens":null"#,
            json!({"max_tokens": 4096}),
        ),
        (
            "claude-sonnet-4-0",
            r#""top_p":0.25"#,
            json!({"top_p": 0.25, "temperature": null}),
        ),
        (
            "claude-sonnet-4-0",
            r#""stop":[]"#,
            json!({"stop_sequences": null}),
        ),
    ] {
        let found = json(&sent(Chat, Anthropic, model, &chat(members)));
        assert_holds(&found, &expected, members);
    }
}

#[test]
fn schemas_of_tools_are_kept_to_the_byte() {
    let schema = r##"{"type":"object","$defs":{"n":{"type":"number"}},"properties":{"a":{"$ref":"#/$defs/n","minimum":1e2}},"additionalProperties":false}"##;
    let tools = format!(
        r#""tools":[{{"type":"function","function":{{"name":"f","parameters":{schema}}}}}]"#
    );
    let found = sent(Chat, Anthropic, "m", &chat(&tools));
    assert!(
        found.contains(&format!(r#""input_schema":{schema}"#)),
        "{found}"
    );
}

#[test]
fn answers_leave_out_what_clients_cannot_read() {
    let message = |content: &str, usage: &str| {
        format!(
            r#"{{"id":"m","type":"message","role":"assistant","model":"c","content":[{content}],"stop_reason":"end_turn","usage":{usage}}}"#
        )
    };
    for (content, usage, expected_text, expected_usage) in [
        (
            r#"{"type":"redacted_thinking","data":"x"},{"type":"text","text":"a"}"#,
            r#"{"input_tokens":3,"output_tokens":2}"#,
            json!("a"),
            json!({"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}),
        ),
        (
            r#"{"type":"text","text":"a","citations":[{"type":"x"}]},{"type":"text","text":"b"}"#,
            r#"{"input_tokens":3,"cache_creation_input_tokens":4,"output_tokens":2}"#,
            json!("ab"),
            json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "prompt_tokens_details": {"cache_write_tokens": 4}}),
        ),
        (
            r#"{"type":"block_of_tomorrow","text":"hidden"}"#,
            r#"{"input_tokens":1,"output_tokens":0}"#,
            Value::Null,
            json!({"prompt_tokens": 1, "completion_tokens": 0, "total_tokens": 1}),
        ),
    ] {
        let (_, found) = answered(Chat, Anthropic, 200, &message(content, usage));
        let found = json(&found);
        assert_eq!(found["choices"][0]["message"]["content"], expected_text);
        let usage = &found["usage"];
        for (name, value) in expected_usage.as_object().unwrap() {
            match value.as_object() {
                None => assert_eq!(&usage[name], value, "{name} of {content}"),
                Some(members) => {
                    for (member, value) in members {
                        assert_eq!(&usage[name][member], value, "{member} of {content}");
                    }
                }
            }
        }
    }
}

/// A stream of Anthropic that ends for that reason, with one more event before.
fn anthropic(event: &str, reason: &str) -> String {
    format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"m\",\"model\":\"c\",\"usage\":{{\"input_tokens\":1,\"output_tokens\":1}}}}}}\n\n{event}event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{reason}\"}},\"usage\":{{\"output_tokens\":2}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    )
}

#[test]
fn streams_end_with_a_word_that_clients_know() {
    for (reason, expected) in REASONS {
        let text = anthropic("", reason);
        let (found, ended) = streamed(stream(Chat, Anthropic, false), &[text.as_bytes()]);
        let frames = frames(&found);
        assert_eq!(frames.last().unwrap(), "[DONE]");
        let finish = json(&frames[frames.len() - 2]);
        assert_eq!(finish["choices"][0]["finish_reason"], expected, "{reason}");
        assert_eq!(finish["choices"][0]["delta"], json!({}));
        assert_eq!(ended.finish(), Some(expected));
    }
}

#[test]
fn a_provider_may_say_when_to_come_back_in_three_ways() {
    const NOW: u64 = 1_700_000_000;
    for (name, value, expected) in [
        ("retry-after", "7", Some(7000)),
        ("retry-after", " 0.5 ", Some(500)),
        ("retry-after", "Tue, 14 Nov 2023 22:13:50 GMT", Some(30_000)),
        ("retry-after", "Tue, 14 Nov 2023 22:13:10 GMT", Some(0)),
        ("retry-after-ms", "250", Some(250)),
        ("retry-after", "soon", None),
        ("retry-after", "-1", None),
        ("retry-after", "1e99", None),
        ("x-other", "7", None),
    ] {
        let mut fields = HeaderMap::new();
        fields.insert(name, HeaderValue::from_static(value));
        let found = retry_after(&fields, NOW).map(|time| time.as_millis());
        assert_eq!(found, expected, "{name}: {value}");
    }
}

#[test]
fn events_without_a_counterpart_make_no_chunk() {
    for event in [
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"citations_delta\",\"citation\":{}}}\n\n",
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"signature_delta\",\"signature\":\"s\"}}\n\n",
        "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"redacted_thinking\",\"data\":\"x\"}}\n\n",
        "event: ping\ndata: {\"type\":\"ping\"}\n\n",
        "event: tomorrow\ndata: {\"type\":\"tomorrow\",\"text\":\"x\"}\n\n",
        ": a comment\n\n",
    ] {
        let with = anthropic(event, "end_turn");
        let (with, _) = streamed(stream(Chat, Anthropic, true), &[with.as_bytes()]);
        let without = anthropic("", "end_turn");
        let (without, _) = streamed(stream(Chat, Anthropic, true), &[without.as_bytes()]);
        assert_eq!(frames(&with), frames(&without), "{event}");
    }
}

#[test]
fn ollama_is_told_what_it_would_do_otherwise() {
    for (members, expected) in [
        (r#""reasoning_effort":"low""#, json!({"think": "low"})),
        (r#""reasoning_effort":"high""#, json!({"think": "high"})),
        (r#""max_tokens":7"#, json!({"options": {"num_predict": 7}})),
        (
            r#""stop":["a","b"]"#,
            json!({"options": {"stop": ["a", "b"]}}),
        ),
        (r#""top_k":4"#, json!({"options": {"top_k": 4}})),
        (r#""n":1"#, json!({"stream": false})),
    ] {
        let found = json(&sent(Chat, Ollama, "llama3", &chat(members)));
        assert_holds(&found, &expected, members);
    }
    let refused = send(Chat, Ollama, "llama3", &chat(r#""n":2"#)).unwrap_err();
    assert_eq!(refused.param.as_deref(), Some("n"));
}

#[test]
fn counts_that_ollama_leaves_out_are_no_zeros() {
    for (counts, expected) in [
        (r#","eval_count":4"#, (None, Some(4))),
        (r#","prompt_eval_count":9"#, (Some(9), None)),
    ] {
        let line = format!("{{\"message\":{{\"content\":\"a\"}},\"done\":true{counts}}}\n");
        let (_, ended) = streamed(stream(Chat, Ollama, true), &[line.as_bytes()]);
        assert_eq!(ended.failure(), None);
        assert!(!ended.is_usage_reported(), "{counts}");
        let usage = ended.usage("llama3");
        if expected.0.is_some() {
            assert_eq!(usage.input, expected.0);
        }
        if expected.1.is_some() {
            assert_eq!(usage.output, expected.1);
        }
    }
}

#[test]
fn clients_of_anthropics_format_get_its_errors_and_ends() {
    let (status, found) = answered(
        Messages,
        OpenAi,
        429,
        r#"{"error":{"message":"slow","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#,
    );
    assert_eq!(status, 429);
    assert_eq!(
        json(&found),
        json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow"}})
    );
    let (status, _) = answered(Messages, OpenAi, 503, r#"{"error":{"message":"busy"}}"#);
    assert_eq!(status, 529, "what Anthropic's clients take for an overload");
}

#[test]
fn arguments_are_an_object_whatever_they_were_written_as() {
    let history = |arguments: &str| {
        chat("\"x\":null").replace(
            r#"{"role":"user","content":"hi"}"#,
            &format!(
                r#"{{"role":"user","content":"hi"}},{{"role":"assistant","content":"","tool_calls":[{{"id":"c","type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}},{{"role":"tool","tool_call_id":"c","content":"1"}}"#
            ),
        )
    };
    for (arguments, expected) in [
        (r#""""#, Some("{}")),
        (r#"" \n ""#, Some("{}")),
        (r#""{\"a\":1.0}""#, Some(r#"{"a":1.0}"#)),
        (r#""[]""#, None),
        (r#""5""#, None),
        (r#""null""#, None),
        (r#""{\"a\":1}}""#, None),
        (r#"{"a":1}"#, None),
    ] {
        for (dialect, member) in [(Anthropic, "input"), (Ollama, "arguments")] {
            let found = send(Chat, dialect, "m", &history(arguments));
            match (found, expected) {
                (Ok(outgoing), Some(expected)) => {
                    let body = String::from_utf8(outgoing.body.concat()).unwrap();
                    let member = format!("\"{member}\":{expected}");
                    assert!(body.contains(&member), "{body}");
                }
                (Err(failure), None) => assert_eq!(failure.status, 400, "{arguments}"),
                (found, _) => panic!("{arguments}: {found:?}"),
            }
        }
    }
    // Some versions of Ollama answer with a string.
    let body = r#"{"message":{"tool_calls":[{"function":{"name":"f","arguments":"{\"a\":1}"}},{"function":{"name":"g","arguments":null}}]},"done":true}"#;
    let (_, found) = answered(Chat, Ollama, 200, body);
    let calls = &json(&found)["choices"][0]["message"]["tool_calls"];
    assert_eq!(calls[0]["function"]["arguments"], r#"{"a":1}"#);
    assert_eq!(calls[1]["function"]["arguments"], "{}");
}

#[test]
fn thoughts_and_forced_tools_exclude_each_other() {
    const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f"}}],"reasoning_effort":"high","max_tokens":8000"#;
    for (choice, thinks) in [
        (r#""auto""#, true),
        (r#""none""#, true),
        (r#""required""#, false),
        (r#"{"type":"function","function":{"name":"f"}}"#, false),
    ] {
        let members = format!(r#"{TOOLS},"tool_choice":{choice},"temperature":0.5"#);
        let found = json(&sent(Chat, Anthropic, "claude-sonnet-4-0", &chat(&members)));
        assert_eq!(found.get("thinking").is_some(), thinks, "{choice}");
        // Thoughts leave no choice of temperature.
        assert_eq!(found.get("temperature").is_none(), thinks, "{choice}");
    }
}

#[test]
fn content_that_nobody_knows_is_refused_by_name() {
    for part in [
        r#"{"type":"video_url","video_url":{"url":"https://x.example/v.mp4"}}"#,
        r#"{"type":"input_audio","input_audio":{"data":"AA","format":"wav"}}"#,
        r#"{"type":"text"}"#,
        r#"{"type":"image_url"}"#,
        r#"{"text":"a"}"#,
        "7",
    ] {
        let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
        for dialect in [Anthropic, Ollama] {
            let failure = send(Chat, dialect, "m", &body).unwrap_err();
            assert_eq!(failure.status, 400, "{part}");
            assert!(failure.param.is_some(), "{part}: {failure}");
        }
        // The provider's own affair where nothing is converted.
        assert_eq!(sent(Chat, OpenAi, "", &body), body);
    }
}

#[test]
fn older_forms_of_openais_answers_are_read() {
    for (message, finish, expected) in [
        (
            r#"{"content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}"#,
            "stop",
            json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "stop_reason": "end_turn"}),
        ),
        (
            r#"{"content":null,"refusal":"no"}"#,
            "stop",
            json!({"content": [{"type": "text", "text": "no"}], "stop_reason": "refusal"}),
        ),
        (
            r#"{"content":null,"function_call":{"name":"f","arguments":"{\"a\":1}"}}"#,
            "function_call",
            json!({"content": [{"type": "tool_use", "id": "call_0", "name": "f", "input": {"a": 1}}], "stop_reason": "tool_use"}),
        ),
        (
            r#"{"content":"x","reasoning":"hm"}"#,
            "length",
            json!({"content": [{"type": "thinking", "thinking": "hm", "signature": ""}, {"type": "text", "text": "x"}], "stop_reason": "max_tokens"}),
        ),
    ] {
        let body = format!(r#"{{"choices":[{{"message":{message},"finish_reason":"{finish}"}}]}}"#);
        let (_, found) = answered(Messages, OpenAi, 200, &body);
        assert_holds(&json(&found), &expected, message);
    }
}

#[test]
fn text_at_the_begin_of_a_block_is_not_lost() {
    let start = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"he\"}}\n\n";
    let text = anthropic(start, "end_turn");
    let (found, _) = streamed(stream(Chat, Anthropic, false), &[text.as_bytes()]);
    let chunk = json(&frames(&found)[1]);
    assert_eq!(chunk["choices"][0]["delta"], json!({"content": "he"}));
}

#[test]
fn nothing_inside_of_messages_tools_and_parts_is_left_behind_in_silence() {
    let openai = |members: &str, messages: &str| {
        format!(r#"{{"messages":[{{"role":"user","content":"hi"}}{messages}]{members}}}"#)
    };
    for (body, expected) in [
        (
            openai(
                "",
                r#",{"role":"user","name":"ann","content":"x"},{"role":"user","name":"bob","content":"y","z":1}"#,
            ),
            &["messages[].name", "messages[].z"][..],
        ),
        (
            openai(
                "",
                r#",{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,AA==","detail":"low"}},{"type":"text","text":"x","cache_control":{"type":"ephemeral"}}]}"#,
            ),
            &[
                "messages[].content[].image_url.detail",
                "messages[].content[].cache_control",
            ],
        ),
        (
            openai(
                "",
                r#",{"role":"assistant","content":null,"audio":{"id":"a"},"tool_calls":[{"id":"c","type":"function","index":0,"function":{"name":"f","arguments":"{}","x":1}}]},{"role":"tool","tool_call_id":"c","content":"1"}"#,
            ),
            &[
                "messages[].tool_calls[].function.x",
                "messages[].tool_calls[].index",
                "messages[].audio",
            ],
        ),
        (
            openai(
                r#","tools":[{"type":"function","x":1,"function":{"name":"f","y":2,"strict":null}}],"tool_choice":{"type":"function","function":{"name":"f","v":1},"w":1}"#,
                "",
            ),
            &[
                "tools[].function.y",
                "tools[].x",
                "tool_choice.function.v",
                "tool_choice.w",
            ],
        ),
        (
            openai(
                r#","response_format":{"type":"json_schema","json_schema":{"name":"n","description":"d","schema":{}}},"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}"#,
                "",
            ),
            &[
                "response_format.json_schema.description",
                "stream_options.include_obfuscation",
            ],
        ),
        (
            openai(
                r#","user":"a","safety_identifier":"b","max_tokens":3,"max_completion_tokens":4"#,
                "",
            ),
            &["max_tokens", "safety_identifier"],
        ),
        (openai(r#","a":1,"b,\r\n":2,"c":null"#, ""), &["a", "b???"]),
    ] {
        // Members that only one of the two has no word for stand in tables of their own.
        let found = send(Chat, Anthropic, "claude-sonnet-4-0", &body)
            .unwrap()
            .left_behind;
        assert_eq!(found, expected, "{body}");
    }
    let anthropic = r#"{"max_tokens":9,"system":[{"type":"text","text":"s","cache_control":{}}],
        "messages":[{"role":"user","x":1,"content":[
            {"type":"document","source":{"type":"text","media_type":"text/plain","data":"d"},"title":"t","citations":{"enabled":true}},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA==","y":1}}]},
            {"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"tool_use","id":"c","name":"f","input":{},"caller":{}}]},
            {"role":"user","content":[{"type":"tool_result","tool_use_id":"c","content":[{"type":"text","text":"1","z":1}]}]}],
        "tools":[{"name":"f","input_schema":{"type":"object"},"defer_loading":true}],"metadata":{"user_id":"u","m":1},
        "thinking":{"type":"enabled","budget_tokens":2048,"display":"omitted"},
        "output_config":{"effort":"low","format":{"type":"json_schema","schema":{},"f":1},"task_budget":{}}}"#;
    let found = send(Messages, OpenAi, "gpt", anthropic)
        .unwrap()
        .left_behind;
    assert_eq!(
        found,
        [
            "system[].cache_control",
            "messages[].content[].title",
            "messages[].content[].citations",
            "messages[].content[].source.y",
            "messages[].x",
            "messages[].content[].thinking",
            "messages[].content[].caller",
            "messages[].content[].z",
            "thinking.display",
            "output_config.task_budget",
            "output_config.format.f",
            "tools[].defer_loading",
            "metadata.m",
        ]
    );
}

#[test]
fn choices_and_thoughts_that_cannot_be_had_are_named() {
    const TOOLS: &str = r#""tools":[{"type":"function","function":{"name":"f"}}]"#;
    for (model, members, expected) in [
        (
            "claude-sonnet-4-0",
            r#""tool_choice":"auto","parallel_tool_calls":false"#.to_owned(),
            &["tool_choice", "parallel_tool_calls"][..],
        ),
        (
            "claude-sonnet-4-0",
            format!(
                r#"{TOOLS},"tool_choice":"required","reasoning_effort":"high","max_tokens":8000"#
            ),
            &["reasoning_effort"],
        ),
        (
            "claude-sonnet-4-0",
            r#""reasoning_effort":"low","max_tokens":1024"#.to_owned(),
            &["reasoning_effort"],
        ),
        (
            "claude-sonnet-4-0",
            r#""reasoning_effort":"none""#.to_owned(),
            &[],
        ),
        (
            "claude-opus-4-5",
            r#""reasoning_effort":"low","max_tokens":1024"#.to_owned(),
            &[],
        ),
        (
            "claude-sonnet-4-0",
            format!(r#"{TOOLS},"tool_choice":"none","function_call":"auto""#),
            &["function_call"],
        ),
    ] {
        let found = send(Chat, Anthropic, model, &chat(&members))
            .unwrap()
            .left_behind;
        assert_eq!(found, expected, "{members}");
    }
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long it takes is what is asserted"
)]
fn a_long_history_of_calls_is_read_in_time() {
    // Each name and id is another one: whatever compares all with all takes minutes.
    let calls: Vec<String> = (0..60_000)
        .map(|n| {
            format!(
                r#"{{"id":"c{n}","type":"function","function":{{"name":"f{n}","arguments":""}}}}"#
            )
        })
        .collect();
    let results: Vec<String> = (0..60_000)
        .map(|n| format!(r#"{{"role":"tool","tool_call_id":"x{n}","content":""}}"#))
        .collect();
    let body = format!(
        r#"{{"messages":[{{"role":"user","content":"hi"}},{{"role":"assistant","content":"","tool_calls":[{}]}},{}]}}"#,
        calls.join(","),
        results.join(",")
    );
    let began = std::time::Instant::now();
    for dialect in [Anthropic, Ollama] {
        send(Chat, dialect, "m", &body).unwrap();
    }
    assert!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn ollama_is_told_the_limit_by_the_name_it_knows_in_openais_format_too() {
    let ollama = |model| Destination {
        is_ollama: true,
        ..to(OpenAi, model)
    };
    let sent = |operation, body: &str, to: &Destination<'_>| {
        let call = Call::read(operation, Bytes::from(body.to_owned())).unwrap();
        String::from_utf8(call.send(to).unwrap().body.concat()).unwrap()
    };
    for (members, expected) in [
        (r#""max_completion_tokens":7"#, Some(7)),
        (r#""max_completion_tokens":7,"max_tokens":5"#, Some(5)),
        (r#""max_tokens":5"#, Some(5)),
        (r#""seed":1"#, None),
    ] {
        let body = chat(members);
        let found = json(&sent(Chat, &body, &ollama("")));
        assert_eq!(
            found.get("max_tokens").and_then(Value::as_u64),
            expected,
            "{members}"
        );
        // What the client wrote stands there too, and others get nothing else.
        assert!(
            sent(Chat, &body, &ollama("")).contains(members),
            "{members}"
        );
        assert_eq!(sent(Chat, &body, &to(OpenAi, "")), body);
    }
    let body = r#"{"max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
    for (to, expected) in [
        (ollama("m"), "max_tokens"),
        (to(OpenAi, "m"), "max_completion_tokens"),
    ] {
        let found = json(&sent(Messages, body, &to));
        assert_holds(&found, &json!({ expected: 9 }), expected);
    }
}
