//! Heads behind their own hooks: what a plugin can read of them until its request is over.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dataplane_wasm::facts::{Fact, Facts};
use dataplane_wasm::head::Head;
use dataplane_wasm::{Direction, Stream};

use crate::support::{Bench, map, request, run};

use Direction::{Request, Response};

/// How long something may take that takes milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);

/// Counts, as `seen`, the calls in which all is as it should be.
const LOOKS: &str = r#"
    (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
    (data (i32.const 0) "x-user" ":status" "seen" "response\00code" "request\00headers\00x-user"
      "response\00grpc_status" "grpc-status")
    (global $seen (mut i32) (i32.const 0))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (drop (call $define (i32.const 0) (i32.const 13) (i32.const 4) (i32.const 200)))
      (global.set $seen (i32.load (i32.const 200)))
      (i32.const 1))
    (func $value (param $map i32) (param $at i32) (param $len i32) (result i32)
      (call $get (local.get $map) (local.get $at) (local.get $len) (i32.const 100) (i32.const 104)))
    (func $is (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
    ;; There is such a map, or it is empty; never is it a fault to ask.
    (func $has (param $map i32) (param $is_there i32)
      (i32.store (i32.const 104) (i32.const 77))
      (call $is (i32.eqz (call $pairs (local.get $map) (i32.const 100) (i32.const 104))))
      (call $is (i32.eq (i32.ne (i32.load (i32.const 104)) (i32.const 0)) (local.get $is_there))))
    (func $request
      (call $is (i32.eqz (call $value (i32.const 0) (i32.const 0) (i32.const 6))))
      (call $is (i32.eq (i32.load (i32.const 104)) (i32.const 3)))
      (call $is (i32.eqz (call $property (i32.const 30) (i32.const 22) (i32.const 100) (i32.const 104))))
      (call $has (i32.const 0) (i32.const 1))
      (call $has (i32.const 1) (i32.const 0))
      (call $is (i32.eq (call $value (i32.const 1) (i32.const 0) (i32.const 6)) (i32.const 1)))
      (drop (call $increment (global.get $seen) (i64.const 1))))
    ;; What is written to a map that was sent on is taken, and read again.
    (func $sent (param $map i32)
      (call $is (i32.eqz (call $replace (local.get $map) (i32.const 13) (i32.const 4) (i32.const 0) (i32.const 6))))
      (call $is (i32.eqz (call $value (local.get $map) (i32.const 13) (i32.const 4))))
      (call $is (i32.eq (i32.load (i32.const 104)) (i32.const 6))))
    (func $response
      (call $request)
      (call $sent (i32.const 0))
      (call $sent (i32.const 2))
      (call $is (i32.eqz (call $value (i32.const 2) (i32.const 6) (i32.const 7))))
      (call $is (i32.eqz (call $property (i32.const 17) (i32.const 13) (i32.const 100) (i32.const 104))))
      (call $is (i64.eq (i64.load (i32.load (i32.const 100))) (i64.const 404))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $request) (call $has (i32.const 2) (i32.const 0)) (i32.const 0))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
      (call $request) (call $sent (i32.const 0)) (call $has (i32.const 2) (i32.const 0))
      ;; Nothing can be written to one that is not there.
      (call $is (i32.eq (call $add (i32.const 2) (i32.const 13) (i32.const 4) (i32.const 0) (i32.const 6)) (i32.const 1)))
      (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (call $response) (call $has (i32.const 3) (i32.const 0)) (i32.const 0))
    (func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
      (call $response) (call $has (i32.const 3) (i32.const 1)) (i32.const 0))
    (func $ends
      (call $response)
      (call $has (i32.const 3) (i32.const 1))
      (call $sent (i32.const 3))
      (call $is (i32.eqz (call $value (i32.const 3) (i32.const 72) (i32.const 11))))
      (call $is (i32.eqz (call $property (i32.const 52) (i32.const 20) (i32.const 100) (i32.const 104))))
      (call $is (i64.eq (i64.load (i32.load (i32.const 100))) (i64.const 5))))
    (func (export "proxy_on_done") (param i32) (result i32) (call $ends) (i32.const 1))
    (func (export "proxy_on_log") (param i32) (call $ends))
"#;

/// What all plugins of the request would share.
fn sent(stream: &Stream, direction: Direction, head: &Head) -> Rc<Head> {
    assert!(stream.rereads(direction));
    let shared = Rc::new(head.clone());
    stream.sent(direction, &shared);
    shared
}

#[test]
fn heads_are_read_in_every_later_hook_and_what_is_not_there_is_empty() {
    let bench = Bench::new(LOOKS);
    run(async {
        let stream = bench.stream();
        let mut head = request(&[("x-user", "ann")]);
        stream.head(Request, &mut head, false).await.unwrap();
        let first = sent(&stream, Request, &head);
        let body = || Bytes::from("b");
        stream.body(Request, body(), true).await.unwrap();
        let status = vec![(":status", Bytes::from_static(b"404"))];
        let mut head = Head::new(status, map(&[]));
        stream.head(Response, &mut head, false).await.unwrap();
        let second = sent(&stream, Response, &head);
        stream.body(Response, body(), false).await.unwrap();
        let mut trailers = Head::of(map(&[("grpc-status", "5")]));
        stream.trailers(Response, &mut trailers).await.unwrap();
        assert_eq!(trailers.fields, map(&[("grpc-status", "5")]));
        let trailers = Rc::new(trailers);
        stream.sent_trailers(&trailers);
        drop(stream);
        for shared in [first, second, trailers] {
            assert!(!shared.fields.contains_key("seen"), "others read it, too");
        }
    });
    let looked = r#"plugin_custom_total{plugin="shop/p",metric="seen"}"#;
    assert_eq!(bench.sample(looked).unwrap(), "6");
    let traps = r#"plugin_failures_total{plugin="shop/p",kind="trap"}"#;
    assert_eq!(bench.sample(traps).unwrap(), "0");
}

#[test]
fn heads_are_kept_for_those_alone_that_may_ask_again() {
    let head = |of: &str| {
        format!(
            r#"(func (export "proxy_on_{of}_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#
        )
    };
    let log = r#"(func (export "proxy_on_log") (param i32))"#;
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    for (functions, expected) in [
        (head("request"), [false, false]),
        (head("response"), [true, false]),
        (body.to_owned(), [true, true]),
        (log.to_owned(), [true, true]),
    ] {
        let bench = Bench::new(&functions);
        run(async {
            let stream = bench.stream();
            stream.head(Request, &mut request(&[]), true).await.unwrap();
            let rereads = [Request, Response].map(|it| stream.rereads(it));
            assert_eq!(rereads, expected, "{functions}");
        });
    }
}

/// Counts, as `seen`, the ends at which the trailers of the response are there.
const LOGS: &str = r#"
    (data (i32.const 0) "seen" "grpc-status")
    (global $seen (mut i32) (i32.const 0))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
      (drop (call $define (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 200)))
      (global.set $seen (i32.load (i32.const 200)))
      (i32.const 1))
    (func (export "proxy_on_log") (param i32)
      (if (call $get (i32.const 3) (i32.const 4) (i32.const 11) (i32.const 100) (i32.const 104)) (then unreachable))
      (drop (call $increment (global.get $seen) (i64.const 1))))
"#;

#[test]
fn trailers_are_read_in_the_end_without_a_hook_for_them() {
    let bench = Bench::new(LOGS);
    run(async {
        let stream = bench.stream();
        stream.head(Request, &mut request(&[]), true).await.unwrap();
        assert!(stream.sees_end() && !stream.wants_response());
        stream.sent_trailers(&Rc::new(Head::of(map(&[("grpc-status", "5")]))));
    });
    let looked = r#"plugin_custom_total{plugin="shop/p",metric="seen"}"#;
    assert_eq!(bench.sample(looked).unwrap(), "1");
}

#[test]
fn a_head_is_read_between_its_own_hook_and_its_way_out() {
    let seen = r#"plugin_custom_total{plugin="shop/p",metric="seen"}"#;
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "seen" "x-user")
        (global $seen (mut i32) (i32.const 0))
        (global $stream (mut i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $define (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 200)))
          (global.set $seen (i32.load (i32.const 200)))
          (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (global.set $stream (local.get 0))
          (drop (call $replace (i32.const 0) (i32.const 4) (i32.const 6) (i32.const 0) (i32.const 4)))
          (drop (call $tick (i32.const 1)))
          (i32.const 0))
        (func (export "proxy_on_tick") (param i32)
          (drop (call $effective (global.get $stream)))
          (if (call $get (i32.const 0) (i32.const 4) (i32.const 6) (i32.const 100) (i32.const 104)) (then unreachable))
          (if (i32.ne (i32.load (i32.const 104)) (i32.const 4)) (then unreachable))
          (drop (call $increment (global.get $seen) (i64.const 1)))
          (drop (call $tick (i32.const 0))))
        (func (export "proxy_on_log") (param i32))
        "#,
    );
    run(async {
        let stream = bench.stream();
        let mut head = request(&[("x-user", "ann")]);
        stream.head(Request, &mut head, true).await.unwrap();
        assert_eq!(head.fields, map(&[("x-user", "seen")]));
        let called = async {
            while bench.sample(seen).unwrap() == "0" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, called).await.unwrap();
    });
}

/// A body of 7 bytes each way.
struct Sizes;

impl Facts for Sizes {
    fn fact(&self, path: &[&str]) -> Option<Fact> {
        match path {
            ["request" | "response", "size"] => Some(Fact::Number(7)),
            _ => None,
        }
    }
}

#[test]
fn total_sizes_are_those_of_heads_bodies_and_trailers() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "request\00total_sizeresponse\00total_size")
        (func $is (param i32) (if (i32.eqz (local.get 0)) (then unreachable)))
        (func $total (param $at i32) (param $len i32) (result i64)
          (call $is (i32.eqz (call $property (local.get $at) (local.get $len) (i32.const 100) (i32.const 104))))
          (call $is (i32.eq (i32.load (i32.const 104)) (i32.const 8)))
          (i64.load (i32.load (i32.const 100))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $is (i64.eq (call $total (i32.const 0) (i32.const 18)) (i64.const 67)))
          ;; There is no response yet.
          (call $is (i32.eq (call $property (i32.const 18) (i32.const 19) (i32.const 100) (i32.const 104)) (i32.const 1)))
          (i32.const 0))
        (func (export "proxy_on_log") (param i32)
          (call $is (i64.eq (call $total (i32.const 18) (i32.const 19)) (i64.const 33))))
        "#,
    );
    run(async {
        let stream = Stream::new(&bench.instances, &bench.plugin, Rc::new(Sizes));
        let mut head = request(&[("x-user", "ann")]);
        stream.head(Request, &mut head, false).await.unwrap();
        let status = vec![(":status", Bytes::from_static(b"200"))];
        sent(&stream, Response, &Head::new(status, map(&[("a", "b")])));
        let trailers = Head::of(map(&[("grpc-status", "5"), ("x", "y")]));
        stream.sent_trailers(&Rc::new(trailers));
    });
    let traps = r#"plugin_failures_total{plugin="shop/p",kind="trap"}"#;
    assert_eq!(bench.sample(traps).unwrap(), "0");
    // Nobody knows how large the body is.
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "request\00total_size")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (i32.ne (call $property (i32.const 0) (i32.const 18) (i32.const 100) (i32.const 104)) (i32.const 1)) (then unreachable))
          (i32.const 0))
        "#,
    );
    run(async {
        let said = bench.stream().head(Request, &mut request(&[]), false).await;
        assert!(said.is_ok(), "{said:?}");
    });
}

#[test]
fn beside_streams_maps_are_empty() {
    let bench = Bench::new(
        r#"
        (import "env" "proxy_get_header_map_pairs" (func $pairs (param i32 i32 i32) (result i32)))
        (import "env" "proxy_get_header_map_size" (func $size (param i32 i32) (result i32)))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (local $map i32)
          (loop $next
            (if (call $pairs (local.get $map) (i32.const 100) (i32.const 104)) (then unreachable))
            (i32.store (i32.const 108) (i32.const 77))
            (if (call $size (local.get $map) (i32.const 108)) (then unreachable))
            (if (i32.or (i32.load (i32.const 104)) (i32.load (i32.const 108))) (then unreachable))
            (local.set $map (i32.add (local.get $map) (i32.const 1)))
            (br_if $next (i32.lt_u (local.get $map) (i32.const 8))))
          ;; There is no such map.
          (if (i32.ne (call $pairs (i32.const 8) (i32.const 100) (i32.const 104)) (i32.const 2)) (then unreachable))
          (i32.const 1))
        "#,
    );
    run(async {
        let said = bench.stream().head(Request, &mut request(&[]), true).await;
        assert!(said.is_ok(), "{said:?}");
    });
}
