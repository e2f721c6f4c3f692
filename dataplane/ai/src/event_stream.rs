//! Bytes of a stream become frames, however they are cut.
//!
//! Server-sent events end with a blank line, NDJSON with a line break; LF, CRLF and CR all end lines. A
//! [`Splitter`] gives a frame as soon as its last byte is there and holds back no more than one frame, up to
//! a limit. What a frame says is read by the dialects in `provider`.

use bytes::{Buf as _, Bytes, BytesMut};

/// How a stream is cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `text/event-stream`.
    Sse,
    /// `application/x-ndjson`.
    Ndjson,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// All its bytes, line breaks and comments among them.
    pub raw: Bytes,
    /// The event's name; empty when it has none.
    pub event: Bytes,
    /// Its data; empty for comments.
    pub data: Bytes,
}

/// A frame is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a frame of the stream is larger than {limit} bytes")]
pub struct FrameTooLarge {
    /// The limit.
    pub limit: usize,
}

/// Cuts a stream into frames.
#[derive(Debug)]
pub struct Splitter {
    framing: Framing,
    limit: usize,
    /// What came last, while nothing is left of what came before.
    fresh: Bytes,
    /// What is left of earlier pieces, with all that came since.
    kept: BytesMut,
    /// Where the current line begins, and how far it was looked through.
    line: usize,
    seen: usize,
    /// The last line ended with CR at the very end of what was there; an LF may still belong to it.
    after_cr: bool,
    is_first: bool,
}

impl Splitter {
    /// One for a stream of that framing, whose frames have at most so many bytes.
    pub fn new(framing: Framing, limit: usize) -> Self {
        Self {
            framing,
            limit,
            fresh: Bytes::new(),
            kept: BytesMut::new(),
            line: 0,
            seen: 0,
            after_cr: false,
            is_first: true,
        }
    }

    /// Takes in what came; [`Self::next_frame`] must have returned `None` before.
    pub fn push(&mut self, piece: Bytes) {
        if self.kept.is_empty() && self.fresh.is_empty() {
            self.fresh = piece;
            return;
        }
        if !self.fresh.is_empty() {
            self.kept.extend_from_slice(&self.fresh);
            self.fresh = Bytes::new();
        }
        self.kept.extend_from_slice(&piece);
    }

    /// The next frame that is complete.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameTooLarge> {
        loop {
            let held: &[u8] = if self.kept.is_empty() {
                &self.fresh
            } else {
                &self.kept
            };
            if self.after_cr && self.seen < held.len() {
                self.after_cr = false;
                if held[self.seen] == b'\n' {
                    self.seen += 1;
                    self.line = self.seen;
                }
            }
            let rest = held.get(self.seen..).unwrap_or_default();
            let found = match self.framing {
                Framing::Sse => memchr::memchr2(b'\n', b'\r', rest),
                Framing::Ndjson => memchr::memchr(b'\n', rest),
            };
            let Some(found) = found else {
                self.seen = held.len();
                if self.seen > self.limit {
                    return Err(FrameTooLarge { limit: self.limit });
                }
                self.keep();
                return Ok(None);
            };
            let end = self.seen + found;
            let is_blank = end == self.line || self.is_first && is_bom(&held[self.line..end]);
            let mut next = end + 1;
            if held[end] == b'\r' {
                if held.get(next) == Some(&b'\n') {
                    next += 1;
                } else {
                    self.after_cr = next == held.len();
                }
            }
            self.seen = next;
            self.line = next;
            let is_end = match self.framing {
                Framing::Sse => is_blank,
                Framing::Ndjson => true,
            };
            if is_end {
                let raw = self.take(next);
                let is_first = std::mem::take(&mut self.is_first);
                return Ok(Some(match self.framing {
                    Framing::Sse => sse(raw, is_first),
                    Framing::Ndjson => ndjson(raw),
                }));
            }
            if next > self.limit {
                return Err(FrameTooLarge { limit: self.limit });
            }
        }
    }

    /// What is left after the last whole frame: a frame without its end, or nothing.
    pub fn rest(&mut self) -> Option<Frame> {
        let length = self.fresh.len().max(self.kept.len());
        let raw = self.take(length);
        if raw.is_empty() {
            return None;
        }
        Some(match self.framing {
            Framing::Sse => sse(raw, self.is_first),
            Framing::Ndjson => ndjson(raw),
        })
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.seen = 0;
        self.line = 0;
        if self.kept.is_empty() {
            self.fresh.split_to(length)
        } else {
            self.kept.split_to(length).freeze()
        }
    }

    /// An incomplete frame is copied out of the piece it came in, which may be much larger.
    fn keep(&mut self) {
        if !self.fresh.is_empty() {
            self.kept = BytesMut::from(&*self.fresh);
            self.fresh = Bytes::new();
        }
    }
}

fn is_bom(line: &[u8]) -> bool {
    line == b"\xef\xbb\xbf"
}

fn ndjson(raw: Bytes) -> Frame {
    let is_space = |b: &u8| b.is_ascii_whitespace();
    let end = raw
        .iter()
        .rposition(|b| !is_space(b))
        .map_or(0, |at| at + 1);
    let start = raw.iter().position(|b| !is_space(b)).unwrap_or(end);
    Frame {
        event: Bytes::new(),
        data: raw.slice(start.min(end)..end),
        raw,
    }
}

fn sse(raw: Bytes, is_first: bool) -> Frame {
    let mut event = Bytes::new();
    let mut data: Option<Bytes> = None;
    let mut rest = raw.clone();
    if is_first && rest.starts_with(b"\xef\xbb\xbf") {
        rest.advance(3);
    }
    while !rest.is_empty() {
        let end = memchr::memchr2(b'\n', b'\r', &rest).unwrap_or(rest.len());
        let line = rest.split_to(end);
        let is_crlf = rest.starts_with(b"\r\n");
        rest.advance(rest.len().min(1 + usize::from(is_crlf)));
        if let Some(value) = field(&line, b"data") {
            data = Some(match data {
                None => value,
                Some(before) => {
                    let mut joined = BytesMut::with_capacity(before.len() + value.len() + 1);
                    joined.extend_from_slice(&before);
                    joined.extend_from_slice(b"\n");
                    joined.extend_from_slice(&value);
                    joined.freeze()
                }
            });
        } else if let Some(value) = field(&line, b"event") {
            event = value;
        }
    }
    Frame {
        raw,
        event,
        data: data.unwrap_or_default(),
    }
}

/// The value of a line, if it has that name.
fn field(line: &Bytes, name: &[u8]) -> Option<Bytes> {
    let rest = line.strip_prefix(name)?;
    match rest.first() {
        None => Some(Bytes::new()),
        Some(b':') => {
            let space = usize::from(rest.get(1) == Some(&b' '));
            Some(line.slice(name.len() + 1 + space..))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Found = (Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, Vec<u8>);

    fn frames(framing: Framing, pieces: &[&[u8]]) -> Found {
        let mut splitter = Splitter::new(framing, 1000);
        let mut found = Vec::new();
        let mut raw = Vec::new();
        for piece in pieces {
            splitter.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = splitter.next_frame().unwrap() {
                raw.extend_from_slice(&frame.raw);
                if !(frame.event.is_empty() && frame.data.is_empty()) {
                    found.push((frame.event.to_vec(), frame.data.to_vec()));
                }
            }
        }
        let rest = splitter
            .rest()
            .map_or_else(Vec::new, |frame| frame.raw.to_vec());
        raw.extend_from_slice(&rest);
        (found, rest, raw)
    }

    #[test]
    fn events_are_read_as_the_standard_says() {
        let table: [(&str, &[(&str, &str)]); 9] = [
            ("data: a\n\ndata:b\n\n", &[("", "a"), ("", "b")]),
            ("event: x\r\ndata: a\r\n\r\n", &[("x", "a")]),
            ("event:x\rdata:a\r\r", &[("x", "a")]),
            ("data: a\ndata: b\ndata\n\n", &[("", "a\nb\n")]),
            (": PROCESSING\n\ndata: a\n\n", &[("", "a")]),
            ("id: 1\nretry: 5\ndata:  a\n\n", &[("", " a")]),
            ("\u{feff}data: a\n\n", &[("", "a")]),
            ("database: a\n\n\n\n", &[]),
            ("data: a\n", &[]),
        ];
        for (stream, expected) in table {
            let (found, _, raw) = frames(Framing::Sse, &[stream.as_bytes()]);
            let expected: Vec<_> = expected
                .iter()
                .map(|(event, data)| (event.as_bytes().to_vec(), data.as_bytes().to_vec()))
                .collect();
            assert_eq!(found, expected, "{stream:?}");
            assert_eq!(raw, stream.as_bytes(), "{stream:?}");
        }
    }

    #[test]
    fn lines_of_json_are_frames_and_blank_ones_are_not() {
        let (found, rest, _) = frames(Framing::Ndjson, &[b"{}\r\n\n {\"a\":1} \n{"]);
        let data: Vec<_> = found.into_iter().map(|(_, data)| data).collect();
        assert_eq!(data, [b"{}".to_vec(), b"{\"a\":1}".to_vec()]);
        assert_eq!(rest, b"{");
    }

    #[test]
    fn a_frame_comes_with_its_last_byte() {
        let mut splitter = Splitter::new(Framing::Sse, 1000);
        for (piece, count) in [("data: a\r", 0), ("\n\r", 1), ("\ndata: b\n", 0), ("\n", 1)] {
            splitter.push(Bytes::from_static(piece.as_bytes()));
            let mut found = 0;
            while splitter.next_frame().unwrap().is_some() {
                found += 1;
            }
            assert_eq!(found, count, "{piece:?}");
        }
    }

    #[test]
    fn a_frame_without_end_is_refused_at_the_limit() {
        for line in ["data: xxxxxxxxxxxxxxx\n", "xxxxxxxxxx"] {
            let mut splitter = Splitter::new(Framing::Sse, 1000);
            let failed = (0..200).any(|_| {
                splitter.push(Bytes::from_static(line.as_bytes()));
                splitter.next_frame().is_err()
            });
            assert!(failed, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_frames(
            lines in prop::collection::vec(
                prop::sample::select(vec![
                    "data: {\"a\":\"é😀\"}", "data:x", "event: e", ": c", "", "", "data", "id: 3",
                    "{\"n\":1}",
                ]),
                0..24,
            ),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n", "\r"]), 24),
            cuts in prop::collection::vec(0..200usize, 0..12),
            bytewise in any::<bool>(),
            is_sse in any::<bool>(),
        ) {
            let framing = if is_sse { Framing::Sse } else { Framing::Ndjson };
            let stream: String =
                lines.iter().zip(&ends).flat_map(|(line, end)| [*line, *end]).collect();
            let whole = frames(framing, &[stream.as_bytes()]);
            let mut cuts: Vec<usize> = if bytewise {
                (0..stream.len()).collect()
            } else {
                cuts.into_iter().map(|cut| cut % (stream.len() + 1)).collect()
            };
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&stream.as_bytes()[from..cut]);
                from = cut;
            }
            pieces.push(&stream.as_bytes()[from..]);
            let cut = frames(framing, &pieces);
            prop_assert_eq!(&whole.0, &cut.0);
            prop_assert_eq!(&whole.2, stream.as_bytes());
            prop_assert_eq!(&cut.2, stream.as_bytes());
        }
    }
}
