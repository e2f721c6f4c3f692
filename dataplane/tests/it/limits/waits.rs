//! Limits that are met by waiting, by idling and by coming in numbers, each by its own setting.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::websocket;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use futures_util::{SinkExt as _, StreamExt as _};

use super::to;
use crate::hostile::frames::{Frames, SETTINGS, WINDOW_UPDATE};
use crate::support::{Gateway, at};

const BRIEF: Duration = Duration::from_millis(300);

#[tokio::test]
async fn a_response_that_pauses_for_too_long_is_cut() {
    let part = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
    let steps = [Step::ReadHead, Step::Send(part.into()), Step::Hold];
    let origin = Backend::start("pauses", Kind::Scripted(Script::new(steps))).await;
    let port = free_port();
    let gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
        bootstrap.http.stream_idle = BRIEF;
    })
    .await;
    let cut = within("the pause", http1::get(at(port), "x", "/")).await;
    assert!(cut.is_err(), "a whole response: {cut:?}");
    until(DEADLINE, async || gateway.outcomes("upstream_timeout") == 1).await;
}

#[tokio::test]
async fn a_websocket_in_which_nothing_moves_is_cut() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let port = free_port();
    let idle = Duration::from_secs(2);
    let gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.tunnel_idle = idle;
    })
    .await;
    let (mut socket, _) = websocket::connect(at(port), "x", "/ws").await.unwrap();
    let message = websocket::Message::text("here");
    // Longer than the limit, but never silent for that long.
    for _ in 0..6 {
        tokio::time::sleep(idle / 4).await;
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let ended = within("the tunnel ends", socket.next()).await;
    assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    until(DEADLINE, async || gateway.outcomes("upstream_timeout") == 1).await;
}

#[tokio::test]
async fn clients_of_http2_are_told_the_limits_that_are_set() {
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[]), |bootstrap| {
        bootstrap.http.h2_streams_max = 7;
        bootstrap.http.h2_stream_window = 70_000;
        bootstrap.http.h2_connection_window = 200_000;
        bootstrap.http.request_head.head_bytes_max = 9_000;
    })
    .await;
    let mut client = Frames::connect(at(port), &[]).await;
    let settings = client.until(SETTINGS, 0).await.expect("settings").payload;
    let told: Vec<(u16, u32)> = settings
        .chunks(6)
        .map(|it| {
            let id = u16::from_be_bytes([it[0], it[1]]);
            (id, u32::from_be_bytes([it[2], it[3], it[4], it[5]]))
        })
        .collect();
    // Streams at once, window of a stream, size of a list of fields (RFC 9113 6.5.2).
    for expected in [(3, 7), (4, 70_000), (6, 9_000)] {
        assert!(told.contains(&expected), "{expected:?} of {told:?}");
    }
    let window = client.until(WINDOW_UPDATE, 0).await.expect("a window");
    let more = u32::from_be_bytes(window.payload.try_into().unwrap());
    assert_eq!(65_535 + more, 200_000);
}

#[tokio::test]
async fn no_more_idle_connections_are_kept_than_the_limit_says() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.workers = 1;
        bootstrap.http.upstream_idle_max = 1;
    })
    .await;
    let slow = || http1::get(at(port), "x", "/?delay_ms=200");
    let (one, two, three) = tokio::join!(slow(), slow(), slow());
    for response in [one, two, three] {
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(backend.connections(), 3);
    until(DEADLINE, async || backend.open_connections() == 1).await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    assert_eq!(backend.connections(), 3, "the one that was kept");
}

#[tokio::test]
async fn a_listener_that_is_full_leaves_room_at_others() {
    let backend = Backend::http1("b").await;
    let (full, free) = (free_port(), free_port());
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/full", full)
        .http_listener("infra/gw/free", free)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.workers = 1;
        bootstrap.listener_connections_max = Some(1);
    })
    .await;
    let mut first = Http1Client::connect(at(full)).await.unwrap();
    assert_eq!(first.get("x", "/").await.unwrap().status, 200);
    assert!(http1::get(at(full), "x", "/").await.is_err());
    assert_eq!(http1::get(at(free), "x", "/").await.unwrap().status, 200);
    let labels = ["\"infra/gw/full\"", "limit=\"listener\""];
    let rejected = gateway.metric("downstream_connections_rejected_total", &labels);
    assert_eq!(rejected, 1);
    drop(first);
    let is_free = async || http1::get(at(full), "x", "/").await.is_ok();
    until(DEADLINE, is_free).await;
}

#[tokio::test]
async fn request_heads_are_held_to_their_limits() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.request_head.head_bytes_max = 1500;
        bootstrap.http.request_head.fields_max = 9;
        bootstrap.http.request_head.target_bytes_max = 100;
    })
    .await;
    let many = |count: usize| {
        (1..count)
            .map(|n| format!("a{n}: b\r\n"))
            .collect::<String>()
    };
    let large = |bytes: usize| format!("a: {}\r\n", "b".repeat(bytes));
    for (target, fields, status) in [
        ("p".repeat(99), String::new(), 200),
        ("p".repeat(100), String::new(), 414),
        (String::new(), many(9), 200),
        (String::new(), many(10), 431),
        (String::new(), large(1400), 200),
        (String::new(), large(1500), 431),
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head = format!("GET /{target} HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        client.send_bytes(head.as_bytes()).await.unwrap();
        let response = client.read_response(&http::Method::GET).await.unwrap();
        assert_eq!(response.status, status, "{head}");
    }
}

#[tokio::test]
async fn response_heads_are_held_to_their_limits() {
    let many: String = (0..9).map(|n| format!("a{n}: b\r\n")).collect();
    let large = format!("a: {}\r\n", "b".repeat(1024));
    for fields in [many, large] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}content-length: 0\r\n\r\n");
        let script = Script::answer(Bytes::from(answer));
        let origin = Backend::start("talks", Kind::Scripted(script)).await;
        let port = free_port();
        let gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
            bootstrap.http.response_head.fields_max = 9;
            bootstrap.http.response_head.head_bytes_max = 1024;
        })
        .await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, 502, "{fields}");
        until(DEADLINE, async || {
            gateway.outcomes("upstream_protocol") == 1
        })
        .await;
    }
}
