//! Limits on the parts of a message that are neither head nor body, and on what is held of one.

use std::time::Duration;

use bytes::Bytes;
use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, until, within};
use http::Method;

use super::to;
use crate::support::{Gateway, at};

async fn scripted(steps: Vec<Step>) -> Backend {
    Backend::start("scripted", Kind::Scripted(Script::new(steps))).await
}

#[tokio::test]
async fn chunk_extensions_are_held_to_the_limit_on_both_sides() {
    let answer = |extension: &str| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let answer = format!("{head}2;{extension}\r\nok\r\n0\r\n\r\n");
        scripted(vec![
            Step::ReadHead,
            Step::Send(answer.into()),
            Step::Finish,
        ])
    };
    let longest = "a".repeat(18);
    let too_long = "a".repeat(19);
    // The semicolon and the CR count as well.
    let few = |bootstrap: &mut Bootstrap| {
        bootstrap.http.request_head.chunk_extension_bytes_max = 20;
        bootstrap.http.response_head.chunk_extension_bytes_max = 20;
    };
    let origin = answer(&longest).await;
    let port = free_port();
    let gateway = Gateway::with(&to(port, &[origin.address()]), few).await;
    for (extension, status) in [(&longest, 200), (&too_long, 400)] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let post = format!("{head}2;{extension}\r\nok\r\n0\r\n\r\n");
        client.send_bytes(post.as_bytes()).await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.status, status, "{extension}");
    }
    until(DEADLINE, async || gateway.outcomes("bad_request") == 1).await;

    let origin = answer(&too_long).await;
    let port = free_port();
    let gateway = Gateway::with(&to(port, &[origin.address()]), few).await;
    let cut = http1::get(at(port), "x", "/").await;
    assert!(cut.is_err(), "a whole response: {cut:?}");
    until(DEADLINE, async || {
        gateway.outcomes("upstream_protocol") == 1
    })
    .await;
}

#[tokio::test]
async fn as_many_interim_responses_pass_as_the_limit_says() {
    for (count, status) in [(2, 200), (3, 502)] {
        let hint = Step::Send("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".into());
        let mut steps = vec![Step::ReadHead];
        steps.extend(vec![hint; count]);
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        steps.extend([Step::Send(answer.into()), Step::Hold]);
        let origin = scripted(steps).await;
        let port = free_port();
        let gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
            bootstrap.http.interim_responses_max = 2;
        })
        .await;
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, status, "{count}");
        let refused = u64::from(status == 502);
        let is_counted = async || gateway.outcomes("upstream_protocol") == refused;
        until(DEADLINE, is_counted).await;
    }
}

#[tokio::test]
async fn a_body_is_read_in_pieces_of_what_may_be_held() {
    const BYTES: usize = 4 << 20;
    let mut largest = Vec::new();
    for buffer_bytes in [16 << 10, 256 << 10] {
        // Without a length each piece that was read becomes a chunk.
        let origin = scripted(vec![
            Step::ReadHead,
            Step::Send("HTTP/1.1 200 OK\r\n\r\n".into()),
            Step::Send(Bytes::from(vec![b'x'; BYTES])),
            Step::Finish,
        ])
        .await;
        let port = free_port();
        let _gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
            bootstrap.http.buffer_bytes = buffer_bytes;
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let get = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        client.send_bytes(get).await.unwrap();
        client.read_head().await.unwrap();
        // Whoever reads nothing for a while finds much at once.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let body = within("the body", client.read_to_end()).await.unwrap();
        let chunks = chunk_sizes(&body);
        assert_eq!(chunks.iter().sum::<usize>(), BYTES);
        let most = chunks.into_iter().max().unwrap();
        assert!(most <= 2 * buffer_bytes, "{most} of {buffer_bytes}");
        largest.push(most);
    }
    assert!(largest[0] < largest[1], "{largest:?}");
}

/// The sizes in a body of chunks that hold nothing but `x`.
fn chunk_sizes(mut body: &[u8]) -> Vec<usize> {
    let mut sizes = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        sizes.push(size);
        body = &body[end + 2 + size + 2..];
    }
    sizes
}
