//! The body of one message, frame by frame, out of the buffer its bytes arrived in and without copying.
//! Chunked bodies are read by a machine that looks at every framing byte once, so the result is the
//! same wherever the input was cut. Limits on body size and on time are the caller's.

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;

use super::error::{BodyError, HeadError};
use super::{BodyLength, HeadLimits, fields};

/// 64 bits.
const SIZE_DIGITS_MAX: u8 = 16;

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Some bytes, never none.
    Data(Bytes),
    /// The fields after the last chunk, never none, without those that may not come there.
    Trailers(HeaderMap),
    /// The body is complete.
    End,
}

/// Reads one body.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    extension_bytes_left: usize,
    trailer_limits: HeadLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content-Length: so many bytes are missing.
    Length(u64),
    UntilClose,
    /// In a chunk size, after so many digits.
    Size {
        size: u64,
        digits: u8,
    },
    /// In an extension; `is_named` once its name has begun.
    Extension {
        size: u64,
        is_named: bool,
    },
    /// After the CR of a chunk size line.
    SizeLf {
        size: u64,
    },
    /// In chunk data, never 0.
    Data(u64),
    DataCr,
    DataLf,
    /// In the trailer section, searched so far.
    Trailers {
        scan: usize,
    },
    Done,
    Failed(BodyError),
}

impl BodyDecoder {
    /// For a body with this framing. Trailers and chunk extensions are held to `limits`.
    pub const fn new(length: BodyLength, limits: &HeadLimits) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::Done,
            BodyLength::Length(length) => State::Length(length),
            BodyLength::Chunked => State::Size { size: 0, digits: 0 },
            BodyLength::UntilClose => State::UntilClose,
        };
        Self {
            state,
            extension_bytes_left: limits.chunk_extension_bytes_max,
            trailer_limits: *limits,
        }
    }

    /// True once no byte of the connection belongs to this body any more, even when `End` has not been
    /// handed out.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// How many bytes are still to come, when that is known.
    pub const fn bytes_left(&self) -> Option<u64> {
        match self.state {
            State::Length(left) => Some(left),
            State::Done => Some(0),
            _ => None,
        }
    }

    /// Takes the next frame off the front of `buf`; `Ok(None)` asks for more bytes.
    ///
    /// `is_eof` says that no more will come: a body that is then incomplete is an error. After `End`, and
    /// after an error, calls give the same again and take nothing.
    pub fn decode(&mut self, buf: &mut BytesMut, is_eof: bool) -> Result<Option<Frame>, BodyError> {
        let result = self.step(buf);
        let result = match result {
            Ok(None) if is_eof && self.state == State::UntilClose => {
                self.state = State::Done;
                Ok(Some(Frame::End))
            }
            Ok(None) if is_eof => Err(BodyError::Truncated),
            other => other,
        };
        if let Err(error) = &result {
            self.state = State::Failed(*error);
        }
        result
    }

    fn step(&mut self, buf: &mut BytesMut) -> Result<Option<Frame>, BodyError> {
        loop {
            match self.state {
                State::Done => return Ok(Some(Frame::End)),
                State::Failed(error) => return Err(error),
                _ if buf.is_empty() => return Ok(None),
                State::UntilClose => return Ok(Some(Frame::Data(buf.split().freeze()))),
                State::Length(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 {
                        State::Done
                    } else {
                        State::Length(left)
                    };
                    return Ok(Some(Frame::Data(data)));
                }
                State::Data(left) => {
                    let (data, left) = take(buf, left);
                    self.state = if left == 0 {
                        State::DataCr
                    } else {
                        State::Data(left)
                    };
                    return Ok(Some(Frame::Data(data)));
                }
                State::Trailers { scan } => return self.trailers(buf, scan),
                _ => self.chunk_line(buf)?,
            }
        }
    }

    /// Goes through framing bytes until data, trailers or the end of the buffer.
    fn chunk_line(&mut self, buf: &mut BytesMut) -> Result<(), BodyError> {
        let mut taken = 0;
        for byte in buf.iter() {
            self.state = match self.state {
                State::Size { size, digits } => self.size_byte(*byte, size, digits)?,
                State::Extension { size, is_named } => {
                    self.extension_byte(*byte, size, is_named)?
                }
                State::SizeLf { size } if *byte == b'\n' => match size {
                    0 => State::Trailers { scan: 0 },
                    _ => State::Data(size),
                },
                State::SizeLf { .. } => return Err(BodyError::BadChunkLine),
                State::DataCr if *byte == b'\r' => State::DataLf,
                State::DataLf if *byte == b'\n' => State::Size { size: 0, digits: 0 },
                State::DataCr | State::DataLf => return Err(BodyError::BadChunkEnd),
                _ => break,
            };
            taken += 1;
        }
        buf.advance(taken);
        Ok(())
    }

    fn size_byte(&mut self, byte: u8, size: u64, digits: u8) -> Result<State, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if digits == 0 => return Err(BodyError::BadChunkSize),
            b'\r' => return Ok(State::SizeLf { size }),
            b';' => {
                self.count_extension_byte()?;
                return Ok(State::Extension {
                    size,
                    is_named: false,
                });
            }
            b'\n' => return Err(BodyError::BadChunkLine),
            _ => return Err(BodyError::BadChunkSize),
        };
        if digits == SIZE_DIGITS_MAX {
            return Err(BodyError::BadChunkSize);
        }
        Ok(State::Size {
            size: size << 4 | u64::from(digit),
            digits: digits + 1,
        })
    }

    fn extension_byte(&mut self, byte: u8, size: u64, is_named: bool) -> Result<State, BodyError> {
        let next = match byte {
            b'\r' if is_named => State::SizeLf { size },
            b'\n' => return Err(BodyError::BadChunkLine),
            b' ' | b'\t' => State::Extension { size, is_named },
            _ if !is_named && !fields::is_token_byte(byte) => {
                return Err(BodyError::BadChunkExtension);
            }
            0..0x20 | 0x7f => return Err(BodyError::BadChunkExtension),
            _ => State::Extension {
                size,
                is_named: true,
            },
        };
        self.count_extension_byte()?;
        Ok(next)
    }

    fn count_extension_byte(&mut self) -> Result<(), BodyError> {
        self.extension_bytes_left = self
            .extension_bytes_left
            .checked_sub(1)
            .ok_or(BodyError::ChunkExtensionsTooLarge)?;
        Ok(())
    }

    fn trailers(&mut self, buf: &mut BytesMut, scan: usize) -> Result<Option<Frame>, BodyError> {
        match **buf {
            [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => {
                buf.advance(2);
                self.state = State::Done;
                return Ok(Some(Frame::End));
            }
            _ => {}
        }
        let limits = self.trailer_limits;
        let mut scan = scan;
        let end = match fields::section_end(buf, 0, &mut scan, limits.head_bytes_max, &limits) {
            Ok(Some(end)) => end,
            Ok(None) => {
                self.state = State::Trailers { scan };
                return Ok(None);
            }
            Err(HeadError::UriTooLong) => {
                return Err(BodyError::BadTrailers(HeadError::HeadTooLarge));
            }
            Err(error) => return Err(BodyError::BadTrailers(error)),
        };
        let section = buf.split_to(end).freeze();
        let trailers = fields::parse_trailers(&section, &limits).map_err(BodyError::BadTrailers)?;
        self.state = State::Done;
        Ok(Some(if trailers.is_empty() {
            Frame::End
        } else {
            Frame::Trailers(trailers)
        }))
    }
}

/// Takes up to `left` bytes, and says how many are left then.
fn take(buf: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let available = u64::try_from(buf.len()).unwrap_or(u64::MAX);
    if available <= left {
        return (buf.split().freeze(), left - available);
    }
    // Smaller than the length of the buffer, so it fits.
    let wanted = usize::try_from(left).unwrap_or(buf.len());
    (buf.split_to(wanted).freeze(), 0)
}
