//! Connections that begin with a PROXY protocol header: who must, who may, and what comes of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, SnapshotBuilder};
use ir::listener::ProxyProtocol;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::{Gateway, at};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 80\r\n";
const LOCAL_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

fn v2() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x13, 0x88, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &addresses[..]].concat()
}

/// The header, then what follows in the same segment.
async fn connect(address: SocketAddr, header: &[u8]) -> Http1Client {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(header).await.unwrap();
    Http1Client::over(stream)
}

fn required(sources: &[&str]) -> Option<ProxyProtocol> {
    let sources = sources.iter().map(|text| text.parse().unwrap());
    Some(ProxyProtocol::Required(sources.collect()))
}

fn snapshot(port: u16, backend: &Backend, asked: Option<ProxyProtocol>) -> ir::Snapshot {
    let mut listener = dataplane_testkit::snapshot::listener(
        "infra/gw/http",
        port,
        ir::listener::ListenerProtocol::Http,
    );
    listener.settings.proxy_protocol = asked;
    SnapshotBuilder::new("v1")
        .listener(listener)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

#[tokio::test]
async fn the_header_is_taken_off_and_the_request_behind_it_served() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&snapshot(port, &backend, required(&[]))).await;
    for header in [V1, &v2(), LOCAL_V2, b"PROXY UNKNOWN\r\n"] {
        let mut client = connect(at(port), header).await;
        for _ in 0..2 {
            assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
        }
        // In one segment with the request.
        let request = b"GET /one HTTP/1.1\r\nhost: x.example.com\r\n\r\n";
        let mut client = connect(at(port), &[header, request].concat()).await;
        let response = client.read_response(&http::Method::GET).await.unwrap();
        assert_eq!(response.json()["path"], "/one");
    }
    // Byte by byte.
    let mut client = connect(at(port), b"").await;
    for byte in v2() {
        client.send_bytes(&[byte]).await.unwrap();
    }
    assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_connection_without_a_sound_header_is_closed_and_never_answered() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::serving(&snapshot(port, &backend, required(&[]))).await;
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: x.example.com\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 99999\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\x16\x03\x01\x02\0\x01",
    ] {
        let mut client = connect(at(port), bytes).await;
        let answer = client.read_to_end().await;
        // A reset is as good: our bytes were left unread.
        assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()));
    }
    assert_eq!(backend.requests(), 0);
}

#[tokio::test]
async fn a_header_with_more_extensions_than_the_limit_says_is_not_taken() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = snapshot(port, &backend, required(&[]));
    let _gateway = Gateway::with(&snapshot, |bootstrap| bootstrap.proxy_tlvs_max = 100).await;
    for (bytes, is_taken) in [(100, true), (101, false)] {
        let mut header = v2();
        header[15] += bytes;
        // One that means nothing (PP2_TYPE_NOOP).
        header.extend([&[4, 0, bytes - 3], &vec![0; usize::from(bytes - 3)][..]].concat());
        let mut client = connect(at(port), &header).await;
        let answer = client.get("x.example.com", "/").await;
        assert_eq!(answer.is_ok(), is_taken, "{bytes}");
    }
}

#[tokio::test]
async fn a_header_that_does_not_come_ends_the_connection_in_time() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let hurry = |bootstrap: &mut Bootstrap| {
        bootstrap.http.first_byte_timeout = Duration::from_millis(200);
    };
    let snapshot = snapshot(port, &backend, required(&[]));
    let _gateway = Gateway::with(&snapshot, hurry).await;
    for begin in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n"] {
        let began = Instant::now();
        let mut client = connect(at(port), begin).await;
        let answer = client.read_to_end().await;
        assert!(
            began.elapsed() < Duration::from_secs(9),
            "it is 10 by default"
        );
        assert!(answer.is_err() || answer.is_ok_and(|bytes| bytes.is_empty()));
    }
}

#[tokio::test]
async fn only_trusted_sources_may_bring_headers() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let strangers = snapshot(port, &backend, required(&["10.0.0.0/8"]));
    let gateway = Gateway::serving(&strangers).await;
    let mut client = connect(at(port), V1).await;
    assert!(client.get("x.example.com", "/").await.is_err());
    // The next configuration trusts us; the socket stays.
    let mut trusted = snapshot(port, &backend, required(&["10.0.0.0/8", "127.0.0.0/8"]));
    trusted.version = ir::Version::new("v2");
    gateway.apply(&trusted).await;
    let mut client = connect(at(port), V1).await;
    assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn the_process_asks_for_headers_unless_the_gateway_says_otherwise() {
    let backend = Backend::http1("b").await;
    let (port, open) = (free_port(), free_port());
    let ask = |bootstrap: &mut Bootstrap| {
        bootstrap.listener_defaults.proxy_protocol = ProxyProtocol::Required(Vec::new());
    };
    let mut listener = dataplane_testkit::snapshot::listener(
        "infra/gw/open",
        open,
        ir::listener::ListenerProtocol::Http,
    );
    listener.settings.proxy_protocol = Some(ProxyProtocol::Off);
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .listener(listener)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::with(&snapshot, ask).await;
    assert!(
        connect(at(port), b"")
            .await
            .get("x.example.com", "/")
            .await
            .is_err()
    );
    let mut client = connect(at(port), V1).await;
    assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    let mut client = connect(at(open), b"").await;
    assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    let refused = connect(at(open), V1).await.get("x.example.com", "/").await;
    assert!(refused.map_or(true, |response| response.status == 400));
}

#[tokio::test]
async fn the_header_comes_before_tls() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .https_listener("infra/gw/https", port, &[], &["infra/cert"])
        .certificate("infra/cert", &authority.server(&["a.example.com"]))
        .with(|snapshot| {
            let mut listener = (**snapshot.listeners.get("infra/gw/https").unwrap()).clone();
            listener.settings.proxy_protocol = required(&[]);
            snapshot.listeners.insert(listener);
        })
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let tls = TlsClient::trusting(&authority);
    let (stream, _) = connect(at(port), &v2()).await.into_stream();
    let stream = tls.over(stream, "a.example.com").await.unwrap();
    let mut client = Http1Client::over(stream);
    assert_eq!(client.get("a.example.com", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn connections_are_counted_by_the_client_that_the_header_names() {
    let backend = Backend::http1("b").await;
    let (http, tcp) = (free_port(), free_port());
    let mut snapshot = snapshot(http, &backend, required(&["127.0.0.0/8"]));
    let mut bytes = dataplane_testkit::snapshot::listener(
        "infra/gw/tcp",
        tcp,
        ir::listener::ListenerProtocol::Tcp,
    );
    bytes.settings.proxy_protocol = required(&["127.0.0.0/8"]);
    snapshot.listeners.insert(bytes);
    snapshot
        .stream_routes
        .insert(dataplane_testkit::snapshot::stream_route(
            ir::stream_route::StreamKind::Tcp,
            "tcp/shop/b",
            "infra/gw/tcp",
            &[],
            &[("shop/b:80", 1)],
        ));
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.client_connections_max = Some(2);
    })
    .await;
    let ask = async |client: &mut Http1Client| client.get("x.example.com", "/").await;
    for (net, port) in [(1, http), (2, tcp)] {
        let mut held = Vec::new();
        // All come from one balancer, which is not what is counted.
        for host in 1..=4 {
            let header = format!("PROXY TCP4 10.1.{net}.{host} 10.0.0.1 5000 80\r\n");
            for _ in 0..2 {
                let mut client = connect(at(port), header.as_bytes()).await;
                assert_eq!(ask(&mut client).await.unwrap().status, 200, "{host}");
                held.push(client);
            }
            let mut third = connect(at(port), header.as_bytes()).await;
            assert!(ask(&mut third).await.is_err(), "{host}");
        }
        // Of a /64 all are one client, in whichever form it is written.
        for (address, comes_in) in [
            ("0::1", true),
            ("0:0::2", true),
            ("0:0:0:0:0:3", false),
            ("1::3", true),
        ] {
            let header = format!("PROXY TCP6 2001:db8:{net}:{address} 2001:db8::99 5000 80\r\n");
            let mut client = connect(at(port), header.as_bytes()).await;
            assert_eq!(ask(&mut client).await.is_ok(), comes_in, "{address}");
            held.push(client);
        }
        // One that speaks for itself is counted as itself.
        for comes_in in [true, true, false] {
            let mut client = connect(at(port), LOCAL_V2).await;
            assert_eq!(ask(&mut client).await.is_ok(), comes_in);
            held.push(client);
        }
        // Who leaves makes room.
        drop(held);
        dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
            let mut one = connect(at(port), LOCAL_V2).await;
            let mut two = connect(at(port), LOCAL_V2).await;
            ask(&mut one).await.is_ok() && ask(&mut two).await.is_ok()
        })
        .await;
    }
    let text = gateway.scrape();
    assert!(text.contains("limit=\"client\"}"), "{text}");
}
