//! Rude clients and rude backends: strict parsing, deadlines, retries, cut responses.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder, within};
use http::{Method, Request};

use crate::support::{Gateway, at, http_route};

mod elsewhere;
mod ends;
mod parts;
mod waits;

fn to(port: u16, endpoints: &[std::net::SocketAddr]) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", endpoints)
        .build()
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_nothing_behind_them_is_read() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for (name, head) in [
        (
            "CL and TE",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            "two lengths",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\n",
        ),
        ("space before colon", "GET / HTTP/1.1\r\nhost : x\r\n\r\n"),
        ("no host", "GET / HTTP/1.1\r\n\r\n"),
        ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
        (
            "obs-fold",
            "GET / HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n",
        ),
        ("bare LF", "GET / HTTP/1.1\nhost: x\n\n"),
        (
            "chunked in 1.0",
            "POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        ("CONNECT", "CONNECT x:80 HTTP/1.1\r\nhost: x:80\r\n\r\n"),
        ("bad escape", "GET /%zz HTTP/1.1\r\nhost: x\r\n\r\n"),
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let smuggled = format!("{head}GET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n");
        client.send_bytes(smuggled.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, 400, "{name}");
        assert!(
            client.read_to_end().await.unwrap_or_default().is_empty(),
            "{name}"
        );
    }
    assert_eq!(backend.requests(), 0, "{:?}", backend.request_lines());
}

#[tokio::test]
async fn large_heads_are_refused_by_size_and_by_count() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let many: String = (0..200).map(|n| format!("a{n}: b\r\n")).collect();
    for (head, status) in [
        (
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\na: {}\r\n\r\n",
                "b".repeat(70_000)
            ),
            431,
        ),
        (format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), 431),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(20_000)),
            414,
        ),
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.send_bytes(head.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, status);
    }
}

#[tokio::test]
async fn a_dripped_head_and_a_silent_client_are_cut() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.head_timeout = Duration::from_millis(200);
        bootstrap.http.first_byte_timeout = Duration::from_millis(200);
        bootstrap.http.keepalive_idle = Duration::from_millis(200);
    })
    .await;
    let began = Instant::now();
    let mut slow = Http1Client::connect(at(port)).await.unwrap();
    slow.send_bytes(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let response = within("the head deadline", slow.read_response(&Method::GET))
        .await
        .unwrap();
    assert_eq!(response.status, 408);
    let mut silent = Http1Client::connect(at(port)).await.unwrap();
    assert!(
        within("the first-byte deadline", silent.is_closed())
            .await
            .unwrap()
    );
    let mut idle = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(idle.get("x", "/").await.unwrap().status, 200);
    assert!(within("the idle deadline", idle.is_closed()).await.unwrap());
    // By default each takes longer than all do here.
    assert!(began.elapsed() < Duration::from_secs(9));
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let dead = closed_address();
    let _gateway = Gateway::serving(&to(port, &[dead, backend.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..10 {
        let post = Request::post("/")
            .header("host", "x")
            .body(Bytes::from_static(b"once"));
        assert_eq!(client.send(post.unwrap()).await.unwrap().status, 200);
    }
    assert_eq!(backend.requests(), 10, "each request arrived once");
}

#[tokio::test]
async fn no_endpoint_is_503_and_a_closed_one_502() {
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/none", "none.example.com", "/", "shop/none:80")
        .route("shop/dead", "dead.example.com", "/", "shop/dead:80")
        .cluster("shop/none:80", &[])
        .cluster("shop/dead:80", &[closed_address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let response = http1::get(at(port), "none.example.com", "/").await.unwrap();
    assert_eq!(response.status, 503);
    assert!(response.text().contains("no_endpoint"));
    let response = http1::get(at(port), "dead.example.com", "/").await.unwrap();
    assert_eq!(response.status, 502);
}

#[tokio::test]
async fn a_silent_backend_is_504_by_the_route_and_by_the_default() {
    let backend = Backend::start("hole", Kind::BlackHole).await;
    let port = free_port();
    let mut route = http_route("shop/r", "route.example.com", "/", &[("shop/b:80", 1)]);
    route.rules[0].timeouts.request = Some(Duration::from_millis(100));
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .route("shop/d", "default.example.com", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.response_start_timeout = Duration::from_millis(300);
    })
    .await;
    let response = http1::get(at(port), "route.example.com", "/")
        .await
        .unwrap();
    assert_eq!(
        (
            response.status.as_u16(),
            response.text().contains("request_timeout")
        ),
        (504, true)
    );
    let response = http1::get(at(port), "default.example.com", "/")
        .await
        .unwrap();
    assert_eq!(
        (
            response.status.as_u16(),
            response.text().contains("upstream_timeout")
        ),
        (504, true)
    );
}

#[tokio::test]
async fn a_backend_that_closed_a_kept_connection_costs_no_request() {
    let once = Script::new([
        Step::ReadHead,
        Step::Send(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        )),
        Step::Finish,
    ]);
    let backend = Backend::start("once", Kind::Scripted(once)).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("x", "/").await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn a_cut_response_is_seen_as_cut() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n",
    ] {
        let script = Script::new([
            Step::ReadHead,
            Step::Send(Bytes::copy_from_slice(answer)),
            Step::Finish,
        ]);
        let backend = Backend::start("liar", Kind::Scripted(script)).await;
        let port = free_port();
        let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
        let client = http1::get(at(port), "x", "/").await;
        assert!(client.is_err(), "HTTP/1.1 saw a whole response: {client:?}");
        let http2 = Http2Client::connect(at(port)).await.unwrap();
        let response = http2.get("x", "/").await;
        assert!(
            response.is_err(),
            "HTTP/2 saw a whole response: {response:?}"
        );
    }
}

#[tokio::test]
async fn a_malformed_response_is_502() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
    ] {
        let script = Script::answer(Bytes::copy_from_slice(answer));
        let backend = Backend::start("liar", Kind::Scripted(script)).await;
        let port = free_port();
        let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, 502, "{}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.request_body_bytes_max = Some(1000);
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let post = Request::post("/")
        .header("host", "x")
        .body(Bytes::from(vec![0; 1001]))
        .unwrap();
    assert_eq!(client.send(post).await.unwrap().status, 413);
}

#[tokio::test]
async fn who_sends_a_body_that_cannot_be_read_on_is_told_that_the_connection_ends() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.request_body_bytes_max = Some(1000);
    })
    .await;
    for (body, status) in [("5\nhello\n", 400), ("zz\r\n", 400), ("3e9\r\n", 413)] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        client.send_bytes(head.as_bytes()).await.unwrap();
        client.send_bytes(body.as_bytes()).await.unwrap();
        if status == 413 {
            // The origin may answer before the gateway sees how long the body gets.
            drop(client.send_bytes(&[b'x'; 1001]).await);
        }
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.status, status, "{body:?}");
        assert_eq!(response.header("connection"), "close", "{body:?}");
    }
}

#[tokio::test]
async fn connections_over_the_limit_are_turned_away() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.connections_max = Some(2);
    })
    .await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        kept.push(client);
    }
    assert!(http1::get(at(port), "x", "/").await.is_err());
    kept.pop();
    dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
        http1::get(at(port), "x", "/")
            .await
            .is_ok_and(|response| response.status == 200)
    })
    .await;
}

#[tokio::test]
async fn heads_that_are_no_request_are_counted() {
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1").http_listener("infra/gw/http", port);
    let gateway = Gateway::serving(&snapshot.build()).await;
    for (head, reason) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "bad_request"),
        (
            format!(
                "GET / HTTP/1.1\r\nhost: x\r\n{}\r\n",
                "a: b\r\n".repeat(200)
            ),
            "head_too_large",
        ),
        (
            format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "p".repeat(20_000)),
            "uri_too_long",
        ),
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.send_bytes(head.as_bytes()).await.unwrap();
        client.read_response(&Method::GET).await.unwrap();
        let counted =
            format!("http_outcomes_total{{listener=\"infra/gw/http\",reason=\"{reason}\"}} 1");
        dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
            gateway.scrape().contains(&counted)
        })
        .await;
    }
}

#[tokio::test]
async fn connections_that_end_by_a_limit_of_their_life_are_counted() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let brief = Duration::from_millis(100);
    let gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.first_byte_timeout = brief;
        bootstrap.http.keepalive_idle = brief;
        bootstrap.http.h2_idle = brief;
        bootstrap.http.keepalive_requests_max = Some(2);
    })
    .await;
    let count = |limit: &str| gateway.metric("downstream_connections_ended_total", &[limit]);
    let mut silent = Http1Client::connect(at(port)).await.unwrap();
    assert!(within("nothing came", silent.is_closed()).await.unwrap());
    assert_eq!(count("first_byte"), 1);

    let mut idle = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(idle.get("x", "/").await.unwrap().status, 200);
    assert!(within("it waited", idle.is_closed()).await.unwrap());
    assert_eq!(count("idle"), 1);

    let mut busy = Http1Client::connect(at(port)).await.unwrap();
    for expected in ["", "close"] {
        let response = busy.get("x", "/").await.unwrap();
        assert_eq!(response.header("connection"), expected);
    }
    assert_eq!(count("requests"), 1);

    let http2 = Http2Client::connect(at(port)).await.unwrap();
    assert_eq!(http2.get("x", "/").await.unwrap().status, 200);
    let told = || (count("idle") == 2).then_some(());
    dataplane_testkit::eventually("GOAWAY", told).await;
    assert_eq!((count("first_byte"), count("age")), (1, 0));
}
