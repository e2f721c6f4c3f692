//! Keys: replaced while calls run, and seen by nobody but the provider.

use std::time::Duration;

use dataplane_telemetry::access_log::{self, Sink};
use dataplane_testkit::eventually;
use ir::ai::AiPrice;

use super::*;

const CHAT: &str = r#"{"model":"m","messages":[{"role":"user","content":"the content canary"}]}"#;

/// All that the admin API tells of the configuration.
const ADMIN: [&str; 13] = [
    "/v1/snapshot",
    "/v1/summary",
    "/v1/overload",
    "/v1/endpoints",
    "/v1/traffic",
    "/v1/listeners",
    "/v1/routes",
    "/v1/backends",
    "/v1/backends/shop/llm",
    "/v1/ai/services",
    "/v1/certificates",
    "/v1/sessions",
    "/metrics",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_while_connections_go_on() {
    let provider = Provider::start([Answer::json(200, "{}")]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    let gateway = case.serve().await;
    let mut client = case.connect().await;
    client
        .send(post("/v1/chat/completions", CHAT))
        .await
        .unwrap();
    let old = case.snapshot("v1");
    case.key = "sk-second".to_owned();
    gateway.change(&old, &case.snapshot("v2")).await;
    client
        .send(post("/v1/chat/completions", CHAT))
        .await
        .unwrap();
    let keys: Vec<_> = provider
        .asked()
        .iter()
        .map(|it| it.field("authorization").unwrap().to_owned())
        .collect();
    assert_eq!(
        keys,
        [format!("Bearer {KEY}"), "Bearer sk-second".to_owned()]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_shows_its_own_key_only_where_the_service_says_so() {
    let provider = Provider::start([Answer::json(200, "{}")]).await;
    let mut own = service(AiProvider::OpenAi, &provider);
    own.auth = None;
    let mut passing = own.clone();
    passing.pass_client_credentials = true;
    for (service, expected) in [(own, None), (passing, Some("Bearer of-the-client"))] {
        let case = Case::new(service);
        let _gateway = case.serve().await;
        case.chat(CHAT).await;
        let last = provider.asked().pop().unwrap();
        assert_eq!(last.field("authorization"), expected);
    }
}

/// Every way in which a provider may repeat the key that it was shown.
fn echoes() -> Vec<(AiProvider, bool, Answer)> {
    let openai = format!(
        r#"{{"id":"{KEY}","choices":[{{"message":{{"content":"you are {KEY}"}},"finish_reason":"stop"}}],"model":"{KEY}"}}"#
    );
    let anthropic = format!(
        r#"{{"id":"m","content":[{{"type":"text","text":"you are {KEY}"}}],"stop_reason":"end_turn","model":"{KEY}"}}"#
    );
    let ollama = format!(r#"{{"message":{{"content":"you are {KEY}"}},"done":true}}"#);
    let error = format!(r#"{{"error":{{"type":"x","message":"not {KEY}"}}}}"#);
    let sse = |data: &str| Answer::sse(&format!("data: {data}\n\n"));
    let chunk = format!(
        r#"{{"id":"c","choices":[{{"index":0,"delta":{{"content":"you are {KEY}"}}}}],"model":"{KEY}"}}"#
    );
    let delta = format!(
        r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":"you are {KEY}"}}}}"#
    );
    let failed = format!(r#"{{"type":"error",{}"#, &error[1..]);
    let ndjson = |line: &str| Answer::stream("application/x-ndjson", &format!("{line}\n"), 7);
    let (of_openai, of_anthropic, of_ollama) = (
        AiProvider::OpenAi,
        AiProvider::Anthropic,
        AiProvider::Ollama,
    );
    vec![
        (
            of_openai.clone(),
            false,
            Answer::json(200, &openai).field("x-echo", KEY),
        ),
        (
            of_anthropic.clone(),
            false,
            Answer::json(200, &anthropic).field("request-id", KEY),
        ),
        (of_ollama.clone(), false, Answer::json(200, &ollama)),
        (of_openai.clone(), false, Answer::json(200, &error)),
        (
            of_openai.clone(),
            false,
            Answer::json(302, &error).field("location", KEY),
        ),
        (of_anthropic.clone(), false, Answer::json(400, &error)),
        (of_openai.clone(), true, sse(&chunk).field("x-echo", KEY)),
        (of_openai.clone(), true, sse(&error)),
        (of_openai, true, sse(&format!("no JSON, {KEY}"))),
        (of_anthropic.clone(), true, sse(&delta)),
        (of_anthropic, true, sse(&failed)),
        (of_ollama.clone(), true, ndjson(&ollama)),
        (
            of_ollama,
            true,
            ndjson(&format!(r#"{{"error":"not {KEY}"}}"#)),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_repeats_its_key_tells_nobody() {
    let folder = tempfile::tempdir().unwrap();
    for (at, (kind, is_stream, answer)) in echoes().into_iter().enumerate() {
        let provider = Provider::start([answer]).await;
        let case = Case::new(service(kind.clone(), &provider));
        let log = folder.path().join(format!("{at}.log"));
        let sink = Sink::File(log.clone());
        let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            bootstrap.access_log = Some(access_log::Settings {
                sink,
                ..access_log::Settings::default()
            });
        })
        .await;
        let asked = match is_stream {
            true => CHAT.replacen('{', r#"{"stream":true,"#, 1),
            false => CHAT.to_owned(),
        };
        let response = case.chat(&asked).await;
        let logged = eventually("the call is logged", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            text.contains('\n').then_some(text)
        })
        .await;
        let fields: Vec<_> = response.headers.iter().collect();
        let seen = format!(
            "{fields:?} {} {logged} {}",
            response.text(),
            gateway.scrape()
        );
        assert!(!seen.contains(KEY), "{at} {kind:?}: {seen}");
        let is_told = seen.contains("you are ***") || !seen.contains("you are");
        assert!(is_told, "the rest of an answer stays: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_and_no_content_is_in_anything_that_can_be_read() {
    // The provider repeats what it was shown, as some do.
    let refusal = format!(
        r#"{{"error":{{"message":"Incorrect API key provided: {KEY}","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}}}"#
    );
    let provider = Provider::start([
        Answer::json(401, &refusal),
        Answer::json(200, r#"{"choices":[{"message":{"content":"the answer canary"},"finish_reason":"stop"}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#),
    ])
    .await;
    let mut service = service(AiProvider::OpenAi, &provider);
    let price = AiPrice {
        input: 2.5,
        cached_input: None,
        output: 10.0,
    };
    service.prices = BTreeMap::from([("m".to_owned(), price)]);
    let case = Case::new(service);
    let folder = std::env::temp_dir().join(format!("nantian-ai-keys-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("access.log");
    let log = path.clone();
    let admin_port = free_port();
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(log),
            ..access_log::Settings::default()
        });
        bootstrap.admin.address.set_port(admin_port);
    })
    .await;
    let refused = case.chat(CHAT).await;
    assert_eq!(refused.status, 401);
    assert_eq!(case.chat(CHAT).await.status, 200);
    let mut seen = refused.text() + &gateway.scrape();
    for path in ADMIN {
        let answer = dataplane_testkit::client::http1::get(at(admin_port), "x", path)
            .await
            .unwrap();
        seen += &answer.text();
    }
    let logged = eventually("the calls are logged", || {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        (text.lines().count() == 2).then_some(text)
    })
    .await;
    let _ = std::fs::remove_dir_all(&folder);
    seen += &logged;
    for canary in [
        KEY,
        "0123456789abcdef",
        "of-the-client",
        "content canary",
        "answer canary",
    ] {
        assert!(!seen.contains(canary), "{canary}");
    }
    let line = |status: u16| {
        let mut lines = logged
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.find(|line| line["status"] == status).unwrap()
    };
    assert_eq!(line(401)["gen_ai_error"], "provider_credentials");
    let line = line(200);
    for (name, value) in [
        ("gen_ai_operation", "chat"),
        ("gen_ai_provider", "openai"),
        ("gen_ai_request_model", "m"),
        ("gen_ai_response_model", "m"),
        ("gen_ai_finish_reason", "stop"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!(line["gen_ai_input_tokens"], 1);
    assert_eq!(line["gen_ai_output_tokens"], 1);
    assert_eq!(line["gen_ai_cost"], 0.000_012_5);
    tokio::time::timeout(Duration::from_secs(20), gateway.stopped())
        .await
        .unwrap();
}
