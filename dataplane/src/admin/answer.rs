//! An answer of the admin API and how it gets out: whole, or in chunks as the client takes them.
//!
//! Answers that grow with the configuration are written by a thread of the blocking pool through a
//! short queue: neither the runtime nor memory notices how large they are. How many are written at
//! once is limited, because each holds a thread.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body, Frame, SizeHint};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, mpsc};

/// Bytes of one chunk.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that may wait for the client.
const CHUNKS_WAITING: usize = 2;

/// An answer before it is one of HTTP.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    content_type: &'static str,
    /// Fields that only some answers have.
    fields: Vec<(HeaderName, HeaderValue)>,
    body: AnswerBody,
}

impl Answer {
    pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::whole(status, TEXT, body.into())
    }

    pub(super) fn whole(status: StatusCode, content_type: &'static str, body: String) -> Self {
        Self {
            status,
            content_type,
            fields: Vec::new(),
            body: AnswerBody::Whole(Some(body.into())),
        }
    }

    /// A value that stays small whatever the configuration is.
    pub(super) fn json(value: &impl Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self::whole(StatusCode::OK, JSON, body),
            Err(error) => Self::error(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        }
    }

    /// A refusal, which says what to do (RFC 9457); `error` is what the contract's clients read.
    pub(super) fn error(status: StatusCode, detail: &str) -> Self {
        let problem = json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
            "error": detail,
        });
        Self::whole(status, PROBLEM, problem.to_string())
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::error(StatusCode::NOT_FOUND, message)
    }

    /// Nothing but a status and the methods there are.
    pub(super) fn methods(allow: &'static str) -> Self {
        let answer = Self::text(StatusCode::NO_CONTENT, "");
        answer.with(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// Refuses the method and tells which ones there are.
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        let message = format!("only {allow} is allowed here");
        let answer = Self::error(StatusCode::METHOD_NOT_ALLOWED, &message);
        answer.with(header::ALLOW, HeaderValue::from_static(allow))
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The same with one more field.
    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }

    /// Tells where the next page is.
    pub(super) fn followed_by(self, path: &str, query: &str) -> Self {
        match HeaderValue::from_str(&format!("<{path}?{query}>; rel=\"next\"")) {
            Ok(value) => self.with(header::LINK, value),
            Err(_) => self,
        }
    }

    /// A value that may be large: `write` runs on a thread where it may take its time.
    pub(super) fn large(
        places: &Arc<Semaphore>,
        write: impl FnOnce(&mut dyn Write) -> serde_json::Result<()> + Send + 'static,
    ) -> Self {
        let Ok(place) = places.clone().try_acquire_owned() else {
            let message = "too many large answers are being written, try again";
            return Self::error(StatusCode::SERVICE_UNAVAILABLE, message);
        };
        let (sender, receiver) = mpsc::channel(CHUNKS_WAITING);
        tokio::task::spawn_blocking(move || {
            let mut chunks = Chunks {
                buffer: Vec::with_capacity(CHUNK_BYTES),
                sender,
            };
            // Fails only when the client is gone.
            let _ = write(&mut chunks).map(|()| chunks.flush());
            drop(place);
        });
        Self::streamed(JSON, receiver)
    }

    /// What somebody else writes part by part.
    pub(super) fn streamed(content_type: &'static str, parts: mpsc::Receiver<Bytes>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            fields: Vec::new(),
            body: AnswerBody::Chunks(parts),
        }
    }

    /// The answer as HTTP.
    pub(super) fn into_response(self) -> Response<AnswerBody> {
        let status = self.status;
        let mut response = Response::new(self.body);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let value = HeaderValue::from_static;
        headers.insert(header::CONTENT_TYPE, value(self.content_type));
        headers.insert(header::CACHE_CONTROL, value("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, value("nosniff"));
        for (name, value) in self.fields {
            headers.insert(name, value);
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, value("Bearer"));
        }
        response
    }
}

/// Most answers.
pub(super) const JSON: &str = "application/json";
/// Refusals.
pub(super) const PROBLEM: &str = "application/problem+json";
/// What is for eyes.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The body of an answer.
#[derive(Debug)]
pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    Chunks(mpsc::Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take()),
            Self::Chunks(receiver) => receiver.poll_recv(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                let length = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(length as u64)
            }
            Self::Chunks(_) => SizeHint::default(),
        }
    }
}

/// Gathers what is written and hands it on chunk by chunk, waiting for the client.
struct Chunks {
    buffer: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let full = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK_BYTES));
        let sent = self.sender.blocking_send(full.into());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
