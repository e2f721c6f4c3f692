//! A request and a response as the phases see them, whatever HTTP version they came in.
//!
//! Everything here was checked when it was read: the host is lower case and free of its port, header
//! fields are legal. The path is brought into its normal form by the path phase, which knows the
//! listener; from there on it is both what is matched and what is forwarded.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};

use dataplane_telemetry::GrpcStatus;

use crate::h1::{self, Authority, BodyLength, HeadError, HeadLimits};
use crate::path::{self, PathError};

/// The head of a request.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Version the client spoke.
    pub(crate) version: Version,
    /// Host and port, in lower case; what is routed by and forwarded.
    pub(crate) authority: Authority,
    /// The path, normal once it was in the path phase, and the query as it came; what is matched and
    /// forwarded.
    pub(crate) target: PathAndQuery,
    /// Header fields without `Host` and without the hop-by-hop ones.
    pub(crate) headers: HeaderMap,
    /// How the body is framed.
    pub(crate) body: BodyLength,
    /// The client asked to switch to WebSocket.
    pub(crate) wants_websocket: bool,
    /// The client takes trailers.
    pub(crate) takes_trailers: bool,
}

/// Why a request is refused before routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) detail: &'static str,
}

impl Refusal {
    pub(crate) const fn bad_request(detail: &'static str) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            detail,
        }
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        Self {
            status: error.status(),
            detail: error.detail(),
        }
    }
}

impl Request {
    /// Takes over a head that the HTTP/1.1 codec has read and checked.
    pub(crate) fn from_h1(head: h1::RequestHead) -> Result<Self, Refusal> {
        let target = match head.target {
            h1::Target::Origin(target) | h1::Target::Absolute(target) => absolute_path(target)?,
            h1::Target::Asterisk => PathAndQuery::from_static("*"),
            h1::Target::Authority => return Err(Refusal::bad_request("CONNECT is not served")),
        };
        // HTTP/1.0 may leave the host out; such a request can only match routes for every host.
        let authority = head.authority.unwrap_or_else(Authority::unnamed);
        let mut headers = head.headers;
        let takes_trailers = takes_trailers(&headers);
        h1::strip_hop_by_hop(&mut headers);
        Ok(Self {
            method: head.method,
            version: head.version,
            authority,
            target,
            headers,
            body: head.body,
            wants_websocket: head.upgrade == Some(h1::Upgrade::WebSocket),
            takes_trailers,
        })
    }

    /// Takes over the head of an HTTP/2 stream and checks what RFC 9113 8.2 and 8.3 ask beyond the
    /// frame layer.
    pub(crate) fn from_h2(
        parts: http::request::Parts,
        ends: bool,
        limits: &HeadLimits,
    ) -> Result<Self, Refusal> {
        let mut headers = parts.headers;
        if parts.method == Method::CONNECT {
            return Err(Refusal::bad_request("CONNECT is not served"));
        }
        let target = parts.uri.path_and_query().map_or(0, |it| it.as_str().len());
        if target > limits.target_bytes_max {
            return Err(HeadError::UriTooLong.into());
        }
        let Special { expects, settings } = Special::of(&headers)?;
        if settings {
            headers.remove(HTTP2_SETTINGS);
        }
        let takes_trailers = takes_trailers(&headers);
        if headers.remove(header::TE).is_some() && !takes_trailers {
            return Err(Refusal::bad_request("te may only say trailers in HTTP/2"));
        }
        let authority = authority_of(&parts.uri, &mut headers)?;
        let length = content_length(&headers)?.map(BodyLength::Length);
        let body = match length {
            // Methods that usually have a body say that they have none (RFC 9110 8.6).
            None if ends && matches!(parts.method.as_str(), "POST" | "PUT" | "PATCH") => {
                BodyLength::Length(0)
            }
            None if ends => BodyLength::None,
            // A length other than 0 without data was refused by the frame layer.
            Some(_) if ends => BodyLength::Length(0),
            // Trailers may follow a body of no bytes; an end with the head would lose them.
            Some(BodyLength::Length(0)) => BodyLength::Chunked,
            length => length.unwrap_or(BodyLength::Chunked),
        };
        if expects {
            expect(&mut headers, ends || length == Some(BodyLength::Length(0)))?;
        }
        join_cookies(&mut headers);
        let target = match parts.uri.into_parts().path_and_query {
            Some(target) if target == "*" && parts.method == Method::OPTIONS => target,
            Some(target) if is_large(&headers) => unshared(&absolute_path(target)?),
            Some(target) => absolute_path(target)?,
            None => return Err(Refusal::bad_request(":path is missing")),
        };
        Ok(Self {
            method: parts.method,
            version: Version::HTTP_2,
            authority,
            target,
            headers,
            body,
            wants_websocket: false,
            takes_trailers,
        })
    }

    /// Brings the path into its normal form, and gives what was in its place; nothing is copied when it
    /// has it already.
    pub(crate) fn normalise(
        &mut self,
        rules: path::Rules,
    ) -> Result<Option<PathAndQuery>, Refusal> {
        // Of OPTIONS, the only one without a slash.
        if self.target == "*" {
            return Ok(None);
        }
        let normal = path::normalise(self.target.path(), rules);
        let normal = normal.map_err(|error| {
            Refusal::bad_request(match error {
                PathError::EscapedSlash => "the path has an escaped slash",
                _ => "the path has a bad percent escape",
            })
        })?;
        let Cow::Owned(mut path) = normal else {
            return Ok(None);
        };
        if let Some(query) = self.target.query() {
            path.push('?');
            path.push_str(query);
        }
        let path = PathAndQuery::from_maybe_shared(Bytes::from(path))
            .map_err(|_| Refusal::bad_request("the path is not valid"))?;
        Ok(Some(std::mem::replace(&mut self.target, path)))
    }

    /// True when the request is a gRPC call.
    pub(crate) fn is_grpc(&self) -> bool {
        self.headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
    }

    /// The form of the gRPC call over HTTP/2 that the request is; most are none.
    pub(crate) fn grpc_form(&self) -> Option<GrpcForm> {
        if self.method != Method::POST || self.version != Version::HTTP_2 {
            return None;
        }
        let kind = self.headers.get(header::CONTENT_TYPE)?.as_bytes();
        let rest = kind.strip_prefix(b"application/grpc")?;
        Some(match rest.starts_with(b"-web") {
            true => GrpcForm::Web,
            false => GrpcForm::Native,
        })
    }

    /// How long the caller of a gRPC method waits for it; asked of gRPC calls alone.
    pub(crate) fn grpc_timeout(&self) -> Option<Duration> {
        grpc_timeout(self.headers.get("grpc-timeout")?.as_bytes())
    }

    /// Lets go of a head of unusual size, but for what is still asked for; the request must not be
    /// sent again. True when it was one.
    pub(crate) fn forget_large_head(&mut self) -> bool {
        if !is_large(&self.headers) {
            return false;
        }
        let all = std::mem::take(&mut self.headers);
        for name in KEPT {
            if let Some(value) = all.get(&name) {
                // A copy: the value may be a part of all that came with it.
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    self.headers.insert(name, value);
                }
            }
        }
        self.target = unshared(&self.target);
        self.authority = self.authority.unshared();
        true
    }

    /// Bytes of the head as it would be written in HTTP/1.1, without the hop-by-hop fields.
    pub(crate) fn head_bytes(&self) -> usize {
        let line = self.method.as_str().len() + self.target.as_str().len() + " HTTP/1.1\r\n".len();
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            name.as_str().len() + value.len() + ": \r\n".len()
        };
        let host = self.authority.as_str().len() + "host: \r\n".len();
        line + 1 + host + self.headers.iter().map(field).sum::<usize>() + "\r\n".len()
    }
}

/// In which form a call over gRPC comes, and with it where it is told how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GrpcForm {
    /// As gRPC over HTTP/2 has it: in a head or in trailers.
    Native,
    /// gRPC-Web: at the end of the body, which is not read for its sake. Where a head has the code
    /// all the same, it is not told either: figures of failures alone would say nothing.
    Web,
}

impl GrpcForm {
    /// The code that a head or trailers tell of a call.
    pub(crate) fn status(form: Option<Self>, fields: &HeaderMap) -> Option<GrpcStatus> {
        if form != Some(Self::Native) {
            return None;
        }
        let value = fields.get("grpc-status")?;
        Some(GrpcStatus::read(value.as_bytes()))
    }
}

/// `1*8DIGIT` and a unit, as gRPC over HTTP/2 writes a timeout.
fn grpc_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    let number = decimal(digits).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    /// Header fields without the hop-by-hop ones.
    pub(crate) headers: HeaderMap,
    /// How the body that follows is framed; `None` when none follows.
    pub(crate) body: BodyLength,
    /// What is said about the body's length, which HEAD and 304 say without sending one.
    pub(crate) declared: BodyLength,
}

/// Fields that are asked for behind the head of the response: by the access log, and to tell whose
/// limit has passed.
const KEPT: [HeaderName; 5] = [
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("grpc-timeout"),
    header::CONTENT_TYPE,
    header::USER_AGENT,
    header::REFERER,
];
/// Larger heads are not held while their responses are on the way; what of them is kept for plugins is
/// copied out of the memory that they came in.
pub(crate) const USUAL_HEAD_BYTES: usize = 4 * 1024;

pub(crate) fn is_large(headers: &HeaderMap) -> bool {
    headers.values().map(HeaderValue::len).sum::<usize>() > USUAL_HEAD_BYTES
}

/// The same in memory of its own: as it was read, it keeps the whole head that it came in.
pub(crate) fn unshared(target: &PathAndQuery) -> PathAndQuery {
    PathAndQuery::try_from(target.as_str()).unwrap_or_else(|_| target.clone())
}

/// Fields that speak of a connection and have no place in HTTP/2 (RFC 9113 8.2.2).
static CONNECTION_FIELDS: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// Belongs to an upgrade from HTTP/1.1 and is never passed on.
const HTTP2_SETTINGS: &str = "http2-settings";

/// A bit for each length that one of these names has, or `expect`: almost every other name has another one.
const SPECIAL_LENGTHS: u32 = 1 << 6 | 1 << 7 | 1 << 10 | 1 << 14 | 1 << 16 | 1 << 17;

/// Which fields of an HTTP/2 request ask for more than to be passed on.
#[derive(Debug, Default)]
struct Special {
    expects: bool,
    settings: bool,
}

impl Special {
    /// One look at all names is cheaper than a search for each of these.
    fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut special = Self::default();
        for name in headers.keys() {
            let length = name.as_str().len();
            if length >= 32 || SPECIAL_LENGTHS >> length & 1 == 0 {
                continue;
            }
            if CONNECTION_FIELDS.contains(name) {
                return Err(Refusal::bad_request(
                    "a connection field in an HTTP/2 request",
                ));
            }
            special.expects |= *name == header::EXPECT;
            special.settings |= name == HTTP2_SETTINGS;
        }
        Ok(special)
    }
}

/// RFC 9110 10.1.1, as the codec of HTTP/1.1 reads it: what means nothing without a body is removed.
fn expect(headers: &mut HeaderMap, is_bodyless: bool) -> Result<(), Refusal> {
    let mut values = headers.get_all(header::EXPECT).iter();
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !values.next().is_some_and(is_known) || values.next().is_some() {
        return Err(HeadError::UnknownExpectation.into());
    }
    if is_bodyless {
        headers.remove(header::EXPECT);
    }
    Ok(())
}

fn takes_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|item| item.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

fn absolute_path(target: PathAndQuery) -> Result<PathAndQuery, Refusal> {
    if !target.path().starts_with('/') {
        return Err(Refusal::bad_request("the path does not start with a slash"));
    }
    Ok(target)
}

/// `:authority` and `Host` must agree when both are there (RFC 9113 8.3.1).
fn authority_of(uri: &Uri, headers: &mut HeaderMap) -> Result<Authority, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() {
        return Err(Refusal::bad_request("more than one host field"));
    }
    headers.remove(header::HOST);
    let text = match (uri.authority(), &host) {
        (Some(authority), Some(host))
            if !authority
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(host.as_bytes()) =>
        {
            return Err(Refusal::bad_request(":authority and host differ"));
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => return Err(Refusal::bad_request("neither :authority nor host")),
    };
    Authority::parse(Bytes::copy_from_slice(text))
        .map_err(|_| Refusal::bad_request("the authority is not valid"))
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let mut values = headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|other| other != first) {
        return Err(Refusal::bad_request(
            "content-length is repeated with other values",
        ));
    }
    decimal(first.as_bytes())
        .map(Some)
        .ok_or(Refusal::bad_request("content-length is not a number"))
}

/// `1*DIGIT` that fits (RFC 9110 8.6); no sign, no space.
pub(crate) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The value of a cookie that the client sent (RFC 6265 4.2.1); of several, the first.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    cookies(headers, name).next()
}

/// The values of all cookies of that name.
pub(crate) fn cookies<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|field| field.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            pair.trim_ascii()
                .strip_prefix(name.as_bytes())?
                .strip_prefix(b"=")
        })
}

/// HTTP/2 may split `cookie` into crumbs; towards HTTP/1.1 they are one field (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(header::COOKIE).iter();
    let (Some(first), Some(second)) = (crumbs.next(), crumbs.next()) else {
        return;
    };
    let mut joined = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        headers.insert(header::COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        for field in ["a=1;sid=x y; sid=second", "last=;  spaced=v  ", "sid2"] {
            headers.append(header::COOKIE, HeaderValue::from_static(field));
        }
        for (name, expected) in [
            ("a", Some("1")),
            ("sid", Some("x y")),
            ("last", Some("")),
            ("spaced", Some("v")),
            ("sid2", None),
            ("id", None),
            ("", None),
        ] {
            let found = cookie(&headers, name);
            assert_eq!(found, expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn nothing_is_held_of_a_large_head_that_is_forgotten() {
        let large = "v".repeat(USUAL_HEAD_BYTES + 1);
        let text = format!(
            "GET /path HTTP/1.1\r\nhost: a.test\r\nx-request-id: 7\r\nx-large: {large}\r\n\r\n"
        );
        let mut buf = bytes::BytesMut::from(text.as_bytes());
        let head = h1::request_head(&mut buf, &mut 0, &HeadLimits::REQUEST);
        let mut request = Request::from_h1(head.unwrap().unwrap()).unwrap();
        // Memory is given again once nobody else has a part of it.
        assert!(!buf.try_reclaim(text.len()));
        assert!(request.forget_large_head());
        assert!(buf.try_reclaim(text.len()), "{request:?}");
        assert_eq!(request.authority.as_str(), "a.test");
        assert_eq!(request.headers["x-request-id"], "7");
        assert!(!request.forget_large_head(), "there is little left of it");
    }

    #[test]
    fn calls_over_grpc_are_told_by_their_form() {
        let native = Some(GrpcForm::Native);
        for (method, version, kind, form) in [
            ("POST", Version::HTTP_2, "application/grpc", native),
            ("POST", Version::HTTP_2, "application/grpc+proto", native),
            (
                "POST",
                Version::HTTP_2,
                "application/grpc-web+proto",
                Some(GrpcForm::Web),
            ),
            (
                "POST",
                Version::HTTP_2,
                "application/grpc-web-text",
                Some(GrpcForm::Web),
            ),
            ("POST", Version::HTTP_2, "text/plain", None),
            ("POST", Version::HTTP_11, "application/grpc-web", None),
            ("GET", Version::HTTP_2, "application/grpc", None),
        ] {
            let head = http::Request::builder()
                .method(method)
                .uri("http://a.test/s.S/M")
                .header(header::CONTENT_TYPE, kind);
            let head = head.body(()).unwrap().into_parts().0;
            let mut request = Request::from_h2(head, false, &HeadLimits::REQUEST).unwrap();
            request.version = version;
            assert_eq!(request.grpc_form(), form, "{method} {version:?} {kind}");
        }
        let fields = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(5))]);
        let code = |form| GrpcForm::status(form, &fields).map(GrpcStatus::code);
        assert_eq!(
            (code(native), code(Some(GrpcForm::Web)), code(None)),
            (Some(5), None, None)
        );
    }

    #[test]
    fn a_large_head_is_not_held_by_its_path() {
        for (field_bytes, is_copied) in [(16, false), (USUAL_HEAD_BYTES + 1, true)] {
            let head = Bytes::from_static(b"http://x.test/path?query");
            let uri = Uri::from_maybe_shared(head.clone()).unwrap();
            let mut request = http::Request::get(uri).body(()).unwrap();
            let value = HeaderValue::try_from("v".repeat(field_bytes)).unwrap();
            request.headers_mut().insert("x-large", value);
            let request = Request::from_h2(request.into_parts().0, true, &HeadLimits::REQUEST);
            let request = request.unwrap();
            assert_eq!(request.target, "/path?query");
            let is_inside = head
                .as_ptr_range()
                .contains(&request.target.as_str().as_ptr());
            assert_eq!(is_inside, !is_copied, "{field_bytes}");
        }
    }
}
