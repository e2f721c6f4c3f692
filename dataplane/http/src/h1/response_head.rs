//! One response head off the front of a buffer, interim ones (1xx) included. As strict as the request
//! side: an origin whose framing is in doubt gets its connection closed and the client a 502.
//! Whether a 101 was asked for, and what to do with interim responses, is the caller's business.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Method, StatusCode, Version};
use memchr::memchr;

use super::error::HeadError;
use super::fields::{self, Of};
use super::request_head::version;
use super::{BodyLength, HeadLimits};

/// What every response begins with.
const PROTOCOL: &[u8] = b"HTTP/";

/// A response head that passed every check.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// 100 to 999.
    pub status: StatusCode,
    /// Fields as they came, values sharing the bytes of the head; a Connection that says no more than
    /// `keep_alive` is left out.
    pub headers: HeaderMap,
    /// How the body that really follows is framed.
    pub body: BodyLength,
    /// What the fields say about a body. Differs from `body` for answers to HEAD and for 304, where it
    /// describes the body a GET would get (RFC 9110 8.6).
    pub declared: BodyLength,
    /// Whether the connection can carry another request once the body is read.
    pub keep_alive: bool,
}

impl ResponseHead {
    /// True for 1xx other than 101: another head follows for the same request.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Tries to take one response head off the front of `buf`.
///
/// `Ok(None)` asks for more bytes; `scan` as for [`super::request_head`]. `request_method` is that
/// of the request it answers, since HEAD and CONNECT change what follows.
pub fn response_head(
    buf: &mut BytesMut,
    scan: &mut usize,
    limits: &HeadLimits,
    request_method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    // What cannot become a response is refused without waiting for a line end that may never come.
    let begun = buf.len().min(PROTOCOL.len());
    if buf[..begun] != PROTOCOL[..begun] {
        return Err(HeadError::BadStatusLine);
    }
    let line_max = limits.head_bytes_max;
    let end = match fields::section_end(buf, 0, scan, line_max, limits) {
        Ok(Some(end)) => end,
        Ok(None) => return Ok(None),
        Err(HeadError::UriTooLong) => return Err(HeadError::HeadTooLarge),
        Err(error) => return Err(error),
    };
    *scan = 0;
    parse(&buf.split_to(end).freeze(), limits, request_method).map(Some)
}

fn parse(
    head: &Bytes,
    limits: &HeadLimits,
    request_method: &Method,
) -> Result<ResponseHead, HeadError> {
    let lf = memchr(b'\n', head).ok_or(HeadError::BadStatusLine)?;
    let (version, status) = status_line(&head[..lf.saturating_sub(1)])?;
    let (mut headers, noted) = fields::parse(head, lf + 1, limits, Of::Response)?;
    let framed = noted.body_length(head, version)?;
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // RFC 9112 6.1, RFC 9110 8.6: such a response has neither field, so they are not passed on.
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        return Ok(ResponseHead {
            version,
            status,
            headers,
            body: BodyLength::None,
            declared: BodyLength::None,
            // Whoever announces a body here may send one, which would be taken for a response.
            keep_alive: noted.keep_alive(version) && framed.is_none_or(BodyLength::is_empty),
        });
    }
    let is_tunnel = *request_method == Method::CONNECT && status.is_success();
    let is_bodyless =
        is_tunnel || *request_method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    let body = match framed {
        _ if is_bodyless => BodyLength::None,
        Some(length) => length,
        None => BodyLength::UntilClose,
    };
    Ok(ResponseHead {
        version,
        status,
        headers,
        body,
        declared: framed.unwrap_or(if is_bodyless { BodyLength::None } else { body }),
        keep_alive: noted.keep_alive(version) && body != BodyLength::UntilClose,
    })
}

/// RFC 9112 4. The space before an empty reason may be missing: many origins leave it out, and no
/// reading of the line depends on it.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode), HeadError> {
    let (protocol, rest) = line.split_at_checked(8).ok_or(HeadError::BadStatusLine)?;
    let version = version(protocol).map_err(|error| match error {
        HeadError::UnsupportedVersion => error,
        _ => HeadError::BadStatusLine,
    })?;
    let (b" ", rest) = rest.split_at_checked(1).ok_or(HeadError::BadStatusLine)? else {
        return Err(HeadError::BadStatusLine);
    };
    let (digits, reason) = rest.split_at_checked(3).ok_or(HeadError::BadStatusLine)?;
    let is_clean = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    let reason_is_clean = match reason {
        [] => true,
        [b' ', text @ ..] => text.iter().all(is_clean),
        _ => false,
    };
    if !reason_is_clean {
        return Err(HeadError::BadStatusLine);
    }
    let status = StatusCode::from_bytes(digits).map_err(|_| HeadError::BadStatusLine)?;
    Ok((version, status))
}
