//! The trace a request belongs to, as header fields tell it: W3C Trace Context and B3.
//!
//! Reads what came and writes what is sent on, both without looking at anything else. A field that
//! breaks its format counts as absent, as both standards want it. B3 has two forms, one field with
//! dashes and several fields; either can carry a decision without a trace.

/// What a request says of the trace it belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// The span it was sent by.
    pub parent: Option<Parent>,
    /// Whether that one is recorded; absent when nobody has decided.
    pub is_sampled: Option<bool>,
}

/// A span of somebody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
}

/// A trace that begins here and that nobody records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
}

impl Unrecorded {
    /// The value of `traceparent` that tells of it.
    pub fn value(self) -> [u8; 55] {
        write_w3c(self.trace_id, self.span_id, false)
    }

    /// The whole line of a head over HTTP/1.1.
    pub fn line(self) -> [u8; 70] {
        let mut line = *b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";
        line[13..68].copy_from_slice(&self.value());
        line
    }
}

/// The forms in which a trace is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forms {
    /// `traceparent`.
    pub w3c: bool,
    /// `b3`.
    pub b3: bool,
    /// `X-B3-TraceId` and its companions.
    pub b3_multi: bool,
}

impl Forms {
    /// `traceparent` alone, which is the default.
    pub const W3C: Self = Self {
        w3c: true,
        b3: false,
        b3_multi: false,
    };

    /// Both together.
    pub const fn and(self, other: Self) -> Self {
        Self {
            w3c: self.w3c || other.w3c,
            b3: self.b3 || other.b3,
            b3_multi: self.b3_multi || other.b3_multi,
        }
    }
}

/// Reads `traceparent` (W3C Trace Context, 3.2).
pub fn read_w3c(field: &[u8]) -> Option<Remote> {
    let (version, rest) = (hex(field.get(..2)?)?, field.get(2..)?);
    // Later versions may be longer, behind another dash.
    let has_sound_length = match version {
        0xff => false,
        0 => field.len() == 55,
        _ => field.len() == 55 || field.get(55) == Some(&b'-'),
    };
    if !has_sound_length || [rest[0], rest[33], rest[50]] != [b'-'; 3] {
        return None;
    }
    let flags = hex(&rest[51..53])?;
    Some(Remote {
        parent: Some(parent(hex(&rest[1..33])?, hex(&rest[34..50])?)?),
        is_sampled: Some(flags & 1 == 1),
    })
}

/// Reads `b3`: `{trace}-{span}[-{decision}[-{parent}]]`, or the decision alone.
pub fn read_b3(field: &[u8]) -> Option<Remote> {
    let mut parts = field.split(|byte| *byte == b'-');
    let first = parts.next()?;
    let Some(span) = parts.next() else {
        return Some(Remote {
            parent: None,
            is_sampled: Some(decision(first)?),
        });
    };
    let is_sampled = match parts.next() {
        None => None,
        Some(told) => Some(decision(told)?),
    };
    if parts.nth(1).is_some() {
        return None;
    }
    Some(Remote {
        parent: Some(b3_parent(first, span)?),
        is_sampled,
    })
}

/// Reads `X-B3-TraceId`, `-SpanId`, `-Sampled` and `-Flags`.
pub fn read_b3_multi(
    trace: Option<&[u8]>,
    span: Option<&[u8]>,
    sampled: Option<&[u8]>,
    flags: Option<&[u8]>,
) -> Option<Remote> {
    let is_sampled = match (flags, sampled) {
        (Some(b"1"), _) => Some(true),
        (_, Some(b"true")) => Some(true),
        (_, Some(b"false")) => Some(false),
        (_, Some(told)) => Some(decision(told)?),
        (_, None) => None,
    };
    let parent = match (trace, span) {
        (Some(trace), Some(span)) => Some(b3_parent(trace, span)?),
        _ => None,
    };
    (parent.is_some() || is_sampled.is_some()).then_some(Remote { parent, is_sampled })
}

/// `d` is for debugging, and means that it is recorded in any case.
fn decision(told: &[u8]) -> Option<bool> {
    match told {
        b"0" => Some(false),
        b"1" | b"d" => Some(true),
        _ => None,
    }
}

/// Traces of B3 may have ids of 64 bits.
fn b3_parent(trace: &[u8], span: &[u8]) -> Option<Parent> {
    if !matches!(trace.len(), 16 | 32) || span.len() != 16 {
        return None;
    }
    parent(hex(trace)?, hex(span)?)
}

fn parent(trace_id: u128, span_id: u128) -> Option<Parent> {
    let span_id = u64::try_from(span_id).ok()?;
    (trace_id != 0 && span_id != 0).then_some(Parent { trace_id, span_id })
}

/// Digits of lower case; both standards know no others.
fn hex(digits: &[u8]) -> Option<u128> {
    let mut value = 0;
    for digit in digits {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        value = value << 4 | u128::from(digit);
    }
    Some(value)
}

/// Each octet in hexadecimal digits: one look-up is less than two.
pub static HEX_DIGITS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut all = [[0; 2]; 256];
    let mut octet = 0;
    while octet < all.len() {
        all[octet] = [DIGITS[octet >> 4], DIGITS[octet & 0xf]];
        octet += 1;
    }
    all
};

/// The text of a trace's id.
#[expect(clippy::cast_possible_truncation, reason = "cuts the id in two")]
pub fn trace_text(trace_id: u128) -> [u8; 32] {
    let mut text = [0; 32];
    let [high, low] = [trace_id >> 64, trace_id].map(|half| half as u64);
    text[..16].copy_from_slice(&span_text(high));
    text[16..].copy_from_slice(&span_text(low));
    text
}

/// The text of a span's id.
#[expect(clippy::cast_possible_truncation, reason = "cuts the id in two")]
pub fn span_text(span_id: u64) -> [u8; 16] {
    let mut text = [0; 16];
    let [high, low] = [span_id >> 32, span_id].map(|half| half as u32);
    text[..8].copy_from_slice(&hex_digits(high));
    text[8..].copy_from_slice(&hex_digits(low));
    text
}

/// The value of `traceparent`.
pub fn write_w3c(trace_id: u128, span_id: u64, is_sampled: bool) -> [u8; 55] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    text[3..35].copy_from_slice(&trace_text(trace_id));
    text[36..52].copy_from_slice(&span_text(span_id));
    text[54] += u8::from(is_sampled);
    text
}

/// The value of `b3`.
pub fn write_b3(trace_id: u128, span_id: u64, is_sampled: bool) -> [u8; 51] {
    let mut text = *b"00000000000000000000000000000000-0000000000000000-0";
    text[..32].copy_from_slice(&trace_text(trace_id));
    text[33..49].copy_from_slice(&span_text(span_id));
    text[50] += u8::from(is_sampled);
    text
}

/// Eight digits, computed side by side in one word.
fn hex_digits(value: u32) -> [u8; 8] {
    const EACH: u64 = 0x0101_0101_0101_0101;
    let mut digits = u64::from(value);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // With 6 more, those from 10 on have the bit of 16.
    let letters = (digits + 6 * EACH) >> 4 & EACH;
    let step = u64::from(b'a' - b'0' - 10);
    (digits + u64::from(b'0') * EACH + letters * step).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
    const SPAN: u64 = 0x00f0_67aa_0ba9_02b7;

    fn known(is_sampled: Option<bool>) -> Option<Remote> {
        let parent = Parent {
            trace_id: TRACE,
            span_id: SPAN,
        };
        Some(Remote {
            parent: Some(parent),
            is_sampled,
        })
    }

    #[test]
    fn traceparent_is_read_as_the_standard_says() {
        let cases = [
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                known(Some(true)),
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
                known(Some(false)),
            ),
            // Flags that are not known mean nothing.
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
                known(Some(true)),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                known(Some(true)),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                known(Some(true)),
            ),
            (
                "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
                None,
            ),
            (
                "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                None,
            ),
            (
                "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                None,
            ),
            (
                "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                None,
            ),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7", None),
            (
                "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                None,
            ),
            ("0", None),
            ("", None),
            ("00-é", None),
        ];
        for (field, expected) in cases {
            assert_eq!(read_w3c(field.as_bytes()), expected, "{field}");
        }
    }

    #[test]
    fn b3_is_read_in_its_shapes() {
        let decided = |is_sampled| {
            Some(Remote {
                parent: None,
                is_sampled: Some(is_sampled),
            })
        };
        let cases = [
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
                known(Some(true)),
            ),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-d",
                known(Some(true)),
            ),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
                known(Some(false)),
            ),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                known(None),
            ),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-05e3ac9a4f6e3b90",
                known(Some(true)),
            ),
            ("0", decided(false)),
            ("1", decided(true)),
            ("d", decided(true)),
            ("x", None),
            ("", None),
            ("4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-x", None),
            (
                "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1-05e3ac9a4f6e3b90-",
                None,
            ),
            ("4bf92f3577b34da6-00f067aa0ba902b-1", None),
            ("0000000000000000-00f067aa0ba902b7-1", None),
        ];
        for (field, expected) in cases {
            assert_eq!(read_b3(field.as_bytes()), expected, "{field}");
        }
        let short = read_b3(b"a3ce929d0e0e4736-00f067aa0ba902b7-1").unwrap();
        assert_eq!(short.parent.unwrap().trace_id, TRACE & u128::from(u64::MAX));
    }

    #[test]
    fn b3_is_read_from_its_fields() {
        type Told<'a> = [Option<&'a str>; 4];
        let (trace, span) = (
            Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            Some("00f067aa0ba902b7"),
        );
        let cases: [(Told<'_>, Option<Remote>); 8] = [
            ([trace, span, Some("1"), None], known(Some(true))),
            ([trace, span, Some("true"), None], known(Some(true))),
            ([trace, span, Some("0"), None], known(Some(false))),
            ([trace, span, None, Some("1")], known(Some(true))),
            ([trace, span, None, None], known(None)),
            ([trace, span, Some("x"), None], None),
            ([trace, Some("1"), None, None], None),
            ([None; 4], None),
        ];
        for (told, expected) in cases {
            let [a, b, c, d] = told.map(|field| field.map(str::as_bytes));
            assert_eq!(read_b3_multi(a, b, c, d), expected, "{told:?}");
        }
        let denied = read_b3_multi(None, None, Some(b"0"), None).unwrap();
        assert_eq!((denied.parent, denied.is_sampled), (None, Some(false)));
    }

    #[test]
    fn ids_are_written_with_all_their_digits() {
        for (id, expected) in [
            (0, "0000000000000000"),
            (0x0123_4567_89ab_cdef, "0123456789abcdef"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            assert_eq!(span_text(id), expected.as_bytes());
            let both = u128::from(id) << 64 | u128::from(id);
            assert_eq!(trace_text(both), expected.repeat(2).as_bytes());
        }
    }

    #[test]
    fn the_line_of_a_trace_that_nobody_records_holds_its_ids() {
        let told = Unrecorded {
            trace_id: TRACE,
            span_id: SPAN,
        };
        let value = String::from_utf8(write_w3c(TRACE, SPAN, false).to_vec()).unwrap();
        let line = format!("traceparent: {value}\r\n");
        assert_eq!(told.line(), line.as_bytes());
    }

    #[test]
    fn what_is_written_is_read_again() {
        for is_sampled in [false, true] {
            assert_eq!(
                read_w3c(&write_w3c(TRACE, SPAN, is_sampled)),
                known(Some(is_sampled))
            );
            assert_eq!(
                read_b3(&write_b3(TRACE, SPAN, is_sampled)),
                known(Some(is_sampled))
            );
        }
        let (trace, span) = (trace_text(TRACE), span_text(SPAN));
        let read = read_b3_multi(Some(&trace), Some(&span), None, None);
        assert_eq!(read, known(None));
    }
}
