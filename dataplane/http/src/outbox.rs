//! What was handed over of an HTTP/1.1 message and is not yet written, towards either side.
//!
//! Small frames are gathered, so that a short message is one system call; a large piece is written
//! from where it is. `downstream` and `exchange` put frames in and poll until there is room again.
//! Nothing here knows heads, time or who reads.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::h1::{BodyEncoder, EncodeError, Frame};
use crate::io::Duplex;

/// Bytes gathered before they are written without being asked to.
const WRITE_BYTES: usize = 16 * 1024;
/// Larger pieces are written from where they are instead of being copied.
const COPY_BYTES_MAX: usize = 4 * 1024;

/// Bytes on their way out: gathered ones, then a large piece, then what ends that.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Heads are written here.
    pub(crate) gathered: BytesMut,
    piece: Bytes,
    tail: &'static [u8],
    /// All is to be written before more is put in.
    is_full: bool,
}

impl Outbox {
    /// Puts a frame in, as `encoder` frames it. [`Self::poll_taken`] must be ready before the next.
    pub(crate) fn put(
        &mut self,
        encoder: &mut BodyEncoder,
        frame: Frame,
    ) -> Result<(), EncodeError> {
        debug_assert!(self.piece.is_empty() && self.tail.is_empty());
        match frame {
            Frame::Data(data) if data.len() > COPY_BYTES_MAX => {
                let encoded = encoder.data(data)?;
                self.gathered.extend_from_slice(encoded.head.as_slice());
                self.piece = encoded.data;
                self.tail = encoded.tail;
                self.is_full = true;
            }
            frame => {
                let ends = matches!(frame, Frame::End);
                encoder.encode(frame, &mut self.gathered)?;
                self.is_full = ends || self.gathered.len() >= WRITE_BYTES;
            }
        }
        Ok(())
    }

    /// Ready when there is room for another frame; behind [`Frame::End`], when all was written.
    pub(crate) fn poll_taken(&mut self, io: &Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_full {
            ready!(self.poll_flush(io, cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes out what has been put in.
    pub(crate) fn poll_flush(&mut self, io: &Duplex, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !(self.gathered.is_empty() && self.piece.is_empty() && self.tail.is_empty()) {
            let (piece, tail) = (&mut self.piece, &mut self.tail);
            ready!(io.poll_write_all(cx, &mut self.gathered, piece, tail))?;
            // Large heads would be held for as long as the message lasts, and whole buffers for a piece.
            self.gathered = BytesMut::new();
            self.piece = Bytes::new();
        }
        self.is_full = false;
        Poll::Ready(Ok(()))
    }
}
