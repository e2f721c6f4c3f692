//! The end of the process under clients of both protocols over TLS: whoever was let in is answered.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dataplane_testkit::Backend;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::free_port;
use tokio::io::{AsyncRead, AsyncWrite};

use super::coalescing;
use crate::support::{Gateway, at};

const HOST: &str = "example.org";
const PATH: &str = "/?delay_ms=5";

/// A connection; nothing once nobody listens any more.
async fn connect(
    tls: &TlsClient,
    port: u16,
) -> Option<impl AsyncRead + AsyncWrite + Unpin + Send + 'static> {
    match tls.connect(at(port), HOST).await {
        Ok(stream) => Some(stream),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => None,
        Err(error) => panic!("a connection was taken and lost: {error}"),
    }
}

/// Asks over HTTP/1.1 until nobody listens.
async fn http1(tls: TlsClient, port: u16, keeps: bool, served: Arc<AtomicUsize>) {
    while let Some(stream) = connect(&tls, port).await {
        let mut client = Http1Client::over(stream);
        loop {
            let response = client.get(HOST, PATH).await.expect("a whole answer");
            assert_eq!(response.status, 200);
            served.fetch_add(1, Ordering::Relaxed);
            if !keeps || response.header("connection") == "close" {
                break;
            }
        }
    }
}

/// The same over HTTP/2; a stream that a GOAWAY leaves out was never looked at, and is asked again.
async fn http2(tls: TlsClient, port: u16, keeps: bool, served: Arc<AtomicUsize>) {
    while let Some(stream) = connect(&tls, port).await {
        let client = Http2Client::over(stream).await.expect("a connection");
        while client.is_open().await {
            match client.get(HOST, PATH).await {
                Ok(response) => assert_eq!(response.status, 200),
                Err(error) if error.is_sent_away() => break,
                Err(error) => panic!("a request was lost: {error}"),
            }
            served.fetch_add(1, Ordering::Relaxed);
            if !keeps {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_under_eight_tls_clients_loses_no_request() {
    let backend = Backend::http1("b").await;
    let authority = Authority::new("test");
    let port = free_port();
    let snapshot = coalescing(port, &authority, &[("one", &[HOST])])
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build();
    let mut gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.drain.min_accept = Duration::from_millis(300);
    })
    .await;
    let served = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for index in 0..8 {
        let (tls, served) = (TlsClient::trusting(&authority), served.clone());
        let keeps = index % 4 < 2;
        clients.push(if index % 2 == 0 {
            tokio::spawn(http1(tls.alpn(&["http/1.1"]), port, keeps, served))
        } else {
            tokio::spawn(http2(tls.alpn(&["h2"]), port, keeps, served))
        });
    }
    dataplane_testkit::until(dataplane_testkit::DEADLINE, async || {
        served.load(Ordering::Relaxed) > 200
    })
    .await;
    gateway.stop();
    for client in clients {
        client.await.unwrap();
    }
    assert!(gateway.stopped().await, "nothing was cut");
    assert_eq!(served.load(Ordering::Relaxed), backend.requests());
}
