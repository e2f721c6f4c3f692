//! HTTP/2 towards origins: interim responses, shared connections, goodbyes, silence.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::{Method, Request};
use ir::cluster::ClusterProtocol;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::LocalSet;

use super::frames::{
    DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, Origin, RST_STREAM, SETTINGS, WINDOW_UPDATE,
};
use super::to_http2;
use crate::resilience::ejecting;
use crate::support::{Gateway, at, http_route, retry};

const CANCEL: u32 = 8;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const NO_ERROR: u32 = 0;
const MAX_CONCURRENT_STREAMS: u16 = 3;

async fn gateway_to(origin: &Origin) -> (Gateway, u16) {
    let port = free_port();
    let gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
    (gateway, port)
}

async fn ok(frames: &mut Frames, stream: u32) {
    frames
        .headers(stream, END_STREAM, &[(":status", "200")])
        .await;
}

async fn reset(frames: &mut Frames, stream: u32, code: u32) {
    let code = code.to_be_bytes();
    frames.send(RST_STREAM, 0, stream, &code).await.unwrap();
}

fn goaway(last: u32) -> Vec<u8> {
    [last.to_be_bytes(), NO_ERROR.to_be_bytes()].concat()
}

#[tokio::test]
async fn interim_responses_pass_from_end_to_end() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let hint = [(":status", "103"), ("link", "</a.css>; rel=preload")];
            frames.headers(request.stream, 0, &hint).await;
            frames
                .headers(request.stream, 0, &[(":status", "100")])
                .await;
            let body = frames.until(DATA, request.stream).await.unwrap();
            assert_eq!(body.payload, b"hello");
            ok(frames, request.stream).await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head =
            b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
        client.send_bytes(head).await.unwrap();
        let hint = client.read_head().await.unwrap();
        assert_eq!(hint.status, 103);
        assert_eq!(hint.header("link"), "</a.css>; rel=preload");
        assert_eq!(client.read_head().await.unwrap().status, 100);
        client.send_bytes(b"hello").await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.status, 200);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn an_expectation_is_refused_before_the_body_is_sent() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let refusal = [(":status", "413")];
            frames.headers(request.stream, END_STREAM, &refusal).await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head =
            b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\nexpect: 100-continue\r\n\r\n";
        client.send_bytes(head).await.unwrap();
        assert_eq!(client.read_head().await.unwrap().status, 413);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn switching_protocols_is_no_answer_over_http2() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            frames
                .headers(request.stream, 0, &[(":status", "101")])
                .await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 502);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_burst_dials_once_and_shares_the_connection() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            ok(frames, request.stream).await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        // One connection is served by one worker, hence one pool.
        let client = Http2Client::connect(at(port)).await.unwrap();
        let burst = (0..50).map(|_| client.get("x", "/"));
        for response in futures_util::future::join_all(burst).await {
            assert_eq!(response.unwrap().status, 200);
        }
        assert_eq!((origin.requests(), origin.connections()), (50, 1));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn no_more_streams_are_opened_than_the_origin_takes() {
    let work = async {
        let most = Rc::new(Cell::new(0));
        let answer = {
            let most = most.clone();
            async move |frames: &mut Frames, request: Frame| {
                // Long enough for all that would come at once to come.
                let mut held = Vec::from([request.stream]);
                let pause = Duration::from_millis(100);
                while let Ok(Some(next)) = tokio::time::timeout(pause, frames.next()).await {
                    if next.kind == HEADERS {
                        held.push(next.stream);
                    }
                }
                most.set(held.len().max(most.get()));
                for stream in held {
                    ok(frames, stream).await;
                }
            }
        };
        let origin = Origin::with(&[(MAX_CONCURRENT_STREAMS, 2)], answer).await;
        let (_gateway, port) = gateway_to(&origin).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        let burst = (0..6).map(|_| client.get("x", "/"));
        for response in futures_util::future::join_all(burst).await {
            assert_eq!(response.unwrap().status, 200);
        }
        assert_eq!(most.get(), 2);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn beyond_the_streams_that_the_limit_allows_there_is_another_connection() {
    let origin = Backend::http2("b").await;
    for (most, connections) in [(4, 1), (2, 2), (1, 4)] {
        let port = free_port();
        let snapshot = to_http2(port, &[origin.address()]);
        let _gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.workers = 1;
            bootstrap.http.upstream_h2_streams_max = most;
        })
        .await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        // From now on it is known how many streams the origin takes.
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        let before = origin.connections();
        let burst = (0..4).map(|_| client.get("x", "/?delay_ms=500"));
        for response in futures_util::future::join_all(burst).await {
            assert_eq!(response.unwrap().status, 200);
        }
        assert_eq!(origin.connections() - before + 1, connections, "{most}");
    }
}

#[tokio::test]
async fn origins_are_told_the_windows_that_are_set() {
    let listener = TcpListener::bind(at(0)).await.unwrap();
    let port = free_port();
    let snapshot = to_http2(port, &[listener.local_addr().unwrap()]);
    // Of three streams at once, and more than there can be.
    for (window, streams, expected) in [(70_000, 3, 210_000), (1 << 30, 3, (1 << 31) - 1)] {
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.http.upstream_h2_stream_window = window;
            bootstrap.http.upstream_h2_streams_max = streams;
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        client.send_bytes(get).await.unwrap();
        let (mut tcp, _) = within("a connection", listener.accept()).await.unwrap();
        tcp.read_exact(&mut [0; 24]).await.unwrap();
        let mut frames = Frames { tcp };
        let told = frames.until(SETTINGS, 0).await.unwrap().payload;
        let setting = [&[0, 4], &window.to_be_bytes()[..]].concat();
        assert!(told.chunks(6).any(|it| it == setting), "{told:?}");
        let more = frames.until(WINDOW_UPDATE, 0).await.unwrap().payload;
        let more = u32::from_be_bytes(more.try_into().unwrap());
        assert_eq!(65_535 + more, expected);
        drop((client, frames));
        gateway.stopped().await;
    }
}

#[tokio::test]
async fn what_the_origin_says_it_did_not_process_is_sent_again() {
    // A refused stream, and one beyond the last that a goodbye names; even a POST is safe.
    type Refuse = fn(u32) -> (u8, u32, Vec<u8>);
    let ways: [(&str, Refuse); 2] = [
        ("REFUSED_STREAM", |stream| {
            (RST_STREAM, stream, REFUSED_STREAM.to_be_bytes().to_vec())
        }),
        ("GOAWAY", |_| (GOAWAY, 0, goaway(0))),
    ];
    for (name, refuse) in ways {
        let work = async {
            let is_first = Rc::new(Cell::new(true));
            let answer = async move |frames: &mut Frames, request: Frame| {
                if is_first.replace(false) {
                    let (kind, stream, payload) = refuse(request.stream);
                    frames.send(kind, 0, stream, &payload).await.unwrap();
                } else {
                    ok(frames, request.stream).await;
                }
            };
            let origin = Origin::start(answer).await;
            let (_gateway, port) = gateway_to(&origin).await;
            let mut client = Http1Client::connect(at(port)).await.unwrap();
            let post = Request::post("/").header("host", "x").body(Bytes::new());
            let response = client.send(post.unwrap()).await.unwrap();
            assert_eq!(
                (response.status.as_u16(), origin.requests()),
                (200, 2),
                "{name}"
            );
        };
        LocalSet::new().run_until(work).await;
    }
}

#[tokio::test]
async fn a_reset_that_says_nothing_does_not_repeat_a_post() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            reset(frames, request.stream, CANCEL).await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let post = Request::post("/").header("host", "x").body(Bytes::new());
        let response = client.send(post.unwrap()).await.unwrap();
        assert_eq!((response.status.as_u16(), origin.requests()), (502, 1));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_stream_that_the_origin_resets_is_no_connection_that_ended() {
    // The code, how many more attempts the rule allows, and how often the request arrives.
    for (code, attempts, requests) in [
        (NO_ERROR, 0, 1),
        (INTERNAL_ERROR, 0, 1),
        (CANCEL, 0, 1),
        (CANCEL, 1, 2),
        (CANCEL, 5, 6),
        // It says that nothing was processed.
        (REFUSED_STREAM, 0, 3),
    ] {
        let work = async {
            let is_first = Rc::new(Cell::new(true));
            let origin = Origin::start(async move |frames: &mut Frames, request: Frame| {
                match is_first.replace(false) {
                    true => ok(frames, request.stream).await,
                    false => reset(frames, request.stream, code).await,
                }
            })
            .await;
            let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
            route.rules[0].retry = (attempts > 0).then(|| retry(&[], attempts, 0)).flatten();
            let port = free_port();
            let snapshot = SnapshotBuilder::new("v1")
                .http_listener("infra/gw/http", port)
                .http_route(route)
                .h2c_cluster("shop/b:80", &[origin.address])
                .build();
            let gateway = Gateway::serving(&snapshot).await;
            // One connection is served by one worker, hence one pool.
            let mut client = Http1Client::connect(at(port)).await.unwrap();
            assert_eq!(client.get("x", "/").await.unwrap().status, 200);
            let response = client.get("x", "/").await.unwrap();
            let row = format!("{code} {attempts}");
            assert_eq!(response.status, 502, "{row}");
            assert!(response.text().contains("upstream_reset"), "{row}");
            assert_eq!(origin.requests() - 1, requests, "{row}");
            assert_eq!(origin.connections(), 1, "{row}");
            let told = gateway.metric("backend_retries_total", &[]);
            assert_eq!(told, u64::from(attempts), "{row}");
        };
        LocalSet::new().run_until(work).await;
    }
}

#[tokio::test]
async fn an_origin_that_resets_every_stream_is_left_out() {
    for (method, code) in [
        (Method::GET, CANCEL),
        (Method::POST, INTERNAL_ERROR),
        (Method::POST, REFUSED_STREAM),
    ] {
        let work = async {
            let bad = Origin::start(async move |frames: &mut Frames, request: Frame| {
                reset(frames, request.stream, code).await;
            })
            .await;
            let good = Origin::start(async |frames: &mut Frames, request: Frame| {
                ok(frames, request.stream).await;
            })
            .await;
            let endpoints = [bad.address, good.address];
            let mut cluster = cluster("shop/b:80", ClusterProtocol::H2c, &endpoints);
            cluster.policy = Some(ejecting(3).into());
            let port = free_port();
            let snapshot = SnapshotBuilder::new("v1")
                .http_listener("infra/gw/http", port)
                .route("shop/r", "", "/", "shop/b:80")
                .add_cluster(cluster)
                .build();
            let gateway = Gateway::serving(&snapshot).await;
            let mut client = Http1Client::connect(at(port)).await.unwrap();
            for _ in 0..20 {
                let request = Request::builder().method(method.clone()).uri("/");
                let request = request.header("host", "x").body(Bytes::new()).unwrap();
                client.send(request).await.unwrap();
            }
            let ejections = gateway.metric("backend_endpoint_ejections_total", &[]);
            assert_eq!((bad.requests(), ejections), (3, 1), "{method} {code}");
        };
        LocalSet::new().run_until(work).await;
    }
}

#[tokio::test]
async fn a_kept_connection_that_ends_costs_an_idempotent_request_nothing() {
    let work = async {
        // Each connection serves one request and ends with the next.
        let served = Rc::new(RefCell::new(Vec::new()));
        let origin = Origin::start(async move |frames: &mut Frames, request: Frame| {
            let client = frames.tcp.peer_addr().unwrap();
            if served.borrow().contains(&client) {
                let _ = frames.tcp.shutdown().await;
            } else {
                served.borrow_mut().push(client);
                ok(frames, request.stream).await;
            }
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        assert_eq!((origin.requests(), origin.connections()), (3, 2));
        let post = Request::post("/")
            .header("host", "x")
            .body(Bytes::new())
            .unwrap();
        assert_eq!(client.send(post).await.unwrap().status, 502);
        assert_eq!((origin.requests(), origin.connections()), (4, 2));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn running_streams_end_behind_a_goodbye_and_new_ones_go_elsewhere() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let fields = [(":status", "200"), ("content-length", "2")];
            frames.headers(request.stream, 0, &fields).await;
            let goodbye = goaway(request.stream);
            frames.send(GOAWAY, 0, 0, &goodbye).await.unwrap();
            frames
                .send(DATA, END_STREAM, request.stream, b"ok")
                .await
                .unwrap();
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for number in 1..=3 {
            assert_eq!(client.get("x", "/").await.unwrap().text(), "ok");
            assert_eq!((origin.requests(), origin.connections()), (number, number));
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn an_upload_ends_when_the_origin_wants_no_more_and_its_answer_is_whole() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let fields = [(":status", "200"), ("content-length", "5")];
            frames.headers(request.stream, 0, &fields).await;
            frames
                .send(DATA, END_STREAM, request.stream, b"early")
                .await
                .unwrap();
            reset(frames, request.stream, NO_ERROR).await;
        })
        .await;
        let (_gateway, port) = gateway_to(&origin).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        let post = Request::post("http://x/").body(()).unwrap();
        let exchange = client.open(post).await.unwrap();
        let response = within("an early answer", exchange.response())
            .await
            .unwrap();
        assert_eq!(
            (response.status.as_u16(), response.text().as_str()),
            (200, "early")
        );
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_body_that_the_client_cut_never_looks_whole() {
    let work = async {
        let seen = Rc::new(RefCell::new(None));
        let answer = {
            let seen = seen.clone();
            async move |frames: &mut Frames, request: Frame| {
                while let Some(frame) = frames.next().await {
                    let is_end = frame.kind == DATA && frame.flags & END_STREAM != 0;
                    if frame.stream == request.stream && (is_end || frame.kind == RST_STREAM) {
                        *seen.borrow_mut() = Some(frame);
                        return;
                    }
                }
            }
        };
        let origin = Origin::start(answer).await;
        let (_gateway, port) = gateway_to(&origin).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let part =
            b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        client.send_bytes(part).await.unwrap();
        until(DEADLINE, async || origin.requests() == 1).await;
        drop(client);
        until(DEADLINE, async || seen.borrow().is_some()).await;
        let last = seen.borrow_mut().take().unwrap();
        assert_eq!(
            (last.kind, last.payload),
            (RST_STREAM, CANCEL.to_be_bytes().to_vec())
        );
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn an_origin_that_fell_silent_is_found_and_left() {
    let work = async {
        // The first connection is read and never answered, not even its pings.
        let is_first = Rc::new(Cell::new(true));
        let answer = async move |frames: &mut Frames, request: Frame| {
            if is_first.replace(false) {
                while frames.next().await.is_some() {}
            } else {
                ok(frames, request.stream).await;
            }
        };
        let origin = Origin::start(answer).await;
        let port = free_port();
        let _gateway = Gateway::with(&to_http2(port, &[origin.address]), |bootstrap| {
            bootstrap.http.upstream_h2_ping_after = Duration::from_millis(100);
            bootstrap.http.upstream_h2_ping_timeout = Duration::from_millis(100);
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let first = within("the silence is noticed", client.get("x", "/")).await;
        assert_eq!(first.unwrap().status, 502);
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        assert_eq!(origin.connections(), 2);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_slow_origin_that_answers_pings_is_waited_for() {
    let work = async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            // Reading answers the ping.
            let _ = tokio::time::timeout(Duration::from_millis(600), frames.until(DATA, 99)).await;
            ok(frames, request.stream).await;
        })
        .await;
        let port = free_port();
        let _gateway = Gateway::with(&to_http2(port, &[origin.address]), |bootstrap| {
            bootstrap.http.upstream_h2_ping_after = Duration::from_millis(100);
            bootstrap.http.upstream_h2_ping_timeout = Duration::from_millis(200);
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        assert_eq!(origin.connections(), 1);
    };
    LocalSet::new().run_until(work).await;
}
