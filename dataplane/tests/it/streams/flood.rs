//! A flood of forged sources against the built binary: memory and descriptors stay bounded, and
//! those that were there before are served as before.
//!
//! It happens in a network of its own, whose only way out leads nowhere: sources are really forged,
//! and what is answered to them is lost as it would be.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{SnapshotBuilder, StreamBackend, within};
use socket2::{Domain, Protocol, Socket, Type};

use super::udp::{LISTENER, ask, client, snapshot};
use crate::binary::Binary;
use crate::own_network::{self, run};

const INSIDE: &str = "streams::flood::inside";
const SOURCES: u32 = 100_000;
/// Datagrams that the kernel may lose while the gateway does not get a CPU.
const LOST_MAX: u64 = 10_000;
/// Ours, on the only wire there is.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// What limits hold, and what the flood may cost at most.
struct Case {
    keys: &'static str,
    sessions_max: usize,
    /// What sessions may take, a few KiB each, and what an allocator keeps.
    memory_mib: u64,
}

const CASES: [Case; 2] = [
    Case {
        keys: "",
        sessions_max: 8_192,
        memory_mib: 128,
    },
    // As many sessions as come: they displace each other.
    Case {
        keys: "runtimeProtection: {udpListenerSessionLimit: 2000, udpListenerSessionsPerSecond: 0}",
        sessions_max: 2_000,
        memory_mib: 48,
    },
];

#[test]
fn a_hundred_thousand_forged_sources_change_nothing_for_others() {
    own_network::enter(INSIDE, "a flood of forged sources");
}

fn resident_mib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

fn descriptors(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}

/// An IPv4 packet with a datagram from a forged source; the kernel fills in the checksum.
fn forged(source: Ipv4Addr, to: SocketAddrV4) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 34, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend(source.octets());
    packet.extend(to.ip().octets());
    for field in [4_000, to.port(), 14, 0] {
        packet.extend(u16::to_be_bytes(field));
    }
    packet.extend(b"forged");
    packet
}

/// One datagram from every address of a part of 198.18.0.0/15; says how many went out.
fn flood(target: SocketAddrV4, sources: std::ops::Range<u32>) -> u64 {
    let wire = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).unwrap();
    let first = Ipv4Addr::new(198, 18, 0, 0).to_bits();
    sources
        .filter(|source| {
            let packet = forged(Ipv4Addr::from_bits(first + source), target);
            wire.send_to(&packet, &target.into()).is_ok()
        })
        .count() as u64
}

#[tokio::test]
#[ignore = "run by the test above, in a network of its own"]
async fn inside() {
    if !own_network::is_inside() {
        return;
    }
    run("ip link set lo up");
    run("ip link add wire type veth peer name nowhere");
    run("ip link set wire up");
    run("ip link set nowhere up");
    run("ip addr add 192.0.2.1/24 dev wire");
    run("ip route add default via 192.0.2.254 dev wire");
    run("ip neigh add 192.0.2.254 lladdr 02:00:00:00:00:01 dev wire nud permanent");
    for case in &CASES {
        flooded(case).await;
    }
}

async fn flooded(case: &Case) {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let target = SocketAddrV4::new(ADDRESS, port);
    let local = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let mut listener = (**local.listeners.get(LISTENER).unwrap()).clone();
    listener.addresses = vec![ADDRESS.into()];
    let snapshot = SnapshotBuilder::from(&local, "v2")
        .listener(listener)
        .build();
    let (binary, _control_plane) = Binary::serving(&snapshot, &[], case.keys).await;
    let mut neighbours = Vec::new();
    for _ in 0..20 {
        let client = client("192.0.2.1", target.into()).await;
        for _ in 0..2 {
            assert_eq!(ask(&client, b"x").await, b"one:x");
        }
        neighbours.push(client);
    }
    let (before, began) = (resident_mib(binary.id()), Instant::now());
    let mut sent = 0;
    for part in 0..SOURCES / 1_000 {
        let range = part * 1_000..(part + 1) * 1_000;
        let flooding = tokio::task::spawn_blocking(move || flood(target, range));
        sent += flooding.await.unwrap();
        // Neighbours talk meanwhile, which also waits for the gateway to catch up.
        for client in &neighbours {
            assert_eq!(ask_until_answered(client).await, b"one:x", "{part}");
        }
        let open = descriptors(binary.id());
        assert!(open < case.sessions_max + 200, "{part}: {open}");
        let grown = resident_mib(binary.id()).saturating_sub(before);
        assert!(grown < case.memory_mib, "{grown} MiB after {sent} sources");
    }
    assert_eq!(sent, u64::from(SOURCES));
    let metrics = binary.text("/metrics").await;
    let sum = |name: &str| -> u64 {
        let lines = metrics
            .lines()
            .filter(|line| line.contains(name) && !line.starts_with('#'));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    };
    // Each one has begun a session or met the limit; hardly any is lost before it is seen.
    let seen = sum("udp_datagrams_received_total") + sum("udp_datagrams_dropped_total");
    assert!(
        seen + LOST_MAX > sent,
        "{seen} of {sent}, {:?}",
        began.elapsed()
    );
    let active = sum("udp_sessions_active_current ");
    let max = case.sessions_max as u64;
    // Fewer where descriptors are short; that it was full is what the next line says.
    assert!((1..=max).contains(&active), "{active}: {metrics}");
    assert!(metrics.contains("reason=\"overload\""), "{metrics}");
}

/// Asks again when nothing comes: a full queue of the kernel may lose what a neighbour sends, too.
async fn ask_until_answered(client: &tokio::net::UdpSocket) -> Vec<u8> {
    let asking = async {
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(1), ask(client, b"x"));
            if let Ok(answer) = answer.await {
                return answer;
            }
        }
    };
    within("an answer comes", asking).await
}
