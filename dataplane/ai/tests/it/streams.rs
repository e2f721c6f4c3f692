//! Answers in pieces: sections 5 and 7 of the rules.

use dataplane_ai::call::Operation::{Chat, Messages};
use dataplane_ai::call::{AnswerStream, Operation};
use dataplane_ai::provider::Dialect::{self, Anthropic, Ollama, OpenAi};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{frames, json, stream, streamed};

const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"model\":\"claude-x\",\"usage\":{\"input_tokens\":10,\"cache_read_input_tokens\":5,\"output_tokens\":1}}}\n\n";
const TEXT: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: ping\ndata: {\"type\":\"ping\"}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"caf\\u00e9 😀\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
const TOOLS: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"1.0}\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":3,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"g\",\"input\":{}}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":3}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":4,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t3\",\"name\":\"h\",\"input\":{\"x\":2}}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":4}\n\n";
const STOP: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":5}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{},\"usage\":{\"input_tokens\":10,\"output_tokens\":9}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

fn run(operation: Operation, dialect: Dialect, usage: bool, text: &str) -> (String, AnswerStream) {
    streamed(stream(operation, dialect, usage), &[text.as_bytes()])
}

fn chunk(delta: &Value, finish: &Value) -> Value {
    json!({
        "id": "msg_1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "claude-x",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    })
}

#[test]
fn a_stream_of_anthropic_reads_like_one_of_openai() {
    let text = format!("{START}{TEXT}{TOOLS}{STOP}");
    let (found, ended) = run(Chat, Anthropic, true, &text);
    let frames = frames(&found);
    let null = Value::Null;
    let arguments = |index: u32, text: &str| {
        chunk(
            &json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]}),
            &null,
        )
    };
    let call = |index: u32, id: &str, name: &str| {
        let function = json!({"name": name, "arguments": ""});
        let call = json!({"index": index, "id": id, "type": "function", "function": function});
        chunk(&json!({"tool_calls": [call]}), &null)
    };
    let usage = json!({
        "id": "msg_1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "claude-x",
        "choices": [],
        "usage": {"prompt_tokens": 15, "completion_tokens": 9, "total_tokens": 24, "prompt_tokens_details": {"cached_tokens": 5}},
    });
    let expected = [
        chunk(&json!({"role": "assistant", "content": ""}), &null),
        chunk(&json!({"content": "café 😀"}), &null),
        call(0, "t1", "f"),
        arguments(0, "{\"a\":"),
        arguments(0, "1.0}"),
        call(1, "t2", "g"),
        arguments(1, "{}"),
        call(2, "t3", "h"),
        arguments(2, "{\"x\":2}"),
        chunk(&json!({}), &json!("tool_calls")),
        usage,
    ];
    for (found, expected) in frames.iter().zip(&expected) {
        assert_eq!(&json(found), expected);
    }
    assert_eq!(frames.len(), expected.len() + 1);
    assert_eq!(frames.last().unwrap(), "[DONE]");
    assert_eq!(ended.usage("m").output, Some(9));
    assert_eq!(ended.finish(), Some("tool_calls"));
    assert_eq!(ended.model(), Some("claude-x"));

    let (found, ended) = run(Chat, Anthropic, false, &text);
    assert!(!found.contains("usage"), "{found}");
    assert_eq!(ended.usage("m").input, Some(15));
}

#[test]
fn thoughts_are_never_content() {
    let text = format!(
        "{START}event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"thinking_delta\",\"thinking\":\"hm\"}}}}\n\nevent: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"signature_delta\",\"signature\":\"s\"}}}}\n\nevent: new_event\ndata: {{\"type\":\"new_event\"}}\n\n{STOP}"
    );
    let (found, _) = run(Chat, Anthropic, false, &text);
    let frames = frames(&found);
    assert_eq!(
        json(&frames[1]),
        chunk(&json!({"reasoning_content": "hm"}), &Value::Null)
    );
    assert_eq!(frames.len(), 4);
}

#[test]
fn errors_and_early_ends_are_told_and_nothing_follows() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    for (end, message) in [
        (error, "Overloaded"),
        (
            "",
            "the provider's stream ended before the answer was complete",
        ),
        (
            "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
            "the provider's stream ended before the answer was complete",
        ),
        (
            "data: {oops\n\n",
            "the provider's stream holds an event that cannot be read",
        ),
    ] {
        let text = format!("{START}{TEXT}{end}");
        let (found, ended) = run(Chat, Anthropic, true, &text);
        let frames = frames(&found);
        let last = json(frames.last().unwrap());
        assert_eq!(last["error"]["message"], message);
        assert!(!found.contains("[DONE]"));
        assert!(!found.contains("\"finish_reason\":\""), "{found}");
        assert!(ended.failure().is_some());
    }
    let line = "{\"message\":{\"content\":\"a\"},\"done\":false}\n";
    for end in ["{\"error\":\"out of memory\"}\n", "", "{\"mess"] {
        let (found, _) = run(Chat, Ollama, false, &format!("{line}{end}"));
        let frames = frames(&found);
        assert!(json(frames.last().unwrap())["error"]["message"].is_string());
        assert!(!found.contains("[DONE]"));
    }
    let chunk = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}]}\n\n";
    let (found, _) = run(Messages, OpenAi, false, chunk);
    assert!(found.contains("event: error\n"));
    assert!(!found.contains("message_stop"));
}

#[test]
fn a_stream_of_ollama_reads_like_one_of_openai() {
    let text = "{\"model\":\"llama3\",\"message\":{\"content\":\"he\",\"thinking\":\"hm\"},\"done\":false}\n{\"message\":{\"content\":\"\",\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":1.0}}},{\"function\":{\"name\":\"g\",\"arguments\":{}}}]},\"done\":false}\n{\"message\":{\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":3,\"eval_count\":4}";
    let (found, ended) = run(Chat, Ollama, true, text);
    let frames: Vec<Value> = frames(&found)
        .iter()
        .filter(|frame| *frame != "[DONE]")
        .map(|frame| json(frame))
        .collect();
    let deltas: Vec<&Value> = frames
        .iter()
        .map(|frame| &frame["choices"][0]["delta"])
        .collect();
    assert_eq!(deltas[1]["reasoning_content"], "hm");
    assert_eq!(deltas[2]["content"], "he");
    assert_eq!(deltas[3]["tool_calls"][0]["index"], 0);
    assert_eq!(
        deltas[4]["tool_calls"][0]["function"]["arguments"],
        "{\"a\":1.0}"
    );
    assert_eq!(deltas[5]["tool_calls"][0]["index"], 1);
    assert_ne!(
        deltas[3]["tool_calls"][0]["id"],
        deltas[5]["tool_calls"][0]["id"]
    );
    assert_eq!(frames[7]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(frames[8]["usage"]["total_tokens"], 7);
    assert!(found.ends_with("data: [DONE]\n\n"));
    assert!(ended.failure().is_none());
}

#[test]
fn a_stream_of_openai_reads_like_one_of_anthropic() {
    let text = concat!(
        "data: {\"id\":\"c1\",\"model\":\"gpt-x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"t0\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"t1\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":1.0}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4,\"total_tokens\":13}}\n\n",
        "data: [DONE]\n\n",
    );
    let (found, _) = run(Messages, OpenAi, false, text);
    let events: Vec<Value> = frames(&found).iter().map(|frame| json(frame)).collect();
    let kinds: Vec<&str> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "content_block_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ]
    );
    assert_eq!(events[0]["message"]["id"], "c1");
    assert_eq!(
        events[2]["delta"],
        json!({"type": "thinking_delta", "thinking": "hm"})
    );
    assert_eq!(
        events[5]["delta"],
        json!({"type": "text_delta", "text": "he"})
    );
    assert_eq!(
        events[7]["content_block"],
        json!({"type": "tool_use", "id": "t0", "name": "f", "input": {}})
    );
    assert_eq!(events[9]["index"], 3);
    assert_eq!(events[10]["index"], 2);
    assert_eq!(events[10]["delta"]["partial_json"], "{\"a\":1.0}");
    assert_eq!(
        events[13]["delta"],
        json!({"stop_reason": "tool_use", "stop_sequence": null})
    );
    assert_eq!(
        events[13]["usage"],
        json!({"input_tokens": 9, "output_tokens": 4})
    );
    for (frame, kind) in found.split("\n\n").zip(kinds) {
        assert!(
            frame.starts_with(&format!("event: {kind}\ndata: ")),
            "{frame}"
        );
    }
}

#[test]
fn calls_without_an_index_are_told_apart() {
    let text = concat!(
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}}]}}]}\n\n",
        "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\ndata: [DONE]\n\n",
    );
    let (found, _) = run(Messages, OpenAi, false, text);
    let starts = frames(&found)
        .iter()
        .filter(|frame| frame.contains("tool_use\",\"id"))
        .count();
    assert_eq!(starts, 2, "{found}");
}

#[test]
fn a_delta_leaves_when_it_arrives() {
    let mut stream = stream(Chat, Anthropic, false);
    let text = format!("{START}{TEXT}");
    for piece in text.split_inclusive("\n\n") {
        let mut out = Vec::new();
        stream.push(bytes::Bytes::from(piece.to_owned()), &mut out);
        let is_said = piece.contains("message_start") || piece.contains("text_delta");
        assert_eq!(!out.is_empty(), is_said, "{piece}");
    }
}

#[test]
fn frames_without_end_are_refused_within_the_limit() {
    for dialect in [OpenAi, Anthropic, Ollama] {
        let mut stream = stream(Chat, dialect, false);
        let mut out = Vec::new();
        for _ in 0..100 {
            stream.push(bytes::Bytes::from(vec![b'x'; 100_000]), &mut out);
        }
        assert!(stream.failure().is_some(), "{dialect:?}");
    }
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_answer(
        cuts in prop::collection::vec(0..4000usize, 0..20),
        size in 1..40usize,
        which in 0..4usize,
        crlf in any::<bool>(),
    ) {
        let ollama = "{\"message\":{\"content\":\"h😀\"},\"done\":false}\n{\"message\":{\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{}}}]},\"done\":true}\n";
        let openai = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"h😀\"},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let (operation, dialect, text) = match which {
            0 => (Chat, Anthropic, format!("{START}{TEXT}{TOOLS}{STOP}")),
            1 => (Chat, Ollama, ollama.to_owned()),
            2 => (Messages, OpenAi, openai.to_owned()),
            _ => (Messages, Anthropic, format!("{START}{TEXT}{TOOLS}{STOP}")),
        };
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        let bytes = text.as_bytes();
        let (whole, _) = streamed(stream(operation, dialect, true), &[bytes]);
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&bytes[from..cut]);
            from = cut;
        }
        pieces.push(&bytes[from..]);
        let (cut, _) = streamed(stream(operation, dialect, true), &pieces);
        prop_assert_eq!(&whole, &cut);
        let small: Vec<&[u8]> = bytes.chunks(size).collect();
        let (cut, _) = streamed(stream(operation, dialect, true), &small);
        prop_assert_eq!(&whole, &cut);
    }

    #[test]
    fn nothing_a_provider_sends_panics_or_ends_well_by_chance(
        bytes in prop::collection::vec(any::<u8>(), 0..600),
        text in "(data: |event: |\\{\"choices\":\\[|\\{\"type\":\"error\"|\\}|\\]|\n|\"delta\":){0,30}",
        which in 0..4usize,
    ) {
        let (operation, dialect) = [(Chat, Anthropic), (Chat, Ollama), (Messages, OpenAi), (Chat, OpenAi)][which];
        for input in [bytes.as_slice(), text.as_bytes()] {
            let mut stream = stream(operation, dialect, true);
            let mut out = Vec::new();
            stream.push(bytes::Bytes::copy_from_slice(input), &mut out);
            stream.end(&mut out);
            prop_assert!(stream.is_over());
        }
    }
}
