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
}

impl FrameLimits {
    /// The product's defaults.
    pub const DEFAULT: Self = Self {
        control_max: 1000,
        priority_per_stream_max: 100,
        window_updates_per_data_max: 10,
    };
}

/// The time within which control frames are counted.
const CONTROL_WINDOW: Duration = Duration::from_secs(10);

/// What a client's bytes begin with, which is no frame (RFC 9113 3.4).
const PREFACE_BYTES: u32 = 24;

/// Of a frame (RFC 9113 4.1).
const HEAD_BYTES: usize = 9;

// Frame types (RFC 9113 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Of HEADERS and CONTINUATION.
const END_HEADERS: u8 = 0x4;

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

    /// Looks at bytes that went to the client.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) {
        while let Some(frame) = self.sent.next(&mut bytes) {
            if frame.kind == DATA {
                self.data_sent += 1;
                self.earn();
            }
        }
    }

    /// True while the client owes the rest of a header block or of the head of a frame: nothing
    /// else can be received before.
    pub(crate) fn owes_head(&self) -> bool {
        self.is_in_block || self.received.have > 0 || self.received.is_within_block()
    }

    fn note(&mut self, frame: Head, now: impl Fn() -> Instant) -> Result<(), Http2Limit> {
        match frame.kind {
            DATA => Ok(()),
            HEADERS => {
                self.blocks += 1;
                self.is_in_block = frame.flags & END_HEADERS == 0;
                self.earn();
                Ok(())
            }
            CONTINUATION => {
                self.is_in_block = frame.flags & END_HEADERS == 0;
                Ok(())
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
}

/// Finds the heads of frames in one direction.
#[derive(Debug)]
struct Frames {
    head: [u8; HEAD_BYTES],
    /// Bytes of the head that are here; 0 between frames and within a payload.
    have: usize,
    /// Bytes of the payload still to come.
    payload_left: u32,
    /// Of the last frame.
    kind: u8,
}

impl Frames {
    fn behind(preface: u32) -> Self {
        Self {
            head: [0; HEAD_BYTES],
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
        let taken = (HEAD_BYTES - self.have).min(bytes.len());
        self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
        self.have += taken;
        *bytes = &bytes[taken..];
        if self.have < HEAD_BYTES {
            return None;
        }
        self.have = 0;
        let [length @ .., kind, flags, _, _, _, _] = self.head;
        let [high, middle, low] = length;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]);
        self.kind = kind;
        Some(Head { kind, flags })
    }

    fn is_within_block(&self) -> bool {
        self.payload_left > 0 && matches!(self.kind, HEADERS | CONTINUATION)
    }
}

#[cfg(test)]
mod tests;
