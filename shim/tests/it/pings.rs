//! `grpcRuntime.minPingInterval`, over real connections with and without TLS.

use std::time::Duration;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use shim::settings::{GrpcRuntime, TlsFiles};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{DEADLINE, Server};

const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0beatbeat";
const PONG: &[u8] = b"\0\0\x08\x06\x01\0\0\0\0beatbeat";
const TOO_MANY: &[u8] = b"\0\0\0\x0btoo_many_pings";

fn runtime(min_ping_interval: Duration) -> GrpcRuntime {
    GrpcRuntime {
        min_ping_interval,
        ..GrpcRuntime::default()
    }
}

/// Sends so many pings, one upon the answer to the other, and gives all that came back. A connection
/// that the server has not ended is ended here.
async fn pinged(mut stream: impl AsyncRead + AsyncWrite + Unpin, count: usize) -> Vec<u8> {
    let mut heard = Vec::new();
    let talk = async {
        stream.write_all(HELLO).await?;
        for n in 1..=count {
            stream.write_all(PING).await?;
            while occurrences(&heard, PONG) < n {
                if stream.read_buf(&mut heard).await? == 0 {
                    return Ok(());
                }
            }
        }
        Ok::<_, std::io::Error>(())
    };
    tokio::time::timeout(DEADLINE, talk).await.unwrap().unwrap();
    heard
}

fn occurrences(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).filter(|w| w == &wanted).count()
}

#[tokio::test]
async fn a_client_that_pings_too_often_is_told_so_and_sent_away() {
    let server = Server::start(runtime(Duration::from_secs(15))).await;
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let heard = pinged(socket, 100).await;
    assert_eq!(occurrences(&heard, TOO_MANY), 1, "{heard:?}");
    assert_eq!(occurrences(&heard, PONG), 3);
    assert!(server.metric("xds_ping_limit_exceeded_total 1\n"));
}

#[tokio::test]
async fn the_same_holds_within_tls() {
    let authority = Authority::new("one");
    let folder = tempfile::tempdir().unwrap();
    authority
        .server(&["shim.test"])
        .write(folder.path(), "tls")
        .unwrap();
    let tls = TlsFiles {
        cert_path: folder.path().join("tls.crt"),
        key_path: folder.path().join("tls.key"),
        require_client_cert: false,
        client_ca_path: None,
    };
    let runtime = runtime(Duration::from_secs(15));
    let server = Server::start_with(runtime, Some(tls), 4).await;
    let client = TlsClient::trusting(&authority).alpn(&["h2"]);
    let stream = client.connect(server.addr, "shim.test").await.unwrap();
    let heard = pinged(stream, 100).await;
    assert_eq!(occurrences(&heard, TOO_MANY), 1, "{heard:?}");
}

#[tokio::test]
async fn without_an_interval_every_ping_is_answered() {
    let server = Server::start(runtime(Duration::ZERO)).await;
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let heard = pinged(socket, 100).await;
    assert_eq!(occurrences(&heard, PONG), 100);
    assert!(server.metric("xds_ping_limit_exceeded_total 0\n"));
}
