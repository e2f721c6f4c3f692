//! A flood of forged sources against the built binary: memory and descriptors stay bounded, and
//! those that were there before are served as before.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{StreamBackend, within};

use super::udp::{ask, client, snapshot};
use crate::binary::Binary;
use crate::support::at;

const SOURCES: u32 = 100_000;
const SESSIONS_MAX: usize = 2_000;
/// What sessions may take, a few KiB each, and what an allocator keeps.
const MEMORY_MIB: u64 = 48;
/// Datagrams that the kernel may lose while the gateway does not get a CPU.
const LOST_MAX: u64 = 10_000;

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

/// One datagram from every address of a part of 127.0.0.0/8; says how many went out.
fn flood(target: SocketAddr, sources: std::ops::Range<u32>) -> u64 {
    let first = Ipv4Addr::new(127, 1, 0, 0).to_bits();
    sources
        .filter(|source| {
            let socket = UdpSocket::bind((Ipv4Addr::from_bits(first + source), 0));
            socket.is_ok_and(|socket| socket.send_to(b"forged", target).is_ok())
        })
        .count() as u64
}

#[tokio::test]
async fn a_hundred_thousand_forged_sources_change_nothing_for_others() {
    let backend = StreamBackend::udp("one").await;
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[backend.address()])]);
    let keys = format!(
        "runtimeProtection: {{udpListenerSessionLimit: {SESSIONS_MAX}, \
         udpListenerSessionsPerSecond: 0}}"
    );
    let (binary, _control_plane) = Binary::serving(&snapshot, &[], &keys).await;
    let mut neighbours = Vec::new();
    for _ in 0..20 {
        let client = client("127.0.0.1", at(port)).await;
        for _ in 0..2 {
            assert_eq!(ask(&client, b"x").await, b"one:x");
        }
        neighbours.push(client);
    }
    let (before, began) = (resident_mib(binary.id()), Instant::now());
    let mut sent = 0;
    for part in 0..SOURCES / 1_000 {
        let range = part * 1_000..(part + 1) * 1_000;
        let flooding = tokio::task::spawn_blocking(move || flood(at(port), range));
        sent += flooding.await.unwrap();
        // Neighbours talk meanwhile, which also waits for the gateway to catch up.
        for client in &neighbours {
            assert_eq!(ask_until_answered(client).await, b"one:x", "{part}");
        }
        assert!(descriptors(binary.id()) < SESSIONS_MAX + 200, "{part}");
        let grown = resident_mib(binary.id()).saturating_sub(before);
        assert!(grown < MEMORY_MIB, "{grown} MiB after {sent} sources");
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
    // Each one has begun a session; hardly any is lost before the gateway sees it.
    let seen = sum("udp_datagrams_received_total");
    assert!(
        seen + LOST_MAX > sent,
        "{seen} of {sent}, {:?}",
        began.elapsed()
    );
    let active = sum("stream_sessions_active{");
    let max = SESSIONS_MAX as u64;
    assert!((max - 50..=max).contains(&active), "{active}");
    let gone = metrics
        .lines()
        .find(|line| line.contains("reason=\"overload\""));
    assert!(gone.is_some(), "{metrics}");
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
