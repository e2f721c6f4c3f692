//! What a broken or malicious plugin cannot do.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_wasm::head::Head;
use dataplane_wasm::settings::OnFailure;
use dataplane_wasm::{Direction, Failed, Piece, Plugins, Verdict};
use http::HeaderMap;
use proptest::prelude::*;

use crate::support::{Bench, map, request, run};

use Direction::{Request, Response};

/// A whole request and response; what came of them, and the longest step.
pub(crate) async fn exchange(bench: &Bench) -> (Vec<Result<(), Failed>>, Duration) {
    let stream = bench.stream();
    let mut longest = Duration::ZERO;
    let mut said = Vec::new();
    for direction in [Request, Response] {
        let began = Instant::now();
        let mut head = request(&[]);
        said.push(stream.head(direction, &mut head, false).await.map(drop));
        longest = longest.max(began.elapsed());
        let began = Instant::now();
        let body = stream.body(direction, Bytes::from("b"), false).await;
        said.push(body.map(drop));
        longest = longest.max(began.elapsed());
        let began = Instant::now();
        let mut trailers = Head::of(HeaderMap::new());
        said.push(stream.trailers(direction, &mut trailers).await.map(drop));
        longest = longest.max(began.elapsed());
    }
    (said, longest)
}

#[test]
fn a_loop_is_ended_within_its_limit() {
    let bench = Bench::with(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
             (loop $l (br $l)) unreachable)"#,
        |settings| settings.limits.call_time = Duration::from_millis(50),
    );
    let (said, longest) = run(exchange(&bench));
    assert!(said[0].is_err());
    assert!(longest >= Duration::from_millis(50), "{longest:?}");
    // Other tests run beside this one; the exact figure is the bench's.
    assert!(longest < Duration::from_millis(500), "{longest:?}");
}

#[test]
fn memory_stays_below_its_limit() {
    let grows = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
        (i32.store (i32.const 0) (memory.size))
        (drop (call $add (i32.const 0) (i32.const 8) (i32.const 1) (i32.const 8) (i32.const 1)))
        (if (i32.gt_u (memory.size) (i32.const 64)) (then unreachable))
        (i32.const 0))
        (data (i32.const 8) "x")"#;
    let bench = Bench::with(grows, |settings| {
        settings.limits.memory_bytes = 4 * 1024 * 1024
    });
    run(async {
        let mut head = request(&[]);
        bench.stream().head(Request, &mut head, true).await.unwrap();
        assert_eq!(
            head.fields,
            map(&[("x", "x")]),
            "it got nothing, and went on"
        );
    });
    let huge = r#"(module (memory (export "memory") 60000) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
    let bench = Bench::of(huge, |_| ());
    let (said, _) = run(exchange(&bench));
    assert_eq!(said[0], Err(Failed::Unavailable));
    let error = bench.plugin.condition().last_error;
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn a_table_stays_below_its_limit() {
    let huge = r#"(module (memory (export "memory") 1) (table 4000000000 funcref)
        (func (export "proxy_abi_version_0_2_1")))"#;
    let bench = Bench::of(huge, |_| ());
    let (said, _) = run(exchange(&bench));
    assert_eq!(said[0], Err(Failed::Unavailable));
}

#[test]
fn a_trap_costs_the_requests_of_its_instance_and_no_others() {
    let function = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (if (i32.gt_u (local.get 1) (i32.const 4)) (then unreachable)) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let bench = Bench::new(function);
    run(async {
        let bystander = bench.stream();
        bystander
            .head(Request, &mut request(&[]), true)
            .await
            .unwrap();
        let mut bad = request(&[("x-trap", "1")]);
        let said = bench.stream().head(Request, &mut bad, true).await;
        assert_eq!(said.unwrap_err(), Failed::Trapped);
        let said = bystander.head(Response, &mut request(&[]), true).await;
        assert_eq!(said.unwrap_err(), Failed::Trapped, "it lost its context");
        let said = bench.stream().head(Request, &mut request(&[]), true).await;
        assert!(
            matches!(said, Ok(Verdict::Continue)),
            "a new instance serves"
        );
    });
}

#[test]
fn a_plugin_that_keeps_failing_is_left_alone() {
    let function = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        unreachable)"#;
    let bench = Bench::new(function);
    let said = run(async {
        let mut said = Vec::new();
        let until = Instant::now() + Duration::from_secs(10);
        let one = async || {
            let stream = bench.stream();
            stream
                .head(Request, &mut request(&[]), true)
                .await
                .map(drop)
        };
        while !bench.plugin.condition().is_disabled && Instant::now() < until {
            said.push(one().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        said.push(one().await);
        said
    });
    let traps = said
        .iter()
        .filter(|it| **it == Err(Failed::Trapped))
        .count();
    assert_eq!(traps, 5);
    assert_eq!(said.last(), Some(&Err(Failed::Unavailable)));
    assert_eq!(
        bench.sample(r#"plugin_disabled{plugin="shop/p"}"#).unwrap(),
        "1"
    );
    assert!(bench.plugin.condition().last_error.contains("unreachable"));
}

#[test]
fn a_body_beyond_what_may_be_held_fails_or_passes_whole() {
    let function = r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (i32.const 1))"#;
    for on_failure in [OnFailure::Closed, OnFailure::Open] {
        let bench = Bench::with(function, |settings| {
            settings.limits.body_bytes = 10;
            settings.on_failure = on_failure;
        });
        run(async {
            let stream = bench.stream();
            let first = stream
                .body(Request, Bytes::from_static(b"12345678"), false)
                .await;
            assert!(matches!(first, Ok(Piece::Held)));
            match (
                stream
                    .body(Request, Bytes::from_static(b"abc"), false)
                    .await,
                on_failure,
            ) {
                (Err(Failed::TooLarge), OnFailure::Closed) => {}
                (Ok(Piece::Pass(all)), OnFailure::Open) => assert_eq!(all, "12345678abc"),
                (said, _) => panic!("{said:?}"),
            }
        });
    }
}

#[test]
fn random_bytes_are_no_module() {
    let plugins = Plugins::default();
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    let mut state = 7_u64;
    for _ in 0..200 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        bytes.push(state.to_le_bytes()[4]);
        assert!(plugins.module(&bytes, false).is_err());
    }
}

/// Host calls that end the instance whatever they are told.
const ENDING: [&str; 2] = ["abort", "proc_exit"];

/// A module that makes every host call there is, in hooks of each kind, with arguments that its
/// configuration says.
fn calls() -> String {
    let (mut imports, mut called) = (String::new(), String::new());
    let all = dataplane_wasm::imports().unwrap();
    let all = all.iter().filter(|it| !ENDING.contains(&&*it.name));
    for (at, import) in all.enumerate() {
        let parameters = import.parameters.join(" ");
        let result = import.result.as_ref();
        let result = result
            .map(|it| format!("(result {it})"))
            .unwrap_or_default();
        imports += &format!(
            r#"(import "{}" "{}" (func $c{at} (param {parameters}) {result}))"#,
            import.module, import.name
        );
        let argument = |(n, kind): (usize, &String)| {
            format!("({kind}.load (i32.const {}))", 1024 + (at + n) % 16 * 4)
        };
        let arguments: String = import.parameters.iter().enumerate().map(argument).collect();
        let call = format!("(call $c{at} {arguments})");
        called += &match result.is_empty() {
            true => call,
            false => format!("(drop {call})"),
        };
    }
    format!(
        r#"(module {imports}
        (import "env" "proxy_get_buffer_bytes" (func $config (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 2)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "malloc") (param i32) (result i32) (i32.load (i32.const 1200)))
        (func $all
          (i32.store (i32.const 1200) (i32.const 65536))
          (drop (call $config (i32.const 7) (i32.const 0) (i32.const 999) (i32.const 1000) (i32.const 1004)))
          (memory.copy (i32.const 1024) (i32.load (i32.const 1000)) (i32.const 80))
          {called})
        (func (export "proxy_on_configure") (param i32 i32) (result i32) (call $all) (i32.const 1))
        (func (export "proxy_on_tick") (param i32) (call $all))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
        (func (export "proxy_on_log") (param i32) (call $all)))"#
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Host calls with any arguments end with a status or a trap of the guest, never of the host.
    #[test]
    fn host_calls_take_any_arguments(
        arguments in proptest::collection::vec(
            prop_oneof![any::<u32>(), 0_u32..8, 900_u32..1300, 65_000_u32..140_000, Just(u32::MAX)], 20..=20
        ),
    ) {
        let config: Vec<u8> = arguments.iter().flat_map(|it| it.to_le_bytes()).collect();
        let bench = Bench::of(&calls(), |settings| {
            settings.config = config.into();
            settings.on_failure = OnFailure::Open;
            settings.limits.pause = Duration::from_millis(20);
        });
        let (said, _) = run(exchange(&bench));
        assert!(said.iter().all(|it| *it == Ok(())), "it fails open: {said:?}");
    }
}

#[test]
fn a_plugin_that_ends_itself_ends_its_instance_alone() {
    for (name, parameters, arguments) in [
        ("abort", "i32 i32 i32 i32", "(i32.const -1) ".repeat(4)),
        ("proc_exit", "i32", "(i32.const 3)".to_owned()),
    ] {
        let module = if name == "abort" {
            "env"
        } else {
            "wasi_snapshot_preview1"
        };
        let function = format!(
            r#"(import "{module}" "{name}" (func $end (param {parameters})))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (call $end {arguments}) (i32.const 0))"#
        );
        let bench = Bench::new(&function);
        let (said, _) = run(exchange(&bench));
        assert_eq!(said[0], Err(Failed::Trapped), "{name}");
    }
}

#[test]
fn without_a_network_or_files_a_plugin_has_none() {
    let function = r#"
        (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 0)
                (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 100))) (then unreachable))
          (if (i32.eqz (call $send (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
            (then unreachable))
          (i32.const 0))"#;
    let bench = Bench::new(function);
    let said = run(exchange(&bench)).0;
    assert_eq!(said[0], Ok(()));
}

#[test]
fn a_stream_too_many_is_counted_and_costs_the_instance_nothing() {
    let bench = Bench::new("");
    run(async {
        let open = async || {
            let stream = bench.stream();
            let said = stream.head(Request, &mut request(&[]), true).await;
            said.map(|_| stream)
        };
        let mut streams = Vec::new();
        for _ in 0..10_000 {
            streams.push(open().await.unwrap());
        }
        assert_eq!(open().await.unwrap_err(), Failed::Unavailable);
        streams.pop();
        assert!(open().await.is_ok());
    });
    let counted = r#"plugin_failures_total{plugin="shop/p",kind="unavailable"}"#;
    assert_eq!(bench.sample(counted).unwrap(), "1");
}
