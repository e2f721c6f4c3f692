//! What must end, ends; what makes progress, goes on.

use std::io::{Read as _, Write as _};
use std::net::TcpListener as StdListener;
use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Hole, Kind, Script, Step};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::client::websocket;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;

use super::frames::{END_STREAM, Frames, PING, RST_STREAM, request};
use super::{nowhere, to};
use crate::support::{Gateway, at, http_route};

#[tokio::test]
async fn a_client_that_never_reads_our_own_answers_is_cut() {
    let port = free_port();
    let _gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(300);
        bootstrap.http.keepalive_requests_max = None;
    })
    .await;
    let (_reading, mut writing) = tokio::net::TcpStream::connect(at(port))
        .await
        .unwrap()
        .into_split();
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    within("the write deadline", async {
        while writing.write_all(requests.as_bytes()).await.is_ok() {}
    })
    .await;
}

#[tokio::test]
async fn a_stream_without_a_window_is_reset() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/r", "", "/backend", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(300);
    })
    .await;
    // Neither a backend's answer nor one of ours may wait for ever; nor a refusal.
    let initial_window_size = 4;
    for path in ["/backend", "/nowhere", "/%zz"] {
        let mut client = Frames::connect(at(port), &[(initial_window_size, 0)]).await;
        client.get(1, path).await;
        assert!(client.until(RST_STREAM, 1).await.is_some(), "{path}");
    }
}

#[tokio::test]
async fn an_http2_client_that_never_reads_is_cut() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(500);
    })
    .await;
    // Windows are wide open, so that only the socket holds the answers back.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let tcp = socket.connect(at(port)).await.unwrap();
    let initial_window_size = 4;
    let mut client = Frames::start(tcp, &[(initial_window_size, 0x7fff_ffff)]).await;
    let window_update = 8;
    let most = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
    client.send(window_update, 0, 0, &most).await.unwrap();
    for stream in 0..100 {
        client.get(2 * stream + 1, "/?bytes=100000000").await;
    }
    within("the write deadline", async {
        while client.send(PING, 0, 0, &[0; 8]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_quiet_client_does_not_end_a_response_that_flows() {
    let part = Step::Send(Bytes::from_static(b"4\r\npart\r\n"));
    let mut steps = vec![
        Step::ReadHead,
        Step::Send(Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        )),
    ];
    for _ in 0..15 {
        steps.push(Step::Pause(Duration::from_millis(200)));
        steps.push(part.clone());
    }
    steps.push(Step::Send(Bytes::from_static(b"0\r\n\r\n")));
    steps.push(Step::Hold);
    let origin = Backend::start("stream", Kind::Scripted(Script::new(steps))).await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
        bootstrap.http.request_body_idle = Duration::from_millis(500);
    })
    .await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let post = Request::post("http://x.example.com/").body(()).unwrap();
    let mut exchange = client.open(post).await.unwrap();
    exchange.send("hello").await.unwrap();
    exchange.head().await.unwrap();
    let mut bytes = 0;
    while let Some(data) = exchange.next().await.expect("the response goes on") {
        bytes += data.len();
    }
    assert_eq!(bytes, 15 * 4);
}

#[tokio::test]
async fn a_quiet_client_without_a_response_is_cut() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.request_body_idle = Duration::from_millis(300);
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let half = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhalf";
    client.send_bytes(half).await.unwrap();
    let response = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(response.status, 408);
    until(DEADLINE, async || backend.open_connections() == 0).await;
}

#[tokio::test]
async fn an_upload_that_moves_slowly_is_not_cut_by_the_wait_for_its_answer() {
    const BYTES: usize = 24 * 1024 * 1024;
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let origin = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 256 * 1024];
        let mut seen = 0;
        // Takes a few seconds in all, and never pauses for long.
        while seen < BYTES {
            std::thread::sleep(Duration::from_millis(30));
            match tcp.read(&mut buffer).unwrap() {
                0 => return false,
                bytes => seen += bytes,
            }
        }
        tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .is_ok()
    });
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[address]), |bootstrap| {
        bootstrap.http.response_start_timeout = Duration::from_millis(1000);
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {BYTES}\r\n\r\n");
    client.send_bytes(head.as_bytes()).await.unwrap();
    client.send_bytes(&vec![0; BYTES]).await.unwrap();
    let response = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(response.status, 200, "{}", response.text());
    assert!(origin.join().unwrap());
}

#[tokio::test]
async fn a_websocket_outlives_the_timeout_of_its_request() {
    let backend = Backend::start("w", Kind::WebSocket).await;
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].timeouts.request = Some(Duration::from_millis(300));
    route.rules[0].timeouts.backend_request = Some(Duration::from_millis(300));
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let (mut socket, _) = websocket::connect(at(port), "x", "/").await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let message = websocket::Message::text("still here");
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bytes_does_not_hold_back_the_routes_timeout() {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let origin = std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().unwrap();
        let _ = tcp.read(&mut [0; 4096]);
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n");
        let flood = vec![0; 1024 * 1024];
        let mut sent = 0_u64;
        while sent < 100_000 && tcp.write_all(&flood).is_ok() {
            sent += 1;
        }
        sent
    });
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].timeouts.request = Some(Duration::from_millis(500));
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[address])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let client = std::thread::spawn(move || {
        let mut tcp = std::net::TcpStream::connect(at(port)).unwrap();
        tcp.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        let mut buffer = vec![0; 4 * 1024 * 1024];
        let began = std::time::Instant::now();
        while began.elapsed() < DEADLINE && matches!(tcp.read(&mut buffer), Ok(1..)) {}
        began.elapsed()
    });
    let lasted = tokio::task::spawn_blocking(move || client.join().unwrap());
    let lasted = lasted.await.unwrap();
    assert!(lasted < DEADLINE / 4, "{lasted:?}");
    tokio::task::spawn_blocking(move || origin.join().unwrap())
        .await
        .unwrap();
}

#[tokio::test]
async fn streams_that_are_given_up_do_not_go_on_dialling() {
    let hole = Hole::new().await;
    let address = hole.address();
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[address]), |bootstrap| {
        bootstrap.http.connect_retries = 0;
    })
    .await;
    until(DEADLINE, async || dialling(address.port()) == 0).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let mut exchanges = Vec::new();
    for _ in 0..20 {
        let get = Request::get("http://x.example.com/").body(()).unwrap();
        exchanges.push(client.open(get).await.unwrap());
    }
    until(DEADLINE, async || dialling(address.port()) >= 20).await;
    drop(exchanges);
    let soon = Duration::from_secs(2);
    until(soon, async || dialling(address.port()) == 0).await;
}

/// Connections to that port whose handshake is under way.
fn dialling(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let peer = format!(":{port:04X}");
    let is_dialling = |line: &&str| {
        let mut words = line.split_whitespace().skip(2);
        words.next().is_some_and(|remote| remote.ends_with(&peer)) && words.next() == Some("02")
    };
    table.lines().filter(is_dialling).count()
}

#[tokio::test]
async fn a_client_that_opens_and_resets_all_day_is_sent_away() {
    let backend = Backend::start("hole", Kind::BlackHole).await;
    let port = free_port();
    let _gateway = Gateway::serving(&to(port, &[backend.address()])).await;
    let mut client = Frames::connect(at(port), &[]).await;
    let cancel = 8_u32.to_be_bytes();
    let mut opened = 0_u32;
    within("the end of the connection", async {
        loop {
            let stream = 2 * opened + 1;
            let fields = request("GET", "/");
            let block = super::frames::block(&fields);
            let flags = END_STREAM | super::frames::END_HEADERS;
            let sent = client
                .send(super::frames::HEADERS, flags, stream, &block)
                .await;
            // Given up only once it was passed on, so that h2's own count does not see it.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if sent.is_err() || client.send(RST_STREAM, 0, stream, &cancel).await.is_err() {
                return;
            }
            opened += 1;
        }
    })
    .await;
    assert!((500..3000).contains(&opened), "{opened}");
}

#[tokio::test]
async fn idle_connections_to_origins_are_closed() {
    for kind in [Kind::Http1, Kind::Http2] {
        let is_http2 = matches!(kind, Kind::Http2);
        let backend = Backend::start("b", kind).await;
        let port = free_port();
        let snapshot = if is_http2 {
            super::to_http2(port, &[backend.address()])
        } else {
            to(port, &[backend.address()])
        };
        let _gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.http.upstream_idle_timeout = Duration::from_millis(300);
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
        until(DEADLINE, async || backend.open_connections() == 0).await;
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_http2_origin_that_never_speaks_is_504() {
    let backend = Backend::start("hole", Kind::BlackHole).await;
    let port = free_port();
    let snapshot = super::to_http2(port, &[backend.address()]);
    let _gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.response_start_timeout = Duration::from_millis(300);
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(client.get("x", "/").await.unwrap().status, 504);
}

#[tokio::test]
async fn a_window_that_drips_open_is_no_progress() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(500);
    })
    .await;
    let initial_window_size = 4;
    let mut client = Frames::connect(at(port), &[(initial_window_size, 0)]).await;
    client.get(1, "/?bytes=100000").await;
    within("the write deadline", async {
        let window_update = 8;
        loop {
            let one = 1_u32.to_be_bytes();
            if client.send(window_update, 0, 1, &one).await.is_err() {
                return;
            }
            let wait = tokio::time::timeout(Duration::from_millis(100), client.next());
            match wait.await {
                Ok(Some(frame)) if frame.kind == RST_STREAM => return,
                Ok(None) => return,
                _ => {}
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_tls_client_that_never_reads_is_cut() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .https_listener("infra/gw/http", port, &["x.example.com"], &["infra/x"])
        .certificate("infra/x", &authority.server(&["x.example.com"]))
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.write_idle = Duration::from_millis(500);
    })
    .await;
    let tls = TlsClient::trusting(&authority);
    let stream = tls.connect(at(port), "x.example.com").await.unwrap();
    let mut client = Http1Client::over(stream);
    let get = b"GET /?bytes=100000000 HTTP/1.1\r\nhost: x.example.com\r\n\r\n";
    client.send_bytes(get).await.unwrap();
    until(DEADLINE, async || backend.requests() == 1).await;
    until(DEADLINE, async || backend.open_connections() == 0).await;
    assert!(
        client.read_to_end().await.is_err(),
        "no close_notify behind a part"
    );
}

#[tokio::test]
async fn a_busy_http2_connection_ends_by_its_age() {
    let port = free_port();
    let _gateway = Gateway::with(&nowhere(port), |bootstrap| {
        bootstrap.http.connection_age_max = Some(Duration::from_millis(500));
    })
    .await;
    let mut client = Http2Client::connect(at(port)).await.unwrap();
    within("GOAWAY", async {
        while client.is_open().await {
            // What was refused because of GOAWAY may be sent over another connection.
            let _ = client.get("x", "/").await;
        }
    })
    .await;
    client.closed().await.unwrap();
}

#[tokio::test]
async fn clients_that_read_nothing_do_not_starve_those_that_share_the_origins_connection() {
    let backend = Backend::http2("b").await;
    let port = free_port();
    let snapshot = super::to_http2(port, &[backend.address()]);
    let _gateway = Gateway::with(&snapshot, |bootstrap| bootstrap.workers = 1).await;
    let mut other = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(other.get("x", "/").await.unwrap().status, 200);
    let initial_window_size = 4;
    let mut greedy = Frames::connect(at(port), &[(initial_window_size, 0)]).await;
    for stream in 0..90 {
        greedy.get(2 * stream + 1, "/?bytes=10000000").await;
    }
    until(DEADLINE, async || backend.requests() == 91).await;
    for _ in 0..20 {
        let response = other.get("x", "/?bytes=1000000").await.unwrap();
        assert_eq!(response.body.len(), 1_000_000);
    }
    assert_eq!(backend.connections(), 1);
}
