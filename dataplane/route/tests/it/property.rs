//! Laws: a table finds what the plain reading of the specification finds, and a table changed step
//! by step is the table built at once.

use std::sync::LazyLock;

use dataplane_route::table::{Lost, RouteKind, Table};
use http::Method;
use ir::Pattern;
use ir::http_route::{GrpcMatch, HttpMatch, PathMatch, TextMatch, ValueMatch};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::reference;
use crate::routes::{AnyRoute, Sent, call, call_regex, on_path, table};

// Few names of everything, so that random routes and requests meet often.
const HOST_NAMES: [&str; 7] = [
    "a.example.com",
    "b.example.com",
    "x.a.example.com",
    "*.example.com",
    "*.a.example.com",
    "*.com",
    "localhost",
];
const HOSTS: [&str; 9] = [
    "a.example.com",
    "b.example.com",
    "x.a.example.com",
    "y.x.a.example.com",
    "c.example.com",
    "example.com",
    "example.org",
    "localhost",
    "",
];
const SEGMENTS: [&str; 4] = ["a", "ab", "b", "S"];
const PATTERNS: [&str; 9] = [
    ".*",
    "/.*",
    "/a.*",
    "/a/.*",
    "/(a|b)/ab",
    "/a/b|/b/a",
    "(?i)/A/B",
    "/ab?/b",
    "/[ab]+(/.*)?",
];

fn path() -> impl Strategy<Value = String> {
    let segments = vec(select(&SEGMENTS[..]), 0..4);
    (segments, any::<bool>()).prop_map(|(segments, slash)| {
        let path: String = segments.iter().map(|s| format!("/{s}")).collect();
        if slash || path.is_empty() {
            path + "/"
        } else {
            path
        }
    })
}

/// Compiled once: compiling would take most of the run.
fn patterns() -> Vec<Pattern> {
    static COMPILED: LazyLock<Vec<Pattern>> =
        LazyLock::new(|| PATTERNS.iter().map(|p| Pattern::new(p).unwrap()).collect());
    COMPILED.clone()
}

fn path_match() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        3 => path().prop_map(PathMatch::Exact),
        3 => Just(PathMatch::Prefix("/".into())),
        4 => path().prop_map(|path| match path.trim_end_matches('/') {
            "" => PathMatch::Prefix("/".into()),
            path => PathMatch::Prefix(path.into()),
        }),
        2 => select(patterns()).prop_map(PathMatch::Regex),
    ]
}

fn conditions() -> impl Strategy<Value = Vec<ValueMatch>> {
    let value = prop_oneof![
        2 => select(&["1", "2", "1,2"][..]).prop_map(|v| TextMatch::Exact(v.into())),
        1 => Just(TextMatch::Prefix("1".into())),
        1 => Just(TextMatch::Suffix("2".into())),
        1 => Just(TextMatch::Regex(Pattern::new("[12],?").unwrap())),
        4 => Just(TextMatch::Present),
    ];
    let condition = (select(&["x-a", "x-b"][..]), value).prop_map(|(name, value)| ValueMatch {
        name: name.into(),
        value,
    });
    prop_oneof![1 => Just(Vec::new()), 1 => vec(condition, 0..3)]
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let method = prop_oneof![2 => Just(None), 1 => select(&["GET", "POST"][..]).prop_map(Some)];
    (path_match(), method, conditions(), conditions()).prop_map(
        |(path, method, headers, query_params)| HttpMatch {
            method: method.map(str::to_owned),
            headers,
            query_params,
            ..on_path(path)
        },
    )
}

fn call_pattern() -> impl Strategy<Value = &'static str> {
    select(&[".*", "a.?", "[ab]+", "ab?|S"][..])
}

fn grpc_match() -> impl Strategy<Value = GrpcMatch> {
    let name = || option::of(select(&SEGMENTS[..]));
    let method = prop_oneof![
        4 => (name(), name()).prop_map(|(service, method)| call(service, method)),
        3 => (option::of(call_pattern()), option::of(call_pattern()))
            .prop_map(|(service, method)| call_regex(service, method)),
    ];
    (method, conditions()).prop_map(|(method, headers)| GrpcMatch { headers, ..method })
}

fn route() -> impl Strategy<Value = AnyRoute> {
    let key = select(&["a/r1", "a/r2", "a-b/r", "b/r1", "b/r2", "c/r", "d/r", "e/r"][..]);
    let hosts = prop_oneof![
        1 => Just(Vec::new()),
        3 => vec(select(&HOST_NAMES[..]), 1..4),
    ];
    let age = option::weighted(0.8, 0_u64..3);
    let rules = prop_oneof![
        3 => vec(vec(http_match(), 1..3), 1..4).prop_map(Ok),
        2 => vec(vec(grpc_match(), 1..3), 1..4).prop_map(Err),
    ];
    (key, hosts, age, rules).prop_map(|(key, hosts, age, rules)| {
        match rules {
            Ok(rules) => AnyRoute::http(key, &hosts, rules),
            Err(rules) => AnyRoute::grpc(key, &hosts, rules),
        }
        .aged(age)
    })
}

/// A set of routes in which every key stands once for each kind.
fn routes() -> impl Strategy<Value = Vec<AnyRoute>> {
    vec(route(), 0..12).prop_map(|routes| {
        let mut held = Vec::new();
        for route in routes {
            replace(&mut held, route);
        }
        held
    })
}

fn replace(held: &mut Vec<AnyRoute>, route: AnyRoute) {
    held.retain(|other| (other.kind(), other.key()) != (route.kind(), route.key()));
    held.push(route);
}

fn request() -> impl Strategy<Value = Sent> {
    let pairs = || vec((select(&["x-a", "x-b"][..]), select(&["1", "2"][..])), 0..3);
    let method = select(&[Method::GET, Method::POST][..]);
    (
        select(&HOSTS[..]),
        path(),
        pairs(),
        pairs(),
        method,
        any::<bool>(),
    )
        .prop_map(|(host, path, params, fields, method, is_grpc)| {
            let query: Vec<String> = params.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let mut sent = if is_grpc {
                Sent::call(host, &path)
            } else {
                Sent::get(host, &path)
            };
            sent.method = method;
            sent.query = (!query.is_empty()).then(|| query.join("&"));
            for (name, value) in fields {
                sent = sent.with(name, value);
            }
            sent
        })
}

fn found(table: &Table<String>, sent: &Sent) -> Option<(String, Option<usize>)> {
    table
        .lookup(&sent.request())
        .map(|found| (found.rule.to_string(), found.prefix_len))
}

/// One step of a changing configuration.
#[derive(Clone, Debug)]
enum Step {
    Insert(AnyRoute),
    /// Removes the route at this place, counted round.
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => route().prop_map(Step::Insert),
        1 => (0_usize..100).prop_map(Step::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(250))]

    #[test]
    fn a_table_finds_what_the_specification_says(
        routes in routes(),
        requests in vec(request(), 24),
    ) {
        let table = table(&routes);
        for sent in &requests {
            let expected = reference::lookup(&routes, &sent.request());
            prop_assert_eq!(found(&table, sent), expected, "{:?}", sent);
        }
    }

    #[test]
    fn what_explain_says_is_what_a_lookup_does(
        routes in routes(),
        requests in vec(request(), 24),
    ) {
        let held = table(&routes);
        for sent in &requests {
            let request = sent.request();
            let explained = held.explain(&request, usize::MAX);
            let winner = explained.winner.map(|it| format!("{}#{}", it.route, it.rule));
            let expected = held.lookup(&request).map(|found| found.rule.to_string());
            prop_assert_eq!(&winner, &expected, "{:?}", sent);
            let told = explained.found.map(|found| found.rule.to_string());
            prop_assert_eq!(told, expected);
            // Left alone, a match that lost by precedence alone takes the request, and no other does.
            for other in &explained.others {
                let source = other.source;
                let is_it = |it: &&AnyRoute| (it.kind(), it.key()) == (source.kind, source.route);
                let route = routes.iter().find(is_it).unwrap().clone();
                let alone = table(&[route.only(source.rule, source.index)]);
                let takes = alone.lookup(&request).is_some();
                let lost_to_another = matches!(other.lost, Lost::Precedence(_));
                prop_assert_eq!(takes, lost_to_another, "{:?} {:?}", other, sent);
            }
        }
    }

    #[test]
    fn a_table_changed_step_by_step_is_the_table_built_at_once(
        steps in vec(step(), 0..24),
        requests in vec(request(), 16),
    ) {
        let mut changed = Table::default();
        let mut held: Vec<AnyRoute> = Vec::new();
        let mut before = Vec::new();
        for step in steps {
            before.push((changed.clone(), held.clone()));
            match step {
                Step::Insert(route) => {
                    changed.insert(route.compile());
                    replace(&mut held, route);
                }
                Step::Remove(at) if !held.is_empty() => {
                    let route = held.remove(at % held.len());
                    prop_assert!(changed.remove(route.kind(), route.key()));
                    prop_assert!(!changed.remove(route.kind(), route.key()));
                }
                Step::Remove(_) => prop_assert!(!changed.remove(RouteKind::Http, "a/r1")),
            }
        }
        before.push((changed, held));
        // A clone taken on the way has not changed since.
        for (changed, held) in &before {
            let built = table(held);
            prop_assert_eq!(changed.len(), held.len());
            prop_assert_eq!(format!("{changed:?}"), format!("{built:?}"));
            for sent in &requests {
                prop_assert_eq!(found(changed, sent), found(&built, sent), "{:?}", sent);
            }
        }
    }

    #[test]
    fn no_request_makes_a_lookup_panic(
        host in ".{0,40}",
        path in "(/|.{0,12}){0,8}",
        query in option::of("[a-z%+&=0-9é]{0,40}"),
        routes in routes(),
    ) {
        let sent = Sent { query, path, ..Sent::call(&host, "/") };
        let expected = reference::lookup(&routes, &sent.request());
        // The plain reading knows no escapes in queries; none of its conditions has one either.
        if !sent.query.as_deref().unwrap_or_default().contains(['%', '+']) {
            prop_assert_eq!(found(&table(&routes), &sent), expected);
        } else {
            found(&table(&routes), &sent);
        }
    }
}
