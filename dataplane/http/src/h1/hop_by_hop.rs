//! Fields that belong to one connection and must not be forwarded, and fields that must not come
//! as trailers. The proxy calls `strip_hop_by_hop` on every head it passes on, whatever the protocol;
//! the codec itself filters trailers in both directions, and those of HTTP/2 go through
//! `strip_trailers` as they come in.

use std::ops::Range;

use http::header::{
    AGE, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE,
    COOKIE, DATE, EXPECT, FORWARDED, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderName};

/// Meant for the next hop alone (RFC 9110 7.6.1). HTTP2-Settings belongs to an upgrade to h2c, which is
/// never passed on.
static HOP_BY_HOP: [HeaderName; 7] = [
    // First, for `strip_hop_by_hop`.
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// A bit for each length that a name of `HOP_BY_HOP` has: almost every other name has another length.
const HOP_BY_HOP_LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17;

/// Removes the fields of this hop, and those that Connection names (RFC 9110 7.6.1).
///
/// A caller that wants to go on with `TE: trailers` or with an upgrade reads these first and adds them
/// again. Trailer stays, because trailers are forwarded; Proxy-Authenticate and Proxy-Authorization stay,
/// because this gateway is not the proxy they speak to.
///
/// Connection cannot remove fields that the message means something else without: RFC 9110 forbids
/// senders to name fields meant for all recipients, and removing them on request lets a client hide
/// credentials, framing or its origin from the backend.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // One look at all names is cheaper than a search for each of these.
    let mut found = [false; HOP_BY_HOP.len()];
    for name in headers.keys() {
        let length = name.as_str().len();
        if length < 32
            && HOP_BY_HOP_LENGTHS >> length & 1 == 1
            && let Some(at) = HOP_BY_HOP.iter().position(|hop| hop == name)
        {
            found[at] = true;
        }
    }
    if found[0]
        && let Some(named) = named_by_connection(headers)
    {
        for name in named {
            headers.remove(name);
        }
    }
    for (name, _) in HOP_BY_HOP.iter().zip(found).filter(|(_, found)| *found) {
        headers.remove(name);
    }
}

/// True when a head agrees to switch to WebSocket, and to nothing else: Upgrade says so, and
/// Connection says that Upgrade is meant for this hop (RFC 6455 4.1, RFC 9110 7.8).
pub fn is_websocket_upgrade(headers: &HeaderMap) -> bool {
    let mut protocols = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return false;
    };
    let mut options = headers.get_all(CONNECTION).iter();
    protocol
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"websocket")
        && options.any(|value| {
            list(value.as_bytes()).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        })
}

/// The fields named by Connection that are neither removed anyway nor protected. `None` is the usual case.
fn named_by_connection(headers: &HeaderMap) -> Option<Vec<HeaderName>> {
    let mut named = None;
    for value in headers.get_all(CONNECTION) {
        for option in list(value.as_bytes()) {
            if option.eq_ignore_ascii_case(b"close") || option.eq_ignore_ascii_case(b"keep-alive") {
                continue;
            }
            let Ok(name) = HeaderName::from_bytes(option) else {
                continue;
            };
            if !HOP_BY_HOP.contains(&name) && !is_protected(&name) && headers.contains_key(&name) {
                named.get_or_insert_with(Vec::new).push(name);
            }
        }
    }
    named
}

fn is_protected(name: &HeaderName) -> bool {
    static PROTECTED: [HeaderName; 15] = [
        HOST,
        CONTENT_LENGTH,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        AUTHORIZATION,
        WWW_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        PROXY_AUTHENTICATE,
        COOKIE,
        SET_COOKIE,
        CACHE_CONTROL,
        DATE,
        AGE,
        FORWARDED,
        EXPECT,
    ];
    PROTECTED.contains(name)
        || name.as_str().starts_with("x-forwarded-")
        || name.as_str() == "x-real-ip"
}

/// Whether a field may come after the body (RFC 9110 6.5.1). Fields that frame or route the message,
/// authenticate, modify the request, control the response or describe the content may not: whoever reads
/// them behind the head that was already acted upon would act on something else.
pub fn is_allowed_in_trailers(name: &HeaderName) -> bool {
    if HOP_BY_HOP.contains(name) || is_protected(name) || *name == TRAILER {
        return false;
    }
    let name = name.as_str();
    !name.starts_with("if-")
        && !matches!(
            name,
            "accept-ranges"
                | "authentication-info"
                | "content-location"
                | "content-range"
                | "content-security-policy"
                | "expires"
                | "location"
                | "max-forwards"
                | "pragma"
                | "proxy-authentication-info"
                | "range"
                | "retry-after"
                | "vary"
                | "via"
                | "warning"
        )
}

/// Removes the fields that may not come after the body.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    // All that most gRPC calls end with, without a look at the list.
    let is_allowed =
        |name: &&HeaderName| name.as_str().starts_with("grpc-") || is_allowed_in_trailers(name);
    if trailers.keys().all(|name| is_allowed(&name)) {
        return;
    }
    let forbidden = trailers.keys().filter(|name| !is_allowed(name));
    for name in forbidden.cloned().collect::<Vec<_>>() {
        trailers.remove(name);
    }
}

/// The members of a comma-separated value, without the white space around them; empty ones are left out.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|byte| *byte == b',')
        .map(|member| &member[trimmed(member, 0)])
        .filter(|member| !member.is_empty())
}

/// Where what begins at `start` of `line` really begins and ends, without the white space around it: blanks
/// and tabs (RFC 9110 5.6.3).
pub(super) fn trimmed(line: &[u8], mut start: usize) -> Range<usize> {
    let mut end = line.len();
    while start < end && matches!(line[start], b' ' | b'\t') {
        start += 1;
    }
    while start < end && matches!(line[end - 1], b' ' | b'\t') {
        end -= 1;
    }
    start..end
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn every_field_of_this_hop_is_removed_and_others_of_that_length_stay() {
        let others = [
            "ab",
            "expires",
            "user-agent",
            "accept-charset",
            "x-forwarded-port",
        ];
        let mut headers: HeaderMap = HOP_BY_HOP
            .iter()
            .cloned()
            .chain(others.map(HeaderName::from_static))
            .map(|name| (name, HeaderValue::from_static("x")))
            .collect();
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "ab",
                "accept-charset",
                "expires",
                "user-agent",
                "x-forwarded-port"
            ]
        );
    }
}
