//! What HTTP/1.0, HTTP/1.1 and HTTP/2 say differently, on either side: every row arrives as it was meant.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::{ClientError, Response};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder, within};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, LocalSet};

use super::frames::{DATA, END_STREAM, Frame, Frames, HEADERS, Origin, RST_STREAM, request};
use super::{to, to_http2};
use crate::support::{Gateway, at};

async fn scripted(steps: impl IntoIterator<Item = Step>) -> Backend {
    Backend::start("o", Kind::Scripted(Script::new(steps))).await
}

fn send(bytes: &'static [u8]) -> Step {
    Step::Send(Bytes::from_static(bytes))
}

/// An HTTP/1.1 origin for one chunked request, which tells what came byte by byte.
async fn listening() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut text = Vec::new();
        let is_whole = |text: &[u8]| {
            let last = text.windows(5).position(|it| it == b"\r\n0\r\n");
            last.is_some_and(|at| text[at + 3..].ends_with(b"\r\n\r\n"))
        };
        while !is_whole(&text) {
            let read = within("the request", tcp.read_buf(&mut text)).await;
            assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&text));
        }
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        tcp.write_all(answer).await.unwrap();
        String::from_utf8(text).unwrap()
    });
    (address, task)
}

async fn raw(port: u16, text: &str) -> Http1Client {
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    client.send_bytes(text.as_bytes()).await.unwrap();
    client
}

#[tokio::test]
async fn max_forwards_is_counted_down_and_ends_here() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for (method, value, status, seen) in [
        ("OPTIONS", "0", 204, None),
        ("OPTIONS", "00", 204, None),
        ("OPTIONS", "1", 200, Some("0")),
        ("OPTIONS", "010", 200, Some("9")),
        ("OPTIONS", "99999999999", 200, Some("4294967294")),
        ("OPTIONS", "-1", 400, None),
        ("OPTIONS", "1, 1", 400, None),
        ("OPTIONS", "", 400, None),
        ("TRACE", "0", 501, None),
        ("TRACE", "3", 200, Some("2")),
        // To other methods it means nothing.
        ("GET", "0", 200, Some("0")),
        ("GET", "x", 200, Some("x")),
    ] {
        let before = backend.requests();
        let over_http1 = async {
            let head = format!("{method} / HTTP/1.1\r\nhost: x\r\nmax-forwards: {value}\r\n\r\n");
            let mut client = raw(port, &head).await;
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            client.read_response(&method).await.unwrap()
        };
        let over_http2 = async {
            let client = Http2Client::connect(at(port)).await.unwrap();
            let request = Request::builder().method(method).uri("http://x/");
            let request = request.header("max-forwards", value);
            client
                .send(request.body(Bytes::new()).unwrap())
                .await
                .unwrap()
        };
        for response in [over_http1.await, over_http2.await] {
            assert_eq!(response.status, status, "{method} {value:?}");
            if let Some(seen) = seen {
                let fields = &response.json()["headers"];
                assert_eq!(fields["max-forwards"][0], seen, "{method} {value:?}");
            }
        }
        let reached = backend.requests() - before;
        assert_eq!(reached, if status == 200 { 2 } else { 0 }, "{method}");
    }
}

#[tokio::test]
async fn options_of_the_whole_server_go_to_the_rule_for_all_paths() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = raw(port, "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let response = client.read_response(&Method::OPTIONS).await.unwrap();
    assert_eq!(response.status, 200);
    let mut client = Frames::connect(at(port), &[]).await;
    let fields = request("OPTIONS", "*");
    client.headers(1, END_STREAM, &fields).await;
    assert!(client.until(DATA, 1).await.is_some());
    assert_eq!(backend.request_lines(), ["OPTIONS *", "OPTIONS *"]);
    // Of no other method.
    let mut client = raw(port, "GET * HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let refused = client.read_response(&Method::GET).await.unwrap();
    assert_eq!(refused.status, 400);
}

#[tokio::test]
async fn http10_is_kept_alive_when_it_asks_and_ends_its_bodies_by_closing() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    for (fields, path, is_kept) in [
        ("connection: keep-alive\r\n", "/", true),
        ("host: x\r\nconnection: Keep-Alive\r\n", "/", true),
        ("host: x\r\n", "/", false),
        ("", "/", false),
        // Without a length the end of the connection is the only end there is.
        ("connection: keep-alive\r\n", "/?chunked&bytes=70000", false),
    ] {
        let head = format!("GET {path} HTTP/1.0\r\n{fields}\r\n");
        let mut client = raw(port, &head).await;
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, 200, "{head:?}");
        assert_eq!(response.header("transfer-encoding"), "", "{head:?}");
        if path == "/" {
            assert_eq!(response.json()["version"], "HTTP/1.1", "{head:?}");
        } else {
            assert_eq!(response.body.len(), 70_000);
        }
        if is_kept {
            assert_eq!(response.header("connection"), "keep-alive", "{head:?}");
            client.send_bytes(head.as_bytes()).await.unwrap();
            let next = client.read_response(&Method::GET).await.unwrap();
            assert_eq!(next.status, 200, "{head:?}");
        } else {
            assert!(client.is_closed().await.unwrap(), "{head:?}");
        }
    }
}

#[tokio::test]
async fn a_thousand_pipelined_requests_are_answered_in_their_order() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut all = String::new();
    for number in 0..1000 {
        all += &match number % 4 {
            0 => format!("HEAD /?bytes={number} HTTP/1.1\r\nhost: x\r\n\r\n"),
            1 => format!("POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\n{number:04}"),
            2 => format!(
                "POST /echo HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n\
                 4\r\n{number:04}\r\n0\r\n\r\n"
            ),
            _ => format!("GET /{number} HTTP/1.1\r\nhost: x\r\n\r\n"),
        };
    }
    let mut client = raw(port, &all).await;
    for number in 0..1000 {
        let method = [Method::HEAD, Method::POST, Method::POST, Method::GET][number % 4].clone();
        let response = client.read_response(&method).await.unwrap();
        match number % 4 {
            0 => assert_eq!(response.header("content-length"), number.to_string()),
            3 => assert_eq!(response.json()["path"], format!("/{number}")),
            _ => assert_eq!(response.text(), format!("{number:04}")),
        }
    }
    assert_eq!(backend.connections(), 1, "one after another");
}

#[tokio::test]
async fn what_is_pipelined_behind_a_request_stays_with_the_client() {
    const OFFERED: usize = 64 << 20;
    // It takes the request and never answers.
    let origin = scripted([Step::ReadHead, Step::Hold]).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let client = tokio::net::TcpStream::connect(at(port)).await.unwrap();
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2_000);
    let (mut taken, mut last) = (0, std::time::Instant::now());
    // What the two kernels hold on the way is all that is taken.
    while taken < OFFERED && last.elapsed() < Duration::from_secs(1) {
        match client.try_write(requests.as_bytes()) {
            Ok(written) => (taken, last) = (taken + written, std::time::Instant::now()),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    assert!(taken < OFFERED / 4, "{taken} bytes of a client that waits");
}

#[tokio::test]
async fn fields_that_the_origins_connection_names_stay_behind() {
    let answer = b"HTTP/1.1 200 OK\r\nconnection: x-inside, keep-alive\r\nx-inside: 1\r\n\
        keep-alive: timeout=5\r\nproxy-connection: close\r\nx-outside: 2\r\ncontent-length: 2\r\n\r\nok";
    let origin = scripted([Step::ReadHead, send(answer), Step::Repeat]).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    let both = [
        http1::get(at(port), "x", "/").await.unwrap(),
        http2.get("x", "/").await.unwrap(),
    ];
    for response in both {
        for name in ["x-inside", "keep-alive", "proxy-connection", "connection"] {
            assert_eq!(response.header(name), "", "{name}");
        }
        assert_eq!(response.header("x-outside"), "2");
    }
}

#[tokio::test]
async fn trailers_of_responses_pass_between_the_versions() {
    let (http1, http2) = (Backend::http1("b").await, Backend::http2("b").await);
    for is_http2_origin in [false, true] {
        let port = free_port();
        let snapshot = match is_http2_origin {
            false => to(port, &[http1.address()]),
            true => to_http2(port, &[http2.address()]),
        };
        let _gateway = Gateway::serving(&snapshot).await;
        let asked = "GET /?trailers HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n";
        let over_http1: Response = raw(port, asked)
            .await
            .read_response(&Method::GET)
            .await
            .unwrap();
        assert_eq!(
            over_http1.trailer("x-trailer"),
            "b",
            "HTTP/1.1, {is_http2_origin}"
        );
        let client = Http2Client::connect(at(port)).await.unwrap();
        let get = Request::get("http://x/?trailers").header("te", "trailers");
        let over_http2 = client.send(get.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(
            over_http2.trailer("x-trailer"),
            "b",
            "HTTP/2, {is_http2_origin}"
        );
        // Who did not ask for any gets a body that ends without.
        let unasked = http1::get(at(port), "x", "/?trailers").await.unwrap();
        assert_eq!(unasked.status, 200);
        assert!(unasked.trailers.is_empty());
    }
}

#[tokio::test]
async fn trailers_of_requests_pass_between_the_versions() {
    let chunked = "POST /echo HTTP/1.1\r\nhost: x\r\nte: trailers\r\ntransfer-encoding: chunked\r\n\
        trailer: x-sum\r\n\r\n5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n";
    let over_http2 = async |port| {
        let client = Http2Client::connect(at(port)).await.unwrap();
        let post = Request::post("http://x/echo").header("te", "trailers");
        let mut exchange = client.open(post.body(()).unwrap()).await.unwrap();
        exchange.send("hello").await.unwrap();
        let sum = [(
            HeaderName::from_static("x-sum"),
            HeaderValue::from_static("7"),
        )];
        exchange.finish_with(HeaderMap::from_iter(sum)).unwrap();
        exchange.response().await.unwrap()
    };
    for is_http2_client in [false, true] {
        let (address, seen) = listening().await;
        let port = free_port();
        let _gateway = Gateway::serving(&to(port, &[address])).await;
        let response = match is_http2_client {
            true => over_http2(port).await,
            false => raw(port, chunked)
                .await
                .read_response(&Method::POST)
                .await
                .unwrap(),
        };
        assert_eq!(response.text(), "ok");
        let seen = seen.await.unwrap();
        assert!(
            seen.ends_with("5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n"),
            "{is_http2_client}: {seen:?}"
        );
    }
    let origin = Backend::http2("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to_http2(port, &[origin.address()])).await;
    let mut client = raw(port, chunked).await;
    let over_http1 = client.read_response(&Method::POST).await.unwrap();
    for response in [over_http1, over_http2(port).await] {
        assert_eq!(response.text(), "hello");
        assert_eq!(response.trailer("x-sum"), "7");
    }
}

#[tokio::test]
async fn trailers_that_speak_of_the_message_do_not_pass_over_http2() {
    let work = async {
        // What came of the request's trailers: field blocks of HTTP/2 tell by their length alone.
        let seen = Rc::new(Cell::new(None));
        let origin = {
            let seen = seen.clone();
            Origin::start(async move |frames: &mut Frames, head: Frame| {
                let trailers = frames.until(HEADERS, head.stream).await.unwrap();
                assert_eq!(trailers.flags & END_STREAM, END_STREAM);
                seen.set(Some(trailers.payload.len()));
                frames.headers(head.stream, 0, &[(":status", "200")]).await;
                let fields = [
                    ("grpc-status", "5"),
                    ("grpc-message", "gone"),
                    ("grpc-status-details-bin", "CAU"),
                    ("x-sum", "7"),
                    ("set-cookie", "a=b"),
                    ("content-length", "5"),
                    ("location", "/evil"),
                    ("x-forwarded-host", "evil"),
                ];
                frames.headers(head.stream, END_STREAM, &fields).await;
            })
            .await
        };
        let port = free_port();
        let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        for (name, is_kept) in [
            ("x-sum", true),
            ("authorization", false),
            ("x-forwarded-for", false),
            ("cookie", false),
        ] {
            let post = Request::post("http://x/").header("te", "trailers");
            let mut exchange = client.open(post.body(()).unwrap()).await.unwrap();
            exchange.send("hello").await.unwrap();
            let trailers = [("x-other", "1"), (name, &"v".repeat(1000))];
            let trailers = trailers.map(|(name, value)| {
                (
                    HeaderName::from_bytes(name.as_bytes()).unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            });
            exchange
                .finish_with(trailers.into_iter().collect())
                .unwrap();
            let response = exchange.response().await.unwrap();
            let mut names: Vec<_> = response.trailers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(
                names,
                [
                    "grpc-message",
                    "grpc-status",
                    "grpc-status-details-bin",
                    "x-sum"
                ]
            );
            let length = seen.take().unwrap();
            assert_eq!(length > 500, is_kept, "{name}: {length} bytes");
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn trailers_behind_a_body_of_no_bytes_arrive() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, head: Frame| {
            let fields = [(":status", "200"), ("content-length", "0")];
            frames.headers(head.stream, 0, &fields).await;
            let trailers = [("grpc-status", "5"), ("x-sum", "7")];
            frames.headers(head.stream, END_STREAM, &trailers).await;
        })
        .await;
        let port = free_port();
        let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        let over_http2 = client.get("x", "/").await.unwrap();
        assert_eq!(over_http2.trailer("grpc-status"), "5");
        let asked = "GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n";
        let mut client = raw(port, asked).await;
        let over_http1 = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(over_http1.trailer("x-sum"), "7");
        // Who did not ask for any is told the length.
        let unasked = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(unasked.header("content-length"), "0");
        let head = raw(port, "HEAD / HTTP/1.1\r\nhost: x\r\nte: trailers\r\n\r\n")
            .await
            .read_response(&Method::HEAD)
            .await
            .unwrap();
        assert_eq!(head.header("content-length"), "0");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn trailers_behind_a_request_body_of_no_bytes_arrive() {
    let http2 = Backend::http2("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to_http2(port, &[http2.address()])).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let post = || Request::post("http://x/echo").header("content-length", "0");
    let mut exchange = client.open(post().body(()).unwrap()).await.unwrap();
    let sum = (
        HeaderName::from_static("x-sum"),
        HeaderValue::from_static("7"),
    );
    exchange.finish_with(HeaderMap::from_iter([sum])).unwrap();
    let response = exchange.response().await.unwrap();
    assert_eq!(response.trailer("x-sum"), "7");
    // HTTP/1.1 is told the length as ever.
    let http1 = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[http1.address()])).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let post = Request::post("http://x/").header("content-length", "0");
    let response = client.send(post.body(Bytes::new()).unwrap()).await.unwrap();
    let fields = &response.json()["headers"];
    assert_eq!(fields["content-length"][0], "0");
    assert!(fields["transfer-encoding"].is_null());
}

#[tokio::test]
async fn expectations_mean_the_same_in_every_version() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    for (lines, status) in [
        (&["100-continue"][..], 200),
        (&["100-Continue"], 200),
        (&["200-ok"], 417),
        (&["100-continue, 200-ok"], 417),
        (&[""], 417),
        (&["100-continue", "100-continue"], 417),
    ] {
        let mut head = String::from("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n");
        let mut post = Request::post("http://x/").header("content-length", "2");
        for line in lines {
            head += &format!("expect: {line}\r\n");
            post = post.header("expect", *line);
        }
        let mut client = raw(port, &(head + "\r\nhi")).await;
        let over_http1 = client.read_response(&Method::POST).await.unwrap();
        let post = post.body(Bytes::from_static(b"hi")).unwrap();
        let over_http2 = http2.send(post).await.unwrap();
        for response in [over_http1, over_http2] {
            assert_eq!(response.status, status, "{lines:?}");
        }
    }
    assert_eq!(gateway.outcomes("bad_request"), 8);
    // Without a body there is nothing to go on with.
    let mut client = Frames::connect(at(port), &[]).await;
    let mut fields = request("GET", "/").to_vec();
    fields.push(("expect", "100-continue"));
    client.headers(1, END_STREAM, &fields).await;
    let seen = client.until(DATA, 1).await.unwrap().payload;
    let seen = String::from_utf8(seen).unwrap();
    assert!(seen.contains("x.example.com"), "{seen}");
    assert!(!seen.contains("expect"), "{seen}");
}

#[tokio::test]
async fn a_long_target_is_refused_in_every_version() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    for (bytes, status) in [(16 * 1024, 200), (16 * 1024 + 1, 414)] {
        for start in ["/", "/?"] {
            let target = format!("{start:a<bytes$}");
            let over_http1 = http1::get(at(port), "x", &target).await.unwrap();
            let over_http2 = http2.get("x", &target).await.unwrap();
            for response in [over_http1, over_http2] {
                assert_eq!(response.status, status, "{bytes}");
            }
        }
    }
    assert_eq!(gateway.outcomes("uri_too_long"), 4);
}

#[tokio::test]
async fn settings_of_an_upgrade_go_no_further_in_any_version() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let asked = "GET / HTTP/1.1\r\nhost: x\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    let mut client = raw(port, asked).await;
    let over_http1 = client.read_response(&Method::GET).await.unwrap();
    let client = Http2Client::connect(at(port)).await.unwrap();
    let get = Request::get("http://x/").header("http2-settings", "AAMAAABkAAQAAP__");
    let over_http2 = client.send(get.body(Bytes::new()).unwrap()).await.unwrap();
    for response in [over_http1, over_http2] {
        assert_eq!(response.status, 200);
        assert!(response.json()["headers"]["http2-settings"].is_null());
    }
}

#[tokio::test]
async fn who_names_no_host_reaches_what_is_for_every_host_and_nothing_else() {
    let backend = Backend::http1("b").await;
    for (host, status) in [("", 200), ("localhost", 404), ("*.localhost", 404)] {
        let port = free_port();
        let snapshot = SnapshotBuilder::new("v1")
            .http_listener("infra/gw/http", port)
            .route("shop/r", host, "/", "shop/b:80")
            .cluster("shop/b:80", &[backend.address()])
            .build();
        let _gateway = Gateway::serving(&snapshot).await;
        let mut client = raw(port, "GET / HTTP/1.0\r\n\r\n").await;
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, status, "{host:?}");
    }
    // Who names it means it.
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "localhost", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let mut client = raw(port, "GET / HTTP/1.0\r\nhost: localhost\r\n\r\n").await;
    let response = client.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn hints_reach_who_understands_them() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"),
        Step::Pause(Duration::from_millis(50)),
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        Step::Repeat,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = raw(port, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let hint = client.read_head().await.unwrap();
    assert_eq!(hint.status, 103);
    assert_eq!(hint.header("link"), "</a.css>; rel=preload");
    let response = client.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.text(), "ok");
    // They came after HTTP/1.0 (RFC 9110 15.2).
    let mut client = raw(port, "GET / HTTP/1.0\r\nhost: x\r\n\r\n").await;
    let first = client.read_head().await.unwrap();
    assert_eq!(first.status, 200);
    let mut client = Frames::connect(at(port), &[]).await;
    client.get(1, "/").await;
    let hint = client.until(HEADERS, 1).await.unwrap();
    assert_eq!(hint.flags & END_STREAM, 0);
    assert!(client.until(HEADERS, 1).await.is_some(), "the final head");
    assert_eq!(client.until(DATA, 1).await.unwrap().payload, b"ok");
}

#[tokio::test]
async fn what_an_http2_origin_cut_is_seen_as_cut() {
    let work = async {
        // How long the body is said to be, and whether it ends by a reset or as if it were whole.
        for (length, is_reset) in [(Some("100"), true), (Some("100"), false), (None, true)] {
            let origin = Origin::start(async move |frames: &mut Frames, request: Frame| {
                let mut fields = vec![(":status", "200")];
                fields.extend(length.map(|length| ("content-length", length)));
                frames.headers(request.stream, 0, &fields).await;
                let (flags, stream) = (if is_reset { 0 } else { END_STREAM }, request.stream);
                frames.send(DATA, flags, stream, b"short").await.unwrap();
                if is_reset {
                    // Behind what it cuts, or that would be forgotten with it.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    let internal_error = 2_u32.to_be_bytes();
                    let _ = frames.send(RST_STREAM, 0, stream, &internal_error).await;
                }
            })
            .await;
            let port = free_port();
            let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
            let row = format!("{length:?} {is_reset}");
            let over_http1 = http1::get(at(port), "x", "/").await;
            assert!(is_cut(&over_http1), "HTTP/1.1, {row}: {over_http1:?}");
            let client = Http2Client::connect(at(port)).await.unwrap();
            let over_http2 = client.get("x", "/").await;
            assert!(is_cut(&over_http2), "HTTP/2, {row}: {over_http2:?}");
            // Only a reset tells, where the length is not said.
            let mut client = raw(port, "GET / HTTP/1.0\r\n\r\n").await;
            let over_http10 = client.read_response(&Method::GET).await;
            assert!(is_cut(&over_http10), "HTTP/1.0, {row}: {over_http10:?}");
        }
    };
    LocalSet::new().run_until(work).await;
}

/// No answer that is whole, but for one that says that there is none.
fn is_cut(response: &Result<Response, ClientError>) -> bool {
    match response {
        Ok(response) => response.status == 502,
        Err(error) => !matches!(error, ClientError::Deadline),
    }
}
