//! The access log: one line per request, written without ever holding a request up.
//!
//! Each worker thread has a [`Writer`], which formats lines into a buffer of its own and hands the
//! buffer to a bounded queue; one thread takes from the queue and owns the file. When the disk or
//! the reader of a pipe does not keep up, the queue fills and lines are dropped and counted. What a
//! line looks like is in `access_log/format.rs`, where it goes in `access_log/sink.rs`.

use std::cell::RefCell;
use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

mod format;
mod otlp;
mod sink;

pub use format::{
    ClientCertificate, DEFAULT_FORMAT, Destination, FormatError, GenAi, HandshakeRecord, Record,
    StreamRecord, Template, variables,
};
pub use sink::{Rotation, Sink};

use format::{Facts, JsonFormat};

use crate::grpc_status::GrpcStatus;
use crate::metrics::AccessLogMetrics;
use crate::queue::{Chunk, Limits, Queue};
use crate::reason::Reason;

/// A writer's buffer is handed on when it holds this much: each time wakes the writer thread, and
/// many small writes to a file cost more than a large one.
const BUFFER_BYTES: usize = 64 * 1024;

/// A writer's buffer is handed on when its oldest line is older than this.
const AGE_MAX: Duration = Duration::from_millis(200);

/// How the access log is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where lines go.
    pub sink: Sink,
    /// What a line looks like.
    pub style: Style,
    /// When a file is put aside.
    pub rotation: Rotation,
    /// Share of lines that are written, 0 to 1. Never left out are those of requests that ended with
    /// 500 and above, by a fault of the backend or the gateway whatever the status, or with a code of
    /// gRPC that is the backend's fault, and those of connections and sessions that ended by a fault.
    pub sample_rate: f64,
    /// How many bytes may wait for the sink before lines are dropped.
    pub queue_bytes: usize,
    /// Where lines, drops and faults are counted; `Metrics::access_log` belongs here.
    pub counts: Arc<AccessLogMetrics>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sink: Sink::Stdout,
            style: Style::Json,
            rotation: Rotation::default(),
            sample_rate: 1.0,
            queue_bytes: 8 * 1024 * 1024,
            counts: Arc::default(),
        }
    }
}

/// What a line looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Style {
    /// An object with all that is known.
    Json,
    /// Text by a format.
    Text(Arc<Template>),
}

/// What a route says of its own lines; what it does not say is as for all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Override {
    /// Whether there are any.
    pub is_enabled: Option<bool>,
    /// Share of requests that are logged.
    pub sample_rate: Option<f64>,
    /// What a line looks like.
    pub style: Option<Style>,
}

/// The access log of the process; clones are the same log.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// Absent when the log is off.
    shared: Option<Arc<Shared>>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    style: Style,
    threshold: u64,
    counts: Arc<AccessLogMetrics>,
}

impl AccessLog {
    /// Starts the writer thread; fails only when there can be no thread.
    ///
    /// A sink that cannot be opened is not an error here: it is logged, counted and tried again.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let Settings {
            sink,
            style,
            rotation,
            sample_rate,
            queue_bytes,
            counts,
        } = settings;
        let limits = Limits {
            bytes: queue_bytes,
            lines: u64::MAX,
        };
        let shared = Arc::new(Shared {
            queue: Queue::new(limits),
            style,
            threshold: sampling_threshold(sample_rate),
            counts,
        });
        let run: Box<dyn FnOnce(&Shared) + Send> = match sink {
            Sink::Otlp(collector) => {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()?;
                Box::new(move |it| otlp::run(&collector, &runtime, &it.queue, &it.counts))
            }
            sink => Box::new(move |it| sink::run(sink, rotation, &it.queue, &it.counts)),
        };
        shared.counts.writers.set(1);
        let thread = std::thread::Builder::new().name("access-log".to_owned());
        thread.spawn({
            let shared = Arc::clone(&shared);
            move || run(&shared)
        })?;
        Ok(Self {
            shared: Some(shared),
        })
    }

    /// A log that writes nothing.
    pub const fn disabled() -> Self {
        Self { shared: None }
    }

    /// A writer for the calling thread to keep.
    pub fn writer(&self) -> Writer {
        let shared = self.shared.clone();
        let local = Local {
            buffer: Vec::new(),
            lines: 0,
            oldest: None,
            format: JsonFormat::default(),
            random: RandomState::new().hash_one(0),
        };
        Writer {
            shared,
            local: RefCell::new(local),
        }
    }

    /// Opens the file again, after it was moved away by log rotation.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.queue.ask_reopen();
        }
    }

    /// Writes out what waits and ends the writer thread; false when `patience` ran out first.
    ///
    /// Writers should be flushed or dropped before; what they write later is dropped and counted.
    pub fn stop(&self, patience: Duration) -> bool {
        self.shared
            .as_ref()
            .is_none_or(|shared| shared.queue.drain(patience))
    }
}

/// Formats and buffers the lines of one worker thread. It is not `Sync`.
///
/// Dropping it hands its lines on.
#[derive(Debug)]
pub struct Writer {
    shared: Option<Arc<Shared>>,
    local: RefCell<Local>,
}

#[derive(Debug)]
struct Local {
    buffer: Vec<u8>,
    lines: u64,
    /// When the first line in the buffer was written.
    oldest: Option<SystemTime>,
    format: JsonFormat,
    random: u64,
}

/// Whether something went wrong that was not the client's doing: such a line is never left out.
fn is_fault(status: u16, reason: Reason, grpc_status: Option<GrpcStatus>) -> bool {
    status >= 500 || reason.is_fault() || is_fault_of_backend(reason, grpc_status)
}

/// The code of a call that went through is the backend's word; what the client did wrong has codes of
/// ours that would say as much.
pub(crate) fn is_fault_of_backend(reason: Reason, grpc_status: Option<GrpcStatus>) -> bool {
    reason.flag() == "none" && grpc_status.is_some_and(GrpcStatus::is_fault)
}

impl Writer {
    /// Adds a line, or leaves it out by sampling. Never waits.
    pub fn write(&self, record: &Record<'_>) {
        if self.takes(record.status, record.reason, record.grpc_status, None) {
            self.write_taken(record, None);
        }
    }

    /// Whether the line of a request that ended like this is written, by sampling and by what the
    /// request's route says. Asked once, so that no record is made in vain.
    ///
    /// An answer that broke off has the status with which it began.
    pub fn takes(
        &self,
        status: u16,
        reason: Reason,
        grpc_status: Option<GrpcStatus>,
        own: Option<&Override>,
    ) -> bool {
        self.samples(is_fault(status, reason, grpc_status), own)
    }

    /// Adds the line of a request of which [`Self::takes`] said so. Never waits.
    pub fn write_taken(&self, record: &Record<'_>, own: Option<&Override>) {
        let ended = record.timestamp.checked_add(record.latency);
        self.add(ended, own, &Facts::Request(record));
    }

    /// As [`Self::write`], for a connection or UDP session; one that ended well or by its client's
    /// doing may be left out by sampling.
    pub fn write_stream(&self, record: &StreamRecord<'_>) {
        self.write_stream_as(record, None);
    }

    /// The same by what the session's route says.
    pub fn write_stream_as(&self, record: &StreamRecord<'_>, own: Option<&Override>) {
        if self.samples(record.reason.is_fault(), own) {
            let ended = record.timestamp.checked_add(record.duration);
            self.add(ended, own, &Facts::Stream(record));
        }
    }

    /// As [`Self::write`], for a TLS handshake that failed; that is its client's doing, so it may be
    /// left out by sampling.
    pub fn write_handshake(&self, record: &HandshakeRecord<'_>) {
        if self.samples(false, None) {
            let ended = record.timestamp.checked_add(record.duration);
            self.add(ended, None, &Facts::Handshake(record));
        }
    }

    /// A fault is written in any case, unless there are to be no lines at all.
    fn samples(&self, is_fault: bool, own: Option<&Override>) -> bool {
        let Some(shared) = &self.shared else {
            return false;
        };
        if own.is_some_and(|own| own.is_enabled == Some(false)) {
            return false;
        }
        let rate = own.and_then(|own| own.sample_rate);
        let threshold = rate.map_or(shared.threshold, sampling_threshold);
        is_fault || self.local.borrow_mut().next_random() < threshold
    }

    /// A moment that no clock can tell has no age.
    fn add(&self, ended: Option<SystemTime>, own: Option<&Override>, facts: &Facts<'_>) {
        let Some(shared) = &self.shared else { return };
        let style = own.and_then(|own| own.style.as_ref());
        // Nothing below calls back into this writer, so the borrow cannot fail.
        let mut local = self.local.borrow_mut();
        if local.buffer.capacity() == 0 {
            local.buffer.reserve_exact(BUFFER_BYTES);
        }
        let Local { buffer, format, .. } = &mut *local;
        match (style.unwrap_or(&shared.style), facts) {
            (Style::Text(template), facts) => template.write(buffer, &mut format.clock, facts),
            (Style::Json, Facts::Request(record)) => format.write(buffer, record),
            (Style::Json, Facts::Stream(record)) => format.write_stream(buffer, record),
            (Style::Json, Facts::Handshake(record)) => format.write_handshake(buffer, record),
        }
        local.lines += 1;
        let now = ended.unwrap_or(SystemTime::UNIX_EPOCH);
        let oldest = *local.oldest.get_or_insert(now);
        let age = now.duration_since(oldest).unwrap_or_default();
        if local.buffer.len() >= BUFFER_BYTES - format::LINE_USUAL || age > AGE_MAX {
            local.hand_on(shared);
        }
    }

    /// Hands on what is buffered; to be called when the worker is idle, and a few times a second.
    pub fn flush(&self) {
        if let Some(shared) = &self.shared {
            self.local.borrow_mut().hand_on(shared);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Local {
    fn hand_on(&mut self, shared: &Shared) {
        if self.lines == 0 {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        self.oldest = None;
        // A few lines are copied, so that a queue of half-empty buffers does not hold more memory
        // than its limit says.
        let bytes = if self.buffer.len() < BUFFER_BYTES / 2 {
            let bytes = self.buffer.as_slice().to_vec();
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_BYTES);
            bytes
        } else {
            std::mem::take(&mut self.buffer)
        };
        let refused = shared.queue.push(Chunk { bytes, lines }).is_err();
        if refused {
            shared.counts.dropped_lines.add(lines);
        }
        shared.counts.waits(shared.queue.waiting());
    }

    /// The next number of an xorshift sequence; good enough to sample by.
    fn next_random(&mut self) -> u64 {
        let mut x = self.random.max(1);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        x
    }
}

/// The number below which a random `u64` must be for a line to be written.
fn sampling_threshold(rate: f64) -> u64 {
    // The conversion saturates; a rate that is no number counts as 0.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "saturates at the bounds, as meant"
    )]
    let threshold = (rate * u64::MAX as f64) as u64;
    threshold
}

#[cfg(test)]
mod tests;
