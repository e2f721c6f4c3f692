//! What is refused before anybody knows that a request is a call: still in the client's format.

use std::time::Duration;

use dataplane_testkit::snapshot::rate_limit;
use ir::policy::SecurityPolicy;

use super::*;

const CHAT: &str = r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10}}"#;

/// Holds a refusal to the format of the path that was asked.
fn check(response: &Response, path: &str, kind: &str, code: &str) {
    let text = response.text();
    assert_eq!(
        response.header("content-type"),
        "application/json",
        "{text}"
    );
    let error = &response.json()["error"];
    assert_eq!(error["type"], kind, "{text}");
    assert!(!error["message"].as_str().unwrap().is_empty());
    if path == "/v1/messages" {
        assert_eq!(response.json()["type"], "error");
    } else {
        assert_eq!(error["code"], code, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_rate_says_so_in_the_clients_format() {
    let provider = Provider::start([Answer::json(200, ANSWER)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let mut snapshot = case.snapshot("v1");
    let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
    route.security_policy = Some(Arc::new(SecurityPolicy {
        rate_limits: vec![rate_limit("calls", 1, Duration::from_secs(60))],
        ..SecurityPolicy::default()
    }));
    snapshot.http_routes.insert(route);
    let _gateway = Gateway::serving(&snapshot).await;
    assert_eq!(case.chat(CHAT).await.status, 200);
    for path in ["/v1/chat/completions", "/v1/messages"] {
        let refused = case.post(path, CHAT).await;
        assert_eq!(refused.status, 429);
        check(&refused, path, "rate_limit_error", "rate_limited");
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        assert!((50..=60).contains(&wait), "{wait}");
    }
    assert_eq!(provider.asked().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_gateway_and_a_full_backend_say_so_in_the_clients_format() {
    for (of_process, code) in [(true, "overload"), (false, "backend_overload")] {
        let stream = Answer::stream("text/event-stream", ": wait\n\n", 64).then_waits();
        let provider = Provider::start([stream]).await;
        let mut case = Case::new(service(AiProvider::OpenAi, &provider));
        if !of_process {
            case.cluster.max_inflight_requests = Some(1);
        }
        let _gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            if of_process {
                bootstrap.http.inflight.global = Some(1);
            }
        })
        .await;
        let mut first = case.connect().await;
        let body = CHAT.replace("{\"model\"", "{\"stream\":true,\"model\"");
        let length = body.len();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        first.send_bytes(head.as_bytes()).await.unwrap();
        assert_eq!(first.read_head().await.unwrap().status, 200);
        for (path, status) in [("/v1/chat/completions", 503), ("/v1/messages", 529)] {
            let refused = case.post(path, CHAT).await;
            assert_eq!(refused.status, status, "{}", refused.text());
            check(&refused, path, "overloaded_error", code);
            assert_eq!(refused.header("retry-after"), "1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_ai_service_is_answered_as_ever() {
    let provider = Provider::start([Answer::json(200, ANSWER)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let snapshot = SnapshotBuilder::from(&case.snapshot("v1"), "v1")
        .http_route(http_route(
            "shop/plain",
            "",
            "/plain",
            &[("shop/none:80", 1)],
        ))
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let response = case.post("/plain/v1/messages", CHAT).await;
    assert_eq!(response.status, 500);
    assert_eq!(response.header("content-type"), "text/plain");
}
