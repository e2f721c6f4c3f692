//! Heads behind their own hooks: what a plugin can read of them until its request is over.

use std::rc::Rc;

use bytes::Bytes;
use dataplane_wasm::head::Head;
use dataplane_wasm::{Direction, Stream};

use crate::support::{Bench, map, request, run};

use Direction::{Request, Response};

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
    (func $sent (param $map i32)
      (call $is (i32.eq (call $add (local.get $map) (i32.const 0) (i32.const 6) (i32.const 0) (i32.const 6)) (i32.const 1))))
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
      (call $request) (call $sent (i32.const 0)) (call $has (i32.const 2) (i32.const 0)) (i32.const 0))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
      (call $response) (call $has (i32.const 3) (i32.const 0)) (i32.const 0))
    (func (export "proxy_on_response_trailers") (param i32 i32) (result i32)
      (call $response) (call $has (i32.const 3) (i32.const 1)) (i32.const 0))
    (func $ends
      (call $response)
      (call $has (i32.const 3) (i32.const 1))
      (call $is (i32.eqz (call $value (i32.const 3) (i32.const 72) (i32.const 11))))
      (call $is (i32.eqz (call $property (i32.const 52) (i32.const 20) (i32.const 100) (i32.const 104))))
      (call $is (i64.eq (i64.load (i32.load (i32.const 100))) (i64.const 5))))
    (func (export "proxy_on_done") (param i32) (result i32) (call $ends) (i32.const 1))
    (func (export "proxy_on_log") (param i32) (call $ends))
"#;

fn sent(stream: &Stream, direction: Direction, head: &Head) {
    assert!(stream.rereads(direction));
    stream.sent(direction, &Rc::new(head.clone()));
}

#[test]
fn heads_are_read_in_every_later_hook_and_what_is_not_there_is_empty() {
    let bench = Bench::new(LOOKS);
    run(async {
        let stream = bench.stream();
        let mut head = request(&[("x-user", "ann")]);
        stream.head(Request, &mut head, false).await.unwrap();
        sent(&stream, Request, &head);
        let body = || Bytes::from("b");
        stream.body(Request, body(), true).await.unwrap();
        let status = vec![(":status", Bytes::from_static(b"404"))];
        let mut head = Head::new(status, map(&[]));
        stream.head(Response, &mut head, false).await.unwrap();
        sent(&stream, Response, &head);
        stream.body(Response, body(), false).await.unwrap();
        let mut trailers = Head::of(map(&[("grpc-status", "5")]));
        stream.trailers(Response, &mut trailers).await.unwrap();
        assert_eq!(trailers.fields, map(&[("grpc-status", "5")]));
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
