//! Response heads: framing by status and method, and what an origin may not send.

use http::{Method, StatusCode, Version};

use dataplane_http::h1::{BodyLength, HeadError, ResponseHead};

use super::response_to;

fn parsed(text: &str) -> ResponseHead {
    response_to(text.as_bytes(), &Method::GET)
        .expect("a valid head")
        .expect("a whole head")
}

#[test]
fn a_usual_head_is_understood() {
    let head = parsed("HTTP/1.1 404 Not Found here\r\nServer: x\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(
        (head.version, head.status),
        (Version::HTTP_11, StatusCode::NOT_FOUND)
    );
    assert_eq!(
        (head.body, head.declared),
        (BodyLength::Length(3), BodyLength::Length(3))
    );
    assert_eq!((head.keep_alive, head.is_interim()), (true, false));
    assert_eq!(head.headers["server"], "x");
}

#[test]
fn the_body_follows_from_method_status_and_fields() {
    use BodyLength::{Chunked, Length, None, UntilClose};
    let length = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    for (method, status, fields, body, declared) in [
        ("GET", 200, length, Length(5), Length(5)),
        ("GET", 200, chunked, Chunked, Chunked),
        ("GET", 200, "", UntilClose, UntilClose),
        ("POST", 500, "Content-Length: 0\r\n", Length(0), Length(0)),
        ("HEAD", 200, length, None, Length(5)),
        ("HEAD", 200, chunked, None, Chunked),
        ("HEAD", 200, "", None, None),
        ("GET", 304, length, None, Length(5)),
        ("GET", 304, "", None, None),
        ("GET", 204, length, None, None),
        ("GET", 204, chunked, None, None),
        ("GET", 100, length, None, None),
        ("GET", 103, chunked, None, None),
        ("GET", 101, length, None, None),
        ("CONNECT", 200, length, None, Length(5)),
        ("CONNECT", 403, length, Length(5), Length(5)),
    ] {
        let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let head = response_to(text.as_bytes(), &method.parse().unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            (head.body, head.declared),
            (body, declared),
            "{method} {status} {fields:?}"
        );
        assert_eq!(head.is_interim(), matches!(status, 100 | 103), "{status}");
        let is_without_content = matches!(status, 100..200 | 204);
        assert!(
            !is_without_content || head.headers.is_empty(),
            "{status} {fields:?}"
        );
    }
}

#[test]
fn persistence_follows_version_connection_and_body() {
    for (version, fields, expected) in [
        ("1.1", "Content-Length: 0\r\n", true),
        ("1.1", "", false),
        ("1.1", "Content-Length: 0\r\nConnection: close\r\n", false),
        ("1.0", "Content-Length: 0\r\n", false),
        (
            "1.0",
            "Content-Length: 0\r\nConnection: keep-alive\r\n",
            true,
        ),
        ("1.0", "Connection: keep-alive\r\n", false),
    ] {
        let head = parsed(&format!("HTTP/{version} 200 OK\r\n{fields}\r\n"));
        assert_eq!(head.keep_alive, expected, "{version} {fields:?}");
    }
}

#[test]
fn status_lines_are_exact() {
    use HeadError::{BadStatusLine, UnsupportedVersion};
    for (line, expected) in [
        ("HTTP/1.1", BadStatusLine),
        ("HTTP/1.1 ", BadStatusLine),
        ("HTTP/1.1 20", BadStatusLine),
        ("HTTP/1.1 20 OK", BadStatusLine),
        ("HTTP/1.1 2000 OK", BadStatusLine),
        ("HTTP/1.1 099 x", BadStatusLine),
        ("HTTP/1.1 +20 x", BadStatusLine),
        ("HTTP/1.1 2x0 OK", BadStatusLine),
        ("HTTP/1.1  200 OK", BadStatusLine),
        ("HTTP/1.1\t200 OK", BadStatusLine),
        ("HTTP/1.1 200\tOK", BadStatusLine),
        ("HTTP/1.1 200 O\0K", BadStatusLine),
        ("HTTP/1.1 200 O\rK", BadStatusLine),
        ("HTTP/1.1 200 O\x7fK", BadStatusLine),
        ("http/1.1 200 OK", BadStatusLine),
        ("HTTP/1 200 OK", BadStatusLine),
        ("HTTP/2.0 200 OK", UnsupportedVersion),
        ("ICY 200 OK", BadStatusLine),
        (" HTTP/1.1 200 OK", BadStatusLine),
        ("\r\nHTTP/1.1 200 OK", BadStatusLine),
    ] {
        let text = format!("{line}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(
            response_to(text.as_bytes(), &Method::GET).unwrap_err(),
            expected,
            "{line:?}"
        );
    }
    for line in [
        "HTTP/1.1 200",
        "HTTP/1.1 200 ",
        "HTTP/1.1 200 \t!~\u{e9}",
        "HTTP/1.0 999 x",
    ] {
        parsed(&format!("{line}\r\n\r\n"));
    }
}

#[test]
fn garbage_is_refused_before_a_line_end_comes() {
    assert_eq!(
        response_to(b"HTX", &Method::GET).unwrap_err(),
        HeadError::BadStatusLine
    );
    assert!(
        response_to(b"HTTP/1.1 200 OK", &Method::GET)
            .unwrap()
            .is_none()
    );
}

#[test]
fn fields_in_doubt_are_refused() {
    use HeadError::*;
    for (fields, expected) in [
        ("Content-Length: +2", BadContentLength),
        ("Content-Length: 2, 2", BadContentLength),
        (
            "Content-Length: 2\r\nContent-Length: 3",
            DifferingContentLengths,
        ),
        (
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            ContentLengthAndTransferEncoding,
        ),
        ("Transfer-Encoding: gzip, chunked", BadTransferEncoding),
        ("x : 1", SpaceBeforeColon),
        ("x: 1\r\n y", ObsoleteFold),
        ("x: a\0", BadFieldValue),
        ("connection: close\r", BadFieldValue),
        ("x: a\nb: c", BareLf),
        ("x", MissingColon),
    ] {
        let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
        assert_eq!(
            response_to(text.as_bytes(), &Method::GET).unwrap_err(),
            expected,
            "{fields:?}"
        );
    }
    let http10 = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(
        response_to(http10, &Method::GET).unwrap_err(),
        TransferEncodingInHttp10
    );
    assert_eq!(
        response_to(b"HTTP/1.1 200 OK\n\n", &Method::GET).unwrap_err(),
        BareLf
    );
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x:\r\n".repeat(201));
    assert_eq!(
        response_to(many.as_bytes(), &Method::GET).unwrap_err(),
        TooManyFields
    );
}

#[test]
fn an_endless_status_line_is_cut_off() {
    let mut buf = bytes::BytesMut::from("HTTP/1.1 200 ");
    buf.extend_from_slice(&vec![b'x'; 64 * 1024]);
    let limits = dataplane_http::h1::HeadLimits::RESPONSE;
    let result = dataplane_http::h1::response_head(&mut buf, &mut 0, &limits, &Method::GET);
    assert_eq!(result.unwrap_err(), HeadError::HeadTooLarge);
}
