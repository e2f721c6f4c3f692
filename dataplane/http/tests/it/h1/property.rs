//! Laws for input nobody thought of: no panic, no dependence on where the input was cut, and what we
//! write is what we read.

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use proptest::collection::vec;
use proptest::prelude::*;

use dataplane_http::h1::{
    BodyEncoder, BodyLength, Connection, Frame, HeadLimits, encode_request_head,
    encode_response_head, request_head, response_head,
};

use super::{body_in_pieces, request_in_pieces, response_in_pieces};

/// Bytes rich in what the grammar cares about.
fn wire_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "GET ", "POST /a", " HTTP/1.1\r\n", " HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n", "Host: a\r\n",
            "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n",
            "Expect: 100-continue\r\n", "\r\n", "\r\n\r\n", "\r", "\n", " ", "\t", ":", ";", "/", "0\r\n", "3\r\nabc\r\n",
            "a", "ffffffffffffffff", "x: y\r\n", "\0",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..4),
    ];
    vec(piece, 0..16).prop_map(|pieces| pieces.concat())
}

fn cuts(len: usize, seeds: &[usize]) -> Vec<usize> {
    let mut cuts: Vec<usize> = seeds.iter().map(|seed| seed % (len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    let name = "x-[a-z0-9!#$%&'*+.^_`|~-]{0,12}"
        .prop_map(|name| HeaderName::from_bytes(name.as_bytes()).unwrap());
    let value = vec(prop_oneof![9 => 0x21..0x7f_u8, 1 => 0x80..=0xff_u8], 0..24)
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).unwrap());
    vec((name, value), 0..12).prop_map(|list| {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(name, value);
        }
        map
    })
}

proptest! {
    #[test]
    fn any_cut_gives_the_same_head(input in wire_bytes(), seeds in vec(any::<usize>(), 0..6)) {
        let limits = HeadLimits { head_bytes_max: 120, fields_max: 4, target_bytes_max: 8, ..HeadLimits::REQUEST };
        let cuts = cuts(input.len(), &seeds);
        for limits in [limits, HeadLimits::REQUEST] {
            prop_assert_eq!(request_in_pieces(&input, &cuts, &limits), request_in_pieces(&input, &[], &limits));
        }
        for method in [Method::GET, Method::HEAD] {
            prop_assert_eq!(response_in_pieces(&input, &cuts, &method), response_in_pieces(&input, &[], &method));
        }
    }

    #[test]
    fn any_cut_gives_the_same_body(input in wire_bytes(), seeds in vec(any::<usize>(), 0..6), is_eof: bool) {
        let cuts = cuts(input.len(), &seeds);
        for length in [BodyLength::Chunked, BodyLength::Length(7), BodyLength::UntilClose, BodyLength::None] {
            let whole = body_in_pieces(&input, &[], length, is_eof);
            prop_assert_eq!(body_in_pieces(&input, &cuts, length, is_eof), whole);
        }
    }

    #[test]
    fn random_bytes_never_panic(input in vec(any::<u8>(), 0..256)) {
        let _ = request_in_pieces(&input, &[], &HeadLimits::REQUEST);
        let _ = response_in_pieces(&input, &[], &Method::GET);
        let line = [b"GET / HTTP/1.1\r\n", &input[..], b"\r\n\r\n"].concat();
        let _ = request_in_pieces(&line, &[], &HeadLimits::REQUEST);
        let _ = body_in_pieces(&input, &[], BodyLength::Chunked, true);
    }

    #[test]
    fn a_written_request_reads_back(
        headers in fields(),
        path in "/[a-zA-Z0-9/._~!$&'()*+,;=:@%-]{0,24}(\\?[a-z0-9=&]{0,12})?",
        host in "[a-z0-9]{1,9}(\\.[a-z]{1,5})?(:[1-9][0-9]{0,3})?",
        length in prop_oneof![
            Just(BodyLength::None), Just(BodyLength::Chunked), (0..=i64::MAX as u64).prop_map(BodyLength::Length)
        ],
    ) {
        let mut out = BytesMut::new();
        let (path, host) = (path.parse::<PathAndQuery>().unwrap(), host.parse().unwrap());
        encode_request_head(&mut out, &Method::POST, &path, &host, &headers, b"", length);
        let head = request_head(&mut out, &mut 0, &HeadLimits::REQUEST).unwrap().unwrap();
        prop_assert!(out.is_empty());
        prop_assert_eq!(head.target.path_and_query(), Some(path));
        prop_assert_eq!(head.authority.unwrap().to_header_value(), host);
        prop_assert_eq!(head.body, length);
        let mut read = head.headers;
        for name in ["host", "content-length", "transfer-encoding"] {
            read.remove(name);
        }
        prop_assert_eq!(read, headers);
    }

    #[test]
    fn a_written_response_reads_back(headers in fields(), status in 205..600_u16, length: u64) {
        let status = StatusCode::from_u16(status).unwrap();
        let body = BodyLength::Length(length >> 1);
        let mut out = BytesMut::new();
        encode_response_head(&mut out, Version::HTTP_11, status, &headers, body, Connection::KeepAlive);
        let head = response_head(&mut out, &mut 0, &HeadLimits::RESPONSE, &Method::GET).unwrap().unwrap();
        prop_assert_eq!((head.status, head.declared, head.keep_alive), (status, body, true));
        let mut read = head.headers;
        read.remove("content-length");
        prop_assert_eq!(read, headers);
    }

    #[test]
    fn a_written_body_reads_back(
        pieces in vec(vec(any::<u8>(), 0..40), 0..8),
        trailers in fields(),
        seeds in vec(any::<usize>(), 0..6),
    ) {
        let content = pieces.concat();
        let total = u64::try_from(content.len()).unwrap();
        for length in [BodyLength::Length(total), BodyLength::Chunked] {
            let (mut encoder, mut out) = (BodyEncoder::new(length), BytesMut::new());
            for piece in &pieces {
                encoder.encode(Frame::Data(Bytes::copy_from_slice(piece)), &mut out).unwrap();
            }
            encoder.encode(Frame::Trailers(trailers.clone()), &mut out).unwrap();
            encoder.encode(Frame::End, &mut out).unwrap();
            let cuts = cuts(out.len(), &seeds);
            let (data, read, is_ended, rest) = body_in_pieces(&out, &cuts, length, false).unwrap();
            prop_assert_eq!(&data, &content);
            prop_assert!(is_ended && rest.is_empty());
            if length == BodyLength::Chunked && !trailers.is_empty() {
                prop_assert_eq!(read, Some(format!("{trailers:?}")));
            } else {
                prop_assert_eq!(read, None);
            }
        }
    }
}
