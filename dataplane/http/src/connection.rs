//! An accepted stream becomes requests, in HTTP/1.1 or HTTP/2, and each goes to `proxy`.
//!
//! Called by the accept loop of the `dataplane` crate, one task per connection. The protocol is
//! decided by ALPN, or by the first bytes in plain text. Deadlines for the first byte, the head and
//! the pause between requests are kept here; while a connection idles it holds no buffer. Nothing
//! here knows routes.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::{LifeLimit, OverloadScope};

use crate::arrival::Arrival;
use crate::deadline::Timer;
use crate::downstream::{READ_BYTES, RequestBody, Responder};
use crate::h1::{self, HeadError};
use crate::io::{Duplex, Io};
use crate::message::{Refusal, Request};
use crate::proxy;
use crate::reply::Reply;
use crate::settings::Settings;
use crate::worker::Worker;

/// What an HTTP/2 connection begins with (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a head, what is read when memory is short.
const SMALL_HEAD_BYTES: usize = 4 * 1024;
/// How often a head that is larger and not complete is asked whether there is room for it.
const ROOM_INTERVAL: Duration = Duration::from_millis(200);

mod http2;

/// Serves all requests of one connection.
pub async fn serve(worker: Rc<Worker>, io: Io, arrival: Arrival) {
    let arrival = Rc::new(arrival);
    let is_http2 = arrival.tls.as_ref().is_some_and(|tls| tls.is_http2);
    if is_http2 {
        return Box::pin(http2::serve(worker, io, Bytes::new(), arrival)).await;
    }
    let io = Duplex::new(io);
    let mut buf = BytesMut::new();
    if arrival.tls.is_none() {
        match detect(&worker, &io, &mut buf, &arrival).await {
            Some(Detected::Http1) => {}
            Some(Detected::Http2) => {
                let io = io.into_inner();
                return Box::pin(http2::serve(worker, io, buf.freeze(), arrival)).await;
            }
            None => return,
        }
    }
    if serve_http1(&worker, &io, buf, &arrival).await == Ended::Cleanly {
        // close_notify over TLS; a peer that is gone already does not matter.
        let _ = timeout(worker.settings.shutdown_time, io.shutdown()).await;
    }
}

enum Detected {
    Http1,
    Http2,
}

/// Decides by the first bytes that differ from HTTP/2's preface; `None` when the client is gone.
async fn detect(
    worker: &Worker,
    io: &Duplex,
    buf: &mut BytesMut,
    arrival: &Arrival,
) -> Option<Detected> {
    let settings = &worker.settings;
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
                Ok(_) => return None,
                Err(_) => {
                    let limit = match is_draining {
                        false => LifeLimit::FirstByte,
                        true => LifeLimit::Drain,
                    };
                    ended_by(worker, arrival.bind, limit);
                    return None;
                }
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

async fn serve_http1(
    worker: &Rc<Worker>,
    io: &Duplex,
    mut buf: BytesMut,
    arrival: &Arrival,
) -> Ended {
    let settings = &worker.settings;
    let timer = Timer::new();
    let born = Instant::now();
    let mut served = 0_u32;
    // Made once, because it would have to be entered in a list again for every request.
    let mut drained = pin!(arrival.drain.cancelled());
    loop {
        let (pause, limit) = match served {
            0 => (settings.first_byte_timeout, LifeLimit::FirstByte),
            _ => (settings.keepalive_idle, LifeLimit::Idle),
        };
        let idle = Idle {
            is_tls: arrival.tls.is_some(),
            timer: &timer,
            pause,
            limit,
            drained: drained.as_mut(),
        };
        let head = match read_head(worker, io, &mut buf, idle).await {
            Ok(Some(head)) => head,
            Ok(None) => return Ended::Cleanly,
            Err(HeadFault::Silent(limit)) => {
                ended_by(worker, arrival.bind, limit);
                return Ended::Cleanly;
            }
            Err(fault) => {
                // What has come of it may be large and is of no use any more.
                drop(buf);
                Box::pin(refuse_head(worker, io, arrival, fault)).await;
                return Ended::Cleanly;
            }
        };
        served += 1;
        let is_last = is_last(worker, arrival, served, born);
        let mut responder = Responder::http1(io, &head, &worker.settings);
        responder.serves(served);
        if is_last || worker.is_saving() {
            responder.close_after();
        }
        // Boxed, so that an idle connection is small.
        let exchange =
            boxed(|| serve_request(worker, io, &mut buf, arrival, &timer, head, responder));
        if let Some(ended) = exchange.await {
            return ended;
        }
    }
}

/// Boxes what `make` makes. The room is taken first, so the compiler makes it there; `Box::pin` copies all
/// the room that a future has for later.
fn boxed<F>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    Box::into_pin(Box::write(Box::new_uninit(), make()))
}

/// Serves one request; says how the connection ended when it cannot carry another.
async fn serve_request(
    worker: &Rc<Worker>,
    io: &Duplex,
    buf: &mut BytesMut,
    arrival: &Arrival,
    timer: &Timer,
    head: h1::RequestHead,
    mut responder: Responder<'_>,
) -> Option<Ended> {
    let length = head.body;
    let mut request = match Request::from_h1(head) {
        Ok(request) => request,
        Err(refusal) => {
            let reply = refused(refusal);
            let refusing = Box::pin(proxy::refuse(worker, arrival, &mut responder, reply));
            let _ = refusing.await;
            linger(worker, arrival, io).await;
            return Some(Ended::Cleanly);
        }
    };
    responder.takes_trailers(request.takes_trailers);
    let mut body = RequestBody::http1(io, buf, length, &worker.settings);
    let request = &mut request;
    proxy::handle(worker, arrival, timer, request, &mut body, &mut responder).await;
    if !responder.is_complete() {
        return Some(Ended::Cut);
    }
    if !responder.keeps_alive() {
        linger(worker, arrival, io).await;
        return Some(Ended::Cleanly);
    }
    if !(body.is_done() || Box::pin(finish_body(&mut body, &worker.settings)).await) {
        ended_by(worker, arrival.bind, LifeLimit::RequestRest);
        linger(worker, arrival, io).await;
        return Some(Ended::Cleanly);
    }
    None
}

/// Reads the rest of a small body, so that the next request can be read behind it.
async fn finish_body(body: &mut RequestBody<'_>, settings: &Settings) -> bool {
    let max = settings.request_rest_bytes_max;
    if max == 0 {
        return false;
    }
    let limit = body.bytes().saturating_add(max);
    let rest = async {
        while !body.is_done() && body.bytes() <= limit {
            if body.frame().await.is_err() {
                return false;
            }
        }
        body.is_done()
    };
    let is_whole = timeout(settings.request_rest_time, rest).await;
    is_whole.unwrap_or(false)
}

/// Why no request could be read.
#[derive(Clone, Copy, Debug)]
enum HeadFault {
    Malformed(HeadError),
    Slow,
    /// Nothing came of it, for as long as this says.
    Silent(LifeLimit),
    /// Memory is short, and the head wants more than one piece of it.
    NoRoom,
}

/// What ends the wait for a request.
struct Idle<'a, D> {
    is_tls: bool,
    timer: &'a Timer,
    /// How long nothing may come.
    pause: Duration,
    /// What that is.
    limit: LifeLimit,
    /// Ready when the connection shall end.
    drained: Pin<&'a mut D>,
}

/// Waits for the next request and reads its head; `None` when there is none any more.
async fn read_head(
    worker: &Worker,
    io: &Duplex,
    buf: &mut BytesMut,
    mut idle: Idle<'_, impl Future<Output = ()>>,
) -> Result<Option<h1::RequestHead>, HeadFault> {
    let settings = &worker.settings;
    let mut scan = 0;
    let mut skipped = false;
    let mut deadline = None;
    let mut room = None;
    loop {
        match h1::request_head(buf, &mut scan, &settings.request_head) {
            Ok(Some(head)) => return Ok(Some(head)),
            Ok(None) => {}
            Err(error) => return Err(HeadFault::Malformed(error)),
        }
        if buf[..] == *b"\r\n" && !skipped {
            // Old clients send it behind a body; it begins no request yet (RFC 9112 2.2).
            skipped = true;
            buf.clear();
        }
        if buf.is_empty() {
            // Nothing of a request is here: an idle connection keeps no memory.
            *buf = BytesMut::new();
            match wait_for_request(io, buf, &mut idle, settings.drain_idle).await {
                Waited::Came => continue,
                Waited::Ended => return Ok(None),
                Waited::InVain(limit) => return Err(HeadFault::Silent(limit)),
            }
        }
        let is_large = buf.len() >= SMALL_HEAD_BYTES;
        if is_large {
            room = room.or_else(|| settings.large_heads.enter());
            if room.is_none() || worker.overload.is_shedding() {
                return Err(HeadFault::NoRoom);
            }
        }
        let until = *deadline.get_or_insert_with(|| Instant::now() + settings.head_timeout);
        // A large one that waits for more is looked at again, because memory may run short meanwhile.
        let look = match is_large {
            true => until.min(Instant::now() + ROOM_INTERVAL),
            false => until,
        };
        match timeout_at(look, io.read(buf, READ_BYTES)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Ok(None),
            Err(_) if look < until => {}
            Err(_) => return Err(HeadFault::Slow),
        }
    }
}

/// How a wait for a request ended.
enum Waited {
    Came,
    /// With the client's end of the connection.
    Ended,
    /// With ours, because of this limit.
    InVain(LifeLimit),
}

impl Waited {
    fn of(read: &io::Result<usize>) -> Self {
        match read {
            Ok(1..) => Self::Came,
            Ok(0) | Err(_) => Self::Ended,
        }
    }
}

/// Waits for first bytes and reads them.
async fn wait_for_request(
    io: &Duplex,
    buf: &mut BytesMut,
    idle: &mut Idle<'_, impl Future<Output = ()>>,
    drain_idle: Duration,
) -> Waited {
    let is_tls = idle.is_tls;
    let read = async {
        // Over TLS a record may be decrypted already, which the socket does not show.
        if !is_tls {
            io.read(buf, READ_BYTES).await
        } else {
            poll_fn(|cx| io.poll_read_copied(cx, buf)).await
        }
    };
    let mut read = pin!(read);
    tokio::select! {
        biased;
        read = &mut read => return Waited::of(&read),
        () = idle.drained.as_mut() => {}
        () = idle.timer.until(Instant::now() + idle.pause) => return Waited::InVain(idle.limit),
    }
    // A request may be on its way; it is still served, with the word that it is the last.
    match timeout(drain_idle, read).await {
        Ok(read) => Waited::of(&read),
        Err(_) => Waited::InVain(LifeLimit::Drain),
    }
}

/// Whether the connection ends behind its request number `served`; counts that it does for a limit.
fn is_last(worker: &Worker, arrival: &Arrival, served: u32, born: Instant) -> bool {
    let most = worker.settings.keepalive_requests_max;
    let oldest = worker.settings.connection_age_max;
    let limit = match () {
        () if most.is_some_and(|max| served >= max) => LifeLimit::Requests,
        () if oldest.is_some_and(|max| born.elapsed() >= max) => LifeLimit::Age,
        () => return arrival.drain.is_cancelled(),
    };
    ended_by(worker, arrival.bind, limit);
    true
}

/// Counts that a limit of its life ends a connection.
fn ended_by(worker: &Worker, bind: SocketAddr, limit: LifeLimit) {
    if let Some(bind) = worker.bind(bind) {
        bind.metrics.connection_ended(limit);
    }
}

fn refused(refusal: Refusal) -> Reply {
    Reply::with_detail(reason_of(refusal.status), refusal.status, refusal.detail)
}

/// Why a request is refused with that status before anything else is known of it.
fn reason_of(status: StatusCode) -> Reason {
    match status {
        StatusCode::URI_TOO_LONG => Reason::UriTooLong,
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => Reason::HeadTooLarge,
        _ => Reason::BadRequest,
    }
}

/// Answers a head that cannot be read as a request, then closes (RFC 9112 2.2, 9.6).
async fn refuse_head(worker: &Worker, io: &Duplex, arrival: &Arrival, fault: HeadFault) {
    let (reason, status, detail) = match fault {
        HeadFault::Malformed(error) => {
            let status = error.status();
            (reason_of(status), status, error.detail())
        }
        HeadFault::Slow | HeadFault::Silent(_) => {
            let detail = "the request head did not arrive in time";
            (Reason::HeadTimeout, StatusCode::REQUEST_TIMEOUT, detail)
        }
        HeadFault::NoRoom => {
            worker.overload.metrics.rejected(OverloadScope::Memory);
            let detail = "the gateway is overloaded";
            (Reason::Overload, StatusCode::SERVICE_UNAVAILABLE, detail)
        }
    };
    debug!(%reason, detail, "request refused");
    let mut responder = Responder::http1_for_refusal(io, &worker.settings);
    let reply = Reply::with_detail(reason, status, detail);
    let told = proxy::refuse(worker, arrival, &mut responder, reply).await;
    // There is no room to read what still comes either.
    if told.is_ok() && reason != Reason::Overload {
        linger(worker, arrival, io).await;
    }
}

/// Ends our direction and drops what still comes for a moment, so that the answer is not lost.
async fn linger(worker: &Worker, arrival: &Arrival, io: &Duplex) {
    if let Ok(Ok(())) = timeout(worker.settings.shutdown_time, io.shutdown()).await
        && !io.drop_rest(&worker.settings.linger).await
    {
        ended_by(worker, arrival.bind, LifeLimit::Linger);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn any<T>() -> T {
        unreachable!("only its type is asked for")
    }

    pub(super) fn size_of_what<F>(_makes: impl FnOnce() -> F) -> usize {
        size_of::<F>()
    }

    /// A large future is memory of every idle connection, or bytes moved for every request.
    #[test]
    fn what_every_connection_and_request_holds_is_small() {
        let connection = size_of_what(|| serve(any(), any(), any()));
        assert!(connection <= 1_300, "an idle connection: {connection}");
        let request =
            size_of_what(|| serve_request(any(), any(), any(), any(), any(), any(), any()));
        assert!(request <= 5_000, "a request: {request}");
    }
}
