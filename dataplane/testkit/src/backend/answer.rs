//! What the HTTP backends answer, and how a request asks for something else.
//!
//! The answer is JSON: `backend`, `method`, `path`, `query`, `version`, `authority`, `headers`
//! (name → list of values), `body_bytes`, `number` (of the request at this backend). `/echo`
//! answers with the request's body. A request asks for more in its query or in the field `x-want`,
//! as `name=value` joined by `&`:
//!
//! | asks | gets |
//! |---|---|
//! | `status=503` | that status |
//! | `delay_ms=200` | a pause before the head |
//! | `first=2` | status, pause and cut only in the first so many requests of this backend |
//! | `bytes=100000` | a body of that many bytes instead of JSON |
//! | `chunked` | no Content-Length |
//! | `trailers` | the trailer field `x-trailer` with the backend's name; implies `chunked` |
//! | `early` | an answer that does not wait for the request's body |
//! | `close=head`, `close=body` | a connection (stream) cut before the head, or within the body |

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, request};
use serde_json::{Value, json};

/// Longest pause a request can ask for.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// Size of one piece of a body made up here.
const CHUNK_BYTES: usize = 16 * 1024;
/// Longest body a request can ask for.
const BODY_BYTES_MAX: u64 = 1 << 30;

/// Where an answer is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    BeforeHead,
    WithinBody,
}

/// What a request asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) status: StatusCode,
    pub(crate) delay: Duration,
    pub(crate) bytes: Option<u64>,
    pub(crate) is_chunked: bool,
    pub(crate) has_trailers: bool,
    pub(crate) is_early: bool,
    pub(crate) cut: Option<Cut>,
    /// How many requests of the backend get `status`, `delay` and `cut`; none means all.
    pub(crate) first: Option<usize>,
    pub(crate) count: usize,
    pub(crate) grpc_status: u32,
}

impl Wanted {
    /// Reads query and `x-want`; what is not understood is passed over.
    pub(crate) fn of(head: &request::Parts) -> Self {
        let field = head.headers.get("x-want").and_then(|v| v.to_str().ok());
        let mut wanted = Self {
            count: 1,
            ..Self::default()
        };
        for text in [head.uri.query(), field].into_iter().flatten() {
            for pair in text.split('&') {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                wanted.take(name, value);
            }
        }
        wanted
    }

    /// What the request of that number, from 1, gets of it.
    pub(crate) fn at(mut self, number: usize) -> Self {
        if self.first.is_some_and(|first| number > first) {
            self.status = StatusCode::OK;
            self.delay = Duration::ZERO;
            self.cut = None;
        }
        self
    }

    fn take(&mut self, name: &str, value: &str) {
        let number = value.parse::<u32>().unwrap_or_default();
        match name {
            "status" => self.status = value.parse().unwrap_or_default(),
            "delay_ms" => {
                self.delay = Duration::from_millis(u64::from(number)).min(DELAY_MAX);
            }
            "bytes" => self.bytes = Some(u64::from(number).min(BODY_BYTES_MAX)),
            "chunked" => self.is_chunked = true,
            "trailers" => (self.has_trailers, self.is_chunked) = (true, true),
            "early" => self.is_early = true,
            "close" if value == "head" => self.cut = Some(Cut::BeforeHead),
            "close" if value == "body" => self.cut = Some(Cut::WithinBody),
            "first" => self.first = usize::try_from(number).ok(),
            "count" => self.count = usize::try_from(number).unwrap_or(usize::MAX),
            "grpc_status" => self.grpc_status = number,
            _ => {}
        }
    }
}

/// An answer made up here, ready to be sent in pieces.
pub(crate) struct Answer {
    pub(crate) headers: HeaderMap,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    /// Describes the request, or makes up the body it asks for.
    pub(crate) fn new(
        backend: &str,
        number: usize,
        head: &request::Parts,
        body_bytes: u64,
        wanted: &Wanted,
    ) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("x-backend", value(backend));
        let (kind, mut chunks) = match wanted.bytes {
            Some(bytes) => ("application/octet-stream", filler(bytes)),
            None => {
                let text = describe(backend, number, head, body_bytes).to_string();
                ("application/json", vec![Bytes::from(text)])
            }
        };
        headers.insert("content-type", HeaderValue::from_static(kind));
        let length: usize = chunks.iter().map(Bytes::len).sum();
        if !wanted.is_chunked {
            headers.insert("content-length", HeaderValue::from(length));
        }
        if wanted.cut == Some(Cut::WithinBody) {
            chunks.truncate(chunks.len().div_ceil(2));
            if let [only] = &mut chunks[..] {
                only.truncate(only.len() / 2);
            }
        }
        let trailers = wanted.has_trailers.then(|| {
            headers.insert("trailer", HeaderValue::from_static("x-trailer"));
            HeaderMap::from_iter([(http::HeaderName::from_static("x-trailer"), value(backend))])
        });
        Self {
            headers,
            chunks,
            trailers,
        }
    }
}

pub(crate) fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("unprintable"))
}

/// `bytes` bytes in pieces that share their memory.
fn filler(bytes: u64) -> Vec<Bytes> {
    let chunk = Bytes::from(vec![b'x'; CHUNK_BYTES]);
    let mut left = usize::try_from(bytes).unwrap_or_default();
    let mut chunks = Vec::new();
    while left > 0 {
        let length = left.min(CHUNK_BYTES);
        chunks.push(chunk.slice(..length));
        left -= length;
    }
    chunks
}

fn describe(backend: &str, number: usize, head: &request::Parts, body_bytes: u64) -> Value {
    let mut headers = serde_json::Map::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.entry(name.as_str()).or_insert(json!([])) {
            Value::Array(values) => values.push(Value::String(value)),
            _ => continue,
        }
    }
    json!({
        "backend": backend,
        "number": number,
        "method": head.method.as_str(),
        "path": head.uri.path(),
        "query": head.uri.query(),
        "version": format!("{:?}", head.version),
        "authority": head.uri.authority().map(|authority| authority.as_str()),
        "headers": headers,
        "body_bytes": body_bytes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(uri: &str, field: &str) -> Wanted {
        let request = http::Request::get(uri).header("x-want", field);
        let (head, ()) = request.body(()).unwrap().into_parts();
        Wanted::of(&head)
    }

    #[test]
    fn query_and_field_are_both_understood() {
        let wanted = wanted("/a?status=503&bytes=20&nonsense&x=y", "trailers&close=body");
        assert_eq!(wanted.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(wanted.bytes, Some(20));
        assert!(wanted.is_chunked && wanted.has_trailers);
        assert_eq!(wanted.cut, Some(Cut::WithinBody));
    }

    #[test]
    fn a_filler_has_the_length_asked_for() {
        for bytes in [0, 1, 16 * 1024, 16 * 1024 + 1, 100_000] {
            let length: usize = filler(bytes).iter().map(Bytes::len).sum();
            assert_eq!(length as u64, bytes);
        }
    }
}
