//! An accepted stream becomes requests, in HTTP/1.1 or HTTP/2, and each goes to `proxy`.
//!
//! Called by the accept loop of the `dataplane` crate, one task per connection. The protocol is
//! decided by ALPN, or by the first bytes in plain text. Deadlines for the first byte, the head and
//! the pause between requests are kept here; while a connection idles it holds no buffer. Nothing
//! here knows routes.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tracing::debug;

use dataplane_telemetry::Reason;

use crate::arrival::Arrival;
use crate::deadline::Timer;
use crate::downstream::{READ_BYTES, RequestBody, Responder};
use crate::h1::{self, HeadError};
use crate::io::{Duplex, Io, Prefixed};
use crate::message::{Refusal, Request};
use crate::proxy;
use crate::reply::Reply;
use crate::settings::Settings;
use crate::worker::Worker;

/// What an HTTP/2 connection begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Body bytes read and dropped so that a connection can be kept behind an early answer.
const DRAIN_BYTES_MAX: u64 = 64 * 1024;
/// How long such reading may take.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(1);
/// Streams a client may give up early, as long as they are no more than half of all.
const GIVEN_UP_MAX: u64 = 500;
/// What counts as early.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(1);

/// Serves all requests of one connection.
pub async fn serve(worker: Rc<Worker>, io: Io, arrival: Arrival) {
    let arrival = Rc::new(arrival);
    let is_http2 = arrival.tls.as_ref().is_some_and(|tls| tls.is_http2);
    if is_http2 {
        return serve_http2(worker, Prefixed::new(Bytes::new(), io), arrival).await;
    }
    let io = Duplex::new(io);
    let mut buf = BytesMut::new();
    if arrival.tls.is_none() {
        match detect(&worker.settings, &io, &mut buf, &arrival).await {
            Some(Detected::Http1) => {}
            Some(Detected::Http2) => {
                let io = Prefixed::new(buf.freeze(), io.into_inner());
                return serve_http2(worker, io, arrival).await;
            }
            None => return,
        }
    }
    if serve_http1(&worker, &io, buf, &arrival).await == Ended::Cleanly {
        // close_notify over TLS; a peer that is gone already does not matter.
        let _ = timeout(DRAIN_TIME_MAX, io.shutdown()).await;
    }
}

enum Detected {
    Http1,
    Http2,
}

/// Decides by the first bytes that differ from HTTP/2's preface; `None` when the client is gone.
async fn detect(
    settings: &Settings,
    io: &Duplex,
    buf: &mut BytesMut,
    arrival: &Arrival,
) -> Option<Detected> {
    let mut deadline = Instant::now() + settings.first_byte_timeout;
    let mut is_draining = false;
    loop {
        let seen = buf.len().min(PREFACE.len());
        if buf[..seen] != PREFACE[..seen] {
            return Some(Detected::Http1);
        }
        if seen == PREFACE.len() {
            return Some(Detected::Http2);
        }
        let read = async {
            io.readable().await?;
            io.read(buf, READ_BYTES).await
        };
        tokio::select! {
            biased;
            read = timeout_at(deadline, read) => match read {
                Ok(Ok(1..)) => {}
                _ => return None,
            },
            () = arrival.drain.cancelled(), if !is_draining => {
                is_draining = true;
                deadline = deadline.min(Instant::now() + settings.drain_idle);
            }
        }
    }
}

/// How an HTTP/1.1 connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Cleanly,
    /// Within a response, which must not look like its end.
    Cut,
}

async fn serve_http1(worker: &Worker, io: &Duplex, mut buf: BytesMut, arrival: &Arrival) -> Ended {
    let settings = &worker.settings;
    let timer = Timer::new();
    let born = Instant::now();
    let mut served = 0_u32;
    loop {
        let head = match read_head(settings, io, &mut buf, arrival, &timer, served == 0).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ended::Cleanly,
            Err(fault) => {
                refuse_head(worker, io, fault).await;
                return Ended::Cleanly;
            }
        };
        served += 1;
        let takes_trailers = head.headers.get(http::header::TE).is_some_and(|te| {
            te.as_bytes()
                .to_ascii_lowercase()
                .windows(8)
                .any(|word| word == b"trailers")
        });
        let mut responder = Responder::http1(io, &head, takes_trailers);
        let is_last = arrival.drain.is_cancelled()
            || settings
                .keepalive_requests_max
                .is_some_and(|max| served >= max)
            || settings
                .connection_age_max
                .is_some_and(|max| born.elapsed() >= max);
        if is_last {
            responder.close_after();
        }
        let length = head.body;
        let request = match Request::from_h1(head) {
            Ok(request) => request,
            Err(refusal) => {
                let _ = proxy::refuse(worker, &mut responder, refused(refusal)).await;
                linger(io, &mut buf).await;
                return Ended::Cleanly;
            }
        };
        let mut body = RequestBody::http1(io, &mut buf, length, &settings.request_head);
        proxy::handle(worker, arrival, &timer, request, &mut body, &mut responder).await;
        if !responder.is_complete() {
            return Ended::Cut;
        }
        if !responder.keeps_alive() || !finish_body(&mut body).await {
            linger(io, &mut buf).await;
            return Ended::Cleanly;
        }
    }
}

/// Reads the rest of a small body, so that the next request can be read behind it.
async fn finish_body(body: &mut RequestBody<'_>) -> bool {
    if body.is_done() {
        return true;
    }
    let limit = body.bytes() + DRAIN_BYTES_MAX;
    let rest = async {
        while !body.is_done() && body.bytes() < limit {
            if body.frame().await.is_err() {
                return false;
            }
        }
        body.is_done()
    };
    timeout(DRAIN_TIME_MAX, rest).await.unwrap_or(false)
}

/// Why no request could be read.
#[derive(Clone, Copy, Debug)]
enum HeadFault {
    Malformed(HeadError),
    Slow,
}

/// Waits for the next request and reads its head; `None` when there is none any more.
async fn read_head(
    settings: &Settings,
    io: &Duplex,
    buf: &mut BytesMut,
    arrival: &Arrival,
    timer: &Timer,
    is_first: bool,
) -> Result<Option<h1::RequestHead>, HeadFault> {
    let mut scan = 0;
    let mut deadline = None;
    loop {
        match h1::request_head(buf, &mut scan, &settings.request_head) {
            Ok(Some(head)) => return Ok(Some(head)),
            Ok(None) => {}
            Err(error) => return Err(HeadFault::Malformed(error)),
        }
        if buf.is_empty() {
            // Nothing of a request is here: an idle connection keeps no memory.
            *buf = BytesMut::new();
            let pause = if is_first {
                settings.first_byte_timeout
            } else {
                settings.keepalive_idle
            };
            if !wait_for_request(io, buf, arrival, timer, pause, settings.drain_idle).await {
                return Ok(None);
            }
            continue;
        }
        let until = *deadline.get_or_insert_with(|| Instant::now() + settings.head_timeout);
        match timeout_at(until, io.read(buf, READ_BYTES)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Err(_) => return Err(HeadFault::Slow),
        }
    }
}

/// Waits for first bytes and reads them; false when the connection shall end instead.
async fn wait_for_request(
    io: &Duplex,
    buf: &mut BytesMut,
    arrival: &Arrival,
    timer: &Timer,
    pause: Duration,
    drain_idle: Duration,
) -> bool {
    let read = async {
        // Over TLS a record may be decrypted already, which the socket does not show.
        if arrival.tls.is_none() {
            io.readable().await?;
            io.read(buf, READ_BYTES).await
        } else {
            io.read(buf, 1024).await
        }
    };
    let mut read = std::pin::pin!(read);
    tokio::select! {
        biased;
        read = &mut read => return matches!(read, Ok(1..)),
        () = arrival.drain.cancelled() => {}
        () = timer.until(Instant::now() + pause) => return false,
    }
    // A request may be on its way; it is still served, with the word that it is the last.
    matches!(timeout(drain_idle, read).await, Ok(Ok(1..)))
}

fn refused(refusal: Refusal) -> Reply {
    Reply::with_detail(Reason::BadRequest, refusal.status, refusal.detail)
}

/// Answers a head that cannot be read as a request, then closes (RFC 9112 2.2, 9.6).
async fn refuse_head(worker: &Worker, io: &Duplex, fault: HeadFault) {
    let (reason, status, detail) = match fault {
        HeadFault::Malformed(error) => {
            let reason = match error.status() {
                StatusCode::URI_TOO_LONG => Reason::UriTooLong,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::HeadTooLarge,
                _ => Reason::BadRequest,
            };
            (reason, error.status(), error.detail())
        }
        HeadFault::Slow => {
            let detail = "the request head did not arrive in time";
            (Reason::HeadTimeout, StatusCode::REQUEST_TIMEOUT, detail)
        }
    };
    debug!(%reason, detail, "request refused");
    let mut responder = Responder::http1_for_refusal(io);
    let reply = Reply::with_detail(reason, status, detail);
    if proxy::refuse(worker, &mut responder, reply).await.is_ok() {
        linger(io, &mut BytesMut::new()).await;
    }
}

/// Ends our direction and drops what still comes for a moment, so that the answer is not lost to a
/// reset caused by unread bytes (RFC 9112 9.6).
async fn linger(io: &Duplex, buf: &mut BytesMut) {
    let drop_rest = async {
        if io.shutdown().await.is_err() {
            return;
        }
        let mut dropped = 0_u64;
        while dropped < DRAIN_BYTES_MAX {
            buf.clear();
            match io.read(buf, READ_BYTES).await {
                Ok(bytes @ 1..) => dropped += bytes as u64,
                _ => return,
            }
        }
    };
    let _ = timeout(DRAIN_TIME_MAX, drop_rest).await;
}

async fn serve_http2(worker: Rc<Worker>, io: Prefixed, arrival: Rc<Arrival>) {
    let settings = Arc::clone(&worker.settings);
    let stall = io.stall();
    let handshake = http2_builder(&settings).handshake::<_, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(settings.head_timeout, handshake).await else {
        return;
    };
    let born = Instant::now();
    let streams = Rc::new(Streams::default());
    let mut last_active = born;
    let mut is_draining = false;
    loop {
        let look_at = match settings.connection_age_max {
            // The client was told, and closes by itself or is closed.
            _ if is_draining => last_active + settings.drain_idle,
            Some(age) => (last_active + settings.h2_idle).min(born + age),
            None => last_active + settings.h2_idle,
        };
        let next = tokio::select! {
            biased;
            next = connection.accept() => next,
            () = stall.lasts(settings.write_idle) => return,
            () = arrival.drain.cancelled(), if !is_draining => {
                is_draining = true;
                connection.graceful_shutdown();
                continue;
            }
            () = sleep_until(look_at) => {
                let is_old = settings.connection_age_max.is_some_and(|max| born.elapsed() >= max);
                if is_draining && streams.running.get() == 0 && !stall.is_stalled() {
                    return;
                }
                if !is_draining && (streams.running.get() == 0 || is_old) {
                    is_draining = true;
                    connection.graceful_shutdown();
                }
                last_active = Instant::now();
                continue;
            }
        };
        let Some(Ok((request, respond))) = next else {
            return;
        };
        last_active = Instant::now();
        let stream = Stream {
            worker: worker.clone(),
            arrival: arrival.clone(),
        };
        if streams.are_mostly_given_up() {
            debug!("too many streams given up at once");
            connection.abrupt_shutdown(h2::Reason::ENHANCE_YOUR_CALM);
            continue;
        }
        let running = Running::enter(&streams);
        tokio::task::spawn_local(async move {
            let began = Instant::now();
            let reason = stream.serve(request, respond).await;
            if reason == Reason::ClientAborted && began.elapsed() < GIVEN_UP_WITHIN {
                let given_up = &running.0.given_up;
                given_up.set(given_up.get() + 1);
            }
        });
    }
}

fn http2_builder(settings: &Settings) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    let head_bytes = u32::try_from(settings.request_head.head_bytes_max).unwrap_or(u32::MAX);
    builder
        .max_concurrent_streams(settings.h2_streams_max)
        .initial_window_size(settings.h2_stream_window)
        .initial_connection_window_size(settings.h2_connection_window)
        .max_header_list_size(head_bytes)
        // What may be queued for a client that is slow: the stream's share of the buffer limit.
        .max_send_buffer_size(32 * 1024)
        // Rapid reset (CVE-2023-44487) and resets that we are made to send (CVE-2025-8671).
        .max_pending_accept_reset_streams(100)
        .max_local_error_reset_streams(Some(500));
    builder
}

/// Figures of one HTTP/2 connection.
#[derive(Debug, Default)]
struct Streams {
    running: Cell<usize>,
    opened: Cell<u64>,
    /// By the client, within [`GIVEN_UP_WITHIN`].
    given_up: Cell<u64>,
}

impl Streams {
    /// Work is started here and at a backend only to be thrown away (CVE-2023-44487).
    fn are_mostly_given_up(&self) -> bool {
        let given_up = self.given_up.get();
        given_up >= GIVEN_UP_MAX && given_up * 2 >= self.opened.get()
    }
}

/// One stream that runs, for as long as this lives.
struct Running(Rc<Streams>);

impl Running {
    fn enter(streams: &Rc<Streams>) -> Self {
        streams.running.set(streams.running.get() + 1);
        streams.opened.set(streams.opened.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
    }
}

/// What the streams of one HTTP/2 connection share.
struct Stream {
    worker: Rc<Worker>,
    arrival: Rc<Arrival>,
}

impl Stream {
    async fn serve(
        &self,
        request: http::Request<h2::RecvStream>,
        respond: h2::server::SendResponse<Bytes>,
    ) -> Reason {
        let (parts, stream) = request.into_parts();
        let mut responder = Responder::http2(respond);
        let fields = parts.headers.len();
        let ends = stream.is_end_stream();
        let request = match Request::from_h2(parts, ends) {
            Ok(request) if fields <= self.worker.settings.request_head.fields_max => request,
            Ok(_) => {
                let reply = Reply::with_detail(
                    Reason::HeadTooLarge,
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "too many header fields",
                );
                let _ = proxy::refuse(&self.worker, &mut responder, reply).await;
                return Reason::HeadTooLarge;
            }
            Err(refusal) => {
                let _ = proxy::refuse(&self.worker, &mut responder, refused(refusal)).await;
                return Reason::BadRequest;
            }
        };
        let mut body = RequestBody::http2(stream);
        proxy::handle(
            &self.worker,
            &self.arrival,
            &Timer::new(),
            request,
            &mut body,
            &mut responder,
        )
        .await
    }
}
