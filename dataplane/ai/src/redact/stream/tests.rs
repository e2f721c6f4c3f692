//! What each format's frames hold, and what of it a client may see.

use ir::ai::RedactionAction::{Mask, Tokenize};
use ir::ai::{Redaction, RedactionAction, RedactionKind as Kind};
use serde_json::{Value, json};

use super::*;

const MAIL: &str = "ann@example.com";

fn redactor(kinds: &[Kind], action: RedactionAction) -> Redactor {
    let rule = |kind: &Kind| Redaction {
        kind: kind.clone(),
        action,
    };
    Redactor::compile(&kinds.iter().map(rule).collect::<Vec<_>>()).unwrap()
}

/// One that hides mail addresses, and a vault that has hidden one.
fn with_placeholder(kinds: &[Kind]) -> (Redactor, Vault) {
    let redactor = redactor(kinds, Tokenize);
    let mut vault = Vault::default();
    let question = Bytes::from(json!({"content": MAIL}).to_string());
    let sent = redactor.request(&question, &mut vault).unwrap();
    assert_eq!(sent.body, json!({"content": "[EMAIL_1]"}).to_string());
    (redactor, vault)
}

/// The frames that leave for those that come.
fn frames(redactor: &Redactor, vault: Vault, frames: &[Value]) -> Vec<Value> {
    let mut stream = redactor.stream(vault);
    let mut out = Vec::new();
    for frame in frames {
        let event = frame["type"].as_str().unwrap_or_default();
        stream.push(sse(event.as_bytes(), &frame.to_string()), &mut out);
    }
    stream.end(&mut out);
    let text = String::from_utf8(out.concat()).unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap())
        .collect()
}

fn chunk(delta: &Value) -> Value {
    json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
}

/// What a client gathers of a member of a chat's deltas.
fn gathered(frames: &[Value], member: &str) -> String {
    let piece = |frame: &Value| {
        frame["choices"][0]["delta"][member]
            .as_str()
            .map(str::to_owned)
    };
    frames.iter().filter_map(piece).collect()
}

/// A text in pieces of so many characters.
fn pieces(text: &str, size: usize) -> Vec<String> {
    let all: Vec<char> = text.chars().collect();
    all.chunks(size)
        .map(|piece| piece.iter().collect())
        .collect()
}

fn chat(redactor: &Redactor, vault: Vault, text: &str, size: usize) -> String {
    let chunks: Vec<Value> = pieces(text, size)
        .into_iter()
        .map(|piece| chunk(&json!({"content": piece})))
        .collect();
    gathered(&frames(redactor, vault, &chunks), "content")
}

#[test]
fn an_expression_does_not_keep_other_kinds_from_being_whole() {
    let expression = Kind::Regex("EMP-[0-9]{6}".into());
    let sentence = "and then there are some more words of no interest, ".repeat(12);
    let token = format!(
        "eyJhbGciOiJIUzI1NiJ9.{}.dBjftJeZ4CVP-mB92K27uhbUJU1p",
        "eyJz".repeat(90)
    );
    for size in [1, 7, 40, 10_000] {
        let (redactor, vault) = with_placeholder(&[Kind::Email, expression.clone()]);
        let text = format!("{sentence}[EMAIL_1] {sentence}EMP-123456, [EMAIL_1]");
        let found = chat(&redactor, vault, &text, size);
        let expected = format!("{sentence}{MAIL} {sentence}[REDACTED], {MAIL}");
        assert_eq!(found, expected, "in pieces of {size}");

        let redactor = self::redactor(&[Kind::Jwt, expression.clone()], Mask);
        let text = format!("{sentence}{token} {sentence}EMP-123456 {token}");
        let found = chat(&redactor, Vault::default(), &text, size);
        let expected = format!("{sentence}[JWT] {sentence}[REDACTED] [JWT]");
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

#[test]
fn what_is_written_without_spaces_is_cut_where_nothing_is_hidden() {
    let sentence = "这里有很多没有空格的文字，".repeat(40);
    let token = format!(
        "eyJhbGciOiJIUzI1NiJ9.{}.{}",
        "a".repeat(900),
        "b".repeat(90)
    );
    for size in [1, 7, 40, 10_000] {
        let (redactor, vault) = with_placeholder(&[Kind::Email, Kind::Jwt]);
        let text = format!("{sentence}[EMAIL_1]，“{token}”{sentence}[EMAIL_1]{sentence}");
        let found = chat(&redactor, vault, &text, size);
        let expected = format!("{sentence}{MAIL}，“[JWT]”{sentence}{MAIL}{sentence}");
        assert_eq!(found, expected, "in pieces of {size}");
    }
}

#[test]
fn what_is_held_is_bounded() {
    let kinds = [Kind::Email, Kind::Jwt, Kind::Regex("x[^!]*!".into())];
    for word in ["1 ", "x", "x ", "eyJ.", "a@b.", "[EMAIL_1]"] {
        let (redactor, vault) = with_placeholder(&kinds);
        let mut stream = redactor.stream(vault);
        for piece in pieces(&word.repeat(2000), 5) {
            let frame = chunk(&json!({"content": piece})).to_string();
            stream.push(sse(b"", &frame), &mut Vec::new());
            let held = stream.texts.iter().map(|text| text.held.len()).max();
            assert!(held <= Some(HOLD_BACK_MAX), "{held:?} of {word}");
        }
    }
}

#[test]
fn each_event_of_responses_is_looked_at_alone() {
    let redactor = redactor(&[Kind::Email], Mask);
    let text = format!("{MAIL} is done.");
    let part = json!({"type": "output_text", "text": text, "annotations": []});
    let item = json!({"type": "message", "id": "m", "content": [part, part]});
    let mut events: Vec<Value> = pieces(&text, 4)
        .into_iter()
        .map(|piece| json!({"type": "response.output_text.delta", "delta": piece}))
        .collect();
    // In the middle of a text.
    events.insert(
        2,
        json!({"type": "response.output_text.annotation.added", "annotation": {}}),
    );
    events.extend([
        json!({"type": "response.output_text.done", "text": text}),
        json!({"type": "response.content_part.done", "part": part}),
        json!({"type": "response.output_item.done", "item": item}),
        json!({"type": "response.custom_tool_call_input.done", "input": text}),
        json!({"type": "response.code_interpreter_call_code.done", "code": text}),
        json!({"type": "response.completed", "response": {"output": [item, item]}}),
    ]);
    let found = frames(&redactor, Vault::default(), &events);
    let deltas: String = found
        .iter()
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(deltas, "[EMAIL] is done.");
    let all = serde_json::to_string(&found).unwrap();
    assert_eq!(all.matches("\"[EMAIL] is done.\"").count(), 10, "{all}");
    assert!(!all.contains("ann@"), "{all}");
}

#[test]
fn thoughts_and_whole_members_of_frames_are_looked_at() {
    let redactor = redactor(&[Kind::Email], Mask);
    for member in ["reasoning", "reasoning_content", "refusal"] {
        let chunks = ["to ann@exam", "ple.com or"].map(|piece| chunk(&json!({ member: piece })));
        let found = frames(&redactor, Vault::default(), &chunks);
        assert_eq!(gathered(&found, member), "to [EMAIL] or", "{member}");
    }
    let cited = json!({"type": "content_block_delta", "index": 0,
        "delta": {"type": "citations_delta", "citation": {"cited_text": MAIL}}});
    let found = frames(&redactor, Vault::default(), &[cited]);
    assert_eq!(found[0]["delta"]["citation"]["cited_text"], "[EMAIL]");
}

#[test]
fn what_was_held_leaves_once_and_names_no_call_again() {
    let redactor = redactor(&[Kind::Email], Mask);
    let call = json!({"index": 0, "id": "c", "type": "function",
        "function": {"name": "f", "arguments": format!("{{\"to\":\"{MAIL}\"}}")}});
    let delta = json!({"content": MAIL, "reasoning": MAIL, "tool_calls": [call]});
    let mut last = chunk(&json!({}));
    last["choices"][0]["finish_reason"] = "tool_calls".into();
    let found = frames(&redactor, Vault::default(), &[chunk(&delta), last]);
    assert_eq!(gathered(&found, "content"), "[EMAIL]");
    assert_eq!(gathered(&found, "reasoning"), "[EMAIL]");
    let of_call = |at: &str| -> String {
        let calls = |frame: &Value| frame["choices"][0]["delta"]["tool_calls"][0].clone();
        let text = |frame: &Value| calls(frame).pointer(at)?.as_str().map(str::to_owned);
        found.iter().filter_map(text).collect()
    };
    assert_eq!(of_call("/id"), "c");
    assert_eq!(of_call("/function/name"), "f");
    assert_eq!(of_call("/function/arguments"), r#"{"to":"[EMAIL]"}"#);
    let finished = |frame: &Value| frame["choices"][0]["finish_reason"].is_string();
    assert!(found.last().is_some_and(finished));
}

#[test]
fn choices_and_calls_of_one_chunk_are_told_apart() {
    let redactor = redactor(&[Kind::Email], Mask);
    let both = |first: &str, second: &str| {
        let choice = |index: u8, piece: &str| json!({"delta": {"content": piece}, "index": index});
        json!({"id": "c", "choices": [choice(0, first), choice(1, second)], "usage": {"total_tokens": 3}})
    };
    let chunks = [
        both("to ann@exam", "or bob@exam"),
        both("ple.com", "ple.org"),
    ];
    let found = frames(&redactor, Vault::default(), &chunks);
    let of_choice = |index: u8| -> String {
        let own = |frame: &&Value| frame["choices"][0]["index"] == index;
        let text = |frame: &Value| {
            frame["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        };
        found.iter().filter(own).filter_map(text).collect()
    };
    assert_eq!(
        (&*of_choice(0), &*of_choice(1)),
        ("to [EMAIL]", "or [EMAIL]")
    );
    assert!(found.iter().all(|frame| frame["id"] == "c"));
    assert!(found[0]["usage"].is_null() && found[1]["usage"].is_object());

    let call = |index: u8, to: &str| {
        let arguments = json!({"to": to, "why": "no reason"}).to_string();
        json!({"index": index, "id": format!("c{index}"), "function": {"name": "f", "arguments": arguments}})
    };
    let calls = json!([call(0, MAIL), call(1, "nobody"), call(2, MAIL)]);
    let mut all = chunk(&json!({"content": MAIL, "tool_calls": calls}));
    all["choices"][0]["finish_reason"] = "tool_calls".into();
    let found = frames(&redactor, Vault::default(), &[all]);
    assert_eq!(gathered(&found, "content"), "[EMAIL]");
    for (index, to) in [(0, "[EMAIL]"), (1, "nobody"), (2, "[EMAIL]")] {
        let called: String = found
            .iter()
            .filter_map(|frame| frame["choices"][0]["delta"]["tool_calls"].get(0))
            .filter(|call| call["index"] == index)
            .filter_map(|call| call["function"]["arguments"].as_str())
            .collect();
        let called: Value = serde_json::from_str(&called).unwrap();
        assert_eq!(called, json!({"to": to, "why": "no reason"}));
    }
    let finished = |frame: &Value| frame["choices"][0]["finish_reason"].is_string();
    assert_eq!(found.iter().position(finished), Some(found.len() - 1));
}

#[test]
fn a_chunk_whose_parts_would_be_large_is_not_parted() {
    let choice = json!({"index": 0, "delta": {"content": "x"}});
    let many = json!({"choices": vec![&choice; TEXTS_MAX + 1]});
    assert!(apart(&many.to_string()).is_none());
    let large = json!({"id": "x".repeat(PARTED_BYTES_MAX / 2), "choices": [choice, choice]});
    assert!(apart(&large.to_string()).is_none());
}

#[test]
fn an_empty_reason_finishes_nothing() {
    let redactor = redactor(&[Kind::Email], Mask);
    let chunks = ["ann@exam", "ple.com"].map(|piece| {
        let mut chunk = chunk(&json!({"content": piece}));
        chunk["choices"][0]["finish_reason"] = "".into();
        chunk
    });
    let found = frames(&redactor, Vault::default(), &chunks);
    assert_eq!(gathered(&found, "content"), "[EMAIL]");
}

#[test]
fn arguments_in_responses_stay_json() {
    let written =
        "{\"card\":4111111111111111,\"to\":\"[EMAIL_1]\",\"text\":\"a\\nbob@example.org\"}";
    for kind in ["function_call_arguments", "mcp_call_arguments"] {
        for size in [1, 9, 1000] {
            let redactor = redactor(&[Kind::CreditCard, Kind::Email], Tokenize);
            let mut vault = Vault::default();
            let question = Bytes::from(json!({"content": "o'neil\"x@a.com"}).to_string());
            redactor.request(&question, &mut vault).unwrap();
            vault.entries[0].1 = "\"ann\" ann@example.com".to_owned();
            let mut events: Vec<Value> = pieces(written, size)
                .into_iter()
                .map(|piece| json!({"type": format!("response.{kind}.delta"), "delta": piece}))
                .collect();
            events.push(json!({"type": format!("response.{kind}.done"), "arguments": written}));
            let found = frames(&redactor, vault, &events);
            let deltas: String = found
                .iter()
                .filter_map(|event| event["delta"].as_str())
                .collect();
            let expected = json!({"card": 4_111_111_111_111_111_u64,
                "to": "\"ann\" ann@example.com", "text": "a\n[EMAIL]"});
            let read: Value = serde_json::from_str(&deltas).unwrap();
            assert_eq!(read, expected, "{kind} in pieces of {size}");
            let done = found.last().unwrap()["arguments"].as_str().unwrap();
            let read: Value = serde_json::from_str(done).unwrap();
            assert_eq!(read, expected, "{kind} in pieces of {size}");
        }
    }
}

#[test]
fn sounds_and_pictures_stay_what_they_are() {
    let redactor = redactor(&[Kind::CryptoAddress, Kind::CreditCard], Mask);
    let bytes = "AAAA/1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa/".repeat(8);
    let events = [
        json!({"type": "response.audio.delta", "delta": bytes}),
        json!({"type": "response.image_generation_call.partial_image", "partial_image_b64": bytes}),
        json!({"type": "response.output_item.done",
            "item": {"type": "image_generation_call", "result": bytes}}),
        chunk(&json!({"audio": {"id": "a", "data": bytes}})),
    ];
    assert_eq!(frames(&redactor, Vault::default(), &events), events);
}

#[test]
fn a_stream_has_no_tokens_of_its_text() {
    let tokens = json!({"content": [{"token": "ann", "bytes": [97], "logprob": -0.1,
        "top_logprobs": [{"token": "@example.com"}]}]});
    let mut said = chunk(&json!({"content": "ann@example.com is"}));
    said["choices"][0]["logprobs"] = tokens.clone();
    let event = json!({"type": "response.output_text.delta", "delta": "hi",
        "logprobs": tokens["content"]});
    let hides = redactor(&[Kind::Email], Mask);
    let found = frames(&hides, Vault::default(), &[said.clone(), event.clone()]);
    assert_eq!(found[0]["choices"][0]["logprobs"], Value::Null);
    assert_eq!(found[1]["logprobs"], json!([]));
    let counts = redactor(&[Kind::Email], RedactionAction::Detect);
    let found = frames(&counts, Vault::default(), &[said.clone(), event]);
    assert_eq!(
        found[0]["choices"][0]["logprobs"],
        said["choices"][0]["logprobs"]
    );
}

#[test]
fn json_on_several_lines_is_looked_at() {
    let redactor = redactor(&[Kind::Email], Mask);
    let mut stream = redactor.stream(Vault::default());
    let mut out = Vec::new();
    let frame =
        "data:  {\"choices\":\ndata: [{\"delta\":{\"content\":\"ann@example.com !\"}}]}\n\n";
    stream.push(Bytes::from_static(frame.as_bytes()), &mut out);
    assert_eq!(
        out,
        ["data:  {\"choices\":\ndata: [{\"delta\":{\"content\":\"[EMAIL] \"}}]}\n\n"]
    );
}

#[test]
fn a_large_frame_is_looked_at_like_any_other() {
    let redactor = redactor(&[Kind::Email], Mask);
    let text = "word ".repeat(1 << 20);
    let chunks = [
        chunk(&json!({"content": format!("{text}{MAIL}")})),
        chunk(&json!({})),
    ];
    let found = frames(&redactor, Vault::default(), &chunks);
    assert_eq!(gathered(&found, "content"), format!("{text}[EMAIL]"));
}
