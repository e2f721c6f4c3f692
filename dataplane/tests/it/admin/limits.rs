//! What clients of the admin API may make grow or last, each by its own setting.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(200);
/// A request whose body does not come, and what is said once it is waited for.
const UNFINISHED: &[u8] = b"PUT /api/v1/log/level HTTP/1.1\r\nhost: 127.0.0.1\r\n\
    content-type: text/plain\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
const WAITED_FOR: &str = "HTTP/1.1 100 Continue\r\n\r\n";

async fn with(change: impl FnOnce(&mut AdminLimits)) -> Admin {
    Admin::start(|settings, _| {
        settings.changes = true;
        change(&mut settings.limits);
    })
    .await
}

/// What comes of these bytes until the connection ends, and how long that took.
async fn told(admin: &Admin, bytes: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    let mut client = Http1Client::connect(admin.address).await.unwrap();
    client.send_bytes(bytes).await.unwrap();
    let rest = within("its end", client.read_to_end()).await;
    let rest = String::from_utf8(rest.unwrap_or_default().to_vec()).unwrap();
    (rest, began.elapsed())
}

#[tokio::test]
async fn no_more_connections_are_served_at_once_than_the_limit_says() {
    let admin = with(|limits| limits.connections_max = 1).await;
    let mut first = Http1Client::connect(admin.address).await.unwrap();
    assert_eq!(first.get("a", "/livez").await.unwrap().status, 200);
    let second = admin.get("/livez");
    let mut second = std::pin::pin!(second);
    assert!(tokio::time::timeout(SHORT, &mut second).await.is_err());
    drop(first);
    assert_eq!(within("its turn", second).await.status, 200);
}

#[tokio::test]
async fn requests_are_held_to_their_sizes() {
    let admin = with(|limits| {
        limits.head_bytes_max = 8192;
        limits.fields_max = 4;
        limits.body_bytes_max = 16;
    })
    .await;
    for (fields, status) in [
        ("x: y\r\n".repeat(3), 200),
        ("x: y\r\n".repeat(4), 431),
        (format!("x: {}\r\n", "y".repeat(7000)), 200),
        (format!("x: {}\r\n", "y".repeat(9000)), 431),
    ] {
        let mut client = Http1Client::connect(admin.address).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        client.send_bytes(head.as_bytes()).await.unwrap();
        let answer = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(answer.status, status, "{}", head.len());
    }
    let path = "/api/v1/log/level";
    // That this process has no log to change is said once the body was read.
    for (bytes, status) in [
        (16, StatusCode::NOT_FOUND),
        (17, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let body = "=".repeat(bytes);
        let answer = admin.send(Method::PUT, path, None, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
    }
}

#[tokio::test]
async fn requests_are_held_to_their_time() {
    let admin = with(|limits| limits.request_time = SHORT).await;
    for (begin, answer) in [
        (&b"GET /livez HTTP/1.1\r\nhost: a"[..], ""),
        (b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 200"),
        (UNFINISHED, &format!("{WAITED_FOR}HTTP/1.1 408")),
    ] {
        let (rest, time) = told(&admin, begin).await;
        assert!(rest.starts_with(answer), "{rest}");
        assert!((SHORT..Duration::from_secs(5)).contains(&time), "{time:?}");
    }
}

#[tokio::test]
async fn connections_end_at_their_age_and_requests_a_while_later() {
    let admin = with(|limits| {
        limits.request_time = HOUR;
        limits.age_max = SHORT;
        limits.age_grace = SHORT;
    })
    .await;
    let whole = b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n";
    for (begin, answer, least) in [(&whole[..], "HTTP/1.1 200", 1), (UNFINISHED, WAITED_FOR, 2)] {
        let (rest, time) = told(&admin, begin).await;
        assert!(rest.starts_with(answer), "{rest}");
        assert!(time >= SHORT * least, "{time:?}");
    }
}

#[tokio::test]
async fn the_end_waits_for_running_requests_as_long_as_the_limit_says() {
    // Longer than it would wait without the setting.
    let limit = Duration::from_millis(2500);
    let mut admin = with(|limits| {
        limits.request_time = HOUR;
        limits.drain = limit;
    })
    .await;
    let mut client = TcpStream::connect(admin.address).await.unwrap();
    client.write_all(UNFINISHED).await.unwrap();
    let mut said = vec![0; WAITED_FOR.len()];
    client.read_exact(&mut said).await.unwrap();
    assert_eq!(said, WAITED_FOR.as_bytes());
    let began = Instant::now();
    admin.stop.cancel();
    let ended = within("the listener ends", &mut admin.running);
    ended.await.unwrap();
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
}

#[tokio::test]
async fn no_more_large_answers_are_made_at_once_than_the_limit_says() {
    let admin = with(|limits| limits.large_answers_max = 1).await;
    let mut snapshot = SnapshotBuilder::new("large");
    for number in 0..20_000 {
        let key = format!("shop/route-{number:05}");
        snapshot = snapshot.http_route(http_route(&key, "", "/", &[("shop/cart:80", 1)]));
    }
    let config = RuntimeConfig {
        snapshot: snapshot.build(),
        ..RuntimeConfig::default()
    };
    admin.state.store.swap(Arc::new(config));
    let mut stalled = Http1Client::connect(admin.address).await.unwrap();
    let request = b"GET /v1/snapshot HTTP/1.1\r\nhost: a\r\n\r\n";
    stalled.send_bytes(request).await.unwrap();
    assert_eq!(stalled.read_head().await.unwrap().status, StatusCode::OK);
    let refused = admin.get("/v1/snapshot").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
}
