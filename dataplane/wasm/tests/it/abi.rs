//! What a well-behaved plugin can do.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::callout::{
    Calling, Callout, GrpcCall, GrpcMessage, GrpcPart, GrpcRunning, HttpAnswer, HttpCall,
};
use dataplane_wasm::facts::NoFacts;
use dataplane_wasm::head::Head;
use dataplane_wasm::settings::{Network, Settings};
use dataplane_wasm::{Direction, Failed, Instances, ModuleError, Piece, Plugins, Stream, Verdict};
use http::HeaderMap;
use tokio::sync::mpsc;

use crate::support::{Bench, PRELUDE, map, request, run};

use Direction::{Request, Response};

#[test]
fn heads_are_read_and_changed_both_ways() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "x-user" "x-seen" ":path" "/other" ":status" "500")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          ;; x-user -> x-seen
          (drop (call $get (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 100) (i32.const 104)))
          (drop (call $add (i32.const 0) (i32.const 6) (i32.const 6) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
          (drop (call $replace (i32.const 0) (i32.const 12) (i32.const 5) (i32.const 17) (i32.const 6)))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
          (drop (call $replace (i32.const 2) (i32.const 23) (i32.const 7) (i32.const 30) (i32.const 3)))
          (drop (call $get (i32.const 0) (i32.const 0) (i32.const 6) (i32.const 100) (i32.const 104)))
          (drop (call $add (i32.const 2) (i32.const 6) (i32.const 6) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
          (i32.const 0))
        "#,
    );
    run(async {
        for user in ["ann", "bob"] {
            let stream = bench.stream();
            let mut head = request(&[("x-user", user)]);
            let said = stream.head(Request, &mut head, true).await.unwrap();
            assert!(matches!(said, Verdict::Continue));
            assert_eq!(head.fields, map(&[("x-user", user), ("x-seen", user)]));
            assert_eq!(head.pseudo(":path").unwrap(), "/other");
            assert!(head.is_rewritten && stream.wants_response());
            assert!(!stream.wants_body(Request) && !stream.wants_body(Response));
            stream.sent(Request, &Rc::new(head));
            let status = Bytes::from_static(b"200");
            let mut head = Head::new(vec![(":status", status)], HeaderMap::new());
            stream.head(Response, &mut head, false).await.unwrap();
            assert_eq!(head.pseudo(":status").unwrap(), "500");
            assert_eq!(head.fields, map(&[("x-seen", user)]));
        }
    });
    assert_eq!(
        bench
            .sample(r#"plugin_requests_total{plugin="shop/p"}"#)
            .unwrap(),
        "2"
    );
    assert_eq!(
        bench
            .sample(r#"plugin_instances{plugin="shop/p"}"#)
            .unwrap(),
        "1"
    );
}

#[test]
fn a_body_is_held_until_its_end_and_replaced() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "<>")
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
          (if (i32.eqz (local.get 2)) (then (return (i32.const 1))))
          ;; the whole body between < and >
          (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1)))
          (drop (call $set_buffer (i32.const 0) (i32.const 100000) (i32.const 0) (i32.const 1) (i32.const 1)))
          (i32.const 0))
        "#,
    );
    run(async {
        let stream = bench.stream();
        stream
            .head(Request, &mut request(&[]), false)
            .await
            .unwrap();
        assert!(stream.wants_body(Request) && !stream.wants_body(Response));
        for piece in ["ab", "cd"] {
            let said = stream.body(Request, Bytes::from(piece), false).await;
            assert!(matches!(said, Ok(Piece::Held)));
        }
        let said = stream.body(Request, Bytes::new(), true).await.unwrap();
        assert!(matches!(said, Piece::Pass(all) if all == "<abcd>"));
        let said = stream.body(Response, Bytes::from("r"), true).await.unwrap();
        assert!(matches!(said, Piece::Pass(all) if all == "r"));
    });
}

#[test]
fn a_held_body_can_be_replaced_when_trailers_come() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "all")
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_trailers") (param i32 i32) (result i32)
          (drop (call $set_buffer (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 3)))
          (i32.const 0))
        "#,
    );
    run(async {
        let stream = bench.stream();
        let mut head = request(&[]);
        stream.head(Request, &mut head, false).await.unwrap();
        let said = stream.body(Request, Bytes::from("secret"), false).await;
        assert!(matches!(said, Ok(Piece::Held)));
        let mut trailers = Head::of(map(&[("x", "1")]));
        let said = stream.trailers(Request, &mut trailers).await;
        assert!(matches!(said, Ok(Piece::Pass(rest)) if rest == "all"));
    });
}

#[test]
fn a_held_body_goes_on_when_it_is_let_go_and_not_with_what_follows() {
    let bench = Bench::new(
        r#"
        (global $held (mut i32) (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
          (global.set $held (local.get 0)) (drop (call $tick (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (drop (call $effective (global.get $held)))
          (drop (call $continue (i32.const 0)))
          (drop (call $tick (i32.const 0))))
        "#,
    );
    run(async {
        let stream = bench.stream();
        let mut head = request(&[]);
        stream.head(Request, &mut head, false).await.unwrap();
        for piece in ["first", "second"] {
            assert!(!stream.holds(Request));
            let said = stream.body(Request, Bytes::from(piece), false).await;
            assert!(matches!(said, Ok(Piece::Held)));
            assert!(stream.holds(Request) && !stream.holds(Response));
            let said = stream.let_go(Request).await;
            assert!(matches!(said, Ok(Piece::Pass(rest)) if rest == piece));
        }
    });
}

#[test]
fn a_plugin_answers_itself() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "no" "\01\00\00\00\03\00\00\00\01\00\00\00x-a\001\00")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $reply (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 2)
            (i32.const 2) (i32.const 18) (i32.const -1)))
          (i32.const 1))
        "#,
    );
    run(async {
        let said = bench.stream().head(Request, &mut request(&[]), true).await;
        let Ok(Verdict::Respond(local)) = said else {
            panic!("{said:?}");
        };
        assert_eq!(
            (local.status, &local.body[..], local.grpc_status),
            (403, &b"no"[..], None)
        );
        assert_eq!(local.fields, map(&[("x-a", "1")]));
    });
    assert_eq!(
        bench
            .sample(r#"plugin_replies_total{plugin="shop/p"}"#)
            .unwrap(),
        "1"
    );
}

#[test]
fn a_request_is_held_back_until_a_timer_lets_it_go() {
    let bench = Bench::new(
        r#"
        (global $held (mut i32) (i32.const 0))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
          (drop (call $tick (i32.const 10))) (i32.const 1))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (global.set $held (local.get 0)) (i32.const 1))
        (func (export "proxy_on_tick") (param i32)
          (if (global.get $held) (then
            (drop (call $effective (global.get $held)))
            (drop (call $continue (i32.const 0)))
            (drop (call $tick (i32.const 0))))))
        "#,
    );
    run(async {
        let mut head = request(&[("x", "1")]);
        let said = bench.stream().head(Request, &mut head, true).await;
        assert!(matches!(said, Ok(Verdict::Continue)));
        assert_eq!(head.fields, map(&[("x", "1")]));
    });
}

#[test]
fn a_request_that_is_never_let_go_fails() {
    let bench = Bench::with(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))"#,
        |settings| settings.limits.pause = Duration::from_millis(30),
    );
    run(async {
        let said = bench.stream().head(Request, &mut request(&[]), true).await;
        assert!(said.is_err());
    });
    let hold = r#"plugin_failures_total{plugin="shop/p",kind="hold"}"#;
    assert_eq!(bench.sample(hold).unwrap(), "1");
}

/// Answers each call with what it was asked for.
#[derive(Default)]
pub(crate) struct Echo(RefCell<Vec<HttpCall>>);

impl Callout for Echo {
    fn knows(&self, cluster: &str) -> bool {
        cluster != "shop/unknown:80"
    }

    fn call(&self, call: HttpCall) -> Calling {
        let body = Bytes::from(call.cluster.clone());
        self.0.borrow_mut().push(call);
        Box::pin(async move {
            tokio::task::yield_now().await;
            Some(HttpAnswer {
                head: vec![(b":status".to_vec(), b"200".to_vec())],
                body,
                ..HttpAnswer::default()
            })
        })
    }

    fn grpc(
        &self,
        _: GrpcCall,
        _: mpsc::Receiver<GrpcMessage>,
        _: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning {
        panic!("no plugin of these tests makes such a call");
    }
}

/// Calls a cluster, holds the request back, and answers with what the call brought; says 599 when the
/// call is refused.
fn caller(cluster: &str, head_bytes: usize) -> String {
    format!(
        r#"
        (data (i32.const 0) "{cluster}")
        (data (i32.const 100) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $http (i32.const 0) (i32.const {}) (i32.const 100) (i32.const {head_bytes})
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 200))
            (then (drop (call $reply (i32.const 599) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.const -1)))))
          (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $get_buffer (i32.const 4) (i32.const 0) (local.get 3) (i32.const 204) (i32.const 208)))
          (drop (call $reply (i32.const 203) (i32.const 0) (i32.const 0)
            (i32.load (i32.const 204)) (i32.load (i32.const 208)) (i32.const 0) (i32.const 0) (i32.const -1))))
        "#,
        cluster.len()
    )
}

#[test]
fn only_clusters_that_are_allowed_are_called() {
    let shop = || Network::Clusters {
        keys: ["other/b:80".into()].into(),
        prefixes: vec!["shop/".into()],
    };
    const HEAD: usize = 61;
    for (cluster, head_bytes, network, status) in [
        ("shop/a:80", HEAD, shop(), 203),
        ("other/b:80", HEAD, shop(), 203),
        ("other/c:80", HEAD, shop(), 599),
        ("shop/unknown:80", HEAD, shop(), 599),
        ("shop/a:80", HEAD, Network::Denied, 599),
        ("shop/a:80", 70_000, shop(), 599),
    ] {
        let module = caller(cluster, head_bytes);
        let mut bench = Bench::with(&module, |settings| settings.network = network);
        let echo = Rc::new(Echo::default());
        bench.instances = Instances::new(echo.clone());
        run(async {
            let said = bench.stream().head(Request, &mut request(&[]), true).await;
            let Ok(Verdict::Respond(local)) = said else {
                panic!("{said:?}");
            };
            assert_eq!(local.status, status, "{cluster}");
            if status == 203 {
                assert_eq!(local.body, cluster);
            }
        });
        assert_eq!(
            echo.0.borrow().len(),
            usize::from(status == 203),
            "{cluster}"
        );
    }
}

#[test]
fn metrics_of_plugins_are_shown_and_outlive_an_instance() {
    let bench = Bench::new(
        r#"
        (data (i32.const 0) "seen")
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $define (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8)))
          (drop (call $increment (i32.load (i32.const 8)) (i64.const 2)))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) unreachable)
        "#,
    );
    run(async {
        for _ in 0..2 {
            let stream = bench.stream();
            stream.head(Request, &mut request(&[]), true).await.unwrap();
            let _ = stream.head(Response, &mut Head::default(), true).await;
        }
    });
    let counter = r#"plugin_custom_total{plugin="shop/p",metric="seen"}"#;
    assert_eq!(bench.sample(counter).unwrap(), "4");
}

#[test]
fn a_module_that_this_host_cannot_run_is_refused_with_the_reason() {
    let bench = Bench::new("");
    let refused = |module: &str| {
        bench
            .plugins
            .module(module.as_bytes(), false)
            .unwrap_err()
            .to_string()
    };
    for (module, reason) in [
        ("(module", "does not compile"),
        ("(module)", "proxy_abi_version"),
        (
            r#"(module (func (export "proxy_abi_version_0_2_0")))"#,
            "no memory",
        ),
        (
            r#"(module (import "env" "fetch_url" (func)) (memory (export "memory") 1)
                (func (export "proxy_abi_version_0_2_0")))"#,
            "fetch_url",
        ),
    ] {
        assert!(
            refused(module).contains(reason),
            "{module}: {}",
            refused(module)
        );
    }
    let large = vec![0; 51 * 1024 * 1024];
    assert!(matches!(
        bench.plugins.module(&large, false),
        Err(ModuleError::TooLarge { .. })
    ));
}

#[test]
fn the_same_bytes_are_compiled_once() {
    let text = format!("(module {PRELUDE})");
    let bench = Bench::of(&text, |_| ());
    let again = bench.plugins.module(text.as_bytes(), false).unwrap();
    let held = bench.plugin.module().unwrap();
    assert!(Arc::ptr_eq(&held, &again));
    let metered = bench.plugins.module(text.as_bytes(), true).unwrap();
    assert!(!Arc::ptr_eq(&held, &metered), "it counts instructions");
    let plugins = Arc::new(Plugins::default());
    let (bytes, metrics) = (Bytes::from(text), Metrics::new());
    let compiled = run(async {
        let (one, other) = (
            plugins.compiled(bytes.clone(), false, metrics.clone()),
            plugins.compiled(bytes, false, metrics.clone()),
        );
        tokio::join!(one, other)
    });
    assert!(Arc::ptr_eq(&compiled.0.unwrap(), &compiled.1.unwrap()));
    let mut text = String::new();
    metrics.encode_text(&mut text);
    assert!(
        text.contains("_plugin_modules_compiled_total 1\n"),
        "{text}"
    );
}

#[test]
fn properties_and_configuration_reach_the_plugin() {
    let bench = Bench::with(
        r#"
        (import "env" "proxy_set_property" (func $set_property (param i32 i32 i32 i32) (result i32)))
        (data (i32.const 0) "request\00url_path" "x-a" "plugin_name" "own")
        (func $told (param $at i32) (param $len i32)
          (if (i32.eqz (call $property (local.get $at) (local.get $len) (i32.const 100) (i32.const 104)))
            (then (drop (call $add (i32.const 0) (i32.const 16) (i32.const 3) (i32.load (i32.const 100)) (i32.load (i32.const 104)))))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $told (i32.const 0) (i32.const 16))
          (call $told (i32.const 19) (i32.const 11))
          (call $told (i32.const 30) (i32.const 3))
          (drop (call $set_property (i32.const 30) (i32.const 3) (i32.const 16) (i32.const 3)))
          (call $told (i32.const 30) (i32.const 3))
          (drop (call $get_buffer (i32.const 7) (i32.const 0) (i32.const 99) (i32.const 100) (i32.const 104)))
          (drop (call $add (i32.const 0) (i32.const 16) (i32.const 3) (i32.load (i32.const 100)) (i32.load (i32.const 104))))
          (i32.const 0))
        "#,
        |settings| settings.config = Bytes::from_static(b"{}"),
    );
    run(async {
        let mut head = request(&[]);
        bench.stream().head(Request, &mut head, true).await.unwrap();
        let told = head.fields.get_all("x-a").iter();
        let told: Vec<_> = told.map(|value| value.to_str().unwrap()).collect();
        assert_eq!(told, ["/path", "shop/p", "x-a", "{}"]);
    });
}

#[test]
fn instructions_are_counted_where_they_are_limited() {
    let works = r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (local $left i32) (local.set $left (i32.const 10000))
        (loop $l (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $l (local.get $left)))
        (i32.const 0))"#;
    for (fuel, goes_on) in [(None, true), (Some(1_000_000), true), (Some(1_000), false)] {
        let bench = Bench::with(works, |settings| settings.limits.fuel = fuel);
        run(async {
            for _ in 0..3 {
                let said = bench.stream().head(Request, &mut request(&[]), true).await;
                assert_eq!(said.is_ok(), goes_on, "{fuel:?}");
                if !goes_on {
                    break;
                }
            }
        });
        let spent = r#"plugin_failures_total{plugin="shop/p",kind="fuel"}"#;
        assert_eq!(bench.sample(spent).unwrap() == "0", goes_on);
    }
}

#[test]
fn all_calls_of_a_start_have_one_limit_together() {
    let spend = |call: &str, result: &str| {
        format!(
            r#"(func (export "{call}") (param i32 i32) (result i32)
            (local $left i32) (local.set $left (i32.const 10000))
            (loop $l (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $l (local.get $left)))
            {result})"#
        )
    };
    let starts = spend("proxy_on_vm_start", "(i32.const 1)");
    let both = starts.clone() + &spend("proxy_on_configure", "(i32.const 1)");
    // A start has five times of what a call has; either of them alone needs some 50,000 to 80,000.
    for (module, is_up) in [(starts, true), (both, false)] {
        let bench = Bench::with(&module, |settings| settings.limits.fuel = Some(18_000));
        let said = run(bench.stream().head(Request, &mut request(&[]), true));
        assert_eq!(said.is_ok(), is_up, "{said:?}");
    }
}

/// Adds one to what stands under `n` and tells it as `x-n`.
const COUNTS: &str = r#"
    (import "env" "proxy_get_shared_data" (func $data (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $set_data (param i32 i32 i32 i32 i32) (result i32)))
    (data (i32.const 0) "nx-n0")
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (if (i32.eqz (call $data (i32.const 0) (i32.const 1) (i32.const 100) (i32.const 104) (i32.const 108)))
        (then (i32.store8 (i32.const 4) (i32.load8_u (i32.load (i32.const 100))))))
      (i32.store8 (i32.const 4) (i32.add (i32.load8_u (i32.const 4)) (i32.const 1)))
      (drop (call $set_data (i32.const 0) (i32.const 1) (i32.const 4) (i32.const 1) (i32.const 0)))
      (drop (call $add (i32.const 0) (i32.const 1) (i32.const 3) (i32.const 4) (i32.const 1)))
      (i32.const 0))"#;

#[test]
fn plugins_of_one_namespace_and_machine_share_data_and_others_do_not() {
    let bench = Bench::new(COUNTS);
    let module = bench.plugin.module().unwrap();
    let plugin = |name: &str, vm_id: &str| {
        let mut settings = Settings::named(name);
        settings.vm_id = vm_id.into();
        bench
            .plugins
            .plugin(Ok(module.clone()), settings, &bench.metrics)
    };
    let alone = plugin("shop/a", "");
    let [one, other] = [plugin("shop/b", "team"), plugin("shop/c", "team")];
    let elsewhere = plugin("infra/d", "team");
    run(async {
        for (plugin, expected) in [
            (&alone, "1"),
            (&one, "1"),
            (&other, "2"),
            (&one, "3"),
            (&alone, "2"),
            (&elsewhere, "1"),
        ] {
            let stream = Stream::new(&bench.instances, plugin, Rc::new(NoFacts));
            let mut head = request(&[]);
            stream.head(Request, &mut head, true).await.unwrap();
            assert_eq!(head.fields, map(&[("x-n", expected)]), "{}", plugin.name());
        }
    });
}

#[test]
fn a_module_that_comes_late_takes_over() {
    let stamps = |value: &str| {
        let text = format!(
            r#"(module {PRELUDE} (data (i32.const 0) "x-by{value}")
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              (call $add (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 4) (i32.const 1))))"#
        );
        text.into_bytes()
    };
    let bench = Bench::new("");
    let missing = Err("not fetched".to_owned());
    let plugin = bench
        .plugins
        .plugin(missing, Settings::named("shop/late"), &bench.metrics);
    let lacking = r#"plugin_module_lacking{plugin="shop/late"}"#;
    run(async {
        let stream = || Stream::new(&bench.instances, &plugin, Rc::new(NoFacts));
        let said = stream().head(Request, &mut request(&[]), true).await;
        assert_eq!(said.unwrap_err(), Failed::Unavailable);
        assert_eq!(bench.sample(lacking).unwrap(), "1");
        for value in ["1", "2"] {
            let module = bench.plugins.module(&stamps(value), false).unwrap();
            plugin.load(Ok(module));
            bench.instances.tend([&plugin].into_iter());
            let mut head = request(&[]);
            stream().head(Request, &mut head, true).await.unwrap();
            assert_eq!(head.fields, map(&[("x-by", value)]));
        }
        assert_eq!(bench.sample(lacking).unwrap(), "0");
    });
}
