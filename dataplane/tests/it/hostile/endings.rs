//! How connections end: what was written arrives, whatever the other side still sends, and a client
//! that went away is noticed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::frames::{ACK, DATA, END_STREAM, Frames, PING, SETTINGS, WINDOW_UPDATE};
use super::{nowhere, to};
use crate::support::{Gateway, at};

/// An origin that answers with `steps` and then says no more.
async fn silent(steps: &[Step]) -> Backend {
    let steps = [&[Step::ReadHead], steps, &[Step::Hold]].concat();
    Backend::start("silent", Kind::Scripted(Script::new(steps))).await
}

#[tokio::test]
async fn an_early_answer_is_seen_by_who_sends_all_before_it_reads() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let refused_port = free_port();
    let _refusing = Gateway::serving(&nowhere(refused_port)).await;
    let length = 8 * 1024 * 1024;
    for (port, fields, status) in [
        (refused_port, String::new(), "404"),
        (port, "no colon\r\n".to_owned(), "400"),
        (port, "transfer-encoding: gzip\r\n".to_owned(), "501"),
    ] {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}content-length: {length}\r\n\r\n");
        let all = [head.as_bytes(), &vec![b'x'; length]].concat();
        let sent = within("the body is taken", tcp.write_all(&all)).await;
        assert!(sent.is_ok(), "{status}: {sent:?}");
        let mut answer = String::new();
        let read = within("the answer", tcp.read_to_string(&mut answer)).await;
        assert!(read.is_ok(), "{status}: {read:?} behind {answer:?}");
        let answered = answer.split(' ').nth(1);
        assert!(
            matches!(answered, Some("400" | "501" | "404")),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn who_reads_slowly_over_http2_gets_all_of_it_while_the_gateway_ends() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.drain.total = Duration::from_secs(30);
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    let tcp = socket.connect(at(port)).await.unwrap();
    let initial_window_size = 4;
    let mut client = Frames::start(tcp, &[(initial_window_size, 0x7fff_ffff)]).await;
    let most = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
    client.send(WINDOW_UPDATE, 0, 0, &most).await.unwrap();
    let bytes = 1_500_000;
    client.get(1, &format!("/?bytes={bytes}")).await;
    until(DEADLINE, async || backend.requests() == 1).await;
    gateway.stop();
    let mut received = 0;
    loop {
        let frame = client.next().await.expect("the response goes on");
        match frame.kind {
            DATA => {
                received += frame.payload.len();
                if frame.flags & END_STREAM != 0 {
                    break;
                }
                // As clients do that hand out windows as they read.
                let some = 1_u32.to_be_bytes();
                let _ = client.send(WINDOW_UPDATE, 0, 1, &some).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            PING | SETTINGS if frame.flags & ACK == 0 => {
                let payload = if frame.kind == PING {
                    &frame.payload[..]
                } else {
                    &[]
                };
                let _ = client.send(frame.kind, ACK, 0, payload).await;
            }
            _ => {}
        }
    }
    assert_eq!(received, bytes);
    drop(client);
    assert!(gateway.stopped().await);
}

#[tokio::test]
async fn a_client_that_went_away_frees_the_backend_that_is_silent() {
    let part =
        Bytes::from_static(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n");
    for steps in [vec![], vec![Step::Send(part)]] {
        let backend = silent(&steps).await;
        let authority = Authority::new("test");
        let identity = authority.server(&["x.example.com"]);
        let (port, secure) = (free_port(), free_port());
        let snapshot = SnapshotBuilder::new("v1")
            .http_listener("infra/gw/http", port)
            .https_listener("infra/gw/tls", secure, &["x.example.com"], &["infra/x"])
            .certificate("infra/x", &identity)
            .route("shop/r", "", "/", "shop/b:80")
            .cluster("shop/b:80", &[backend.address()])
            .build();
        let _gateway = Gateway::serving(&snapshot).await;
        let get = b"GET / HTTP/1.1\r\nhost: x.example.com\r\n\r\n";
        let mut plain = Http1Client::connect(at(port)).await.unwrap();
        plain.send_bytes(get).await.unwrap();
        let tls = TlsClient::trusting(&authority);
        let tls = tls.connect(at(secure), "x.example.com").await.unwrap();
        let mut tls = Http1Client::over(tls);
        tls.send_bytes(get).await.unwrap();
        until(DEADLINE, async || backend.requests() == 2).await;
        if !steps.is_empty() {
            assert_eq!(plain.read_head().await.unwrap().status, 200);
            assert_eq!(tls.read_head().await.unwrap().status, 200);
            assert!(!plain.read_some().await.unwrap().is_empty());
            assert!(!tls.read_some().await.unwrap().is_empty());
        }
        assert_eq!(backend.open_connections(), 2);
        let left = Instant::now();
        drop(plain);
        drop(tls);
        until(DEADLINE, async || backend.open_connections() == 0).await;
        assert!(
            left.elapsed() >= Duration::from_secs(1),
            "it may only have finished sending"
        );
    }
}

#[tokio::test]
async fn a_half_closed_client_gets_what_flows() {
    let part = Step::Send(Bytes::from_static(b"4\r\npart\r\n"));
    let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut steps = vec![
        Step::Pause(Duration::from_millis(1_000)),
        Step::Send(Bytes::from_static(head)),
    ];
    for _ in 0..9 {
        steps.push(Step::Pause(Duration::from_millis(500)));
        steps.push(part.clone());
    }
    steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n")));
    let origin = silent(&steps).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[origin.address()])).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    client
        .send_bytes(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    client.finish().await.unwrap();
    let response = client.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.body.len(), 9 * 4);
}
