//! Rude origins: what they send must not reach another request, and must not be made up.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, until};
use http::{Method, Request};
use tokio::task::LocalSet;

use super::frames::{DATA, END_STREAM, Frame, Frames, Origin};
use super::{to, to_http2};
use crate::support::{Gateway, at};

async fn scripted(steps: impl IntoIterator<Item = Step>) -> Backend {
    Backend::start("rude", Kind::Scripted(Script::new(steps))).await
}

fn send(bytes: &'static [u8]) -> Step {
    Step::Send(Bytes::from_static(bytes))
}

#[tokio::test]
async fn an_empty_response_of_http2_ends_for_an_http1_client() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let fields = [(":status", "200"), ("x-seen", "yes")];
            frames.headers(request.stream, END_STREAM, &fields).await;
        })
        .await;
        let port = free_port();
        let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..2 {
            let response = client.get("x", "/").await.expect("a response that ends");
            assert_eq!(response.status, 200);
            assert_eq!(response.header("content-length"), "0");
            assert!(response.body.is_empty());
        }
        assert_eq!(origin.requests(), 2);
    });
    work.await;
}

#[tokio::test]
async fn nothing_follows_a_head_that_cannot_have_a_body() {
    let backend = Backend::http2("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to_http2(port, &[backend.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for (method, path) in [
        (Method::GET, "/?status=204&bytes=0&chunked"),
        (Method::GET, "/?status=304&bytes=0&chunked"),
        (Method::GET, "/?status=304&bytes=0"),
        (Method::HEAD, "/?bytes=0&chunked"),
        (Method::HEAD, "/?bytes=0"),
    ] {
        // The second response begins exactly behind the first one's head.
        let first = Request::builder().method(&method).uri(path);
        let first = first.header("host", "x").body(Bytes::new()).unwrap();
        client.send(first).await.unwrap();
        let second = client.get("x", "/after").await;
        let second = second.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        assert_eq!(second.json()["path"], "/after", "{method} {path}");
    }
}

#[tokio::test]
async fn a_post_is_not_repeated_when_the_origin_breaks_http2() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let origin = Origin::start(async |frames: &mut Frames, _: Frame| {
            // DATA on stream 0 is an error of the connection (RFC 9113 6.1).
            let _ = frames.send(DATA, 0, 0, b"x").await;
        })
        .await;
        let port = free_port();
        let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let post = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
        client.send_bytes(post.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.status, 502);
        assert_eq!(origin.requests(), 1, "the origin may have acted on it");
    });
    work.await;
}

#[tokio::test]
async fn bytes_nobody_asked_for_reach_no_other_request() {
    for surplus in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"[..],
        b"HTTP/1.1 204 No Content\r\ncontent-length: 46\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
    ] {
        let origin = scripted([Step::ReadHead, send(surplus), Step::Hold]).await;
        let port = free_port();
        let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..3 {
            let response = client.get("x", "/").await.unwrap();
            assert_ne!(response.text(), "evil");
        }
        assert_eq!(origin.connections(), 3, "none of them was used again");
    }
}

#[tokio::test]
async fn a_late_body_of_a_response_without_one_reaches_no_other_request() {
    // The length of a 204 means nothing, but an origin that says one may send one.
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 204 No Content\r\ncontent-length: 41\r\n\r\n"),
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
        Step::Hold,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("x", "/").await.unwrap().status, 204);
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn an_early_answer_ends_the_origins_connection_and_not_the_clients() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly"),
        Step::Hold,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..2 {
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 3000\r\n\r\n";
        client.send_bytes(head).await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.text(), "early");
        // The rest of the body is no request, and the next request is found behind it.
        client.send_bytes(&[b'x'; 3000]).await.unwrap();
    }
    assert_eq!(origin.connections(), 2, "half a request was left in it");
    until(DEADLINE, async || origin.open_connections() == 0).await;
}

#[tokio::test]
async fn a_cut_body_without_length_is_seen_as_cut() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n"),
        Step::Pause(Duration::from_millis(50)),
        Step::Reset,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    client
        .send_bytes(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let head = client.read_head().await.unwrap();
    assert_eq!(head.status, 200);
    // The end of the connection is the end of the body, so only a reset tells.
    let body = client.read_to_end().await;
    assert!(body.is_err(), "HTTP/1.0 saw a whole response: {body:?}");
}

#[tokio::test]
async fn a_body_that_ends_with_the_origins_connection_is_seen_as_cut_by_http11() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\n\r\nshort"),
        Step::Pause(Duration::from_millis(50)),
        Step::Reset,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let response = http1::get(at(port), "x", "/").await;
    assert!(
        response.is_err(),
        "HTTP/1.1 saw a whole response: {response:?}"
    );
}

#[tokio::test]
async fn an_endless_row_of_interim_responses_is_refused() {
    let mut steps = vec![Step::ReadHead];
    steps.extend((0..1000).map(|_| send(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")));
    steps.push(send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"));
    steps.push(Step::Hold);
    let origin = scripted(steps).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 502);
}

#[tokio::test]
async fn a_switch_nobody_asked_for_is_502() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        Step::Hold,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 502);
    let http2 = Http2Client::connect(at(port)).await.unwrap();
    assert_eq!(http2.get("x", "/").await.unwrap().status, 502);
}

#[tokio::test]
async fn a_refused_upgrade_leaves_an_ordinary_connection() {
    let origin = scripted([
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno"),
        Step::ReadHead,
        send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext"),
        Step::Hold,
    ])
    .await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    // What follows the refused upgrade is a request of its own, parsed and written anew.
    let both = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n\
        GET /a/../b HTTP/1.1\r\nhost: x\r\n\r\n";
    client.send_bytes(both.as_bytes()).await.unwrap();
    for expected in ["no", "next"] {
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.text(), expected);
    }
    assert_eq!(origin.request_lines(), ["GET /ws", "GET /b"]);
}

#[tokio::test]
async fn too_many_fields_of_an_http2_origin_are_502() {
    let local = LocalSet::new();
    let work = local.run_until(async {
        let origin = Origin::start(async |frames: &mut Frames, request: Frame| {
            let mut fields = vec![(":status", "200")];
            fields.extend((0..1000).map(|_| ("a", "b")));
            frames.headers(request.stream, END_STREAM, &fields).await;
        })
        .await;
        let port = free_port();
        let _gateway = Gateway::serving(&to_http2(port, &[origin.address])).await;
        assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 502);
    });
    work.await;
}
