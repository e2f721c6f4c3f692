//! Configuration and drain while clients hold on to their connections.

use std::time::Duration;

use dataplane_telemetry::access_log;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until};
use http::Method;

use super::frames::{Frames, GOAWAY};
use super::{nowhere, to};
use crate::support::{Gateway, at};

#[tokio::test]
async fn a_plain_connection_does_not_reach_a_listener_that_became_tls() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let certificate = authority.server(&["x.example.com"]);
    let port = free_port();
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut http1 = Http1Client::connect(at(port)).await.unwrap();
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    assert_eq!(http1.get("x.example.com", "/").await.unwrap().status, 200);
    assert_eq!(http2.get("x.example.com", "/").await.unwrap().status, 200);
    let secure = SnapshotBuilder::new("v2")
        .https_listener("infra/gw/http", port, &["x.example.com"], &["infra/x"])
        .certificate("infra/x", &certificate)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    gateway.apply(&secure).await;
    for response in [
        http1.get("x.example.com", "/").await,
        http2.get("x.example.com", "/").await,
    ] {
        assert!(response.is_ok_and(|response| response.status == 421) || backend.requests() == 2);
    }
    assert_eq!(backend.requests(), 2, "only what came before the change");
}

#[tokio::test]
async fn a_listener_can_be_closed_and_opened_again_at_once() {
    let backend = Backend::http1("b").await;
    let (port, other) = (free_port(), free_port());
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for turn in 0..20 {
        let port = if turn % 2 == 0 { other } else { port };
        let next = to(port, &[backend.address()]);
        let next = SnapshotBuilder::from(&next, &format!("turn{turn}")).build();
        // Panics when it is refused.
        gateway.apply(&next).await;
        assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_update_does_not_open_the_doors_of_a_process_on_its_way_out() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = to(port, &[backend.address()]);
    let mut gateway = Gateway::serving(&snapshot).await;
    let mut running = Http1Client::connect(at(port)).await.unwrap();
    let slow = b"GET /?delay_ms=1500 HTTP/1.1\r\nhost: x\r\n\r\n";
    running.send_bytes(slow).await.unwrap();
    until(DEADLINE, async || backend.requests() == 1).await;
    gateway.stop();
    until(DEADLINE, async || {
        Http1Client::connect(at(port)).await.is_err()
    })
    .await;
    let next = SnapshotBuilder::from(&snapshot, "v2").build();
    gateway.apply(&next).await;
    assert!(Http1Client::connect(at(port)).await.is_err());
    let response = running.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(gateway.stopped().await);
}

#[tokio::test]
async fn an_idle_http2_client_that_ignores_goaway_does_not_hold_up_the_end() {
    let port = free_port();
    let mut gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.drain.total = Duration::from_secs(8);
        bootstrap.http.drain_idle = Duration::from_millis(200);
        bootstrap.http.write_idle = Duration::from_millis(500);
    })
    .await;
    let mut silent = Frames::connect(at(port), &[]).await;
    silent.get(1, "/").await;
    assert!(silent.until(super::frames::HEADERS, 1).await.is_some());
    gateway.stop();
    // It reads GOAWAY, answers no ping and does not close.
    while silent
        .next()
        .await
        .is_some_and(|frame| frame.kind != GOAWAY)
    {}
    assert!(gateway.stopped().await, "it had to be cut");
}

#[tokio::test]
async fn an_endpoint_that_is_gone_gets_nothing_more_and_finishes_what_it_has() {
    let (old, new) = (Backend::http1("old").await, Backend::http1("new").await);
    let port = free_port();
    let before = to(port, &[old.address()]);
    let gateway = Gateway::serving(&before).await;
    let mut idle = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(idle.get("x", "/").await.unwrap().json()["backend"], "old");
    let mut running = Http1Client::connect(at(port)).await.unwrap();
    let slow = b"GET /?delay_ms=500 HTTP/1.1\r\nhost: x\r\n\r\n";
    running.send_bytes(slow).await.unwrap();
    until(DEADLINE, async || old.requests() == 2).await;
    let after = SnapshotBuilder::from(&to(port, &[new.address()]), "v2").build();
    gateway.change(&before, &after).await;
    for _ in 0..5 {
        assert_eq!(idle.get("x", "/").await.unwrap().json()["backend"], "new");
    }
    let response = running.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.json()["backend"], "old");
    assert_eq!(old.requests(), 2);
}

#[tokio::test]
async fn who_came_before_the_end_is_answered() {
    let backend = Backend::http1("b").await;
    for _ in 0..5 {
        let port = free_port();
        let snapshot = to(port, &[backend.address()]);
        let mut gateway = Gateway::with(&snapshot, |bootstrap| bootstrap.workers = 3).await;
        let mut clients = Vec::new();
        for _ in 0..100 {
            // Over before the workers wake: what is not accepted yet waits in the kernel.
            let mut client = std::net::TcpStream::connect(at(port)).unwrap();
            std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            clients.push(client);
        }
        gateway.stop();
        for client in clients {
            client.set_nonblocking(true).unwrap();
            let client = tokio::net::TcpStream::from_std(client).unwrap();
            let response = Http1Client::over(client).read_response(&Method::GET).await;
            assert_eq!(response.expect("an answer").status, 200);
        }
        assert!(gateway.stopped().await);
    }
}

#[tokio::test]
async fn the_access_log_holds_the_last_request_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let port = free_port();
    let mut gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: access_log::Sink::File(file.clone()),
            ..access_log::Settings::default()
        });
    })
    .await;
    for _ in 0..5 {
        assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 404);
    }
    gateway.stop();
    assert!(gateway.stopped().await);
    let lines = std::fs::read_to_string(&file).unwrap();
    assert_eq!(lines.lines().count(), 5, "{lines}");
}
