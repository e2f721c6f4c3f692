//! How long finding a rule takes, and how long changing one route takes, by the number of routes.
//!
//! `one_host` gives every route a prefix of its own under one host, `exact` an exact path;
//! `many_hosts` gives every route a host of its own. The last look-up figure should be at most twice
//! the first. `behind_a_mutex` is the plain way to write `exact`, and `bare_map` is what one flat hash map takes for as many keys, for comparison.

#![expect(
    clippy::unwrap_used,
    reason = "a bench stops when its own data is wrong"
)]

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion};
use dataplane_route::Request;
use dataplane_route::table::{CompiledRoute, Table};
use foldhash::quality::RandomState;
use http::{HeaderMap, Method};
use ir::http_route::{HttpMatch, HttpRule, PathMatch, TextMatch, Timeouts, ValueMatch};
use ir::{Hostname, HttpRoute, Pattern};

const SIZES: [usize; 4] = [10, 100, 1_000, 10_000];
/// Requests sent in turn, at least; about the same number for every size. They reach every route, in
/// an order that no cache or branch predictor keeps, so that a large table pays for being large.
const REQUESTS: usize = 20_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    lookups(&mut criterion);
    conditions(&mut criterion);
    changes(&mut criterion);
    explanations(&mut criterion);
    criterion.final_summary();
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for size in SIZES {
        for (name, spread) in [
            ("one_host", Spread::OneHost),
            ("many_hosts", Spread::ManyHosts),
            ("exact", Spread::Exact),
        ] {
            let table = table(&spread.routes(size));
            let requests = Requests::new(size, |n| (spread.host(n), spread.path(n)));
            let headers = HeaderMap::new();
            let mut turn = requests.cycle();
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
                    // The address is read, as by whoever goes on with the rule.
                    black_box(Arc::as_ptr(found.unwrap().rule));
                });
            });
        }
        bare_map(&mut group, size);
        behind_a_mutex(&mut group, size);
    }
}

/// The plain way to write `exact`: hosts and their paths in maps, and a lock.
fn behind_a_mutex(group: &mut BenchmarkGroup<'_, WallTime>, size: usize) {
    let mut hosts: HashMap<String, HashMap<String, Arc<usize>>> = HashMap::new();
    for n in 0..size {
        let paths = hosts.entry(Spread::Exact.host(n)).or_default();
        paths.insert(Spread::Exact.own_path(n), Arc::new(n));
    }
    let hosts = Mutex::new(hosts);
    let requests = Requests::new(size, |n| (Spread::Exact.host(n), Spread::Exact.own_path(n)));
    let mut turn = requests.cycle();
    group.bench_function(BenchmarkId::new("exact behind a mutex", size), |bencher| {
        bencher.iter(|| {
            let (host, path) = turn.next().unwrap();
            let hosts = hosts.lock().unwrap();
            black_box(Arc::as_ptr(&hosts[host][path]));
        });
    });
}

/// The least that a look-up can cost: one flat hash map, asked for the hosts of `many_hosts`.
fn bare_map(group: &mut BenchmarkGroup<'_, WallTime>, size: usize) {
    let map: HashMap<Box<str>, Arc<usize>, RandomState> = (0..size)
        .map(|n| (Spread::ManyHosts.host(n).into(), Arc::new(n)))
        .collect();
    let requests = Requests::new(size, |n| (Spread::ManyHosts.host(n), String::new()));
    let mut turn = requests.cycle();
    group.bench_function(BenchmarkId::new("bare_map", size), |bencher| {
        bencher.iter(|| {
            let (host, _) = turn.next().unwrap();
            black_box(Arc::as_ptr(map.get(host).unwrap()));
        });
    });
}

/// Host and path of every request, in the order they are sent.
///
/// A gateway has just read the request it looks up, so what is measured should be the table and not
/// the fetching of requests: the text stands in one piece in the order of sending, and what
/// neighbours have in common stands there once.
struct Requests {
    text: String,
    /// Where host and path are.
    spans: Vec<[Range<u32>; 2]>,
}

impl Requests {
    /// Every route is asked for once before any is asked for again, in an order shuffled anew each
    /// time, so that no predictor learns even the order of ten.
    fn new(size: usize, of: impl Fn(usize) -> (String, String)) -> Self {
        let mut requests = Self {
            text: String::new(),
            spans: Vec::new(),
        };
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut order: Vec<usize> = (0..size).collect();
        while requests.spans.len() < REQUESTS {
            for at in (1..size).rev() {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                order.swap(at, usize::try_from(random >> 33).unwrap() % (at + 1));
            }
            for &n in &order {
                let (host, path) = of(n);
                let spans = [requests.place(0, &host), requests.place(1, &path)];
                requests.spans.push(spans);
            }
        }
        requests
    }

    fn place(&mut self, which: usize, text: &str) -> Range<u32> {
        if let Some(last) = self.spans.last()
            && self.cut(&last[which]) == text
        {
            return last[which].clone();
        }
        let start = u32::try_from(self.text.len()).unwrap();
        self.text.push_str(text);
        start..u32::try_from(self.text.len()).unwrap()
    }

    fn cut(&self, span: &Range<u32>) -> &str {
        &self.text[span.start as usize..span.end as usize]
    }

    fn cycle(&self) -> impl Iterator<Item = (&str, &str)> {
        let spans = self.spans.iter().cycle();
        spans.map(|[host, path]| (self.cut(host), self.cut(path)))
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

/// What an operator's question costs among 5,000 routes; the goal for the whole answer is 1 ms, see
/// `run --routes` of `dataplane/benches/compare`.
fn explanations(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("explain");
    for (name, spread) in [
        ("one_host", Spread::OneHost),
        ("many_hosts", Spread::ManyHosts),
    ] {
        let table = table(&spread.routes(5_000));
        let (host, path) = (spread.host(2_500), spread.path(2_500));
        group.bench_function(BenchmarkId::new(name, 5_000), |bencher| {
            bencher.iter(|| {
                let request = Request {
                    host: &host,
                    path: &path,
                    query: None,
                    method: &Method::GET,
                    headers: &HeaderMap::new(),
                };
                black_box(table.explain(&request, 20).others.len());
            });
        });
    }
}

#[derive(Clone, Copy)]
enum Spread {
    OneHost,
    ManyHosts,
    Exact,
}

impl Spread {
    fn host(self, n: usize) -> String {
        match self {
            Self::OneHost | Self::Exact => "www.example.com".into(),
            Self::ManyHosts => format!("app-{n}.example.com"),
        }
    }

    /// The path that route `n` asks for.
    fn path_match(self, n: usize) -> PathMatch {
        let own = self.own_path(n);
        match self {
            Self::OneHost => PathMatch::Prefix(own),
            Self::Exact => PathMatch::Exact(own),
            Self::ManyHosts => PathMatch::Prefix("/api".into()),
        }
    }

    /// The path of a route that no other has.
    fn own_path(self, n: usize) -> String {
        format!("/team-{}/service-{n}", n % 100)
    }

    /// A path that meets route `n`.
    fn path(self, n: usize) -> String {
        match self.path_match(n) {
            PathMatch::Prefix(prefix) => prefix + "/items/42",
            PathMatch::Exact(path) => path,
            PathMatch::Regex(_) => String::new(),
        }
    }

    fn routes(self, size: usize) -> Vec<HttpRoute> {
        (0..size).map(|n| self.route(n)).collect()
    }

    fn route(self, n: usize) -> HttpRoute {
        HttpRoute {
            hostnames: vec![Hostname::new(&self.host(n)).unwrap()],
            rules: vec![rule(on_path(self.path_match(n)))],
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
        plugins: Vec::new(),
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
