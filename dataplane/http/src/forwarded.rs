//! What proxies in front of us say about a client, and how far it is believed.
//!
//! Pure: the client phase hands in field values and addresses. Reading goes from the data plane's peer
//! outwards, the way the fields grew, and ends at the first hop that is not trusted or cannot be
//! read; what lies beyond was written by a stranger and is never looked at, however long it is.
//! Addresses are written anew from what was read.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use ir::listener::TrustedProxies;

use crate::h1::Authority;

/// `X-Forwarded-For`.
pub(crate) const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// `X-Forwarded-Proto`.
pub(crate) const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// `X-Forwarded-Host`.
pub(crate) const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// `X-Forwarded-Port`.
pub(crate) const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// The chain of addresses from the client to us, as far as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    /// From our peer outwards; never empty.
    addresses: Vec<IpAddr>,
    /// What was said about the request where the outermost of them came in.
    pub(crate) origin: Origin,
}

/// The request as the client made it, where a trusted proxy says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) scheme: Option<Scheme>,
    pub(crate) host: Option<HeaderValue>,
    pub(crate) port: Option<u16>,
}

/// Where the client's own connection ended, as far as a trusted proxy says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Front {
    pub(crate) scheme: Option<Scheme>,
    pub(crate) port: Option<u16>,
}

impl Origin {
    /// What of it redirects are written by.
    pub(crate) fn front(&self, scheme: Scheme) -> Front {
        // Of a proxy that ends TLS the usual port is meant, not ours behind it.
        let is_told = self.scheme.is_some() || self.host.is_some();
        Front {
            scheme: self.scheme,
            port: self.port.or_else(|| is_told.then(|| scheme.port())),
        }
    }
}

/// The scheme of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that goes without saying.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        if text.eq_ignore_ascii_case(b"https") {
            Some(Self::Https)
        } else if text.eq_ignore_ascii_case(b"http") {
            Some(Self::Http)
        } else {
            None
        }
    }
}

impl Chain {
    /// By `X-Forwarded-For` and its companions.
    pub(crate) fn by_x_forwarded(
        peer: IpAddr,
        trusted: &TrustedProxies,
        headers: &HeaderMap,
    ) -> Self {
        let members = headers.get_all(FOR).iter().rev();
        let members = members.flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        let addresses = walk(
            peer,
            trusted,
            members.map(|text| address(text.trim_ascii())),
        );
        let host = last_member(headers, &HOST).and_then(authority);
        let port = last_member(headers, &PORT).and_then(port);
        Self {
            addresses,
            origin: Origin {
                scheme: last_member(headers, &PROTO).and_then(Scheme::parse),
                port: port.or_else(|| host.as_ref()?.port()),
                host: host.map(|host| host.to_header_value()),
            },
        }
    }

    /// By `Forwarded`.
    pub(crate) fn by_forwarded(
        peer: IpAddr,
        trusted: &TrustedProxies,
        headers: &HeaderMap,
    ) -> Self {
        let mut origin = Origin::default();
        let elements = headers.get_all(header::FORWARDED).iter().rev();
        let elements = elements.flat_map(|value| RevSplit::new(value.as_bytes(), b','));
        let addresses = walk(
            peer,
            trusted,
            elements.map(|element| {
                let element = Element::parse(element)?;
                let address = element.address?;
                origin = element.origin;
                Some(address)
            }),
        );
        Self { addresses, origin }
    }

    /// Whose request it is.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        self.addresses.last().copied()
    }

    /// The value of `X-Forwarded-For`: client first, our peer last.
    pub(crate) fn to_x_forwarded(&self) -> HeaderValue {
        let mut text = String::with_capacity(self.addresses.len() * 17);
        for address in self.addresses.iter().rev() {
            if !text.is_empty() {
                text.push_str(", ");
            }
            let _ = write!(text, "{address}");
        }
        value(text)
    }

    /// The value of `Forwarded`: client first, our peer last. Scheme and host are said where the
    /// client's request came in.
    pub(crate) fn to_forwarded(&self, scheme: Scheme, host: &HeaderValue) -> HeaderValue {
        let mut text = String::with_capacity(self.addresses.len() * 24 + host.len() + 24);
        for (index, address) in self.addresses.iter().rev().enumerate() {
            if index > 0 {
                text.push_str(", ");
            }
            push_node(&mut text, *address);
            if index == 0 {
                push_origin(&mut text, scheme, host);
            }
        }
        value(text)
    }
}

/// The value of `Forwarded` for a client that speaks to us itself.
pub(crate) fn direct(client: IpAddr, scheme: Scheme, host: &HeaderValue) -> HeaderValue {
    let mut text = String::with_capacity(48 + host.len());
    push_node(&mut text, client);
    push_origin(&mut text, scheme, host);
    value(text)
}

fn push_node(text: &mut String, address: IpAddr) {
    let _ = match address {
        IpAddr::V4(address) => write!(text, "for={address}"),
        IpAddr::V6(address) => write!(text, "for=\"[{address}]\""),
    };
}

/// A host is letters, digits, and punctuation that needs no escape within quotes.
fn push_origin(text: &mut String, scheme: Scheme, host: &HeaderValue) {
    if let Ok(host) = host.to_str()
        && !host.is_empty()
    {
        let is_token = host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        let quote = if is_token { "" } else { "\"" };
        let _ = write!(text, ";host={quote}{host}{quote}");
    }
    text.push_str(";proto=");
    text.push_str(scheme.as_str());
}

fn value(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text))
        .unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// From `peer` outwards over what each hop says of the one behind it, as long as hops are trusted.
fn walk(
    peer: IpAddr,
    trusted: &TrustedProxies,
    said: impl Iterator<Item = Option<IpAddr>>,
) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(4);
    let mut address = peer.to_canonical();
    let mut said = said;
    loop {
        let place = addresses.len();
        addresses.push(address);
        if !trusted.include(address, place) {
            return addresses;
        }
        match said.next() {
            Some(Some(next)) => address = next,
            // The end of what is said, or a hop that is hidden or garbage.
            Some(None) | None => return addresses,
        }
    }
}

/// An address as proxies write it: with a port or without, IPv6 in brackets or bare, in quotes or
/// not. Nothing for `unknown`, identifiers such as `_hidden`, zones, and everything else.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquoted(text)).ok()?;
    let address = match text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    };
    let address = address.or_else(|| {
        let zoneless = !text.contains('%');
        let with_port = text.parse::<SocketAddr>().ok();
        with_port.filter(|_| zoneless).map(|it| it.ip())
    })?;
    Some(address.to_canonical())
}

fn unquoted(text: &[u8]) -> &[u8] {
    match text {
        [b'"', inner @ .., b'"'] => inner,
        text => text,
    }
}

fn authority(text: &[u8]) -> Option<Authority> {
    Authority::parse(Bytes::copy_from_slice(unquoted(text))).ok()
}

fn port(text: &[u8]) -> Option<u16> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let port: u16 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (port > 0).then_some(port)
}

/// Of a list the last counts: it was written by the proxy next to us.
fn last_member<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let value = headers.get_all(name).iter().next_back()?.as_bytes();
    let member = value.rsplit(|byte| *byte == b',').next()?;
    Some(member.trim_ascii())
}

/// What `Forwarded` says about one hop.
#[derive(Debug, Default)]
struct Element {
    address: Option<IpAddr>,
    origin: Origin,
}

impl Element {
    /// Nothing for what is no list of pairs, or says a thing twice (RFC 7239 4).
    fn parse(text: &[u8]) -> Option<Self> {
        let mut element = Self::default();
        let mut seen = [false; 3];
        for pair in RevSplit::new(text, b';') {
            if pair.is_empty() {
                continue;
            }
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (&pair[..equals], &pair[equals + 1..]);
            let is = |wanted: &str| name.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes());
            let value = value.trim_ascii();
            let index = if is("for") {
                element.address = address(value);
                0
            } else if is("proto") {
                element.origin.scheme = Scheme::parse(unquoted(value));
                1
            } else if is("host") {
                let host = authority(value);
                element.origin.port = host.as_ref().and_then(Authority::port);
                element.origin.host = host.map(|host| host.to_header_value());
                2
            } else {
                continue;
            };
            if std::mem::replace(&mut seen[index], true) {
                return None;
            }
        }
        Some(element)
    }
}

/// The members of a list from its end, where separators within quotes are none.
///
/// Quotes that are opened by whoever wrote the front of the list and not closed reach no further
/// than their own part.
struct RevSplit<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> RevSplit<'a> {
    const fn new(text: &'a [u8], separator: u8) -> Self {
        Self {
            rest: Some(text),
            separator,
        }
    }
}

impl<'a> Iterator for RevSplit<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest?;
        let mut is_quoted = false;
        let mut end = rest.len();
        while let Some(at) = end.checked_sub(1) {
            let byte = rest.get(at).copied().unwrap_or_default();
            if byte == b'"' && !is_escaped(rest, at) {
                is_quoted = !is_quoted;
            }
            if byte == self.separator && !is_quoted {
                self.rest = rest.get(..at);
                return Some(rest.get(end..).unwrap_or_default().trim_ascii());
            }
            end = at;
        }
        self.rest = None;
        Some(rest.trim_ascii())
    }
}

/// An odd number of backslashes stands before it.
fn is_escaped(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let slashes = before.iter().rev().take_while(|byte| **byte == b'\\');
    slashes.count() % 2 == 1
}

#[cfg(test)]
mod tests;
