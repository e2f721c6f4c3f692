//! How messages are read off a stream: as `tonic-prost` reads them, but large ones do not stay.
//!
//! tonic reads a stream into one buffer, which grows to the largest message and then is used again
//! for as long as the stream lives: megabytes, for months. [`Codec`] holds what it read of a large
//! message until tonic has taken a new buffer for those behind it, and the large one goes.

use std::marker::PhantomData;

use bytes::{Buf, Bytes};
use prost::Message;
use tonic::Status;
use tonic::codec::{self, BufferSettings, DecodeBuf, Decoder};
use tonic_prost::ProstCodec;

/// Bytes of a message from which on its buffer is not used again.
const LARGE: usize = 64 * 1024;

/// The codec of all generated clients and servers; what is written is written by `tonic-prost`.
#[derive(Debug)]
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as codec::Codec>::Encoder;
    type Decoder = LetGo<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::raw_encoder(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        LetGo {
            held: Bytes::new(),
            message: PhantomData,
        }
    }
}

/// Reads messages; fails with `INTERNAL` on what is none, as `tonic-prost` does.
#[derive(Debug)]
pub struct LetGo<U> {
    /// The bytes of the last large message. Nobody reads them: while they are held, tonic cannot use
    /// the buffer for more than what it has room for behind them.
    held: Bytes,
    message: PhantomData<U>,
}

impl<U: Message + Default> Decoder for LetGo<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let size = source.remaining();
        let bytes = source.copy_to_bytes(size);
        let message =
            U::decode(bytes.as_ref()).map_err(|error| Status::internal(error.to_string()))?;
        if size >= LARGE {
            self.held = bytes;
        } else if self.held.is_unique() {
            // tonic reads into another buffer by now.
            self.held = Bytes::new();
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::{FutureExt as _, stream};
    use http_body_util::StreamBody;
    use tonic::Streaming;
    use tonic::codec::Codec as _;

    use super::*;

    /// Says whether a large message is held.
    struct Watched(LetGo<String>, Arc<AtomicBool>);

    impl Decoder for Watched {
        type Item = String;
        type Error = Status;

        fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
            let message = self.0.decode(source);
            self.1.store(!self.0.held.is_empty(), Ordering::Relaxed);
            message
        }
    }

    /// A message in its frame, in pieces as HTTP/2 carries them.
    fn pieces(message: &str) -> Vec<Bytes> {
        let payload = message.to_owned().encode_to_vec();
        let size = u32::try_from(payload.len()).expect("a small test");
        let framed = [&[0_u8][..], &size.to_be_bytes(), &payload].concat();
        framed
            .chunks(16 * 1024)
            .map(Bytes::copy_from_slice)
            .collect()
    }

    #[test]
    fn the_buffer_of_a_large_message_goes_with_messages_behind_it() {
        let large = "x".repeat(1 << 20);
        let small = "y".repeat(1000);
        let mut messages = vec![small.as_str(), large.as_str()];
        messages.resize(40, &small);
        let frames: Vec<_> = messages
            .iter()
            .flat_map(|it| pieces(it))
            .map(|it| Ok::<_, Infallible>(http_body::Frame::data(it)))
            .collect();
        let is_held = Arc::new(AtomicBool::new(false));
        let decoder = Watched(
            Codec::<String, String>::default().decoder(),
            is_held.clone(),
        );
        let body = StreamBody::new(stream::iter(frames));
        let mut stream = Streaming::new_request(decoder, body, None, None);
        let mut held = Vec::new();
        for sent in &messages {
            let read = stream.message().now_or_never().expect("all is there");
            assert_eq!(read.expect("a message").as_deref(), Some(*sent));
            held.push(is_held.load(Ordering::Relaxed));
        }
        assert_eq!(held[..2], [false, true]);
        assert_eq!(held.last(), Some(&false), "{held:?}");
    }

    #[test]
    fn what_is_no_message_fails() {
        let not_utf8 = Bytes::from_static(&[0, 0, 0, 0, 3, 0x0a, 1, 0xff]);
        let body = http_body_util::Full::new(not_utf8);
        let decoder = Codec::<String, String>::default().decoder();
        let mut stream = Streaming::new_request(decoder, body, None, None);
        let read = stream.message().now_or_never().expect("all is there");
        assert_eq!(read.expect_err("refused").code(), tonic::Code::Internal);
    }
}
