//! Client and provider of one dialect: section 8 of the rules.

use dataplane_ai::call::Operation::{Chat, Completions, Embeddings, Messages, Models, Responses};
use dataplane_ai::call::{Call, Operation};
use dataplane_ai::failure::FailureReason;
use dataplane_ai::provider::Dialect::{Anthropic, Ollama, OpenAi};
use http::Method;

use crate::support::{frames, json, send, sent, stream, streamed, to};

const ODD: &str = r#"{ "messages":[{"role":"user","content":"caf\u00e9","n":1.0}], "model" : "fast" ,"top_k":9007199254740993,"chat_template_kwargs":{"a":1e5}}"#;

#[test]
fn only_the_models_name_is_replaced_where_it_stands() {
    for (operation, dialect) in [(Chat, OpenAi), (Messages, Anthropic)] {
        assert_eq!(sent(operation, dialect, "", ODD), ODD);
        assert_eq!(sent(operation, dialect, "fast", ODD), ODD);
        let expected = ODD.replace("\"fast\"", "\"gpt \\\"4\\\"\"");
        assert_eq!(sent(operation, dialect, "gpt \"4\"", ODD), expected);
    }
    assert_eq!(sent(Embeddings, OpenAi, "e", "{}"), r#"{"model":"e"}"#);
    assert_eq!(
        sent(Embeddings, OpenAi, "e", r#"{"input":"x"}"#),
        r#"{"model":"e","input":"x"}"#
    );
}

/// Readers that take the last of two would read `null`.
#[test]
fn a_member_that_is_null_is_replaced_where_it_stands() {
    let nulls = r#"{"model":null,"max_tokens":null,"max_completion_tokens":5,"messages":[]}"#;
    let expected = r#"{"model":"gpt","max_tokens":null,"max_completion_tokens":5,"messages":[]}"#;
    assert_eq!(sent(Chat, OpenAi, "gpt", nulls), expected);
    // To Ollama in OpenAI's format the limit is told by its older name, too.
    let mut ollama = to(OpenAi, "gpt");
    ollama.is_ollama = true;
    let call = Call::read(Chat, nulls.into()).unwrap();
    let body = call.send(&ollama).unwrap().body.concat();
    let expected = expected.replace("\"max_tokens\":null", "\"max_tokens\":5");
    assert_eq!(String::from_utf8(body).unwrap(), expected);
    // However its name is written.
    let escaped = r#"{"input":"x","mod\u0065l":null}"#;
    let expected = r#"{"input":"x","mod\u0065l":"e"}"#;
    assert_eq!(sent(Embeddings, OpenAi, "e", escaped), expected);
}

#[test]
fn a_large_body_is_not_copied() {
    let text = format!(
        r#"{{"model":"fast","messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(2_000_000)
    );
    let body = bytes::Bytes::from(text);
    let call = Call::read(Chat, body.clone()).unwrap();
    let sent = call.send(&to(OpenAi, "gpt")).unwrap();
    let range = body.as_ptr_range();
    let copied: usize = sent
        .body
        .iter()
        .filter(|piece| !range.contains(&piece.as_ptr()))
        .map(|piece| piece.len())
        .sum();
    assert_eq!(copied, "\"gpt\"".len());
}

#[test]
fn streams_are_asked_for_usage_and_the_clients_options_stay() {
    let rows = [
        (
            r#"{"stream":true,"messages":[]}"#,
            r#"{"stream_options":{"include_usage":true},"stream":true,"messages":[]}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"x":1.0,"include_usage":false}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"x":1.0,"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream":false}"#,
            r#"{"messages":[],"stream":false}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":null}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(sent(Chat, OpenAi, "", body), expected);
    }
    assert_eq!(
        sent(Responses, OpenAi, "", r#"{"stream":true}"#),
        r#"{"stream":true}"#
    );
}

const STREAM: &str = ": PROCESSING\n\ndata: {\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"he\",\"x\":1.0}}],\"usage\":null}\r\n\r\ndata:{\"choices\":[{\"index\":0,\"delta\":{\"content\":\"y\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":2,\"total_tokens\":12,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

#[test]
fn frames_pass_untouched_and_usage_is_hidden_from_who_did_not_ask() {
    let whole = format!("{STREAM}{USAGE}{DONE}");
    for (asked, expected) in [(true, whole.clone()), (false, format!("{STREAM}{DONE}"))] {
        let pieces: Vec<&[u8]> = whole.as_bytes().chunks(7).collect();
        let (found, ended) = streamed(stream(Chat, OpenAi, asked), &pieces);
        assert_eq!(found, expected);
        let usage = ended.usage("gpt-4o");
        assert_eq!(
            (usage.input, usage.cached, usage.output),
            (Some(10), Some(4), Some(2))
        );
        assert_eq!(ended.finish(), Some("stop"));
        assert!(ended.is_usage_reported() && ended.failure().is_none());
    }
}

#[test]
fn frames_that_are_not_known_here_pass_and_what_is_no_json_does_not() {
    let odd = "data: {\"choices\":[{\"index\":\"first\",\"delta\":7}],\"x\":1.0}\n\n";
    let text = format!("{odd}{DONE}");
    let (found, ended) = streamed(stream(Chat, OpenAi, false), &[text.as_bytes()]);
    assert_eq!(found, text);
    assert!(ended.failure().is_none());
    let (found, ended) = streamed(stream(Chat, OpenAi, false), &[b"data: <html>\n\n"]);
    assert!(
        !found.contains("html") && found.contains("\"error\""),
        "{found}"
    );
    assert!(ended.failure().is_some());
}

#[test]
fn usage_on_a_frame_with_choices_stays() {
    let text = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
    let (found, _) = streamed(stream(Chat, OpenAi, false), &[text.as_bytes()]);
    assert_eq!(found, text);
}

#[test]
fn an_early_end_is_never_a_normal_stop() {
    let cut = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"he\"}}]}\n\ndata: {\"cho";
    let (found, ended) = streamed(stream(Chat, OpenAi, false), &[cut.as_bytes()]);
    let frames = frames(&found);
    assert_eq!(frames.len(), 2, "{found}");
    assert!(json(&frames[1])["error"]["message"].is_string());
    assert!(!found.contains("[DONE]"));
    assert!(ended.failure().is_some());
    assert!(ended.usage("gpt-4o").output > Some(0));

    // Some servers leave the last word out, or its blank line.
    for end in ["", "data: [DONE]", "data: [DONE]\n"] {
        let text = format!("{STREAM}{end}");
        let (found, ended) = streamed(stream(Chat, OpenAi, false), &[text.as_bytes()]);
        assert!(found.starts_with(STREAM), "{end:?}");
        assert!(ended.failure().is_none(), "{end:?}");
    }
}

#[test]
fn errors_inside_streams_pass_in_the_providers_words() {
    let text =
        "data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\",\"code\":503}}\n\n";
    let (found, ended) = streamed(stream(Chat, OpenAi, false), &[text.as_bytes()]);
    assert_eq!(found, text);
    assert_eq!(ended.failure().unwrap().message, "overloaded");

    let text = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let (found, ended) = streamed(stream(Messages, Anthropic, false), &[text.as_bytes()]);
    assert_eq!(found, text);
    assert_eq!(ended.failure().unwrap().message, "Overloaded");

    let (found, _) = streamed(
        stream(Messages, Anthropic, false),
        &[b"event: ping\ndata: {\"type\":\"ping\"}\n\n"],
    );
    assert!(
        found.contains("event: error\ndata: {\"type\":\"error\""),
        "{found}"
    );
}

#[test]
fn what_is_only_passed_on_needs_a_provider_that_has_it() {
    for operation in [Embeddings, Completions, Responses] {
        assert!(send(operation, Anthropic, "m", "{}").is_err());
        for dialect in [OpenAi, Ollama] {
            let outgoing = send(operation, dialect, "", r#"{"model":"m","a":1}"#).unwrap();
            assert_eq!(outgoing.body.concat(), br#"{"model":"m","a":1}"#);
            assert!(outgoing.answering.path().starts_with("/v1/"));
        }
    }
}

#[test]
fn responses_are_watched_for_their_usage() {
    let text = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\nevent: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":5,\"output_tokens\":6,\"output_tokens_details\":{\"reasoning_tokens\":2}}}}\n\n";
    let (found, ended) = streamed(stream(Responses, OpenAi, false), &[text.as_bytes()]);
    assert_eq!(found, text);
    let usage = ended.usage("m");
    assert_eq!(
        (usage.input, usage.output, usage.reasoning),
        (Some(5), Some(6), Some(2))
    );
}

#[test]
fn responses_that_fail_are_failures_in_the_providers_words() {
    let begin = "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"status\":\"in_progress\"}}\n\n";
    for (kind, event, message, code) in [
        (
            "error",
            r#"{"type":"error","code":"server_error","message":"over","param":null,"sequence_number":2}"#,
            "over",
            Some("server_error"),
        ),
        (
            "error",
            r#"{"type":"error","error":{"type":"server_error","message":"full"}}"#,
            "full",
            None,
        ),
        (
            "response.failed",
            r#"{"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded","message":"slow"},"usage":null}}"#,
            "slow",
            Some("rate_limit_exceeded"),
        ),
        (
            "response.failed",
            r#"{"type":"response.failed"}"#,
            "the provider failed in the middle of its answer",
            None,
        ),
    ] {
        let text = format!("{begin}event: {kind}\ndata: {event}\n\n");
        let (found, ended) = streamed(stream(Responses, OpenAi, false), &[text.as_bytes()]);
        assert_eq!(found, text);
        let failure = ended.failure().unwrap();
        assert_eq!(failure.reason, FailureReason::Provider, "{event}");
        assert_eq!(
            (&*failure.message, failure.code.as_deref()),
            (message, code)
        );
        assert!(!ended.is_usage_reported(), "{event}");
    }
    // One that was cut short by a limit is an answer.
    let text = "data: {\"type\":\"response.incomplete\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
    let (_, ended) = streamed(stream(Responses, OpenAi, false), &[text.as_bytes()]);
    assert!(ended.failure().is_none() && ended.is_usage_reported());
}

#[test]
fn paths_tell_what_is_asked() {
    let rows = [
        (Method::POST, "/v1/chat/completions", Some(Chat)),
        (Method::POST, "/ai/v1/chat/completions/", Some(Chat)),
        (Method::POST, "/v1/completions", Some(Completions)),
        (Method::POST, "/v1/messages", Some(Messages)),
        (Method::POST, "/v1/embeddings", Some(Embeddings)),
        (Method::POST, "/v1/responses", Some(Responses)),
        (Method::GET, "/v1/models", Some(Models)),
        (Method::GET, "/v1/chat/completions", None),
        (Method::POST, "/v1/files", None),
    ];
    for (method, path, expected) in rows {
        assert_eq!(Operation::of(&method, path), expected, "{method} {path}");
    }
}
