//! The specification's examples and its order of precedence, a line at a time.

use crate::routes::{And, AnyRoute, Sent, call, call_regex, exact, prefix, regex, table};

fn check(routes: &[AnyRoute], rows: &[(Sent, Option<&str>)]) {
    // The order in which routes come must not matter.
    let backwards: Vec<AnyRoute> = routes.iter().rev().cloned().collect();
    for table in [table(routes), table(&backwards)] {
        for (sent, expected) in rows {
            let found = table.lookup(&sent.request());
            let name = found.map(|found| found.rule.as_str());
            assert_eq!(name, *expected, "{sent:?}");
        }
    }
}

fn get(target: &str) -> Sent {
    Sent::get("www.example.com", target)
}

#[test]
fn a_prefix_matches_whole_segments() {
    let routes = [AnyRoute::http("ns/r", &[], vec![vec![prefix("/foo")]])];
    let hit = Some("ns/r#0");
    check(
        &routes,
        &[
            (get("/foo"), hit),
            (get("/foo/"), hit),
            (get("/foo/x"), hit),
            (get("/foo//x"), hit),
            (get("/foo?x=/"), hit),
            (get("/foobar"), None),
            (get("/fo"), None),
            (get("/Foo"), None),
            (get("/"), None),
            (get("//foo"), None),
            (get("/x/foo"), None),
        ],
    );
    // A trailing slash in the configured value says nothing.
    let routes = [AnyRoute::http("ns/r", &[], vec![vec![prefix("/foo/")]])];
    check(&routes, &[(get("/foo"), hit), (get("/foo/x"), hit)]);
}

#[test]
fn an_exact_path_matches_byte_for_byte() {
    let routes = [AnyRoute::http(
        "ns/r",
        &[],
        vec![vec![exact("/foo"), exact("/")]],
    )];
    let hit = Some("ns/r#0");
    check(
        &routes,
        &[
            (get("/foo"), hit),
            (get("/foo?x"), hit),
            (get("/"), hit),
            (get("/foo/"), None),
            (get("/foo/x"), None),
            (get("/FOO"), None),
        ],
    );
}

/// Requests come in normal form, see `http/src/path.rs`.
#[test]
fn a_path_matches_however_its_escapes_are_written() {
    for (written, sent) in [
        ("/%7Euser/%2d%41", "/~user/-A"),
        ("/a%2fb%c3%a9", "/a%2Fb%C3%A9"),
        ("/é!$&", "/%C3%A9!$&"),
        ("/100%/%zz", "/100%/%zz"),
    ] {
        for path in [exact(written), prefix(written)] {
            let routes = [AnyRoute::http("ns/r", &[], vec![vec![path]])];
            check(&routes, &[(get(sent), Some("ns/r#0"))]);
        }
    }
}

#[test]
fn a_regular_expression_matches_the_whole_path() {
    let routes = [AnyRoute::http("ns/r", &[], vec![vec![regex("/v[0-9]+/x")]])];
    let hit = Some("ns/r#0");
    check(
        &routes,
        &[
            (get("/v12/x"), hit),
            (get("/v12/x/y"), None),
            (get("/a/v12/x"), None),
            (get("/v/x"), None),
        ],
    );
}

#[test]
fn the_found_prefix_is_told_without_its_trailing_slash() {
    let routes = [AnyRoute::http(
        "ns/r",
        &[],
        vec![vec![prefix("/"), prefix("/foo"), exact("/e"), regex("/r.")]],
    )];
    let table = table(&routes);
    for (path, expected) in [
        ("/", Some(0)),
        ("/x", Some(0)),
        ("*", Some(0)),
        ("/foo", Some(4)),
        ("/foo/", Some(4)),
        ("/foo/x", Some(4)),
        ("/e", None),
        ("/rr", None),
    ] {
        let sent = get(path);
        let found = table.lookup(&sent.request()).unwrap();
        assert_eq!(found.prefix_len, expected, "{path}");
    }
}

#[test]
fn matches_are_alternatives_and_conditions_hold_together() {
    // The example of HTTPRoute.rules.matches.
    let routes = [AnyRoute::http(
        "ns/r",
        &[],
        vec![vec![
            prefix("/foo").header("version", "v2"),
            prefix("/v2/foo"),
        ]],
    )];
    let hit = Some("ns/r#0");
    check(
        &routes,
        &[
            (get("/foo").with("version", "v2"), hit),
            (get("/v2/foo"), hit),
            (get("/foo"), None),
            (get("/foo").with("version", "v1"), None),
            (get("/bar").with("version", "v2"), None),
        ],
    );
}

#[test]
fn host_names_go_from_specific_to_general() {
    let routes: Vec<AnyRoute> = [
        ("ns/exact", &["foo.example.com"][..]),
        ("ns/long", &["*.foo.example.com"]),
        ("ns/short", &["*.example.com"]),
        ("ns/any", &[]),
    ]
    .into_iter()
    .map(|(key, hosts)| AnyRoute::http(key, hosts, vec![vec![prefix("/")]]))
    .collect();
    check(
        &routes,
        &[
            (Sent::get("foo.example.com", "/"), Some("ns/exact#0")),
            (Sent::get("a.foo.example.com", "/"), Some("ns/long#0")),
            (Sent::get("a.b.foo.example.com", "/"), Some("ns/long#0")),
            (Sent::get("bar.example.com", "/"), Some("ns/short#0")),
            (Sent::get("example.com", "/"), Some("ns/any#0")),
            (Sent::get("", "/"), Some("ns/any#0")),
        ],
    );
}

#[test]
fn a_host_without_a_matching_rule_falls_through_to_the_next() {
    let routes = [
        AnyRoute::http("ns/exact", &["www.example.com"], vec![vec![exact("/a")]]),
        AnyRoute::http("ns/wild", &["*.example.com"], vec![vec![prefix("/b")]]),
        AnyRoute::http("ns/any", &[], vec![vec![prefix("/c")]]),
    ];
    check(
        &routes,
        &[
            (get("/a"), Some("ns/exact#0")),
            (get("/b/x"), Some("ns/wild#0")),
            (get("/c"), Some("ns/any#0")),
            (get("/d"), None),
        ],
    );
}

#[test]
fn precedence_follows_the_list_of_the_specification() {
    // Each line goes before all lines below it; the request matches every one.
    let in_order = [
        exact("/foo/bar").method("GET").header("x-a", "1"),
        exact("/foo/bar").method("GET"),
        exact("/foo/bar"),
        regex("/(foo|baz)/bar").query("q", "1"),
        regex("/(foo|baz)/bar"),
        regex("/foo/.*"),
        prefix("/foo/bar"),
        prefix("/foo").method("GET"),
        prefix("/foo").header("x-a", "1").header("x-b", "2"),
        prefix("/foo").header("x-a", "1").query("q", "1"),
        prefix("/foo").header("x-a", "1"),
        prefix("/foo").query("q", "1").query("r", "2"),
        prefix("/foo").query("q", "1"),
        prefix("/foo"),
        prefix("/").method("GET").header("x-a", "1"),
        prefix("/"),
    ];
    let sent = get("/foo/bar?q=1&r=2").with("x-a", "1").with("x-b", "2");
    for first in 0..in_order.len() {
        // From the last to the first, so that the order of rules points the other way.
        let rules = in_order[first..].iter().rev();
        let routes = [AnyRoute::http(
            "ns/r",
            &[],
            rules.map(|route_match| vec![route_match.clone()]).collect(),
        )];
        let expected = format!("ns/r#{}", in_order.len() - first - 1);
        check(&routes, &[(sent.clone(), Some(&expected))]);
    }
}

#[test]
fn equal_matches_go_to_the_older_route_then_by_name_then_by_rule() {
    let route =
        |key, age| AnyRoute::http(key, &[], vec![vec![prefix("/")], vec![prefix("/")]]).aged(age);
    for (one, other, expected) in [
        (route("ns/b", Some(1)), route("ns/a", Some(2)), "ns/b#0"),
        (route("ns/b", Some(1)), route("ns/a", Some(1)), "ns/a#0"),
        (route("ns/b", Some(1)), route("ns/a", None), "ns/b#0"),
        (route("ns/b", None), route("ns/a", None), "ns/a#0"),
        (route("a-b/x", None), route("a/x", None), "a-b/x#0"),
    ] {
        check(&[one, other], &[(get("/"), Some(expected))]);
    }
}

#[test]
fn a_more_specific_match_wins_over_an_older_route() {
    let routes = [
        AnyRoute::http("ns/old", &[], vec![vec![prefix("/foo")]]).aged(Some(1)),
        AnyRoute::http("ns/young", &[], vec![vec![prefix("/foo/bar")]]).aged(Some(2)),
    ];
    check(
        &routes,
        &[
            (get("/foo/bar"), Some("ns/young#0")),
            (get("/foo/baz"), Some("ns/old#0")),
        ],
    );
}

fn grpc(path: &str) -> Sent {
    Sent::call("www.example.com", path)
}

#[test]
fn grpc_precedence_counts_service_then_method_then_headers() {
    let mut with_header = call(None, Some("M"));
    with_header.headers = call_header();
    let mut any_with_header = call(None, None);
    any_with_header.headers = call_header();
    let in_order = [
        call(Some("a.S"), Some("M")),
        call(Some("a.S"), None),
        with_header,
        call(None, Some("M")),
        call_regex(Some("a\\..*"), None),
        call_regex(Some(".*"), Some("M")),
        call_regex(None, Some("M|N")),
        any_with_header,
        call(None, None),
    ];
    let sent = grpc("/a.S/M").with("x-a", "1");
    for first in 0..in_order.len() {
        let rules = in_order[first..].iter().rev();
        let routes = [AnyRoute::grpc(
            "ns/r",
            &[],
            rules.map(|route_match| vec![route_match.clone()]).collect(),
        )];
        let expected = format!("ns/r#{}", in_order.len() - first - 1);
        check(&routes, &[(sent.clone(), Some(&expected))]);
    }
}

fn call_header() -> Vec<ir::http_route::ValueMatch> {
    vec![crate::routes::equals("x-a", "1")]
}

#[test]
fn grpc_routes_take_grpc_calls_only() {
    let routes = [
        AnyRoute::grpc(
            "ns/g",
            &[],
            vec![
                vec![call(Some("a.S"), Some("M"))],
                vec![call(Some("b.S"), None)],
            ],
        ),
        AnyRoute::http("ns/h", &[], vec![vec![prefix("/a.S")]]),
    ];
    let mut not_post = grpc("/a.S/M");
    not_post.method = http::Method::PUT;
    check(
        &routes,
        &[
            (grpc("/a.S/M"), Some("ns/g#0")),
            (grpc("/b.S/M"), Some("ns/g#1")),
            (grpc("/b.S/N"), Some("ns/g#1")),
            (grpc("/b.S"), None),
            (grpc("/b.S/M/x"), None),
            (grpc("/a.S/N"), Some("ns/h#0")),
            (get("/a.S/M"), Some("ns/h#0")),
            (get("/b.S/M"), None),
            (not_post, Some("ns/h#0")),
        ],
    );
}

#[test]
fn a_rule_for_a_name_no_call_can_have_is_left_out() {
    let rules = [
        call(Some("a/b"), None),
        call(Some("a"), Some("")),
        call(None, Some("a/")),
    ];
    let routes = [AnyRoute::grpc("ns/g", &[], vec![rules.into()])];
    check(
        &routes,
        &[
            (grpc("/a/b"), None),
            (grpc("/a/b/c"), None),
            (grpc("/a/"), None),
        ],
    );
}

#[test]
fn inserting_a_key_again_replaces_the_route() {
    let mut table = table(&[
        AnyRoute::http("ns/r", &["a.example.com"], vec![vec![prefix("/a")]]),
        AnyRoute::grpc("ns/r", &["a.example.com"], vec![vec![call(None, None)]]),
    ]);
    let route = AnyRoute::http("ns/r", &["b.example.com"], vec![vec![prefix("/b")]]);
    table.insert(route.compile());
    assert_eq!(table.len(), 2);
    let finds = |sent: Sent| table.lookup(&sent.request()).is_some();
    assert!(!finds(Sent::get("a.example.com", "/a")));
    assert!(finds(Sent::get("b.example.com", "/b")));
    assert!(finds(Sent::call("a.example.com", "/s/m")));
}

#[test]
fn a_hostile_path_costs_no_more_than_the_depths_in_use() {
    let routes = [AnyRoute::http(
        "ns/r",
        &[],
        vec![vec![prefix("/a/a/a"), exact("/x")]],
    )];
    let deep = get(&"/a".repeat(100_000));
    let slashes = get(&"/".repeat(100_000));
    check(&routes, &[(deep, Some("ns/r#0")), (slashes, None)]);
}
