//! A chunked body. Laws: where it was cut changes nothing; what is accepted is what a plain reference
//! reads; what is written anew reads back the same.

#![no_main]

use bytes::BytesMut;
use dataplane_http::h1::{BodyEncoder, BodyLength, Frame, HeadLimits};
use fuzz::{Body, body_in_pieces};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 512,
    fields_max: 8,
    ..HeadLimits::REQUEST
};

fuzz_target!(|input: &[u8]| {
    let whole = body_in_pieces(input, input.len(), BodyLength::Chunked, &LIMITS);
    for piece in [1, 5] {
        let cut = body_in_pieces(input, piece, BodyLength::Chunked, &LIMITS);
        assert_eq!(whole, cut, "cut at every {piece} bytes");
    }
    let Ok(Some(body)) = whole else { return };
    let (data, rest) = reference(input).expect("accepted, though the reference cannot read it");
    assert_eq!((&body.data, body.rest), (&data, rest));
    write_anew(&body);
});

/// RFC 9112 7.1, read plainly: data, and how many bytes are left behind the last line.
fn reference(input: &[u8]) -> Option<(Vec<u8>, usize)> {
    let line = |from: &[u8]| from.windows(2).position(|two| two == b"\r\n");
    let (mut data, mut rest) = (Vec::new(), input);
    loop {
        let end = line(rest)?;
        let size = rest[..end].split(|byte| *byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            break;
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
    loop {
        let end = line(rest)?;
        rest = &rest[end + 2..];
        if end == 0 {
            return Some((data, rest.len()));
        }
    }
}

fn write_anew(body: &Body) {
    let mut out = BytesMut::new();
    let mut encoder = BodyEncoder::new(BodyLength::Chunked);
    for part in body.data.chunks(100) {
        encoder
            .encode(Frame::Data(part.to_vec().into()), &mut out)
            .expect("data");
    }
    if !body.trailers.is_empty() {
        encoder
            .encode(Frame::Trailers(body.trailers.clone()), &mut out)
            .expect("trailers");
    }
    encoder.encode(Frame::End, &mut out).expect("the end");
    let limits = HeadLimits {
        head_bytes_max: 8192,
        ..HeadLimits::REQUEST
    };
    let again = body_in_pieces(&out, out.len(), BodyLength::Chunked, &limits);
    let again = again
        .expect("what we write we accept")
        .expect("a whole body");
    assert_eq!(
        (&again.data, &again.trailers, again.rest),
        (&body.data, &body.trailers, 0)
    );
}
