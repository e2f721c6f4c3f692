//! A panic on the request line costs its request and its connection, and nobody else.
//!
//! It is made by the one part that a test can bring: what carries the calls of plugins. Everything else is
//! a worker as it serves, on a socket of loopback.

use std::rc::Rc;
use std::sync::Arc;

use dataplane_config::{Store, compile};
use dataplane_http::{Arrival, Io, Overload, Settings, Texts, Worker, serve};
use dataplane_telemetry::access_log::AccessLog;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracing;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::http_route;
use dataplane_testkit::{Backend, SnapshotBuilder, within};
use dataplane_wasm::callout::{
    Calling, Callout, GrpcCall, GrpcMessage, GrpcPart, GrpcRunning, HttpCall,
};
use ir::WasmPlugin;
use ir::wasm::WasmSource;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};

/// Asks for the cluster of no name.
const ASKS: &str = r#"(module
    (import "env" "proxy_http_call" (func $http (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
      (call $http (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 200))))"#;

struct Panics;

impl Callout for Panics {
    #[expect(clippy::panic, reason = "what this is all about")]
    fn knows(&self, _: &str) -> bool {
        panic!("on purpose");
    }

    fn call(&self, _: HttpCall) -> Calling {
        Box::pin(async { None })
    }

    fn grpc(
        &self,
        _: GrpcCall,
        _: mpsc::Receiver<GrpcMessage>,
        _: mpsc::Sender<GrpcPart>,
    ) -> GrpcRunning {
        unreachable!("the module makes no such call")
    }
}

#[tokio::test]
async fn a_request_that_panics_is_500_and_others_are_served() {
    let backend = Backend::http1("b").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = Metrics::new();
    let (worker, bind) = worker(address.port(), &backend, &metrics).await;
    let local = LocalSet::new();
    local.spawn_local(async move {
        while let Ok((tcp, client)) = listener.accept().await {
            let arrival = Arrival {
                client,
                bind,
                port: bind.port().try_into().unwrap(),
                tls: None,
                drain: tokio_util::sync::CancellationToken::new(),
                texts: Texts::default(),
            };
            spawn_local(serve(worker.clone(), Io::Plain(tcp), arrival));
        }
    });
    local
        .run_until(async {
            let shared = Http2Client::connect(address).await.unwrap();
            let mut kept = Http1Client::connect(address).await.unwrap();
            for _ in 0..2 {
                let mut client = Http1Client::connect(address).await.unwrap();
                let answer = client.get("x", "/panic").await.unwrap();
                assert_eq!(answer.status, 500);
                assert!(answer.text().contains("(internal)"), "{}", answer.text());
                assert_eq!(answer.header("connection"), "close");
                assert!(within("the end", client.is_closed()).await.unwrap());
                let answer = shared.get("x", "/panic").await.unwrap();
                assert_eq!(answer.status, 500);
                // Others of the same worker, one of them on the same connection.
                assert_eq!(kept.get("x", "/").await.unwrap().status, 200);
                assert_eq!(shared.get("x", "/").await.unwrap().status, 200);
            }
        })
        .await;
    let mut text = String::new();
    metrics.encode_text(&mut text);
    assert!(text.contains("http_request_panics_total 4\n"), "{text}");
    assert!(text.contains("reason=\"internal\"} 4\n"), "{text}");
}

/// A worker that serves one listener, and the address by which the configuration knows that.
async fn worker(
    port: u16,
    backend: &Backend,
    metrics: &Arc<Metrics>,
) -> (Rc<Worker>, std::net::SocketAddr) {
    let mut route = http_route("shop/asks", "", "/panic", &[("shop/b:80", 1)]);
    route.listeners = vec!["infra/gw/http".into()];
    route.rules[0].plugins = vec!["shop/asks".into()];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .with(|snapshot| {
            let plugin = WasmPlugin::new("shop/asks", WasmSource::Inline(ASKS.into()));
            snapshot.wasm_plugins.insert(plugin);
        })
        .build();
    let store = Store::new();
    let before = store.load_full();
    before
        .kept
        .plugins()
        .prepare(&snapshot, &before.plugins, metrics)
        .await;
    let compiled = compile(snapshot, &before, metrics).unwrap();
    let bind = *compiled.binds.keys().next().unwrap();
    store.swap(Arc::new(compiled));
    let worker = Worker::new(
        &store,
        Arc::new(Settings::default()),
        (AccessLog::disabled().writer(), Tracing::default().tracer()),
        Overload::default(),
        metrics.clone(),
        Rc::new(Panics),
    );
    (Rc::new(worker), bind)
}
