//! Heads and bodies to bytes. Everything is written from parsed values: `HeaderValue` and `PathAndQuery`
//! hold no line ends, the framing fields come from the `BodyLength` alone, and such fields of the map are
//! left out. Large data need not be copied: `BodyEncoder::data` gives the pieces to write in order.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::BodyLength;
use super::body::Frame;
use super::error::EncodeError;
use super::hop_by_hop::is_allowed_in_trailers;

/// Decimal digits of a `u64`.
const DECIMAL_DIGITS_MAX: usize = 20;
/// Hexadecimal digits of a `usize`, and CRLF.
const CHUNK_PREFIX_MAX: usize = 18;
/// At least what a head holds besides method, target, host and fields: the longest status with its reason,
/// and the lines of framing and connection.
const HEAD_REST_BYTES: usize = 128;
/// Bodies up to this size are usually written together with their head.
const SMALL_BYTES_MAX: u64 = 4 * 1024;
const LAST_CHUNK: &[u8] = b"0\r\n";
const CRLF: &[u8] = b"\r\n";

/// What a response says about its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It goes on. Said aloud to HTTP/1.0 clients only.
    KeepAlive,
    /// It ends after this response.
    Close,
    /// It changes its protocol (101); Upgrade is among the fields.
    Upgrade,
}

/// Appends a request head, always as HTTP/1.1.
///
/// `lines` are whole lines of fields that `headers` does not have.
///
/// Host comes first, from `host`; Host, Content-Length and Transfer-Encoding of `headers` are left out.
/// Other hop-by-hop fields are written as given, so the caller strips them first and adds what it wants
/// to say to the origin (`connection: upgrade`, `te: trailers`). `UntilClose` is no framing for requests
/// and is sent as chunked.
pub fn encode_request_head(
    out: &mut BytesMut,
    method: &Method,
    path_and_query: &PathAndQuery,
    host: &HeaderValue,
    headers: &HeaderMap,
    lines: &[u8],
    framing: BodyLength,
) {
    let (method, target) = (method.as_str(), encoded_target(path_and_query));
    let line = method.len() + target.len() + host.len();
    let room = line + fields_len(headers) + lines.len() + HEAD_REST_BYTES;
    let mut head = Head::begin(out, room, small(framing));
    head.put(method.as_bytes());
    head.put(b" ");
    head.put(target.as_bytes());
    head.put(b" HTTP/1.1\r\nhost: ");
    head.put(host.as_bytes());
    head.put(CRLF);
    for (name, value) in headers {
        if *name != HOST && *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            head.put_field(name, value);
        }
    }
    head.put(lines);
    head.put_framing(match framing {
        BodyLength::UntilClose => BodyLength::Chunked,
        other => other,
    });
    head.put(CRLF);
    head.end();
}

/// Appends a response head. The status line always says HTTP/1.1 (RFC 9110 2.5); `version` is the client's
/// and decides what may be said: no chunks to HTTP/1.0, whose keep-alive must be confirmed.
///
/// Connection, Content-Length and Transfer-Encoding of `headers` are left out. 1xx and 204 get no framing
/// fields at all; for HEAD and 304 `framing` is what the origin declared.
pub fn encode_response_head(
    out: &mut BytesMut,
    version: Version,
    status: StatusCode,
    headers: &HeaderMap,
    framing: BodyLength,
    connection: Connection,
) {
    let room = fields_len(headers) + HEAD_REST_BYTES;
    let mut head = Head::begin(out, room, small(framing));
    head.put(b"HTTP/1.1 ");
    head.put(status.as_str().as_bytes());
    head.put(b" ");
    head.put(status.canonical_reason().unwrap_or("").as_bytes());
    head.put(CRLF);
    for (name, value) in headers {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING && *name != CONNECTION {
            head.put_field(name, value);
        }
    }
    let framing = framing.for_version(version);
    if !status.is_informational() && status != StatusCode::NO_CONTENT {
        head.put_framing(framing);
    }
    let connection: &[u8] = match connection {
        Connection::Upgrade => b"connection: upgrade\r\n",
        Connection::Close => b"connection: close\r\n",
        Connection::KeepAlive if framing == BodyLength::UntilClose => b"connection: close\r\n",
        Connection::KeepAlive if version < Version::HTTP_11 => b"connection: keep-alive\r\n",
        Connection::KeepAlive => b"",
    };
    head.put(connection);
    head.put(CRLF);
    head.end();
}

/// Room for a body that is likely to be gathered behind its head.
fn small(framing: BodyLength) -> usize {
    match framing {
        BodyLength::Length(length @ ..=SMALL_BYTES_MAX) => usize::try_from(length).unwrap_or(0),
        _ => 0,
    }
}

/// What `headers` take as lines.
fn fields_len(headers: &HeaderMap) -> usize {
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum()
}

/// A path from HTTP/2 may hold UTF-8, which HTTP/1.1 knows only percent-encoded.
fn encoded_target(path_and_query: &PathAndQuery) -> Cow<'_, str> {
    let target = path_and_query.as_str();
    if target.is_ascii() {
        return Cow::Borrowed(target);
    }
    let mut encoded = String::with_capacity(target.len() * "%xx".len());
    for byte in target.bytes() {
        if byte.is_ascii() {
            encoded.push(char::from(byte));
        } else {
            encoded.extend([
                '%',
                upper_hex(byte >> 4).into(),
                upper_hex(byte & 0xf).into(),
            ]);
        }
    }
    Cow::Owned(encoded)
}

/// A head, or trailers, being written behind what a buffer holds. Its room is made at once, so that each of its
/// many small pieces is a copy and nothing more.
struct Head<'a> {
    out: &'a mut BytesMut,
    at: usize,
}

impl<'a> Head<'a> {
    /// `room` for all of the head, and without filling it the room for `rest` bytes behind it.
    fn begin(out: &'a mut BytesMut, room: usize, rest: usize) -> Self {
        out.reserve(room + rest);
        let at = out.len();
        out.resize(at + room, 0);
        Self { out, at }
    }

    fn put(&mut self, piece: &[u8]) {
        let end = self.at + piece.len();
        self.out[self.at..end].copy_from_slice(piece);
        self.at = end;
    }

    fn put_field(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.put(name.as_str().as_bytes());
        self.put(b": ");
        self.put(value.as_bytes());
        self.put(CRLF);
    }

    fn put_framing(&mut self, framing: BodyLength) {
        match framing {
            BodyLength::None | BodyLength::UntilClose => {}
            BodyLength::Chunked => self.put(b"transfer-encoding: chunked\r\n"),
            BodyLength::Length(length) => {
                self.put(b"content-length: ");
                self.put_decimal(length);
                self.put(CRLF);
            }
        }
    }

    fn put_decimal(&mut self, number: u64) {
        let mut digits = [b'0'; DECIMAL_DIGITS_MAX];
        let mut rest = number;
        let mut start = DECIMAL_DIGITS_MAX;
        loop {
            start -= 1;
            digits[start] += u8::try_from(rest % 10).unwrap_or(0);
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.put(&digits[start..]);
    }

    fn end(self) {
        self.out.truncate(self.at);
    }
}

const fn upper_hex(nibble: u8) -> u8 {
    match nibble {
        0..10 => b'0' + nibble,
        _ => b'A' + nibble - 10,
    }
}

/// Writes one body, and holds it to the framing its head announced.
#[derive(Debug)]
pub struct BodyEncoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    Chunked,
    UntilClose,
    Done,
}

/// Data with the framing around it, to be written in this order.
#[derive(Debug)]
pub struct Encoded {
    /// Before the data; may be empty.
    pub head: ChunkPrefix,
    /// The data, not copied.
    pub data: Bytes,
    /// After the data; may be empty.
    pub tail: &'static [u8],
}

/// A chunk size line, held inline.
#[derive(Clone, Copy, Debug)]
pub struct ChunkPrefix {
    bytes: [u8; CHUNK_PREFIX_MAX],
    start: usize,
}

impl ChunkPrefix {
    const EMPTY: Self = Self {
        bytes: [0; CHUNK_PREFIX_MAX],
        start: CHUNK_PREFIX_MAX,
    };

    fn new(len: usize) -> Self {
        let mut bytes = [0; CHUNK_PREFIX_MAX];
        let mut start = CHUNK_PREFIX_MAX - CRLF.len();
        bytes[start..].copy_from_slice(CRLF);
        let mut rest = len;
        loop {
            start -= 1;
            bytes[start] = upper_hex(u8::try_from(rest & 0xf).unwrap_or(0));
            rest >>= 4;
            if rest == 0 {
                return Self { bytes, start };
            }
        }
    }

    /// The bytes to write.
    pub fn as_slice(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl BodyEncoder {
    /// For a body with this framing. Answers to HEAD, 304 and the like take `BodyLength::None` here,
    /// whatever their head declares.
    pub const fn new(framing: BodyLength) -> Self {
        let state = match framing {
            BodyLength::None | BodyLength::Length(0) => State::Done,
            BodyLength::Length(length) => State::Length(length),
            BodyLength::Chunked => State::Chunked,
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// True once the other side can see that the body is complete, and nothing more may be sent.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Appends a frame, copying its data. Trailers are left out where the framing has no place for
    /// them, and so are fields that may not be trailers; they end the body.
    pub fn encode(&mut self, frame: Frame, out: &mut BytesMut) -> Result<(), EncodeError> {
        match frame {
            Frame::Data(data) => {
                let encoded = self.data(data)?;
                let prefix = encoded.head.as_slice();
                out.reserve(prefix.len() + encoded.data.len() + encoded.tail.len());
                out.extend_from_slice(prefix);
                out.extend_from_slice(&encoded.data);
                out.extend_from_slice(encoded.tail);
                Ok(())
            }
            Frame::Trailers(trailers) => self.end(Some(&trailers), out),
            Frame::End => self.end(None, out),
        }
    }

    /// The pieces of a data frame for a vectored write, without copying. No data gives no bytes at all: an
    /// empty chunk would end the body.
    pub fn data(&mut self, data: Bytes) -> Result<Encoded, EncodeError> {
        let (head, tail): (_, &'static [u8]) = match &mut self.state {
            _ if data.is_empty() => (ChunkPrefix::EMPTY, b""),
            State::Done => return Err(EncodeError::AfterEnd),
            State::UntilClose => (ChunkPrefix::EMPTY, b""),
            State::Chunked => (ChunkPrefix::new(data.len()), CRLF),
            State::Length(left) => {
                let len = u64::try_from(data.len()).map_err(|_| EncodeError::TooLong)?;
                let left = left.checked_sub(len).ok_or(EncodeError::TooLong)?;
                self.state = if left == 0 {
                    State::Done
                } else {
                    State::Length(left)
                };
                (ChunkPrefix::EMPTY, b"")
            }
        };
        Ok(Encoded { head, data, tail })
    }

    fn end(&mut self, trailers: Option<&HeaderMap>, out: &mut BytesMut) -> Result<(), EncodeError> {
        match self.state {
            State::Done => return Ok(()),
            State::Length(left) => return Err(EncodeError::TooShort(left)),
            State::UntilClose => {}
            State::Chunked => {
                let room = LAST_CHUNK.len() + trailers.map_or(0, fields_len) + CRLF.len();
                let mut head = Head::begin(out, room, 0);
                head.put(LAST_CHUNK);
                for (name, value) in trailers.into_iter().flatten() {
                    if is_allowed_in_trailers(name) {
                        head.put_field(name, value);
                    }
                }
                head.put(CRLF);
                head.end();
            }
        }
        self.state = State::Done;
        Ok(())
    }
}
