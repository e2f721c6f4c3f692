//! TCP and TLS routes: bytes to the right backend and back, whole, in time, and no further.

use std::net::SocketAddr;
use std::time::Duration;

use dataplane_testkit::backend::closed_address;
use dataplane_testkit::snapshot::{cluster, free_port, listener, stream_route};
use dataplane_testkit::{DEADLINE, SnapshotBuilder, StreamBackend, eventually, until, within};
use ir::Snapshot;
use ir::cluster::{ClusterProtocol, ProxyProtocol};
use ir::listener::ListenerProtocol;
use ir::stream_route::StreamKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Gateway, at};

mod flood;
mod hostile;
mod limits;
mod tls;
mod udp;
mod upstream_tls;

const LISTENER: &str = "infra/gw/tcp";
const ROUTE: &str = "tcp/app/db";

/// One TCP listener whose route goes to these clusters by weight.
fn snapshot(port: u16, clusters: &[(&str, u32, &[SocketAddr])]) -> Snapshot {
    let weights: Vec<_> = clusters
        .iter()
        .map(|(key, weight, _)| (*key, *weight))
        .collect();
    let route = stream_route(StreamKind::Tcp, ROUTE, LISTENER, &[], &weights);
    let builder = SnapshotBuilder::new("v1")
        .listener(listener(LISTENER, port, ListenerProtocol::Tcp))
        .stream_route(route);
    let add = |builder: SnapshotBuilder, (key, _, endpoints): &(&str, u32, &[SocketAddr])| {
        builder.add_cluster(cluster(key, ClusterProtocol::Tcp, endpoints))
    };
    clusters.iter().fold(builder, add).build()
}

/// Waits until a claim holds.
async fn settled(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(())).await;
}

/// A connection that was greeted, and by whom.
async fn greeted(address: SocketAddr) -> (TcpStream, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let name = line(&mut tcp).await;
    (tcp, name)
}

pub(crate) async fn line(tcp: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let read = async {
        let mut line = String::new();
        loop {
            match tcp.read_u8().await {
                Ok(b'\n') => return line,
                Ok(byte) => line.push(char::from(byte)),
                Err(_) => return format!("(cut) {line}"),
            }
        }
    };
    within("a line comes", read).await
}

pub(crate) async fn rest(
    tcp: &mut (impl tokio::io::AsyncRead + Unpin),
) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    within("the end comes", tcp.read_to_end(&mut rest)).await?;
    Ok(rest)
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_end_is_passed_on() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/db:5432", 1, &[backend.address()])]);
    let _gateway = Gateway::serving(&snapshot).await;

    // The backend speaks first; nothing was sent yet.
    let (mut tcp, name) = greeted(at(port)).await;
    assert_eq!(name, "one");
    let sent: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let (mut reader, mut writer) = tcp.split();
    let write = async {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let ((), got) = tokio::join!(write, rest(&mut reader));
    let got = got.unwrap();
    assert_eq!(got.len(), sent.len() + 3);
    assert!(got.starts_with(&sent) && got.ends_with(b"bye"));
    settled("the backend is let go", || backend.open_connections() == 0).await;
}

#[tokio::test]
async fn backends_get_connections_by_weight() {
    let (one, two) = (
        StreamBackend::tcp("one").await,
        StreamBackend::tcp("two").await,
    );
    let port = free_port();
    let clusters: [(_, _, &[_]); 3] = [
        ("app/one:1", 3, &[one.address()]),
        ("app/two:1", 1, &[two.address()]),
        ("app/none:1", 0, &[]),
    ];
    let _gateway = Gateway::serving(&snapshot(port, &clusters)).await;
    for _ in 0..40 {
        greeted(at(port)).await;
    }
    let counts = (one.connections(), two.connections());
    assert!((29..=31).contains(&counts.0), "{counts:?}");
    assert_eq!(counts.0 + counts.1, 40);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let backend = StreamBackend::tcp("alive").await;
    let dead = [closed_address(), closed_address()];
    let port = free_port();
    let endpoints = [dead[0], backend.address(), dead[1]];
    let _gateway = Gateway::serving(&snapshot(port, &[("app/db:1", 1, &endpoints)])).await;
    for _ in 0..9 {
        assert_eq!(greeted(at(port)).await.1, "alive");
    }
}

#[tokio::test]
async fn what_cannot_be_carried_is_reset() {
    let port = free_port();
    let dead = closed_address();
    let mut snapshot = snapshot(port, &[("app/db:1", 1, &[dead])]);
    let gateway = Gateway::serving(&snapshot).await;
    let check = async |what: &str| {
        // The reset may be there before the client has looked at its new connection.
        let end = match TcpStream::connect(at(port)).await {
            Ok(mut tcp) => rest(&mut tcp).await.map(drop),
            Err(error) => Err(error),
        };
        let error = end.expect_err(what);
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
    };
    check("an endpoint that refuses").await;
    snapshot = SnapshotBuilder::from(&snapshot, "v2")
        .add_cluster(cluster("app/db:1", ClusterProtocol::Tcp, &[]))
        .build();
    gateway.apply(&snapshot).await;
    check("no endpoint").await;
    snapshot = SnapshotBuilder::from(&snapshot, "v3")
        .with(|snapshot| drop(snapshot.stream_routes.remove(ROUTE)))
        .build();
    gateway.apply(&snapshot).await;
    check("no route").await;
}

#[tokio::test]
async fn endpoints_are_told_the_client_when_they_ask_for_it() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    for (version, name) in [(ProxyProtocol::V1, "v1"), (ProxyProtocol::V2, "v2")] {
        let mut wanted = cluster("app/db:1", ClusterProtocol::Tcp, &[backend.address()]);
        wanted.proxy_protocol = Some(version);
        let base = snapshot(port, &[("app/db:1", 1, &[])]);
        let snapshot = SnapshotBuilder::from(&base, name)
            .add_cluster(wanted)
            .build();
        let gateway = Gateway::serving(&snapshot).await;
        let (mut tcp, _) = greeted(at(port)).await;
        let own = tcp.local_addr().unwrap();
        tcp.write_all(b"payload").await.unwrap();
        tcp.shutdown().await.unwrap();
        let got = rest(&mut tcp).await.unwrap();
        let expected = match version {
            ProxyProtocol::V1 => {
                let port_of_ours = own.port();
                format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port_of_ours} {port}\r\n").into_bytes()
            }
            ProxyProtocol::V2 => {
                let mut header =
                    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                header.extend(own.port().to_be_bytes());
                header.extend(port.to_be_bytes());
                header
            }
        };
        assert_eq!(got, [&expected[..], b"payloadbye"].concat(), "{name}");
        assert!(gateway.stopped().await, "the next one has the port");
    }
}

#[tokio::test]
async fn routes_change_for_new_connections_only() {
    let (one, two) = (
        StreamBackend::tcp("one").await,
        StreamBackend::tcp("two").await,
    );
    let port = free_port();
    let clusters: [(_, _, &[_]); 2] = [
        ("app/one:1", 1, &[one.address()]),
        ("app/two:1", 0, &[two.address()]),
    ];
    let first = snapshot(port, &clusters);
    let gateway = Gateway::serving(&first).await;
    let (mut old, name) = greeted(at(port)).await;
    assert_eq!(name, "one");
    let weights = [("app/two:1", 1)];
    let second = SnapshotBuilder::from(&first, "v2")
        .stream_route(stream_route(
            StreamKind::Tcp,
            ROUTE,
            LISTENER,
            &[],
            &weights,
        ))
        .with(|snapshot| drop(snapshot.clusters.remove("app/one:1")))
        .build();
    gateway.change(&first, &second).await;
    assert_eq!(greeted(at(port)).await.1, "two");
    old.write_all(b"still here").await.unwrap();
    old.shutdown().await.unwrap();
    assert_eq!(rest(&mut old).await.unwrap(), b"still herebye");
}

#[tokio::test]
async fn a_removed_listener_lets_connections_go_on_for_the_drain_time() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let first = snapshot(port, &[("app/db:1", 1, &[backend.address()])]);
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.streams.drain = Duration::from_secs(1);
    })
    .await;
    let (mut tcp, _) = greeted(at(port)).await;
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| drop(snapshot.listeners.remove(LISTENER)))
        .build();
    gateway.change(&first, &second).await;
    assert!(TcpStream::connect(at(port)).await.is_err());
    tcp.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    within("it goes on", tcp.read_exact(&mut got))
        .await
        .unwrap();
    assert!(rest(&mut tcp).await.is_err(), "it is cut in the end");
    settled("the backend is let go", || backend.open_connections() == 0).await;
}

#[tokio::test]
async fn quiet_and_old_connections_are_ended() {
    let backend = StreamBackend::tcp("one").await;
    for limit in ["idle", "age"] {
        let port = free_port();
        let snapshot = snapshot(port, &[("app/db:1", 1, &[backend.address()])]);
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            let after = Some(Duration::from_millis(400));
            match limit {
                "idle" => bootstrap.streams.idle = after,
                _ => bootstrap.streams.age_max = after,
            }
        })
        .await;
        let (mut tcp, _) = greeted(at(port)).await;
        let began = tokio::time::Instant::now();
        if limit == "idle" {
            // Bytes now and then keep it open.
            for _ in 0..8 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                tcp.write_all(b".").await.unwrap();
                within("an echo", tcp.read_u8()).await.unwrap();
            }
        }
        assert!(rest(&mut tcp).await.is_err(), "{limit}");
        let expected = if limit == "idle" { 1100 } else { 300 };
        let lasted = began.elapsed();
        assert!(
            lasted >= Duration::from_millis(expected),
            "{limit} {lasted:?}"
        );
        let reason = if limit == "idle" {
            "idle_timeout"
        } else {
            "age_limit"
        };
        let series = format!(
            "stream_sessions_total{{listener=\"{LISTENER}\",route=\"{ROUTE}\",reason=\"{reason}\"}}"
        );
        until(DEADLINE, async || gateway.metric(&series, &[]) == 1).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limits_are_closed() {
    let backend = StreamBackend::tcp("one").await;
    for limit in ["process", "listener"] {
        let port = free_port();
        let snapshot = snapshot(port, &[("app/db:1", 1, &[backend.address()])]);
        let _gateway = Gateway::with(&snapshot, |bootstrap| match limit {
            "process" => bootstrap.streams_max = Some(3),
            _ => bootstrap.listener_streams_max = Some(3),
        })
        .await;
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(greeted(at(port)).await);
        }
        let mut fourth = TcpStream::connect(at(port)).await.unwrap();
        assert!(
            !matches!(rest(&mut fourth).await, Ok(got) if !got.is_empty()),
            "{limit}"
        );
        held.pop();
        let again = async {
            loop {
                let (_tcp, name) = greeted(at(port)).await;
                if name == "one" {
                    return;
                }
            }
        };
        within("there is room again", again).await;
    }
}
