//! When UDP sessions end, who may have one, and who gives way.

use std::sync::Arc;
use std::time::Duration;

use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{SnapshotBuilder, StreamBackend, within};
use ir::Snapshot;
use ir::backend_policy::{BackendPolicy, BreakerThresholds, OutlierDetection};
use ir::cluster::Cluster;
use ir::policy::SecurityPolicy;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::{
    LISTENER, ROUTE, active, answer, client, closed_port, dropped, ended, is_silent, name, snapshot,
};
use crate::streams::settled;
use crate::support::{Gateway, at};

const CLUSTER: &str = "app/dns:53";

/// The snapshot with another cluster in its place.
fn with_cluster(before: &Snapshot, version: &str, change: impl FnOnce(&mut Cluster)) -> Snapshot {
    let mut changed = (**before.clusters.get(CLUSTER).unwrap()).clone();
    change(&mut changed);
    SnapshotBuilder::from(before, version)
        .add_cluster(changed)
        .build()
}

fn with_policy(before: &Snapshot, policy: BackendPolicy) -> Snapshot {
    with_cluster(before, "v2", |cluster| {
        cluster.policy = Some(Arc::new(policy));
    })
}

fn deny(block: &str) -> Option<Arc<SecurityPolicy>> {
    Some(Arc::new(SecurityPolicy {
        deny_cidrs: vec![block.to_owned()],
        ..SecurityPolicy::default()
    }))
}

/// All UDP sessions of the process, whatever became of their routes.
fn all(gateway: &Gateway) -> u64 {
    gateway.metric("udp_sessions_active_current ", &[])
}

#[tokio::test]
async fn one_datagram_is_enough_to_learn_that_an_endpoint_is_gone() {
    let port = free_port();
    let snapshot = snapshot(port, &[(CLUSTER, 1, &[closed_port()])]);
    let gateway = Gateway::serving(&snapshot).await;
    for _ in 0..30 {
        let client = client("127.0.0.1", at(port)).await;
        client.send(b"x").await.unwrap();
    }
    settled("all sessions end", || {
        ended(&gateway, "connect_failed") == 30
    })
    .await;
    assert_eq!((active(&gateway), all(&gateway)), (0, 0));
}

#[tokio::test]
async fn a_dead_endpoint_is_spared_when_clients_ask_once_only() {
    let alive = StreamBackend::udp("alive").await;
    let port = free_port();
    let endpoints = [closed_port(), alive.address()];
    let plain = snapshot(port, &[(CLUSTER, 1, &endpoints)]);
    let policy = BackendPolicy {
        outlier_detection: Some(OutlierDetection {
            consecutive_gateway_failures: Some(3),
            base_ejection: Some(Duration::from_secs(60)),
            max_ejection_percent: Some(50),
            ..OutlierDetection::default()
        }),
        ..BackendPolicy::default()
    };
    let gateway = Gateway::serving(&with_policy(&plain, policy)).await;
    let is_answered = async || {
        let client = client("127.0.0.1", at(port)).await;
        client.send(b"x").await.unwrap();
        timeout(Duration::from_millis(300), answer(&client))
            .await
            .is_ok()
    };
    let learnt = async {
        while ended(&gateway, "connect_failed") < 3 {
            is_answered().await;
        }
    };
    within("three failures are noticed", learnt).await;
    for round in 0..20 {
        assert!(is_answered().await, "{round}");
    }
}

#[tokio::test]
async fn a_backend_has_no_more_sessions_than_its_policies_say() {
    type Change = fn(&mut Cluster);
    let limits: [(&str, Change); 2] = [
        ("connections", |cluster| {
            cluster.policy = Some(Arc::new(BackendPolicy {
                max_connections: Some(2),
                ..BackendPolicy::default()
            }));
        }),
        ("requests", |cluster| {
            cluster.max_inflight_requests = Some(2);
        }),
    ];
    for (what, change) in limits {
        let backend = StreamBackend::udp("one").await;
        let port = free_port();
        let plain = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
        let limited = with_cluster(&plain, "v2", change);
        let gateway = Gateway::serving(&limited).await;
        let mut clients = Vec::new();
        for _ in 0..2 {
            let client = client("127.0.0.1", at(port)).await;
            assert_eq!(name(&client).await, "one", "{what}");
            clients.push(client);
        }
        let third = client("127.0.0.1", at(port)).await;
        third.send(b"x").await.unwrap();
        assert!(is_silent(&third).await, "{what}");
        assert_eq!(ended(&gateway, "backend_overload"), 1, "{what}");
        assert_eq!(dropped(&gateway, "sessions"), 1, "{what}");
        assert_eq!(gateway.metric("udp_overload_rejected_total ", &[]), 1);
        for client in &clients {
            assert_eq!(name(client).await, "one", "{what}");
        }
    }
}

#[tokio::test]
async fn an_open_breaker_lets_no_session_begin() {
    let port = free_port();
    let plain = snapshot(port, &[(CLUSTER, 1, &[closed_port()])]);
    let policy = BackendPolicy {
        breaker: Some(BreakerThresholds {
            failure_threshold: Some(2),
            open_time: Some(Duration::from_secs(60)),
            ..BreakerThresholds::default()
        }),
        ..BackendPolicy::default()
    };
    let gateway = Gateway::serving(&with_policy(&plain, policy)).await;
    for failures in 1..=2 {
        let client = client("127.0.0.1", at(port)).await;
        client.send(b"x").await.unwrap();
        settled("a failure is noticed", || {
            ended(&gateway, "connect_failed") == failures
        })
        .await;
    }
    let client = client("127.0.0.1", at(port)).await;
    client.send(b"x").await.unwrap();
    settled("the breaker is open", || {
        ended(&gateway, "circuit_open") == 1
    })
    .await;
    assert_eq!(ended(&gateway, "connect_failed"), 2);
}

#[tokio::test]
async fn a_half_open_breaker_has_no_more_trials_than_it_says() {
    let port = free_port();
    let backend = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let policy = BackendPolicy {
        breaker: Some(BreakerThresholds {
            failure_threshold: Some(1),
            success_threshold: Some(1),
            open_time: Some(Duration::from_millis(100)),
        }),
        ..BackendPolicy::default()
    };
    let plain = snapshot(port, &[(CLUSTER, 1, &[closed_port()])]);
    let dead = with_policy(&plain, policy.clone());
    let gateway = Gateway::with(&dead, |bootstrap| {
        bootstrap.streams.connect_timeout = Duration::from_secs(2);
    })
    .await;
    let ask = async || {
        let client = client("127.0.0.1", at(port)).await;
        client.send(b"x").await.unwrap();
    };
    ask().await;
    let failed = || ended(&gateway, "connect_failed") == 1;
    settled("the breaker is open", failed).await;
    let address = backend.local_addr().unwrap();
    let there = snapshot(port, &[(CLUSTER, 1, &[address])]);
    let there = with_cluster(&there, "v3", |cluster| {
        cluster.policy = Some(Arc::new(policy));
    });
    gateway.apply(&there).await;

    // Who asks is refused, or the endpoint hears of it, from the address that this gives.
    let outcome = async || {
        let refused = ended(&gateway, "circuit_open");
        ask().await;
        let mut datagram = [0; 8];
        loop {
            if let Ok((_, from)) = backend.try_recv_from(&mut datagram) {
                return Some(from);
            }
            if ended(&gateway, "circuit_open") > refused {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let heard = async || {
        loop {
            if let Some(from) = outcome().await {
                return from;
            }
        }
    };
    // One session is the trial; nobody else is let in while its endpoint says nothing.
    within("the open time passes", heard()).await;
    for _ in 0..5 {
        assert_eq!(outcome().await, None);
    }
    // It has told nothing for so long that another one may try, whose endpoint answers.
    let from = within("another trial", heard()).await;
    backend.send_to(b"y", from).await.unwrap();
    within("the breaker is closed", heard()).await;
    for _ in 0..5 {
        assert!(outcome().await.is_some());
    }
}

#[tokio::test]
async fn a_removed_route_lets_sessions_finish_but_not_for_ever() {
    let backend = StreamBackend::udp("one").await;
    for talks in [false, true] {
        let port = free_port();
        let first = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
        let drain = if talks { 1 } else { 60 };
        let gateway = Gateway::with(&first, |bootstrap| {
            bootstrap.streams.drain = Duration::from_secs(drain);
        })
        .await;
        let known = client("127.0.0.1", at(port)).await;
        assert_eq!(name(&known).await, "one");
        let second = SnapshotBuilder::from(&first, "v2")
            .with(|snapshot| drop(snapshot.stream_routes.remove(ROUTE)))
            .build();
        gateway.change(&first, &second).await;
        assert_eq!(name(&known).await, "one", "it goes on for a while");
        let late = client("127.0.0.1", at(port)).await;
        late.send(b"x").await.unwrap();
        assert!(is_silent(&late).await, "nobody new comes in");
        settled("the session ends", || {
            if talks {
                known.try_send(b"x").unwrap();
            }
            all(&gateway) == 0
        })
        .await;
    }
}

#[tokio::test]
async fn who_is_not_let_in_gets_nothing() {
    type Change = fn(&Snapshot, &str) -> Snapshot;
    let policies: [(&str, Change); 2] = [
        ("listener", |before, block| {
            let mut listener = (**before.listeners.get(LISTENER).unwrap()).clone();
            listener.security_policy = deny(block);
            SnapshotBuilder::from(before, block)
                .listener(listener)
                .build()
        }),
        ("backend", |before, block| {
            with_cluster(before, block, |it| it.security_policy = deny(block))
        }),
    ];
    for (where_, change) in policies {
        let backend = StreamBackend::udp("one").await;
        let port = free_port();
        let plain = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
        let first = change(&plain, "127.0.0.9/32");
        let gateway = Gateway::serving(&first).await;
        let denied = client("127.0.0.9", at(port)).await;
        denied.send(b"x").await.unwrap();
        settled(where_, || dropped(&gateway, "denied") == 1).await;
        assert_eq!((backend.connections(), active(&gateway)), (0, 0));
        let known = client("127.0.0.1", at(port)).await;
        assert_eq!(name(&known).await, "one", "{where_}");
        // A session does not outlive the right to have one.
        let second = change(&plain, "127.0.0.1/32");
        gateway.change(&first, &second).await;
        known.send(b"x").await.unwrap();
        assert!(is_silent(&known).await, "{where_}");
        assert!(ended(&gateway, "address_denied") >= 1, "{where_}");
        assert_eq!((backend.connections(), active(&gateway)), (1, 0));
        assert_eq!(name(&denied).await, "one", "{where_}");
    }
}

#[tokio::test]
async fn one_address_cannot_keep_a_listener_for_itself() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.workers = 1;
        bootstrap.streams.udp.listener_sessions_max = Some(16);
    })
    .await;
    let mut greedy = Vec::new();
    for _ in 0..16 {
        let client = client("127.0.0.1", at(port)).await;
        for _ in 0..2 {
            assert_eq!(name(&client).await, "one");
        }
        greedy.push(client);
    }
    let mut others = Vec::new();
    for host in 2..12 {
        let other = client(&format!("127.0.0.{host}"), at(port)).await;
        for _ in 0..2 {
            assert_eq!(name(&other).await, "one", "{host}");
        }
        others.push(other);
        // It wants back what it had, and makes room for itself only.
        for client in &greedy {
            client.send(b"x").await.unwrap();
        }
    }
    assert_eq!(active(&gateway), 16);
    let before = ended(&gateway, "overload");
    for other in &others {
        assert_eq!(name(other).await, "one");
    }
    assert_eq!(ended(&gateway, "overload"), before, "nobody began anew");
}

#[tokio::test]
async fn sessions_are_counted_by_listener_and_together() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[(CLUSTER, 1, &[backend.address()])]);
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.streams.udp.idle = Duration::from_millis(300);
    })
    .await;
    let client = client("127.0.0.1", at(port)).await;
    assert_eq!(name(&client).await, "one");
    let listener = format!("_listener_current{{listener=\"{LISTENER}\"}}");
    for series in [
        "udp_sessions_active_current ",
        &format!("udp_sessions_active{listener}"),
    ] {
        assert_eq!(gateway.metric(series, &[]), 1, "{series}");
    }
    settled("it is silent for too long", || {
        gateway.metric("udp_session_idle_evictions_total ", &[]) == 1
    })
    .await;
    let of_listener =
        format!("udp_session_idle_evictions_listener_total{{listener=\"{LISTENER}\"}}");
    assert_eq!(gateway.metric(&of_listener, &[]), 1);
    assert_eq!(all(&gateway), 0);
}
