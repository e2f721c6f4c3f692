//! What several targets need: reading a message whole and in pieces, and taking input apart.
//!
//! The targets stand in `targets/`, one file each, and name their laws in their first lines.
//! Nothing here checks anything.

use bytes::BytesMut;
use dataplane_http::h1::{BodyDecoder, BodyError, BodyLength, Frame, HeadError, HeadLimits};

/// Reads a head from `input`, given in pieces of `piece` bytes, and what is left behind it.
pub fn head_in_pieces<H>(
    input: &[u8],
    piece: usize,
    mut read: impl FnMut(&mut BytesMut, &mut usize) -> Result<Option<H>, HeadError>,
) -> Result<Option<(H, usize)>, HeadError> {
    let (mut buf, mut scan, mut given) = (BytesMut::new(), 0, 0);
    for part in input.chunks(piece.max(1)) {
        buf.extend_from_slice(part);
        given += part.len();
        if let Some(head) = read(&mut buf, &mut scan)? {
            return Ok(Some((head, input.len() - given + buf.len())));
        }
    }
    Ok(None)
}

/// What a body came to: its bytes, its trailers, and how many bytes are left behind it.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// All data.
    pub data: Vec<u8>,
    /// Trailers, empty when there are none.
    pub trailers: http::HeaderMap,
    /// Bytes that belong to what follows.
    pub rest: usize,
}

/// Reads a body from `input`, given in pieces; `None` when it is not complete.
pub fn body_in_pieces(
    input: &[u8],
    piece: usize,
    length: BodyLength,
    limits: &HeadLimits,
) -> Result<Option<Body>, BodyError> {
    let mut decoder = BodyDecoder::new(length, limits);
    let mut body = Body {
        data: Vec::new(),
        trailers: http::HeaderMap::new(),
        rest: 0,
    };
    let (mut buf, mut given) = (BytesMut::new(), 0);
    for part in input.chunks(piece.max(1)) {
        buf.extend_from_slice(part);
        given += part.len();
        while let Some(frame) = decoder.decode(&mut buf, false)? {
            match frame {
                Frame::Data(data) => {
                    assert!(!data.is_empty(), "an empty frame");
                    body.data.extend_from_slice(&data);
                }
                Frame::Trailers(trailers) => body.trailers = trailers,
                Frame::End => {
                    body.rest = input.len() - given + buf.len();
                    return Ok(Some(body));
                }
            }
        }
    }
    Ok(None)
}
