//! Every function that the host calls in a guest, misbehaving: the list is held against the source, so that
//! none is forgotten.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dataplane_wasm::Instances;
use dataplane_wasm::callout::{
    Calling, Callout, GrpcCall, GrpcMessage, GrpcPart, GrpcRunning, HttpCall,
};
use dataplane_wasm::settings::{Network, OnFailure};
use tokio::sync::mpsc;

use crate::hostile::exchange;
use crate::support::{Bench, run};
use crate::{abi, grpc};

/// When a function is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// For each request, or before the first one: the request fails or goes on by the policy.
    Asked,
    /// Beside requests, or behind them: nobody waits for it.
    Beside,
}

use When::{Asked, Beside};

/// What makes the host call beside requests.
const TICK: &str = "(drop (call $tick (i32.const 10)))";
const QUEUE: &str = "(drop (call $register (i32.const 0) (i32.const 9) (i32.const 300)))
    (drop (call $enqueue (i32.load (i32.const 300)) (i32.const 0) (i32.const 9)))";
const HTTP: &str = "(drop (call $http (i32.const 0) (i32.const 9) (i32.const 100) (i32.const 61)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 300)))";
const GRPC: &str = "(drop (call $stream (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)
      (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 300)))
    (drop (call $send (i32.load (i32.const 300)) (i32.const 0) (i32.const 4) (i32.const 1)))";
/// What makes it give a value, for which it asks for room.
const VALUE: &str = "(drop (call $config (i32.const 7) (i32.const 0) (i32.const 9) (i32.const 300) (i32.const 304)))";

const THREE: &str = "(param i32 i32 i32) (result i32)";
const TWO: &str = "(param i32 i32) (result i32)";

/// Each function, its signature, what makes the host call it, and when.
const HOOKS: [(&str, &str, &str, When); 24] = [
    ("_initialize", "", "", Asked),
    ("_start", "", "", Asked),
    ("malloc", "(param i32) (result i32)", VALUE, Asked),
    (
        "proxy_on_memory_allocate",
        "(param i32) (result i32)",
        VALUE,
        Asked,
    ),
    ("proxy_on_context_create", "(param i32 i32)", "", Asked),
    ("proxy_on_vm_start", TWO, "", Asked),
    ("proxy_on_configure", TWO, "", Asked),
    ("proxy_on_request_headers", THREE, "", Asked),
    ("proxy_on_request_body", THREE, "", Asked),
    ("proxy_on_request_trailers", TWO, "", Asked),
    ("proxy_on_response_headers", THREE, "", Asked),
    ("proxy_on_response_body", THREE, "", Asked),
    ("proxy_on_response_trailers", TWO, "", Asked),
    ("proxy_on_done", "(param i32) (result i32)", "", Beside),
    ("proxy_on_log", "(param i32)", "", Beside),
    ("proxy_on_delete", "(param i32)", "", Beside),
    ("proxy_on_tick", "(param i32)", TICK, Beside),
    ("proxy_on_queue_ready", "(param i32 i32)", QUEUE, Beside),
    (
        "proxy_on_http_call_response",
        "(param i32 i32 i32 i32 i32)",
        HTTP,
        Beside,
    ),
    (
        "proxy_on_grpc_receive_initial_metadata",
        "(param i32 i32 i32)",
        GRPC,
        Beside,
    ),
    ("proxy_on_grpc_receive", "(param i32 i32 i32)", GRPC, Beside),
    (
        "proxy_on_grpc_receive_trailing_metadata",
        "(param i32 i32 i32)",
        CLOSED,
        Beside,
    ),
    ("proxy_on_grpc_close", "(param i32 i32 i32)", CLOSED, Beside),
    // The interface before proxy-wasm has its own tests.
    ("alloc", "", "", Beside),
];

/// A call whose end comes, too.
const CLOSED: &str = "(drop (call $stream (i32.const 0) (i32.const 9) (i32.const 0) (i32.const 4)
      (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 0) (i32.const 300)))
    (drop (call $close (i32.load (i32.const 300))))";

/// Carries calls of both kinds.
#[derive(Default)]
struct Both(abi::Echo, grpc::Echo);

impl Callout for Both {
    fn knows(&self, cluster: &str) -> bool {
        self.1.knows(cluster)
    }

    fn call(&self, call: HttpCall) -> Calling {
        self.0.call(call)
    }

    fn grpc(
        &self,
        call: GrpcCall,
        messages: mpsc::Receiver<GrpcMessage>,
        parts: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning {
        self.1.grpc(call, messages, parts)
    }
}

/// A module in which that function has that body, `$r`.
fn module(hook: &str, signature: &str, call: &str, body: &str) -> String {
    let begin = match hook {
        "proxy_on_configure" => String::new(),
        _ => format!(r#"(func (export "proxy_on_configure") {TWO} {call} (i32.const 1))"#),
    };
    format!(
        r#"(module
        (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
        (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
        (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
        (import "env" "proxy_http_call" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_stream" (func $stream (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_send" (func $send (param i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_grpc_close" (func $close (param i32) (result i32)))
        (import "env" "proxy_get_buffer_bytes" (func $config (param i32 i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "shop/a:80")
        (data (i32.const 100) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
        (func (export "proxy_abi_version_0_2_1"))
        (func $r (export "{hook}") {signature} {body})
        {begin})"#
    )
}

/// Each function does that: requests fail or go on by the policy, and it is counted.
fn in_every_hook(body: impl Fn(&str) -> String, kinds: &[&str]) {
    for (hook, signature, call, when) in HOOKS.into_iter().filter(|it| it.0 != "alloc") {
        for on_failure in [OnFailure::Closed, OnFailure::Open] {
            let text = module(hook, signature, call, &body(signature));
            let mut bench = Bench::of(&text, |settings| {
                settings.on_failure = on_failure;
                settings.config = "configured".into();
                settings.limits.call_time = Duration::from_millis(20);
                settings.network = Network::Clusters {
                    keys: ["shop/a:80".into()].into(),
                    prefixes: Vec::new(),
                };
            });
            bench.instances = Instances::new(Rc::new(Both::default()));
            let is_counted = || {
                kinds.iter().any(|kind| {
                    let name = format!(r#"plugin_failures_total{{plugin="shop/p",kind="{kind}"}}"#);
                    bench.sample(&name).unwrap() != "0"
                })
            };
            let said = run(async {
                let said = exchange(&bench).await.0;
                let end = Instant::now() + Duration::from_secs(10);
                while !is_counted() && Instant::now() < end {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                said
            });
            assert!(is_counted(), "{hook}");
            if when == Asked {
                let failed = said.iter().any(Result::is_err);
                assert_eq!(failed, on_failure == OnFailure::Closed, "{hook} {said:?}");
            }
        }
    }
}

#[test]
fn a_loop_in_any_hook_is_ended() {
    let body = |_: &str| "(loop $l (br $l)) unreachable".to_owned();
    in_every_hook(body, &["timeout", "start"]);
}

#[test]
fn a_trap_in_any_hook_is_contained() {
    in_every_hook(|_| "unreachable".to_owned(), &["trap", "start"]);
}

#[test]
fn recursion_without_end_is_contained_in_any_hook() {
    let body = |signature: &str| {
        let parameters = signature.split("(result").next().unwrap_or_default();
        let arguments = "(i32.const 0) ".repeat(parameters.matches("i32").count());
        format!("(call $r {arguments})")
    };
    in_every_hook(body, &["trap", "start"]);
}

#[test]
fn no_hook_is_left_out() {
    let sources = [
        include_str!("../../src/exports.rs"),
        include_str!("../../src/instance.rs"),
    ];
    // Exports are looked up by name, each in a call of `export` or a list of names.
    let quoted = sources
        .iter()
        .flat_map(|it| it.split('"').skip(1).step_by(2));
    let is_hook =
        |it: &&str| it.starts_with("proxy_on_") || it.starts_with('_') || it.ends_with("alloc");
    let called: BTreeSet<_> = quoted.filter(is_hook).collect();
    let tried: BTreeSet<_> = HOOKS.iter().map(|it| it.0).collect();
    assert_eq!(called, tried);
}
