//! Active health: endpoints that do not pass their checks are left out until they pass again.
//!
//! Each endpoint has a [`Record`] that outlives a configuration; whoever makes the checks tells it
//! how each ended, and it turns only after so many in a row. A [`Schedule`] says which endpoint is
//! due next, for any number of them in one heap, so that no endpoint needs a task or a timer of its
//! own. Times are durations since any moment that the caller keeps to; chance is an argument.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// When an endpoint turns, and how often it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Between two checks of one endpoint.
    pub interval: Duration,
    /// Until a check has failed.
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unwell; 0 counts as 1.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it well again; 0 counts as 1.
    pub healthy_threshold: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 2,
            healthy_threshold: 2,
        }
    }
}

impl Settings {
    /// How long after a check began the next one does: the interval, and up to a tenth more or less,
    /// so that endpoints which were found together are not asked together for ever. `chance` is 0
    /// to 1.
    pub fn pause(&self, chance: f64) -> Duration {
        self.interval.mul_f64(0.9 + 0.2 * chance.clamp(0.0, 1.0))
    }

    /// When an endpoint that was just found is asked for the first time: soon, but not all at once.
    pub fn first(&self, chance: f64) -> Duration {
        let within = self.interval.min(Duration::from_secs(1));
        within.mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No connection came up.
    Connect,
    /// The TLS handshake failed, or the certificate is not trusted.
    Tls,
    /// There was no answer in time.
    Timeout,
    /// The connection broke.
    Broken,
    /// The answer was no HTTP, or not what the protocol says.
    Malformed,
    /// The answer had this status.
    Status(u16),
    /// `grpc.health.v1` said so: any status but SERVING.
    NotServing,
    /// The call ended with this `grpc-status`.
    GrpcStatus(u16),
}

impl Fault {
    const fn code(self) -> u64 {
        match self {
            Self::Connect => 1,
            Self::Tls => 2,
            Self::Timeout => 3,
            Self::Broken => 4,
            Self::Malformed => 5,
            Self::NotServing => 6,
            Self::Status(status) => 1 << 16 | status as u64,
            Self::GrpcStatus(status) => 2 << 16 | status as u64,
        }
    }

    fn of_code(code: u64) -> Option<Self> {
        let number = u16::try_from(code & 0xffff).ok()?;
        Some(match (code >> 16, number) {
            (0, 1) => Self::Connect,
            (0, 2) => Self::Tls,
            (0, 3) => Self::Timeout,
            (0, 4) => Self::Broken,
            (0, 5) => Self::Malformed,
            (0, 6) => Self::NotServing,
            (1, status) => Self::Status(status),
            (2, status) => Self::GrpcStatus(status),
            _ => return None,
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("no connection"),
            Self::Tls => f.write_str("no TLS"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Broken => f.write_str("the connection broke"),
            Self::Malformed => f.write_str("the answer is malformed"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::NotServing => f.write_str("not SERVING"),
            Self::GrpcStatus(status) => write!(f, "grpc-status {status}"),
        }
    }
}

/// What checks found out about one endpoint; see the module.
///
/// Written by one, read by many: a single word.
#[derive(Debug, Default)]
pub struct Record(AtomicU64);

/// The word: unwell, checked, results in a row of the other kind than the state, and the last fault.
const UNWELL: u64 = 1 << 63;
const CHECKED: u64 = 1 << 62;
const ROW_SHIFT: u32 = 20;
const ROW: u64 = 0xffff_ffff << ROW_SHIFT;
const FAULT: u64 = (1 << ROW_SHIFT) - 1;

impl Record {
    /// Whether it is to be left out.
    pub fn is_unwell(&self) -> bool {
        self.0.load(Ordering::Relaxed) & UNWELL != 0
    }

    /// Whether any check has ended.
    pub fn is_checked(&self) -> bool {
        self.0.load(Ordering::Relaxed) & CHECKED != 0
    }

    /// Why the last check failed; nothing when it did not.
    pub fn fault(&self) -> Option<Fault> {
        Fault::of_code(self.0.load(Ordering::Relaxed) & FAULT)
    }

    /// Results in a row that speak against the state it is in.
    pub fn in_a_row(&self) -> u32 {
        let row = (self.0.load(Ordering::Relaxed) & ROW) >> ROW_SHIFT;
        u32::try_from(row).unwrap_or(u32::MAX)
    }

    /// A check ended; true when the endpoint turned, either way.
    pub fn checked(&self, result: Result<(), Fault>, settings: &Settings) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        let is_unwell = word & UNWELL != 0;
        let threshold = match is_unwell {
            true => settings.healthy_threshold,
            false => settings.unhealthy_threshold,
        };
        let speaks_against = result.is_ok() == is_unwell;
        let row = match speaks_against {
            true => self.in_a_row().saturating_add(1),
            false => 0,
        };
        let turns = speaks_against && row >= threshold.max(1);
        let is_unwell = is_unwell != turns;
        let row = if turns { 0 } else { row };
        let fault = result.err().map_or(0, Fault::code);
        let unwell = if is_unwell { UNWELL } else { 0 };
        let word = CHECKED | unwell | u64::from(row) << ROW_SHIFT | fault;
        self.0.store(word, Ordering::Relaxed);
        turns
    }

    /// Nothing is known any more, as when checks end.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// Who is due when.
#[derive(Debug)]
pub struct Schedule<K> {
    heap: BinaryHeap<Reverse<(Duration, K)>>,
}

impl<K: Ord> Default for Schedule<K> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
        }
    }
}

impl<K: Ord> Schedule<K> {
    /// Adds one that is due at this time. Whoever is there already is there twice: the caller puts
    /// one back after it was taken.
    pub fn put(&mut self, due: Duration, key: K) {
        self.heap.push(Reverse((due, key)));
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Duration> {
        self.heap.peek().map(|Reverse((due, _))| *due)
    }

    /// One that is due, the longest first.
    pub fn take_due(&mut self, now: Duration) -> Option<K> {
        if self.next_due()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, key))| key)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests;
