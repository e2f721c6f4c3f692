//! Messages that two implementations read in two ways. Each must be refused whole, or read in the one way
//! we then also write; none may leave bytes behind that would be taken for a second request.

use bytes::BytesMut;

use dataplane_http::h1::{BodyDecoder, Frame, HeadLimits, request_head};

/// How a connection that carries `input` ends: heads taken, and whether everything was read cleanly.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Refused,
    Clean { requests: usize },
    Waiting,
}

fn serve(input: &[u8]) -> End {
    let (mut buf, mut requests) = (BytesMut::from(input), 0);
    while !buf.is_empty() {
        let head = match request_head(&mut buf, &mut 0, &HeadLimits::REQUEST) {
            Err(_) => return End::Refused,
            Ok(None) => return End::Waiting,
            Ok(Some(head)) => head,
        };
        requests += 1;
        let mut decoder = BodyDecoder::new(head.body, &HeadLimits::REQUEST);
        loop {
            match decoder.decode(&mut buf, false) {
                Err(_) => return End::Refused,
                Ok(None) => return End::Waiting,
                Ok(Some(Frame::End)) => break,
                Ok(Some(_)) => {}
            }
        }
    }
    End::Clean { requests }
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}").into_bytes()
}

const SECOND: &str = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn two_lengths_are_refused() {
    for fields in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "Content-Length: 6\r\ntransfer-encoding:chunked",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        "Content-Length: 6\r\nContent-Length: 0",
        "Content-Length: 0\r\nContent-Length: 6",
        "Content-Length: 6, 0",
    ] {
        assert_eq!(
            serve(&post(fields, &format!("0\r\n\r\n{SECOND}"))),
            End::Refused,
            "{fields:?}"
        );
    }
}

#[test]
fn disguised_transfer_encodings_are_refused() {
    for field in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "X: X\r\n Transfer-Encoding: chunked",
        "X: X\nTransfer-Encoding: chunked",
        "X: X\rTransfer-Encoding: chunked",
        "X: X\0\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: chunked\x0b",
        "Transfer-Encoding: \x0bchunked",
        "Transfer-Encoding: chunked\x00",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chunked;x",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: ch\u{fc}nked",
        "Transfer-Encoding\0: chunked",
        "\u{feff}Transfer-Encoding: chunked",
        "Transfer-Encoding;: chunked",
    ] {
        let text = post(field, &format!("0\r\n\r\n{SECOND}"));
        assert_eq!(serve(&text), End::Refused, "{field:?}");
        let both = post(
            &format!("Content-Length: 4\r\n{field}"),
            &format!("0\r\n\r\n{SECOND}"),
        );
        assert_eq!(serve(&both), End::Refused, "with a length, {field:?}");
    }
    let old =
        b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(serve(old), End::Refused);
}

#[test]
fn disguised_content_lengths_are_refused() {
    for field in [
        "Content-Length : 5",
        "Content-Length: +5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 5;",
        "Content-Length: \"5\"",
        "Content-Length: 5\x0b",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\nContent-Length: 5x",
        "Content-Length: 18446744073709551621",
        "Content-Length\r\n: 5",
    ] {
        assert_eq!(
            serve(&post(field, &format!("01234{SECOND}"))),
            End::Refused,
            "{field:?}"
        );
    }
}

#[test]
fn names_that_only_look_like_framing_frame_nothing() {
    for field in [
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "X-Content-Length: 5",
    ] {
        let outcome = serve(&post(field, SECOND));
        assert_eq!(outcome, End::Clean { requests: 2 }, "{field:?}");
    }
}

#[test]
fn chunks_read_in_two_ways_are_refused() {
    for body in [
        "5\r\n01234\n0\r\n\r\n",
        "5\n01234\r\n0\r\n\r\n",
        "5\r01234\r\n0\r\n\r\n",
        "5;\n01234\r\n0\r\n\r\n",
        "5;a\n01234\r\n0\r\n\r\n",
        "5 \r\n01234\r\n0\r\n\r\n",
        "5\r\n012340\r\n\r\n",
        "5\r\n01234XX0\r\n\r\n",
        "5\r\n01234\r\r0\r\n\r\n",
        "0x5\r\n01234\r\n0\r\n\r\n",
        "100000000000000005\r\n01234\r\n0\r\n\r\n",
        "-5\r\n01234\r\n0\r\n\r\n",
        "5\r\n01234\r\n\r\n",
        "5\r\n01234\r\n0\r\n\n",
        "5\r\n01234\r\n0\r\nX: y\n\r\n",
        "5\r\n01234\r\n0\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        let text = post("Transfer-Encoding: chunked", &format!("{body}{SECOND}"));
        assert_eq!(serve(&text), End::Refused, "{body:?}");
    }
}

#[test]
fn a_body_is_never_taken_for_a_request() {
    for (fields, body) in [
        (
            format!("Content-Length: {}", SECOND.len()),
            SECOND.to_string(),
        ),
        (
            "Transfer-Encoding: chunked".to_string(),
            format!("{:x}\r\n{SECOND}\r\n0\r\n\r\n", SECOND.len()),
        ),
        (
            "Transfer-Encoding: chunked".to_string(),
            "0\r\nHost: b\r\nX: y\r\n\r\n".to_string(),
        ),
    ] {
        assert_eq!(
            serve(&post(&fields, &body)),
            End::Clean { requests: 1 },
            "{fields}"
        );
        let two = [post(&fields, &body), SECOND.into()].concat();
        assert_eq!(serve(&two), End::Clean { requests: 2 }, "{fields}");
    }
    let get = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SECOND}",
        SECOND.len()
    );
    assert_eq!(serve(get.as_bytes()), End::Clean { requests: 1 });
}

#[test]
fn a_promised_body_that_does_not_come_is_waited_for() {
    assert_eq!(serve(&post("Content-Length: 100", SECOND)), End::Waiting);
    assert_eq!(
        serve(&post("Transfer-Encoding: chunked", "5\r\n0123")),
        End::Waiting
    );
}

#[test]
fn disguised_expectations_are_refused() {
    for value in [
        "y 100-continue",
        "100-continue, 100-continue",
        "\t100-continuex",
        "100_continue",
    ] {
        let text = post(&format!("Content-Length: 1\r\nExpect: {value}"), "x");
        assert_eq!(serve(&text), End::Refused, "{value:?}");
    }
}
