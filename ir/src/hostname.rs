//! Host names as Gateway API writes them: an exact DNS name or a wildcard over it.
//!
//! Shared by listeners, routes and certificates. Names are kept in lower case, so comparing is a
//! byte comparison. Matching rules live in `dataplane/route`; here is only what makes a name valid.

use std::fmt;
use std::sync::Arc;

/// A host name: exact (`www.example.com`) or wildcard (`*.example.com`), RFC 1123 labels, in
/// lower case, at most 253 bytes, no trailing dot, not an IP address.
///
/// Gateway API `Hostname`: a wildcard covers one or more labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hostname {
    text: Arc<str>,
}

/// Why a text is no [`Hostname`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameError {
    /// Nothing is left of it.
    #[error("is empty, write a DNS name such as www.example.com or *.example.com")]
    Empty,
    /// RFC 1035 limits a name to 253 characters of text.
    #[error("is longer than 253 characters")]
    TooLong,
    /// An address where Gateway API asks for a name.
    #[error("is an IP address, write a DNS name")]
    Address,
    /// A label breaks RFC 1123.
    #[error(
        "is not a DNS name: labels hold 1 to 63 of a-z, 0-9 and -, and neither start nor end with -"
    )]
    Label,
    /// `*` anywhere but as the whole first label.
    #[error("has a wildcard that is not the whole first label, write *.example.com")]
    Wildcard,
}

impl Hostname {
    /// Checks `text` and lowers its case.
    pub fn new(text: &str) -> Result<Self, HostnameError> {
        if text.is_empty() {
            return Err(HostnameError::Empty);
        }
        if text.len() > 253 {
            return Err(HostnameError::TooLong);
        }
        if text.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(HostnameError::Address);
        }
        let name = text.strip_prefix("*.").unwrap_or(text);
        if name.contains('*') {
            return Err(HostnameError::Wildcard);
        }
        if !name.split('.').all(is_label) {
            return Err(HostnameError::Label);
        }
        Ok(Self {
            text: text.to_ascii_lowercase().into(),
        })
    }

    /// The name as written in the configuration, `*.` included.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The name behind `*.` when this is a wildcard.
    pub fn wildcard_suffix(&self) -> Option<&str> {
        self.text.strip_prefix("*.")
    }

    /// True when this is a wildcard.
    pub fn is_wildcard(&self) -> bool {
        self.wildcard_suffix().is_some()
    }

    /// The more specific of the two when some host matches both, else nothing.
    ///
    /// This is how a listener's and a route's host names meet (Gateway API `HTTPRoute.hostnames`).
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        if self == other || other.covers(self) {
            return Some(self.clone());
        }
        self.covers(other).then(|| other.clone())
    }

    /// True when every host that `other` matches is matched by this one too.
    pub fn covers(&self, other: &Self) -> bool {
        if self == other {
            return true;
        }
        let Some(suffix) = self.wildcard_suffix() else {
            return false;
        };
        let name = other.as_str();
        name.len() > suffix.len() + 1
            && name.ends_with(suffix)
            && name.as_bytes()[name.len() - suffix.len() - 1] == b'.'
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let [first, .., last] = bytes else {
        return bytes.len() == 1 && bytes[0].is_ascii_alphanumeric();
    };
    bytes.len() <= 63
        && first.is_ascii_alphanumeric()
        && last.is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::new(text).unwrap()
    }

    #[test]
    fn case_is_lowered() {
        assert_eq!(host("WWW.Example.com").as_str(), "www.example.com");
    }

    #[test]
    fn bad_names_say_why() {
        for (text, error) in [
            ("", HostnameError::Empty),
            ("10.0.0.1", HostnameError::Address),
            ("a..b", HostnameError::Label),
            ("-a.b", HostnameError::Label),
            ("a_b", HostnameError::Label),
            ("a.*.b", HostnameError::Wildcard),
            ("*", HostnameError::Wildcard),
            ("*.", HostnameError::Label),
            (&"a".repeat(254), HostnameError::TooLong),
        ] {
            assert_eq!(Hostname::new(text), Err(error), "{text}");
        }
    }

    #[test]
    fn a_name_covers_itself_and_a_wildcard_what_is_below_it() {
        for (name, other, expected) in [
            ("a.example.com", "a.example.com", true),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "b.a.example.com", true),
            ("*.example.com", "*.a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "aexample.com", false),
            ("*.a.example.com", "*.example.com", false),
            ("a.example.com", "*.example.com", false),
            ("a.example.com", "b.example.com", false),
        ] {
            assert_eq!(host(name).covers(&host(other)), expected, "{name} {other}");
        }
    }

    #[test]
    fn intersection_is_the_more_specific_name() {
        for (a, b, meet) in [
            ("*.example.com", "www.example.com", Some("www.example.com")),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("www.example.com", "api.example.com", None),
            ("*.ample.com", "www.example.com", None),
        ] {
            let meet = meet.map(host);
            assert_eq!(host(a).intersect(&host(b)), meet, "{a} {b}");
            assert_eq!(host(b).intersect(&host(a)), meet, "{b} {a}");
        }
    }
}
