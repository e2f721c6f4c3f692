//! Watches the frames of one HTTP/2 connection for floods that the h2 crate does not stop.
//!
//! Called by `io` with the bytes that pass between socket and h2, of which it looks at frame heads
//! only: nothing is copied or held back, and a frame costs the same whatever its length. It owns no
//! socket and takes the time as an argument; the connection is ended by whoever asks. What h2 itself
//! limits (sizes, CONTINUATION and empty DATA frames, resets of streams nobody took yet) is not done
//! twice here.

use std::time::Duration;

use tokio::time::Instant;

use dataplane_telemetry::metrics::Http2Limit;

/// What a client may send beyond requests and their bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// PING, SETTINGS, RST_STREAM and frames of unknown types within [`CONTROL_WINDOW`], on top of
    /// one for each HEADERS frame and each DATA frame we send.
    pub control_max: u32,
    /// PRIORITY frames per stream opened.
    pub priority_per_stream_max: u32,
    /// WINDOW_UPDATE frames per stream opened and per DATA frame we send.
    pub window_updates_per_data_max: u32,
    /// DATA and CONTINUATION frames in a row that bring nothing and end nothing.
    pub empty_in_row_max: u32,
    /// DATA frames that bring nothing and end nothing, in the life of a connection. h2 ends one
    /// behind 100 of them, whatever is said here.
    pub empty_data_max: u32,
}

impl FrameLimits {
    /// The product's defaults.
    pub const DEFAULT: Self = Self {
        control_max: 1000,
        priority_per_stream_max: 100,
        window_updates_per_data_max: 10,
        empty_in_row_max: 20,
        empty_data_max: 100,
    };
}

/// The time within which control frames are counted.
const CONTROL_WINDOW: Duration = Duration::from_secs(10);

/// What a client's bytes begin with, which is no frame (RFC 9113 3.4).
const PREFACE_BYTES: u32 = 24;

/// Of a frame (RFC 9113 4.1).
const HEAD_BYTES: usize = 9;
/// Of a payload, what is looked at of some frames.
const LOOK_BYTES: usize = 4;

// Frame types (RFC 9113 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Of DATA.
const END_STREAM: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;
/// Of DATA: the payload begins with how much of it is padding.
const PADDED: u8 = 0x8;

/// What RST_STREAM says of a stream that nobody looked at (RFC 9113 7).
const REFUSED_STREAM: u32 = 7;

/// The frames of one connection, both ways.
#[derive(Debug)]
pub(crate) struct FrameGuard {
    limits: FrameLimits,
    received: Frames,
    sent: Frames,
    /// Header blocks begun by the client, trailers among them.
    blocks: u64,
    priorities: u64,
    window_updates: u64,
    /// The last so many frames were empty.
    empty_in_row: u32,
    /// DATA frames that were empty.
    empty_data: u32,
    data_sent: u64,
    control_left: u32,
    control_since: Instant,
    /// A header block has begun and not ended.
    is_in_block: bool,
}

impl FrameGuard {
    pub(crate) fn new(limits: FrameLimits, now: Instant) -> Self {
        Self {
            limits,
            received: Frames::behind(PREFACE_BYTES),
            sent: Frames::behind(0),
            blocks: 0,
            priorities: 0,
            window_updates: 0,
            empty_in_row: 0,
            empty_data: 0,
            data_sent: 0,
            control_left: limits.control_max,
            control_since: now,
            is_in_block: false,
        }
    }

    /// Looks at bytes of the client; gives the limit they break. The clock is read rarely.
    pub(crate) fn receive(
        &mut self,
        mut bytes: &[u8],
        now: impl Fn() -> Instant,
    ) -> Result<(), Http2Limit> {
        while let Some(frame) = self.received.next(&mut bytes) {
            self.note(frame, &now)?;
        }
        Ok(())
    }

    /// Looks at bytes that went to the client; gives how many streams they refuse.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> u32 {
        let mut refused = 0;
        while let Some(frame) = self.sent.next(&mut bytes) {
            match frame.kind {
                DATA => {
                    self.data_sent += 1;
                    self.earn();
                }
                RST_STREAM if u32::from_be_bytes(frame.begin) == REFUSED_STREAM => refused += 1,
                _ => {}
            }
        }
        refused
    }

    /// True while the client owes the rest of a header block or of the head of a frame: nothing
    /// else can be received before.
    pub(crate) fn owes_head(&self) -> bool {
        self.is_in_block || self.received.is_within_head() || self.received.is_within_block()
    }

    fn note(&mut self, frame: Head, now: impl Fn() -> Instant) -> Result<(), Http2Limit> {
        match frame.kind {
            DATA => self.count_empty(frame, frame.flags & END_STREAM != 0),
            HEADERS => {
                self.blocks += 1;
                self.empty_in_row = 0;
                self.is_in_block = frame.flags & END_HEADERS == 0;
                self.earn();
                Ok(())
            }
            CONTINUATION => {
                self.is_in_block = frame.flags & END_HEADERS == 0;
                self.count_empty(frame, !self.is_in_block)
            }
            PRIORITY => {
                self.priorities += 1;
                let max = u64::from(self.limits.priority_per_stream_max) * (1 + self.blocks);
                within(self.priorities <= max, Http2Limit::Priority)
            }
            WINDOW_UPDATE => {
                self.window_updates += 1;
                let max = u64::from(self.limits.window_updates_per_data_max)
                    * (1 + self.blocks + self.data_sent);
                within(self.window_updates <= max, Http2Limit::WindowUpdate)
            }
            _ => self.spend(now),
        }
    }

    /// A body or a block that is cut into nothings (CVE-2019-9518).
    fn count_empty(&mut self, frame: Head, ends: bool) -> Result<(), Http2Limit> {
        if ends || !frame.is_empty() {
            self.empty_in_row = 0;
            return Ok(());
        }
        self.empty_in_row += 1;
        self.empty_data += u32::from(frame.kind == DATA);
        let is_within = self.empty_in_row <= self.limits.empty_in_row_max
            && self.empty_data <= self.limits.empty_data_max;
        within(is_within, Http2Limit::Empty)
    }

    fn earn(&mut self) {
        self.control_left = self.limits.control_max.min(self.control_left + 1);
    }

    fn spend(&mut self, now: impl Fn() -> Instant) -> Result<(), Http2Limit> {
        if self.control_left == 0 {
            let now = now();
            within(
                now.duration_since(self.control_since) >= CONTROL_WINDOW,
                Http2Limit::Control,
            )?;
            self.control_since = now;
            self.control_left = self.limits.control_max;
        }
        self.control_left = self.control_left.saturating_sub(1);
        Ok(())
    }
}

fn within(is_within: bool, limit: Http2Limit) -> Result<(), Http2Limit> {
    if is_within { Ok(()) } else { Err(limit) }
}

/// The head of a frame, as far as it is looked at.
#[derive(Clone, Copy, Debug)]
struct Head {
    kind: u8,
    flags: u8,
    length: u32,
    /// How the payload begins, as far as [`looked_at`] says.
    begin: [u8; LOOK_BYTES],
}

impl Head {
    /// True when there is nothing in the payload but padding.
    fn is_empty(&self) -> bool {
        let padding = match self.kind == DATA && self.flags & PADDED != 0 {
            true => 1 + u32::from(self.begin[0]),
            false => 0,
        };
        self.length <= padding
    }
}

/// How much of a payload is looked at: the length of padding, the code of a reset.
fn looked_at(kind: u8, flags: u8) -> usize {
    match kind {
        DATA if flags & PADDED != 0 => 1,
        RST_STREAM => LOOK_BYTES,
        _ => 0,
    }
}

/// Finds the heads of frames in one direction.
#[derive(Debug)]
struct Frames {
    /// The head and how the payload begins.
    head: [u8; HEAD_BYTES + LOOK_BYTES],
    /// Bytes of it that are here; 0 between frames and within the rest of a payload.
    have: usize,
    /// Bytes of the payload still to come.
    payload_left: u32,
    /// Of the last frame.
    kind: u8,
}

impl Frames {
    fn behind(preface: u32) -> Self {
        Self {
            head: [0; HEAD_BYTES + LOOK_BYTES],
            have: 0,
            payload_left: preface,
            kind: u8::MAX,
        }
    }

    /// The next head in `bytes`, which is moved on.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Head> {
        let rest = usize::try_from(self.payload_left).unwrap_or(usize::MAX);
        let skipped = rest.min(bytes.len());
        *bytes = &bytes[skipped..];
        self.payload_left -= u32::try_from(skipped).unwrap_or(self.payload_left);
        if !self.take(bytes, HEAD_BYTES) {
            return None;
        }
        let [high, middle, low, kind, flags, ..] = self.head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let looked_at = usize::try_from(length)
            .unwrap_or(usize::MAX)
            .min(looked_at(kind, flags));
        if !self.take(bytes, HEAD_BYTES + looked_at) {
            return None;
        }
        let [_, _, _, _, _, _, _, _, _, begin @ ..] = self.head;
        self.have = 0;
        self.payload_left = length - u32::try_from(looked_at).unwrap_or(0);
        self.kind = kind;
        Some(Head {
            kind,
            flags,
            length,
            begin,
        })
    }

    /// Takes bytes until so many of the head are here; true when they are.
    fn take(&mut self, bytes: &mut &[u8], wanted: usize) -> bool {
        let taken = wanted.saturating_sub(self.have).min(bytes.len());
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        *bytes = &bytes[taken..];
        self.have >= wanted
    }

    fn is_within_head(&self) -> bool {
        (1..HEAD_BYTES).contains(&self.have)
    }

    fn is_within_block(&self) -> bool {
        self.payload_left > 0 && matches!(self.kind, HEADERS | CONTINUATION)
    }
}

#[cfg(test)]
mod tests;
