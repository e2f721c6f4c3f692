//! Bodies read: every framing, every refusal, and what happens when the connection ends too soon.

use bytes::BytesMut;

use dataplane_http::h1::{BodyDecoder, BodyError, BodyLength, Frame, HeadError, HeadLimits};

use super::{body, body_in_pieces};

#[test]
fn lengths_take_their_bytes_and_no_more() {
    for (length, input, data, rest) in [
        (BodyLength::None, "next", "", "next"),
        (BodyLength::Length(0), "next", "", "next"),
        (BodyLength::Length(3), "abcnext", "abc", "next"),
        (BodyLength::Length(3), "abc", "abc", ""),
    ] {
        let expected = Ok((data.into(), None, true, rest.into()));
        assert_eq!(body(input.as_bytes(), length), expected, "{length:?}");
    }
    assert_eq!(
        body(b"ab", BodyLength::Length(3)),
        Ok((b"ab".into(), None, false, vec![]))
    );
}

#[test]
fn a_body_until_close_ends_with_the_connection() {
    assert_eq!(
        body(b"ab", BodyLength::UntilClose),
        Ok((b"ab".into(), None, false, vec![]))
    );
    for input in [&b"ab"[..], b""] {
        let outcome = body_in_pieces(input, &[], BodyLength::UntilClose, true);
        assert_eq!(outcome, Ok((input.into(), None, true, vec![])));
    }
}

#[test]
fn chunks_are_joined() {
    for (input, data, rest) in [
        ("0\r\n\r\nnext", "", "next"),
        ("3\r\nabc\r\n0\r\n\r\nnext", "abc", "next"),
        ("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", "abcde", ""),
        (
            "A\r\n0123456789\r\na\r\n0123456789\r\n00\r\n\r\n",
            "01234567890123456789",
            "",
        ),
        (
            "0000000000000003\r\nabc\r\n0000000000000000\r\n\r\n",
            "abc",
            "",
        ),
        ("3;a\r\nabc\r\n0;b=c\r\n\r\n", "abc", ""),
        ("3; a = \"b;c\"; d\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""),
    ] {
        let expected = Ok((data.into(), None, true, rest.into()));
        assert_eq!(
            body(input.as_bytes(), BodyLength::Chunked),
            expected,
            "{input:?}"
        );
    }
}

#[test]
fn malformed_chunks_are_refused() {
    use BodyError::*;
    for (input, expected) in [
        ("\r\nabc", BadChunkSize),
        ("\n", BadChunkSize),
        (" 3\r\n", BadChunkSize),
        ("3 \r\n", BadChunkSize),
        ("3\t\r\n", BadChunkSize),
        ("3 ;a\r\n", BadChunkSize),
        ("+3\r\n", BadChunkSize),
        ("-3\r\n", BadChunkSize),
        ("0x3\r\n", BadChunkSize),
        ("3h\r\n", BadChunkSize),
        ("g\r\n", BadChunkSize),
        ("3_0\r\n", BadChunkSize),
        (";a\r\n", BadChunkSize),
        ("3\0\r\n", BadChunkSize),
        ("00000000000000003\r\n", BadChunkSize),
        ("10000000000000000\r\n", BadChunkSize),
        ("3\nabc\r\n", BadChunkLine),
        ("3\rabc\r\n", BadChunkLine),
        ("3\r\rabc\r\n", BadChunkLine),
        ("3;a\nabc\r\n", BadChunkLine),
        ("3;a\rb\r\n", BadChunkLine),
        ("3;\r\n", BadChunkExtension),
        ("3; \r\n", BadChunkExtension),
        ("3;=b\r\n", BadChunkExtension),
        ("3;;\r\n", BadChunkExtension),
        ("3;a\0\r\n", BadChunkExtension),
        ("3;a=\x01\r\n", BadChunkExtension),
        ("3;a=\x7f\r\n", BadChunkExtension),
        ("3\r\nabcd\r\n", BadChunkEnd),
        ("3\r\nabc\n0\r\n\r\n", BadChunkEnd),
        ("3\r\nabc\r0\r\n\r\n", BadChunkEnd),
        ("3\r\nabc0\r\n\r\n", BadChunkEnd),
        ("3\r\nabcXX0\r\n\r\n", BadChunkEnd),
        ("0\n\n", BadChunkLine),
        ("0\r\n\n", BadTrailers(HeadError::BareLf)),
        ("0\r\nx: y\n\r\n", BadTrailers(HeadError::BareLf)),
        ("0\r\nx\r\n\r\n", BadTrailers(HeadError::MissingColon)),
        (
            "0\r\nx : y\r\n\r\n",
            BadTrailers(HeadError::SpaceBeforeColon),
        ),
        (
            "0\r\nx: y\r\n z\r\n\r\n",
            BadTrailers(HeadError::ObsoleteFold),
        ),
        ("0\r\nx: \0\r\n\r\n", BadTrailers(HeadError::BadFieldValue)),
        (
            "0\r\nGET / HTTP/1.1\r\n\r\n",
            BadTrailers(HeadError::MissingColon),
        ),
    ] {
        assert_eq!(
            body(input.as_bytes(), BodyLength::Chunked),
            Err(expected),
            "{input:?}"
        );
    }
}

#[test]
fn chunk_extensions_are_counted_over_the_whole_message() {
    let chunk = |len: usize| format!("1;{}\r\nx\r\n", "a".repeat(len));
    // The semicolon and the CR count as well.
    let fits = chunk(4094) + "0\r\n\r\n";
    assert!(body_in_pieces(fits.as_bytes(), &[], BodyLength::Chunked, false).is_ok());
    for input in [
        chunk(4095),
        chunk(40).repeat(200),
        format!("1;{}", "a".repeat(4200)),
    ] {
        let outcome = body_in_pieces(input.as_bytes(), &[], BodyLength::Chunked, false);
        assert_eq!(outcome, Err(BodyError::ChunkExtensionsTooLarge));
    }
}

#[test]
fn trailers_come_without_what_may_not_be_there() {
    let input =
        b"1\r\nx\r\n0\r\nGrpc-Status: 0\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\
        Host: b\r\nAuthorization: x\r\nCookie: x\r\nX-Forwarded-For: x\r\nIf-Match: x\r\n\
        Trailer: x\r\nx-sum: 1\r\n\r\nnext";
    let (data, trailers, is_ended, rest) = body(input, BodyLength::Chunked).unwrap();
    assert_eq!(
        (&data[..], is_ended, &rest[..]),
        (&b"x"[..], true, &b"next"[..])
    );
    assert_eq!(trailers.unwrap(), r#"{"grpc-status": "0", "x-sum": "1"}"#);

    let input = b"0\r\nHost: b\r\n\r\nnext";
    assert_eq!(
        body(input, BodyLength::Chunked),
        Ok((vec![], None, true, b"next".into()))
    );
}

#[test]
fn trailers_are_held_to_the_head_limits() {
    let large = format!("0\r\nx: {}\r\n\r\n", "x".repeat(64 * 1024));
    let endless = format!("0\r\nx: {}", "x".repeat(64 * 1024));
    let many = format!("0\r\n{}\r\n", "x: y\r\n".repeat(129));
    for (input, expected) in [
        (large, HeadError::HeadTooLarge),
        (endless, HeadError::HeadTooLarge),
        (many, HeadError::TooManyFields),
    ] {
        let outcome = body_in_pieces(input.as_bytes(), &[], BodyLength::Chunked, false);
        assert_eq!(outcome, Err(BodyError::BadTrailers(expected)));
        assert_eq!(BodyError::BadTrailers(expected).status().as_u16(), 431);
    }
}

#[test]
fn an_early_end_of_the_connection_is_an_error() {
    for (length, input) in [
        (BodyLength::Length(3), ""),
        (BodyLength::Length(3), "ab"),
        (BodyLength::Chunked, ""),
        (BodyLength::Chunked, "3"),
        (BodyLength::Chunked, "3\r\nab"),
        (BodyLength::Chunked, "3\r\nabc"),
        (BodyLength::Chunked, "3\r\nabc\r\n"),
        (BodyLength::Chunked, "3\r\nabc\r\n0\r\n"),
        (BodyLength::Chunked, "0\r\n\r"),
        (BodyLength::Chunked, "0\r\nx: y\r\n"),
    ] {
        let outcome = body_in_pieces(input.as_bytes(), &[], length, true);
        assert_eq!(outcome, Err(BodyError::Truncated), "{length:?} {input:?}");
    }
}

#[test]
fn the_end_and_an_error_stay() {
    let mut buf = BytesMut::from("zz0\r\n\r\n");
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &HeadLimits::REQUEST);
    assert_eq!(
        decoder.decode(&mut buf, false),
        Err(BodyError::BadChunkSize)
    );
    buf.clear();
    buf.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(
        decoder.decode(&mut buf, false),
        Err(BodyError::BadChunkSize)
    );

    let mut decoder = BodyDecoder::new(BodyLength::Length(2), &HeadLimits::REQUEST);
    let mut buf = BytesMut::from("abcd");
    assert_eq!(decoder.bytes_left(), Some(2));
    assert!(matches!(decoder.decode(&mut buf, false), Ok(Some(Frame::Data(data))) if data == "ab"));
    assert!(decoder.is_done());
    for is_eof in [false, true] {
        assert_eq!(decoder.decode(&mut buf, is_eof), Ok(Some(Frame::End)));
        assert_eq!(&buf[..], b"cd");
    }
}

#[test]
fn data_is_not_copied() {
    let mut buf = BytesMut::from("3\r\nabc\r\n");
    let place = buf[3..].as_ptr();
    let mut decoder = BodyDecoder::new(BodyLength::Chunked, &HeadLimits::REQUEST);
    let Ok(Some(Frame::Data(data))) = decoder.decode(&mut buf, false) else {
        panic!("no data");
    };
    assert_eq!(data.as_ptr(), place);
}
