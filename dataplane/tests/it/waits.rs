//! How long each side is waited for, and who lets go of whom when somebody leaves.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::client::websocket;
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::wait::{DEADLINE, until};
use dataplane_testkit::{Backend, SnapshotBuilder, within};
use futures_util::{SinkExt, StreamExt};
use http::Method;
use ir::cluster::ClusterProtocol;
use ir::policy::RoutePolicy;
use tokio::time::timeout;

use crate::support::{Gateway, at, http_route};

fn snapshot(port: u16, backend: &Backend, policy: RoutePolicy) -> ir::Snapshot {
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.policy = Some(policy.into());
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

async fn serving(backend: &Backend, policy: RoutePolicy) -> (Gateway, u16) {
    let port = free_port();
    let gateway = Gateway::serving(&snapshot(port, backend, policy)).await;
    (gateway, port)
}

#[tokio::test]
async fn a_call_is_given_the_time_it_asks_for_and_no_more() {
    let backend = Backend::start("g", Kind::Grpc).await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(http_route("shop/r", "", "/", &[("shop/b:80", 1)]))
        .add_cluster(cluster(
            "shop/b:80",
            ClusterProtocol::H2c,
            &[backend.address()],
        ))
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    // The backend takes a minute; units are those of gRPC over HTTP/2.
    for asked in ["100m", "100000u", "99999999n"] {
        let metadata = [("grpc-timeout", asked), ("x-want", "delay_ms=60000")];
        let began = Instant::now();
        let reply = grpc::unary(&client, "x", "/t.Echo/Say", &metadata, b"hi")
            .await
            .unwrap();
        assert_eq!(reply.status, Some(4), "{asked}: {}", reply.message);
        assert!(began.elapsed() >= Duration::from_millis(99), "{asked}");
    }
    for asked in [
        "1M",
        "1H",
        "99999999S",
        "150",
        "100000000n",
        "m",
        "-1m",
        "1m1",
        "",
    ] {
        let metadata = [("grpc-timeout", asked), ("x-want", "delay_ms=200")];
        let reply = grpc::unary(&client, "x", "/t.Echo/Say", &metadata, b"hi")
            .await
            .unwrap();
        assert_eq!(reply.status, Some(0), "{asked:?}: {}", reply.message);
    }
}

#[tokio::test]
async fn a_buffered_request_meets_the_backend_when_it_is_whole() {
    let backend = Backend::http1("b").await;
    let policy = RoutePolicy {
        request_buffering: Some(true),
        ..RoutePolicy::default()
    };
    let (_gateway, port) = serving(&backend, policy).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n";
    client.send_bytes(head).await.unwrap();
    // A request that was sent later is answered first.
    let other = Http1Client::connect(at(port))
        .await
        .unwrap()
        .get("x", "/other")
        .await;
    assert_eq!(other.unwrap().status, 200);
    assert_eq!(backend.requests(), 1);
    client.send_bytes(b"3\r\ndef\r\n0\r\n\r\n").await.unwrap();
    let answer = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_connection_closes_behind_its_last_request() {
    let backend = Backend::http1("b").await;
    let policy = RoutePolicy {
        keepalive_requests: Some(3),
        ..RoutePolicy::default()
    };
    let (_gateway, port) = serving(&backend, policy).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for closes in [false, false, true] {
        let answer = client.get("x", "/").await.unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection") == "close", closes);
    }
    assert!(client.is_closed().await.unwrap());
}

#[tokio::test]
async fn a_client_that_resets_frees_the_backend_it_waits_for() {
    let silent = Script::new([Step::ReadHead, Step::Hold]);
    let backend = Backend::start("b", Kind::Scripted(silent)).await;
    let (_gateway, port) = serving(&backend, RoutePolicy::default()).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    client
        .send_bytes(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    until(DEADLINE, async || backend.requests() == 1).await;
    assert_eq!(backend.open_connections(), 1);
    client.stream().set_zero_linger().unwrap();
    drop(client);
    until(DEADLINE, async || backend.open_connections() == 0).await;

    let client = Http2Client::connect(at(port)).await.unwrap();
    let request = http::Request::get("http://x/").body(()).unwrap();
    let mut exchange = client.open(request).await.unwrap();
    exchange.finish().unwrap();
    until(DEADLINE, async || backend.requests() == 2).await;
    // RST_STREAM with CANCEL.
    drop(exchange);
    until(DEADLINE, async || backend.open_connections() == 0).await;
}

#[tokio::test]
async fn empty_lines_before_a_request_are_passed_over_and_not_without_end() {
    let backend = Backend::http1("b").await;
    let (_gateway, port) = serving(&backend, RoutePolicy::default()).await;
    // RFC 9112, 2.2: at least one empty line in front of a request line is ignored.
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..2 {
        client
            .send_bytes(b"\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let answer = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(answer.status, 200);
    }
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    // The gateway may have closed before all of it was sent.
    let _ = client.send_bytes(&b"\r\n".repeat(100_000)).await;
    let rest = client.read_to_end().await.unwrap_or_else(|_| Bytes::new());
    assert!(
        rest.is_empty() || rest.starts_with(b"HTTP/1.1 4"),
        "{rest:?}"
    );
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_websocket_goes_on_for_the_drain_time_and_then_ends_on_both_sides() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let port = free_port();
    let policy = RoutePolicy::default();
    let mut gateway = Gateway::with(&snapshot(port, &backend, policy), |bootstrap| {
        bootstrap.http.tunnel_drain = Duration::from_millis(300);
    })
    .await;
    let (mut socket, _) = websocket::connect(at(port), "x", "/ws").await.unwrap();
    let began = Instant::now();
    gateway.stop();
    let message = websocket::Message::text("still here");
    while began.elapsed() < Duration::from_millis(200) {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let ended = within("the tunnel ends", socket.next()).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    assert!(began.elapsed() >= Duration::from_millis(300));
    until(DEADLINE, async || backend.open_connections() == 0).await;
    let parted = gateway.metric("downstream_connections_ended_total", &["tunnel_drain"]);
    assert_eq!(parted, 1);
    assert!(gateway.stopped().await, "nothing was cut");
}

#[tokio::test]
async fn a_client_that_does_not_read_cannot_put_off_the_end_of_its_connection() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let authority = Authority::new("test");
    let port = free_port();
    let mut gateway = Gateway::with(
        &SnapshotBuilder::new("v1")
            .https_listener("infra/gw/http", port, &["x.test"], &["infra/cert"])
            .certificate("infra/cert", &authority.server(&["x.test"]))
            .http_route(http_route("shop/r", "", "/", &[("shop/b:80", 1)]))
            .cluster("shop/b:80", &[backend.address()])
            .build(),
        |bootstrap| {
            bootstrap.http.tunnel_drain = Duration::from_millis(1);
            bootstrap.http.shutdown_time = Duration::from_millis(50);
        },
    )
    .await;
    let stream = TlsClient::trusting(&authority)
        .connect(at(port), "x.test")
        .await;
    let (mut socket, _) = websocket::over(stream.unwrap(), "x.test", "/ws")
        .await
        .unwrap();
    // Every buffer on the way back fills up, and then those on the way there.
    let message = websocket::Message::binary(vec![0; 64 * 1024]);
    while timeout(Duration::from_secs(1), socket.send(message.clone()))
        .await
        .is_ok()
    {}
    gateway.stop();
    until(DEADLINE, async || backend.open_connections() == 0).await;
    assert!(gateway.stopped().await, "nothing was cut");
}
