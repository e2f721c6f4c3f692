//! Answers in pieces: each leaves when it comes, whatever the cuts, and none ends well that did not.

use std::time::{Duration, Instant};

use dataplane_testkit::{eventually, within};
use ir::ai::{Redaction, RedactionAction, RedactionKind};

use super::*;

const ASK: &str = r#"{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
const OPENAI: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"h\u{e9}llo\"},\"finish_reason\":null}]}\n\n: PROCESSING\n\ndata: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
const USAGE: &str = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":8,\"completion_tokens\":2,\"total_tokens\":10}}\n\n";
const DONE: &str = "data: [DONE]\n\n";
const ANTHROPIC: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[],\"usage\":{\"input_tokens\":8,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"h\u{e9}llo\"}}\n\n";
const ANTHROPIC_TOOL: &str = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":1,\"content_block\":{\"type\":\"tool_use\",\"id\":\"toolu_1\",\"name\":\"f\",\"input\":{}}}\n\nevent: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{\\\"a\\\":1}\"}}\n\nevent: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":1}\n\n";
const ANTHROPIC_END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"},\"usage\":{\"output_tokens\":7}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
const OLLAMA: &str = "{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"h\u{e9}\"},\"done\":false}\n{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"llo\"},\"done\":false}\n{\"model\":\"l\",\"message\":{\"role\":\"assistant\",\"content\":\"\"},\"done\":true,\"done_reason\":\"stop\",\"prompt_eval_count\":8,\"eval_count\":2}\n";

/// The data of all frames but comments.
pub(super) fn frames(text: &str) -> Vec<String> {
    let blocks = text.split("\n\n").filter(|block| !block.is_empty());
    let data = |block: &str| -> Option<String> {
        block
            .lines()
            .find_map(|line| Some(line.strip_prefix("data: ")?.to_owned()))
    };
    blocks.filter_map(data).collect()
}

/// The text of all pieces together.
pub(super) fn content(text: &str) -> String {
    let json = frames(text).into_iter().filter(|data| data != "[DONE]");
    json.map(|data| {
        let chunk: serde_json::Value = serde_json::from_str(&data).unwrap();
        chunk["choices"][0]["delta"]["content"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_frames_pass_and_usage_only_when_it_was_asked_for() {
    let body = format!("{OPENAI}{USAGE}{DONE}");
    let one = |bytes| Answer::stream("text/event-stream", &body, bytes);
    let provider = Provider::start([one(1), one(3), one(4096)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let gateway = case.serve().await;
    for _ in 0..3 {
        let response = case.chat(ASK).await;
        assert_eq!(response.status, 200);
        assert_eq!(response.header("content-type"), "text/event-stream");
        assert_eq!(response.text(), format!("{OPENAI}{DONE}"));
    }
    let asked = &provider.asked()[0];
    assert_eq!(asked.json()["stream_options"]["include_usage"], true);
    let asks = ASK.replace(
        "\"stream\":true",
        "\"stream\":true,\"stream_options\":{\"include_usage\":true}",
    );
    assert_eq!(case.chat(&asks).await.text(), body);
    let labels = ["token_type=\"output\""];
    let tokens = || gateway.metric("gen_ai_client_token_usage_sum", &labels);
    eventually("usage is counted", || (tokens() == 8).then_some(())).await;
    let first = "gen_ai_client_operation_time_to_first_chunk_seconds_count";
    assert_eq!(gateway.metric(first, &[]), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_of_all_providers_become_the_clients() {
    let anthropic = format!("{ANTHROPIC}{ANTHROPIC_TOOL}{ANTHROPIC_END}");
    for (kind, content_type, body) in [
        (
            AiProvider::Anthropic,
            "text/event-stream",
            anthropic.as_str(),
        ),
        (AiProvider::Ollama, "application/x-ndjson", OLLAMA),
    ] {
        for bytes in [1, 5, 4096] {
            let provider = Provider::start([Answer::stream(content_type, body, bytes)]).await;
            let case = Case::new(service(kind.clone(), &provider));
            let _gateway = case.serve().await;
            let response = case.chat(ASK).await;
            assert_eq!(response.status, 200, "{}", response.text());
            assert!(
                response
                    .header("content-type")
                    .starts_with("text/event-stream")
            );
            let text = response.text();
            assert_eq!(content(&text), "h\u{e9}llo", "{text}");
            assert_eq!(frames(&text).last().unwrap(), "[DONE]");
            assert_eq!(text.matches("\"finish_reason\":\"").count(), 1, "{text}");
            if kind == AiProvider::Anthropic {
                assert!(text.contains("\"arguments\":\"{\\\"a\\\":1}\""), "{text}");
                assert!(text.contains("\"finish_reason\":\"tool_calls\""), "{text}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_piece_leaves_while_the_next_is_not_there() {
    let answer = Answer::stream("text/event-stream", ANTHROPIC, 4096)
        .then_waits()
        .then(ANTHROPIC_END);
    let provider = Provider::start([answer]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let _gateway = case.serve().await;
    let mut client = case.connect().await;
    client.send_bytes(&bytes_of(ASK)).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 200);
    let mut seen = String::new();
    while !seen.contains("h\u{e9}llo") {
        let more = within("the piece arrives", client.read_some())
            .await
            .unwrap();
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    assert!(!seen.contains("[DONE]"));
    provider.go_on();
    while !seen.contains("[DONE]") {
        let more = within("the rest arrives", client.read_some())
            .await
            .unwrap();
        seen.push_str(&String::from_utf8_lossy(&more));
    }
}

fn bytes_of(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_never_a_normal_end() {
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let said = Answer::sse(&format!("{ANTHROPIC}{error}"));
    let ended = Answer::sse(ANTHROPIC);
    let cut = Answer::sse(ANTHROPIC).cut();
    for (answer, message) in [
        (said, "Overloaded"),
        (ended, "before the answer was complete"),
        (cut, "before the answer was complete"),
    ] {
        let provider = Provider::start([answer]).await;
        let case = Case::new(service(AiProvider::Anthropic, &provider));
        let gateway = case.serve().await;
        let text = case.chat(ASK).await.text();
        assert_eq!(content(&text), "h\u{e9}llo", "{text}");
        assert!(
            !text.contains("[DONE]") && !text.contains("\"finish_reason\":\""),
            "{text}"
        );
        let last: serde_json::Value = serde_json::from_str(frames(&text).last().unwrap()).unwrap();
        assert!(
            last["error"]["message"].as_str().unwrap().contains(message),
            "{text}"
        );
        let errors = || gateway.metric("gen_ai_client_operation_errors_total", &[]);
        eventually("the error is counted", || (errors() == 1).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_falls_silent_is_told_to_the_client() {
    let answer = Answer::sse(ANTHROPIC).then_waits();
    let provider = Provider::start([answer]).await;
    let mut service = service(AiProvider::Anthropic, &provider);
    service.timeout = Some(Duration::from_millis(300));
    let case = Case::new(service);
    let _gateway = case.serve().await;
    let text = case.chat(ASK).await.text();
    assert!(text.contains("took too long"), "{text}");
    assert!(!text.contains("[DONE]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_ends_the_call_and_is_charged() {
    let answer = Answer::sse(ANTHROPIC).then_waits();
    let provider = Provider::start([answer]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let gateway = case.serve().await;
    let mut client = case.connect().await;
    client.send_bytes(&bytes_of(ASK)).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 200);
    eventually("the provider streams", || {
        (provider.open() == 1).then_some(())
    })
    .await;
    drop(client);
    let left = Instant::now();
    eventually("the provider's connection is closed", || {
        (provider.open() == 0).then_some(())
    })
    .await;
    assert!(
        left.elapsed() < Duration::from_secs(5),
        "{:?}",
        left.elapsed()
    );
    let tokens = |kind| gateway.metric("gen_ai_client_token_usage_sum", &[kind]);
    let both = || tokens("token_type=\"input\"") == 8 && tokens("token_type=\"output\"") > 0;
    eventually("what was seen is charged", || both().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_http2_is_reset_with_its_client() {
    let answer = Answer::sse(ANTHROPIC).then_waits();
    let provider = Provider::start([answer]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let _gateway = case.serve().await;
    let client = dataplane_testkit::client::http2::Http2Client::connect(at(case.port))
        .await
        .unwrap();
    let mut request = post("/v1/chat/completions", ASK);
    *request.uri_mut() = "http://x/v1/chat/completions".parse().unwrap();
    request.headers_mut().remove("host");
    let sending = tokio::spawn(async move { client.send(request).await.map(drop) });
    eventually("the provider streams", || {
        (provider.open() == 1).then_some(())
    })
    .await;
    sending.abort();
    eventually("the provider's connection is closed", || {
        (provider.open() == 0).then_some(())
    })
    .await;
}

/// Some servers do not stream whatever they are asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_reaches_a_client_that_waits_for_a_stream_as_one() {
    let openai = "{\n  \"id\": \"c\", \"object\": \"chat.completion\", \"created\": 1, \"model\": \"m-1\",\n  \"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": \"to ada@example.com\"}, \"finish_reason\": \"stop\"}], \"usage\": {\"prompt_tokens\": 8, \"completion_tokens\": 2, \"total_tokens\": 10}}";
    let anthropic = r#"{"id":"m","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"to ada@example.com"}],"stop_reason":"end_turn","usage":{"input_tokens":8,"output_tokens":2}}"#;
    let ollama = r#"{"model":"l","message":{"role":"assistant","content":"to ada@example.com"},"done":true,"done_reason":"stop","prompt_eval_count":8,"eval_count":2}"#;
    for (kind, body) in [
        (AiProvider::OpenAi, openai),
        (AiProvider::Anthropic, anthropic),
        (AiProvider::Ollama, ollama),
    ] {
        let provider = Provider::start([Answer::json(200, body)]).await;
        let mut service = service(kind.clone(), &provider);
        service.redaction = vec![Redaction {
            kind: RedactionKind::Email,
            action: RedactionAction::Mask,
        }];
        let case = Case::new(service);
        let gateway = case.serve().await;
        let response = case.chat(ASK).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let content_type = response.header("content-type");
        assert!(
            content_type.starts_with("text/event-stream"),
            "{content_type}"
        );
        let text = response.text();
        assert_eq!(content(&text), "to [EMAIL]", "{kind:?}: {text}");
        assert_eq!(frames(&text).last().unwrap(), "[DONE]");
        let response = case
            .post("/v1/messages", &ASK.replace('{', "{\"max_tokens\":9,"))
            .await;
        let text = response.text();
        assert!(
            text.contains("\"text_delta\",\"text\":\"to [EMAIL]\""),
            "{kind:?}: {text}"
        );
        assert!(
            text.ends_with("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"),
            "{text}"
        );
        let tokens = || gateway.metric("gen_ai_client_token_usage_sum", &["token_type=\"output\""]);
        eventually("both are counted", || (tokens() == 4).then_some(())).await;
    }
    // What is neither is an error, before anything went out, and another provider is asked.
    let nonsense = Provider::start([Answer::json(200, r#"{"ok":true}"#)]).await;
    let good = Provider::start([Answer::json(200, openai)]).await;
    let mut service = service(AiProvider::OpenAi, &nonsense);
    service.providers = vec![fallback(AiProvider::OpenAi, &good, "")];
    let case = Case::new(service);
    let _gateway = case.serve().await;
    let response = case.chat(ASK).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(content(&response.text()), "to ada@example.com");
    assert_eq!(nonsense.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_between_pieces_is_a_histogram_of_pieces() {
    let delta = |text: &str| {
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n")
    };
    let answer = Answer::stream("text/event-stream", &delta("a"), 4096)
        .then_waits()
        .then(&[delta("b"), delta("c"), OPENAI.to_owned(), DONE.to_owned()].concat());
    let provider = Provider::start([answer]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let gateway = case.serve().await;
    let mut client = case.connect().await;
    client.send_bytes(&bytes_of(ASK)).await.unwrap();
    client.read_head().await.unwrap();
    let first = within("the first piece arrives", client.read_some());
    first.await.unwrap();
    // Longer than the first bucket; what is asserted holds however long it takes.
    tokio::time::sleep(Duration::from_millis(30)).await;
    provider.go_on();
    let mut seen = String::new();
    while !seen.contains("[DONE]") {
        let more = within("the rest arrives", client.read_some())
            .await
            .unwrap();
        seen.push_str(&String::from_utf8_lossy(&more));
    }
    let family = "gen_ai_client_operation_time_per_output_chunk_seconds";
    let count = || gateway.metric(&format!("{family}_count"), &[]);
    // Four pieces of the answer: a, b, c and that of `OPENAI`.
    eventually("each piece but the first is counted", || {
        (count() == 3).then_some(())
    })
    .await;
    let soon = gateway.metric(&format!("{family}_bucket"), &["le=\"0.01\""]);
    assert_eq!(soon, 2, "one of them came late, the others together");
}
