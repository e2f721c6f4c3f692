//! gRPC messages in their frames: a flag byte, four bytes of length, the message.
//!
//! Used by the gRPC backend and the gRPC client. Messages are opaque bytes, and compressed ones are
//! not understood.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest message accepted.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// One message in its frame.
pub(crate) fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("test messages are short");
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(length);
    framed.put_slice(message);
    framed.freeze()
}

/// Takes frames apart as they come in.
#[derive(Default)]
pub(crate) struct Deframer(BytesMut);

impl Deframer {
    /// Adds bytes as they came.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    /// The next whole message; nothing until more bytes came.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, String> {
        if self.0.len() < 5 {
            return Ok(None);
        }
        let flag = self.0[0];
        let length = (&self.0[1..5]).get_u32() as usize;
        if flag != 0 || length > MESSAGE_BYTES_MAX {
            return Err(format!("frame with flag {flag} and length {length}"));
        }
        if self.0.len() < 5 + length {
            return Ok(None);
        }
        self.0.advance(5);
        Ok(Some(self.0.split_to(length).freeze()))
    }

    /// True when no half message is left over.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
