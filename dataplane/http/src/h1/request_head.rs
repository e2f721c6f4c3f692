//! One request head off the front of a buffer. The parsed form says everything the proxy needs to know
//! about host, framing and persistence; callers never look at these fields again.
//! Not here: whether the host is served, path normalisation, body size.

use bytes::{Bytes, BytesMut};
use http::header::EXPECT;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};
use memchr::memchr;

use super::authority::Authority;
use super::error::HeadError;
use super::fields::{self, Noted, Of};
use super::{BodyLength, HeadLimits};

/// No registered method is longer than `UPDATEREDIRECTREF` (17).
const METHOD_BYTES_MAX: usize = 32;
/// Two spaces, a version and CRLF.
const REQUEST_LINE_REST: usize = 2 + 8 + 2;

/// A request head that passed every check.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Any token; it is compared with regard to case.
    pub method: Method,
    /// What is asked for.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// Fields as they came, values sharing the bytes of the head. Equal repeats of Content-Length are
    /// merged; Host is left out for `authority`, and a Connection that says no more than `keep_alive`.
    pub headers: HeaderMap,
    /// The effective host: of an absolute target, else of Host. `None` in HTTP/1.0 only.
    pub authority: Option<Authority>,
    /// How the body is framed; never `UntilClose`.
    pub body: BodyLength,
    /// Whether the client wants to go on with this connection.
    pub keep_alive: bool,
    /// Whether the client waits for 100 (Continue) before it sends the body.
    pub expect_continue: bool,
    /// What the client wants to switch to, when Upgrade and Connection agree about it.
    pub upgrade: Option<Upgrade>,
}

/// The request target (RFC 9112 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, the usual form.
    Origin(PathAndQuery),
    /// A whole URI, of which this is the path; its authority is in [`RequestHead::authority`].
    Absolute(PathAndQuery),
    /// `*`, of OPTIONS only.
    Asterisk,
    /// `host:port`, of CONNECT only.
    Authority,
}

impl Target {
    /// What is written on the request line upstream; none for CONNECT.
    pub fn path_and_query(&self) -> Option<PathAndQuery> {
        match self {
            Self::Origin(path) | Self::Absolute(path) => Some(path.clone()),
            Self::Asterisk => Some(PathAndQuery::from_static("*")),
            Self::Authority => None,
        }
    }

    /// The path; `*` and the authority form have none to match against.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Origin(path) | Self::Absolute(path) => Some(path.path()),
            Self::Asterisk | Self::Authority => None,
        }
    }
}

/// The protocol a client asks to switch to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// Exactly `websocket`, on a GET without a body (RFC 6455 4.1).
    WebSocket,
    /// Anything else, h2c and lists included.
    Other,
}

/// Tries to take one request head off the front of `buf`.
///
/// `Ok(None)` asks for more bytes. `scan` must be 0 before the first byte of a head; it remembers how far
/// the buffer was searched and is 0 again after a head was taken. One empty line before the request line
/// is skipped (RFC 9112 2.2). After an error nothing more may be read from the connection.
pub fn request_head(
    buf: &mut BytesMut,
    scan: &mut usize,
    limits: &HeadLimits,
) -> Result<Option<RequestHead>, HeadError> {
    let base = match **buf {
        [b'\r', b'\n', ..] => 2,
        [] | [b'\r'] => return Ok(None),
        [b'\n', ..] => return Err(HeadError::BareLf),
        _ => 0,
    };
    match buf.get(base) {
        None => return Ok(None),
        Some(byte) if fields::is_token_byte(*byte) => {}
        Some(_) => return Err(HeadError::BadRequestLine),
    }
    let first_line_max = limits.target_bytes_max + METHOD_BYTES_MAX + REQUEST_LINE_REST;
    let Some(end) = fields::section_end(buf, base, scan, first_line_max, limits)? else {
        return Ok(None);
    };
    *scan = 0;
    parse(&buf.split_to(end).freeze(), base, limits).map(Some)
}

fn parse(head: &Bytes, base: usize, limits: &HeadLimits) -> Result<RequestHead, HeadError> {
    let line = request_line(head, base, limits)?;
    let (mut headers, noted) = fields::parse(head, line.end, limits, Of::Request)?;
    let (target, absolute) = target(head, &line)?;
    let authority = authority(head, &noted, absolute, line.version)?;
    let body = noted
        .body_length(head, line.version)?
        .unwrap_or(BodyLength::None);
    let expect_continue = expect_continue(head, &mut headers, &noted, body, line.version)?;
    let upgrade = upgrade(head, &noted, &line.method, body, line.version);
    Ok(RequestHead {
        method: line.method,
        target,
        version: line.version,
        headers,
        authority,
        body,
        keep_alive: noted.keep_alive(line.version),
        expect_continue,
        upgrade,
    })
}

/// The request line, its target still as a range of the head.
struct RequestLine {
    method: Method,
    target: std::ops::Range<usize>,
    version: Version,
    end: usize,
}

/// RFC 9112 3: exactly one space between the three parts, and none around them.
fn request_line(head: &[u8], base: usize, limits: &HeadLimits) -> Result<RequestLine, HeadError> {
    let rest = head.get(base..).unwrap_or_default();
    let lf = memchr(b'\n', rest).ok_or(HeadError::BadRequestLine)?;
    let line = &rest[..lf.saturating_sub(1)];
    let method_len = memchr(b' ', line).ok_or(HeadError::BadRequestLine)?;
    let after_method = &line[method_len + 1..];
    let target_len = memchr(b' ', after_method).ok_or(HeadError::BadRequestLine)?;
    let method = method(&line[..method_len])?;
    if target_len > limits.target_bytes_max {
        return Err(HeadError::UriTooLong);
    }
    let is_visible = |byte: &u8| matches!(byte, 0x21..=0x7e);
    if target_len == 0 || !after_method[..target_len].iter().all(is_visible) {
        return Err(HeadError::BadTarget);
    }
    let version = version(&after_method[target_len + 1..])?;
    if method == Method::CONNECT && !limits.is_connect_allowed {
        return Err(HeadError::ConnectRefused);
    }
    let target_start = base + method_len + 1;
    Ok(RequestLine {
        method,
        target: target_start..target_start + target_len,
        version,
        end: base + lf + 1,
    })
}

fn method(bytes: &[u8]) -> Result<Method, HeadError> {
    if bytes.len() > METHOD_BYTES_MAX || !bytes.iter().all(|byte| fields::is_token_byte(*byte)) {
        return Err(HeadError::BadMethod);
    }
    Method::from_bytes(bytes).map_err(|_| HeadError::BadMethod)
}

/// `HTTP/1.0` and `HTTP/1.1`; other versions of the same form are named apart from nonsense.
pub(super) fn version(bytes: &[u8]) -> Result<Version, HeadError> {
    match bytes {
        b"HTTP/1.1" => Ok(Version::HTTP_11),
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(HeadError::UnsupportedVersion)
        }
        _ => Err(HeadError::BadVersion),
    }
}

/// The target in one of its four forms, and the authority when the target names one.
fn target(head: &Bytes, line: &RequestLine) -> Result<(Target, Option<Authority>), HeadError> {
    let bytes = head.slice(line.target.clone());
    if line.method == Method::CONNECT {
        let authority = Authority::parse(bytes)?;
        // RFC 9110 9.3.6: there is no default port.
        authority.port().ok_or(HeadError::BadTarget)?;
        return Ok((Target::Authority, Some(authority)));
    }
    match *bytes {
        [b'/', ..] => Ok((Target::Origin(path_and_query(bytes)?), None)),
        [b'*'] if line.method == Method::OPTIONS => Ok((Target::Asterisk, None)),
        _ => absolute(&bytes, &line.method),
    }
}

/// RFC 9112 3.2.2.
fn absolute(uri: &Bytes, method: &Method) -> Result<(Target, Option<Authority>), HeadError> {
    let is_scheme = |scheme: &&[u8]| {
        uri.get(..scheme.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
    };
    let schemes: [&[u8]; 2] = [b"http://", b"https://"];
    let scheme = schemes
        .into_iter()
        .find(is_scheme)
        .ok_or(HeadError::BadTarget)?;
    let scheme_len = scheme.len();
    let after_scheme = uri.slice(scheme_len..);
    let authority_len = after_scheme
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#'));
    let authority_len = authority_len.unwrap_or(after_scheme.len());
    let authority = Authority::parse(after_scheme.slice(..authority_len))?;
    let rest = after_scheme.slice(authority_len..);
    let target = match rest.first() {
        None if method == Method::OPTIONS => Target::Asterisk,
        None => Target::Absolute(PathAndQuery::from_static("/")),
        Some(b'/') => Target::Absolute(path_and_query(rest)?),
        Some(_) => {
            let with_slash = [b"/", rest.as_ref()].concat();
            Target::Absolute(path_and_query(Bytes::from(with_slash))?)
        }
    };
    Ok((target, Some(authority)))
}

fn path_and_query(bytes: Bytes) -> Result<PathAndQuery, HeadError> {
    // `PathAndQuery` would cut a fragment off without a word.
    if memchr(b'#', &bytes).is_some() {
        return Err(HeadError::BadTarget);
    }
    PathAndQuery::from_maybe_shared(bytes).map_err(|_| HeadError::BadTarget)
}

/// RFC 9112 3.2: HTTP/1.1 needs exactly one valid Host, and an absolute target wins over it.
fn authority(
    head: &Bytes,
    noted: &Noted,
    absolute: Option<Authority>,
    version: Version,
) -> Result<Option<Authority>, HeadError> {
    let host = match &noted.host {
        Some(value) => Some(Authority::parse(head.slice(value.clone()))?),
        None if version >= Version::HTTP_11 => return Err(HeadError::MissingHost),
        None => None,
    };
    Ok(absolute.or(host))
}

/// RFC 9110 10.1.1. An expectation that means nothing (HTTP/1.0, no body) is removed, so that it
/// cannot make the origin wait for, or answer, what never comes.
fn expect_continue(
    head: &[u8],
    headers: &mut HeaderMap,
    noted: &Noted,
    body: BodyLength,
    version: Version,
) -> Result<bool, HeadError> {
    let Some(value) = &noted.expect else {
        return Ok(false);
    };
    if !head[value.clone()].eq_ignore_ascii_case(b"100-continue") {
        return Err(HeadError::UnknownExpectation);
    }
    if version < Version::HTTP_11 || body.is_empty() {
        headers.remove(EXPECT);
        return Ok(false);
    }
    Ok(true)
}

/// RFC 9110 7.8: Upgrade counts only when Connection names it, and never in HTTP/1.0.
fn upgrade(
    head: &[u8],
    noted: &Noted,
    method: &Method,
    body: BodyLength,
    version: Version,
) -> Option<Upgrade> {
    let protocol = &head[noted.upgrade.clone()?];
    if !noted.connection_upgrade || version < Version::HTTP_11 {
        return None;
    }
    let is_websocket = protocol.eq_ignore_ascii_case(b"websocket")
        && !noted.upgrade_is_repeated
        && *method == Method::GET
        && body.is_empty();
    Some(if is_websocket {
        Upgrade::WebSocket
    } else {
        Upgrade::Other
    })
}
