//! A router that asks for shorter packets is no reason to give an endpoint up.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::within;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{active, answer, client, dropped, ended, snapshot};
use crate::own_network;
use crate::support::{Gateway, at};

const INSIDE: &str = "streams::udp::fragments::inside";
/// What the router on the way is said to carry.
const MTU: u16 = 1_400;

#[test]
fn a_packet_that_was_too_long_for_a_router_ends_nothing() {
    own_network::enter(INSIDE, "ICMP errors for UDP");
}

/// "Fragmentation needed" (RFC 1191) for a datagram that went from `from` to `to`.
fn too_long(from: SocketAddrV4, to: SocketAddrV4) -> Vec<u8> {
    let mut message = vec![3, 4, 0, 0, 0, 0];
    message.extend(MTU.to_be_bytes());
    // The head of the packet that was lost: IPv4 with 20 bytes, don't fragment, UDP.
    message.extend([0x45, 0, 0x05, 0xDC, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    message.extend(from.ip().octets());
    message.extend(to.ip().octets());
    for field in [from.port(), to.port(), 1_480, 0] {
        message.extend(field.to_be_bytes());
    }
    let words = message.chunks_exact(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    let folded = (sum & 0xFFFF) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xFFFF) + (folded >> 16)).unwrap();
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    message
}

fn v4(address: SocketAddr) -> SocketAddrV4 {
    match address {
        SocketAddr::V4(address) => address,
        SocketAddr::V6(_) => panic!("{address} is not of IPv4"),
    }
}

#[tokio::test]
#[ignore = "run by the test above, in a network of its own"]
async fn inside() {
    if !own_network::is_inside() {
        return;
    }
    own_network::run("ip link set lo up");
    let router = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)).unwrap();
    let backend = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = backend.local_addr().unwrap();
    let port = free_port();
    let snapshot = snapshot(port, &[("app/dns:53", 1, &[address])]);
    let gateway = Gateway::serving(&snapshot).await;
    let client = client("127.0.0.1", at(port)).await;
    let mut room = vec![0; 65_536];
    for round in 0..50 {
        let datagram = vec![b'x'; 1 + round * 100];
        client.send(&datagram).await.unwrap();
        let came = within("it gets there", backend.recv_from(&mut room)).await;
        let (length, gateways) = came.unwrap();
        assert_eq!(length, datagram.len(), "{round}");
        let error = too_long(v4(gateways), v4(address));
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into();
        router.send_to(&error, &to).unwrap();
        // In half of the rounds the session learns it by reading, else when it sends next.
        if round % 2 == 0 {
            backend.send_to(b"answer", gateways).await.unwrap();
            let answer = within("an answer comes", answer(&client)).await;
            assert_eq!(answer, b"answer", "{round}");
        }
    }
    assert_eq!((active(&gateway), dropped(&gateway, "size")), (1, 0));
    for reason in ["connect_failed", "upstream_reset"] {
        assert_eq!(ended(&gateway, reason), 0, "{reason}");
    }
    let pmtu = std::process::Command::new("ip")
        .args(["route", "get", "127.0.0.1"])
        .output()
        .unwrap();
    let pmtu = String::from_utf8_lossy(&pmtu.stdout).into_owned();
    assert!(
        pmtu.contains("mtu 1400"),
        "the kernel has believed nothing: {pmtu}"
    );
}
