//! One HTTP/2 connection: its streams become requests, each in a task of its own.
//!
//! Called by `connection` once the protocol is known. The h2 crate speaks the protocol; here are the
//! limits and deadlines that it leaves to us, and the end of the connection, which is GOAWAY in
//! every case in which the client may still read.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason as Code, RecvStream};
use http::StatusCode;
use tokio::time::{Instant, timeout};
use tracing::debug;

use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::{Http2Limit, LifeLimit};

use super::{boxed, ended_by, refused};
use crate::arrival::Arrival;
use crate::deadline::Timer;
use crate::downstream::{RequestBody, Responder};
use crate::framed::Framed;
use crate::io::Io;
use crate::message::Request;
use crate::overload::Weight;
use crate::proxy;
use crate::reply::Reply;
use crate::settings::Settings;
use crate::worker::Worker;

/// Timers that a connection keeps for its next streams.
const TIMERS_MAX: usize = 8;
/// What counts as giving a stream up early.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(1);

/// Serves all requests of one connection, of which `prefix` was read already.
pub(super) async fn serve(worker: Rc<Worker>, io: Io, prefix: Bytes, arrival: Rc<Arrival>) {
    let settings = Arc::clone(&worker.settings);
    let metrics = worker.bind(arrival.bind).map(|it| it.metrics.clone());
    let io = Framed::new(prefix, io, settings.h2_frames, metrics);
    let line = io.line();
    let handshake = line.beside(builder(&settings).handshake::<_, Bytes>(io));
    let Ok(Ok(Ok(mut connection))) = timeout(settings.head_timeout, handshake).await else {
        return;
    };
    let end_by_limit = |limit: Http2Limit| {
        debug!(limit = limit.as_str(), client = %arrival.client, "HTTP/2 connection limited");
        if let Some(bind) = worker.bind(arrival.bind) {
            bind.metrics.http2_limited(limit);
        }
    };
    let born = Instant::now();
    let streams = Rc::new(Streams::new(worker.inflight.weigh()));
    let mut last_active = born;
    let mut is_draining = false;
    let mut is_limited = false;
    // Made once, because each would have to be entered in a list again for every stream.
    let timer = Timer::new();
    let mut drained = pin!(arrival.drain.cancelled());
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
            _ = line.written() => return,
            () = line.stalled_for(settings.write_idle) => return,
            limit = line.limit_broken(settings.head_timeout), if !is_limited => {
                is_limited = true;
                end_by_limit(limit);
                connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
                continue;
            }
            () = streams.weight.is_too_much(), if !is_limited => {
                is_limited = true;
                debug!(client = %arrival.client, "memory is short, the largest connections end");
                connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
                continue;
            }
            () = drained.as_mut(), if !is_draining => {
                is_draining = true;
                connection.graceful_shutdown();
                continue;
            }
            () = timer.until(look_at) => {
                let is_old = settings.connection_age_max.is_some_and(|max| born.elapsed() >= max);
                if is_draining && streams.running.get() == 0 && !line.is_stalled() {
                    return left(&worker, &arrival);
                }
                if !is_draining && (streams.running.get() == 0 || is_old) {
                    is_draining = true;
                    let limit = if is_old { LifeLimit::Age } else { LifeLimit::Idle };
                    ended_by(&worker, arrival.bind, limit);
                    connection.graceful_shutdown();
                }
                last_active = Instant::now();
                continue;
            }
        };
        let (request, respond) = match next {
            Some(Ok(stream)) => stream,
            Some(Err(error)) => {
                if error.is_library() && error.reason() == Some(Code::ENHANCE_YOUR_CALM) {
                    end_by_limit(Http2Limit::Streams);
                }
                return;
            }
            None => break,
        };
        last_active = Instant::now();
        if streams.are_mostly_given_up(settings.h2_early_resets_max) && !is_limited {
            is_limited = true;
            end_by_limit(Http2Limit::Streams);
            connection.abrupt_shutdown(Code::ENHANCE_YOUR_CALM);
        }
        if is_limited {
            continue;
        }
        if !is_draining && worker.is_saving() {
            is_draining = true;
            connection.graceful_shutdown();
        }
        let stream = Stream {
            worker: worker.clone(),
            arrival: arrival.clone(),
            running: Running::enter(&streams),
        };
        tokio::task::spawn_local(stream.serve(request, respond));
    }
    drop(connection);
    // What a client still sends, if only windows for what it reads, must not cost it the rest of that.
    if !is_limited && !line.linger(&settings.linger).await {
        ended_by(&worker, arrival.bind, LifeLimit::Linger);
    }
}

/// Counts an end that the client has left to us, where we have asked for it.
fn left(worker: &Worker, arrival: &Arrival) {
    if arrival.drain.is_cancelled() {
        ended_by(worker, arrival.bind, LifeLimit::Drain);
    }
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    let head_bytes = u32::try_from(settings.request_head.head_bytes_max).unwrap_or(u32::MAX);
    builder
        .max_concurrent_streams(settings.h2_streams_max)
        .initial_window_size(settings.h2_stream_window)
        .initial_connection_window_size(settings.h2_connection_window)
        .max_header_list_size(head_bytes)
        // What may be queued for a client that is slow: the stream's share of the buffer limit.
        .max_send_buffer_size(settings.buffer_bytes)
        // Rapid reset (CVE-2023-44487) and resets that we are made to send (CVE-2025-8671).
        .max_pending_accept_reset_streams(settings.h2_pending_resets_max)
        .max_local_error_reset_streams(Some(settings.h2_early_resets_max));
    builder
}

/// Figures of one HTTP/2 connection.
#[derive(Debug)]
struct Streams {
    running: Cell<usize>,
    opened: Cell<usize>,
    /// By the client, within [`GIVEN_UP_WITHIN`].
    given_up: Cell<usize>,
    weight: Rc<Weight>,
    /// Of streams that ended, for those that follow: they are armed already.
    timers: RefCell<Vec<Timer>>,
}

impl Streams {
    fn new(weight: Rc<Weight>) -> Self {
        Self {
            running: Cell::default(),
            opened: Cell::default(),
            given_up: Cell::default(),
            weight,
            timers: RefCell::default(),
        }
    }

    fn timer(&self) -> Timer {
        self.timers.borrow_mut().pop().unwrap_or_else(Timer::new)
    }

    fn keep_timer(&self, timer: Timer) {
        let mut timers = self.timers.borrow_mut();
        if timers.len() < TIMERS_MAX {
            timers.push(timer);
        }
    }

    /// Work is started here and at a backend only to be thrown away (CVE-2023-44487).
    fn are_mostly_given_up(&self, max: usize) -> bool {
        let given_up = self.given_up.get();
        given_up >= max && given_up * 2 >= self.opened.get()
    }
}

/// One stream that runs, for as long as this lives.
struct Running(Rc<Streams>);

impl Running {
    fn enter(streams: &Rc<Streams>) -> Self {
        streams.running.set(streams.running.get() + 1);
        streams.weight.streams.set(streams.running.get());
        streams.opened.set(streams.opened.get() + 1);
        Self(streams.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.weight.streams.set(self.0.running.get());
    }
}

/// One stream, with what it shares with the others of its connection.
struct Stream {
    worker: Rc<Worker>,
    arrival: Rc<Arrival>,
    running: Running,
}

impl Stream {
    async fn serve(self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let began = Instant::now();
        // Boxed, because a task is moved a few times until it runs.
        let reason = boxed(|| self.answer(request, respond)).await;
        if reason == Reason::ClientAborted && began.elapsed() < GIVEN_UP_WITHIN {
            let given_up = &self.running.0.given_up;
            given_up.set(given_up.get() + 1);
        }
    }

    async fn answer(
        &self,
        request: http::Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Reason {
        let (parts, stream) = request.into_parts();
        let mut responder = Responder::http2(respond);
        let fields = parts.headers.len();
        let ends = stream.is_end_stream();
        let (worker, arrival) = (&self.worker, &*self.arrival);
        let limits = &worker.settings.request_head;
        let reply = match Request::from_h2(parts, ends, limits) {
            Ok(mut request) if fields <= limits.fields_max => {
                let request = &mut request;
                let mut body = RequestBody::http2(stream);
                let streams = &self.running.0;
                let timer = streams.timer();
                let handling =
                    proxy::handle(worker, arrival, &timer, request, &mut body, &mut responder);
                let reason = handling.await;
                streams.keep_timer(timer);
                return reason;
            }
            Ok(_) => Reply::with_detail(
                Reason::HeadTooLarge,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "too many header fields",
            ),
            Err(refusal) => refused(refusal),
        };
        let reason = reply.reason;
        let _ = Box::pin(proxy::refuse(worker, arrival, &mut responder, reply)).await;
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{any, size_of_what};
    use super::*;

    #[test]
    fn what_every_stream_holds_is_small() {
        let task = size_of_what(|| any::<Stream>().serve(any(), any()));
        assert!(task <= 400, "what is moved to spawn a stream: {task}");
        let request = size_of_what(|| {
            let stream: &'static Stream = any();
            stream.answer(any(), any())
        });
        assert!(request <= 5_000, "a stream: {request}");
    }
}
