//! Tests of format strings: every variable of the contract, what is refused, what cannot break out.

use std::time::UNIX_EPOCH;

use super::*;
use crate::access_log::format::tests::full;
use crate::reason::Reason;

fn record() -> Record<'static> {
    static CALL: GenAi<'static> = GenAi {
        operation: "chat",
        provider: "openai",
        request_model: "gpt-x",
        response_model: "gpt-x-1",
        input_tokens: Some(7),
        cached_tokens: None,
        output_tokens: Some(9),
        is_estimated: false,
        finish_reason: "stop",
        cost: Some(0.25),
        first_token: None,
        output_chunk: None,
        error: "over_budget",
        redacted: 0,
        is_stream: false,
        cache_write_tokens: None,
        reasoning_tokens: None,
    };
    Record {
        scheme: "https",
        upstream_host: b"cart.internal",
        upstream_path: b"/v2?item=1",
        status: 503,
        grpc_status: Some(crate::GrpcStatus::read(b"14")),
        bytes_sent: 99,
        destination: Destination {
            upstream_addr: Some("[::1]:8080".parse().unwrap()),
            ..full().destination
        },
        reason: Reason::NoEndpoint,
        client_certificate: Some(ClientCertificate {
            subject: "CN=worker",
            name: "spiffe://shop.example/worker",
            fingerprint: "00ff",
        }),
        gen_ai: Some(&CALL),
        ..full()
    }
}

fn written(format: &str, facts: &Facts<'_>) -> String {
    let mut out = Vec::new();
    let template = Template::parse(format).unwrap();
    template.write(&mut out, &mut ClockText::default(), facts);
    let line = String::from_utf8(out).unwrap();
    line.strip_suffix('\n').unwrap().to_owned()
}

/// Every variable and its value for [`record`]; a dash where a request has none.
const VALUES: &[(&str, &str)] = &[
    ("TIMESTAMP", "2026-01-31T12:34:56.007Z"),
    ("EVENT", "http_request"),
    ("PROTOCOL", "HTTP/1.1"),
    ("LISTENER", "shop/web"),
    ("CLIENT_IP", "203.0.113.9"),
    ("CLIENT_PORT", "40000"),
    ("SCHEME", "https"),
    ("HOST", "shop.example"),
    ("METHOD", "GET"),
    ("PATH", "/cart?item=1"),
    ("REQUEST", "GET /cart?item=1 HTTP/1.1"),
    ("REQUEST_ID", "r-1"),
    ("REFERER", "https://shop.example/"),
    ("USER_AGENT", "curl/8"),
    ("ROUTE_KIND", "Http"),
    ("ROUTE_NAMESPACE", "shop"),
    ("ROUTE_NAME", "cart"),
    ("RULE", "2"),
    ("BACKEND", "shop/cart:80"),
    ("UPSTREAM_ADDR", "[::1]:8080"),
    ("UPSTREAM_CONNECT_TIME_MS", "0.090"),
    ("UPSTREAM_HOST", "cart.internal"),
    ("UPSTREAM_PATH", "/v2?item=1"),
    ("STATUS", "503"),
    ("GRPC_STATUS", "14"),
    ("LATENCY_MS", "12.345"),
    ("REQUEST_TIME", "0.012"),
    ("ROUTING_TIME_MS", "0.070"),
    ("FIRST_BYTE_MS", "8.000"),
    ("BYTES_RECEIVED", "310"),
    ("BYTES_SENT", "99"),
    ("DATAGRAMS_RECEIVED", "-"),
    ("DATAGRAMS_SENT", "-"),
    ("SNAPSHOT_VERSION", "v7"),
    ("RETRY_ATTEMPTS", "1"),
    ("RESPONSE_FLAGS", "UH"),
    ("REASON", "no_endpoint"),
    ("DETAIL", "-"),
    ("TLS_VERSION", "TLSv1.3"),
    ("SNI", "shop.example"),
    ("CLIENT_CERT_SUBJECT", "CN=worker"),
    ("CLIENT_CERT_SAN", "spiffe://shop.example/worker"),
    ("CLIENT_CERT_SHA256", "00ff"),
    ("TRACE_ID", "000000000000000000000000000000ab"),
    ("SPAN_ID", "00000000000000cd"),
    ("GEN_AI_OPERATION", "chat"),
    ("GEN_AI_PROVIDER", "openai"),
    ("GEN_AI_REQUEST_MODEL", "gpt-x"),
    ("GEN_AI_RESPONSE_MODEL", "gpt-x-1"),
    ("GEN_AI_INPUT_TOKENS", "7"),
    ("GEN_AI_OUTPUT_TOKENS", "9"),
    ("GEN_AI_FINISH_REASON", "stop"),
    ("GEN_AI_COST", "0.25"),
    ("GEN_AI_ERROR", "over_budget"),
];

#[test]
fn every_variable_has_its_value() {
    let named: Vec<_> = VALUES.iter().map(|(name, _)| *name).collect();
    assert_eq!(variables().collect::<Vec<_>>(), named);
    let record = record();
    for (name, expected) in VALUES {
        let facts = Facts::Request(&record);
        assert_eq!(written(&format!("%{name}%"), &facts), *expected, "{name}");
        let small = format!("<${}>", name.to_lowercase());
        assert_eq!(written(&small, &facts), format!("<{expected}>"), "{small}");
    }
}

#[test]
fn nginx_spellings_mean_the_same() {
    let record = record();
    for (dollar, named) in [
        ("$remote_addr:$remote_port", "%CLIENT_IP%:%CLIENT_PORT%"),
        ("$scheme://$host$request_uri", "%SCHEME%://%HOST%%PATH%"),
        ("$http_user_agent $http_referer", "%USER_AGENT% %REFERER%"),
        (
            "$body_bytes_sent $request_time",
            "%BYTES_SENT% %REQUEST_TIME%",
        ),
        ("[$time_iso8601] $request_method", "[%TIMESTAMP%] %METHOD%"),
        ("$server_protocol $ssl_protocol", "%PROTOCOL% %TLS_VERSION%"),
    ] {
        let facts = Facts::Request(&record);
        assert_eq!(written(dollar, &facts), written(named, &facts), "{dollar}");
    }
}

#[test]
fn the_default_format_is_that_of_the_contract() {
    assert_eq!(
        written(DEFAULT_FORMAT, &Facts::Request(&record())),
        "203.0.113.9 - - [2026-01-31T12:34:56.007Z] \"GET /cart?item=1 HTTP/1.1\" 503 99 \
         \"https://shop.example/\" \"curl/8\" 12.345ms [::1]:8080 uct=0.090ms rt=shop/cart \
         rid=r-1 flags=UH retries=1 sn=v7"
    );
    assert_eq!(
        Template::default(),
        Template::parse(DEFAULT_FORMAT).unwrap()
    );
}

#[test]
fn signs_and_faults() {
    let record = record();
    let facts = Facts::Request(&record);
    assert_eq!(
        written("100%% of $$5 $ %STATUS%", &facts),
        "100% of $5 $ 503"
    );
    for (format, expected) in [
        ("%NOPE%", FormatError::Unknown("%NOPE%".to_owned())),
        ("%status%", FormatError::Unknown("%status%".to_owned())),
        ("$nope", FormatError::Unknown("$nope".to_owned())),
        ("50% of", FormatError::Percent),
        (&"x".repeat(9000), FormatError::TooLong),
    ] {
        assert_eq!(Template::parse(format), Err(expected), "{format}");
    }
}

#[test]
fn nobody_ends_a_field_or_a_line() {
    let evil = Record {
        path: b"/\" 200 \"x\r\nGET /forged",
        user_agent: b"\\\" \x1b[2J \xff",
        ..record()
    };
    let line = written("\"%PATH%\" \"%USER_AGENT%\"", &Facts::Request(&evil));
    assert_eq!(
        line,
        "\"/\\\" 200 \\\"x\\r\\nGET /forged\" \"\\\\\\\" \\u001b[2J \u{fffd}\""
    );
}

#[test]
fn sessions_and_handshakes_have_the_variables_they_know() {
    let session = StreamRecord {
        duration: Duration::from_millis(1500),
        listener: "infra/dns",
        bytes_received: 1,
        bytes_sent: 2,
        datagrams: Some((3, 4)),
        destination: Destination {
            route: Some("UdpRoute/shop/dns"),
            rule: Some(0),
            backend: Some("shop/dns:53"),
            upstream_addr: Some("10.0.0.1:53".parse().unwrap()),
            attempts: 1,
            ..Destination::NOWHERE
        },
        reason: Reason::IdleTimeout,
        snapshot_version: "v7",
        ..StreamRecord::unknown("udp", "203.0.113.9:53".parse().unwrap())
    };
    let format = "%EVENT% %PROTOCOL% %CLIENT_IP%:%CLIENT_PORT% %DATAGRAMS_RECEIVED%/%DATAGRAMS_SENT% \
        %LATENCY_MS% %ROUTE_NAME% %UPSTREAM_ADDR% %STATUS% %REASON%";
    assert_eq!(
        written(format, &Facts::Stream(&session)),
        "stream_session udp 203.0.113.9:53 3/4 1500.000 dns 10.0.0.1:53 - idle_timeout"
    );
    let handshake = HandshakeRecord {
        timestamp: UNIX_EPOCH,
        duration: Duration::from_millis(2),
        listener: "",
        client: "203.0.113.9:5000".parse().unwrap(),
        reason: Reason::UnknownServerName,
        detail: "no listener has that name",
        snapshot_version: "v7",
        sni: Some("x.example"),
    };
    assert_eq!(
        written(
            "%EVENT% %LISTENER% %SNI% \"%DETAIL%\" $reason",
            &Facts::Handshake(&handshake)
        ),
        "tls_handshake - x.example \"no listener has that name\" unknown_server_name"
    );
}
