//! Tests of the line format: every line is JSON with the promised names, whatever the bytes.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

use super::*;

/// A request of which everything is known, but for a call to an AI service.
pub(in crate::access_log::format) fn full() -> Record<'static> {
    Record {
        timestamp: UNIX_EPOCH + Duration::from_millis(1_769_862_896_007),
        latency: Duration::from_micros(12_345),
        listener: "shop/web",
        client_ip: [203, 0, 113, 9].into(),
        client_port: 40_000,
        scheme: "http",
        method: "GET",
        host: b"shop.example",
        path: b"/cart?item=1",
        upstream_host: b"shop.example",
        upstream_path: b"/cart?item=1",
        protocol: "HTTP/1.1",
        status: 200,
        grpc_status: None,
        bytes_received: 310,
        bytes_sent: u64::MAX,
        destination: Destination {
            route: Some("Http/shop/cart"),
            rule: Some(2),
            backend: Some("shop/cart:80"),
            upstream_addr: Some("10.0.0.7:8080".parse().unwrap()),
            upstream_connect_time: Some(Duration::from_micros(90)),
            attempts: 2,
        },
        routing_time: Some(Duration::from_micros(70)),
        first_byte_time: Some(Duration::from_millis(8)),
        trace: Some((0xab, 0xcd)),
        request_id: b"r-1",
        user_agent: b"curl/8",
        referer: b"https://shop.example/",
        reason: Reason::Ok,
        snapshot_version: "v7",
        tls_version: Some("TLSv1.3"),
        sni: Some("shop.example"),
        client_certificate: Some(ClientCertificate {
            subject: "CN=worker\\2C 7",
            name: "spiffe://shop.example/worker",
            fingerprint: "00ff",
        }),
        gen_ai: None,
    }
}

fn line(record: &Record<'_>) -> String {
    let mut out = Vec::new();
    JsonFormat::default().write(&mut out, record);
    String::from_utf8(out).unwrap()
}

fn parsed(record: &Record<'_>) -> Value {
    let line = line(record);
    let body = line.strip_suffix('\n').unwrap();
    assert!(!body.contains(|c: char| c.is_control()), "{body:?}");
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

#[test]
fn a_full_record_has_every_field() {
    let expected = json!({
        "timestamp": "2026-01-31T12:34:56.007Z", "event": "http_request",
        "protocol": "HTTP/1.1", "listener": "shop/web", "client_ip": "203.0.113.9",
        "client_port": 40000, "scheme": "http", "routing_time_ms": 0.07, "first_byte_ms": 8.0,
        "trace_id": "000000000000000000000000000000ab", "span_id": "00000000000000cd",
        "host": "shop.example", "method": "GET", "path": "/cart?item=1", "request_id": "r-1",
        "user_agent": "curl/8", "referer": "https://shop.example/", "bytes_received": 310,
        "status": 200, "bytes_sent": u64::MAX, "latency_ms": 12.345, "reason": "ok",
        "response_flags": "none", "route_kind": "Http", "route_namespace": "shop",
        "route_name": "cart", "rule": 2, "backend": "shop/cart:80",
        "upstream_addr": "10.0.0.7:8080", "upstream_connect_time_ms": 0.09, "retry_attempts": 1,
        "snapshot_version": "v7", "tls_version": "TLSv1.3", "sni": "shop.example",
        "client_cert_subject": "CN=worker\\2C 7",
        "client_cert_san": "spiffe://shop.example/worker", "client_cert_sha256": "00ff",
    });
    assert_eq!(parsed(&full()), expected);
}

#[test]
fn what_is_not_known_is_left_out() {
    let full = full();
    let record = Record {
        timestamp: full.timestamp,
        latency: full.latency,
        listener: full.listener,
        client_ip: full.client_ip,
        client_port: full.client_port,
        bytes_received: full.bytes_received,
        reason: Reason::ClientAborted,
        snapshot_version: full.snapshot_version,
        ..Record::unknown()
    };
    let expected = json!({
        "timestamp": "2026-01-31T12:34:56.007Z", "event": "http_request",
        "protocol": "HTTP/1.1", "listener": "shop/web", "client_ip": "203.0.113.9",
        "client_port": 40000, "scheme": "http",
        "bytes_received": 310, "status": 0, "bytes_sent": 0, "latency_ms": 12.345,
        "reason": "client_aborted", "response_flags": "DC", "snapshot_version": "v7",
    });
    assert_eq!(parsed(&record), expected);
}

#[test]
fn any_bytes_give_valid_json_on_one_line() {
    let cases: [(&[u8], &str); 9] = [
        (b"plain", "plain"),
        (b"a\"b\\c", "a\"b\\c"),
        (b"\r\n\t\0\x1b[31m\x7f", "\r\n\t\0\u{1b}[31m\u{7f}"),
        ("grün \u{1f600}".as_bytes(), "grün \u{1f600}"),
        (
            "\u{85}\u{9f}\u{2028}\u{2029}".as_bytes(),
            "\u{85}\u{9f}\u{2028}\u{2029}",
        ),
        (b"a\xffb\xc3", "a\u{fffd}b\u{fffd}"),
        (b"\xed\xa0\x80", "\u{fffd}\u{fffd}\u{fffd}"),
        (b"\xf0\x9f\x98", "\u{fffd}"),
        (b"\"},{\"status\":200", "\"},{\"status\":200"),
    ];
    for (bytes, expected) in cases {
        let record = Record {
            path: bytes,
            user_agent: bytes,
            ..full()
        };
        let value = parsed(&record);
        assert_eq!(value["path"], expected, "{bytes:?}");
        assert_eq!(value["user_agent"], expected, "{bytes:?}");
    }
    // Wherever in a field it stands, it is seen.
    for length in 1..40 {
        for at in 0..length {
            let mut bytes = vec![b'a'; length];
            bytes[at] = b'"';
            let record = Record {
                path: &bytes,
                ..full()
            };
            assert_eq!(
                parsed(&record)["path"].as_str(),
                str::from_utf8(&bytes).ok()
            );
        }
    }
    let every_byte: Vec<u8> = (0..=255).collect();
    let record = Record {
        path: &every_byte,
        ..full()
    };
    assert_eq!(
        parsed(&record)["path"],
        String::from_utf8_lossy(&every_byte).as_ref()
    );
}

#[test]
fn long_fields_are_cut() {
    let long = "ü".repeat(FIELD_BYTES_MAX);
    let record = Record {
        path: long.as_bytes(),
        referer: &[b'x'; 5000],
        ..full()
    };
    let value = parsed(&record);
    assert_eq!(value["path"].as_str().unwrap().len(), FIELD_BYTES_MAX);
    assert_eq!(value["referer"].as_str().unwrap().len(), FIELD_BYTES_MAX);
}

#[test]
fn route_names_are_taken_apart() {
    let cases = [
        ("Grpc/a/b", Some("Grpc"), Some("a"), "b"),
        ("a/b", None, Some("a"), "b"),
        ("b", None, None, "b"),
    ];
    for (route, kind, namespace, name) in cases {
        let value = parsed(&Record {
            destination: Destination {
                route: Some(route),
                ..full().destination
            },
            ..full()
        });
        assert_eq!(
            value.get("route_kind").and_then(Value::as_str),
            kind,
            "{route}"
        );
        assert_eq!(
            value.get("route_namespace").and_then(Value::as_str),
            namespace,
            "{route}"
        );
        assert_eq!(value["route_name"], name, "{route}");
    }
}

#[test]
fn what_is_kept_of_a_place_is_written_for_that_place_alone() {
    let mut format = JsonFormat::default();
    let names: Vec<_> = (0..200).map(|n| format!("HTTPRoute/shop/r{n}")).collect();
    let long = "x".repeat(FIELD_BYTES_MAX);
    let routes = names.iter().map(String::as_str).chain([&*long, ""]);
    let routes: Vec<_> = routes.map(Some).chain([None]).collect();
    // Each is met twice in a row, and again when others took its place.
    let met = routes.iter().flat_map(|route| [route, route]);
    for route in met.chain(&routes) {
        for (listener, rule, backend, snapshot_version) in [
            ("web", Some(1), Some("shop/a:80"), "v1"),
            ("web", Some(1), Some("shop/a:80"), "v2"),
            ("web", Some(2), Some("shop/\"b\":80"), "v2"),
            ("other", None, None, "v2"),
        ] {
            let record = Record {
                listener,
                destination: Destination {
                    route: *route,
                    rule,
                    backend,
                    ..full().destination
                },
                snapshot_version,
                ..full()
            };
            let mut out = Vec::new();
            format.write(&mut out, &record);
            assert_eq!(String::from_utf8(out).unwrap(), line(&record));
        }
    }
}

#[test]
fn numbers_are_written_as_usual() {
    let tens = (0..20).map(|zeros| 10_u64.pow(zeros));
    let around = tens.flat_map(|ten| [ten - 1, ten, ten + 1, ten.saturating_mul(7) / 2]);
    for value in (0..10_000).chain(around).chain([12_345_678, u64::MAX]) {
        let mut out = Vec::new();
        digits(&mut out, value);
        assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        let mut out = Vec::new();
        milliseconds(&mut out, b"", Duration::from_micros(value));
        let expected = format!("{}.{:03}", value / 1000, value % 1000);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

#[test]
fn addresses_are_written_as_usual() {
    for text in [
        "0.0.0.0:1",
        "255.255.255.255:10000",
        "255.10.9.100:65535",
        "[::1]:80",
        "[2001:db8::1]:443",
    ] {
        let upstream: SocketAddr = text.parse().unwrap();
        let record = Record {
            destination: Destination {
                upstream_addr: Some(upstream),
                ..full().destination
            },
            client_ip: upstream.ip(),
            ..full()
        };
        let value = parsed(&record);
        assert_eq!(value["upstream_addr"], text);
        assert_eq!(value["client_ip"], upstream.ip().to_string());
    }
}

#[test]
fn the_clock_is_right_at_every_second_and_before_1970() {
    let mut clock = ClockText::default();
    let mut text = |time: SystemTime| {
        let mut out = Vec::new();
        clock.write(&mut out, time);
        String::from_utf8(out).unwrap()
    };
    let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(ms);
    let cases = [
        (at(0), "1970-01-01T00:00:00.000Z"),
        (at(999), "1970-01-01T00:00:00.999Z"),
        (at(1000), "1970-01-01T00:00:01.000Z"),
        (at(951_782_399_050), "2000-02-28T23:59:59.050Z"),
        (at(951_782_400_000), "2000-02-29T00:00:00.000Z"),
        (at(1000), "1970-01-01T00:00:01.000Z"),
        (
            UNIX_EPOCH - Duration::from_secs(5),
            "1970-01-01T00:00:00.000Z",
        ),
    ];
    for (time, expected) in cases {
        assert_eq!(text(time), expected);
    }
    let far = text(at(u64::MAX / 2));
    assert!(far.starts_with("9999-12-"), "{far}");
}

#[test]
fn a_failed_handshake_is_a_line_of_its_own() {
    let full = HandshakeRecord {
        timestamp: UNIX_EPOCH + Duration::from_millis(1_769_862_896_007),
        duration: Duration::from_micros(12_345),
        listener: "shop/web/https",
        client: "203.0.113.9:4711".parse().unwrap(),
        reason: Reason::ClientCertificate,
        detail: "refused: \"UnknownIssuer\"",
        snapshot_version: "v7",
        sni: Some("shop.example"),
    };
    let parsed = |record: &HandshakeRecord<'_>| -> Value {
        let mut out = Vec::new();
        JsonFormat::default().write_handshake(&mut out, record);
        serde_json::from_slice(out.strip_suffix(b"\n").unwrap()).unwrap()
    };
    let expected = json!({
        "timestamp": "2026-01-31T12:34:56.007Z", "event": "tls_handshake", "protocol": "tls",
        "listener": "shop/web/https", "client_ip": "203.0.113.9", "client_port": 4711,
        "duration_ms": 12.345, "reason": "client_certificate", "response_flags": "AD",
        "detail": "refused: \"UnknownIssuer\"", "snapshot_version": "v7", "sni": "shop.example",
    });
    assert_eq!(parsed(&full), expected);
    let bare = HandshakeRecord {
        listener: "",
        detail: "",
        sni: None,
        ..full
    };
    let bare = parsed(&bare);
    for name in ["listener", "detail", "sni"] {
        assert_eq!(bare.get(name), None, "{name}");
    }
}

#[test]
fn a_call_to_an_ai_service_says_what_it_used_and_no_more() {
    let call = GenAi {
        operation: "chat",
        provider: "openai",
        request_model: "fast\"",
        response_model: "m-1",
        input_tokens: Some(12),
        cached_tokens: Some(4),
        output_tokens: Some(3),
        is_estimated: true,
        finish_reason: "stop",
        cost: Some(0.000_002_5),
        first_token: Some(Duration::from_micros(1500)),
        output_chunk: Some(Duration::from_micros(2500)),
        error: "",
        redacted: 2,
        ..GenAi::default()
    };
    let record = Record {
        gen_ai: Some(&call),
        ..full()
    };
    let value = parsed(&record);
    for (name, expected) in [
        ("gen_ai_operation", Value::from("chat")),
        ("gen_ai_provider", "openai".into()),
        ("gen_ai_request_model", "fast\"".into()),
        ("gen_ai_response_model", "m-1".into()),
        ("gen_ai_input_tokens", 12.into()),
        ("gen_ai_cached_tokens", 4.into()),
        ("gen_ai_output_tokens", 3.into()),
        ("gen_ai_tokens_estimated", true.into()),
        ("gen_ai_finish_reason", "stop".into()),
        ("gen_ai_cost", 0.000_002_5.into()),
        ("gen_ai_time_to_first_token_ms", 1.5.into()),
        ("gen_ai_time_per_output_chunk_ms", 2.5.into()),
        ("gen_ai_error", Value::Null),
        ("gen_ai_redacted", 2.into()),
    ] {
        assert_eq!(value[name], expected, "{name}");
    }
}
