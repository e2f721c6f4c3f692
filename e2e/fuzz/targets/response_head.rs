//! A response head of HTTP/1.1, as an origin may send it. Laws: where it was cut changes nothing; an
//! accepted one is what httparse reads; what a client gets anew reads back the same.

#![no_main]

use bytes::BytesMut;
use dataplane_http::h1::{
    BodyLength, Connection, HeadLimits, encode_response_head, response_head, strip_hop_by_hop,
};
use fuzz::head_in_pieces;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{Method, Version};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 2048,
    fields_max: 16,
    ..HeadLimits::RESPONSE
};

fuzz_target!(|input: &[u8]| {
    let Some((first, input)) = input.split_first() else {
        return;
    };
    let method = if first % 2 == 0 {
        Method::GET
    } else {
        Method::HEAD
    };
    let read = |piece| {
        head_in_pieces(input, piece, |buf, scan| {
            response_head(buf, scan, &LIMITS, &method)
        })
    };
    let whole = read(input.len());
    for piece in [1, 7] {
        assert_eq!(
            format!("{whole:?}"),
            format!("{:?}", read(piece)),
            "cut at every {piece} bytes"
        );
    }
    let Ok(Some((mut head, rest))) = whole else {
        return;
    };
    let text = &input[..input.len() - rest];
    let mut fields = [httparse::EMPTY_HEADER; 17];
    let mut other = httparse::Response::new(&mut fields);
    let status = other
        .parse(text)
        .expect("httparse refuses what was accepted");
    assert_eq!(status, httparse::Status::Complete(text.len()));
    assert_eq!(other.code, Some(head.status.as_u16()));
    if method == Method::HEAD || matches!(head.status.as_u16(), 204 | 304) {
        assert_eq!(head.body, BodyLength::None, "{}", head.status);
    }

    strip_hop_by_hop(&mut head.headers);
    let mut out = BytesMut::new();
    let status = head.status;
    encode_response_head(
        &mut out,
        Version::HTTP_11,
        status,
        &head.headers,
        head.declared,
        Connection::KeepAlive,
    );
    let limits = HeadLimits {
        head_bytes_max: 16384,
        ..HeadLimits::RESPONSE
    };
    let again = response_head(&mut out, &mut 0, &limits, &method);
    let again = again
        .expect("what we write we accept")
        .expect("a whole head");
    assert!(out.is_empty(), "bytes behind the head");
    assert_eq!((again.status, again.body), (status, head.body));
    for headers in [&mut head.headers, &mut { again.headers.clone() }] {
        for name in [CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
            headers.remove(name);
        }
    }
});
