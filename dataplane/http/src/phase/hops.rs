//! How far TRACE and OPTIONS may still go (RFC 9110 7.6.2).
//!
//! Max-Forwards is counted down, and a request that may go no further is answered here. Of all
//! other methods the field means nothing and is passed on as it came.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use dataplane_telemetry::Reason;

use crate::message::Request;
use crate::phase::Step;
use crate::reply::Reply;

/// Counts this hop, or answers in place of those behind it.
pub(crate) fn count(request: &mut Request) -> Step {
    if !matches!(request.method, Method::TRACE | Method::OPTIONS) {
        return Step::Continue;
    }
    let mut values = request.headers.get_all(header::MAX_FORWARDS).iter();
    let (Some(value), more) = (values.next(), values.next()) else {
        return Step::Continue;
    };
    let left = number(value.as_bytes()).filter(|_| more.is_none());
    let Some(left) = left else {
        return Step::reply(Reply::with_detail(
            Reason::BadRequest,
            StatusCode::BAD_REQUEST,
            "Max-Forwards is not one number",
        ));
    };
    let Some(left) = left.checked_sub(1) else {
        return Step::reply(last(request));
    };
    let left = HeaderValue::from(left);
    request.headers.insert(header::MAX_FORWARDS, left);
    Step::Continue
}

/// What is said by the last that a request may reach.
fn last(request: &Request) -> Reply {
    match request.method {
        Method::OPTIONS => {
            let status = StatusCode::NO_CONTENT;
            Reply::empty(Reason::DirectResponse, status, HeaderMap::new())
        }
        // A head that is sent back shows scripts what they are not to see.
        _ => Reply::with_detail(
            Reason::BadRequest,
            StatusCode::NOT_IMPLEMENTED,
            "TRACE is not answered here",
        ),
    }
}

/// One digit or more; larger than is of any use is as large as can be counted.
fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    Some(text.parse().unwrap_or(u32::MAX))
}
