//! What callers and providers may make grow or last, each by its own setting.

use std::num::NonZeroU64;
use std::time::Duration;

use dataplane_testkit::{DEADLINE, until};
use ir::ai::{OnLimit, TokenPolicy, TokenScope};

use super::*;

const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_larger_than_the_limit_ends_the_stream() {
    let event = r#"data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"WORDS"},"finish_reason":"stop"}]}"#;
    let event = event.replace("WORDS", &"word ".repeat(1000)) + "\n";
    for (limit, is_whole) in [(event.len(), true), (event.len() - 1, false)] {
        let stream = format!("{event}\ndata: [DONE]\n\n");
        let provider = Provider::start([Answer::stream("text/event-stream", &stream, 500)]).await;
        let case = Case::new(service(AiProvider::OpenAi, &provider));
        let gateway = case
            .serve_with(|http| http.ai_event_bytes_max = limit)
            .await;
        let ask = ASK.replacen('{', r#"{"stream":true,"#, 1);
        let text = case.chat(&ask).await.text();
        assert_eq!(text.contains("[DONE]"), is_whole, "{limit}: {text:.200}");
        assert_eq!(text.contains("\"error\""), !is_whole, "{text:.200}");
        // A client has its answer before it is counted.
        let broken = u64::from(!is_whole);
        until(DEADLINE, async || {
            gateway.outcomes("upstream_protocol") == broken
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_asks_for_a_longer_pause_than_the_limit_is_not_asked_again() {
    for (limit_ms, status) in [(300, 200), (299, 429)] {
        let limited = Answer::json(429, "{}").field("retry-after-ms", "300");
        let provider = Provider::start([limited, Answer::json(200, ANSWER)]).await;
        let mut service = service(AiProvider::OpenAi, &provider);
        service.retries_max = 1;
        service.retry_backoff = Some(Duration::from_millis(1));
        let case = Case::new(service);
        let limit = Duration::from_millis(limit_ms);
        let _gateway = case
            .serve_with(|http| http.ai_retry_pause_max = limit)
            .await;
        assert_eq!(case.chat(ASK).await.status, status, "{limit_ms}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_for_its_budget_as_long_as_the_limit_says() {
    // The second of two that come at once has to wait: a second, or 7.5, which by default it may.
    for (per_minute, status) in [(60, 200), (8, 429)] {
        let policy = TokenPolicy {
            tokens_per_minute: None,
            tokens_per_hour: None,
            requests_per_minute: NonZeroU64::new(per_minute),
            scope: TokenScope::Global,
            burst: 1.0 / per_minute as f64,
            on_limit: OnLimit::Queue,
            degrade_to: None,
            is_dry_run: false,
        };
        let provider = Provider::start([Answer::json(200, ANSWER)]).await;
        let mut case = Case::new(service(AiProvider::OpenAi, &provider));
        case.cluster.token_policy = Some(Arc::new(policy));
        let limit = Duration::from_secs(3);
        let _gateway = case.serve_with(|http| http.ai_queue_time = limit).await;
        let both = futures_util::future::join(case.chat(ASK), case.chat(ASK)).await;
        let mut statuses = [both.0.status.as_u16(), both.1.status.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, status], "{per_minute} a minute");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_members_are_named_than_the_limit_says() {
    let answer = r#"{"id":"m","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"x"}],"stop_reason":"end_turn","usage":{"input_tokens":1,"output_tokens":1}}"#;
    let ask = r#"{"model":"m","seed":7,"messages":[{"role":"user","name":"ann","content":"hi"}]}"#;
    for (most, told) in [
        (2, "messages[].name, seed"),
        (1, "messages[].name"),
        (0, ""),
    ] {
        let provider = Provider::start([Answer::json(200, answer)]).await;
        let case = Case::new(service(AiProvider::Anthropic, &provider));
        let _gateway = case.serve_with(|http| http.ai_ignored_members = most).await;
        let response = case.chat(ask).await;
        assert_eq!(response.header("x-nantian-ignored-members"), told);
    }
}
