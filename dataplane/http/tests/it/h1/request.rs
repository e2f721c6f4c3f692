//! Request heads: the line, the target, the host and the limits. Fields are in `request_fields`.

use bytes::BytesMut;
use http::{Method, Version};

use dataplane_http::h1::{BodyLength, HeadError, HeadLimits, Target, request_head};

use super::{parsed, request, request_within};

#[test]
fn a_usual_head_is_taken_off_the_front() {
    let input =
        b"GET /a/b?c=d HTTP/1.1\r\nHost: Example.COM:8080\r\nAccept:\t*/* \r\nx:\r\n\r\nnext";
    let (mut buf, mut scan) = (BytesMut::from(&input[..]), 0);
    let head = request_head(&mut buf, &mut scan, &HeadLimits::REQUEST)
        .unwrap()
        .unwrap();
    assert_eq!((&buf[..], scan), (&b"next"[..], 0));
    assert_eq!(
        (&head.method, head.version),
        (&Method::GET, Version::HTTP_11)
    );
    assert_eq!(head.target, Target::Origin("/a/b?c=d".parse().unwrap()));
    assert_eq!(head.target.path(), Some("/a/b"));
    let authority = head.authority.unwrap();
    assert_eq!(
        (authority.host(), authority.port()),
        ("example.com", Some(8080))
    );
    assert!(!head.headers.contains_key("host"), "said by the authority");
    assert_eq!(
        (&head.headers["accept"], &head.headers["x"]),
        (&"*/*".parse().unwrap(), &"".parse().unwrap())
    );
    assert_eq!((head.body, head.keep_alive), (BodyLength::None, true));
    assert_eq!((head.expect_continue, head.upgrade), (false, None));
}

#[test]
fn pipelined_heads_are_taken_one_by_one() {
    let one = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut buf = BytesMut::from(&one.repeat(3)[..]);
    let mut scan = 0;
    for _ in 0..3 {
        assert!(
            request_head(&mut buf, &mut scan, &HeadLimits::REQUEST)
                .unwrap()
                .is_some()
        );
    }
    assert!(
        request_head(&mut buf, &mut scan, &HeadLimits::REQUEST)
            .unwrap()
            .is_none()
    );
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let head = parsed("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.method, Method::GET);
    for input in [
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n",
        "\r\r\n",
        "\rGET",
    ] {
        assert_eq!(
            request(input.as_bytes()).unwrap_err(),
            HeadError::BadRequestLine,
            "{input:?}"
        );
    }
    assert_eq!(
        request(b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap_err(),
        HeadError::BareLf
    );
}

#[test]
fn an_unfinished_head_asks_for_more() {
    let whole = b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for len in 0..whole.len() {
        assert!(request(&whole[..len]).unwrap().is_none(), "{len} bytes");
    }
}

#[test]
fn request_lines_are_exact() {
    use HeadError::*;
    for (line, expected) in [
        ("GET /", BadRequestLine),
        ("GET", BadRequestLine),
        ("GET / ", BadVersion),
        ("GET  / HTTP/1.1", BadTarget),
        ("GET /  HTTP/1.1", BadVersion),
        ("GET / HTTP/1.1 ", BadVersion),
        ("GET / x HTTP/1.1", BadVersion),
        ("GET\t/\tHTTP/1.1", BadRequestLine),
        ("GET /\tx HTTP/1.1", BadTarget),
        (" GET / HTTP/1.1", BadRequestLine),
        ("GET / http/1.1", BadVersion),
        ("GET / HTTP/1.1.1", BadVersion),
        ("GET / HTTP/11", BadVersion),
        ("GET / HTTP/+1.1", BadVersion),
        ("GET / HTTP/1.1\r", BadVersion),
        ("GET / HTTP/1.2", UnsupportedVersion),
        ("GET / HTTP/0.9", UnsupportedVersion),
        ("GET / HTTP/2.0", UnsupportedVersion),
        ("PRI * HTTP/2.0", UnsupportedVersion),
        ("G(T / HTTP/1.1", BadMethod),
        ("G\"T / HTTP/1.1", BadMethod),
        ("GÉT / HTTP/1.1", BadMethod),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1", BadMethod),
        ("@ / HTTP/1.1", BadRequestLine),
        ("\x16\x03\x01 / HTTP/1.1", BadRequestLine),
        ("CONNECT a:443 HTTP/1.1", ConnectRefused),
        ("CONNECT / HTTP/1.1", ConnectRefused),
    ] {
        let text = format!("{line}\r\nHost: a\r\n\r\n");
        assert_eq!(request(text.as_bytes()).unwrap_err(), expected, "{line:?}");
    }
}

#[test]
fn targets_without_a_valid_form_are_refused() {
    use HeadError::*;
    for (target, expected) in [
        ("a", BadTarget),
        ("*", BadTarget),
        ("?a", BadTarget),
        ("a.example", BadTarget),
        ("a.example:80", BadTarget),
        ("/a#b", BadTarget),
        ("/a?b#c", BadTarget),
        ("/é", BadTarget),
        ("/a\0b", BadTarget),
        ("/a\x7fb", BadTarget),
        ("/a\x01b", BadTarget),
        ("/<a>", BadTarget),
        ("ftp://a/", BadTarget),
        ("http:/a", BadTarget),
        ("http:a", BadTarget),
        ("http://a#b", BadTarget),
        ("http://", BadHost),
        ("http:///a", BadHost),
        ("http://u@a/", BadHost),
        ("http://u:p@a/", BadHost),
        ("http://a:/", BadHost),
        ("http://a:x/", BadHost),
        ("http://a:99999/", BadHost),
        ("http://a,b/", BadHost),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            request(text.as_bytes()).unwrap_err(),
            expected,
            "{target:?}"
        );
    }
}

#[test]
fn an_absolute_target_wins_over_host() {
    for (target, path, host) in [
        ("http://B.example", "/", "b.example"),
        ("HTTP://b.example/", "/", "b.example"),
        ("https://b.example:444/x?y", "/x?y", "b.example:444"),
        ("http://b.example?y", "/?y", "b.example"),
        ("http://[::1]:80/", "/", "[::1]:80"),
    ] {
        let head = parsed(&format!("GET {target} HTTP/1.1\r\nHost: a.example\r\n\r\n"));
        assert_eq!(
            head.target,
            Target::Absolute(path.parse().unwrap()),
            "{target}"
        );
        assert_eq!(head.authority.unwrap().as_str(), host, "{target}");
    }
    let head = parsed("OPTIONS http://b.example HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(head.target, Target::Asterisk);
    let head = parsed("GET http://b/ HTTP/1.0\r\n\r\n");
    assert_eq!(head.authority.unwrap().as_str(), "b");
}

#[test]
fn asterisk_and_authority_forms_belong_to_their_methods() {
    let head = parsed("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (&head.target, head.target.path()),
        (&Target::Asterisk, None)
    );
    assert_eq!(head.target.path_and_query().unwrap(), "*");

    let limits = HeadLimits {
        is_connect_allowed: true,
        ..HeadLimits::REQUEST
    };
    let connect = |target| {
        let text = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        request_within(text.as_bytes(), &limits).map(Option::unwrap)
    };
    let head = connect("B.example:443").unwrap();
    assert_eq!(
        (&head.target, head.target.path_and_query()),
        (&Target::Authority, None)
    );
    assert_eq!(head.authority.unwrap().as_str(), "b.example:443");
    for target in ["b.example", "/", "http://b/", "b:0", "b:443/"] {
        assert!(connect(target).is_err(), "{target}");
    }
}

#[test]
fn http11_needs_exactly_one_valid_host() {
    use HeadError::*;
    for (lines, expected) in [
        ("", MissingHost),
        ("Host: a\r\nHost: a\r\n", RepeatedHost),
        ("Host: a\r\nhost: b\r\n", RepeatedHost),
        ("Host:\r\n", BadHost),
        ("Host: \t \r\n", BadHost),
        ("Host: a b\r\n", BadHost),
        ("Host: a, b\r\n", BadHost),
        ("Host: a,b\r\n", BadHost),
        ("Host: u@a\r\n", BadHost),
        ("Host: a/b\r\n", BadHost),
        ("Host: http://a\r\n", BadHost),
        ("Host: a?b\r\n", BadHost),
        ("Host: a#b\r\n", BadHost),
        ("Host: a\\b\r\n", BadHost),
        ("Host: a%41\r\n", BadHost),
        ("Host: é\r\n", BadHost),
        ("Host: a:\r\n", BadHost),
        ("Host: a:0\r\n", BadHost),
        ("Host: a:65536\r\n", BadHost),
        ("Host: a:080000\r\n", BadHost),
        ("Host: a:+80\r\n", BadHost),
        ("Host: a:80:80\r\n", BadHost),
        ("Host: :80\r\n", BadHost),
        ("Host: .a\r\n", BadHost),
        ("Host: a..b\r\n", BadHost),
        ("Host: *.a\r\n", BadHost),
        ("Host: ::1\r\n", BadHost),
        ("Host: [::1\r\n", BadHost),
        ("Host: [::1]x\r\n", BadHost),
        ("Host: [fe80::1%25eth0]\r\n", BadHost),
        ("Host: [v1.a]\r\n", BadHost),
        ("Host: []\r\n", BadHost),
    ] {
        let text = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        assert_eq!(request(text.as_bytes()).unwrap_err(), expected, "{lines:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", "a".repeat(255));
    assert_eq!(request(long.as_bytes()).unwrap_err(), BadHost);
}

#[test]
fn hosts_are_split_from_their_ports() {
    for (host, name, port) in [
        ("a", "a", None),
        ("a.", "a.", None),
        ("A-1_b.Example:443", "a-1_b.example", Some(443)),
        ("10.0.0.1:1", "10.0.0.1", Some(1)),
        ("[2001:DB8::1]", "[2001:db8::1]", None),
        ("[::1]:65535", "[::1]", Some(65535)),
    ] {
        let head = parsed(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let authority = head.authority.unwrap();
        assert_eq!((authority.host(), authority.port()), (name, port), "{host}");
        assert_eq!(authority.to_header_value(), host.to_ascii_lowercase());
    }
}

#[test]
fn http10_may_leave_host_out_but_not_get_it_wrong() {
    assert!(parsed("GET / HTTP/1.0\r\n\r\n").authority.is_none());
    assert_eq!(
        parsed("GET / HTTP/1.0\r\nHost: a\r\n\r\n")
            .authority
            .unwrap()
            .host(),
        "a"
    );
    for (lines, expected) in [
        ("Host: a b\r\n", HeadError::BadHost),
        ("Host: a\r\nHost: a\r\n", HeadError::RepeatedHost),
    ] {
        let text = format!("GET / HTTP/1.0\r\n{lines}\r\n");
        assert_eq!(request(text.as_bytes()).unwrap_err(), expected);
    }
}

#[test]
fn limits_are_kept_to_the_byte() {
    let limits = HeadLimits {
        head_bytes_max: 400,
        fields_max: 3,
        target_bytes_max: 100,
        ..HeadLimits::REQUEST
    };
    let check = |text: String| request_within(text.as_bytes(), &limits).map(|head| head.is_some());
    let target = |len: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(len - 1));
    assert_eq!(check(target(100)), Ok(true));
    assert_eq!(check(target(101)), Err(HeadError::UriTooLong));
    assert_eq!(check(target(200)), Err(HeadError::UriTooLong));
    assert_eq!(
        check(format!("GET /{}", "x".repeat(200))),
        Err(HeadError::UriTooLong)
    );

    let start = "GET / HTTP/1.1\r\nHost: a\r\nx: ";
    let sized = |len: usize| format!("{start}{}\r\n\r\n", "x".repeat(len - start.len() - 4));
    assert_eq!(check(sized(400)), Ok(true));
    assert_eq!(check(sized(401)), Err(HeadError::HeadTooLarge));
    assert_eq!(
        check(format!("{start}{}", "x".repeat(400))),
        Err(HeadError::HeadTooLarge)
    );
    assert_eq!(
        check(format!("GET / HTTP/1.1\r\n{}", "a:b\r\n".repeat(90))),
        Err(HeadError::HeadTooLarge)
    );

    let fields = |count: usize| {
        format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
            "x:\r\n".repeat(count - 1)
        )
    };
    assert_eq!(check(fields(3)), Ok(true));
    assert_eq!(check(fields(4)), Err(HeadError::TooManyFields));
}

#[test]
fn refusals_name_their_status() {
    for (error, status) in [
        (HeadError::BadHost, 400),
        (HeadError::ContentLengthAndTransferEncoding, 400),
        (HeadError::BadVersion, 400),
        (HeadError::ConnectRefused, 400),
        (HeadError::UriTooLong, 414),
        (HeadError::UnknownExpectation, 417),
        (HeadError::HeadTooLarge, 431),
        (HeadError::TooManyFields, 431),
        (HeadError::UnsupportedVersion, 505),
    ] {
        assert_eq!(error.status().as_u16(), status, "{error}");
    }
}
