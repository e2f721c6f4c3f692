//! One HTTP/2 connection to an endpoint, shared by the requests of one worker.
//!
//! `exchange` starts a [`Connection`] on a stream it dialled and takes [`Stream`]s from it, which
//! count as open until they are dropped. A local task drives the connection, and asks the endpoint
//! for a sign of life while streams run and nothing comes back; it ends by itself behind the last
//! stream once the pool has let go of the connection.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection as Driver, SendRequest};
use h2::{Ping, PingPong};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};

use crate::held::Held;
use crate::io::Io;
use crate::settings::Settings;

/// The largest receive window there is (RFC 9113 6.9.1).
const WINDOW_MAX: u32 = (1 << 31) - 1;
/// Streams that clients gave up and whose late frames are still passed over quietly.
const GIVEN_UP_MAX: usize = 1024;
/// How long they are.
const GIVEN_UP_FOR: Duration = Duration::from_secs(10);
/// An endpoint that has not said by then how many streams it takes is believed to take enough.
const SETTLE: Duration = Duration::from_secs(1);
/// Between pings of one long silence. Common gRPC servers end a connection after the third ping
/// that came within five minutes of another without a byte of theirs in between.
const PING_AGAIN: Duration = Duration::from_secs(310);

/// A connection in the pool.
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    state: Rc<State>,
    held: Rc<Held>,
    /// Streams we open at once, if the endpoint takes as many.
    streams_max: u16,
}

/// A stream of a connection, before its request; the connection counts it until it is dropped.
pub(crate) struct Stream {
    pub(crate) send: SendRequest<Bytes>,
    state: Rc<State>,
}

/// Whether a connection takes one more stream.
pub(crate) enum Room {
    /// It does.
    Stream(Stream),
    /// It is not known yet; to be asked again when this ends.
    Unknown(Settling),
    /// It does not, for now.
    Full,
}

/// Ends when the endpoint has said how many streams it takes.
pub(crate) struct Settling(Rc<State>);

#[derive(Default)]
struct State {
    streams: Cell<usize>,
    /// Requests so far.
    opened: Cell<u32>,
    /// Bytes that came, counting any sign of life.
    received: Cell<u64>,
    is_settled: Cell<bool>,
    settled: Notify,
    /// It takes no further stream.
    is_over: Cell<bool>,
    /// The pool has let go of it.
    is_released: Cell<bool>,
}

impl Connection {
    /// Begins HTTP/2 on a stream that was just dialled, and starts the task that drives it.
    pub(crate) async fn start(io: Io, held: Held, settings: &Settings) -> Result<Self, h2::Error> {
        let held = Rc::new(held);
        let state = Rc::new(State::default());
        let io = Counted {
            io,
            state: state.clone(),
        };
        let (send, mut driver) = builder(settings).handshake::<_, Bytes>(io).await?;
        let pings = driver.ping_pong();
        let life = Life {
            state: state.clone(),
            silence: settings.upstream_h2_ping_after,
            answer: settings.upstream_h2_ping_timeout,
        };
        let counted = Rc::clone(&held);
        tokio::task::spawn_local(async move {
            drive(driver, pings, life).await;
            drop(counted);
        });
        Ok(Self {
            send,
            state,
            held,
            streams_max: settings.upstream_h2_streams_max,
        })
    }

    /// True as long as streams may be opened.
    pub(super) fn is_open(&self) -> bool {
        if self.state.is_over.get() {
            return false;
        }
        // Says no from the moment a GOAWAY was read.
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.send.clone().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// Whether somebody waits for a connection of the same cluster.
    pub(super) fn is_wanted(&self) -> bool {
        self.held.is_wanted()
    }

    /// True when no request uses it.
    pub(super) fn is_idle(&self) -> bool {
        self.state.streams.get() == 0
    }

    /// Takes a stream.
    pub(crate) fn room(&self) -> Room {
        let streams = self.state.streams.get();
        if !self.state.is_settled.get() {
            return match streams {
                0 => Room::Stream(self.stream()),
                _ => Room::Unknown(Settling(self.state.clone())),
            };
        }
        let max = self.send.current_max_send_streams();
        if streams < max.min(usize::from(self.streams_max)) {
            Room::Stream(self.stream())
        } else {
            Room::Full
        }
    }

    /// Takes a stream whether there is room or not; it may have to wait for its turn.
    pub(crate) fn stream(&self) -> Stream {
        self.state.streams.set(self.state.streams.get() + 1);
        Stream {
            send: self.send.clone(),
            state: self.state.clone(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.state.is_released.set(true);
    }
}

impl Stream {
    /// Counts its request; behind the last of `max` the connection takes no further stream.
    pub(crate) fn counts(&self, max: Option<u32>) {
        let opened = self.state.opened.get().saturating_add(1);
        self.state.opened.set(opened);
        if max.is_some_and(|max| opened >= max) {
            self.give_up_connection();
        }
    }

    /// The connection takes no further stream, whatever it says.
    pub(crate) fn give_up_connection(&self) {
        self.state.is_over.set(true);
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.streams.set(self.state.streams.get() - 1);
    }
}

impl Settling {
    /// Waits for the end.
    pub(crate) async fn ended(self) {
        if !self.0.is_settled.get() && !self.0.is_over.get() {
            self.0.settled.notified().await;
        }
    }
}

impl State {
    fn settle(&self) {
        if !self.is_settled.replace(true) {
            self.settled.notify_waiters();
        }
    }
}

fn builder(settings: &Settings) -> Builder {
    let mut builder = Builder::new();
    let limits = &settings.response_head;
    // HTTP/2 counts 32 bytes for every field on top of what HTTP/1.1 would send.
    let head_bytes = limits.head_bytes_max + 32 * limits.fields_max;
    let streams_max = settings.upstream_h2_streams_max;
    // Clients share a connection, so it must hold what all of them leave unread: were it smaller,
    // those who read nothing would stop the responses of all others.
    let stream_window = settings.upstream_h2_stream_window;
    let connection_window = stream_window.saturating_mul(u32::from(streams_max));
    builder
        .enable_push(false)
        .initial_max_send_streams(usize::from(streams_max))
        .initial_window_size(stream_window)
        .initial_connection_window_size(connection_window.min(WINDOW_MAX))
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX))
        // Request bytes that may be queued on a stream for an endpoint that is slow.
        .max_send_buffer_size(settings.buffer_bytes)
        // What a client gives up must not end the connection for all others.
        .max_concurrent_reset_streams(GIVEN_UP_MAX)
        .reset_stream_duration(GIVEN_UP_FOR);
    builder
}

/// Carries a connection to its end.
async fn drive(mut driver: Driver<Counted, Bytes>, pings: Option<PingPong>, life: Life) {
    let state = life.state.clone();
    {
        let mut dead = pin!(life.ended(pings));
        let mut unsettled = pin!(sleep(SETTLE));
        poll_fn(|cx| {
            if Pin::new(&mut driver).poll(cx).is_ready() {
                return Poll::Ready(());
            }
            // Its settings come before all else.
            let is_settled = state.is_settled.get();
            if !is_settled && (state.received.get() > 0 || unsettled.as_mut().poll(cx).is_ready()) {
                state.settle();
            }
            dead.as_mut().poll(cx)
        })
        .await;
    }
    state.is_over.set(true);
    state.settle();
}

/// Whether the endpoint still lives.
struct Life {
    state: Rc<State>,
    /// How long nothing may come while streams run before we ask.
    silence: Duration,
    /// How long the answer may take.
    answer: Duration,
}

impl Life {
    /// Ends when the connection is to be given up: no answer, or nothing left to do on it.
    async fn ended(self, pings: Option<PingPong>) {
        let Some(mut pings) = pings else {
            return std::future::pending().await;
        };
        let state = &self.state;
        let (mut seen, mut not_before, mut was_left) = (0, None, false);
        loop {
            sleep(self.silence).await;
            let is_idle = state.streams.get() == 0;
            let is_left = is_idle && state.is_released.get();
            if is_left && was_left {
                // Its goodbye finds no taker.
                return;
            }
            was_left = is_left;
            let received = state.received.get();
            if is_idle || received != seen {
                (seen, not_before) = (received, None);
                continue;
            }
            if not_before.is_some_and(|moment| Instant::now() < moment) {
                continue;
            }
            let answered = timeout(self.answer, pings.ping(Ping::opaque())).await;
            if !matches!(answered, Ok(Ok(_))) && state.received.get() == seen {
                return;
            }
            (seen, not_before) = (state.received.get(), Some(Instant::now() + PING_AGAIN));
        }
    }
}

/// A stream that notes how much came.
struct Counted {
    io: Io,
    state: Rc<State>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.io).poll_read(cx, buf);
        let received = &self.state.received;
        received.set(received.get() + (buf.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
