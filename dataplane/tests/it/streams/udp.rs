//! UDP routes: datagrams to the right backend and back to the right client, and no further.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dataplane_telemetry::access_log;
use dataplane_testkit::snapshot::{cluster, free_port, listener, stream_route};
use dataplane_testkit::{SnapshotBuilder, StreamBackend, eventually, within};
use ir::Snapshot;
use ir::cluster::{Balancing, ClusterProtocol, HashKey};
use ir::listener::ListenerProtocol;
use ir::stream_route::StreamKind;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::settled;
use crate::support::{Gateway, at};

mod fragments;
mod sessions;

pub(super) const LISTENER: &str = "infra/gw/udp";
const ROUTE: &str = "udp/app/dns";

/// One UDP listener whose route goes to these clusters by weight.
pub(super) fn snapshot(port: u16, clusters: &[(&str, u32, &[SocketAddr])]) -> Snapshot {
    let weights = clusters.iter().map(|(key, weight, _)| (*key, *weight));
    let weights: Vec<_> = weights.collect();
    let route = stream_route(StreamKind::Udp, ROUTE, LISTENER, &[], &weights);
    let builder = SnapshotBuilder::new("v1")
        .listener(listener(LISTENER, port, ListenerProtocol::Udp))
        .stream_route(route);
    let add = |builder: SnapshotBuilder, (key, _, endpoints): &(&str, u32, &[SocketAddr])| {
        builder.add_cluster(cluster(key, ClusterProtocol::Udp, endpoints))
    };
    clusters.iter().fold(builder, add).build()
}

/// A port that nobody has, of UDP.
fn closed_port() -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap()
}

/// A client with an address of its own.
pub(super) async fn client(from: &str, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((from, 0)).await.unwrap();
    socket.connect(to).await.unwrap();
    socket
}

/// What comes back for a datagram; sent once only.
pub(super) async fn ask(client: &UdpSocket, datagram: &[u8]) -> Vec<u8> {
    client.send(datagram).await.unwrap();
    within("an answer comes", answer(client)).await
}

async fn answer(client: &UdpSocket) -> Vec<u8> {
    let mut room = vec![0; 65_536];
    let length = client.recv(&mut room).await.unwrap();
    room.truncate(length);
    room
}

/// True when nothing comes for a while.
async fn is_silent(client: &UdpSocket) -> bool {
    timeout(Duration::from_millis(150), answer(client))
        .await
        .is_err()
}

/// Who answers.
async fn name(client: &UdpSocket) -> String {
    let answer = String::from_utf8(ask(client, b"x").await).unwrap();
    answer.trim_end_matches(":x").to_owned()
}

fn dropped(gateway: &Gateway, limit: &str) -> u64 {
    let labels = format!("udp_datagrams_dropped_total{{listener=\"{LISTENER}\",route=\"{ROUTE}\"");
    gateway.metric(&format!("{labels},limit=\"{limit}\"}}"), &[])
}

fn active(gateway: &Gateway) -> u64 {
    gateway.metric(
        &format!("stream_sessions_active{{listener=\"{LISTENER}\",route=\"{ROUTE}\"}}"),
        &[],
    )
}

fn ended(gateway: &Gateway, reason: &str) -> u64 {
    let labels = format!("stream_sessions_total{{listener=\"{LISTENER}\",route=\"{ROUTE}\"");
    gateway.metric(&format!("{labels},reason=\"{reason}\"}}"), &[])
}

#[tokio::test]
async fn datagrams_of_every_size_go_there_and_back() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let gateway = Gateway::serving(&snapshot).await;
    let client = client("127.0.0.1", at(port)).await;
    for size in [0, 1, 512, 1_472, 9_000, 65_503, 65_507] {
        let datagram = vec![b'x'; size];
        let mut expected = [b"one:", &*datagram].concat();
        expected.truncate(65_507);
        let got = ask(&client, &datagram).await;
        assert!(got == expected, "{size}: {} bytes came back", got.len());
    }
    assert_eq!((active(&gateway), backend.connections()), (1, 7));
    let series = |name: &str| gateway.metric(&format!("{name}{{listener=\"{LISTENER}\""), &[]);
    assert_eq!(series("udp_datagrams_received_total"), 7);
    assert_eq!(series("udp_datagrams_sent_total"), 7);
    assert_eq!(series("stream_received_bytes_total"), 141_995);
}

#[tokio::test]
async fn many_in_a_row_keep_their_order_and_their_clients() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let _gateway = Gateway::serving(&snapshot).await;
    let clients: Vec<_> = (0..20)
        .map(|number| {
            tokio::spawn(async move {
                let client = client("127.0.0.1", at(port)).await;
                for round in 0..20 {
                    let say = |at: u32| format!("{number} {round} {at}");
                    for at in 0..5 {
                        client.send(say(at).as_bytes()).await.unwrap();
                    }
                    for at in 0..5 {
                        let got = within("an answer", answer(&client)).await;
                        assert_eq!(String::from_utf8(got).unwrap(), format!("one:{}", say(at)));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(backend.connections(), 2_000);
}

#[tokio::test]
async fn sessions_are_shared_by_weight_and_stay_where_they_are() {
    let (one, two) = (
        StreamBackend::udp("one").await,
        StreamBackend::udp("two").await,
    );
    let port = free_port();
    let clusters: [(_, _, &[_]); 2] = [
        ("app/one:1", 3, &[one.address()]),
        ("app/two:1", 1, &[two.address()]),
    ];
    let first = snapshot(port, &clusters);
    let gateway = Gateway::serving(&first).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let client = client("127.0.0.1", at(port)).await;
        let name = name(&client).await;
        clients.push((client, name));
    }
    let of_one = clients.iter().filter(|(_, name)| name == "one").count();
    assert!((29..=31).contains(&of_one), "{of_one}");
    // All goes to the second one now, and the first is not even known any more.
    let second = SnapshotBuilder::from(&first, "v2")
        .stream_route(stream_route(
            StreamKind::Udp,
            ROUTE,
            LISTENER,
            &[],
            &[("app/two:1", 1)],
        ))
        .with(|snapshot| drop(snapshot.clusters.remove("app/one:1")))
        .build();
    gateway.change(&first, &second).await;
    for (client, before) in &clients {
        assert_eq!(name(client).await, *before);
    }
    assert_eq!(active(&gateway), 40);
    let newcomer = client("127.0.0.1", at(port)).await;
    assert_eq!(name(&newcomer).await, "two");
}

#[tokio::test]
async fn a_source_always_meets_the_same_endpoint_by_hash() {
    let backends = [
        StreamBackend::udp("one").await,
        StreamBackend::udp("two").await,
        StreamBackend::udp("three").await,
    ];
    let endpoints: Vec<_> = backends.iter().map(StreamBackend::address).collect();
    let mut hashed = cluster("app/dns:53", ClusterProtocol::Udp, &endpoints);
    hashed.balancing = Balancing::ConsistentHash(HashKey::SourceIp);
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[])]);
    let snapshot = SnapshotBuilder::from(&snapshot, "v2")
        .add_cluster(hashed)
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    let mut names = BTreeSet::new();
    for host in 1..20 {
        let from = Ipv4Addr::new(127, 0, 1, host).to_string();
        let mut of_source = BTreeSet::new();
        for _ in 0..4 {
            let client = client(&from, at(port)).await;
            of_source.insert(name(&client).await);
        }
        assert_eq!(of_source.len(), 1, "{from}: {of_source:?}");
        names.extend(of_source);
    }
    assert_eq!(names.len(), 3);
}

#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    for (wildcard, hosts) in [
        ("0.0.0.0", ["127.0.0.1", "127.0.0.7"]),
        ("::", ["::1", "::1"]),
    ] {
        let backend = StreamBackend::udp("one").await;
        let port = free_port();
        let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
        let wildcard: IpAddr = wildcard.parse().unwrap();
        let change = |snapshot: &mut Snapshot| {
            let mut listener = (*snapshot.listeners.get(LISTENER).unwrap()).clone();
            std::sync::Arc::make_mut(&mut listener).addresses = vec![wildcard];
            snapshot.listeners.insert(listener);
        };
        let snapshot = SnapshotBuilder::from(&snapshot, "v2").with(change).build();
        let gateway = Gateway::serving(&snapshot).await;
        let any = if wildcard.is_ipv4() { "0.0.0.0" } else { "::" };
        // One source that asks two addresses has two sessions, and a connected socket takes nothing
        // from elsewhere.
        let source = std::net::UdpSocket::bind((any, 0)).unwrap();
        let source_port = source.local_addr().unwrap().port();
        drop(source);
        for host in hosts {
            let host: IpAddr = host.parse().unwrap();
            let client = UdpSocket::bind((any, source_port)).await.unwrap();
            client.connect((host, port)).await.unwrap();
            assert_eq!(name(&client).await, "one", "{host}");
        }
        let sessions = if wildcard.is_ipv4() { 2 } else { 1 };
        assert_eq!(active(&gateway), sessions);
    }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_ends_its_session_and_the_next_one_serves() {
    let alive = StreamBackend::udp("alive").await;
    let port = free_port();
    let endpoints = [closed_port(), alive.address()];
    let snapshot = snapshot(port, &[("app/dns:53", 1, &endpoints)]);
    let gateway = Gateway::serving(&snapshot).await;
    for _ in 0..6 {
        let client = client("127.0.0.1", at(port)).await;
        // Like every client of UDP it asks again when it hears nothing.
        let asked = async {
            loop {
                client.send(b"x").await.unwrap();
                if let Ok(got) = timeout(Duration::from_millis(100), answer(&client)).await {
                    return got;
                }
            }
        };
        assert_eq!(within("somebody answers", asked).await, b"alive:x");
    }
    settled("the dead are counted", || {
        ended(&gateway, "connect_failed") >= 1
    })
    .await;
    assert_eq!(active(&gateway), 6);
    drop(alive);
    let all_gone = async {
        let client = client("127.0.0.1", at(port)).await;
        while ended(&gateway, "connect_failed") < 5 {
            client.send(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("sessions end one after the other", all_gone).await;
}

#[tokio::test]
async fn what_goes_nowhere_is_dropped_and_counted() {
    let port = free_port();
    let first = snapshot(port, &[("app/dns:53", 1, &[])]);
    let gateway = Gateway::serving(&first).await;
    let client = client("127.0.0.1", at(port)).await;
    client.send(b"x").await.unwrap();
    settled("no endpoint", || dropped(&gateway, "unroutable") == 1).await;
    assert_eq!((ended(&gateway, "no_endpoint"), active(&gateway)), (1, 0));
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| drop(snapshot.stream_routes.remove(ROUTE)))
        .build();
    gateway.change(&first, &second).await;
    client.send(b"x").await.unwrap();
    let series = format!(
        "udp_datagrams_dropped_total{{listener=\"{LISTENER}\",route=\"none\",limit=\"unroutable\"}}"
    );
    settled("no route", || gateway.metric(&series, &[]) == 1).await;
}

#[tokio::test]
async fn silent_sessions_end_and_busy_ones_do_not() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.streams.udp.idle = Duration::from_millis(400);
    })
    .await;
    let (busy, silent) = (
        client("127.0.0.1", at(port)).await,
        client("127.0.0.1", at(port)).await,
    );
    name(&silent).await;
    let wait = async {
        while ended(&gateway, "idle_timeout") == 0 {
            assert_eq!(name(&busy).await, "one");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("the silent one ends", wait).await;
    assert_eq!((active(&gateway), ended(&gateway, "idle_timeout")), (1, 1));
    assert_eq!(name(&silent).await, "one", "it may begin again");
}

#[tokio::test]
async fn beyond_the_limit_those_give_way_that_never_came_back() {
    for limit in ["process", "listener"] {
        let backend = StreamBackend::udp("one").await;
        let port = free_port();
        let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.workers = 1;
            match limit {
                "process" => bootstrap.udp_sessions_max = Some(3),
                _ => bootstrap.streams.udp.listener_sessions_max = Some(3),
            }
        })
        .await;
        let mut talking = Vec::new();
        for _ in 0..2 {
            let client = client("127.0.0.1", at(port)).await;
            assert_eq!(
                (name(&client).await, name(&client).await),
                ("one".into(), "one".into())
            );
            talking.push(client);
        }
        for round in 1..=10 {
            let once = client("127.0.0.1", at(port)).await;
            assert_eq!(name(&once).await, "one", "{limit} {round}");
            assert!(active(&gateway) <= 3);
        }
        assert_eq!(ended(&gateway, "overload"), 9, "{limit}");
        for client in &talking {
            assert_eq!(name(client).await, "one");
        }
        // When all of them talk nobody gives way.
        let third = client("127.0.0.1", at(port)).await;
        assert_eq!(
            (name(&third).await, name(&third).await),
            ("one".into(), "one".into())
        );
        let late = client("127.0.0.1", at(port)).await;
        late.send(b"x").await.unwrap();
        assert!(is_silent(&late).await, "{limit}");
        assert_eq!(dropped(&gateway, "sessions"), 1);
        assert_eq!(name(&third).await, "one");
    }
}

#[tokio::test]
async fn sources_and_listeners_have_their_rates() {
    type Change = fn(&mut dataplane_stream::UdpSettings);
    let rates: [(&str, Change, u64); 5] = [
        (
            "datagrams of a source",
            |udp| udp.source_datagrams_per_second = Some(4),
            6,
        ),
        (
            "datagrams of a listener",
            |udp| udp.listener_datagrams_per_second = Some(4),
            6,
        ),
        (
            "datagrams of all",
            |udp| udp.datagrams_per_second = Some(4),
            6,
        ),
        (
            "sessions of a source",
            |udp| udp.source_sessions_per_second = Some(2),
            8,
        ),
        (
            "sessions of a listener",
            |udp| udp.listener_sessions_per_second = Some(2),
            8,
        ),
    ];
    for (what, change, lost) in rates {
        let backend = StreamBackend::udp("one").await;
        let port = free_port();
        let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
        let gateway =
            Gateway::with(&snapshot, |bootstrap| change(&mut bootstrap.streams.udp)).await;
        for _ in 0..10 {
            let client = client("127.0.0.1", at(port)).await;
            client.send(b"x").await.unwrap();
        }
        // A bucket refills while the test runs.
        settled(what, || {
            let (lost_so_far, passed) = (dropped(&gateway, "rate"), backend.connections() as u64);
            lost_so_far + passed == 10 && (lost - 2..=lost).contains(&lost_so_far)
        })
        .await;
        if what.ends_with("of a source") {
            let other = client("127.0.0.9", at(port)).await;
            assert_eq!(name(&other).await, "one", "{what}");
        }
    }
}

#[tokio::test]
async fn a_removed_listener_lets_sessions_finish() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let first = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let gateway = Gateway::serving(&first).await;
    let known = client("127.0.0.1", at(port)).await;
    assert_eq!(name(&known).await, "one");
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| drop(snapshot.listeners.remove(LISTENER)))
        .build();
    gateway.change(&first, &second).await;
    assert_eq!(name(&known).await, "one");
    let late = client("127.0.0.1", at(port)).await;
    late.send(b"x").await.unwrap();
    assert!(is_silent(&late).await);
    // Silent for a while, and the address is free again.
    eventually("the socket is closed", || {
        std::net::UdpSocket::bind(at(port)).ok()
    })
    .await;
    let third = SnapshotBuilder::from(&first, "v3").build();
    gateway.change(&second, &third).await;
    assert_eq!(name(&late).await, "one");
}

#[tokio::test]
async fn a_session_whose_listener_is_gone_may_be_silent_as_long_as_the_limit_says() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let first = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    // Longer than without the setting.
    let limit = Duration::from_secs(3);
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.streams.udp.leaving_idle = limit;
    })
    .await;
    let known = client("127.0.0.1", at(port)).await;
    let began = Instant::now();
    assert_eq!(name(&known).await, "one");
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| drop(snapshot.listeners.remove(LISTENER)))
        .build();
    gateway.change(&first, &second).await;
    eventually("the socket is closed", || {
        std::net::UdpSocket::bind(at(port)).ok()
    })
    .await;
    assert!(began.elapsed() >= limit, "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_address_that_comes_back_at_once_serves_at_once() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let first = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let gateway = Gateway::serving(&first).await;
    let known = client("127.0.0.1", at(port)).await;
    assert_eq!(name(&known).await, "one");
    let second = SnapshotBuilder::from(&first, "v2")
        .with(|snapshot| drop(snapshot.listeners.remove(LISTENER)))
        .build();
    gateway.change(&first, &second).await;
    let third = SnapshotBuilder::from(&first, "v3").build();
    gateway.change(&second, &third).await;
    eventually("its sockets are closed", || {
        (active(&gateway) == 0).then_some(())
    })
    .await;
    for _ in 0..10 {
        let client = client("127.0.0.1", at(port)).await;
        assert_eq!(name(&client).await, "one");
    }
}

#[tokio::test]
async fn the_end_waits_for_sessions_and_each_one_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let mut gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.drain.min_accept = Duration::ZERO;
        bootstrap.access_log = Some(access_log::Settings {
            sink: access_log::Sink::File(file.clone()),
            ..access_log::Settings::default()
        });
    })
    .await;
    let client = client("127.0.0.1", at(port)).await;
    name(&client).await;
    gateway.stop();
    assert_eq!(name(&client).await, "one");
    assert!(gateway.stopped().await, "nothing had to be cut");
    let line = std::fs::read_to_string(&file).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    for (field, expected) in [
        ("event", "stream_session"),
        ("protocol", "udp"),
        ("listener", LISTENER),
        ("reason", "idle_timeout"),
    ] {
        assert_eq!(line[field], expected, "{line}");
    }
    assert_eq!(
        (&line["datagrams_received"], &line["bytes_sent"]),
        (&2.into(), &10.into())
    );
}
