//! What spans say: names, attributes and statuses by the semantic conventions, as tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::access_log::Destination;
use crate::trace::AskedModel;
use crate::trace::ended::Ended;
use crate::trace_context::Forms;

fn record() -> Record<'static> {
    Record {
        timestamp: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
        latency: Duration::from_millis(50),
        listener: "infra/gw/http",
        client_ip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7)),
        client_port: 40_000,
        scheme: "https",
        method: "GET",
        host: b"shop.example:8443",
        path: b"/items?sig=abc&q=1",
        upstream_host: b"items.internal:8443",
        upstream_path: b"/v2/items?sig=abc&q=1",
        protocol: "HTTP/2.0",
        status: 200,
        destination: Destination {
            route: Some("shop/items"),
            rule: Some(1),
            backend: Some("shop/items:80"),
            attempts: 2,
            ..Destination::NOWHERE
        },
        request_id: b"id-1",
        user_agent: b"curl/8",
        snapshot_version: "v7",
        tls_version: Some("TLSv1.3"),
        ..Record::unknown()
    }
}

fn attempt(status: u16, failure: Option<Reason>) -> Attempt {
    Attempt {
        span_id: 0xa,
        began: Duration::from_millis(10),
        ended: Some(Duration::from_millis(20)),
        endpoint: Some(([10, 0, 0, 1], 8080).into()),
        is_tls: false,
        status,
        failure,
        model: None,
    }
}

/// An attempt at a language model.
fn asking(provider: &str, name: &str, server: &str, status: u16) -> Attempt {
    Attempt {
        model: Some(Box::new(AskedModel {
            operation: "chat",
            provider: provider.to_owned(),
            name: name.to_owned(),
            server: server.to_owned(),
            path: "/v1/chat/completions?api-version=1".to_owned(),
        })),
        ..attempt(status, None)
    }
}

fn active(attempts: Vec<Attempt>) -> Active {
    Active {
        is_exported: true,
        watchers: Vec::new(),
        steps: Vec::new(),
        trace_id: 0x0123,
        span_id: 0x45,
        parent: Some(0x67),
        state: "vendor=1".to_owned(),
        forms: Forms::default(),
        http_route: Some("/items".to_owned()),
        attempts,
    }
}

fn made(record: &Record<'_>, active: Active, config: Option<&str>) -> Vec<SpanData> {
    let ended = Ended::new(record, Box::new(active), config);
    let spans = ended.spans(&InstrumentationScope::default());
    assert_eq!(spans.len(), ended.span_count());
    spans
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    let pairs = span.attributes.iter();
    pairs
        .map(|it| (it.key.to_string(), it.value.to_string()))
        .collect()
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let pairs = pairs.iter();
    pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

#[test]
fn a_request_with_two_attempts_is_three_spans() {
    let attempts = vec![
        attempt(503, None),
        Attempt {
            span_id: 0xb,
            began: Duration::from_millis(30),
            ended: None,
            ..attempt(200, None)
        },
    ];
    let link = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let spans = made(&record(), active(attempts), Some(link));
    let [first, second, server] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(
        attributes(server),
        texts(&[
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("http.route", "/items"),
            ("url.scheme", "https"),
            ("url.path", "/items"),
            ("url.query", "sig=REDACTED&q=1"),
            ("server.address", "shop.example"),
            ("server.port", "8443"),
            ("client.address", "203.0.113.7"),
            ("network.protocol.version", "2"),
            ("tls.protocol.version", "1.3"),
            ("user_agent.original", "curl/8"),
            ("nantian.listener", "infra/gw/http"),
            ("nantian.route", "shop/items"),
            ("nantian.rule", "1"),
            ("nantian.backend", "shop/items:80"),
            ("nantian.reason", "ok"),
            ("nantian.config.version", "v7"),
            ("nantian.request_id", "id-1"),
            ("nantian.attempts", "2"),
        ])
    );
    assert_eq!(
        (&*server.name, &server.span_kind),
        ("GET /items", &SpanKind::Server)
    );
    assert_eq!(server.parent_span_id, SpanId::from(0x67));
    assert!(server.parent_span_is_remote);
    assert_eq!(server.status, Status::Unset);
    let [link] = &server.links[..] else {
        panic!("{:?}", server.links)
    };
    assert_eq!(
        link.span_context.span_id(),
        SpanId::from(0x00f0_67aa_0ba9_02b7)
    );

    assert_eq!(
        attributes(first),
        texts(&[
            ("http.request.method", "GET"),
            ("http.response.status_code", "503"),
            ("error.type", "503"),
            (
                "url.full",
                "http://items.internal:8443/v2/items?sig=REDACTED&q=1"
            ),
            ("server.address", "items.internal"),
            ("server.port", "8443"),
            ("network.peer.address", "10.0.0.1"),
            ("network.peer.port", "8080"),
            ("nantian.backend", "shop/items:80"),
        ])
    );
    assert_eq!(first.status, Status::error(""));
    assert_eq!(attributes(second)["http.request.resend_count"], "1");
    for (span, id) in [(first, 0xa), (second, 0xb)] {
        assert_eq!((&*span.name, &span.span_kind), ("GET", &SpanKind::Client));
        assert_eq!(span.span_context.span_id(), SpanId::from(id));
        assert_eq!(span.parent_span_id, server.span_context.span_id());
        assert!(span.start_time >= server.start_time && span.end_time <= server.end_time);
    }
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), TraceId::from(0x0123));
        assert_eq!(span.span_context.trace_state().header(), "vendor=1");
    }
}

#[test]
fn codes_of_grpc_decide_as_the_conventions_say() {
    for (code, reason, status, error) in [
        ("0", Reason::Ok, Status::Unset, None),
        ("5", Reason::Ok, Status::Unset, None),
        ("7", Reason::AddressDenied, Status::Unset, None),
        ("13", Reason::Ok, Status::error(""), Some("13")),
        (
            "14",
            Reason::NoEndpoint,
            Status::error("no_endpoint"),
            Some("no_endpoint"),
        ),
    ] {
        let record = Record {
            grpc_status: Some(GrpcStatus::read(code.as_bytes())),
            reason,
            ..record()
        };
        let spans = made(&record, active(Vec::new()), None);
        let told = attributes(&spans[0]);
        assert_eq!(told["rpc.grpc.status_code"], code);
        assert_eq!(told.get("error.type").map(String::as_str), error, "{code}");
        assert_eq!(spans[0].status, status, "{code}");
    }
}

#[test]
fn statuses_of_servers_follow_the_conventions() {
    let cases = [
        (200, Reason::Ok, Status::Unset, ""),
        (404, Reason::Ok, Status::Unset, ""),
        (404, Reason::RouteNotFound, Status::Unset, ""),
        (429, Reason::RateLimited, Status::Unset, ""),
        (500, Reason::Ok, Status::error(""), "500"),
        (
            502,
            Reason::ConnectFailed,
            Status::error("connect_failed"),
            "connect_failed",
        ),
        // The head was sent before it broke.
        (
            200,
            Reason::UpstreamReset,
            Status::error("upstream_reset"),
            "upstream_reset",
        ),
        (0, Reason::ClientAborted, Status::Unset, "client_aborted"),
    ];
    for (status, reason, expected, error) in cases {
        let record = Record {
            status,
            reason,
            ..record()
        };
        let spans = made(&record, active(Vec::new()), None);
        assert_eq!(spans[0].status, expected, "{status} {reason:?}");
        let told = attributes(&spans[0]).remove("error.type");
        assert_eq!(told.unwrap_or_default(), error, "{status} {reason:?}");
    }
}

#[test]
fn statuses_of_clients_follow_the_conventions() {
    let cases = [
        (200, None, Status::Unset, ""),
        (404, None, Status::error(""), "404"),
        (503, None, Status::error(""), "503"),
        (
            0,
            Some(Reason::ConnectTimeout),
            Status::error("connect_timeout"),
            "connect_timeout",
        ),
        (
            200,
            Some(Reason::UpstreamReset),
            Status::error("upstream_reset"),
            "upstream_reset",
        ),
        (
            200,
            Some(Reason::ClientAborted),
            Status::Unset,
            "client_aborted",
        ),
    ];
    for (status, failure, expected, error) in cases {
        let spans = made(&record(), active(vec![attempt(status, failure)]), None);
        assert_eq!(spans[0].status, expected, "{status} {failure:?}");
        let told = attributes(&spans[0]).remove("error.type");
        assert_eq!(told.unwrap_or_default(), error, "{status} {failure:?}");
    }
}

#[test]
fn names_have_few_values() {
    let cases = [
        ("GET", Some("/items"), "GET /items", "GET"),
        ("POST", None, "POST", "POST"),
        ("BREW", Some("/pot"), "HTTP /pot", "HTTP"),
        ("BREW", None, "HTTP", "HTTP"),
    ];
    for (method, route, server, client) in cases {
        let record = Record { method, ..record() };
        let active = Active {
            http_route: route.map(str::to_owned),
            ..active(vec![attempt(200, None)])
        };
        let spans = made(&record, active, None);
        assert_eq!((&*spans[0].name, &*spans[1].name), (client, server));
        let written = attributes(&spans[1]);
        let is_known = method != "BREW";
        let expected = if is_known { method } else { "_OTHER" };
        assert_eq!(written["http.request.method"], expected);
        assert_eq!(
            written.contains_key("http.request.method_original"),
            !is_known
        );
    }
}

#[test]
fn each_attempt_at_a_model_tells_whom_it_asked_and_the_last_what_was_answered() {
    let call = GenAi {
        operation: "chat",
        provider: "openai",
        request_model: "fast",
        response_model: "gpt-x-1",
        is_stream: true,
        input_tokens: Some(7),
        cache_write_tokens: Some(3),
        reasoning_tokens: Some(4),
        output_tokens: Some(9),
        finish_reason: "stop",
        first_token: Some(Duration::from_millis(250)),
        ..GenAi::default()
    };
    let record = Record {
        gen_ai: Some(&call),
        ..record()
    };
    let spans = made(
        &record,
        active(vec![
            asking("anthropic", "claude-x", "[::1]", 529),
            asking("openai", "gpt-x", "api.example:8443", 200),
        ]),
        None,
    );
    let told = attributes(&spans[0]);
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "anthropic"),
        ("gen_ai.request.model", "claude-x"),
        ("server.address", "::1"),
        ("server.port", "80"),
        ("url.full", "http://[::1]/v1/chat/completions?api-version=1"),
        ("http.response.status_code", "529"),
        ("error.type", "529"),
    ] {
        assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}");
    }
    let of_answer =
        |key: &&String| key.starts_with("gen_ai.usage") || key.starts_with("gen_ai.resp");
    assert_eq!(told.keys().find(of_answer), None);
    assert_eq!(spans[0].name, "chat claude-x");
    let told = attributes(&spans[1]);
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-x"),
        ("gen_ai.response.model", "gpt-x-1"),
        ("gen_ai.usage.input_tokens", "7"),
        ("gen_ai.usage.output_tokens", "9"),
        ("gen_ai.response.finish_reasons", "[\"stop\"]"),
        ("gen_ai.response.time_to_first_chunk", "0.25"),
        ("gen_ai.usage.cache_creation.input_tokens", "3"),
        ("gen_ai.usage.reasoning.output_tokens", "4"),
        ("gen_ai.request.stream", "true"),
        ("server.address", "api.example"),
        ("server.port", "8443"),
        (
            "url.full",
            "http://api.example:8443/v1/chat/completions?api-version=1",
        ),
    ] {
        assert_eq!(told.get(key).map(String::as_str), Some(value), "{key}");
    }
    assert_eq!(spans[1].name, "chat gpt-x");
    let told = attributes(&spans[2]);
    assert!(
        !told.keys().any(|key| key.starts_with("gen_ai.")),
        "{told:?}"
    );
}

#[test]
fn a_stream_that_breaks_off_is_an_error_of_the_attempt() {
    let call = GenAi {
        operation: "chat",
        error: "stream_broken",
        ..GenAi::default()
    };
    let record = Record {
        gen_ai: Some(&call),
        ..record()
    };
    let spans = made(&record, active(vec![attempt(200, None)]), None);
    let told = attributes(&spans[0]);
    assert_eq!(told["error.type"], "stream_broken");
    assert_eq!(spans[0].status, Status::error("stream_broken"));
}

#[test]
fn what_clients_and_providers_say_is_cut() {
    let long = "é".repeat(50_000);
    let call = GenAi {
        operation: "chat",
        request_model: &long,
        response_model: &long,
        ..GenAi::default()
    };
    let record = Record {
        gen_ai: Some(&call),
        host: long.as_bytes(),
        path: long.as_bytes(),
        upstream_host: long.as_bytes(),
        upstream_path: long.as_bytes(),
        user_agent: long.as_bytes(),
        ..record()
    };
    let asked = Active {
        http_route: Some(long.clone()),
        ..active(vec![attempt(200, None), asking(&long, &long, &long, 200)])
    };
    for span in made(&record, asked, None) {
        assert!(
            span.name.len() <= TEXT_BYTES_MAX + 10,
            "{}",
            span.name.len()
        );
        for attribute in &span.attributes {
            let length = attribute.value.as_str().len();
            assert!(length <= TEXT_BYTES_MAX, "{} {length}", attribute.key);
        }
    }
}

#[test]
fn hosts_and_versions() {
    for (authority, scheme, expected) in [
        ("a.example", "http", ("a.example", 80)),
        ("a.example", "https", ("a.example", 443)),
        ("a.example:81", "https", ("a.example", 81)),
        ("[::1]:81", "http", ("::1", 81)),
        ("[::1]", "http", ("::1", 80)),
        ("", "http", ("", 80)),
    ] {
        assert_eq!(host_and_port(authority, scheme), expected, "{authority}");
    }
    for (protocol, expected) in [("HTTP/1.0", "1.0"), ("HTTP/1.1", "1.1"), ("HTTP/2.0", "2")] {
        assert_eq!(version(protocol), expected);
    }
}
