//! Redaction on the way: requests, answers, and answers in pieces.

use ir::ai::{Redaction, RedactionAction, RedactionKind};

use super::streams::{content, frames};
use super::*;

const MAIL: &str = "jane.doe@example.com";

async fn case(action: RedactionAction, answer: Answer) -> (Case, Provider, Gateway) {
    let provider = Provider::start([answer]).await;
    let mut service = service(AiProvider::OpenAi, &provider);
    service.redaction = vec![Redaction {
        kind: RedactionKind::Email,
        action,
    }];
    let case = Case::new(service);
    let gateway = case.serve().await;
    (case, provider, gateway)
}

fn chat(is_stream: bool) -> String {
    format!(
        r#"{{"model":"m","stream":{is_stream},"messages":[{{"role":"user","content":"write to {MAIL} now"}}]}}"#
    )
}

fn answer(text: &str) -> Answer {
    Answer::json(
        200,
        &format!(
            r#"{{"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}}}"#
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_masked_leaves_in_neither_direction() {
    let (case, provider, gateway) =
        case(RedactionAction::Mask, answer("ask bob@example.org")).await;
    let response = case.chat(&chat(false)).await;
    assert_eq!(
        response.json()["choices"][0]["message"]["content"],
        "ask [EMAIL]"
    );
    let sent = provider.only().json();
    assert_eq!(sent["messages"][0]["content"], "write to [EMAIL] now");
    assert_eq!(
        gateway.metric("ai_redactions_total", &["kind=\"EMAIL\""]),
        2
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_tokenised_comes_back_whole_and_in_pieces() {
    let whole = answer("to [EMAIL_1]");
    let (one, provider, _gateway) = case(RedactionAction::Tokenize, whole).await;
    let response = one.chat(&chat(false)).await;
    assert_eq!(
        response.json()["choices"][0]["message"]["content"],
        format!("to {MAIL}")
    );
    assert!(!provider.only().body.contains(MAIL));

    let piece = |text: &str| {
        format!(
            "data: {{\"id\":\"c\",\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
        )
    };
    let end = "data: {\"id\":\"c\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let body = ["to [EM", "AIL", "_1] and b", "ob@exam", "ple.org."]
        .map(piece)
        .concat()
        + end;
    let (case, provider, _gateway) = case(RedactionAction::Tokenize, Answer::sse(&body)).await;
    let text = case.chat(&chat(true)).await.text();
    assert_eq!(content(&text), format!("to {MAIL} and [EMAIL]."), "{text}");
    assert_eq!(frames(&text).last().unwrap(), "[DONE]");
    assert!(!provider.only().body.contains(MAIL));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_blocked_goes_nowhere() {
    let (case, provider, gateway) = case(RedactionAction::Block, answer("x")).await;
    let response = case.chat(&chat(false)).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.json()["error"]["code"], "content_blocked");
    assert!(!response.text().contains(MAIL));
    assert!(provider.asked().is_empty());
    assert_eq!(
        gateway.metric("gen_ai_client_operation_errors_total", &["blocked"]),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_within_the_limit_is_not_lost_for_what_it_is_converted_to() {
    let words = "word ".repeat(1000);
    let event = format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{words}{MAIL}\"}}}}\n"
    );
    let stream = format!(
        "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"claude\",\"content\":[],\"usage\":{{\"input_tokens\":8,\"output_tokens\":1}}}}}}\n\n{event}\nevent: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{{\"output_tokens\":7}}}}\n\nevent: message_stop\ndata: {{\"type\":\"message_stop\"}}\n\n"
    );
    let provider = Provider::start([Answer::sse(&stream)]).await;
    let mut service = service(AiProvider::Anthropic, &provider);
    service.redaction = vec![Redaction {
        kind: RedactionKind::Email,
        action: RedactionAction::Mask,
    }];
    let case = Case::new(service);
    let limit = event.len();
    let _gateway = case
        .serve_with(|http| http.ai_event_bytes_max = limit)
        .await;
    let text = case.chat(&chat(true)).await.text();
    assert_eq!(content(&text), format!("{words}[EMAIL]"), "{text:.300}");
    assert_eq!(frames(&text).last().unwrap(), "[DONE]");
}
