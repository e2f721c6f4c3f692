//! The host a request is for, as Host or an absolute target names it: checked, in lower case, split
//! from its port. Routing and the Host written upstream use this one form, so they cannot disagree.
//! Names are DNS-like on purpose: RFC 3986 would allow percent-encoding and punctuation that no
//! route can match and that other parsers read as separators.

use std::fmt;
use std::net::Ipv6Addr;

use bytes::Bytes;
use http::HeaderValue;

use super::error::HeadError;

/// A DNS name is at most 253 bytes long; one dot at its end may follow.
const HOST_BYTES_MAX: usize = 254;

/// `host[:port]`. The host is a name or IPv4 address in lower case, or an IPv6 address in brackets.
#[derive(Clone, PartialEq, Eq)]
pub struct Authority {
    /// All ASCII, never empty.
    text: Bytes,
    host_len: usize,
    port: Option<u16>,
    is_named: bool,
}

impl Authority {
    /// For a request that names none, which only HTTP/1.0 may leave out. Whoever must be told one is
    /// told `localhost`.
    pub const fn unnamed() -> Self {
        const TEXT: &[u8] = b"localhost";
        Self {
            text: Bytes::from_static(TEXT),
            host_len: TEXT.len(),
            port: None,
            is_named: false,
        }
    }

    /// Checks the bytes and brings them into lower case; without upper-case letters nothing is copied.
    pub fn parse(text: Bytes) -> Result<Self, HeadError> {
        let host_len = host_len(&text).ok_or(HeadError::BadHost)?;
        let port = match text.get(host_len..) {
            None | Some([]) => None,
            Some([b':', digits @ ..]) => Some(port(digits).ok_or(HeadError::BadHost)?),
            Some(_) => return Err(HeadError::BadHost),
        };
        let text = if text.iter().any(u8::is_ascii_uppercase) {
            Bytes::from(text.to_ascii_lowercase())
        } else {
            text
        };
        Ok(Self {
            text,
            host_len,
            port,
            is_named: true,
        })
    }

    /// The host without its port, in lower case; an IPv6 address keeps its brackets.
    pub fn host(&self) -> &str {
        self.text
            .get(..self.host_len)
            .and_then(|host| str::from_utf8(host).ok())
            .unwrap_or("")
    }

    /// What the host is matched by: empty for a request that named none, which no name matches.
    pub fn routed_host(&self) -> &str {
        if self.is_named { self.host() } else { "" }
    }

    /// The port, when one was named.
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    /// `host[:port]` in lower case, as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// The same as text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.text).unwrap_or("")
    }

    /// The same in memory of its own: as it was read, it keeps the whole head that it came in.
    pub fn unshared(&self) -> Self {
        Self {
            text: Bytes::copy_from_slice(&self.text),
            ..*self
        }
    }

    /// The Host field for this authority, sharing its bytes.
    pub fn to_header_value(&self) -> HeaderValue {
        HeaderValue::from_maybe_shared(self.text.clone())
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Authority").field(&self.as_str()).finish()
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the host ends, when there is a valid one.
fn host_len(text: &[u8]) -> Option<usize> {
    if text.first() == Some(&b'[') {
        let end = memchr::memchr(b']', text)?;
        let address = str::from_utf8(text.get(1..end)?).ok()?;
        address.parse::<Ipv6Addr>().ok()?;
        return Some(end + 1);
    }
    let len = memchr::memchr(b':', text).unwrap_or(text.len());
    let is_name = text[..len]
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let is_sized = (1..=HOST_BYTES_MAX).contains(&len);
    (is_name && is_sized && text[0] != b'.' && !has_empty_label(&text[..len])).then_some(len)
}

fn has_empty_label(host: &[u8]) -> bool {
    host.windows(2).any(|pair| pair == b"..")
}

fn port(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits
        .iter()
        .fold(0_u32, |n, digit| n * 10 + u32::from(digit - b'0'));
    u16::try_from(number).ok().filter(|port| *port != 0)
}
