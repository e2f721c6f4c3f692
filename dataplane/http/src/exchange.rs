//! One attempt at one endpoint: a kept connection or a new one, the request out, the response back.
//!
//! The only place that dials backends. HTTP/1.1 is the codec of `h1`, HTTP/2 the `h2` crate's. An
//! attempt that fails says whether it may be made again: only when the request cannot have arrived,
//! or when it may be repeated and nothing of the response was seen.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::time::timeout;

use dataplane_telemetry::Reason;
use dataplane_telemetry::trace_context::Unrecorded;
use dataplane_upstream::Protocol;

use crate::downstream::{READ_BYTES, body_room, poll_write_http2, unshared};
use crate::h1::{self, Authority, BodyDecoder, BodyLength, Frame, HeadLimits};
use crate::held::Held;
use crate::io::{Duplex, Io};
use crate::message::Response;
use crate::pool::http2::{Connection, Stream};
use crate::pool::{Kept, Pool, Way};
use crate::settings::Settings;

mod dial;
mod http1;
mod http2;
mod owner;

pub(crate) use dial::{Peer, Spoken, dial};
pub(crate) use owner::Owner;

use http1::Http1;
use http2::{Http2, last_frame};

/// Why an attempt failed, and whether another may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) again: Again,
}

/// Whether a failed attempt may be made again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Nothing of the request can have been processed.
    Safe,
    /// Nothing either, because the connection took no further request.
    Closing,
    /// The connection itself ended before anything came back. The request may have arrived; only an
    /// idempotent one may be sent again.
    Closed,
    /// It may have arrived; only an idempotent request may be sent again.
    IfIdempotent,
    /// A response has begun.
    Never,
}

impl Failure {
    const fn new(reason: Reason, again: Again) -> Self {
        Self { reason, again }
    }

    /// True when the endpoint was closing the connection just as it was used again: that is nobody's
    /// fault, and says nothing about the endpoint. What it does to one stream of an HTTP/2 connection
    /// that lives on is its answer.
    pub(crate) fn is_race(self, was_reused: bool) -> bool {
        was_reused && matches!(self.again, Again::Closing | Again::Closed)
    }
}

/// The request as it goes to the endpoint.
#[derive(Debug)]
pub(crate) struct Outgoing<'a> {
    pub(crate) method: &'a Method,
    pub(crate) authority: &'a Authority,
    pub(crate) target: &'a PathAndQuery,
    pub(crate) headers: &'a HeaderMap,
    /// A trace to be told of beside the fields.
    pub(crate) unrecorded: Option<Unrecorded>,
    pub(crate) body: BodyLength,
    /// Ask the endpoint to switch to WebSocket.
    pub(crate) websocket: bool,
    /// Tell the endpoint that trailers are welcome.
    pub(crate) takes_trailers: bool,
}

/// A connection or stream to an endpoint, before the request.
pub(crate) struct Channel {
    kind: Kind,
    /// It served a request before, so the endpoint may be closing it right now.
    pub(crate) is_reused: bool,
    /// How long dialling took; zero when reused.
    pub(crate) connect_time: Duration,
}

enum Kind {
    Http1(Http1),
    Http2(Http2),
}

impl Channel {
    /// Takes a kept connection to the endpoint or dials a new one.
    pub(crate) async fn open(
        pool: &Pool,
        peer: &Peer,
        owner: Owner<'_>,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        match Self::kept(pool, peer, owner, settings, Instant::now()) {
            Some(channel) => Ok(channel),
            None => Self::dialled(pool, peer, owner, settings).await,
        }
    }

    /// A kept connection to the endpoint.
    pub(crate) fn kept(
        pool: &Pool,
        peer: &Peer,
        owner: Owner<'_>,
        settings: &Settings,
        now: Instant,
    ) -> Option<Self> {
        if peer.protocol != Protocol::Http2
            && let Some(kept) = pool.take_http1(peer.key, settings.upstream_idle_timeout, now)
        {
            return Some(Self::kept_http1(kept));
        }
        if peer.protocol == Protocol::Http1 {
            return None;
        }
        let stream = pool.stream(peer.key)?;
        stream.counts(owner.cluster.requests_per_connection());
        let http2 = Kind::Http2(Http2::new(stream, peer.is_secured()));
        Some(Self::new(http2, true, Duration::ZERO))
    }

    /// A connection that was not there yet.
    pub(crate) async fn dialled(
        pool: &Pool,
        peer: &Peer,
        owner: Owner<'_>,
        settings: &Settings,
    ) -> Result<Self, Failure> {
        let limits = owner.cluster.limits(settings.upstream_limits);
        let Some(_pending) = owner.cluster.admission().pending(&limits) else {
            return Err(Failure::new(Reason::BackendOverload, Again::Never));
        };
        let is_waiting = Cell::new(true);
        let connecting = Self::connect(pool, peer, owner, settings, &is_waiting);
        match timeout(peer.connect_timeout, connecting).await {
            Ok(Ok(channel)) => Ok(channel),
            // A shortage of ours is the same everywhere.
            Ok(Err(reason @ (Reason::Overload | Reason::BackendOverload))) => {
                Err(Failure::new(reason, Again::Never))
            }
            Ok(Err(reason)) => Err(Failure::new(reason, Again::Safe)),
            // Also where another request waits, which would have dialled for this one too.
            Err(_) if is_waiting.get() || owner.cluster.admission().waiting() > 0 => {
                Err(Failure::new(Reason::BackendOverload, Again::Never))
            }
            Err(_) => Err(Failure::new(Reason::ConnectTimeout, Again::Safe)),
        }
    }

    /// Dials, or waits for the HTTP/2 connection that another request dials. `is_waiting` says
    /// whether it is the cluster's limit that is waited for, and not the endpoint.
    async fn connect(
        pool: &Pool,
        peer: &Peer,
        owner: Owner<'_>,
        settings: &Settings,
        is_waiting: &Cell<bool>,
    ) -> Result<Self, Reason> {
        let started = Instant::now();
        let idle = settings.upstream_idle_timeout;
        let kept = || pool.take_http1(peer.key, idle, Instant::now());
        if peer.protocol == Protocol::Http1 {
            let held = match owner.place(pool, peer.key, settings, kept).await? {
                Ok(held) => held,
                Err(kept) => return Ok(Self::kept_http1(kept)),
            };
            is_waiting.set(false);
            let (io, _) = dial(peer).await?;
            return Ok(Self::fresh_http1(io, held, started));
        }
        let requests_max = owner.cluster.requests_per_connection();
        let http2 = |stream: Stream, is_reused, time| {
            stream.counts(requests_max);
            let kind = Kind::Http2(Http2::new(stream, peer.is_secured()));
            Self::new(kind, is_reused, time)
        };
        loop {
            let ticket = match pool.http2(peer.key) {
                Way::Stream(stream) => return Ok(http2(stream, true, Duration::ZERO)),
                Way::Wait(wait) => {
                    is_waiting.set(false);
                    match wait.ended().await {
                        // Whoever dialled had another endpoint to go to.
                        Err(Reason::ConnectTimeout) if peer.dial_timeout.is_none() => {}
                        ended => ended?,
                    }
                    continue;
                }
                Way::Http1 => {
                    let held = match owner.place(pool, peer.key, settings, kept).await? {
                        Ok(held) => held,
                        Err(kept) => return Ok(Self::kept_http1(kept)),
                    };
                    is_waiting.set(false);
                    let (io, spoken) = dial(peer).await?;
                    if spoken == Spoken::Http1 {
                        pool.speaks_http1(peer.key);
                        return Ok(Self::fresh_http1(io, held, started));
                    }
                    let connection = start_http2(io, held, settings).await?;
                    let stream = pool.keep_http2(peer.key, connection);
                    return Ok(http2(stream, false, started.elapsed()));
                }
                Way::Dial(ticket) => ticket,
            };
            is_waiting.set(true);
            // Where no further connection may be had, streams queue on the one that is there.
            let crowded = || pool.crowded_stream(peer.key);
            let held = match owner.place(pool, peer.key, settings, crowded).await? {
                Ok(held) => held,
                Err(stream) => return Ok(http2(stream, true, Duration::ZERO)),
            };
            is_waiting.set(false);
            let dialled = match dial(peer).await {
                Ok((io, Spoken::Http1)) => {
                    ticket.chose_http1();
                    return Ok(Self::fresh_http1(io, held, started));
                }
                Ok((io, Spoken::Http2)) => start_http2(io, held, settings).await,
                Err(reason) => Err(reason),
            };
            return match dialled {
                Ok(connection) => {
                    let stream = ticket.connected(connection);
                    Ok(http2(stream, false, started.elapsed()))
                }
                Err(reason) => {
                    ticket.failed(reason);
                    Err(reason)
                }
            };
        }
    }

    fn fresh_http1(io: Io, held: Held, started: Instant) -> Self {
        let kept = Kept {
            io: Duplex::new(io),
            held,
            served: 0,
        };
        Self::new(Kind::Http1(Http1::new(kept)), false, started.elapsed())
    }

    fn kept_http1(kept: Kept) -> Self {
        Self::new(Kind::Http1(Http1::new(kept)), true, Duration::ZERO)
    }

    /// An HTTP/1.1 connection that has served nothing before.
    pub(crate) fn is_new_http1(&self) -> bool {
        !self.is_reused && matches!(self.kind, Kind::Http1(_))
    }

    fn new(kind: Kind, is_reused: bool, connect_time: Duration) -> Self {
        Self {
            kind,
            is_reused,
            connect_time,
        }
    }

    /// Writes the head and gives the two directions, which may be used at the same time.
    pub(crate) fn send<'a>(
        &'a mut self,
        request: &Outgoing<'_>,
        settings: &'a Settings,
    ) -> Result<(Sender<'a>, Receiver<'a>), Failure> {
        match &mut self.kind {
            Kind::Http1(http1) => Ok(http1.send(request, settings)),
            Kind::Http2(http2) => http2.send(request, &settings.response_head),
        }
    }

    /// Gives the connection back for the requests that follow.
    pub(crate) fn keep(
        self,
        pool: &Pool,
        peer: &Peer,
        owner: Owner<'_>,
        settings: &Settings,
        now: Instant,
    ) {
        // An HTTP/2 stream is given back by dropping it; its connection stays in the pool.
        let Kind::Http1(http1) = self.kind else {
            return;
        };
        let served = http1.served.saturating_add(1);
        let max = owner.cluster.requests_per_connection();
        if !http1.buf.is_empty() || max.is_some_and(|max| served >= max) {
            return;
        }
        let kept = Kept {
            io: http1.io,
            held: http1.held,
            served,
        };
        let admission = owner.cluster.admission();
        match admission.waiting() {
            0 => pool.keep_http1(peer.key, kept, settings.upstream_idle_max, now),
            waiting if pool.is_for_here(peer.key, waiting) => {
                pool.keep_http1(peer.key, kept, settings.upstream_idle_max, now);
                admission.wake();
            }
            // Other workers cannot use it, only its place.
            _ => drop(kept),
        }
    }
}

async fn start_http2(io: Io, held: Held, settings: &Settings) -> Result<Connection, Reason> {
    let started = Connection::start(io, held, settings).await;
    started.map_err(|_| Reason::ConnectFailed)
}

/// The way out: the body of the request.
pub(crate) enum Sender<'a> {
    Http1(http1::Sender<'a>),
    Http2 {
        /// Until its end was sent.
        stream: Option<h2::SendStream<Bytes>>,
        /// Handed over, and waits for the endpoint's window.
        data: Bytes,
    },
}

/// The way back: the response.
pub(crate) enum Receiver<'a> {
    Http1 {
        io: &'a Duplex,
        buf: &'a mut BytesMut,
        decoder: BodyDecoder,
        method: Method,
        limits: &'a HeadLimits,
        /// What is held of the body at once.
        buffer_bytes: usize,
        /// How far the buffer was searched for the end of a head.
        scan: usize,
        keep_alive: bool,
    },
    Http2 {
        http2: &'a mut Http2,
        limits: &'a HeadLimits,
    },
}

/// The endpoint stopped taking the request; its response may still come.
#[derive(Debug)]
pub(crate) struct NotTaken;

impl From<io::Error> for NotTaken {
    fn from(_: io::Error) -> Self {
        Self
    }
}

impl From<h2::Error> for NotTaken {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

impl From<h1::EncodeError> for NotTaken {
    fn from(_: h1::EncodeError) -> Self {
        Self
    }
}

impl Sender<'_> {
    /// Hands over one frame of the body and waits until there is room for another; behind
    /// [`Frame::End`] everything is written out.
    pub(crate) fn frame(&mut self, frame: Frame) -> impl Future<Output = Result<(), NotTaken>> {
        // Not an async function: its future would hold the frame twice.
        let mut put = Some(self.put(frame));
        poll_fn(move |cx| match put.take() {
            Some(Err(error)) => Poll::Ready(Err(error)),
            _ => self.poll_taken(cx),
        })
    }

    /// Hands over one frame of the body. [`Self::poll_taken`] must be ready before the next.
    pub(crate) fn put(&mut self, frame: Frame) -> Result<(), NotTaken> {
        match self {
            Self::Http1(sender) => sender.put(frame)?,
            Self::Http2 { stream: None, .. } => {}
            Self::Http2 {
                stream: stream @ Some(_),
                data: waiting,
            } => match frame {
                Frame::Data(data) => *waiting = unshared(data),
                frame => {
                    if let Some(mut stream) = stream.take() {
                        last_frame(&mut stream, frame)?;
                    }
                }
            },
        }
        Ok(())
    }

    /// Ready when there is room for another frame, or when the whole body was written.
    pub(crate) fn poll_taken(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotTaken>> {
        match self {
            Self::Http1(sender) => ready!(sender.poll_taken(cx))?,
            Self::Http2 {
                stream: Some(stream),
                data,
            } => ready!(poll_write_http2(stream, data, cx))?,
            Self::Http2 { stream: None, .. } => {}
        }
        Poll::Ready(Ok(()))
    }

    /// Writes out what has been gathered.
    pub(crate) async fn flush(&mut self) -> Result<(), NotTaken> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// As [`Self::flush`], for one poll.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotTaken>> {
        match self {
            Self::Http1(sender) => Poll::Ready(Ok(ready!(sender.poll_flush(cx))?)),
            Self::Http2 { .. } => Poll::Ready(Ok(())),
        }
    }
}

/// What comes back before a body.
pub(crate) enum Head {
    /// An interim response (1xx but 101).
    Interim(StatusCode, HeaderMap),
    /// The endpoint switched protocols; bytes follow.
    Switched(Response),
    /// The final response.
    Final(Response),
}

impl Receiver<'_> {
    /// Reads the next head.
    pub(crate) async fn head(&mut self) -> Result<Head, Failure> {
        poll_fn(|cx| self.poll_head(cx)).await
    }

    /// As [`Self::head`], for one poll.
    pub(crate) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Failure>> {
        match self {
            Self::Http1 { .. } => {
                let head = ready!(self.poll_head_http1(cx))?;
                Poll::Ready(self.begin_http1(head))
            }
            Self::Http2 { http2, limits } => http2.poll_head(limits, cx),
        }
    }

    fn poll_head_http1(&mut self, cx: &mut Context<'_>) -> Poll<Result<h1::ResponseHead, Failure>> {
        let Self::Http1 {
            io,
            buf,
            method,
            limits,
            scan,
            ..
        } = self
        else {
            return Poll::Ready(Err(Failure::new(Reason::Internal, Again::Never)));
        };
        loop {
            match h1::response_head(buf, scan, limits, method) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(_) => {
                    let failure = Failure::new(Reason::UpstreamProtocol, Again::Never);
                    return Poll::Ready(Err(failure));
                }
            }
            match ready!(io.poll_read(cx, buf, READ_BYTES)) {
                Ok(0) | Err(_) => {
                    // With a part of the head seen, the request has arrived for sure.
                    let again = if buf.is_empty() {
                        Again::Closed
                    } else {
                        Again::Never
                    };
                    return Poll::Ready(Err(Failure::new(Reason::UpstreamReset, again)));
                }
                Ok(_) => {}
            }
        }
    }

    /// What follows from a head, for the connection and for the client.
    fn begin_http1(&mut self, head: h1::ResponseHead) -> Result<Head, Failure> {
        let Self::Http1 {
            decoder,
            limits,
            keep_alive,
            ..
        } = self
        else {
            return Err(Failure::new(Reason::Internal, Again::Never));
        };
        let mut headers = head.headers;
        let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
        if switched && !h1::is_websocket_upgrade(&headers) {
            // RFC 6455 4.1: whatever follows such an answer is no WebSocket.
            return Err(Failure::new(Reason::UpstreamProtocol, Again::Never));
        }
        let upgrade = switched.then(|| headers.get(header::UPGRADE).cloned());
        h1::strip_hop_by_hop(&mut headers);
        if let Some(upgrade) = upgrade.flatten() {
            headers.insert(header::UPGRADE, upgrade);
        }
        if head.status.is_informational() && !switched {
            return Ok(Head::Interim(head.status, headers));
        }
        *keep_alive = head.keep_alive && !switched;
        *decoder = BodyDecoder::new(head.body, limits);
        let response = Response {
            status: head.status,
            headers,
            body: head.body,
            declared: head.declared,
        };
        Ok(if switched {
            Head::Switched(response)
        } else {
            Head::Final(response)
        })
    }

    /// The next frame of the body; [`Frame::End`] behind the last.
    pub(crate) async fn frame(&mut self) -> Result<Frame, Failure> {
        poll_fn(|cx| self.poll_frame(cx)).await
    }

    /// As [`Self::frame`], for one poll.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Frame, Failure>> {
        let (io, buf, decoder, room) = match self {
            Self::Http1 {
                io,
                buf,
                decoder,
                buffer_bytes,
                ..
            } => (io, buf, decoder, *buffer_bytes),
            Self::Http2 { http2, .. } => return http2.poll_frame(cx),
        };
        let fault = |reason| Poll::Ready(Err(Failure::new(reason, Again::Never)));
        let mut is_eof = false;
        loop {
            match decoder.decode(buf, is_eof) {
                Ok(Some(frame)) => return Poll::Ready(Ok(frame)),
                Ok(None) => {}
                Err(h1::BodyError::Truncated) => return fault(Reason::UpstreamReset),
                Err(_) => return fault(Reason::UpstreamProtocol),
            }
            is_eof = match ready!(io.poll_read(cx, buf, body_room(decoder, room))) {
                Ok(bytes) => bytes == 0,
                Err(_) => return fault(Reason::UpstreamReset),
            };
        }
    }

    /// True when, behind this response, the connection may carry another request.
    pub(crate) fn is_reusable(&self) -> bool {
        match self {
            Self::Http1 {
                keep_alive,
                decoder,
                buf,
                ..
            } => *keep_alive && decoder.is_done() && buf.is_empty(),
            Self::Http2 { .. } => true,
        }
    }

    /// Bytes that came behind the head of a switched connection.
    pub(crate) fn take_rest(&mut self) -> Bytes {
        match self {
            Self::Http1 { buf, .. } => buf.split().freeze(),
            Self::Http2 { .. } => Bytes::new(),
        }
    }

    /// The raw stream of a switched connection.
    pub(crate) fn raw(&self) -> Option<&Duplex> {
        match self {
            Self::Http1 { io, .. } => Some(io),
            Self::Http2 { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
