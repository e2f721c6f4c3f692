//! Plugins at an AI service: they see its answers, whole or in pieces.

use crate::binary::Binary;
use crate::plugins::{MARKS, module, plugin};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn answers_pass_the_plugins_that_the_call_met() {
    let (whole, piece) = (r#"{"choices":[]}"#, "data: {\"choices\":[]}\n\n");
    let answers = [
        Answer::json(200, whole),
        Answer::stream(
            "text/event-stream",
            &format!("{piece}data: [DONE]\n\n"),
            4096,
        ),
        Answer::json(400, r#"{"error":{"message":"no"}}"#),
    ];
    let provider = Provider::start(answers).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    let marks = plugin("shop/p", module(MARKS));
    case.cluster.plugins = [marks.key.clone()].into();
    let mut snapshot = case.snapshot("v1");
    snapshot.wasm_plugins.insert(marks);
    let _gateway = Gateway::serving(&snapshot).await;
    for (stream, status) in [(false, 200), (true, 200), (false, 400)] {
        let ask = format!(
            r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let answer = case.chat(&ask).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-seen"), "1");
        let told = answer.text().to_string();
        assert!(told.starts_with('~'), "{told}");
        let marked = told.matches('~').count();
        assert_eq!(told.contains("~data: [DONE]"), stream, "{told}");
        assert!(marked == 1 || stream, "{told}");
    }
}

/// Says in the log what it sees: the properties `request.headers` and `response.headers`, and bodies.
const TELLS: &str = r#"
    (data (i32.const 0) "request\00headers")
    (data (i32.const 32) "response\00headers")
    (func $tell
      (drop (call $log (i32.const 3) (i32.load (i32.const 1000)) (i32.load (i32.const 1004)))))
    (func $told (param i32 i32)
      (if (i32.eqz (call $property (local.get 0) (local.get 1) (i32.const 1000) (i32.const 1004)))
        (then (call $tell))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $told (i32.const 0) (i32.const 15)) (i32.const 0))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (call $told (i32.const 0) (i32.const 15)) (call $told (i32.const 32) (i32.const 16)) (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (if (i32.eqz (call $get_buffer (i32.const 1) (i32.const 0) (local.get 1) (i32.const 1000) (i32.const 1004)))
        (then (call $tell)))
      (i32.const 0))"#;

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_shown_no_key_of_a_provider() {
    // A provider that repeats its key wherever it can.
    let whole = format!(r#"{{"choices":[],"x":"seen-by-plugin {KEY}"}}"#);
    let piece =
        format!("data: {{\"choices\":[],\"x\":\"seen-by-plugin {KEY}\"}}\n\ndata: [DONE]\n\n");
    let refused = format!(r#"{{"error":{{"message":"seen-by-plugin {KEY}"}}}}"#);
    let answers = [
        Answer::json(200, &whole),
        Answer::stream("text/event-stream", &piece, 4096),
        Answer::json(400, &refused),
    ];
    let answers = answers.map(|it| {
        it.field("x-echo", &format!("Bearer {KEY}"))
            .field("x-kept", "kept-field")
    });
    let provider = Provider::start(answers).await;
    let mut case = Case::new(service(AiProvider::OpenAi, &provider));
    let tells = plugin("shop/p", module(TELLS));
    case.cluster.plugins = [tells.key.clone()].into();
    let mut snapshot = case.snapshot("v1");
    snapshot.wasm_plugins.insert(tells);
    let (binary, _control_plane) =
        Binary::serving(&snapshot, &[], "log: {level: debug, format: text}").await;
    for stream in [false, true, false] {
        let ask = format!(
            r#"{{"model":"m","stream":{stream},"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let told = case.chat(&ask).await.text();
        assert!(told.contains("seen-by-plugin ***"), "{told}");
    }
    assert_eq!(
        provider.asked()[0].field("authorization"),
        Some(&*format!("Bearer {KEY}"))
    );
    let said = binary.said();
    for seen in ["x-kept", "kept-field", "of-the-client"] {
        assert!(said.contains(seen), "{seen} is not in {said}");
    }
    assert_eq!(said.matches("seen-by-plugin ***").count(), 3, "{said}");
    assert!(!said.contains(KEY), "{said}");
}
