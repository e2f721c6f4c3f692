//! Plugins of the earlier data plane's interface: what they were written for holds, and no more.

use bytes::Bytes;
use dataplane_wasm::head::Head;
use dataplane_wasm::settings::{Hooks, OnFailure};
use dataplane_wasm::{Direction, Failed, Piece, Verdict};

use crate::support::{Bench, map, request, run};

use Direction::{Request, Response};

/// Imports from both places where they may stand, memory, and an allocator that never frees.
const PRELUDE: &str = r#"
    (import "nantian" "nantian_log" (func $log (param i32 i32 i32)))
    (import "env" "nantian_get_header" (func $get (param i32 i32) (result i64)))
    (import "nantian" "nantian_set_header" (func $set (param i32 i32 i32 i32)))
    (memory (export "memory") 2)
    (global $free (mut i32) (i32.const 65000))
    (func (export "alloc") (param $size i32) (result i32) (local $at i32)
      (local.set $at (global.get $free))
      (if (i32.gt_u (i32.add (local.get $at) (local.get $size)) (i32.const 65600))
        (then (return (i32.const -1))))
      (global.set $free (i32.add (local.get $at) (local.get $size)))
      (local.get $at))
    (func (export "dealloc") (param i32 i32))
    (data (i32.const 0) "x-key") (data (i32.const 16) "x-out") (data (i32.const 32) "seen")
"#;

fn bench(functions: &str) -> Bench {
    Bench::of(&format!("(module {PRELUDE} {functions})"), |_| ())
}

/// The answer to a head that the plugin gives itself.
fn status(verdict: Result<Verdict, Failed>) -> Option<u16> {
    match verdict.unwrap() {
        Verdict::Continue => None,
        Verdict::Respond(local) => Some(local.status),
    }
}

#[test]
fn a_number_refuses_with_that_status_and_nothing_goes_on() {
    for (number, expected) in [
        (0, None),
        (401, Some(401)),
        (503, Some(503)),
        (7, Some(500)),
        (-1, Some(500)),
    ] {
        let bench = bench(&format!(
            r#"(func (export "on_request") (result i32) (i32.const {number}))
            (func (export "on_response") (result i32) (i32.const {number}))
            (func (export "on_stream_chunk") (result i32) (i32.const {number}))"#
        ));
        run(async {
            let stream = bench.stream();
            for direction in [Request, Response] {
                let said = stream.head(direction, &mut request(&[]), false).await;
                assert_eq!(status(said), expected, "{number}");
            }
            let piece = stream.body(Response, Bytes::from("a"), false).await;
            match piece.unwrap() {
                Piece::Pass(body) => assert_eq!((&body[..], expected), (&b"a"[..], None)),
                Piece::Respond(local) => assert_eq!(Some(local.status), expected),
                Piece::Held => panic!("it was held back"),
            }
            assert!(!stream.wants_body(Request));
        });
    }
}

#[test]
fn fields_of_the_request_are_read_and_those_of_the_response_are_set() {
    // From both hooks: the value of x-key goes into x-out.
    let copies = r#"(func $copy (result i32) (local $value i64)
        (local.set $value (call $get (i32.const 0) (i32.const 5)))
        (if (i64.eqz (local.get $value)) (then (return (i32.const 401))))
        (call $set (i32.const 16) (i32.const 5)
          (i32.wrap_i64 (i64.shr_u (local.get $value) (i64.const 32))) (i32.wrap_i64 (local.get $value)))
        (call $log (i32.const 9) (i32.const 32) (i32.const 4))
        (i32.const 0))"#;
    for hook in ["on_request", "on_response"] {
        let functions = format!(r#"{copies} (func (export "{hook}") (result i32) (call $copy))"#);
        let bench = bench(&functions);
        run(async {
            // So often that an allocator that never frees would have no room left.
            for _ in 0..100 {
                let stream = bench.stream();
                let mut head = request(&[("x-key", "a-value")]);
                let said = stream.head(Request, &mut head, true).await;
                assert_eq!(status(said), None);
                assert_eq!(
                    head.fields,
                    map(&[("x-key", "a-value")]),
                    "the request stays as it is"
                );
                stream.sent(Request, &std::rc::Rc::new(head));
                let mut head = Head::of(map(&[("x-out", "theirs")]));
                let said = stream.head(Response, &mut head, true).await;
                assert_eq!(status(said), None);
                assert_eq!(head.fields, map(&[("x-out", "a-value")]), "{hook}");
            }
        });
        let failures = r#"plugin_failures_total{plugin="shop/p",kind="trap"}"#;
        assert_eq!(bench.sample(failures).unwrap(), "0");
    }
}

#[test]
fn hooks_that_are_not_asked_for_are_not_called() {
    let functions = r#"(func (export "on_request") (result i32)
          (call $set (i32.const 16) (i32.const 5) (i32.const 32) (i32.const 4)) (i32.const 0))
        (func (export "on_response") (result i32) unreachable)
        (func (export "on_stream_chunk") (result i32) unreachable)"#;
    let bench = Bench::of(&format!("(module {PRELUDE} {functions})"), |settings| {
        settings.hooks = Hooks {
            response_head: false,
            response_body: false,
            ..Hooks::ALL
        };
    });
    run(async {
        let stream = bench.stream();
        assert_eq!(
            status(stream.head(Request, &mut request(&[]), true).await),
            None
        );
        let mut head = Head::default();
        assert_eq!(status(stream.head(Response, &mut head, false).await), None);
        assert_eq!(head.fields, map(&[("x-out", "seen")]));
        assert!(!stream.wants_body(Response));
    });
}

#[test]
fn pointers_that_are_none_and_fields_that_must_not_be_set_do_nothing() {
    let far = ["-1", "131071", "2147483647", "-2147483648"];
    for (at, length) in far
        .into_iter()
        .flat_map(|at| far.map(|length| (at, length)))
    {
        let pair = format!("(i32.const {at}) (i32.const {length})");
        let functions = format!(
            r#"(data (i32.const 100) "transfer-encoding")
            (func $all (result i32)
              (call $log (i32.const -1) {pair})
              (if (i64.ne (call $get {pair}) (i64.const 0)) (then unreachable))
              (call $set {pair} {pair})
              (call $set (i32.const 16) (i32.const 5) {pair})
              (call $set {pair} (i32.const 16) (i32.const 5))
              (call $set (i32.const 100) (i32.const 17) (i32.const 16) (i32.const 5))
              (i32.const 0))
            (func (export "on_request") (result i32) (call $all))
            (func (export "on_response") (result i32) (call $all))
            (func (export "on_stream_chunk") (result i32) (call $all))"#
        );
        let bench = bench(&functions);
        run(async {
            let stream = bench.stream();
            assert_eq!(
                status(stream.head(Request, &mut request(&[]), false).await),
                None
            );
            let mut head = Head::default();
            assert_eq!(status(stream.head(Response, &mut head, false).await), None);
            assert!(head.fields.is_empty(), "{at} {length}");
            let piece = stream.body(Response, Bytes::from("a"), true).await;
            assert!(matches!(piece, Ok(Piece::Pass(_))));
        });
    }
}

#[test]
fn room_that_is_none_gives_no_value_and_faults_are_contained() {
    let asks = r#"(func (export "on_request") (result i32)
        (if (i64.ne (call $get (i32.const 0) (i32.const 5)) (i64.const 0)) (then (return (i32.const 500))))
        (i32.const 0))"#;
    let imports = r#"(import "nantian" "nantian_get_header" (func $get (param i32 i32) (result i64)))
        (memory (export "memory") 1) (data (i32.const 0) "x-key")"#;
    for (alloc, expected) in [
        ("(i32.const -1)", Ok(())),
        ("(i32.const 65534)", Ok(())),
        ("unreachable", Err(Failed::Trapped)),
        ("(loop $l (br $l)) unreachable", Err(Failed::Trapped)),
    ] {
        let module = format!(
            r#"(module {imports} (func (export "alloc") (param i32) (result i32) {alloc}) {asks})"#
        );
        let bench = Bench::of(&module, |settings| {
            settings.limits.call_time = std::time::Duration::from_millis(20);
            settings.on_failure = OnFailure::Closed;
        });
        run(async {
            let mut head = request(&[("x-key", "a-value")]);
            let said = bench.stream().head(Request, &mut head, true).await;
            assert_eq!(
                said.map(|verdict| assert!(matches!(verdict, Verdict::Continue))),
                expected,
                "{alloc}"
            );
        });
    }
}
