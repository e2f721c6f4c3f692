//! Bytes both ways until both directions have ended, or one broke, or time is up.
//!
//! Both directions live in one task and share one piece of memory of the worker: what was read is
//! written at once, and only what the other side refuses to take is kept, in a buffer that goes away
//! when it is empty. While something is kept nothing more is read from that side, so a peer that
//! does not read stops the other one. The end of one direction is passed on as such. A side that is
//! not read from is asked now and then whether it is still there, since the kernel says so only to
//! those who read.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use dataplane_telemetry::metrics::StreamMetrics;
use dataplane_telemetry::reason::Reason;

use crate::settings::Settings;
use crate::worker::{GROWTH_MAX, Worker};

/// Into how many parts the idle time is cut: so often the timer looks, and so exact it is. Looking
/// at the clock with every read would cost more than reading.
const IDLE_LOOKS: u32 = 4;
/// How often a side that nobody reads from is looked at.
const WATCH: Duration = Duration::from_secs(1);
/// When nothing has to be looked at.
const NEVER: Duration = Duration::from_secs(24 * 3600);

/// What the two directions carried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// One of the two connections.
pub(crate) trait Side: AsyncRead + AsyncWrite + Unpin {
    /// The socket below.
    fn tcp(&self) -> &TcpStream;
}

/// Whose connection broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    From,
    To,
}

/// Carries bytes between client and upstream; says how that ended.
pub(crate) async fn run<C, U>(
    worker: &Worker,
    client: &mut C,
    upstream: &mut U,
    drains: [&CancellationToken; 2],
    metrics: &StreamMetrics,
    carried: &mut Carried,
) -> Reason
where
    C: Side,
    U: Side,
{
    let settings = &*worker.settings;
    let mut up = Way::new(settings.buffer_bytes);
    let mut down = Way::new(settings.buffer_bytes);
    let mut clock = Clock::new(settings);
    let mut timer = pin!(sleep_until(clock.next()));
    let mut cancelled = pin!(drains[0].cancelled());
    let mut gone = pin!(drains[1].cancelled());
    poll_fn(|cx| {
        let before = (up.bytes, down.bytes);
        let there = up.poll(cx, client, upstream, worker);
        // The kernel tells of a reset once. After the write that has heard of it a read would take
        // the same connection for one that has ended well, and pass that on.
        let back = match there {
            Poll::Ready(Err(_)) => Poll::Pending,
            _ => down.poll(cx, upstream, client, worker),
        };
        let (received, sent) = (up.bytes - before.0, down.bytes - before.1);
        if received + sent > 0 {
            clock.is_busy = true;
            metrics.carried(received, sent);
            *carried = Carried {
                received: up.bytes,
                sent: down.bytes,
            };
        }
        match (there, back) {
            (Poll::Ready(Err(Broken::From)), _) | (_, Poll::Ready(Err(Broken::To))) => {
                return Poll::Ready(Reason::ClientAborted);
            }
            (Poll::Ready(Err(Broken::To)), _) | (_, Poll::Ready(Err(Broken::From))) => {
                return Poll::Ready(Reason::UpstreamReset);
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(Reason::Ok),
            _ => {}
        }
        if !clock.is_draining()
            && (cancelled.as_mut().poll(cx).is_ready() || gone.as_mut().poll(cx).is_ready())
        {
            clock.drain();
            timer.as_mut().reset(clock.next());
        }
        if clock.watch_at.is_none() && (up.is_unread() || down.is_unread()) {
            clock.watch();
            timer.as_mut().reset(clock.next());
        }
        clock.poll(cx, timer.as_mut(), |patience| {
            if up.is_broken(client) || down.is_stuck(patience) {
                return Some(Reason::ClientAborted);
            }
            if down.is_broken(upstream) {
                return Some(Reason::UpstreamReset);
            }
            up.is_stuck(patience).then_some(Reason::UpstreamTimeout)
        })
    })
    .await
}

/// One direction.
struct Way {
    /// Read and not yet taken by the other side.
    kept: Vec<u8>,
    /// How much of `kept` was taken.
    taken: usize,
    /// How much is read at once; grows while everything is taken at once.
    room: usize,
    usual: usize,
    bytes: u64,
    state: State,
    /// Something of `kept` was taken since the last look.
    is_moving: bool,
    /// Looks in a row that found nothing taken.
    stuck: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Bytes come.
    Open,
    /// They have ended; that is being passed on.
    Ending,
    /// That was passed on.
    Ended,
}

impl Way {
    fn new(usual: usize) -> Self {
        Self {
            kept: Vec::new(),
            taken: 0,
            room: usual,
            usual,
            bytes: 0,
            state: State::Open,
            is_moving: false,
            stuck: 0,
        }
    }

    /// Whether nothing is read at the moment, so that nobody hears of a broken connection.
    fn is_unread(&self) -> bool {
        !self.kept.is_empty() || self.state != State::Open
    }

    /// Whether the side it does not read from is gone.
    fn is_broken(&self, from: &impl Side) -> bool {
        self.is_unread() && !matches!(from.tcp().take_error(), Ok(None))
    }

    /// Whether the other side has taken nothing for so many looks; to be asked once a look.
    fn is_stuck(&mut self, patience: Option<u32>) -> bool {
        let waits = !self.kept.is_empty() || self.state == State::Ending;
        let is_moving = std::mem::take(&mut self.is_moving);
        self.stuck = match waits && !is_moving {
            true => self.stuck + 1,
            false => 0,
        };
        patience.is_some_and(|patience| self.stuck >= patience)
    }

    /// Moves what can be moved; ready once the end was passed on.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        worker: &Worker,
    ) -> Poll<Result<(), Broken>> {
        loop {
            if self.state == State::Ended {
                return Poll::Ready(Ok(()));
            }
            if !self.kept.is_empty() {
                ready!(self.poll_kept(cx, to)).map_err(|_| Broken::To)?;
            }
            if self.state == State::Ending {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(|_| Broken::To)?;
                self.state = State::Ended;
                continue;
            }
            let mut scratch = worker.scratch();
            let room = self.room.min(scratch.len());
            let mut buf = ReadBuf::new(&mut scratch[..room]);
            match Pin::new(&mut *from).poll_read(cx, &mut buf) {
                Poll::Pending => {
                    // What TLS holds back shall not wait for more.
                    let flushed = Pin::new(&mut *to).poll_flush(cx);
                    if matches!(flushed, Poll::Ready(Err(_))) {
                        return Poll::Ready(Err(Broken::To));
                    }
                    return Poll::Pending;
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::From)),
                Poll::Ready(Ok(())) => {}
            }
            let read = buf.filled();
            if read.is_empty() {
                self.state = State::Ending;
                continue;
            }
            self.bytes += read.len() as u64;
            match Pin::new(&mut *to).poll_write(cx, read) {
                Poll::Ready(Ok(written)) if written == read.len() => {
                    if written == room {
                        self.room = (room * 2).min(self.usual * GROWTH_MAX);
                    }
                }
                Poll::Ready(Ok(written)) => self.keep(&read[written..]),
                Poll::Pending => self.keep(read),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Broken::To)),
            }
        }
    }

    fn keep(&mut self, rest: &[u8]) {
        self.kept = rest.to_vec();
        self.taken = 0;
        self.is_moving = true;
        self.room = self.usual;
    }

    fn poll_kept(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<io::Result<()>> {
        while self.taken < self.kept.len() {
            let rest = &self.kept[self.taken..];
            match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => {
                    self.taken += written;
                    self.is_moving = true;
                }
            }
        }
        self.kept = Vec::new();
        self.taken = 0;
        Poll::Ready(Ok(()))
    }
}

/// When a connection is to be ended, though nobody ends it.
struct Clock {
    idle: Option<Duration>,
    /// Something was carried since the last look.
    is_busy: bool,
    /// Looks in a row that found nothing carried.
    quiet: u32,
    look_at: Option<Instant>,
    /// When a side that nobody reads from is looked at.
    watch_at: Option<Instant>,
    watch_every: Duration,
    /// Looks after which a side that takes nothing is given up.
    patience: Option<u32>,
    too_old_at: Option<Instant>,
    drain: Duration,
    drained_at: Option<Instant>,
}

impl Clock {
    fn new(settings: &Settings) -> Self {
        let Settings {
            idle,
            age_max,
            drain,
            write_idle,
            ..
        } = *settings;
        let now = Instant::now();
        let watch_every = write_idle.map_or(WATCH, |limit| WATCH.min(limit / IDLE_LOOKS));
        let looks = |limit: Duration| limit.as_nanos() / watch_every.as_nanos().max(1);
        Self {
            watch_at: None,
            watch_every,
            patience: write_idle.map(|limit| u32::try_from(looks(limit)).unwrap_or(u32::MAX)),
            idle,
            is_busy: false,
            quiet: 0,
            look_at: idle.map(|idle| now + idle / IDLE_LOOKS),
            too_old_at: age_max.map(|age| now + age),
            drain,
            drained_at: None,
        }
    }

    fn is_draining(&self) -> bool {
        self.drained_at.is_some()
    }

    fn drain(&mut self) {
        self.drained_at = Some(Instant::now() + self.drain);
    }

    fn watch(&mut self) {
        self.watch_at = Some(Instant::now() + self.watch_every);
    }

    /// When there is something to look at.
    fn next(&self) -> Instant {
        let times = [
            self.look_at,
            self.watch_at,
            self.too_old_at,
            self.drained_at,
        ];
        let first = times.into_iter().flatten().min();
        first.unwrap_or_else(|| Instant::now() + NEVER)
    }

    /// Ready when time is up, or when `look`, which is told how many looks in vain are enough, finds
    /// a side gone.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        mut look: impl FnMut(Option<u32>) -> Option<Reason>,
    ) -> Poll<Reason> {
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let is_over = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if is_over(self.drained_at) {
                return Poll::Ready(Reason::Draining);
            }
            if is_over(self.too_old_at) {
                return Poll::Ready(Reason::AgeLimit);
            }
            if is_over(self.watch_at) {
                // Set again by whoever still has something to watch.
                self.watch_at = None;
                cx.waker().wake_by_ref();
                if let Some(reason) = look(self.patience) {
                    return Poll::Ready(reason);
                }
            }
            if let (Some(idle), true) = (self.idle, is_over(self.look_at)) {
                self.quiet = if self.is_busy { 0 } else { self.quiet + 1 };
                self.is_busy = false;
                if self.quiet >= IDLE_LOOKS {
                    return Poll::Ready(Reason::IdleTimeout);
                }
                self.look_at = Some(now + idle / IDLE_LOOKS);
            }
            timer.as_mut().reset(self.next());
        }
        Poll::Pending
    }
}
