//! Fields of a request head: their syntax, and what they say about body, connection and upgrade.

use dataplane_http::h1::{BodyLength, HeadError, Upgrade};

use super::{parsed, request, request_with};

#[test]
fn malformed_field_lines_are_refused() {
    use HeadError::*;
    for (lines, expected) in [
        ("x : 1", SpaceBeforeColon),
        ("x\t: 1", SpaceBeforeColon),
        (" x: 1", ObsoleteFold),
        ("x: 1\r\n y: 2", ObsoleteFold),
        ("x: 1\r\n\ty", ObsoleteFold),
        ("x: 1\r\n :", ObsoleteFold),
        ("x: 1\r\n  ", ObsoleteFold),
        ("x", MissingColon),
        (": 1", BadFieldName),
        ("x y: 1", BadFieldName),
        ("x(y): 1", BadFieldName),
        ("x\"y: 1", BadFieldName),
        ("x\0: 1", BadFieldName),
        ("x\r: 1", BadFieldName),
        ("é: 1", BadFieldName),
        ("x: a\0b", BadFieldValue),
        ("x: a\x01b", BadFieldValue),
        ("x: a\x7fb", BadFieldValue),
        ("x: a\x0bb", BadFieldValue),
        ("x: a\rb", BadFieldValue),
        ("x: a\r", BadFieldValue),
        ("x: \ra", BadFieldValue),
        ("connection: close\r", BadFieldValue),
        ("connection: \rkeep-alive", BadFieldValue),
        ("connection: close, \x0c", BadFieldValue),
        ("connection: \r", BadFieldValue),
        ("x: a\nb: c", BareLf),
        ("x: a\n\r\n", BareLf),
        ("x: a\n\n", BareLf),
    ] {
        assert_eq!(request_with(lines).unwrap_err(), expected, "{lines:?}");
    }
    let long = format!("{}(: 1", "x".repeat(300));
    assert_eq!(request_with(&long).unwrap_err(), BadFieldName);
}

#[test]
fn unusual_but_valid_fields_pass() {
    let head = request_with("x-!#$%&'*+.^_`|~9:\t a\tb \t\r\nx: caf\u{e9}\r\nX: 2").unwrap();
    assert_eq!(head.headers["x-!#$%&'*+.^_`|~9"], "a\tb");
    assert_eq!(head.headers.get_all("x").iter().count(), 2);
}

#[test]
fn framing_fields_in_doubt_are_refused() {
    use HeadError::*;
    for (lines, expected) in [
        (
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            ContentLengthAndTransferEncoding,
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 0",
            ContentLengthAndTransferEncoding,
        ),
        (
            "Transfer-Encoding: x\r\nContent-Length: 1",
            ContentLengthAndTransferEncoding,
        ),
        ("Transfer-Encoding: gzip, chunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked, chunked", BadTransferEncoding),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            BadTransferEncoding,
        ),
        ("Transfer-Encoding: identity", BadTransferEncoding),
        ("Transfer-Encoding: xchunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked;q=1", BadTransferEncoding),
        ("Transfer-Encoding: \"chunked\"", BadTransferEncoding),
        ("Transfer-Encoding:", BadTransferEncoding),
        ("Transfer-Encoding: ,chunked", BadTransferEncoding),
        ("Transfer-Encoding: chunked,", BadTransferEncoding),
        ("Content-Length:", BadContentLength),
        ("Content-Length: +1", BadContentLength),
        ("Content-Length: -1", BadContentLength),
        ("Content-Length: 0x1", BadContentLength),
        ("Content-Length: 1 1", BadContentLength),
        ("Content-Length: 1.0", BadContentLength),
        ("Content-Length: 1_0", BadContentLength),
        ("Content-Length: \u{661}", BadContentLength),
        ("Content-Length: 1,1", BadContentLength),
        ("Content-Length: 1, 1", BadContentLength),
        ("Content-Length: 9223372036854775808", BadContentLength),
        ("Content-Length: 18446744073709551617", BadContentLength),
        (
            "Content-Length: 1\r\nContent-Length: 2",
            DifferingContentLengths,
        ),
        (
            "Content-Length: 1\r\nContent-Length: 01",
            DifferingContentLengths,
        ),
    ] {
        assert_eq!(request_with(lines).unwrap_err(), expected, "{lines:?}");
    }
    let http10 = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(request(http10).unwrap_err(), TransferEncodingInHttp10);
}

#[test]
fn framing_fields_that_are_clear_are_understood() {
    for (lines, expected) in [
        ("x: y", BodyLength::None),
        ("Content-Length: 0", BodyLength::Length(0)),
        ("Content-Length: 007", BodyLength::Length(7)),
        (
            "Content-Length: 9223372036854775807",
            BodyLength::Length(i64::MAX as u64),
        ),
        (
            "Content-Length: 5\r\ncontent-length: 5",
            BodyLength::Length(5),
        ),
        ("Transfer-Encoding: chunked", BodyLength::Chunked),
        ("transfer-encoding:\tChunked ", BodyLength::Chunked),
    ] {
        let head = request_with(lines).unwrap();
        assert_eq!(head.body, expected, "{lines:?}");
        assert!(
            head.headers.get_all("content-length").iter().count() <= 1,
            "{lines:?}"
        );
    }
}

#[test]
fn persistence_follows_version_and_connection() {
    for (version, connection, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close\r\n",
            false,
        ),
        ("1.1", "Connection: closed\r\n", true),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let head = parsed(&format!(
            "GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n"
        ));
        assert_eq!(head.keep_alive, expected, "{version} {connection:?}");
    }
}

#[test]
fn expectations_are_met_dropped_or_refused() {
    let expects = |text: &str| {
        let head = parsed(text);
        (head.expect_continue, head.headers.contains_key("expect"))
    };
    let fields = "Host: a\r\nExpect: 100-Continue\r\nContent-Length";
    assert_eq!(
        expects(&format!("PUT / HTTP/1.1\r\n{fields}: 3\r\n\r\n")),
        (true, true)
    );
    assert_eq!(
        expects(&format!("PUT / HTTP/1.1\r\n{fields}: 0\r\n\r\n")),
        (false, false)
    );
    assert_eq!(
        expects(&format!("PUT / HTTP/1.0\r\n{fields}: 3\r\n\r\n")),
        (false, false)
    );
    for value in [
        "x",
        "100-continue, x",
        "x 100-continue",
        "",
        "100-continue\r\nExpect: 100-continue",
    ] {
        let refusal = request_with(&format!("Content-Length: 3\r\nExpect: {value}")).unwrap_err();
        assert_eq!(refusal, HeadError::UnknownExpectation, "{value:?}");
    }
}

#[test]
fn upgrades_count_when_connection_names_them() {
    let upgrade = |line: &str, fields: &str| {
        parsed(&format!("{line}\r\nHost: a\r\n{fields}\r\n\r\n")).upgrade
    };
    let get = "GET / HTTP/1.1";
    let websocket = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket";
    assert_eq!(upgrade(get, websocket), Some(Upgrade::WebSocket));
    assert_eq!(upgrade("POST / HTTP/1.1", websocket), Some(Upgrade::Other));
    assert_eq!(upgrade("GET / HTTP/1.0", websocket), None);
    assert_eq!(upgrade(get, "Upgrade: websocket"), None);
    assert_eq!(upgrade(get, "Connection: upgrade"), None);
    for other in [
        "Connection: upgrade\r\nUpgrade: h2c",
        "Connection: upgrade\r\nUpgrade: websocket, h2c",
        "Connection: upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket",
        "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3",
    ] {
        assert_eq!(upgrade(get, other), Some(Upgrade::Other), "{other:?}");
    }
}
