//! Providers that fail: what is asked again, whom, how soon, and what the client is told.

use std::time::{Duration, Instant};

use dataplane_testkit::backend::{Hole, closed_address};
use dataplane_testkit::{DEADLINE, eventually};
use ir::Hostname;
use ir::cluster::BackendTls;
use ir::listener::TlsVersion;

use super::*;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}"#;
const OVERLOADED: &str =
    r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
const LIMITED: &str =
    r#"{"error":{"message":"slow down","type":"rate_limit_error","param":null,"code":null}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_next_provider_answers_in_its_own_dialect() {
    let first = Provider::start([Answer::json(529, OVERLOADED)]).await;
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::Anthropic, &first);
    service.providers = vec![fallback(AiProvider::OpenAi, &second, "gpt-other")];
    let case = Case::new(service);
    let gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.text(), ANSWER);
    assert!(first.only().head.starts_with("POST /v1/messages"));
    assert_eq!(second.only().json()["model"], "gpt-other");
    assert_eq!(gateway.metric("ai_failovers_total", &[]), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_reached_is_passed_over() {
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    for (endpoint, status) in [
        (format!("http://{}", closed_address()), 200),
        ("http://no-such-host.invalid".to_owned(), 200),
        ("https://localhost:1".to_owned(), 200),
    ] {
        let mut service = service(AiProvider::OpenAi, &second);
        service.endpoint = Some(endpoint.clone());
        service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
        let case = Case::new(service);
        let _gateway = case.serve().await;
        let response = case.chat(CHAT).await;
        assert_eq!(response.status, status, "{endpoint}: {}", response.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_tls_is_about_the_first_provider_alone() {
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &second);
    service.endpoint = Some("https://localhost:1".to_owned());
    service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
    let mut case = Case::new(service);
    case.cluster.tls = Some(Arc::new(BackendTls {
        hostname: Hostname::new("models.internal").unwrap(),
        use_system_ca_certificates: true,
        ca_pems: Vec::new(),
        subject_alt_names: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
    }));
    let _gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(response.status, 200, "{}", response.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_asked_again_when_it_says() {
    let limited = Answer::json(429, LIMITED).field("retry-after-ms", "300");
    let provider = Provider::start([limited, Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &provider);
    service.retries_max = 2;
    service.retry_backoff = Some(Duration::from_millis(1));
    let case = Case::new(service);
    let gateway = case.serve().await;
    let began = Instant::now();
    assert_eq!(case.chat(CHAT).await.status, 200);
    assert!(
        began.elapsed() >= Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(provider.asked().len(), 2);
    assert_eq!(gateway.metric("ai_retries_total", &[]), 1);
    for class in ["2xx", "4xx"] {
        assert_eq!(gateway.metric("backend_requests_total{", &[class]), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_wants_a_long_rest_is_not_asked_again_and_its_words_reach_the_client() {
    let limited = Answer::json(429, LIMITED).field("retry-after", "60");
    let provider = Provider::start([limited]).await;
    let mut service = service(AiProvider::OpenAi, &provider);
    service.retries_max = 5;
    let case = Case::new(service);
    let _gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(
        (response.status.as_u16(), response.text()),
        (429, LIMITED.to_owned())
    );
    assert_eq!(response.header("retry-after"), "60");
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_reach_the_client_in_its_format() {
    let anthropic = |kind: &str| {
        format!(
            r#"{{"type":"error","error":{{"type":"{kind}","message":"the words"}},"request_id":"r"}}"#
        )
    };
    for (status, kind, expected) in [
        (400, "invalid_request_error", 400),
        (402, "billing_error", 402),
        (403, "permission_error", 403),
        (404, "not_found_error", 404),
        (413, "request_too_large", 413),
        (429, "rate_limit_error", 429),
        (529, "overloaded_error", 503),
    ] {
        let provider = Provider::start([Answer::json(status, &anthropic(kind))]).await;
        let case = Case::new(service(AiProvider::Anthropic, &provider));
        let _gateway = case.serve().await;
        let response = case.chat(CHAT).await;
        assert_eq!(response.status, expected, "{}", response.text());
        assert_eq!(response.json()["error"]["message"], "the words");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_becomes_a_bad_gateway() {
    for answer in [
        Answer::json(200, "<html>"),
        Answer::json(500, "<html>"),
        Answer::json(200, "{").cut(),
    ] {
        let provider = Provider::start([answer]).await;
        let case = Case::new(service(AiProvider::Anthropic, &provider));
        let _gateway = case.serve().await;
        for body in [
            CHAT,
            &CHAT.replace("\"model\"", "\"stream\":true,\"model\""),
        ] {
            let response = case.chat(body).await;
            assert_eq!(response.status, 502, "{}", response.text());
            assert!(response.json()["error"]["message"].is_string());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_service_answers_for_itself_alone() {
    let provider = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut broken = service(AiProvider::OpenAi, &provider);
    broken.auth = Some(AiAuth {
        secret_ref: "shop/none".into(),
        ..auth()
    });
    let case = Case::new(broken);
    let _gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(response.status, 500);
    assert_eq!(response.json()["error"]["code"], "service_unusable");
    assert!(!response.text().contains("none"), "{}", response.text());
    assert!(provider.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_provider_is_left_for_the_next() {
    let first = Provider::start([Answer::stream("application/json", "", 1).then_waits()]).await;
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &first);
    service.timeout = Some(Duration::from_millis(200));
    service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
    let case = Case::new(service);
    let _gateway = case.serve().await;
    assert_eq!(case.chat(CHAT).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_accepts_nobody_is_soon_left_while_there_is_another() {
    let hole = Hole::new().await;
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let brief = Duration::from_millis(300);
    // Whether there is another one, and the time that dialling may take at least.
    for (has_other, least) in [(true, brief), (false, brief * 4)] {
        let mut service = service(AiProvider::OpenAi, &second);
        service.endpoint = Some(format!("http://{}", hole.address()));
        if has_other {
            service.providers = vec![fallback(AiProvider::OpenAi, &second, "")];
        }
        let case = Case::new(service);
        let all = if has_other { DEADLINE * 10 } else { brief * 4 };
        let _gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            bootstrap.http.connect_timeout = all;
            bootstrap.http.connect_timeout_elsewhere = Some(brief);
        })
        .await;
        let began = Instant::now();
        let status = case.chat(CHAT).await.status;
        assert_eq!(status == 200, has_other, "{status}");
        let took = began.elapsed();
        assert!((least..DEADLINE).contains(&took), "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_share_calls_among_providers() {
    let first = Provider::start([Answer::json(200, ANSWER)]).await;
    let second = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &first);
    let mut other = fallback(AiProvider::OpenAi, &second, "");
    other.weight = 3;
    service.providers = vec![other];
    let case = Case::new(service);
    let _gateway = case.serve().await;
    let mut client = case.connect().await;
    for _ in 0..200 {
        let response = client
            .send(post("/v1/chat/completions", CHAT))
            .await
            .unwrap();
        assert_eq!(response.status, 200);
    }
    let share = second.asked().len();
    assert!((110..190).contains(&share), "{share} of 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_counted_by_model_and_timed() {
    let first = Provider::start([Answer::json(429, LIMITED)]).await;
    let second = Provider::start([Answer::json(429, LIMITED), Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &first);
    service.providers = vec![fallback(AiProvider::Ollama, &second, "llama")];
    service.providers[0].format = Some(ir::ai::AiFormat::OpenAi);
    let case = Case::new(service);
    let gateway = case.serve().await;
    let ask = CHAT.replace("\"m\"", "\"the-model\"");
    assert_eq!(case.chat(&ask).await.status, 429);
    assert_eq!(case.chat(&ask).await.status, 200);
    assert_eq!(case.chat("{}").await.status, 400);
    assert_eq!(case.post("/v1/embeddings", "{oops").await.status, 400);

    let errors = "gen_ai_client_operation_errors_total";
    let times = "gen_ai_client_operation_duration_seconds_count";
    let labels = |operation: &str, provider: &str, model: &str, error: &str| {
        format!(
            "operation=\"{operation}\",provider=\"{provider}\",model=\"{model}\",error_type=\"{error}\""
        )
    };
    let rows = [
        // Every attempt that failed, and of the calls those that no other attempt made good.
        (
            errors,
            labels("chat", "openai", "the-model", "provider_error"),
            2,
        ),
        (
            errors,
            labels("chat", "ollama", "llama", "provider_error"),
            1,
        ),
        (errors, labels("chat", "", "", "invalid_request"), 1),
        (errors, labels("embeddings", "", "", "invalid_request"), 1),
        (
            times,
            labels("chat", "openai", "the-model", "provider_error"),
            0,
        ),
        (
            times,
            labels("chat", "ollama", "llama", "provider_error"),
            1,
        ),
        (times, labels("chat", "ollama", "llama", ""), 1),
        (times, labels("embeddings", "", "", "invalid_request"), 1),
    ];
    eventually("all calls have ended", || {
        (gateway.metric(times, &[]) == 4).then_some(())
    })
    .await;
    for (name, labels, expected) in rows {
        assert_eq!(
            gateway.metric(name, &[&labels]),
            expected,
            "{name} {labels}"
        );
    }
}
