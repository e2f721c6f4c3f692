//! Which fields stay behind at this hop, and which may come as trailers.

use http::{HeaderMap, HeaderName, HeaderValue};

use dataplane_http::h1::{is_allowed_in_trailers, strip_hop_by_hop};

fn names_after_stripping(fields: &[(&'static str, &'static str)]) -> Vec<String> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    strip_hop_by_hop(&mut headers);
    let mut names: Vec<_> = headers.keys().map(ToString::to_string).collect();
    names.sort();
    names
}

#[test]
fn fields_of_this_hop_are_removed() {
    for (fields, expected) in [
        (
            &[("accept", "x"), ("host", "a")][..],
            &["accept", "host"][..],
        ),
        (
            &[
                ("connection", "keep-alive"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "x"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
                ("x", "y"),
            ],
            &["x"],
        ),
        (
            &[
                ("connection", "x-a, ,X-B"),
                ("x-a", "1"),
                ("x-b", "2"),
                ("x-c", "3"),
            ],
            &["x-c"],
        ),
        (
            &[
                ("connection", "x-a"),
                ("connection", "x-b"),
                ("x-a", "1"),
                ("x-b", "2"),
            ],
            &[],
        ),
        (
            &[("connection", "close, x-a"), ("x-a", "1"), ("x-a", "2")],
            &[],
        ),
        (&[("connection", "not a name, x-a"), ("x-a", "1")], &[]),
        (
            &[("trailer", "x"), ("proxy-authenticate", "x")],
            &["proxy-authenticate", "trailer"],
        ),
    ] {
        assert_eq!(names_after_stripping(fields), expected, "{fields:?}");
    }
}

#[test]
fn connection_cannot_remove_what_the_message_needs() {
    for name in [
        "host",
        "content-length",
        "content-type",
        "authorization",
        "cookie",
        "set-cookie",
        "cache-control",
        "expect",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-real-ip",
    ] {
        assert_eq!(
            names_after_stripping(&[("connection", name), (name, "1")]),
            [name]
        );
    }
}

#[test]
fn trailers_hold_no_field_that_was_needed_before_the_body() {
    for (name, expected) in [
        ("grpc-status", true),
        ("grpc-message", true),
        ("x-checksum", true),
        ("digest", true),
        ("etag", true),
        ("server-timing", true),
        ("content-length", false),
        ("transfer-encoding", false),
        ("connection", false),
        ("host", false),
        ("trailer", false),
        ("te", false),
        ("upgrade", false),
        ("authorization", false),
        ("proxy-authorization", false),
        ("cookie", false),
        ("set-cookie", false),
        ("content-type", false),
        ("content-encoding", false),
        ("content-range", false),
        ("cache-control", false),
        ("expect", false),
        ("max-forwards", false),
        ("range", false),
        ("if-none-match", false),
        ("location", false),
        ("x-forwarded-for", false),
    ] {
        assert_eq!(
            is_allowed_in_trailers(&HeaderName::from_static(name)),
            expected,
            "{name}"
        );
    }
}
