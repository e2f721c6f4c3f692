//! Limits of calls that plugins make, each by its own setting.

use std::time::{Duration, Instant};

use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::Backend;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::{cluster, free_port};
use ir::cluster::ClusterProtocol;
use ir::wasm::WasmNetwork;

use super::grpc::asks;
use super::{At, asks_other, plugin, serving_with, snapshot};
use crate::support::{Gateway, at};

#[tokio::test]
async fn an_answer_that_is_too_large_is_none() {
    for (limit, told) in [(5000, 5000), (4999, 0)] {
        let mut plugin = plugin("shop/p", asks_other("/?bytes=5000"));
        plugin.sandbox.network = WasmNetwork::OwnNamespace;
        let at_rule = At {
            rule: vec![plugin],
            ..At::default()
        };
        let setting = serving_with(at_rule, |bootstrap| {
            bootstrap.http.plugin_answer_bytes_max = limit;
        })
        .await;
        let answer = http1::get(at(setting.port), "a.test", "/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (203, told));
    }
}

/// What a plugin says that asks this service by gRPC, and when it does.
async fn asked(service: &Backend, change: impl FnOnce(&mut Bootstrap)) -> (String, Duration) {
    let backends = [Backend::http1("b").await, Backend::http1("other").await];
    let port = free_port();
    let mut asking = plugin("shop/p", asks());
    asking.sandbox.network = WasmNetwork::OwnNamespace;
    let at_rule = At {
        rule: vec![asking],
        ..At::default()
    };
    let mut snapshot = snapshot(port, at_rule, [&backends[0], &backends[1]]);
    let grpc = cluster("shop/grpc:80", ClusterProtocol::Grpc, &[service.address()]);
    snapshot.clusters.insert(grpc);
    let _gateway = Gateway::with(&snapshot, change).await;
    let began = Instant::now();
    let answer = http1::get(at(port), "a.test", "/").await.unwrap();
    (answer.text(), began.elapsed())
}

#[tokio::test]
async fn a_message_that_is_too_large_ends_its_call() {
    let service = Backend::start("g", Kind::Grpc).await;
    for (limit, told) in [(5, "hello"), (4, "!8")] {
        let answer = asked(&service, |bootstrap| {
            bootstrap.http.plugin_answer_bytes_max = limit;
        });
        assert_eq!(answer.await.0, told, "8 is resource exhausted");
    }
}

#[tokio::test]
async fn a_service_that_says_nothing_is_waited_for_as_long_as_the_limit_says() {
    let silent = Script::new([Step::Hold]);
    let service = Backend::start("g", Kind::Scripted(silent)).await;
    let limit = Duration::from_millis(300);
    let answer = asked(&service, |bootstrap| {
        bootstrap.http.plugin_call_idle = limit;
    });
    let (told, time) = answer.await;
    assert_eq!(told, "!4", "deadline exceeded");
    // The call's own time is 5 s.
    assert!((limit..Duration::from_secs(5)).contains(&time), "{time:?}");
}
