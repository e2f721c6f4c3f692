//! `grpcRuntime.minPingInterval`: a client that asks for signs of life too often is sent away.
//!
//! tonic answers pings and shows nobody that they came, so `connection.rs` reads the heads of HTTP/2
//! frames along with it, in plain text on both ways. The rule is gRPC's own: three pings too soon after
//! the one before, with no answer of ours between them, are too many. No sockets and no clock here.

use std::time::{Duration, Instant};

/// Pings that may come too soon in a row, for those that a network has pushed together.
const STRIKES_MAX: u8 = 2;
/// What an HTTP/2 client sends before its first frame (RFC 9113, section 3.4).
const PREFACE_BYTES: u64 = 24;
/// The head of a frame (RFC 9113, section 4.1).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const PING: u8 = 0x6;
const GOAWAY: u8 = 0x7;
const ACK: u8 = 0x1;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// What one connection has seen of pings.
#[derive(Debug)]
pub(super) struct Pings {
    min_interval: Duration,
    from_client: Frames,
    to_client: Frames,
    last_ping: Option<Instant>,
    strikes: u8,
    last_stream: u32,
}

impl Pings {
    /// A connection on which nothing has passed; with an interval of 0 nothing is too often.
    pub(super) fn new(min_interval: Duration) -> Self {
        Self {
            min_interval,
            from_client: Frames::new(PREFACE_BYTES),
            to_client: Frames::new(0),
            last_ping: None,
            strikes: 0,
            last_stream: 0,
        }
    }

    /// Takes in what the client sent; false when that were too many pings.
    pub(super) fn received(&mut self, bytes: &[u8], now: Instant) -> bool {
        if self.min_interval.is_zero() {
            return true;
        }
        let (mut pings, mut last_stream) = (0_usize, self.last_stream);
        self.from_client.read(bytes, |frame| match frame.kind {
            PING if frame.flags & ACK == 0 => pings += 1,
            HEADERS => last_stream = last_stream.max(frame.stream),
            _ => {}
        });
        self.last_stream = last_stream;
        for _ in 0..pings {
            let is_soon = self
                .last_ping
                .is_some_and(|last| now.duration_since(last) < self.min_interval);
            self.last_ping = Some(now);
            self.strikes = self.strikes.saturating_add(u8::from(is_soon));
        }
        self.strikes <= STRIKES_MAX
    }

    /// Takes in what goes to the client; an answer or a push is a reason to ask for another.
    pub(super) fn sent(&mut self, bytes: &[u8]) {
        if self.min_interval.is_zero() {
            return;
        }
        let mut answered = false;
        self.to_client.read(bytes, |frame| {
            answered |= matches!(frame.kind, DATA | HEADERS);
        });
        if answered {
            self.strikes = 0;
            self.last_ping = None;
        }
    }

    /// The frame that tells the client why it has to go; nothing in the midst of another frame.
    pub(super) fn goodbye(&self) -> Option<Vec<u8>> {
        const WHY: &[u8; 14] = b"too_many_pings";
        if !self.to_client.is_between() {
            return None;
        }
        // The payload's length, the kind, no flags, no stream.
        let mut frame = vec![0, 0, 8 + 14, GOAWAY, 0, 0, 0, 0, 0];
        frame.extend(self.last_stream.to_be_bytes());
        frame.extend(ENHANCE_YOUR_CALM.to_be_bytes());
        frame.extend(WHY);
        Some(frame)
    }
}

/// The head of a frame, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// Finds the heads of frames in bytes that come in any pieces.
#[derive(Debug)]
struct Frames {
    /// Bytes that are no head.
    skip: u64,
    head: [u8; HEAD_BYTES],
    filled: usize,
}

impl Frames {
    fn new(skip: u64) -> Self {
        Self {
            skip,
            head: [0; HEAD_BYTES],
            filled: 0,
        }
    }

    fn is_between(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(Head)) {
        loop {
            let skipped = usize::try_from(self.skip).map_or(bytes.len(), |n| n.min(bytes.len()));
            self.skip -= skipped as u64;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD_BYTES - self.filled);
            if taken == 0 {
                return;
            }
            self.head[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == HEAD_BYTES {
                let [a, b, c, kind, flags, s @ ..] = self.head;
                self.filled = 0;
                self.skip = u64::from(u32::from_be_bytes([0, a, b, c]));
                let stream = u32::from_be_bytes(s) & 0x7fff_ffff;
                found(Head {
                    kind,
                    flags,
                    stream,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(15);

    fn frame(kind: u8, flags: u8, stream: u8, length: u8) -> Vec<u8> {
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.resize(HEAD_BYTES + usize::from(length), 0xee);
        frame
    }

    fn ping() -> Vec<u8> {
        frame(PING, 0, 0, 8)
    }

    fn started(limit: Duration) -> Pings {
        let mut pings = Pings::new(limit);
        let now = Instant::now();
        assert!(pings.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now));
        assert!(pings.received(&frame(4, 0, 0, 6), now));
        assert!(pings.received(&frame(HEADERS, 4, 3, 20), now));
        pings.sent(&frame(4, 0, 0, 6));
        pings
    }

    /// How many of these pings, so many milliseconds apart, were taken.
    fn taken(pings: &mut Pings, apart: u64, count: u32) -> u32 {
        let begin = Instant::now();
        let times = (0..count).map(|n| begin + Duration::from_millis(apart) * n);
        let mut taken = 0;
        for now in times {
            taken += u32::from(pings.received(&ping(), now));
        }
        taken
    }

    #[test]
    fn the_third_ping_too_soon_is_too_much() {
        for (limit, apart, expected) in [
            (LIMIT, 15_000, 50),
            (LIMIT, 14_999, 3),
            (LIMIT, 0, 3),
            (Duration::ZERO, 0, 50),
        ] {
            let found = taken(&mut started(limit), apart, 50);
            assert_eq!(found, expected, "{limit:?} {apart}");
        }
    }

    #[test]
    fn an_answer_gives_the_right_to_ask_again() {
        for (kind, expected) in [(DATA, true), (HEADERS, true), (PING, false), (4, false)] {
            let mut pings = started(LIMIT);
            let mut all = 0;
            for _ in 0..10 {
                all += taken(&mut pings, 0, 2);
                pings.sent(&frame(kind, 1, 1, 8));
            }
            assert_eq!(all == 20, expected, "{kind}");
        }
    }

    #[test]
    fn answers_to_our_pings_are_no_pings() {
        let mut pings = started(LIMIT);
        for _ in 0..10 {
            assert!(pings.received(&frame(PING, ACK, 0, 8), Instant::now()));
        }
    }

    #[test]
    fn frames_are_found_in_any_pieces() {
        let stream = [
            frame(4, 0, 0, 0),
            frame(HEADERS, 4, 7, 33),
            ping(),
            frame(DATA, 1, 7, 255),
        ];
        let bytes = stream.concat();
        let kinds = [4, HEADERS, PING, DATA];
        for size in 1..=bytes.len() {
            let mut frames = Frames::new(0);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                frames.read(piece, |head| found.push(head.kind));
            }
            assert_eq!(found, kinds, "{size}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn who_is_sent_away_is_told_why_but_not_within_a_frame() {
        let mut pings = started(LIMIT);
        let goodbye = pings.goodbye().unwrap();
        assert_eq!(goodbye[..9], [0, 0, 22, GOAWAY, 0, 0, 0, 0, 0]);
        assert_eq!(goodbye[9..17], [0, 0, 0, 3, 0, 0, 0, 11]);
        assert_eq!(&goodbye[17..], b"too_many_pings");
        pings.sent(&frame(DATA, 0, 1, 8)[..12]);
        assert_eq!(pings.goodbye(), None);
    }
}
