//! Clients and backends that mean no good: bounded memory, clear reasons, untouched neighbours.

use std::time::Duration;

use dataplane_telemetry::access_log;
use dataplane_testkit::backend::Hole;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::{cluster, free_port, stream_route};
use dataplane_testkit::{SnapshotBuilder, StreamBackend, within};
use ir::cluster::ClusterProtocol;
use ir::stream_route::StreamKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::{greeted, rest, settled, snapshot};
use crate::support::{Gateway, at};

const PASSED: &str = "infra/gw/passed";

/// A gateway that passes TLS through to a backend of bytes.
async fn passing(hello_timeout: Duration) -> (Gateway, StreamBackend, u16) {
    let backend = StreamBackend::tcp("plain").await;
    let port = free_port();
    let route = stream_route(StreamKind::Tls, "tls/app/x", PASSED, &[], &[("app/x:1", 1)]);
    let snapshot = SnapshotBuilder::new("v1")
        .passthrough_listener(PASSED, port, &[])
        .stream_route(route)
        .add_cluster(cluster(
            "app/x:1",
            ClusterProtocol::Tcp,
            &[backend.address()],
        ))
        .build();
    let change = |bootstrap: &mut dataplane::bootstrap::Bootstrap| {
        bootstrap.streams.hello_timeout = hello_timeout;
    };
    (Gateway::with(&snapshot, change).await, backend, port)
}

#[tokio::test]
async fn a_hello_that_drips_or_stops_is_ended_at_the_deadline() {
    let (_gateway, backend, port) = passing(Duration::from_millis(500)).await;
    for is_dripping in [false, true] {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        let began = Instant::now();
        let (mut reader, mut writer) = tcp.split();
        let drip = async {
            writer.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
            while is_dripping && writer.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drip => {}
            // The bytes nobody read make it a reset.
            _ = rest(&mut reader) => {}
        }
        let lasted = began.elapsed();
        assert!(lasted > Duration::from_millis(450) && lasted < Duration::from_secs(10));
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn half_a_hello_and_an_end_is_let_go_at_once() {
    let (_gateway, backend, port) = passing(Duration::from_secs(3600)).await;
    let mut tcp = TcpStream::connect(at(port)).await.unwrap();
    tcp.write_all(&[22, 3, 1, 2, 0, 1, 0]).await.unwrap();
    tcp.shutdown().await.unwrap();
    let _ = rest(&mut tcp).await;
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn garbage_goes_nowhere_and_neighbours_are_served() {
    let (_gateway, backend, port) = passing(Duration::from_secs(5)).await;
    let long = [&[22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff][..], &[0; 64 * 1024]].concat();
    let garbage: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0; 64 * 1024],
        &[0xff; 64 * 1024],
        &long,
        &[22, 3, 1, 0, 1, 2],
    ];
    for bytes in garbage {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        let _ = tcp.write_all(bytes).await;
        let got = rest(&mut tcp).await.unwrap_or_default();
        assert!(
            got.is_empty() || got.starts_with(&[21, 3, 3, 0, 2, 2]),
            "{got:?}"
        );
    }
    assert_eq!(backend.connections(), 0);
    let client = TlsClient::trusting(&Authority::new("nobody"));
    // The backend speaks no TLS; that it was reached is all that counts here.
    let _ = client.connect(at(port), "a.test").await;
    settled("the backend is reached", || backend.connections() == 1).await;
}

#[tokio::test]
async fn a_client_that_never_reads_stops_the_backend_and_not_the_neighbours() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/db:1", 1, &[backend.address()])]);
    let _gateway = Gateway::serving(&snapshot).await;
    let mut greedy = TcpStream::connect(at(port)).await.unwrap();
    let mut sent = 0_usize;
    let flood = async {
        loop {
            sent += greedy.write(&[7; 64 * 1024]).await.unwrap();
        }
    };
    // What fits into the kernel's buffers on the way there and back, and a little of ours.
    let _ = tokio::time::timeout(Duration::from_secs(2), flood).await;
    assert!(sent < 64 << 20, "{sent}");
    assert_eq!(greeted(at(port)).await.1, "one");
    // Once it reads, nothing is missing.
    let (mut reader, mut writer) = greedy.split();
    let ((), got) = tokio::join!(
        async { writer.shutdown().await.unwrap() },
        rest(&mut reader)
    );
    assert_eq!(got.unwrap().len(), sent + "one\n".len() + "bye".len());
}

#[tokio::test]
async fn a_reset_on_one_side_is_a_reset_on_the_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free_port();
    let endpoint = listener.local_addr().unwrap();
    let snapshot = snapshot(port, &[("app/db:1", 1, &[endpoint])]);
    let _gateway = Gateway::serving(&snapshot).await;

    let mut client = TcpStream::connect(at(port)).await.unwrap();
    let (backend, _) = within("a connection", listener.accept()).await.unwrap();
    client.write_all(b"x").await.unwrap();
    backend.set_zero_linger().unwrap();
    drop(backend);
    let error = rest(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut client = TcpStream::connect(at(port)).await.unwrap();
    let (mut backend, _) = within("a connection", listener.accept()).await.unwrap();
    client.write_all(b"x").await.unwrap();
    backend.read_u8().await.unwrap();
    client.set_zero_linger().unwrap();
    drop(client);
    let error = rest(&mut backend).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_endpoint_that_never_answers_is_left_for_the_next() {
    let silent = Hole::new().await;
    let backend = StreamBackend::tcp("alive").await;
    let short = Duration::from_millis(300);
    let hour = Duration::from_secs(3600);
    // By the time that holds for all, and by the one that holds where there is another endpoint.
    for (timeout, elsewhere) in [(short, None), (hour, Some(short))] {
        let port = free_port();
        let endpoints = [silent.address(), backend.address()];
        let mut wanted = cluster("app/db:1", ClusterProtocol::Tcp, &endpoints);
        wanted.connect_timeout = timeout;
        let snapshot = snapshot(port, &[("app/db:1", 1, &[])]);
        let snapshot = SnapshotBuilder::from(&snapshot, "v2")
            .add_cluster(wanted)
            .build();
        let _gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.streams.connect_timeout = hour;
            bootstrap.streams.connect_timeout_elsewhere = elsewhere;
        })
        .await;
        for _ in 0..4 {
            assert_eq!(greeted(at(port)).await.1, "alive");
        }
    }
}

#[tokio::test]
async fn endpoints_may_come_and_go_under_load() {
    let backends = [
        StreamBackend::tcp("one").await,
        StreamBackend::tcp("two").await,
    ];
    let port = free_port();
    let all = [backends[0].address(), backends[1].address()];
    let mut current = snapshot(port, &[("app/db:1", 1, &all)]);
    let gateway = Gateway::serving(&current).await;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..60 {
                    let (mut tcp, _) = greeted(at(port)).await;
                    tcp.write_all(b"ping").await.unwrap();
                    tcp.shutdown().await.unwrap();
                    assert_eq!(rest(&mut tcp).await.unwrap(), b"pingbye");
                }
            })
        })
        .collect();
    for round in 0..20 {
        let one = [all[round % 2]];
        let next = SnapshotBuilder::from(&current, &format!("r{round}"))
            .add_cluster(cluster("app/db:1", ClusterProtocol::Tcp, &one))
            .build();
        gateway.change(&current, &next).await;
        current = next;
    }
    for client in clients {
        within("the load ends", client).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_nobody_takes_has_a_record() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .passthrough_listener(PASSED, port, &["known.test"])
        .build();
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.drain.min_accept = Duration::ZERO;
        bootstrap.streams.hello_timeout = Duration::from_millis(200);
        bootstrap.access_log = Some(access_log::Settings {
            sink: access_log::Sink::File(file.clone()),
            ..access_log::Settings::default()
        });
    })
    .await;
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16"] {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        tcp.write_all(bytes).await.unwrap();
        let _ = rest(&mut tcp).await;
    }
    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&file).unwrap();
    for reason in ["bad_client_hello", "head_timeout"] {
        let mut lines = text.lines().filter(|line| line.contains(reason));
        let line = lines.next().unwrap_or_else(|| panic!("{reason}: {text}"));
        assert!(
            line.contains("\"protocol\":\"tls\"") && line.contains("127.0.0.1"),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_backend_that_ends_its_half_first_still_gets_what_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free_port();
    let endpoint = listener.local_addr().unwrap();
    let snapshot = snapshot(port, &[("app/db:1", 1, &[endpoint])]);
    let _gateway = Gateway::serving(&snapshot).await;
    let mut client = TcpStream::connect(at(port)).await.unwrap();
    let (mut backend, _) = within("a connection", listener.accept()).await.unwrap();
    backend.write_all(b"bye").await.unwrap();
    backend.shutdown().await.unwrap();
    assert_eq!(rest(&mut client).await.unwrap(), b"bye");
    client.write_all(b"and still").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(rest(&mut backend).await.unwrap(), b"and still");
}

#[tokio::test]
async fn a_backend_that_fell_silent_ends_by_the_idle_limit_and_not_its_neighbours() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let alive = StreamBackend::tcp("alive").await;
    let port = free_port();
    let clusters: [(_, _, &[_]); 2] = [
        ("app/silent:1", 1, &[silent.local_addr().unwrap()]),
        ("app/alive:1", 1, &[alive.address()]),
    ];
    let gateway = Gateway::with(&snapshot(port, &clusters), |bootstrap| {
        bootstrap.streams.idle = Some(Duration::from_millis(500));
    })
    .await;
    let mut cut = 0;
    let mut greetings = 0;
    let mut held = Vec::new();
    for _ in 0..8 {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        tcp.write_all(b"anybody?").await.unwrap();
        held.push(tcp);
    }
    for mut tcp in held {
        match within("an answer or the end", tcp.read_u8()).await {
            Ok(_) => greetings += 1,
            Err(_) => cut += 1,
        }
    }
    // By their weights half each, but not to the last one.
    assert_eq!(cut + greetings, 8);
    assert!((3..=5).contains(&cut), "{cut} of 8 were cut");
    settled("the figures", || {
        gateway.metric("stream_sessions_total", &["reason=\"idle_timeout\""]) >= cut
    })
    .await;
}

/// Sends until nothing more is taken; how much that was.
async fn stuff(tcp: &mut TcpStream) -> usize {
    let mut sent = 0;
    let pause = Duration::from_millis(500);
    let block = vec![7; 64 * 1024];
    while let Ok(Ok(more)) = tokio::time::timeout(pause, tcp.write(&block)).await {
        sent += more;
    }
    sent
}

#[tokio::test]
async fn a_peer_that_vanishes_while_the_other_one_does_not_read_is_noticed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free_port();
    let endpoint = listener.local_addr().unwrap();
    let snapshot = snapshot(port, &[("app/db:1", 1, &[endpoint])]);
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.streams.write_idle = None;
    })
    .await;
    for vanishes in ["client", "backend"] {
        let client = TcpStream::connect(at(port)).await.unwrap();
        let (backend, _) = within("a connection", listener.accept()).await.unwrap();
        let (mut sender, mut stalled) = match vanishes {
            "client" => (client, backend),
            _ => (backend, client),
        };
        assert!(stuff(&mut sender).await > 0, "{vanishes}");
        sender.set_zero_linger().unwrap();
        drop(sender);
        let reason = match vanishes {
            "client" => "client_aborted",
            _ => "upstream_reset",
        };
        let series = format!("reason=\"{reason}\"}} 1");
        settled("the one that is left is let go", || {
            gateway.scrape().contains(&series)
        })
        .await;
        assert!(rest(&mut stalled).await.is_err(), "{vanishes}");
    }
}

#[tokio::test]
async fn whoever_takes_nothing_for_too_long_is_cut_and_slow_ones_are_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free_port();
    let endpoint = listener.local_addr().unwrap();
    let snapshot = snapshot(port, &[("app/db:1", 1, &[endpoint])]);
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.streams.write_idle = Some(Duration::from_secs(2));
    })
    .await;
    for (stalls, reason) in [
        ("client", "client_aborted"),
        ("backend", "upstream_timeout"),
    ] {
        let client = TcpStream::connect(at(port)).await.unwrap();
        let (backend, _) = within("a connection", listener.accept()).await.unwrap();
        let (mut sender, mut stalled) = match stalls {
            "client" => (backend, client),
            _ => (client, backend),
        };
        stuff(&mut sender).await;
        let series = format!("reason=\"{reason}\"}} 1");
        let is_cut = || gateway.scrape().contains(&series);
        // Now and then a mouthful, over more than the limit: that is slow and no more.
        let mut mouthful = vec![0; 4 << 20];
        for _ in 0..6 {
            let read = within("a mouthful", stalled.read_exact(&mut mouthful));
            read.await.unwrap();
            stuff(&mut sender).await;
            assert!(!is_cut(), "{stalls}");
        }
        settled("it is cut", is_cut).await;
        assert!(rest(&mut stalled).await.is_err(), "{stalls}");
    }
}
