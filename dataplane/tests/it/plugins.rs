//! Plugins seen from outside: what client and backend get when modules stand in the way of a request.
//!
//! The modules are text; those that SDKs build are tested where the examples are.

mod calls;
mod grpc;
mod modules;
mod replies;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::{self, free_port};
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until};
use http::Request;
use ir::cluster::ClusterProtocol;
use ir::listener::ListenerProtocol;
use ir::wasm::{WasmFailure, WasmNetwork, WasmSource};
use ir::{Snapshot, WasmPlugin};
use tokio::time::timeout;

use crate::support::{Gateway, at, http_route};

pub(crate) use replies::MARKS;

/// A module of these functions; `$add` and `$replace` change the map of that number.
pub(crate) fn module(functions: &str) -> Bytes {
    let text = format!(
        r#"(module
        (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_remove_header_map_value" (func $remove (param i32 i32 i32) (result i32)))
        (import "env" "proxy_set_buffer_bytes" (func $set_buffer (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $get_buffer (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_send_local_response" (func $reply (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_call" (func $unary (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_set_effective_context" (func $effective (param i32) (result i32)))
        (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
        (memory (export "memory") 2)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
        {functions})"#
    );
    text.into()
}

pub(crate) fn plugin(key: &str, module: Bytes) -> WasmPlugin {
    WasmPlugin::new(key, WasmSource::Inline(module))
}

/// What the plugin of that key adds to requests: `x-order: <letter>`.
fn adds(letter: char) -> Bytes {
    module(&format!(
        r#"(data (i32.const 0) "x-order{letter}")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $add (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 1)))"#
    ))
}

/// Where plugins stand: on the listener, on the rule, on the cluster.
#[derive(Default)]
struct At {
    listener: Vec<WasmPlugin>,
    rule: Vec<WasmPlugin>,
    cluster: Vec<WasmPlugin>,
}

/// A listener with `/` to one backend and `/other` to another.
fn snapshot(port: u16, at: At, backends: [&Backend; 2]) -> Snapshot {
    let keys = |plugins: &[WasmPlugin]| plugins.iter().map(|it| it.key.clone()).collect();
    let mut listener = snapshot::listener("infra/gw/http", port, ListenerProtocol::Http);
    listener.plugins = keys(&at.listener);
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].plugins = keys(&at.rule);
    let other = http_route("shop/other", "", "/other", &[("shop/other:80", 1)]);
    let mut cluster =
        snapshot::cluster("shop/b:80", ClusterProtocol::Http, &[backends[0].address()]);
    cluster.plugins = keys(&at.cluster);
    let mut built = SnapshotBuilder::new("v1")
        .listener(listener)
        .http_route(route)
        .http_route(other)
        .add_cluster(cluster)
        .cluster("shop/other:80", &[backends[1].address()])
        .build();
    for plugin in [at.listener, at.rule, at.cluster].into_iter().flatten() {
        built.wasm_plugins.insert(plugin);
    }
    built
}

struct Setting {
    gateway: Gateway,
    port: u16,
    backends: [Backend; 2],
}

async fn serving(at: At) -> Setting {
    serving_with(at, |_| ()).await
}

async fn serving_with(at: At, change: impl FnOnce(&mut Bootstrap)) -> Setting {
    let backends = [Backend::http1("b").await, Backend::http1("other").await];
    let port = free_port();
    let snapshot = snapshot(port, at, [&backends[0], &backends[1]]);
    let gateway = Gateway::with(&snapshot, change).await;
    Setting {
        gateway,
        port,
        backends,
    }
}

/// The same request over HTTP/1.1 and over HTTP/2; both answers.
async fn both(port: u16, path: &str, body: &'static str) -> [Response; 2] {
    let request = |uri: &str| {
        let request = Request::post(uri).header("x-user", "ann");
        request.body(Bytes::from(body)).unwrap()
    };
    let mut first = request(path);
    first
        .headers_mut()
        .insert("host", "a.test".parse().unwrap());
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let first = client.send(first).await.unwrap();
    let client = Http2Client::connect(at(port)).await.unwrap();
    let second = client.send(request(&format!("http://a.test{path}"))).await;
    [first, second.unwrap()]
}

#[tokio::test]
async fn a_listeners_plugin_decides_the_route() {
    let to_other = module(
        r#"(data (i32.const 0) ":path" "/x/../other?q=1")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $replace (i32.const 0) (i32.const 0) (i32.const 5) (i32.const 5) (i32.const 15)))"#,
    );
    let at = At {
        listener: vec![plugin("infra/p", to_other)],
        ..At::default()
    };
    let setting = serving(at).await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["path"], "/other", "in its normal form");
    }
    assert_eq!(setting.backends.each_ref().map(Backend::requests), [0, 2]);
}

#[tokio::test]
async fn what_a_plugin_makes_of_status_and_method_leaves_no_response_open() {
    let status = module(
        r#"(data (i32.const 0) ":status203")
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (call $replace (i32.const 2) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 3)))"#,
    );
    let method = module(
        r#"(data (i32.const 0) ":methodHEAD")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $replace (i32.const 0) (i32.const 0) (i32.const 7) (i32.const 7) (i32.const 4)))"#,
    );
    for (changes, path, expected) in [
        (status.clone(), "/?status=204", 203),
        (status, "/?status=200", 203),
        (method, "/", 500),
    ] {
        let place = At {
            rule: vec![plugin("shop/p", changes)],
            ..At::default()
        };
        let setting = serving(place).await;
        let mut http1 = Http1Client::connect(at(setting.port)).await.unwrap();
        let http2 = Http2Client::connect(at(setting.port)).await.unwrap();
        for _ in 0..2 {
            // The second answer is found only where the first one ended.
            assert_eq!(http1.get("a.test", path).await.unwrap().status, expected);
            assert_eq!(http2.get("a.test", path).await.unwrap().status, expected);
        }
    }
}

#[tokio::test]
async fn plugins_of_the_earlier_data_plane_refuse_and_set_fields() {
    let earlier = r#"(module
        (import "nantian" "nantian_get_header" (func $get (param i32 i32) (result i64)))
        (import "nantian" "nantian_set_header" (func $set (param i32 i32 i32 i32)))
        (memory (export "memory") 1) (data (i32.const 0) "x-user" "x-seen")
        (func (export "alloc") (param i32) (result i32) (i32.const 100))
        (func (export "on_request") (result i32) (local $user i64)
          (local.set $user (call $get (i32.const 0) (i32.const 6)))
          (if (i64.eqz (local.get $user)) (then (return (i32.const 401))))
          (call $set (i32.const 6) (i32.const 6) (i32.const 100) (i32.wrap_i64 (local.get $user)))
          (i32.const 0)))"#;
    let at_rule = At {
        rule: vec![plugin("shop/p", Bytes::from_static(earlier.as_bytes()))],
        ..At::default()
    };
    let setting = serving(at_rule).await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-seen"), "ann");
    }
    let mut client = Http1Client::connect(at(setting.port)).await.unwrap();
    assert_eq!(client.get("a.test", "/").await.unwrap().status, 401);
}

#[tokio::test]
async fn plugins_are_met_by_place_phase_and_priority() {
    let mut late = plugin("shop/a", adds('2'));
    late.priority = 7;
    let mut stats = plugin("shop/z", adds('1'));
    stats.phase = ir::wasm::WasmPhase::Authz;
    let at = At {
        listener: vec![plugin("infra/l", adds('0'))],
        rule: vec![late, stats],
        cluster: vec![plugin("shop/c", adds('3'))],
    };
    let setting = serving(at).await;
    for answer in both(setting.port, "/", "").await {
        let expected = serde_json::json!(["0", "1", "2", "3"]);
        assert_eq!(answer.json()["headers"]["x-order"], expected);
    }
}

#[tokio::test]
async fn bodies_are_changed_both_ways() {
    let around = module(
        r#"(data (i32.const 0) "<>content-length")
        (func $head (param $map i32) (result i32)
          (drop (call $remove (local.get $map) (i32.const 2) (i32.const 14))) (i32.const 0))
        (func $body (param $buffer i32) (param $ends i32) (result i32)
          (if (i32.eqz (local.get $ends)) (then (return (i32.const 1))))
          (drop (call $set_buffer (local.get $buffer) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
          (drop (call $set_buffer (local.get $buffer) (i32.const 1000000) (i32.const 0) (i32.const 1) (i32.const 1)))
          (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $head (i32.const 0)))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $head (i32.const 2)))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $body (i32.const 0) (local.get 2)))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (call $body (i32.const 1) (local.get 2)))"#,
    );
    let at = At {
        rule: vec![plugin("shop/p", around)],
        ..At::default()
    };
    let setting = serving(at).await;
    for answer in both(setting.port, "/", "hello").await {
        let text = answer.text().to_string();
        let inner = text.strip_prefix('<').and_then(|it| it.strip_suffix('>'));
        let said: serde_json::Value = serde_json::from_str(inner.unwrap()).unwrap();
        assert_eq!(said["body_bytes"], "<hello>".len());
        assert!(said["headers"]["content-length"].is_null());
    }
}

#[tokio::test]
async fn heads_are_read_until_a_request_is_over() {
    let reads = module(
        r#"(data (i32.const 0) ":statusx-usercontent-lengthresponse\00coderesponse\00code_details")
        (func $value (param $map i32) (param $at i32) (param $len i32) (result i32)
          (call $get (local.get $map) (local.get $at) (local.get $len) (i32.const 100) (i32.const 104)))
        (func $ask (param $at i32) (param $len i32) (result i32)
          (call $property (local.get $at) (local.get $len) (i32.const 100) (i32.const 104)))
        (func $put
          (drop (call $set_buffer (i32.const 1) (i32.const 0) (i32.const 0) (i32.load (i32.const 100)) (i32.load (i32.const 104)))))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (drop (call $remove (i32.const 2) (i32.const 13) (i32.const 14))) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
          (if (local.get 1) (then
            (drop (call $value (i32.const 0) (i32.const 7) (i32.const 6))) (call $put)
            (drop (call $value (i32.const 2) (i32.const 0) (i32.const 7))) (call $put)))
          (i32.const 0))
        (func (export "proxy_on_log") (param i32)
          (if (i32.or
              (i32.or (call $value (i32.const 0) (i32.const 7) (i32.const 6)) (call $value (i32.const 2) (i32.const 0) (i32.const 7)))
              (i32.or (call $ask (i32.const 27) (i32.const 13)) (call $ask (i32.const 40) (i32.const 21))))
            (then unreachable)))"#,
    );
    let at_rule = At {
        rule: vec![plugin("shop/p", reads)],
        ..At::default()
    };
    let setting = serving(at_rule).await;
    for answer in both(setting.port, "/", "hello").await {
        assert!(answer.text().starts_with("200ann{"), "{}", answer.text());
    }
    // A head of which little is held once it was sent on.
    let mut client = Http1Client::connect(at(setting.port)).await.unwrap();
    let large = Request::get("/").header("host", "a.test");
    let large = large
        .header("x-fill", "v".repeat(6_000))
        .header("x-user", "bob");
    let large = large.body(Bytes::new()).unwrap();
    let answer = client.send(large).await.unwrap();
    assert!(answer.text().starts_with("200bob{"), "{}", answer.text());
    // Nobody can be reached: the gateway's own answer, which plugins see, too.
    let [backend, other] = setting.backends;
    drop((backend, other));
    for answer in both(setting.port, "/", "").await {
        let told = answer.text().to_string();
        assert!(told.starts_with("502ann"), "{told}");
    }
    let failures = setting.gateway.metric("plugin_failures_total", &[]);
    assert_eq!(failures, 0, "no call trapped");
}

#[tokio::test]
async fn the_end_is_told_with_trailers_sizes_flags_and_the_connection() {
    let logs = module(
        r#"(data (i32.const 0) "seenx-trailerconnection\00idresponse\00flagsrequest\00total_sizeresponse\00total_size")
        (global $connection (mut i64) (i64.const 0))
        (func $is (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (func $number (param $at i32) (param $len i32) (result i64)
          (call $is (i32.eqz (call $property (local.get $at) (local.get $len) (i32.const 100) (i32.const 104))))
          (call $is (i32.eq (i32.load (i32.const 104)) (i32.const 8)))
          (i64.load (i32.load (i32.const 100))))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (i32.eqz (call $define (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 200))))
        (func (export "proxy_on_log") (param i32) (local $id i64)
          (call $is (i32.eqz (call $get (i32.const 3) (i32.const 4) (i32.const 9) (i32.const 100) (i32.const 104))))
          (call $is (i64.eqz (call $number (i32.const 26) (i32.const 14))))
          (call $is (i64.gt_s (call $number (i32.const 40) (i32.const 18)) (i64.const 20)))
          (call $is (i64.gt_s (call $number (i32.const 58) (i32.const 19)) (i64.const 20)))
          ;; The same connection as before, if there was one.
          (local.set $id (call $number (i32.const 13) (i32.const 13)))
          (call $is (i64.ne (local.get $id) (i64.const 0)))
          (call $is (i32.or (i64.eqz (global.get $connection)) (i64.eq (local.get $id) (global.get $connection))))
          (global.set $connection (local.get $id))
          (drop (call $increment (i32.load (i32.const 200)) (i64.const 1))))"#,
    );
    let at_rule = At {
        rule: vec![plugin("shop/p", logs)],
        ..At::default()
    };
    // One connection is on one worker, and so in one instance.
    let setting = serving(at_rule).await;
    let client = Http2Client::connect(at(setting.port)).await.unwrap();
    for _ in 0..2 {
        let get = Request::get("http://a.test/?trailers").header("te", "trailers");
        let answer = client.send(get.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let seen = || setting.gateway.metric("plugin_custom_total", &["seen"]);
    until(DEADLINE, async || seen() == 2).await;
    let failures = setting.gateway.metric("plugin_failures_total", &[]);
    assert_eq!(failures, 0, "no call trapped");
}

/// As one does that asks another service about each part: the next may come only when this one arrived.
#[tokio::test]
async fn a_part_that_is_held_arrives_once_it_is_let_go() {
    let holds = module(
        r#"(global $held (mut i32) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
          (global.set $held (local.get 0)) (drop (call $tick (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (drop (call $tick (i32.const 0)))
          (drop (call $effective (global.get $held)))
          (drop (call $continue (i32.const 1))))"#,
    );
    let at_rule = At {
        rule: vec![plugin("shop/p", holds), plugin("shop/q", adds('q'))],
        ..At::default()
    };
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let steps = [
        Step::ReadHead,
        Step::Send(Bytes::from_static(head)),
        Step::Hold,
    ];
    let origin = Backend::start("slow", Kind::Scripted(Script::new(steps))).await;
    let port = free_port();
    let snapshot = snapshot(port, at_rule, [&origin, &origin]);
    let _gateway = Gateway::serving(&snapshot).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let get = Request::get("http://x.example.com/").body(()).unwrap();
    let mut exchange = client.open(get).await.unwrap();
    exchange.finish().unwrap();
    assert_eq!(exchange.head().await.unwrap().status, 200);
    let next = timeout(DEADLINE, exchange.next()).await;
    assert_eq!(next.unwrap().unwrap().unwrap(), "first");
}

#[tokio::test]
async fn a_plugin_answers_and_the_backend_hears_nothing() {
    let no = module(
        r#"(data (i32.const 0) "no" "\01\00\00\00\03\00\00\00\01\00\00\00x-a\001\00")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2)
            (i32.const 2) (i32.const 18) (i32.const -1)))
          (i32.const 1))"#,
    );
    let at = At {
        rule: vec![plugin("shop/p", no)],
        ..At::default()
    };
    let setting = serving(at).await;
    for answer in both(setting.port, "/", "").await {
        assert_eq!((answer.status.as_u16(), &*answer.text()), (403, "no"));
        assert_eq!(answer.header("x-a"), "1");
    }
    for answer in both(setting.port, "/other", "").await {
        assert_eq!(answer.status, 200, "a route without plugins");
    }
    assert_eq!(setting.backends[0].requests(), 0);
}

#[tokio::test]
async fn a_plugin_that_fails_closes_or_opens_its_routes_and_no_others() {
    let traps = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) unreachable)"#;
    let loops = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (loop $l (br $l)) unreachable)"#;
    let response = r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)"#;
    for (module, statuses) in [
        (module(traps), &[500, 503][..]),
        (module(loops), &[500, 503]),
        (module(response), &[500, 503]),
        (Bytes::from_static(b"\0asm, or not"), &[503]),
    ] {
        for on_failure in [WasmFailure::Closed, WasmFailure::Open] {
            let mut plugin = plugin("shop/p", module.clone());
            plugin.on_failure = on_failure;
            plugin.sandbox.execution_time_max = Some(Duration::from_millis(20));
            let at = At {
                rule: vec![plugin],
                ..At::default()
            };
            let setting = serving(at).await;
            for answer in both(setting.port, "/", "").await {
                let status = answer.status.as_u16();
                match on_failure {
                    WasmFailure::Closed => {
                        assert!(statuses.contains(&status), "{status}");
                        assert!(answer.text().contains("plugin_failed"), "{}", answer.text());
                    }
                    WasmFailure::Open => assert_eq!(status, 200),
                }
            }
            for answer in both(setting.port, "/other", "").await {
                assert_eq!(answer.status, 200);
            }
        }
    }
}

/// Asks `shop/other:80` for a path and answers with what comes, or with nothing.
fn asks_other(path: &str) -> Bytes {
    // A map of header fields: how many, the lengths of names and values, and then these.
    let fields = [(":method", "GET"), (":path", path), (":authority", "a")];
    let lengths = fields.map(|(name, value)| format!("{}{}", length(name), length(value)));
    let texts = fields.map(|(name, value)| format!("{name}\\00{value}\\00"));
    let texts_len: usize = fields
        .iter()
        .map(|(name, value)| name.len() + value.len() + 2)
        .sum();
    let map_len = 4 + 8 * fields.len() + texts_len;
    module(&format!(
        r#"(data (i32.const 0) "shop/other:80")
        (data (i32.const 100) "\03\00\00\00{lengths}{texts}")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $http (i32.const 0) (i32.const 13) (i32.const 100) (i32.const {map_len})
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 200))
            (then unreachable))
          (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $get_buffer (i32.const 4) (i32.const 0) (i32.const 100000) (i32.const 204) (i32.const 208)))
          (drop (call $reply (i32.const 203) (i32.const 0) (i32.const 0)
            (i32.load (i32.const 204)) (i32.load (i32.const 208)) (i32.const 0) (i32.const 0) (i32.const -1))))"#,
        lengths = lengths.concat(),
        texts = texts.concat(),
    ))
}

/// Four bytes in little endian, as text of a module has them.
fn length(text: &str) -> String {
    let bytes = u32::try_from(text.len()).unwrap().to_le_bytes();
    bytes.map(|byte| format!("\\{byte:02x}")).concat()
}

#[tokio::test]
async fn a_request_waits_for_what_its_plugin_asks_another_backend() {
    let asks = asks_other("/asked");
    for (network, status) in [(WasmNetwork::OwnNamespace, 203), (WasmNetwork::None, 500)] {
        let mut plugin = plugin("shop/p", asks.clone());
        plugin.sandbox.network = network;
        let at = At {
            rule: vec![plugin],
            ..At::default()
        };
        let setting = serving(at).await;
        let [answer, _] = both(setting.port, "/", "").await;
        assert_eq!(answer.status.as_u16(), status);
        if status == 203 {
            assert_eq!(answer.json()["path"], "/asked");
        }
    }
}

#[tokio::test]
async fn a_changed_plugin_is_in_effect_with_the_next_request() {
    let backends = [Backend::http1("b").await, Backend::http1("other").await];
    let port = free_port();
    let of = |letter: char, version: &str| {
        let at = At {
            rule: vec![plugin("shop/p", adds(letter))],
            ..At::default()
        };
        let mut made = snapshot(port, at, [&backends[0], &backends[1]]);
        made.version = ir::Version::new(version);
        made
    };
    let first = of('1', "v1");
    let gateway = Gateway::serving(&first).await;
    let mut before = first;
    for (letter, version) in [('2', "v2"), ('3', "v3")] {
        let next = of(letter, version);
        gateway.change(&before, &next).await;
        before = next;
        let [answer, _] = both(port, "/", "").await;
        let expected = serde_json::json!([letter.to_string()]);
        assert_eq!(answer.json()["headers"]["x-order"], expected);
    }
    let names: Vec<Arc<str>> = before
        .wasm_plugins
        .iter()
        .map(|it| it.key.clone())
        .collect();
    assert_eq!(names.len(), 1);
}
