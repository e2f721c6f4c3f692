//! Whole answers: what a provider is asked, and what its client gets.

use dataplane_testkit::eventually;

use super::*;

const CHAT: &str =
    r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"top_k":9007199254740993}"#;
const ANSWER: &str = r#"{"id":"c1","object":"chat.completion","created":1,"model":"m-1","choices":[{"index":0,"message":{"role":"assistant","content":"hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":8,"completion_tokens":2,"total_tokens":10,"vendor":9007199254740993}}"#;
const ANTHROPIC: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{"type":"text","text":"hello"}],"stop_reason":"end_turn","usage":{"input_tokens":8,"cache_read_input_tokens":4,"output_tokens":2}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn openai_gets_the_clients_bytes_under_the_gateways_key() {
    let provider =
        Provider::start([Answer::json(200, ANSWER).field("x-request-id", "req_1")]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.text(), ANSWER);
    assert_eq!(response.header("content-type"), "application/json");
    let asked = provider.only();
    assert!(
        asked.head.starts_with("POST /v1/chat/completions HTTP/1.1"),
        "{}",
        asked.head
    );
    assert_eq!(asked.body, CHAT);
    assert_eq!(
        asked.field("authorization"),
        Some(&*format!("Bearer {KEY}"))
    );
    assert_eq!(
        asked.field("host"),
        Some(&provider.url()["http://".len()..])
    );
    assert_eq!(asked.field("x-forwarded-for"), None);
    let labels = [
        "service=\"shop/llm\"",
        "provider=\"openai\"",
        "model=\"other\"",
    ];
    let count = "gen_ai_client_operation_duration_seconds_count";
    eventually("the call is counted", || {
        (gateway.metric(count, &labels) == 1).then_some(())
    })
    .await;
    for (kind, tokens) in [("input", 8), ("output", 2)] {
        let kind = format!("token_type=\"{kind}\"");
        let labels = [&labels[..], &[&*kind]].concat();
        assert_eq!(
            gateway.metric("gen_ai_client_token_usage_sum", &labels),
            tokens
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_what_the_configuration_makes_of_its_name() {
    let provider = Provider::start([Answer::json(200, ANSWER)]).await;
    let mut service = service(AiProvider::OpenAi, &provider);
    service.aliases = BTreeMap::from([("fast".to_owned(), "gpt-mini".to_owned())]);
    let case = Case::new(service);
    let _gateway = case.serve().await;
    for (asked, sent) in [
        ("\"fast\"", "gpt-mini"),
        ("\"\"", "the-model"),
        ("\"x\"", "x"),
    ] {
        let body = format!(r#"{{"model":{asked},"messages":[]}}"#);
        let response = case.chat(&body).await;
        assert_eq!(response.status, 200, "{}", response.text());
        let last = provider.asked().pop().unwrap();
        assert_eq!(last.json()["model"], sent);
    }
    let mut client = case.connect().await;
    let models = client.get("x", "/v1/models").await.unwrap().json();
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].clone())
        .collect();
    assert_eq!(ids, ["the-model", "fast"]);
    assert_eq!(
        provider.asked().len(),
        3,
        "the list comes from the configuration"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn anthropic_is_asked_in_its_own_words() {
    let provider =
        Provider::start([Answer::json(200, ANTHROPIC).field("request-id", "req_a")]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let _gateway = case.serve().await;
    let body = r#"{"model":"claude","seed":7,"messages":[{"role":"system","content":"be brief"},{"role":"user","name":"ann","content":"hi"}],"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{}}}}]}"#;
    let response = case.chat(body).await;
    assert_eq!(response.status, 200, "{}", response.text());
    let answer = response.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["choices"][0]["message"]["content"], "hello");
    assert_eq!(answer["usage"]["prompt_tokens"], 12);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(response.header("x-request-id"), "req_a");
    assert_eq!(
        response.header("x-nantian-ignored-members"),
        "messages[].name, seed"
    );
    let asked = provider.only();
    assert!(
        asked.head.starts_with("POST /v1/messages"),
        "{}",
        asked.head
    );
    assert_eq!(asked.field("anthropic-version"), Some("2023-06-01"));
    let sent = asked.json();
    assert_eq!(
        sent["system"][0]["text"]
            .as_str()
            .or_else(|| sent["system"].as_str()),
        Some("be brief")
    );
    assert_eq!(sent["tools"][0]["name"], "f");
    assert_eq!(sent["max_tokens"], 4096);
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_is_asked_natively_and_for_no_stream() {
    let answer = r#"{"model":"llama","created_at":"2026-01-01T00:00:00Z","message":{"role":"assistant","content":"hello"},"done":true,"done_reason":"stop","prompt_eval_count":5,"eval_count":3}"#;
    let provider = Provider::start([Answer::json(200, answer)]).await;
    let mut service = service(AiProvider::Ollama, &provider);
    service.auth = None;
    let case = Case::new(service);
    let _gateway = case.serve().await;
    let response = case.chat(CHAT).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["choices"][0]["message"]["content"], "hello");
    assert_eq!(response.json()["usage"]["total_tokens"], 8);
    let asked = provider.only();
    assert!(asked.head.starts_with("POST /api/chat"), "{}", asked.head);
    assert_eq!(asked.json()["stream"], false);
    assert_eq!(
        asked.field("authorization"),
        None,
        "the client's stays behind"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_anthropics_format_reaches_any_provider() {
    let provider = Provider::start([Answer::json(200, ANSWER)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let _gateway = case.serve().await;
    let body = r#"{"model":"m","max_tokens":10,"messages":[{"role":"user","content":"hi"}]}"#;
    let response = case.post("/v1/messages", body).await;
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["type"], "message");
    assert_eq!(response.json()["content"][0]["text"], "hello");
    let refused = case.post("/v1/messages", "{").await;
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json()["type"], "error");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_chat_passes_untouched() {
    let answer = r#"{"object":"list","data":[],"usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let provider = Provider::start([Answer::json(200, answer)]).await;
    let case = Case::new(service(AiProvider::OpenAi, &provider));
    let _gateway = case.serve().await;
    for path in ["/v1/embeddings", "/v1/completions", "/v1/responses"] {
        let body = r#"{"model":"m","input":"x", "odd":1e400}"#;
        let response = case.post(path, body).await;
        assert_eq!(
            (response.status.as_u16(), response.text()),
            (200, answer.to_owned())
        );
        let asked = provider.asked().pop().unwrap();
        assert!(
            asked.head.starts_with(&format!("POST {path} ")),
            "{}",
            asked.head
        );
        assert_eq!(asked.body, body);
    }
    for (path, message) in [
        (
            "/v1/chat/completions",
            "/v1/chat/completions is asked by POST only",
        ),
        ("/v1/messages", "/v1/messages is asked by POST only"),
    ] {
        let refused = case.connect().await.get("x", path).await.unwrap();
        assert_eq!(refused.status, 405);
        assert_eq!(refused.header("allow"), "POST");
        assert_eq!(refused.json()["error"]["message"], message);
    }
    let refused = case.post("/v1/models", "{}").await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.header("allow"), "GET");
    let unknown = case.post("/v1/files", "{}").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["error"]["code"], "unknown_url");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_or_done_goes_nowhere() {
    let provider = Provider::start([Answer::json(200, ANTHROPIC)]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.http.ai_body_bytes_max = 2048;
    })
    .await;
    let large = format!(
        r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#,
        "x".repeat(4000)
    );
    // It would stand in the log, in spans and in what is told to the provider.
    let name = "m".repeat(600);
    let nameless = format!(r#"{{"model":"{name}","messages":[]}}"#);
    for (body, status) in [
        ("", 400),
        ("[]", 400),
        (nameless.as_str(), 400),
        ("{\"messages\":7}", 400),
        (
            r#"{"messages":[{"role":"user","content":"hi"}],"n":2}"#,
            400,
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"input_audio"}]}]}"#,
            400,
        ),
        (large.as_str(), 413),
    ] {
        let response = case.chat(body).await;
        assert_eq!(response.status, status, "{body}");
        assert!(response.json()["error"]["message"].is_string(), "{body}");
    }
    assert!(provider.asked().is_empty());
    assert_eq!(gateway.metric("ai_requests_too_large_total", &[]), 1);
}
