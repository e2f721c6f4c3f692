//! Budgets of tokens: who is over does not reach the provider, and the real count is what counts.

use std::num::NonZeroU64;
use std::time::Duration;

use dataplane_testkit::eventually;
use ir::ai::{OnLimit, TokenPolicy, TokenScope};

use super::*;

const CHAT: &str = r#"{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}"#;

fn policy(tokens_per_minute: u64, scope: TokenScope) -> TokenPolicy {
    TokenPolicy {
        tokens_per_minute: NonZeroU64::new(tokens_per_minute),
        tokens_per_hour: None,
        requests_per_minute: None,
        scope,
        burst: 1.0,
        on_limit: OnLimit::Reject,
        degrade_to: None,
        is_dry_run: false,
    }
}

fn answer(tokens: u64) -> Answer {
    Answer::json(
        200,
        &format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":0,"completion_tokens":{tokens},"total_tokens":{tokens}}}}}"#
        ),
    )
}

async fn case(policy: TokenPolicy, used: u64) -> (Case, Provider, Gateway) {
    let provider = Provider::start([answer(used)]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(policy));
    let gateway = case.serve().await;
    (case, provider, gateway)
}

/// Sends until the status is that one; usage is settled behind the answer.
async fn until(case: &Case, status: u16) -> Response {
    for _ in 0..50 {
        let response = case.chat(CHAT).await;
        if response.status == status {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_over_its_limit_never_reaches_the_provider() {
    let (case, provider, gateway) = case(policy(1000, TokenScope::ApiKey), 5000).await;
    let first = case.chat(CHAT).await;
    assert_eq!(first.status, 200, "{}", first.text());
    assert_eq!(first.header("x-ratelimit-limit-tokens"), "1000");
    eventually("it is settled", || {
        let labels = ["token_type=\"output\""];
        let used = gateway.metric("gen_ai_client_token_usage_sum", &labels);
        (used == 5000).then_some(())
    })
    .await;
    let refused = until(&case, 429).await;
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), "0");
    // 5,000 tokens are five minutes; a small reservation on top of what must be paid back.
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((235..=305).contains(&wait), "{wait}");
    let asked = provider.asked().len();
    assert_eq!(case.chat(CHAT).await.status, 429);
    assert_eq!(provider.asked().len(), asked);
    let rejected = gateway.metric("ai_token_policy_outcomes_total", &["outcome=\"rejected\""]);
    assert_eq!(rejected, 2);
    let mut other = post("/v1/chat/completions", CHAT);
    other
        .headers_mut()
        .insert("authorization", "Bearer another".parse().unwrap());
    let response = case.connect().await.send(other).await.unwrap();
    assert_eq!(response.status, 200, "another key has a budget of its own");
    let messages = case.post("/v1/messages", CHAT).await;
    assert_eq!(messages.status, 429);
    assert_eq!(messages.json()["error"]["type"], "rate_limit_error");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_of_the_configuration_forgets_nobodys_debt() {
    let (mut case, _provider, gateway) = case(policy(1000, TokenScope::Global), 5000).await;
    assert_eq!(case.chat(CHAT).await.status, 200);
    until(&case, 429).await;
    let old = case.snapshot("v1");
    let mut changed = policy(1200, TokenScope::Global);
    changed.burst = 1.5;
    case.cluster.token_policy = Some(Arc::new(changed));
    gateway.change(&old, &case.snapshot("v2")).await;
    assert_eq!(case.chat(CHAT).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_calls_are_free() {
    let provider = Provider::start([Answer::json(400, "{}")]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(policy(300, TokenScope::Global)));
    let _gateway = case.serve().await;
    for _ in 0..10 {
        assert_eq!(until(&case, 400).await.status, 400);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_warn_degrade_queue_or_be_tried_only() {
    let warn = TokenPolicy {
        on_limit: OnLimit::Warn,
        ..policy(100, TokenScope::Global)
    };
    let tried = TokenPolicy {
        is_dry_run: true,
        ..policy(100, TokenScope::Global)
    };
    let degrade = TokenPolicy {
        on_limit: OnLimit::Degrade,
        degrade_to: Some("cheap".to_owned()),
        ..policy(100, TokenScope::Global)
    };
    for (policy, outcome, model) in [
        (warn, "passed_over", "m"),
        (tried, "passed_over", "m"),
        (degrade, "degraded", "cheap"),
    ] {
        let (case, provider, gateway) = case(policy, 5000).await;
        assert_eq!(case.chat(CHAT).await.status, 200);
        let label = format!("outcome=\"{outcome}\"");
        let count = || gateway.metric("ai_token_policy_outcomes_total", &[&label]);
        for _ in 0..50 {
            assert_eq!(case.chat(CHAT).await.status, 200);
            if count() > 0 {
                break;
            }
        }
        assert!(count() > 0, "{outcome}");
        assert_eq!(provider.asked().pop().unwrap().json()["model"], model);
    }
    let mut queue = policy(100, TokenScope::Global);
    queue.tokens_per_minute = None;
    queue.requests_per_minute = NonZeroU64::new(60);
    queue.burst = 1.0 / 60.0;
    queue.on_limit = OnLimit::Queue;
    let (case, _provider, gateway) = case(queue, 1).await;
    let began = std::time::Instant::now();
    assert_eq!(case.chat(CHAT).await.status, 200);
    assert_eq!(case.chat(CHAT).await.status, 200);
    assert!(
        began.elapsed() >= Duration::from_millis(900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(
        gateway.metric("ai_token_policy_outcomes_total", &["queued"]),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_broken_off_is_charged() {
    let text = "word ".repeat(400);
    let piece = format!(
        "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
    );
    let stream = Answer::stream("text/event-stream", &piece, 4096).then_waits();
    let provider = Provider::start([stream]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(policy(300, TokenScope::Global)));
    let gateway = case.serve().await;
    let body = CHAT.replace("{\"model\"", "{\"stream\":true,\"model\"");
    let mut client = case.connect().await;
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    client.send_bytes(head.as_bytes()).await.unwrap();
    assert_eq!(client.read_head().await.unwrap().status, 200);
    let mut seen = 0;
    while seen < text.len() {
        seen += client.read_some().await.unwrap().len();
    }
    drop(client);
    let tokens = || gateway.metric("gen_ai_client_token_usage_sum", &["type=\"output\""]);
    eventually("it is charged", || (tokens() >= 400).then_some(())).await;
    let refused = until(&case, 429).await;
    assert_eq!(refused.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_before_the_answer_begins_pays_for_the_question() {
    let slow = Answer::json(200, "{").then_waits().then("}");
    let provider = Provider::start([slow]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(policy(300, TokenScope::Global)));
    let gateway = case.serve().await;
    let body = CHAT.replace("hi", &"word ".repeat(400));
    let length = body.len();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    let mut client = case.connect().await;
    client.send_bytes(head.as_bytes()).await.unwrap();
    eventually("the provider is asked", || {
        (!provider.asked().is_empty()).then_some(())
    })
    .await;
    drop(client);
    let labels = ["error_type=\"given_up\"", "model=\"other\""];
    let count = "gen_ai_client_operation_duration_seconds_count";
    eventually("it has ended", || {
        (gateway.metric(count, &labels) == 1).then_some(())
    })
    .await;
    assert_eq!(case.chat(CHAT).await.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_without_usage_is_charged_for_its_text() {
    let text = "word ".repeat(8000);
    let body = format!(
        r#"{{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}]}}"#
    );
    let provider = Provider::start([Answer::json(200, &body)]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(policy(1000, TokenScope::Global)));
    let gateway = case.serve().await;
    assert_eq!(case.chat(CHAT).await.status, 200);
    let tokens = || gateway.metric("gen_ai_client_token_usage_sum", &["type=\"output\""]);
    eventually("it is counted", || (tokens() >= 7900).then_some(())).await;
    assert!(tokens() <= 8100, "{}", tokens());
    until(&case, 429).await;
}

/// Base64 is no text that a model wrote.
#[tokio::test(flavor = "multi_thread")]
async fn embeddings_have_no_tokens_of_an_answer() {
    let vector = "AAAA".repeat(10_000);
    let body = format!(
        r#"{{"object":"list","model":"e","data":[{{"object":"embedding","index":0,"embedding":"{vector}"}}],"usage":{{"prompt_tokens":3,"total_tokens":3}}}}"#
    );
    let provider = Provider::start([Answer::json(200, &body)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let gateway = case.serve().await;
    let response = case
        .post("/v1/embeddings", r#"{"model":"e","input":"x"}"#)
        .await;
    assert_eq!(response.status, 200);
    let tokens = |kind| gateway.metric("gen_ai_client_token_usage_sum", &[kind]);
    eventually("it is counted", || {
        (tokens("type=\"input\"") == 3).then_some(())
    })
    .await;
    assert_eq!(tokens("type=\"output\""), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_a_provider_fails_are_free_and_counted_as_failed() {
    let begin = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n";
    let error = "event: error\ndata: {\"type\":\"error\",\"code\":\"server_error\",\"message\":\"over\"}\n\n";
    let failed = "event: response.failed\ndata: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"over\"}}}\n\n";
    let chat = "data: {\"error\":{\"message\":\"over\",\"type\":\"server_error\"}}\n\n";
    for (path, answer) in [
        ("/v1/responses", error.to_owned()),
        ("/v1/responses", [begin, failed].concat()),
        ("/v1/chat/completions", chat.to_owned()),
    ] {
        let provider = Provider::start([Answer::sse(&answer)]).await;
        let mut case = Case::new(service(AiProvider::OpenAi, &provider));
        case.cluster.token_policy = Some(Arc::new(policy(300, TokenScope::Global)));
        let gateway = case.serve().await;
        let words = "word ".repeat(200);
        let body = format!(
            r#"{{"model":"m","stream":true,"max_tokens":10,"max_output_tokens":10,"input":"{words}","messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        for times in 1..=5 {
            let response = case.post(path, &body).await;
            assert_eq!(response.status, 200, "{path}: {}", response.text());
            assert!(response.text().contains("over"), "{}", response.text());
            let labels = ["error_type=\"provider_error\""];
            for family in [
                "gen_ai_client_operation_errors_total",
                "gen_ai_client_operation_duration_seconds_count",
            ] {
                eventually("it is settled", || {
                    (gateway.metric(family, &labels) == times).then_some(())
                })
                .await;
            }
        }
        let tokens = gateway.metric("gen_ai_client_token_usage_count", &[]);
        assert_eq!(tokens, 0, "{path}");
    }
}

/// A call, as one caller makes it.
#[derive(Clone, Copy, Default)]
struct Caller {
    from: Option<[u8; 4]>,
    path: Option<&'static str>,
    model: Option<&'static str>,
    user: Option<&'static str>,
    field: Option<(&'static str, &'static str)>,
}

impl Caller {
    async fn call(self, case: &Case) -> u16 {
        let model = self.model.unwrap_or("m");
        let user = self.user.unwrap_or("u");
        let body = format!(
            r#"{{"model":"{model}","user":"{user}","max_tokens":10,"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let mut request = post(self.path.unwrap_or("/v1/chat/completions"), &body);
        request.headers_mut().remove("authorization");
        if let Some((name, value)) = self.field {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        if let Some(address) = self.from {
            let from = std::net::Ipv4Addr::from(address).to_string();
            request
                .headers_mut()
                .insert("x-forwarded-for", from.parse().unwrap());
        }
        let response = case.connect().await.send(request).await.unwrap();
        response.status.as_u16()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_told_apart_by_what_the_policy_says() {
    let none = Caller::default();
    let field = |name, value| Caller {
        field: Some((name, value)),
        ..none
    };
    let from = |address| Caller {
        from: Some(address),
        ..none
    };
    let model = |model| Caller {
        model: Some(model),
        ..none
    };
    let user = |user| Caller {
        user: Some(user),
        ..none
    };
    let path = |path| Caller {
        path: Some(path),
        ..none
    };
    // {"sub":"alice"} and {"sub":"bob"}
    let alice = field("authorization", "Bearer x.eyJzdWIiOiJhbGljZSJ9.y");
    let bob = field("authorization", "Bearer x.eyJzdWIiOiJib2IifQ.y");
    let (chat, other_route) = ("/v1/chat/completions", "/other/v1/chat/completions");
    for (scope, one, other, expected) in [
        (TokenScope::JwtClaim("sub".to_owned()), alice, bob, 200),
        (
            TokenScope::Header("x-team".to_owned()),
            field("x-team", "a"),
            field("x-team", "b"),
            200,
        ),
        (
            TokenScope::ApiKey,
            field("x-api-key", "a"),
            field("x-api-key", "b"),
            200,
        ),
        (
            TokenScope::SourceIp,
            from([192, 0, 2, 1]),
            from([192, 0, 2, 2]),
            200,
        ),
        (TokenScope::Model, model("m"), model("n"), 200),
        (TokenScope::User, user("a"), user("b"), 200),
        (TokenScope::Route, path(chat), path(other_route), 200),
        (TokenScope::Global, user("a"), user("b"), 429),
    ] {
        let mut policy = policy(1, scope.clone());
        policy.tokens_per_minute = None;
        policy.requests_per_minute = NonZeroU64::MIN.into();
        let provider = Provider::start([answer(1)]).await;
        let mut case = Case::new(service(AiProvider::OpenAi, &provider));
        case.cluster.token_policy = Some(Arc::new(policy));
        let snapshot = SnapshotBuilder::from(&case.snapshot("v1"), "v1")
            .http_route(http_route("shop/other", "", "/other", &[(SERVICE, 1)]))
            .with(|snapshot| {
                let mut http = (**snapshot.listeners.get("infra/gw/http").unwrap()).clone();
                http.settings = crate::clients::trusting(0, &["127.0.0.0/8"]);
                snapshot.listeners.insert(http);
            })
            .build();
        let _gateway = Gateway::serving(&snapshot).await;
        let mut statuses = Vec::new();
        for caller in [one, one, other] {
            statuses.push(caller.call(&case).await);
        }
        assert_eq!(statuses, [200, 429, expected], "{scope:?}");
    }
}
