//! The PROXY protocol header that tells an endpoint who the client is, versions 1 and 2.
//!
//! Written in front of a connection's first byte when the endpoint's cluster asks for it; reading
//! such headers from clients is done by the listener. What cannot be said, because the client and
//! the address it came to are of two families, is said to be unknown.

use std::net::{IpAddr, SocketAddr};

use ir::cluster::ProxyProtocol;

/// The first bytes of a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// Version 2, command LOCAL: the receiver uses the addresses of the connection itself.
const LOCAL: u8 = 0x20;
/// Address family and transport: TCP over IPv4, over IPv6.
const TCP4: u8 = 0x11;
const TCP6: u8 = 0x21;

/// The header for a connection from `client` to `local`.
pub(crate) fn header(version: ProxyProtocol, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    match version {
        ProxyProtocol::V1 => text(client, local),
        ProxyProtocol::V2 => binary(client, local),
    }
}

fn text(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let family = match (client.ip(), local.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return b"PROXY UNKNOWN\r\n".to_vec(),
    };
    let (from, to) = (client.ip(), local.ip());
    let (from_port, to_port) = (client.port(), local.port());
    format!("PROXY {family} {from} {to} {from_port} {to_port}\r\n").into_bytes()
}

fn binary(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut out = SIGNATURE.to_vec();
    match (client.ip(), local.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            out.extend([PROXY, TCP4, 0, 12]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            out.extend([PROXY, TCP6, 0, 36]);
            out.extend(from.octets());
            out.extend(to.octets());
        }
        _ => {
            out.extend([LOCAL, 0, 0, 0]);
            return out;
        }
    }
    out.extend(client.port().to_be_bytes());
    out.extend(local.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn version_1_is_a_line() {
        for (client, local, expected) in [
            (
                "192.0.2.1:56324",
                "198.51.100.7:443",
                "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n",
            ),
            (
                "[2001:db8::1]:1",
                "[::1]:65535",
                "PROXY TCP6 2001:db8::1 ::1 1 65535\r\n",
            ),
            ("192.0.2.1:1", "[::1]:2", "PROXY UNKNOWN\r\n"),
        ] {
            let header = header(ProxyProtocol::V1, address(client), address(local));
            assert_eq!(String::from_utf8(header).unwrap(), expected);
        }
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = header(
            ProxyProtocol::V2,
            address("1.2.3.4:258"),
            address("5.6.7.8:772"),
        );
        let expected = [PROXY, TCP4, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4];
        assert_eq!(v4, [&SIGNATURE[..], &expected].concat());
        let v6 = header(ProxyProtocol::V2, address("[::1]:1"), address("[::2]:2"));
        assert_eq!((v6.len(), &v6[12..16]), (52, &[PROXY, TCP6, 0, 36][..]));
        let mixed = header(ProxyProtocol::V2, address("1.2.3.4:1"), address("[::2]:2"));
        assert_eq!(mixed[12..], [LOCAL, 0, 0, 0]);
    }
}
