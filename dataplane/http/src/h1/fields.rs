//! The field section shared by request heads, response heads and trailers: finding its end without
//! ever searching a byte twice, and parsing its lines into a `HeaderMap` whose values share the
//! bytes of the head. Fields that decide about framing, persistence and the host are noted while they
//! pass by, so no caller has to look them up again.

use std::ops::Range;
use std::sync::LazyLock;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use memchr::memchr;
use memchr::memmem::Finder;

use super::error::HeadError;
use super::hop_by_hop::{is_allowed_in_trailers, list, trimmed};
use super::{BodyLength, HeadLimits};

/// What a section stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Whose Host is noted and not added to the map.
    Request,
    Response,
}

impl Of {
    /// Room kept in a new map for the fields a proxy adds.
    const fn added(self) -> usize {
        match self {
            Self::Request => 8,
            Self::Response => 2,
        }
    }
}

/// Heads of browsers have a field in about this many bytes. It only sizes a new map, and so does the next.
const LINE_BYTES_USUAL: usize = 40;
const FIELDS_USUAL_MAX: usize = 24;

/// Looks for the empty line that ends a section which begins at `base`, and gives the index after it.
///
/// `scan` holds how far the buffer has been searched and is moved on, so that a dripped head costs no
/// more than one that comes at once. Every check depends on a prefix of the bytes alone and is made
/// in the order of the bytes: the result is the same wherever the input was cut.
pub(super) fn section_end(
    buf: &[u8],
    base: usize,
    scan: &mut usize,
    first_line_max: usize,
    limits: &HeadLimits,
) -> Result<Option<usize>, HeadError> {
    let first_line_max = first_line_max.min(limits.head_bytes_max);
    if *scan <= base
        && let Some(end) = whole_section(buf, base, first_line_max)
    {
        *scan = end;
        return Ok(Some(end));
    }
    let mut from = (*scan).max(base);
    while let Some(distance) = buf.get(from..).and_then(|rest| memchr(b'\n', rest)) {
        let lf = from + distance;
        if lf - base > first_line_max && is_one_line(buf, base, lf) {
            return Err(HeadError::UriTooLong);
        }
        if lf - base >= limits.head_bytes_max {
            return Err(HeadError::HeadTooLarge);
        }
        if lf == base || buf[lf - 1] != b'\r' {
            return Err(HeadError::BareLf);
        }
        from = lf + 1;
        if lf - base == 1 || buf[lf - 2] == b'\n' {
            *scan = from;
            return Ok(Some(from));
        }
    }
    *scan = buf.len();
    let held = buf.len().saturating_sub(base);
    if held > first_line_max && is_one_line(buf, base, buf.len()) {
        return Err(HeadError::UriTooLong);
    }
    if held >= limits.head_bytes_max {
        return Err(HeadError::HeadTooLarge);
    }
    Ok(None)
}

/// The index after a section that is whole, within every limit and without a bare LF, found without a look
/// at each line. Almost every section is like that; `None` does not say why another one is not.
fn whole_section(buf: &[u8], base: usize, len_max: usize) -> Option<usize> {
    static EMPTY_LINE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
    let held = buf.get(base..)?;
    if held.starts_with(b"\r\n") {
        return None;
    }
    let end = EMPTY_LINE.find(held)? + 4;
    let section = held.get(..end).filter(|it| it.len() <= len_max)?;
    // Without a way out, so that the compiler looks at many bytes at once.
    let is_bare = |(before, byte): (&u8, &u8)| *byte == b'\n' && *before != b'\r';
    let pairs = section.iter().zip(section.iter().skip(1));
    let has_bare_lf = pairs.fold(false, |found, pair| found | is_bare(pair));
    (!has_bare_lf && section.first() != Some(&b'\n')).then_some(base + end)
}

fn is_one_line(buf: &[u8], base: usize, end: usize) -> bool {
    buf.get(base..end)
        .is_none_or(|line| memchr(b'\n', line).is_none())
}

/// What the fields say about the message itself. Values are kept as places in the section, so that noting
/// one costs nothing.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) host: Option<Range<usize>>,
    content_length: Option<Range<usize>>,
    transfer_encoding: Option<Range<usize>>,
    pub(super) expect: Option<Range<usize>>,
    pub(super) upgrade: Option<Range<usize>>,
    pub(super) upgrade_is_repeated: bool,
    pub(super) connection_close: bool,
    pub(super) connection_keep_alive: bool,
    pub(super) connection_upgrade: bool,
}

impl Noted {
    /// How the fields frame the body, when they do.
    pub(super) fn body_length(
        &self,
        section: &[u8],
        version: Version,
    ) -> Result<Option<BodyLength>, HeadError> {
        match (&self.transfer_encoding, &self.content_length) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) => Err(HeadError::ContentLengthAndTransferEncoding),
            (None, Some(value)) => {
                content_length(&section[value.clone()]).map(|n| Some(BodyLength::Length(n)))
            }
            (Some(_), None) if version < Version::HTTP_11 => {
                Err(HeadError::TransferEncodingInHttp10)
            }
            (Some(value), None) if section[value.clone()].eq_ignore_ascii_case(b"chunked") => {
                Ok(Some(BodyLength::Chunked))
            }
            (Some(_), None) => Err(HeadError::BadTransferEncoding),
        }
    }

    /// Whether the connection outlives the message, as far as its sender is concerned (RFC 9112 9.3).
    pub(super) fn keep_alive(&self, version: Version) -> bool {
        !self.connection_close && (version >= Version::HTTP_11 || self.connection_keep_alive)
    }

    /// Takes note of a field. False when the field must not be added to the map.
    fn note(
        &mut self,
        of: Of,
        section: &[u8],
        name: &HeaderName,
        name_len: usize,
        value: Range<usize>,
    ) -> Result<bool, HeadError> {
        // The length sorts out almost every other field with one comparison.
        let (place, refusal) = match name_len {
            6 if name == EXPECT => (&mut self.expect, HeadError::UnknownExpectation),
            17 if name == TRANSFER_ENCODING => {
                (&mut self.transfer_encoding, HeadError::BadTransferEncoding)
            }
            14 if name == CONTENT_LENGTH => {
                let first = self.content_length.get_or_insert_with(|| value.clone());
                return if *first == value {
                    Ok(true)
                } else if section[first.clone()] == section[value] {
                    Ok(false)
                } else {
                    Err(HeadError::DifferingContentLengths)
                };
            }
            7 if name == UPGRADE => {
                self.upgrade_is_repeated |= self.upgrade.replace(value).is_some();
                return Ok(true);
            }
            4 if name == HOST => {
                return match self.host.replace(value) {
                    Some(_) => Err(HeadError::RepeatedHost),
                    None => Ok(of == Of::Response),
                };
            }
            10 if name == CONNECTION => return Ok(self.note_connection(&section[value])),
            _ => return Ok(true),
        };
        if place.replace(value).is_some() {
            Err(refusal)
        } else {
            Ok(true)
        }
    }

    /// False when it says no more than what is noted: then it need not be in the map to be removed again.
    fn note_connection(&mut self, value: &[u8]) -> bool {
        let mut names_more = false;
        for option in list(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection_close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.connection_keep_alive = true;
            } else {
                self.connection_upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                names_more = true;
            }
        }
        names_more
    }
}

/// Parses the field lines of a head from `at` on. `section` ends with the empty line, and all its lines
/// end with CRLF; `section_end` has seen to both.
pub(super) fn parse(
    section: &Bytes,
    at: usize,
    limits: &HeadLimits,
    of: Of,
) -> Result<(HeaderMap, Noted), HeadError> {
    let mut noted = Noted::default();
    let map = parse_lines(section, at, limits, of.added(), |name, name_len, value| {
        noted.note(of, section, name, name_len, value)
    })?;
    Ok((map, noted))
}

/// Parses a trailer section, in which no field says anything about the message.
pub(super) fn parse_trailers(section: &Bytes, limits: &HeadLimits) -> Result<HeaderMap, HeadError> {
    parse_lines(section, 0, limits, 0, |name, _, _| {
        Ok(is_allowed_in_trailers(name))
    })
}

/// `is_kept` is asked about every field before it is added: its name, the length of that, and the place of
/// the value. The map has room for `added` fields more.
fn parse_lines(
    section: &Bytes,
    mut at: usize,
    limits: &HeadLimits,
    added: usize,
    mut is_kept: impl FnMut(&HeaderName, usize, Range<usize>) -> Result<bool, HeadError>,
) -> Result<HeaderMap, HeadError> {
    let text: &[u8] = section;
    let expected = (text.len().saturating_sub(at) / LINE_BYTES_USUAL).min(FIELDS_USUAL_MAX);
    let mut map = HeaderMap::with_capacity(expected + added);
    let mut fields_left = limits.fields_max;
    // Up to the empty line at the end, and not to the first CR: a bare one would hide what follows.
    while let Some(rest) = text.get(at..)
        && !matches!(rest, [] | b"\r\n")
    {
        fields_left = fields_left.checked_sub(1).ok_or(HeadError::TooManyFields)?;
        let Some(line_len) = memchr(b'\n', &text[at..]) else {
            break;
        };
        let line = &text[at..at + line_len.saturating_sub(1)];
        // Names are short: a plain loop beats a call.
        let Some(name_len) = line.iter().position(|byte| *byte == b':') else {
            return Err(missing_colon(line));
        };
        let name =
            HeaderName::from_bytes(&line[..name_len]).map_err(|_| bad_name(&line[..name_len]))?;
        let value = trimmed(line, name_len + 1);
        let value = at + value.start..at + value.end;
        at += line_len + 1;
        if is_kept(&name, name_len, value.clone())? {
            let value = HeaderValue::from_maybe_shared(section.slice(value))
                .map_err(|_| HeadError::BadFieldValue)?;
            map.try_append(name, value)
                .map_err(|_| HeadError::TooManyFields)?;
        }
    }
    Ok(map)
}

#[cold]
fn missing_colon(line: &[u8]) -> HeadError {
    match line.first() {
        Some(b' ' | b'\t') => HeadError::ObsoleteFold,
        _ => HeadError::MissingColon,
    }
}

#[cold]
fn bad_name(name: &[u8]) -> HeadError {
    match (name.first(), name.last()) {
        (Some(b' ' | b'\t'), _) => HeadError::ObsoleteFold,
        (_, Some(b' ' | b'\t')) => HeadError::SpaceBeforeColon,
        _ => HeadError::BadFieldName,
    }
}

/// RFC 9110 8.6: one or more digits, and nothing that could overflow anywhere on the way.
fn content_length(digits: &[u8]) -> Result<u64, HeadError> {
    if digits.is_empty() {
        return Err(HeadError::BadContentLength);
    }
    let mut length: u64 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return Err(HeadError::BadContentLength);
        }
        length = length
            .checked_mul(10)
            .and_then(|n| n.checked_add(u64::from(digit - b'0')))
            .filter(|n| *n <= i64::MAX as u64)
            .ok_or(HeadError::BadContentLength)?;
    }
    Ok(length)
}

/// RFC 9110 5.6.2.
pub(super) const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`'
        | b'|' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
}
