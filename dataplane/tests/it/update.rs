//! Configuration under traffic: what changes, changes at once; what is refused, changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dataplane_testkit::backend::Kind;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::websocket;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use futures_util::{SinkExt, StreamExt};
use ir::{Hostname, Snapshot};

use crate::support::{Gateway, at};

fn serving(version: &str, port: u16, backend: &Backend) -> Snapshot {
    SnapshotBuilder::new(version)
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

#[tokio::test]
async fn a_delta_changes_one_route_and_leaves_the_rest() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let port = free_port();
    let old = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/x", "x.example.com", "/", "shop/a:80")
        .route("shop/y", "y.example.com", "/", "shop/a:80")
        .cluster("shop/a:80", &[a.address()])
        .cluster("shop/b:80", &[b.address()])
        .build();
    let new = SnapshotBuilder::from(&old, "v2")
        .with(|snapshot| {
            let mut route = (**snapshot.http_routes.get("shop/x").unwrap()).clone();
            route.rules[0].backends[0].target = dataplane_testkit::snapshot::target("shop/b:80");
            snapshot.http_routes.insert(route);
        })
        .build();
    let gateway = Gateway::serving(&old).await;
    gateway.change(&old, &new).await;
    let name = |response: dataplane_testkit::client::Response| response.json()["backend"].clone();
    assert_eq!(
        name(http1::get(at(port), "x.example.com", "/").await.unwrap()),
        "b"
    );
    assert_eq!(
        name(http1::get(at(port), "y.example.com", "/").await.unwrap()),
        "a"
    );
}

#[tokio::test]
async fn listeners_open_and_close_while_running() {
    let backend = Backend::http1("b").await;
    let (first, second) = (free_port(), free_port());
    let gateway = Gateway::serving(&serving("v1", first, &backend)).await;
    let mut kept = Http1Client::connect(at(first)).await.unwrap();
    assert_eq!(kept.get("x", "/").await.unwrap().status, 200);

    gateway.apply(&serving("v2", second, &backend)).await;
    assert_eq!(http1::get(at(second), "x", "/").await.unwrap().status, 200);
    assert!(
        kept.is_closed().await.unwrap(),
        "an idle connection ends with its listener"
    );
    assert!(Http1Client::connect(at(first)).await.is_err());
}

#[tokio::test]
async fn a_refused_update_changes_nothing_and_is_answered_with_its_version() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&serving("v1", port, &backend)).await;

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap().port();
    let bad = SnapshotBuilder::from(&serving("v1", port, &backend), "v2")
        .http_listener("infra/gw/busy", busy)
        .with(|snapshot| {
            snapshot.http_routes.remove("shop/r");
        })
        .build();
    gateway.control_plane.push_snapshot(&bad).await;
    let nack = gateway.control_plane.nacked("v2").await;
    assert!(
        nack.error_detail.contains("infra/gw/busy"),
        "{}",
        nack.error_detail
    );
    assert!(
        nack.error_detail.contains(&busy.to_string()),
        "{}",
        nack.error_detail
    );
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);

    let message = ir::wire::ConfigSnapshot {
        id: "v3".to_owned(),
        ..ir::wire::ConfigSnapshot {
            required_features: vec!["teleport.v9".to_owned()],
            ..ir::encode::snapshot(&bad)
        }
    };
    gateway
        .control_plane
        .push(dataplane_testkit::control_plane::whole(message))
        .await;
    let nack = gateway.control_plane.nacked("v3").await;
    assert!(
        nack.error_detail.contains("teleport.v9"),
        "{}",
        nack.error_detail
    );
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_control_plane_costs_no_request() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = serving("v1", port, &backend);
    let gateway = Gateway::serving(&snapshot).await;
    let load = Load::start(port);
    load.passes(200).await;
    gateway.control_plane.cut_connections();
    load.passes(200).await;
    gateway.control_plane.opened().await;
    let next = SnapshotBuilder::from(&snapshot, "v2").build();
    gateway.apply(&next).await;
    load.passes(200).await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_route_edits_cost_no_request_and_no_connection() {
    let (a, w) = (
        Backend::http1("a").await,
        Backend::start("w", Kind::WebSocket).await,
    );
    let port = free_port();
    let mut snapshot = SnapshotBuilder::new("v0")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/a:80")
        .route("shop/edited", "edited.example.com", "/", "shop/a:80")
        .route("shop/ws", "ws.example.com", "/", "shop/w:80")
        .cluster("shop/a:80", &[a.address()])
        .cluster("shop/w:80", &[w.address()])
        .build();
    let gateway = Gateway::serving(&snapshot).await;
    let load = Load::start(port);
    let (mut socket, _) = websocket::connect(at(port), "ws.example.com", "/")
        .await
        .unwrap();
    for edit in 1..=1000 {
        let next = SnapshotBuilder::from(&snapshot, &format!("v{edit}"))
            .with(|snapshot| {
                let mut route = (**snapshot.http_routes.get("shop/edited").unwrap()).clone();
                let host = format!("edited{edit}.example.com");
                route.hostnames = vec![Hostname::new(&host).unwrap()];
                snapshot.http_routes.insert(route);
            })
            .build();
        gateway.change(&snapshot, &next).await;
        snapshot = next;
        if edit % 100 == 0 {
            let message = websocket::Message::text(format!("still here {edit}"));
            socket.send(message.clone()).await.unwrap();
            assert_eq!(socket.next().await.unwrap().unwrap(), message);
        }
    }
    let response = http1::get(at(port), "edited1000.example.com", "/")
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_load_loses_no_request() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut gateway = Gateway::with(&serving("v1", port, &backend), |bootstrap| {
        bootstrap.drain.min_accept = std::time::Duration::from_millis(200);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(tokio::spawn(async move {
            let mut served = 0_usize;
            // Each answer must be whole; the connection may end only where it was said to.
            while let Ok(mut client) = Http1Client::connect(at(port)).await {
                loop {
                    let response = client
                        .get("x", "/?delay_ms=5")
                        .await
                        .expect("a whole answer");
                    assert_eq!(response.status, 200);
                    served += 1;
                    if response.header("connection") == "close" {
                        break;
                    }
                }
            }
            served
        }));
    }
    dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
        backend.requests() > 100
    })
    .await;
    gateway.stop();
    let mut served = 0;
    for client in clients {
        served += client.await.unwrap();
    }
    assert!(gateway.stopped().await);
    assert_eq!(served, backend.requests());
}

/// Steady requests over HTTP/1.1 and HTTP/2, none of which may fail.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    passed: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    pub(crate) fn start(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let passed = Arc::new(AtomicUsize::new(0));
        let mut tasks = Vec::new();
        for is_http2 in [false, true] {
            let (stop, passed) = (stop.clone(), passed.clone());
            tasks.push(tokio::spawn(async move {
                let mut http1 = Http1Client::connect(at(port)).await.unwrap();
                let http2 = Http2Client::connect(at(port)).await.unwrap();
                while !stop.load(Ordering::Relaxed) {
                    let response = match is_http2 {
                        false => http1.get("load", "/").await,
                        true => http2.get("load", "/").await,
                    };
                    let response = response.unwrap();
                    assert_eq!(response.status, 200);
                    if response.header("connection") == "close" {
                        http1 = Http1Client::connect(at(port)).await.unwrap();
                    }
                    passed.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        Self {
            stop,
            passed,
            tasks,
        }
    }

    /// Waits until that many more requests have passed.
    pub(crate) async fn passes(&self, count: usize) {
        let goal = self.passed.load(Ordering::Relaxed) + count;
        dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
            self.passed.load(Ordering::Relaxed) >= goal
        })
        .await;
    }

    /// Ends it; panics when a request has failed.
    pub(crate) async fn end(self) {
        self.passes(50).await;
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}
