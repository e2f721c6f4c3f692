//! Rude clients: what is ambiguous is refused, what is dropped costs nobody else anything.

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, until};
use http::{Method, Request};

use super::frames::{DATA, END_STREAM, Frames, RST_STREAM, request};
use super::{nowhere, to};
use crate::support::{Gateway, at};

#[tokio::test]
async fn a_carriage_return_does_not_hide_the_fields_behind_it() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for head in [
        "POST / HTTP/1.1\r\nhost: x\r\n\rcontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\n\r\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\n\rhost: x\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\rx: y\r\n\r\n",
    ] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.send_bytes(head.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.status, 400, "{head:?}");
    }
}

#[tokio::test]
async fn bodies_nobody_reads_do_not_use_up_the_connections_window() {
    let port = free_port();
    let _gateway = Gateway::serving(&nowhere(port)).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    for turn in 0..60 {
        let post = Request::post("http://x.example.com/")
            .body(Bytes::from(vec![0; 60_000]))
            .unwrap();
        let response = client.send(post).await;
        let response = response.unwrap_or_else(|error| panic!("turn {turn}: {error}"));
        assert_eq!(response.status, 404);
    }
}

#[tokio::test]
async fn a_length_that_differs_from_the_data_resets_the_stream() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for (name, length, data) in [
        ("short", "5", Some(&b"abc"[..])),
        ("long", "2", Some(b"abc")),
        ("without data", "5", None),
        ("signed", "+3", Some(b"abc")),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        let mut fields = request("POST", "/").to_vec();
        fields.push(("content-length", length));
        let flags = if data.is_none() { END_STREAM } else { 0 };
        client.headers(1, flags, &fields).await;
        if let Some(data) = data {
            client.send(DATA, END_STREAM, 1, data).await.unwrap();
        }
        let reset = client.until(RST_STREAM, 1).await;
        assert!(reset.is_some(), "{name}: the connection ended");
    }
    // What had begun to arrive was never complete.
    until(DEADLINE, async || backend.open_connections() == 0).await;
}

#[tokio::test]
async fn a_post_without_a_body_says_so_to_http1() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Frames::connect(at(port), &[]).await;
    client.headers(1, END_STREAM, &request("POST", "/")).await;
    let mut body = Vec::new();
    loop {
        let frame = client.until(DATA, 1).await.unwrap();
        body.extend_from_slice(&frame.payload);
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
    let seen: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(seen["headers"]["content-length"][0], "0", "{seen}");
}

#[tokio::test]
async fn a_client_that_gives_up_within_the_response_frees_the_origin() {
    let origin = Backend::start(
        "slow",
        Kind::Scripted(Script::new([
            Step::ReadHead,
            Step::Send(Bytes::from_static(
                b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n",
            )),
            Step::Hold,
        ])),
    )
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let get = Request::get("http://x.example.com/").body(()).unwrap();
    let mut exchange = client.open(get).await.unwrap();
    exchange.finish().unwrap();
    assert_eq!(exchange.head().await.unwrap().status, 200);
    assert!(exchange.next().await.unwrap().is_some());
    assert_eq!(origin.open_connections(), 1);
    drop(exchange);
    until(DEADLINE, async || origin.open_connections() == 0).await;
}

#[tokio::test]
async fn a_body_known_to_be_too_large_does_not_reach_the_origin() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.request_body_bytes_max = Some(1000);
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let head =
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\nexpect: 100-continue\r\n\r\n";
    client.send_bytes(head).await.unwrap();
    let response = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(response.status, 413);
    assert!(response.interim.is_empty());
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn an_expectation_is_the_origins_to_meet() {
    for (answer, status, interim) in [
        (
            &b"HTTP/1.1 417 Expectation Failed\r\ncontent-length: 0\r\n\r\n"[..],
            417,
            0,
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\n", 200, 1),
    ] {
        let mut steps = vec![Step::ReadHead, Step::Send(Bytes::from_static(answer))];
        if interim == 1 {
            steps.push(Step::Read(5));
            let last = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            steps.push(Step::Send(Bytes::from_static(last)));
        }
        steps.push(Step::Hold);
        let origin = Backend::start("o", Kind::Scripted(Script::new(steps))).await;
        let port = free_port();
        let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head =
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
        client.send_bytes(head).await.unwrap();
        let first = client.read_head().await.unwrap();
        if interim == 1 {
            assert_eq!(first.status, 100);
            client.send_bytes(b"hello").await.unwrap();
            let last = client.read_response(&Method::POST).await.unwrap();
            assert_eq!(last.status, status);
        } else {
            assert_eq!(first.status, status);
        }
        assert_eq!(origin.requests(), 1);
    }
}

#[tokio::test]
async fn a_half_closed_client_gets_its_answer() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let get = b"GET /?delay_ms=100 HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send_bytes(get).await.unwrap();
    client.finish().await.unwrap();
    let response = client.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(client.is_closed().await.unwrap());
}

#[tokio::test]
async fn single_byte_chunks_arrive_whole() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let mut body = "1\r\nx\r\n".repeat(50_000);
    body.push_str("0\r\n\r\n");
    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send_bytes(head.as_bytes()).await.unwrap();
    client.send_bytes(body.as_bytes()).await.unwrap();
    let response = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(response.body.len(), 50_000);
    assert_eq!(
        client.get("x", "/after").await.unwrap().json()["path"],
        "/after"
    );
}

#[tokio::test]
async fn malformed_http2_heads_reach_no_origin() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let good = request("GET", "/");
    let with = |extra: &[(&'static str, &'static str)]| [&good[..], extra].concat();
    let without = |name: &str| -> Vec<_> {
        let kept = good.iter().filter(|(field, _)| *field != name);
        kept.copied().collect()
    };
    for (name, fields) in [
        ("upper case", with(&[("X-Upper", "y")])),
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("te", with(&[("te", "gzip")])),
        ("second path", with(&[(":path", "/b")])),
        ("late pseudo field", with(&[("a", "b"), (":path", "/b")])),
        ("unknown pseudo field", with(&[(":protocol", "websocket")])),
        ("line end in a value", with(&[("a", "b\r\nc: d")])),
        ("zero in a value", with(&[("a", "b\0c")])),
        ("space in a name", with(&[("a b", "c")])),
        ("colon in a name", with(&[("a:b", "c")])),
        ("another host", with(&[("host", "y.example.com")])),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "1")]),
        ),
        ("no path", without(":path")),
        ("no method", without(":method")),
        ("no authority", without(":authority")),
        (
            "empty path",
            [&without(":path")[..], &[(":path", "")]].concat(),
        ),
        (
            "path without slash",
            [&without(":path")[..], &[(":path", "a")]].concat(),
        ),
        (
            "space in the path",
            [&without(":path")[..], &[(":path", "/a b")]].concat(),
        ),
        (
            "line end in the path",
            [&without(":path")[..], &[(":path", "/ HTTP/1.1\r\na: b")]].concat(),
        ),
        (
            "line end in the method",
            [
                &without(":method")[..],
                &[(":method", "GET / HTTP/1.1\r\n")],
            ]
            .concat(),
        ),
        (
            "user in the authority",
            [
                &without(":authority")[..],
                &[(":authority", "a@x.example.com")],
            ]
            .concat(),
        ),
        (
            "path in the authority",
            [
                &without(":authority")[..],
                &[(":authority", "x.example.com/a")],
            ]
            .concat(),
        ),
        (
            "CONNECT",
            vec![(":method", "CONNECT"), (":authority", "x:80")],
        ),
    ] {
        let mut client = Frames::connect(at(port), &[]).await;
        client.headers(1, END_STREAM, &fields).await;
        // A refusal of ours, a reset, or the end of the connection.
        loop {
            match client.next().await {
                Some(frame) if frame.kind == super::frames::HEADERS => break,
                Some(frame) if frame.kind == RST_STREAM => break,
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(
            backend.requests(),
            0,
            "{name}: {:?}",
            backend.request_lines()
        );
    }
}

#[tokio::test]
async fn what_http2_says_twice_http1_reads_once() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let get = Request::get("http://x.example.com/a/./b/../c?q=%2e./")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("host", "X.example.com")
        .body(Bytes::new())
        .unwrap();
    let seen = client.send(get).await.unwrap().json();
    assert_eq!(seen["headers"]["cookie"], serde_json::json!(["a=1; b=2"]));
    assert_eq!(
        seen["headers"]["host"],
        serde_json::json!(["x.example.com"])
    );
    assert_eq!(
        (&seen["path"], &seen["query"]),
        (&"/a/c".into(), &"q=%2e./".into())
    );
}

#[tokio::test]
async fn the_authority_of_the_target_wins_over_host() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = dataplane_testkit::SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "target.example.com", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for (target, host, status) in [
        ("http://target.example.com/a", "other.example.com", 200),
        ("http://other.example.com/a", "target.example.com", 404),
        ("HTTP://Target.Example.com?a", "other.example.com", 200),
    ] {
        let get = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\n\r\n");
        client.send_bytes(get.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, status, "{target}");
        if status == 200 {
            let host = &response.json()["headers"]["host"];
            assert_eq!(*host, serde_json::json!(["target.example.com"]));
        }
    }
}

#[tokio::test]
async fn trailers_of_http2_cannot_change_what_http1_reads() {
    let origin = Backend::start(
        "o",
        Kind::Scripted(Script::new([
            Step::ReadHead,
            // The whole body: one chunk, the last chunk, the one trailer that may pass, the end.
            Step::Read(b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n".len()),
            Step::Send(Bytes::from_static(
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            )),
            Step::ReadHead,
            Step::Hold,
        ])),
    )
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Frames::connect(at(port), &[]).await;
    client.headers(1, 0, &request("POST", "/")).await;
    client.send(DATA, 0, 1, b"hello").await.unwrap();
    let trailers = [
        ("x-sum", "1"),
        ("content-length", "0"),
        ("host", "evil"),
        ("authorization", "evil"),
    ];
    client.headers(1, END_STREAM, &trailers).await;
    let answer = client.until(DATA, 1).await.expect("an answer");
    assert_eq!(answer.payload, b"ok");
    assert_eq!(origin.requests(), 1);
}
