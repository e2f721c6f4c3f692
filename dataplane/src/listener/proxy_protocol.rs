//! The header of the PROXY protocol, v1 and v2, by which a balancer tells whose connection it is.
//!
//! [`read`] takes exactly the header off a fresh connection and nothing behind it; [`decode`] is its
//! pure core and meets hostile bytes. Whose headers are believed is decided by the caller, before a
//! byte is read. TLVs are skipped, apart from the checksum, which is checked when it is there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::net::TcpStream;

/// The longest line of v1, its CRLF included.
const V1_BYTES_MAX: usize = 107;
/// What v2 begins with; no text protocol does.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_FIXED: usize = 16;
/// The largest address block of v2, two paths of UNIX sockets.
const V2_ADDRESS_BYTES_MAX: usize = 216;
/// The TLV with the CRC32c of the whole header.
const TLV_CRC32C: u8 = 0x03;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection is of a client at this address.
    Proxied(SocketAddr),
    /// The balancer speaks for itself (a health check), or does not know: the socket's address counts.
    Local,
}

/// Why there is no header.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// The bytes are no header of either version.
    #[error("the connection does not begin with a PROXY protocol header")]
    NoHeader,
    /// It begins as one and breaks the rules.
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
    /// It is longer than is taken.
    #[error("the PROXY protocol header is too long")]
    TooLong,
    /// The connection ended or broke.
    #[error("the connection ended within its PROXY protocol header")]
    Io(#[from] io::Error),
}

/// Takes the header off the front of `tcp`; the caller keeps the deadline.
pub async fn read(tcp: &TcpStream, tlvs_max: usize) -> Result<Header, ProxyError> {
    let mut held = Vec::with_capacity(V1_BYTES_MAX);
    let mut peeked = [0; 512];
    loop {
        let seen = tcp.peek(&mut peeked).await?;
        if seen == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let before = held.len();
        held.extend_from_slice(&peeked[..seen]);
        let decoded = decode(&held, tlvs_max)?;
        // What is behind the header is not ours; what belongs to it must go, whole or not.
        let ours = decoded.map_or(held.len(), |(_, length)| length);
        take(tcp, &mut peeked[..ours - before]).await?;
        if let Some((header, _)) = decoded {
            return Ok(header);
        }
    }
}

/// Reads exactly what was seen already.
async fn take(tcp: &TcpStream, mut seen: &mut [u8]) -> io::Result<()> {
    while !seen.is_empty() {
        tcp.readable().await?;
        match tcp.try_read(seen) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(taken) => seen = &mut seen[taken..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The header at the front of `bytes` and its length; nothing while more bytes are needed.
///
/// Of version 2, at most `tlvs_max` bytes of extensions are taken.
pub fn decode(bytes: &[u8], tlvs_max: usize) -> Result<Option<(Header, usize)>, ProxyError> {
    let begins = |with: &[u8]| {
        let length = bytes.len().min(with.len());
        bytes[..length] == with[..length]
    };
    match bytes.first() {
        None => Ok(None),
        Some(_) if begins(b"PROXY ") => v1(bytes),
        Some(_) if begins(&V2_SIGNATURE) => v2(bytes, tlvs_max),
        Some(_) => Err(ProxyError::NoHeader),
    }
}

fn v1(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyError> {
    let within = &bytes[..bytes.len().min(V1_BYTES_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match bytes.len() {
            0..V1_BYTES_MAX => Ok(None),
            _ => Err(ProxyError::TooLong),
        };
    };
    let malformed = ProxyError::Malformed;
    let line = std::str::from_utf8(&within[..end]).map_err(|_| malformed("it is not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next().unwrap_or_default();
    let header = match family {
        // Whatever follows must be ignored.
        "UNKNOWN" => Header::Local,
        "TCP4" | "TCP6" => {
            let mut address = || {
                let address: IpAddr = words.next()?.parse().ok()?;
                (address.is_ipv4() == (family == "TCP4")).then_some(address)
            };
            let (Some(source), Some(_)) = (address(), address()) else {
                return Err(malformed("an address is not of the family"));
            };
            let (Some(port), Some(_), None) =
                (port(words.next()), port(words.next()), words.next())
            else {
                return Err(malformed("a port is not a number, or words follow"));
            };
            Header::Proxied(SocketAddr::new(source, port))
        }
        _ => return Err(malformed("the family is not TCP4, TCP6 or UNKNOWN")),
    };
    Ok(Some((header, end + 2)))
}

/// Decimal digits without leading zeros.
fn port(word: Option<&str>) -> Option<u16> {
    let word = word?;
    let is_plain = word.bytes().all(|byte| byte.is_ascii_digit());
    let has_zero = word.len() > 1 && word.starts_with('0');
    (is_plain && !has_zero).then(|| word.parse().ok()).flatten()
}

fn v2(bytes: &[u8], tlvs_max: usize) -> Result<Option<(Header, usize)>, ProxyError> {
    let Some((fixed, _)) = bytes.split_first_chunk::<V2_FIXED>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    let addresses = match family >> 4 {
        0 => 0,
        1 => 12,
        2 => 36,
        3 => V2_ADDRESS_BYTES_MAX,
        _ => return Err(ProxyError::Malformed("the address family is not known")),
    };
    if command >> 4 != 2 {
        return Err(ProxyError::Malformed("the version is not 2"));
    }
    if length > V2_ADDRESS_BYTES_MAX + tlvs_max {
        return Err(ProxyError::TooLong);
    }
    let Some(header) = bytes.get(..V2_FIXED + length) else {
        return Ok(None);
    };
    let done = |said| Ok(Some((said, header.len())));
    match command & 0x0f {
        // What a balancer says about its own connection must be ignored.
        0 => return done(Header::Local),
        1 => {}
        _ => return Err(ProxyError::Malformed("the command is not known")),
    }
    let body = &header[V2_FIXED..];
    let Some((address, tlvs)) = body.split_at_checked(addresses) else {
        return Err(ProxyError::Malformed("the addresses are cut"));
    };
    if tlvs.len() > tlvs_max {
        return Err(ProxyError::TooLong);
    }
    check_tlvs(header, header.len() - tlvs.len())?;
    match family & 0x0f {
        1 => {}
        0 if addresses == 0 => {}
        _ => return Err(ProxyError::Malformed("it is not of a stream")),
    }
    match (family >> 4, address) {
        (1, [a, b, c, d, _, _, _, _, high, low, ..]) => {
            let ip = Ipv4Addr::new(*a, *b, *c, *d);
            let port = u16::from_be_bytes([*high, *low]);
            done(Header::Proxied(SocketAddr::new(ip.into(), port)))
        }
        (2, address) if let Some((ip, rest)) = address.split_first_chunk::<16>() => {
            let port = match rest {
                [.., high, low, _, _] => u16::from_be_bytes([*high, *low]),
                _ => 0,
            };
            let ip = Ipv6Addr::from(*ip);
            done(Header::Proxied(SocketAddr::new(ip.into(), port)))
        }
        // UNIX sockets and unspecified ones have no address that means anything here.
        _ => done(Header::Local),
    }
}

/// Walks the TLVs, which begin at `from`, and checks the checksum where there is one.
fn check_tlvs(header: &[u8], from: usize) -> Result<(), ProxyError> {
    let cut = ProxyError::Malformed("a TLV is cut");
    let mut at = from;
    while let Some(rest) = header.get(at..).filter(|rest| !rest.is_empty()) {
        let Some(([kind, high, low], rest)) = rest.split_first_chunk::<3>() else {
            return Err(cut);
        };
        let Some(value) = rest.get(..usize::from(u16::from_be_bytes([*high, *low]))) else {
            return Err(cut);
        };
        if *kind == TLV_CRC32C {
            let Ok(sum) = <[u8; 4]>::try_from(value) else {
                return Err(ProxyError::Malformed("the checksum has not 4 bytes"));
            };
            let place = at + 3;
            let zeroed = [&header[..place], &[0; 4], &header[place + 4..]];
            if crc32c(&zeroed) != u32::from_be_bytes(sum) {
                return Err(ProxyError::Malformed("the checksum does not fit"));
            }
        }
        at += 3 + value.len();
    }
    Ok(())
}

/// CRC-32C (RFC 3720 appendix B.4) of the parts one behind the other.
fn crc32c(parts: &[&[u8]]) -> u32 {
    /// The polynomial 0x1EDC6F41, its bits reversed.
    const REVERSED: u32 = 0x82f6_3b78;
    let mut sum = u32::MAX;
    for byte in parts.iter().copied().flatten() {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let divides = sum & 1 == 1;
            sum >>= 1;
            if divides {
                sum ^= REVERSED;
            }
        }
    }
    !sum
}

#[cfg(test)]
mod tests;
