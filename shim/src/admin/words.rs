//! The words that answers use for what the configuration holds as enums, and what stands in the
//! place of credentials.
//!
//! The lists and the view of the snapshot share them. Secrets have types of their own that cannot be
//! shown; the functions here blank what only usually is one: values of fields with telling names,
//! and what stands in URLs beside host and path.

use std::fmt::Write as _;
use std::net::IpAddr;

use ir::cluster::EndpointAddress;
use ir::listener::{ListenerProtocol, TlsVersion};
use sha2::{Digest as _, Sha256};

/// What stands in the place of a credential.
pub(super) const BLANK: &str = "***";

pub(super) fn listener_protocol(protocol: ListenerProtocol) -> &'static str {
    match protocol {
        ListenerProtocol::Http => "HTTP",
        ListenerProtocol::Https => "HTTPS",
        ListenerProtocol::Grpc => "GRPC",
        ListenerProtocol::Http3 => "HTTP3",
        ListenerProtocol::Tcp => "TCP",
        ListenerProtocol::Udp => "UDP",
        ListenerProtocol::TlsPassthrough => "TLS_PASSTHROUGH",
        ListenerProtocol::Tls => "TLS",
    }
}

pub(super) fn tls_version(version: TlsVersion) -> &'static str {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
}

pub(super) fn endpoint_address(address: &EndpointAddress) -> String {
    match address {
        EndpointAddress::Ip(ip) => IpAddr::to_string(ip),
        EndpointAddress::Name(name) => name.to_string(),
    }
}

/// The value, unless fields of that name usually carry credentials.
pub(super) fn unless_sensitive<'v>(name: &str, value: &'v str) -> &'v str {
    const MARKS: [&str; 7] = [
        "auth", "cookie", "key", "token", "secret", "password", "session",
    ];
    let name = name.to_ascii_lowercase();
    match MARKS.iter().any(|mark| name.contains(mark)) {
        true => BLANK,
        false => value,
    }
}

/// The URL without user, password and values of its query.
pub(super) fn url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (place, rest) = url.split_at(end);
    let (scheme, place) = match place.split_once("://") {
        Some((scheme, place)) => (format!("{scheme}://"), place),
        None => (String::new(), place),
    };
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let shown = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}{BLANK}@{host}{path}"),
        None => format!("{scheme}{authority}{path}"),
    };
    match rest.get(..1) {
        Some(mark) => format!("{shown}{mark}{BLANK}"),
        None => shown,
    }
}

/// The SHA-256 of a text, in hexadecimal: tells two of them apart and shows nothing.
pub(super) fn fingerprint(text: &str) -> String {
    hexadecimal(&Sha256::digest(text.as_bytes()))
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_carry_credentials_are_blanked() {
        for (name, shown) in [
            ("authorization", BLANK),
            ("Proxy-Authorization", BLANK),
            ("x-api-key", BLANK),
            ("set-cookie", BLANK),
            ("x-team", "blue"),
        ] {
            assert_eq!(unless_sensitive(name, "blue"), shown, "{name}");
        }
    }

    #[test]
    fn urls_lose_what_may_be_a_credential() {
        for (whole, shown) in [
            ("https://a.test/b", "https://a.test/b"),
            ("https://a.test", "https://a.test"),
            ("https://u:p@a.test:8443/b@c", "https://***@a.test:8443/b@c"),
            ("https://a.test/b?key=k&x=y#z", "https://a.test/b?***"),
            ("https://a.test#k", "https://a.test#***"),
            ("https://u:p@w@a.test?x", "https://***@a.test?***"),
            ("u:p@a.test/b", "***@a.test/b"),
            ("", ""),
        ] {
            assert_eq!(url(whole), shown, "{whole}");
        }
    }
}
