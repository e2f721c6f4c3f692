//! Limits of streams: of a listener, of a backend, of descriptors; and who hears of them.

use std::time::Duration;

use dataplane_telemetry::access_log;
use dataplane_testkit::backend::closed_address;
use dataplane_testkit::snapshot::{cluster, free_port, listener};
use dataplane_testkit::{SnapshotBuilder, StreamBackend, eventually, within};
use futures_util::future::join_all;
use ir::backend_policy::{BackendPolicy, BreakerThresholds};
use ir::cluster::ClusterProtocol;
use ir::listener::ListenerProtocol;
use ir::{Snapshot, policy::SecurityPolicy};
use tokio::net::TcpStream;

use super::{LISTENER, settled, snapshot};
use crate::support::{Gateway, at};

const CLUSTER: &str = "app/db:1";

/// Connections that were greeted, of so many at once; they stay open.
async fn burst(port: u16, clients: usize) -> Vec<TcpStream> {
    let connect = |_| async move {
        // The end may be there before the client has looked at its new connection.
        let mut tcp = TcpStream::connect(at(port)).await.ok()?;
        (super::line(&mut tcp).await == "one").then_some(tcp)
    };
    let greeted = join_all((0..clients).map(connect)).await;
    greeted.into_iter().flatten().collect()
}

fn ended(reason: &str) -> String {
    format!(
        "stream_sessions_total{{listener=\"{LISTENER}\",route=\"tcp/app/db\",reason=\"{reason}\"}}"
    )
}

#[tokio::test]
async fn a_burst_never_gets_more_than_the_listeners_limit_and_the_rest_has_records() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let first = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.listener_streams_max = Some(20);
        bootstrap.streams.drain = Duration::from_secs(10);
        bootstrap.drain.min_accept = Duration::ZERO;
        bootstrap.access_log = Some(access_log::Settings {
            sink: access_log::Sink::File(file.clone()),
            ..access_log::Settings::default()
        });
    })
    .await;
    let held = burst(port, 200).await;
    assert!((1..=20).contains(&held.len()), "{}", held.len());

    let rejected = "downstream_connections_rejected_total";
    let counted = gateway.metric(rejected, &[]);
    assert_eq!(counted, 200 - held.len() as u64);

    // Neither another name nor an update makes room.
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| {
            drop(snapshot.listeners.remove(LISTENER));
            snapshot.stream_routes.remove("tcp/app/db");
        })
        .listener(listener("infra/gw/another", port, ListenerProtocol::Tcp))
        .stream_route(dataplane_testkit::snapshot::stream_route(
            ir::stream_route::StreamKind::Tcp,
            "tcp/app/another",
            "infra/gw/another",
            &[],
            &[(CLUSTER, 1)],
        ))
        .build();
    gateway.change(&first, &second).await;
    let more = burst(port, 40).await;
    assert!(
        held.len() + more.len() <= 20,
        "{} {}",
        held.len(),
        more.len()
    );
    let refused = gateway.metric("tcp_overload_rejected_total", &[]);
    assert_eq!(refused, 240 - (held.len() + more.len()) as u64);
    drop((held, more));
    settled("there is room again", || backend.open_connections() == 0).await;
    assert_eq!(burst(port, 1).await.len(), 1);

    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&file).unwrap();
    let records = text.lines().filter(|line| line.contains("\"overload\""));
    let records: Vec<_> = records.collect();
    assert_eq!(records.len() as u64, refused);
    assert!(
        records[0].contains(LISTENER) && records[0].contains("\"tcp\""),
        "{}",
        records[0]
    );
}

fn with_policy(port: u16, backend: &StreamBackend, policy: BackendPolicy) -> Snapshot {
    let mut limited = cluster(CLUSTER, ClusterProtocol::Tcp, &[backend.address()]);
    limited.policy = Some(policy.into());
    let base = snapshot(port, &[(CLUSTER, 1, &[])]);
    SnapshotBuilder::from(&base, "v1")
        .add_cluster(limited)
        .build()
}

#[tokio::test]
async fn a_backend_never_has_more_connections_than_its_limit() {
    for limit in ["policy", "requests", "process"] {
        let backend = StreamBackend::tcp("one").await;
        let port = free_port();
        let mut snapshot = with_policy(
            port,
            &backend,
            BackendPolicy {
                max_connections: (limit == "policy").then_some(3),
                ..BackendPolicy::default()
            },
        );
        if limit == "requests" {
            let mut limited = cluster(CLUSTER, ClusterProtocol::Tcp, &[backend.address()]);
            limited.max_inflight_requests = Some(3);
            snapshot = SnapshotBuilder::from(&snapshot, "v1")
                .add_cluster(limited)
                .build();
        }
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.streams.connect_timeout = Duration::from_millis(200);
            if limit == "process" {
                bootstrap.streams.upstream_limits.connections = Some(3);
            }
        })
        .await;
        let mut held = burst(port, 12).await;
        assert_eq!(held.len(), 3, "{limit}");
        assert_eq!(backend.connections(), 3, "{limit}");
        settled("those refused are told", || {
            gateway.metric(&ended("backend_overload"), &[]) == 9
        })
        .await;
        held.pop();
        eventually("there is room again", || {
            (backend.open_connections() == 2).then_some(())
        })
        .await;
        let again = async { while burst(port, 1).await.is_empty() {} };
        within("there is room again", again).await;
    }
}

#[tokio::test]
async fn who_finds_a_backend_full_waits_for_its_turn_and_no_more_than_may_wait() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let policy = BackendPolicy {
        max_connections: Some(1),
        max_pending_requests: Some(2),
        ..BackendPolicy::default()
    };
    let gateway = Gateway::serving(&with_policy(port, &backend, policy)).await;
    let mut first = TcpStream::connect(at(port)).await.unwrap();
    assert_eq!(super::line(&mut first).await, "one");
    // Two wait, one is refused at once.
    let mut later = Vec::new();
    for _ in 0..3 {
        // The one that is refused may be gone before this end has looked.
        later.push(TcpStream::connect(at(port)).await.ok());
    }
    let refused = || gateway.metric(&ended("backend_overload"), &[]);
    settled("one too many is refused", || refused() == 1).await;
    assert_eq!(backend.connections(), 1);
    // Each that ends lets another one in, whichever worker it is with.
    drop(first);
    let greeting = |tcp: Option<TcpStream>| async move {
        match tcp {
            Some(mut tcp) => super::line(&mut tcp).await,
            None => "(cut) ".to_owned(),
        }
    };
    let mut lines = join_all(later.into_iter().map(greeting)).await;
    lines.sort();
    assert_eq!(lines, ["(cut) ", "one", "one"]);
    assert_eq!(refused(), 1);
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn a_cluster_that_keeps_failing_is_left_alone_by_its_breaker() {
    let port = free_port();
    let mut dead = cluster(CLUSTER, ClusterProtocol::Tcp, &[closed_address()]);
    let policy = BackendPolicy {
        breaker: Some(BreakerThresholds {
            failure_threshold: Some(2),
            success_threshold: Some(1),
            open_time: Some(Duration::from_secs(60)),
        }),
        ..BackendPolicy::default()
    };
    dead.policy = Some(policy.into());
    let base = snapshot(port, &[(CLUSTER, 1, &[])]);
    let snapshot = SnapshotBuilder::from(&base, "v1").add_cluster(dead).build();
    let gateway = Gateway::serving(&snapshot).await;
    for _ in 0..5 {
        assert!(burst(port, 1).await.is_empty());
    }
    settled("two are tried and three refused", || {
        (
            gateway.metric(&ended("connect_failed"), &[]),
            gateway.metric(&ended("circuit_open"), &[]),
        ) == (2, 3)
    })
    .await;
}

#[tokio::test]
async fn weights_that_are_all_zero_send_nobody_anywhere() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let clusters: [(_, _, &[_]); 2] = [
        ("app/a:1", 0, &[backend.address()]),
        ("app/b:1", 0, &[backend.address()]),
    ];
    let gateway = Gateway::serving(&snapshot(port, &clusters)).await;
    for _ in 0..5 {
        assert!(burst(port, 1).await.is_empty());
    }
    settled("each is told", || {
        gateway.metric(&ended("invalid_backend"), &[]) == 5
    })
    .await;
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_client_that_a_backend_does_not_let_in_gets_nowhere() {
    let backend = StreamBackend::tcp("one").await;
    let port = free_port();
    let base = snapshot(port, &[(CLUSTER, 1, &[])]);
    let mut guarded = cluster(CLUSTER, ClusterProtocol::Tcp, &[backend.address()]);
    let policy = SecurityPolicy {
        deny_cidrs: vec!["127.0.0.0/8".to_owned()],
        ..SecurityPolicy::default()
    };
    guarded.security_policy = Some(policy.into());
    let snapshot = SnapshotBuilder::from(&base, "v1")
        .add_cluster(guarded)
        .build();
    let gateway = Gateway::serving(&snapshot).await;
    assert!(burst(port, 2).await.is_empty());
    settled("each is told", || {
        gateway.metric(&ended("address_denied"), &[]) == 2
    })
    .await;
    assert_eq!(backend.connections(), 0);
}

/// Whether the kernel has a keepalive timer on the connection from one port to the other.
fn is_probed(from: u16, to: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (from, to) = (format!(":{from:04X}"), format!(":{to:04X}"));
    table.lines().any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, _, _, timer, ..] = words.as_slice() else {
            return false;
        };
        local.ends_with(&from) && remote.ends_with(&to) && timer.starts_with("02:")
    })
}

#[tokio::test]
async fn idle_connections_are_probed_on_either_side_as_the_settings_say() {
    let backend = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = backend.local_addr().unwrap();
    for is_on in [true, false] {
        let port = free_port();
        let snapshot = snapshot(port, &[(CLUSTER, 1, &[endpoint])]);
        let _gateway = Gateway::with(&snapshot, |bootstrap| {
            let probes = is_on.then(dataplane_stream::Keepalive::default);
            bootstrap.streams.downstream_keepalive = probes;
            bootstrap.streams.upstream_keepalive = probes;
        })
        .await;
        let client = TcpStream::connect(at(port)).await.unwrap();
        let own = client.local_addr().unwrap().port();
        let (_tcp, gateway) = within("a connection", backend.accept()).await.unwrap();
        let sides = || {
            (
                is_probed(port, own),
                is_probed(gateway.port(), endpoint.port()),
            )
        };
        settled("both sides are as the settings say", || {
            sides() == (is_on, is_on)
        })
        .await;
    }
}
