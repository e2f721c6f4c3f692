//! Heads and bodies written: the exact bytes, and that a body keeps what its head promised.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use dataplane_http::h1::{
    BodyEncoder, BodyLength, Connection, EncodeError, Frame, encode_request_head,
    encode_response_head,
};

fn fields(list: &[(&'static str, &str)]) -> HeaderMap {
    list.iter()
        .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

fn request(path: &str, headers: &HeaderMap, framing: BodyLength) -> String {
    let mut out = BytesMut::new();
    let host = HeaderValue::from_static("up.example:81");
    let path = path.parse().unwrap();
    encode_request_head(&mut out, &Method::PUT, &path, &host, headers, b"", framing);
    String::from_utf8(out.to_vec()).unwrap()
}

#[test]
fn request_heads_are_written_anew() {
    let headers = fields(&[
        ("host", "client.example"),
        ("content-length", "999"),
        ("transfer-encoding", "chunked"),
        ("te", "trailers"),
        ("x", ""),
        ("x", "2"),
    ]);
    for (framing, line) in [
        (BodyLength::None, ""),
        (BodyLength::Length(0), "content-length: 0\r\n"),
        (
            BodyLength::Length(1_234_567_890),
            "content-length: 1234567890\r\n",
        ),
        (
            BodyLength::Length(u64::MAX),
            "content-length: 18446744073709551615\r\n",
        ),
        (BodyLength::Chunked, "transfer-encoding: chunked\r\n"),
        (BodyLength::UntilClose, "transfer-encoding: chunked\r\n"),
    ] {
        let expected = format!(
            "PUT /a?b HTTP/1.1\r\nhost: up.example:81\r\nte: trailers\r\nx: \r\nx: 2\r\n{line}\r\n"
        );
        assert_eq!(request("/a?b", &headers, framing), expected, "{framing:?}");
    }
}

#[test]
fn text_beyond_ascii_in_a_path_is_escaped() {
    let text = request("/caf\u{e9}?\u{fc}", &HeaderMap::new(), BodyLength::None);
    assert!(
        text.starts_with("PUT /caf%C3%A9?%C3%BC HTTP/1.1\r\n"),
        "{text}"
    );
}

#[test]
fn response_heads_suit_the_version_of_the_client() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    use Connection::{Close, KeepAlive, Upgrade};
    let (new, old) = (Version::HTTP_11, Version::HTTP_10);
    for (version, status, framing, connection, expected) in [
        (
            new,
            200,
            Length(5),
            KeepAlive,
            "200 OK\r\nx: 1\r\ncontent-length: 5\r\n\r\n",
        ),
        (
            new,
            200,
            Chunked,
            KeepAlive,
            "200 OK\r\nx: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            new,
            200,
            UntilClose,
            KeepAlive,
            "200 OK\r\nx: 1\r\nconnection: close\r\n\r\n",
        ),
        (
            new,
            404,
            None,
            Close,
            "404 Not Found\r\nx: 1\r\nconnection: close\r\n\r\n",
        ),
        (
            new,
            204,
            Length(0),
            KeepAlive,
            "204 No Content\r\nx: 1\r\n\r\n",
        ),
        (
            new,
            103,
            Chunked,
            KeepAlive,
            "103 Early Hints\r\nx: 1\r\n\r\n",
        ),
        (
            new,
            101,
            None,
            Upgrade,
            "101 Switching Protocols\r\nx: 1\r\nconnection: upgrade\r\n\r\n",
        ),
        (
            new,
            799,
            Length(0),
            KeepAlive,
            "799 \r\nx: 1\r\ncontent-length: 0\r\n\r\n",
        ),
        (
            old,
            200,
            Chunked,
            KeepAlive,
            "200 OK\r\nx: 1\r\nconnection: close\r\n\r\n",
        ),
        (
            old,
            200,
            Length(5),
            KeepAlive,
            "200 OK\r\nx: 1\r\ncontent-length: 5\r\nconnection: keep-alive\r\n\r\n",
        ),
    ] {
        let headers = fields(&[
            ("x", "1"),
            ("connection", "keep-alive"),
            ("content-length", "9"),
            ("transfer-encoding", "chunked"),
        ]);
        let status = StatusCode::from_u16(status).unwrap();
        let mut out = BytesMut::new();
        encode_response_head(&mut out, version, status, &headers, framing, connection);
        assert_eq!(
            out,
            format!("HTTP/1.1 {expected}").as_bytes(),
            "{version:?} {framing:?}"
        );
    }
}

fn written(framing: BodyLength, frames: Vec<Frame>) -> Result<String, EncodeError> {
    let mut encoder = BodyEncoder::new(framing);
    let mut out = BytesMut::new();
    for frame in frames {
        encoder.encode(frame, &mut out)?;
    }
    assert!(encoder.is_done(), "{framing:?}");
    Ok(String::from_utf8(out.to_vec()).unwrap())
}

fn data(text: &'static str) -> Frame {
    Frame::Data(Bytes::from_static(text.as_bytes()))
}

#[test]
fn bodies_are_framed_as_their_head_says() {
    let trailers = || Frame::Trailers(fields(&[("grpc-status", "0"), ("content-length", "1")]));
    for (framing, frames, expected) in [
        (BodyLength::None, vec![Frame::End], ""),
        (BodyLength::Length(0), vec![data(""), Frame::End], ""),
        (
            BodyLength::Length(5),
            vec![data("ab"), data("cde"), Frame::End],
            "abcde",
        ),
        (
            BodyLength::Length(2),
            vec![data("ab"), trailers(), Frame::End],
            "ab",
        ),
        (BodyLength::UntilClose, vec![data("ab"), trailers()], "ab"),
        (BodyLength::Chunked, vec![Frame::End], "0\r\n\r\n"),
        (
            BodyLength::Chunked,
            vec![data("ab"), data(""), data("0123456789abcdef0"), Frame::End],
            "2\r\nab\r\n11\r\n0123456789abcdef0\r\n0\r\n\r\n",
        ),
        (
            BodyLength::Chunked,
            vec![data("0123456789"), trailers(), Frame::End],
            "A\r\n0123456789\r\n0\r\ngrpc-status: 0\r\n\r\n",
        ),
    ] {
        assert_eq!(
            written(framing, frames).as_deref(),
            Ok(expected),
            "{framing:?}"
        );
    }
}

#[test]
fn bodies_that_break_their_promise_are_errors() {
    for (framing, frames, expected) in [
        (
            BodyLength::Length(3),
            vec![data("ab"), Frame::End],
            EncodeError::TooShort(1),
        ),
        (
            BodyLength::Length(3),
            vec![data("abcd")],
            EncodeError::TooLong,
        ),
        (
            BodyLength::Length(3),
            vec![data("abc"), data("d")],
            EncodeError::AfterEnd,
        ),
        (BodyLength::None, vec![data("a")], EncodeError::AfterEnd),
        (
            BodyLength::Chunked,
            vec![Frame::End, data("a")],
            EncodeError::AfterEnd,
        ),
        (
            BodyLength::UntilClose,
            vec![Frame::End, data("a")],
            EncodeError::AfterEnd,
        ),
    ] {
        assert_eq!(written(framing, frames), Err(expected), "{framing:?}");
    }
}

#[test]
fn data_for_a_vectored_write_is_not_copied() {
    let data = Bytes::from(vec![b'x'; 70_000]);
    let encoded = BodyEncoder::new(BodyLength::Chunked)
        .data(data.clone())
        .unwrap();
    assert_eq!(
        (encoded.head.as_slice(), encoded.tail),
        (&b"11170\r\n"[..], &b"\r\n"[..])
    );
    assert_eq!(encoded.data.as_ptr(), data.as_ptr());
}
