//! What the filter answers, row by row; the names of Gateway API's conformance tests are beside
//! the rows that come from them.

use super::*;

const GET: &Method = &Method::GET;
const OPTIONS: &Method = &Method::OPTIONS;

fn cors(origins: &[&str]) -> ir::filter::Cors {
    ir::filter::Cors {
        allow_origins: texts(origins),
        max_age_seconds: 5,
        ..ir::filter::Cors::default()
    }
}

fn texts(items: &[&str]) -> Vec<String> {
    items.iter().map(|item| (*item).to_owned()).collect()
}

fn head(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

/// The response's fields as `name: value` lines, sorted, after the filter ran on `response`.
fn answered(
    cors: &ir::filter::Cors,
    method: &Method,
    request: &[(&'static str, &str)],
    response: &[(&'static str, &str)],
) -> Vec<String> {
    let asked = Asked::read(method, &head(request));
    let mut headers = head(response);
    Cors::compile(cors).unwrap().apply(&asked, &mut headers);
    let mut lines: Vec<_> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines
}

#[test]
fn origins_match_by_scheme_host_and_port() {
    for (pattern, origin, expected) in [
        ("*", "https://www.foo.com", true),
        ("*", "https://foobar.com:12345", true),
        ("*", "null", true),
        ("https://www.foo.com", "https://www.foo.com", true),
        ("https://www.foo.com", "HTTPS://WWW.foo.com", true),
        ("HTTPS://WWW.foo.com", "https://www.foo.com", true),
        ("https://www.foo.com", "http://www.foo.com", false),
        ("https://www.foo.com", "https://foo.com", false),
        ("https://www.foo.com", "https://www.foo.com:443", true),
        ("https://www.foo.com:443", "https://www.foo.com", true),
        ("https://www.foo.com", "https://www.foo.com:8443", false),
        ("https://www.foo.com:8443", "https://www.foo.com:8443", true),
        ("https://www.foo.com:8443", "https://www.foo.com", false),
        ("http://www.foo.com", "http://www.foo.com:80", true),
        ("https://*.bar.com", "https://www.bar.com", true),
        ("https://*.bar.com", "https://xpto.www.bar.com", true),
        ("https://*.bar.com", "https://bar.com", false),
        ("https://*.bar.com", "https://.bar.com", false),
        ("https://*.bar.com", "https://foobar.com", false),
        ("https://*.bar.com", "https://www.bar.com.evil.com", false),
        ("https://*.bar.com", "https://www.bar.com:8443", false),
        ("https://*.bar.com", "http://www.bar.com", false),
        ("https://*.bar.com", "https://evil.com/.bar.com", false),
        ("https://*.bar.com", "https://evil.com?.bar.com", false),
        ("https://*.bar.com", "https://a@b.bar.com", false),
        ("https://*.bar.com:8443", "https://www.bar.com:8443", true),
        ("https://*", "https://any.thing.example", true),
        ("https://*", "http://any.thing.example", false),
        ("https://*", "https://any.thing.example:1", false),
        ("https://*", "null", false),
        ("http://localhost:3000", "http://localhost:3000", true),
        ("http://[::1]:3000", "http://[::1]:3000", true),
        ("http://[::1]", "http://[::1]:80", true),
        ("http://[::1]", "http://[::2]", false),
        ("https://a.com", "https://a.com:", false),
        ("https://a.com", "https://a.com:+443", false),
        ("https://a.com", "https://a.com:99999", false),
        ("https://a.com", "a.com", false),
        ("https://a.com", "://a.com", false),
        ("https://a.com", "https://", false),
        ("https://a.com", "", false),
        ("app://a", "app://a", true),
        ("app://a", "app://a:1", false),
    ] {
        let lines = answered(&cors(&[pattern]), GET, &[("origin", origin)], &[]);
        let expected = match expected {
            true => vec![
                format!("access-control-allow-origin: {origin}"),
                "vary: Origin".to_owned(),
            ],
            false => vec!["vary: Origin".to_owned()],
        };
        assert_eq!(lines, expected, "{pattern} {origin}");
    }
}

#[test]
fn what_is_no_origin_is_refused_when_compiled() {
    for bad in [
        "",
        "foo.com",
        "https://",
        "https://a*",
        "https://*a.com",
        "https://a.*.com",
        "https://a.com:x",
        "https://a.com:70000",
        "https://a.com/x",
        "https://*.*.com",
    ] {
        let compiled = Cors::compile(&cors(&[bad]));
        assert_eq!(compiled, Err(FilterError::Origin(bad.to_owned())));
    }
    let mut bad = cors(&["*"]);
    bad.allow_headers = texts(&["x-a", "x\r\nb"]);
    assert!(Cors::compile(&bad).is_err());
}

#[test]
fn a_preflight_needs_options_an_origin_and_a_method() {
    let origin = ("origin", "https://a.com");
    let method = ("access-control-request-method", "PUT");
    for (verb, request, expected) in [
        (OPTIONS, &[origin, method][..], true),
        (GET, &[origin, method], false),
        (OPTIONS, &[origin], false),
        (OPTIONS, &[method], false),
        (OPTIONS, &[origin, origin, method], false),
        (OPTIONS, &[origin, method, method], false),
        (
            OPTIONS,
            &[origin, ("access-control-request-method", "P T")],
            false,
        ),
    ] {
        let asked = Asked::read(verb, &head(request));
        assert_eq!(asked.is_preflight(), expected, "{verb} {request:?}");
    }
}

/// The filter of the first route of HTTPRouteCORS.
fn listed() -> ir::filter::Cors {
    ir::filter::Cors {
        allow_methods: texts(&["GET", "OPTIONS"]),
        allow_headers: texts(&["x-header-1", "x-header-2"]),
        expose_headers: texts(&["x-header-3", "x-header-4"]),
        allow_credentials: true,
        max_age_seconds: 3600,
        ..cors(&["https://www.foo.com", "https://*.bar.com"])
    }
}

/// Everything is allowed, as in the last routes of HTTPRouteCORS.
fn everything(allow_credentials: bool) -> ir::filter::Cors {
    ir::filter::Cors {
        allow_methods: texts(&["*"]),
        allow_headers: texts(&["*"]),
        expose_headers: texts(&["*"]),
        allow_credentials,
        ..cors(&["*"])
    }
}

const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", "https://www.foo.com"),
    ("access-control-request-method", "PUT"),
    ("access-control-request-headers", "x-header-1,x-header-2"),
];

#[test]
fn a_preflight_is_told_all_that_is_allowed() {
    let vary = [
        "vary: Access-Control-Request-Headers",
        "vary: Access-Control-Request-Method",
        "vary: Origin",
    ];
    let check = |cors: &ir::filter::Cors, request: &[_], expected: &[&str]| {
        let lines = answered(cors, OPTIONS, request, &[]);
        let expected: Vec<_> = expected.iter().chain(&vary).copied().collect();
        assert_eq!(lines, expected, "{request:?}");
    };
    check(
        &listed(),
        &PREFLIGHT,
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-header-1, x-header-2",
            "access-control-allow-methods: GET, OPTIONS",
            "access-control-allow-origin: https://www.foo.com",
            "access-control-expose-headers: x-header-3, x-header-4",
            "access-control-max-age: 3600",
        ],
    );
    let not_allowed = [("origin", "https://foobar.com"), PREFLIGHT[1]];
    check(&listed(), &not_allowed, &[]);
    check(
        &everything(true),
        &PREFLIGHT,
        &[
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-header-1, x-header-2",
            "access-control-allow-methods: PUT",
            "access-control-allow-origin: https://www.foo.com",
            "access-control-expose-headers: vary",
            "access-control-max-age: 5",
        ],
    );
    check(
        &everything(false),
        &PREFLIGHT[..2],
        &[
            "access-control-allow-methods: PUT",
            "access-control-allow-origin: https://www.foo.com",
            "access-control-expose-headers: *",
            "access-control-max-age: 5",
        ],
    );
    check(
        &cors(&["https://www.foo.com"]),
        &PREFLIGHT,
        &[
            "access-control-allow-origin: https://www.foo.com",
            "access-control-max-age: 5",
        ],
    );
}

#[test]
fn names_asked_for_are_echoed_only_when_they_are_names() {
    for (asked, expected) in [
        (&["x-a"][..], Some("x-a")),
        (&["x-a , X-B,,"], Some("x-a, X-B")),
        (&["x-a", "authorization"], Some("x-a, authorization")),
        (&[""], None),
        (&["x-a, b c"], None),
        (&["x-a, \"b\""], None),
    ] {
        let mut request = PREFLIGHT[..2].to_vec();
        let field = "access-control-request-headers";
        request.extend(asked.iter().map(|value| (field, *value)));
        let lines = answered(&everything(true), OPTIONS, &request, &[]);
        let allowed = lines
            .iter()
            .find_map(|line| line.strip_prefix("access-control-allow-headers: "));
        assert_eq!(allowed, expected, "{asked:?}");
    }
}

#[test]
fn the_gateway_is_the_only_one_to_answer() {
    let from_backend = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-credentials", "true"),
        ("access-control-allow-methods", "DELETE"),
        ("access-control-allow-headers", "x-evil"),
        ("access-control-expose-headers", "x-secret"),
        ("access-control-max-age", "86400"),
        ("access-control-allow-private-network", "true"),
        ("x-other", "1"),
    ];
    // HTTPRouteCORSAllowCredentialsBehavior
    for (origin, credentials, expected) in [
        (
            "https://other.example",
            true,
            &["vary: Origin", "x-other: 1"][..],
        ),
        (
            "https://app.example",
            false,
            &[
                "access-control-allow-origin: https://app.example",
                "vary: Origin",
                "x-other: 1",
            ],
        ),
        (
            "https://app.example",
            true,
            &[
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://app.example",
                "vary: Origin",
                "x-other: 1",
            ],
        ),
    ] {
        let cors = ir::filter::Cors {
            allow_credentials: credentials,
            ..cors(&["https://app.example"])
        };
        let request = [("origin", origin), ("cookie", "sid=abc123")];
        assert_eq!(answered(&cors, GET, &request, &from_backend), expected);
    }
    let lines = answered(&listed(), GET, &[], &from_backend);
    assert_eq!(lines, ["vary: Origin", "x-other: 1"], "no origin, no word");
}

#[test]
fn with_credentials_all_exposed_names_are_written_out() {
    let request = [("origin", "https://a.com")];
    let response = [
        ("content-type", "text/plain"),
        ("set-cookie", "a=b"),
        ("x-b", "1"),
        ("x-a", "1"),
        ("vary", "*"),
    ];
    for (credentials, expected) in [(true, "x-b, x-a, vary"), (false, "*")] {
        let lines = answered(&everything(credentials), GET, &request, &response);
        let line = format!("access-control-expose-headers: {expected}");
        assert!(lines.contains(&line), "{lines:?}");
    }
}

#[test]
fn vary_is_said_once() {
    for (before, after) in [
        ("Origin", &["Origin"][..]),
        ("accept, ORIGIN", &["accept, ORIGIN"]),
        ("*", &["*"]),
        ("Accept", &["Accept", "Origin"]),
    ] {
        let mut headers = head(&[("vary", before)]);
        let asked = Asked::read(GET, &HeaderMap::new());
        let cors = Cors::compile(&cors(&["*"])).unwrap();
        cors.apply(&asked, &mut headers);
        let values: Vec<_> = headers.get_all("vary").iter().collect();
        assert_eq!(values, after, "{before}");
    }
}
