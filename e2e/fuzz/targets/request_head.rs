//! A request head of HTTP/1.1. Laws: where it was cut changes nothing; what is accepted holds to its
//! limits and to httparse's reading; what is written anew reads back the same and as one request.

#![no_main]

use bytes::BytesMut;
use dataplane_http::h1::{
    BodyLength, HeadLimits, RequestHead, encode_request_head, request_head, strip_hop_by_hop,
};
use fuzz::head_in_pieces;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits {
    head_bytes_max: 2048,
    fields_max: 16,
    target_bytes_max: 256,
    is_connect_allowed: false,
    ..HeadLimits::REQUEST
};

fuzz_target!(|input: &[u8]| {
    let read = |piece| {
        let read = head_in_pieces(input, piece, |buf, scan| request_head(buf, scan, &LIMITS));
        read.map(|head| head.map(|(head, rest)| (head, rest)))
    };
    let whole = read(input.len());
    for piece in [1, 7] {
        let cut = read(piece);
        assert_eq!(
            format!("{whole:?}"),
            format!("{cut:?}"),
            "cut at every {piece} bytes"
        );
    }
    if let Ok(Some((head, rest))) = whole {
        let text = &input[..input.len() - rest];
        check(&head, text);
        write_anew(head);
    }
});

fn check(head: &RequestHead, text: &[u8]) {
    assert!(text.len() <= LIMITS.head_bytes_max + 2);
    assert!(head.headers.len() <= LIMITS.fields_max);
    let mut fields = [httparse::EMPTY_HEADER; 17];
    let mut other = httparse::Request::new(&mut fields);
    let status = other
        .parse(text)
        .expect("httparse refuses what was accepted");
    assert_eq!(status, httparse::Status::Complete(text.len()));
    assert_eq!(other.method, Some(head.method.as_str()));
    let count = |name: &str| {
        other
            .headers
            .iter()
            .filter(|f| f.name.eq_ignore_ascii_case(name))
            .count()
    };
    assert!(count("host") <= 1);
    let is_chunked = count("transfer-encoding") > 0;
    assert_eq!(is_chunked, head.body == BodyLength::Chunked);
    assert!(!is_chunked || count("content-length") == 0);
    for field in other.headers.iter() {
        if field.name.eq_ignore_ascii_case("content-length") {
            let BodyLength::Length(length) = head.body else {
                panic!("{:?}", head.body)
            };
            let text = std::str::from_utf8(field.value).expect("digits");
            assert_eq!(text.trim().parse::<u64>().ok(), Some(length));
        }
    }
    assert!(!head.headers.contains_key(HOST));
    // Fields of one name in the order they came, but for those of which some are left out.
    for name in head
        .headers
        .keys()
        .filter(|name| ![CONNECTION, CONTENT_LENGTH, EXPECT].contains(name))
    {
        let ours: Vec<&[u8]> = head
            .headers
            .get_all(name)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        let same = |f: &&httparse::Header<'_>| f.name.eq_ignore_ascii_case(name.as_str());
        let theirs: Vec<&[u8]> = other
            .headers
            .iter()
            .filter(same)
            .map(|f| f.value.trim_ascii_end())
            .collect();
        let ours: Vec<&[u8]> = ours.iter().map(|v| v.trim_ascii_end()).collect();
        assert_eq!(ours, theirs, "{name}");
    }
}

/// As the exchange does it: hop-by-hop fields away, then a new head.
fn write_anew(mut head: RequestHead) {
    let (Some(path), Some(authority)) = (head.target.path_and_query(), head.authority) else {
        return;
    };
    strip_hop_by_hop(&mut head.headers);
    let host = authority.to_header_value();
    let mut out = BytesMut::new();
    encode_request_head(
        &mut out,
        &head.method,
        &path,
        &host,
        &head.headers,
        head.body,
    );
    let limits = HeadLimits {
        head_bytes_max: 8192,
        target_bytes_max: 4096,
        ..HeadLimits::REQUEST
    };
    let again = request_head(&mut out, &mut 0, &limits);
    let again = again
        .expect("what we write we accept")
        .expect("a whole head");
    assert!(out.is_empty(), "bytes behind the head");
    assert_eq!(again.method, head.method);
    assert_eq!(again.target.path_and_query(), Some(path));
    assert_eq!(again.body, head.body);
    assert_eq!(again.authority.map(|a| a.to_header_value()), Some(host));
    assert_eq!(plain(again.headers), plain(head.headers));
}

fn plain(mut headers: HeaderMap) -> HeaderMap {
    for name in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(name);
    }
    headers
}
