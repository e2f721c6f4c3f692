//! Providers that break the rules: each answer is an error or an answer, and the next call is served.

use std::time::Duration;

use dataplane_testkit::within;

use super::*;

const ASK: &str = r#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
const GOOD: &str = r#"{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;
/// What gzip makes of two bytes.
const GZIP: [u8; 22] = [
    0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xab, 0xae, 5, 0, 0x43, 0xbf, 0xa6, 0xa3, 2, 0, 0, 0,
];

fn bytes(kind: &str, body: &[u8]) -> Answer {
    Answer::stream(kind, "", 1).then_bytes(body)
}

fn json_of(body: &[u8]) -> Answer {
    bytes("application/json", body)
}

fn sse_of(body: &[u8]) -> Answer {
    bytes("text/event-stream", body)
}

/// Whole answers that make no sense.
fn nonsense() -> Vec<(&'static str, Answer)> {
    let deep = format!("{}{}", "[".repeat(200_000), "]".repeat(200_000));
    vec![
        ("gzip", json_of(&GZIP).field("content-encoding", "gzip")),
        (
            "no text",
            json_of(b"{\"choices\":[{\"message\":{\"content\":\"\xff\xfe\"}}]}"),
        ),
        ("half an object", json_of(b"{\"choices\":[{\"message\":")),
        ("too deep", json_of(deep.as_bytes())),
        ("a list", json_of(b"[]")),
        ("zeros", json_of(&[0; 1000])),
        ("a page", bytes("text/html", b"<html>oops</html>")),
        ("cut", json_of(b"{\"choices\":[{\"mess").cut()),
        ("nothing", json_of(b"").cut()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_without_sense_is_502_and_the_next_call_is_served() {
    for kind in [
        AiProvider::OpenAi,
        AiProvider::Anthropic,
        AiProvider::Ollama,
    ] {
        for (name, answer) in nonsense() {
            let provider = Provider::start([answer]).await;
            let mut own = service(kind.clone(), &provider);
            let good = Provider::start([Answer::json(200, GOOD)]).await;
            let case = Case::new(own.clone());
            let gateway = case.serve().await;
            let response = within(name, case.chat(ASK)).await;
            assert_eq!(response.status, 502, "{name} {kind:?}: {}", response.text());
            assert!(response.json()["error"]["message"].is_string(), "{name}");
            drop(gateway);
            // With another provider beside it nobody notices.
            own.providers = vec![fallback(AiProvider::OpenAi, &good, "m")];
            let case = Case::new(own);
            let _gateway = case.serve().await;
            assert_eq!(case.chat(ASK).await.status, 200, "{name} {kind:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_sense_ends_in_an_error_and_nothing_is_held() {
    let ask = ASK.replacen('{', r#"{"stream":true,"#, 1);
    let endless = Answer::stream("text/event-stream", &"x".repeat(5_000_000), 100_000);
    let comments = sse_of(&b": still here\n\n".repeat(10_000)).cut();
    let deep = format!("data: {}\n\n", "[".repeat(100_000));
    let calls: String = (0..5000)
        .map(|at| {
            format!(
                "data: {{\"choices\":[{{\"delta\":{{\"tool_calls\":[{{\"index\":{at},\"id\":\"c\",\"function\":{{\"name\":\"f\"}}}}]}}}}]}}\n\n"
            )
        })
        .collect();
    for (name, answer) in [
        ("gzip", sse_of(&GZIP).field("content-encoding", "gzip")),
        ("a line without end", endless),
        ("comments alone", comments),
        ("no text", sse_of(b"data: \xff\xfe\n\n")),
        ("zeros", sse_of(&[0; 1000])),
        ("too deep", sse_of(deep.as_bytes())),
        ("calls without end", sse_of(calls.as_bytes()).cut()),
        ("half a frame", sse_of(b"data: {\"choices\":[{\"de").cut()),
        (
            "half a character",
            sse_of(b"data: {\"choices\":[{\"delta\":{\"content\":\"\xf0\x9f").cut(),
        ),
    ] {
        let provider = Provider::start([answer]).await;
        for path in ["/v1/chat/completions", "/v1/messages"] {
            let case = Case::new(service(AiProvider::OpenAi, &provider));
            let _gateway = case.serve().await;
            let response = within(name, case.post(path, &ask)).await;
            let text = response.text();
            assert!(
                response.status == 502 || text.contains("\"error\""),
                "{name} {path}: {text:.300}"
            );
            assert!(
                !text.contains("[DONE]") && !text.contains("message_stop"),
                "{name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_three_megabytes_is_passed_on_piece_by_piece() {
    let piece = "a".repeat(30_000);
    let delta = |members: &str| {
        format!(
            "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"input_json_delta\",\"partial_json\":\"{members}\"}}}}\n\n"
        )
    };
    let start = "event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{}}}\n\n";
    let end = "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"tool_use\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    let mut body = format!("{start}{}", delta("{\\\"a\\\":\\\""));
    for _ in 0..100 {
        body += &delta(&piece);
    }
    body += &delta("\\\"}");
    body += end;
    let provider = Provider::start([Answer::stream("text/event-stream", &body, 4093)]).await;
    let case = Case::new(service(AiProvider::Anthropic, &provider));
    let _gateway = case.serve().await;
    let ask = ASK.replacen('{', r#"{"stream":true,"#, 1);
    let text = within("the call", case.chat(&ask)).await.text();
    let frames = streams::frames(&text);
    let arguments: String = frames
        .iter()
        .filter(|frame| *frame != "[DONE]")
        .filter_map(|frame| {
            let chunk: serde_json::Value = serde_json::from_str(frame).unwrap();
            let call = &chunk["choices"][0]["delta"]["tool_calls"][0];
            Some(call["function"]["arguments"].as_str()?.to_owned())
        })
        .collect();
    assert_eq!(arguments.len(), 3_000_008);
    assert!(serde_json::from_str::<serde_json::Value>(&arguments).is_ok());
    assert_eq!(frames.last().unwrap(), "[DONE]");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_callers_have_budgets_of_their_own() {
    let provider = Provider::start([Answer::json(200, GOOD)]).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    case.cluster.token_policy = Some(Arc::new(ir::ai::TokenPolicy {
        tokens_per_minute: None,
        tokens_per_hour: None,
        requests_per_minute: std::num::NonZeroU64::new(1),
        scope: ir::ai::TokenScope::Header("x-team".to_owned()),
        burst: 1.0,
        on_limit: ir::ai::OnLimit::Reject,
        degrade_to: None,
        is_dry_run: false,
    }));
    let _gateway = case.serve().await;
    let mut client = case.connect().await;
    let mut ask = async |team: usize| {
        let mut request = post("/v1/chat/completions", ASK);
        let name = format!("team-{team}").parse().unwrap();
        request.headers_mut().insert("x-team", name);
        let asking = tokio::time::timeout(Duration::from_secs(20), client.send(request));
        asking.await.unwrap().unwrap().status.as_u16()
    };
    for team in 0..10_000 {
        assert_eq!(ask(team).await, 200, "{team}");
    }
    for team in [0, 1, 5000, 9999] {
        assert_eq!(ask(team).await, 429, "{team}");
    }
}
