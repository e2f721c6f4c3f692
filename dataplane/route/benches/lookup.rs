//! How long finding a rule takes, and how long changing one route takes, by the number of routes.
//!
//! `one_host` gives every route a prefix of its own under one host; `many_hosts` gives every route
//! a host of its own. The last look-up figure should be at most twice the first.

#![expect(
    clippy::unwrap_used,
    reason = "a bench stops when its own data is wrong"
)]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use dataplane_route::Request;
use dataplane_route::table::{CompiledRoute, Table};
use http::{HeaderMap, Method};
use ir::http_route::{HttpMatch, HttpRule, PathMatch, TextMatch, Timeouts, ValueMatch};
use ir::{Hostname, HttpRoute, Pattern};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Distinct requests sent in turn, the same number for every size. They reach every route, in an
/// order that no cache or branch predictor keeps, so that a large table pays for being large.
const REQUESTS: usize = 16_384;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lookups(&mut criterion);
    conditions(&mut criterion);
    changes(&mut criterion);
    criterion.final_summary();
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for size in SIZES {
        for (name, spread) in [
            ("one_host", Spread::OneHost),
            ("many_hosts", Spread::ManyHosts),
        ] {
            let table = table(&spread.routes(size));
            let requests: Vec<(String, String)> = (0..REQUESTS)
                .map(|n| n * 7919 % size)
                .map(|n| (spread.host(n), format!("{}/items/42", spread.prefix(n))))
                .collect();
            let headers = HeaderMap::new();
            let mut turn = requests.iter().cycle();
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    let (host, path) = turn.next().unwrap();
                    let found = table.lookup(&Request {
                        host,
                        path,
                        query: Some("page=2"),
                        method: &Method::GET,
                        headers: &headers,
                    });
                    assert!(black_box(found).is_some());
                });
            });
        }
    }
}

fn conditions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("conditions");
    let mut headers = HeaderMap::new();
    for name in ["user-agent", "accept", "accept-encoding", "cookie"] {
        headers.insert(name, "something".parse().unwrap());
    }
    headers.insert("x-version", "9".parse().unwrap());
    let mut by_header = Table::default();
    by_header.insert(compiled(&route("ns/header", |n| HttpMatch {
        headers: vec![ValueMatch {
            name: "x-version".into(),
            value: TextMatch::Exact(n.to_string()),
        }],
        ..on_path(PathMatch::Prefix("/".into()))
    })));
    let mut by_regex = Table::default();
    by_regex.insert(compiled(&route("ns/regex", |n| {
        on_path(PathMatch::Regex(
            Pattern::new(&format!("/items/{n}[0-9]+")).unwrap(),
        ))
    })));
    for (name, table, path) in [
        ("ten_header_matches", by_header, "/a/b"),
        ("ten_regexes", by_regex, "/items/942"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let found = table.lookup(&Request {
                    host: "www.example.com",
                    path,
                    query: None,
                    method: &Method::GET,
                    headers: &headers,
                });
                assert!(black_box(found).is_some());
            });
        });
    }
}

fn changes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change");
    group.sample_size(20);
    for (name, spread) in [
        ("one_host", Spread::OneHost),
        ("many_hosts", Spread::ManyHosts),
    ] {
        for size in [10_000, 40_000] {
            let routes = spread.routes(size);
            let held = table(&routes);
            let mut changed = routes.iter().cycle().step_by(7919);
            group.bench_function(
                BenchmarkId::new(format!("replace_{name}"), size),
                |bencher| {
                    bencher.iter(|| {
                        let mut next = held.clone();
                        next.insert(compiled(changed.next().unwrap()));
                        next
                    });
                },
            );
        }
        let routes = spread.routes(10_000);
        group.bench_function(
            BenchmarkId::new(format!("build_{name}"), 10_000),
            |bencher| {
                bencher.iter(|| table(&routes));
            },
        );
    }
}

#[derive(Clone, Copy)]
enum Spread {
    OneHost,
    ManyHosts,
}

impl Spread {
    fn host(self, n: usize) -> String {
        match self {
            Self::OneHost => "www.example.com".into(),
            Self::ManyHosts => format!("app-{n}.example.com"),
        }
    }

    fn prefix(self, n: usize) -> String {
        match self {
            Self::OneHost => format!("/team-{}/service-{n}", n % 100),
            Self::ManyHosts => "/api".into(),
        }
    }

    fn routes(self, size: usize) -> Vec<HttpRoute> {
        (0..size).map(|n| self.route(n)).collect()
    }

    fn route(self, n: usize) -> HttpRoute {
        HttpRoute {
            hostnames: vec![Hostname::new(&self.host(n)).unwrap()],
            rules: vec![rule(on_path(PathMatch::Prefix(self.prefix(n))))],
            ..route(&format!("ns/route-{n}"), |_| {
                on_path(PathMatch::Prefix("/".into()))
            })
        }
    }
}

fn table(routes: &[HttpRoute]) -> Table<usize> {
    let mut table = Table::default();
    for route in routes {
        table.insert(compiled(route));
    }
    table
}

fn compiled(route: &HttpRoute) -> CompiledRoute<usize> {
    CompiledRoute::http(route, &route.hostnames, Arc::new)
}

/// A route of ten rules for any host.
fn route(key: &str, route_match: impl Fn(usize) -> HttpMatch) -> HttpRoute {
    HttpRoute {
        key: key.into(),
        hostnames: Vec::new(),
        listeners: Vec::new(),
        parent_refs: Vec::new(),
        rules: (0..10).map(|n| rule(route_match(n))).collect(),
        labels: Default::default(),
        annotations: Default::default(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}

fn rule(route_match: HttpMatch) -> HttpRule {
    HttpRule {
        name: None,
        matches: vec![route_match],
        filters: Vec::new(),
        backends: Vec::new(),
        timeouts: Timeouts::default(),
        retry: None,
        session_persistence: None,
    }
}

fn on_path(path: PathMatch) -> HttpMatch {
    HttpMatch {
        path,
        method: None,
        headers: Vec::new(),
        query_params: Vec::new(),
    }
}
