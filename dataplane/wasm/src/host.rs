//! What the host keeps for one instance: its contexts, its budget for the log, what it asked for.
//!
//! This is the data of the instance's store. Host calls (`abi`) change it; `instance` prepares it before a
//! call into the guest and acts on it afterwards. Nothing here calls the guest.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{Notify, mpsc, oneshot};
use wasmtime::{Memory, ResourceLimiter, TypedFunc};

use crate::callout::{Callout, GrpcCall, GrpcEnd, GrpcMessage, GrpcPart, HttpAnswer, HttpCall};
use crate::facts::Facts;
use crate::head::Head;
use crate::settings::Settings;
use crate::shared::{Queue, Shared};

/// The root context's id.
pub(crate) const ROOT: u32 = 1;
/// Entries that a plugin may have in its tables.
const TABLE_ENTRIES_MAX: usize = 100_000;
/// Lines of log in a second.
const LINES_MAX: u32 = 100;
/// Calls that are under way for one instance.
pub(crate) const CALLS_MAX: usize = 64;
/// Messages of one gRPC call that wait to be sent.
const GRPC_MESSAGES_MAX: usize = 256;
/// Properties that a plugin may set for one request.
const PROPERTIES_MAX: usize = 64;

/// The data of one instance's store.
pub(crate) struct Host {
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
    /// The guest's memory, known once it is instantiated.
    pub(crate) memory: Option<Memory>,
    /// How the guest gives room for what it is told.
    pub(crate) allocate: Option<TypedFunc<u32, u32>>,
    /// Streams that are under way.
    pub(crate) contexts: HashMap<u32, StreamContext>,
    /// The context that host calls are about.
    pub(crate) effective: u32,
    /// The context that the guest was called for.
    pub(crate) called: u32,
    /// How often it wants to be called; zero for never.
    pub(crate) tick: Duration,
    /// What `tick` was when it was last looked at.
    pub(crate) tick_known: Duration,
    /// The answer that the guest is being told of.
    pub(crate) answer: Option<HttpAnswer>,
    /// Calls to be sent.
    pub(crate) outbox: Vec<(u32, u32, HttpCall)>,
    pub(crate) last_call: u32,
    pub(crate) calls: usize,
    /// gRPC calls that are under way.
    pub(crate) grpc: HashMap<u32, GrpcSide>,
    /// Those that are to begin.
    pub(crate) grpc_outbox: Vec<GrpcBegin>,
    /// What a gRPC call brought, of which the guest is being told.
    pub(crate) grpc_part: Option<GrpcPart>,
    /// How the last one ended.
    pub(crate) grpc_end: GrpcEnd,
    /// Bytes of messages that wait to be sent.
    pub(crate) grpc_waiting: Rc<Cell<usize>>,
    /// Queues to be watched.
    pub(crate) queues: Vec<(u32, Arc<Queue>)>,
    /// Those, and all that are watched already.
    watched: HashSet<u32>,
    /// Contexts that may go on.
    pub(crate) woken: Vec<u32>,
    /// The operator was told that it writes to what was sent on.
    pub(crate) wrote_late: bool,
    /// Clusters that the proxy has.
    pub(crate) knows: Option<Rc<dyn Callout>>,
    limiter: Limiter,
    log: LogBudget,
    /// For the guest's monotonic clock.
    pub(crate) started: Instant,
}

/// The guest's side of a gRPC call; when it goes, the call ends.
pub(crate) struct GrpcSide {
    /// On whose behalf.
    pub(crate) context: u32,
    /// The guest sees all parts of it, and may send more.
    pub(crate) is_stream: bool,
    /// Where its messages go, until it said that there are no more.
    pub(crate) messages: Option<mpsc::Sender<GrpcMessage>>,
    /// What a unary call brought; told when it has ended.
    pub(crate) answer: Option<GrpcPart>,
    /// Ends with it.
    _alive: oneshot::Sender<()>,
}

/// A gRPC call that is to begin.
pub(crate) struct GrpcBegin {
    pub(crate) number: u32,
    pub(crate) call: GrpcCall,
    pub(crate) messages: mpsc::Receiver<GrpcMessage>,
    /// Told when the guest wants it no more.
    pub(crate) gone: oneshot::Receiver<()>,
}

/// One request, as one plugin sees it.
pub(crate) struct StreamContext {
    pub(crate) request: Option<Head>,
    pub(crate) response: Option<Head>,
    pub(crate) request_trailers: Option<Head>,
    pub(crate) response_trailers: Option<Head>,
    /// The heads of both directions once they were sent on, to be read as long as the stream lasts.
    pub(crate) sent: [Option<Rc<Head>>; 2],
    /// The trailers, behind their hooks.
    pub(crate) sent_trailers: [Option<Rc<Head>>; 2],
    pub(crate) request_body: Body,
    pub(crate) response_body: Body,
    pub(crate) facts: Rc<dyn Facts>,
    pub(crate) properties: HashMap<Vec<u8>, Vec<u8>>,
    pub(crate) local: Option<LocalResponse>,
    /// What a plugin of the earlier interface sets in a response that is still to come.
    pub(crate) for_response: Option<Box<Head>>,
    pub(crate) resumed_request: bool,
    pub(crate) resumed_response: bool,
    /// Told when something above changed, for a request and a response that wait.
    pub(crate) wake: [Rc<Notify>; 2],
}

/// The part of a body that a plugin has before it.
#[derive(Debug, Default)]
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    /// The guest is being called about it, so it may be changed.
    pub(crate) is_open: bool,
}

/// An answer that a plugin gives itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalResponse {
    /// The status; 100 to 599.
    pub status: u16,
    /// Header fields; none of framing or of the connection.
    pub fields: http::HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What gRPC clients are told, if the plugin said so.
    pub grpc_status: Option<u32>,
}

impl StreamContext {
    pub(crate) fn new(facts: Rc<dyn Facts>) -> Self {
        Self {
            request: None,
            response: None,
            request_trailers: None,
            response_trailers: None,
            sent: [None, None],
            sent_trailers: [None, None],
            request_body: Body::default(),
            response_body: Body::default(),
            facts,
            properties: HashMap::new(),
            local: None,
            for_response: None,
            resumed_request: false,
            resumed_response: false,
            wake: [Rc::default(), Rc::default()],
        }
    }

    /// The head of the request (0) or of the response (1) as it is to be read at this moment.
    pub(crate) fn readable(&self, at: usize) -> Option<&Head> {
        let open = match at {
            0 => &self.request,
            _ => &self.response,
        };
        open.as_ref().or(self.sent[at].as_deref())
    }

    /// The same of trailers.
    pub(crate) fn readable_trailers(&self, at: usize) -> Option<&Head> {
        let open = match at {
            0 => &self.request_trailers,
            _ => &self.response_trailers,
        };
        open.as_ref().or(self.sent_trailers[at].as_deref())
    }

    /// The same to be written, and whether it was sent on: then the plugin alone sees what it writes.
    pub(crate) fn writable(&mut self, at: usize) -> Option<(&mut Head, bool)> {
        let open = match at {
            0 => &mut self.request,
            _ => &mut self.response,
        };
        writable(open, &mut self.sent[at])
    }

    /// The same of trailers.
    pub(crate) fn writable_trailers(&mut self, at: usize) -> Option<(&mut Head, bool)> {
        let open = match at {
            0 => &mut self.request_trailers,
            _ => &mut self.response_trailers,
        };
        writable(open, &mut self.sent_trailers[at])
    }

    /// Keeps a property; false when there is no room.
    pub(crate) fn set_property(&mut self, path: &[u8], value: &[u8]) -> bool {
        let is_known = self.properties.contains_key(path);
        if (!is_known && self.properties.len() >= PROPERTIES_MAX)
            || path.len() > 1024
            || value.len() > 16 * 1024
        {
            return false;
        }
        self.properties.insert(path.to_vec(), value.to_vec());
        true
    }
}

fn writable<'a>(
    open: &'a mut Option<Head>,
    sent: &'a mut Option<Rc<Head>>,
) -> Option<(&'a mut Head, bool)> {
    match (open, sent) {
        (Some(open), _) => Some((open, false)),
        (None, Some(sent)) => Some((Rc::make_mut(sent), true)),
        (None, None) => None,
    }
}

impl Body {
    /// Adds a piece; gives it back when more would be held than may be.
    pub(crate) fn append(&mut self, piece: Bytes, bytes_max: usize) -> Result<(), Bytes> {
        if self.bytes.is_empty() {
            // A piece that is not held back may have any size.
            self.bytes = piece;
            return Ok(());
        }
        if self.bytes.len() + piece.len() > bytes_max {
            return Err(piece);
        }
        let mut all = BytesMut::from(std::mem::take(&mut self.bytes));
        all.extend_from_slice(&piece);
        self.bytes = all.freeze();
        Ok(())
    }

    /// Puts `data` in place of `length` bytes from `start` on; false when the result would be too large.
    pub(crate) fn replace(
        &mut self,
        start: usize,
        length: usize,
        data: &[u8],
        bytes_max: usize,
    ) -> bool {
        let start = start.min(self.bytes.len());
        let end = start.saturating_add(length).min(self.bytes.len());
        let total = self.bytes.len() - (end - start) + data.len();
        if total > bytes_max.max(self.bytes.len()) {
            return false;
        }
        let mut all = BytesMut::with_capacity(total);
        all.extend_from_slice(&self.bytes[..start]);
        all.extend_from_slice(data);
        all.extend_from_slice(&self.bytes[end..]);
        self.bytes = all.freeze();
        true
    }
}

impl Host {
    pub(crate) fn new(
        settings: Arc<Settings>,
        shared: Arc<Shared>,
        knows: Option<Rc<dyn Callout>>,
    ) -> Self {
        Self {
            limiter: Limiter {
                memory_bytes: settings.limits.memory_bytes,
            },
            settings,
            shared,
            memory: None,
            allocate: None,
            contexts: HashMap::new(),
            effective: ROOT,
            called: ROOT,
            tick: Duration::ZERO,
            tick_known: Duration::ZERO,
            answer: None,
            outbox: Vec::new(),
            last_call: 0,
            calls: 0,
            grpc: HashMap::new(),
            grpc_outbox: Vec::new(),
            grpc_part: None,
            grpc_end: GrpcEnd {
                status: 0,
                message: String::new(),
            },
            grpc_waiting: Rc::default(),
            queues: Vec::new(),
            watched: HashSet::new(),
            woken: Vec::new(),
            wrote_late: false,
            knows,
            log: LogBudget::default(),
            started: Instant::now(),
        }
    }

    pub(crate) fn limiter(&mut self) -> &mut dyn ResourceLimiter {
        &mut self.limiter
    }

    /// The number of a new call; nothing when there are too many.
    pub(crate) fn next_call(&mut self) -> Option<u32> {
        if self.calls + self.grpc.len() >= CALLS_MAX {
            return None;
        }
        loop {
            self.last_call = self.last_call.checked_add(1).unwrap_or(1);
            if !self.grpc.contains_key(&self.last_call) {
                return Some(self.last_call);
            }
        }
    }

    /// True when the guest may be called for something else than a message: an answer, a timer, a queue.
    pub(crate) fn awaits(&self) -> bool {
        let has_calls = self.calls > 0 || !self.grpc.is_empty();
        has_calls || !self.tick.is_zero() || !self.watched.is_empty()
    }

    /// Has the guest told of what comes into that queue; once, however often it asks.
    pub(crate) fn watch(&mut self, number: u32, queue: Arc<Queue>) {
        if self.watched.insert(number) {
            self.queues.push((number, queue));
        }
    }

    /// Notes a gRPC call; what it sends first is in `first`, behind which nothing follows when it is no
    /// stream. Its number; nothing when there are too many.
    pub(crate) fn begin_grpc(&mut self, call: GrpcCall, first: Option<GrpcMessage>) -> Option<u32> {
        let number = self.next_call()?;
        let (sender, messages) = mpsc::channel(GRPC_MESSAGES_MAX);
        let (alive, gone) = oneshot::channel();
        let is_stream = first.is_none();
        if let Some(first) = first {
            // The other end is at hand, and empty.
            let _ = sender.try_send(first);
        }
        let side = GrpcSide {
            context: self.effective,
            is_stream,
            messages: Some(sender).filter(|_| is_stream),
            answer: None,
            _alive: alive,
        };
        self.grpc.insert(number, side);
        self.grpc_outbox.push(GrpcBegin {
            number,
            call,
            messages,
            gone,
        });
        Some(number)
    }

    /// The stream that host calls are about, if it is not the root context.
    pub(crate) fn stream(&mut self) -> Option<&mut StreamContext> {
        self.contexts.get_mut(&self.effective)
    }

    /// Writes a line of the plugin's into the log, unless there are too many of them.
    pub(crate) fn log(&mut self, level: u32, line: &str) {
        let Some(lost) = self.log.take(Instant::now()) else {
            return;
        };
        let plugin = &*self.settings.name;
        if lost > 0 {
            tracing::warn!(
                plugin,
                lost,
                "lines of a plugin were dropped, there were too many"
            );
        }
        match level {
            0 => tracing::trace!(plugin, "{line}"),
            1 => tracing::debug!(plugin, "{line}"),
            2 => tracing::info!(plugin, "{line}"),
            3 => tracing::warn!(plugin, "{line}"),
            _ => tracing::error!(plugin, "{line}"),
        }
    }
}

/// Memory and tables that an instance may have.
#[derive(Debug)]
struct Limiter {
    memory_bytes: usize,
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= self.memory_bytes)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ENTRIES_MAX)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        4
    }

    fn memories(&self) -> usize {
        1
    }
}

/// So many lines in a second, and no more.
#[derive(Debug, Default)]
struct LogBudget {
    since: Option<Instant>,
    written: u32,
    lost: u32,
}

impl LogBudget {
    /// Leave to write a line, with how many were lost before it.
    fn take(&mut self, now: Instant) -> Option<u32> {
        let is_over = self
            .since
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1));
        if is_over {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written >= LINES_MAX {
            self.lost = self.lost.saturating_add(1);
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_spliced_as_asked_and_never_past_its_bound() {
        for (start, length, expected) in [
            (0, 0, "++abc"),
            (0, usize::MAX, "++"),
            (3, 0, "abc++"),
            (usize::MAX, usize::MAX, "abc++"),
            (1, 1, "a++c"),
        ] {
            let mut body = Body::default();
            body.append(Bytes::from_static(b"abc"), 5).unwrap();
            assert!(body.replace(start, length, b"++", 5), "{start} {length}");
            assert_eq!(body.bytes, expected);
        }
        let mut body = Body::default();
        body.append(Bytes::from_static(b"abc"), 5).unwrap();
        assert_eq!(
            body.append(Bytes::from_static(b"def"), 5).unwrap_err(),
            "def"
        );
        assert!(!body.replace(0, 0, b"def", 5));
        assert_eq!(body.bytes, "abc");
    }

    #[test]
    fn lines_beyond_the_budget_of_a_second_are_counted_as_lost() {
        let mut budget = LogBudget::default();
        let now = Instant::now();
        let written = (0..150).filter(|_| budget.take(now).is_some()).count();
        assert_eq!(written, 100);
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(50));
        assert_eq!(budget.take(now + Duration::from_secs(1)), Some(0));
    }
}
