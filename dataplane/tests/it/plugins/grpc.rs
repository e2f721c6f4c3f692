//! A plugin that asks a gRPC service before it lets a request go on.

use dataplane_testkit::backend::Kind;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::{self, free_port};
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::cluster::ClusterProtocol;
use ir::listener::ListenerProtocol;
use ir::wasm::WasmNetwork;

use super::{module, plugin};
use crate::support::{Gateway, at, http_route};

/// Calls `/pkg.Svc/Get` at `shop/grpc:80` with the message `hello`, and answers with what comes: the
/// message, or the status behind a `!`.
pub(super) fn asks() -> bytes::Bytes {
    module(
        r#"(data (i32.const 0) "shop/grpc:80" "pkg.Svc" "Get" "hello" "!")
        (func $answer (param $at i32) (param $length i32)
          (drop (call $reply (i32.const 200) (i32.const 0) (i32.const 0)
            (local.get $at) (local.get $length) (i32.const 0) (i32.const 0) (i32.const -1))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (call $unary (i32.const 0) (i32.const 12) (i32.const 12) (i32.const 7) (i32.const 19) (i32.const 3)
                (i32.const 0) (i32.const 0) (i32.const 22) (i32.const 5) (i32.const 5000) (i32.const 100))
            (then unreachable))
          (i32.const 1))
        (func (export "proxy_on_grpc_receive") (param i32 i32 i32)
          (drop (call $get_buffer (i32.const 5) (i32.const 0) (local.get 2) (i32.const 104) (i32.const 108)))
          (call $answer (i32.load (i32.const 104)) (i32.load (i32.const 108))))
        (func (export "proxy_on_grpc_close") (param i32 i32 i32)
          (i32.store8 (i32.const 28) (i32.add (i32.const 0x30) (local.get 2)))
          (call $answer (i32.const 27) (i32.const 2)))"#,
    )
}

#[tokio::test]
async fn a_plugin_is_answered_by_a_grpc_service() {
    let grpc = Backend::start("g", Kind::Grpc).await;
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut asking = plugin("shop/p", asks());
    asking.sandbox.network = WasmNetwork::OwnNamespace;
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].plugins = vec![asking.key.clone()];
    let of = |protocol, version: &str| {
        let listener = snapshot::listener("infra/gw/http", port, ListenerProtocol::Http);
        let mut built = SnapshotBuilder::new(version)
            .listener(listener)
            .http_route(route.clone())
            .cluster("shop/b:80", &[backend.address()])
            .add_cluster(snapshot::cluster(
                "shop/grpc:80",
                protocol,
                &[grpc.address()],
            ))
            .build();
        built.wasm_plugins.insert(asking.clone());
        built
    };
    let gateway = Gateway::serving(&of(ClusterProtocol::Grpc, "v1")).await;
    let answer = http1::get(at(port), "a.test", "/").await.unwrap();
    assert_eq!(&*answer.text(), "hello");
    assert_eq!(grpc.requests(), 1);
    drop(grpc);
    let answer = http1::get(at(port), "a.test", "/").await.unwrap();
    assert_eq!(&*answer.text(), "!>", "status 14, unavailable");
    drop(gateway);
}
