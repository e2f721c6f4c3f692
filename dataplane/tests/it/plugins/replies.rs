//! Answers that no backend gave: plugins that saw the request see them too, once.

use bytes::Bytes;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use http::Request;
use ir::WasmPlugin;
use ir::wasm::WasmFailure;

use crate::support::at;

use super::{At, both, module, plugin, serving};

/// Adds `x-seen: 1` to heads of responses, and puts `~` before each piece of their bodies.
pub(crate) const MARKS: &str = r#"(data (i32.const 0) "x-seen1~") (data (i32.const 32) "content-length")
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
      (drop (call $remove (i32.const 2) (i32.const 32) (i32.const 14)))
      (call $add (i32.const 2) (i32.const 0) (i32.const 6) (i32.const 6) (i32.const 1)))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (if (local.get 1) (then
        (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 1)))))
      (i32.const 0))"#;

/// The same, and answers each request itself.
const ANSWERS: &str = r#"(data (i32.const 16) "no")
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 2)
        (i32.const 0) (i32.const 0) (i32.const -1)))
      (i32.const 1))"#;

fn listener(plugin: WasmPlugin) -> At {
    At {
        listener: vec![plugin],
        ..At::default()
    }
}

#[tokio::test]
async fn answers_of_the_gateway_are_shown_to_plugins() {
    let setting = serving(listener(plugin("infra/p", module(MARKS)))).await;
    let mut client = Http1Client::connect(at(setting.port)).await.unwrap();
    let missing = client.get("a.test", "/").await.unwrap();
    assert_eq!(missing.header("x-seen"), "1");
    assert!(missing.text().starts_with("~{"), "{}", missing.text());

    // Nobody can be reached.
    let [backend, other] = setting.backends;
    drop((backend, other));
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 502);
        assert_eq!(answer.header("x-seen"), "1");
        let told = answer.text().to_string();
        assert!(told.starts_with("~no connection to the backend"), "{told}");
        assert_eq!(answer.header("content-length"), told.len().to_string());
    }
}

#[tokio::test]
async fn heads_without_a_body_and_grpc_clients_are_answered_in_their_way() {
    let mut at_listener = listener(plugin("infra/p", module(&format!("{MARKS}{ANSWERS}"))));
    at_listener.rule = vec![plugin("shop/p", module(MARKS))];
    let setting = serving(at_listener).await;
    let client = Http2Client::connect(at(setting.port)).await.unwrap();
    let head = Request::head("http://a.test/").body(Bytes::new()).unwrap();
    let head = client.send(head).await.unwrap();
    assert_eq!((head.status.as_u16(), head.body.len()), (403, 0));
    assert_eq!(head.header("x-seen"), "1", "the rule's plugin was not met");
    let call = Request::post("http://a.test/s.S/M").header("content-type", "application/grpc");
    let call = client.send(call.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(call.status, 200);
    assert_eq!(call.header("grpc-status"), "7");
    assert_eq!(call.header("x-seen"), "1");
}

#[tokio::test]
async fn a_plugin_that_answers_sees_its_answer_once() {
    let setting = serving(listener(plugin(
        "infra/p",
        module(&format!("{MARKS}{ANSWERS}")),
    )))
    .await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!((answer.status.as_u16(), &*answer.text()), (403, "~no"));
        assert_eq!(answer.headers.get_all("x-seen").iter().count(), 1);
    }
    // One that answers instead of a response: what it says is not asked about again.
    let instead = r#"(data (i32.const 0) "x-seen1no")
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (drop (call $add (i32.const 2) (i32.const 0) (i32.const 6) (i32.const 6) (i32.const 1)))
          (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 2)
            (i32.const 0) (i32.const 0) (i32.const -1)))
          (i32.const 1))"#;
    let setting = serving(listener(plugin("infra/p", module(instead)))).await;
    for path in ["/", "/other"] {
        for answer in both(setting.port, path, "").await {
            assert_eq!((answer.status.as_u16(), &*answer.text()), (403, "no"));
            assert!(!answer.headers.contains_key("x-seen"));
        }
    }
}

#[tokio::test]
async fn a_plugin_that_fails_at_an_answer_closes_or_lets_it_pass() {
    let fails = format!(
        r#"{ANSWERS}(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)"#
    );
    for (on_failure, status) in [(WasmFailure::Closed, 500), (WasmFailure::Open, 403)] {
        let mut fails = plugin("infra/p", module(&fails));
        fails.on_failure = on_failure;
        let setting = serving(listener(fails)).await;
        let mut client = Http1Client::connect(at(setting.port)).await.unwrap();
        let answer = client.get("a.test", "/").await.unwrap();
        assert_eq!(answer.status, status);
    }
}
