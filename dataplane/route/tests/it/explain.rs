//! What is told about matches that did not get a request: why, and the nearest first.

use dataplane_route::table::{Lost, Precedence, RouteKind, Table, Unmet};
use ir::http_route::HttpMatch;

use crate::routes::{And, AnyRoute, Sent, call, exact, prefix, regex, table};

/// The losers of a request and why, as `route: why`.
fn losers(table: &Table<String>, sent: &Sent) -> Vec<String> {
    let explained = table.explain(&sent.request(), 10);
    let told = explained.others.iter().map(|other| {
        let why = match other.lost {
            Lost::Precedence(precedence) => format!("{precedence:?}"),
            Lost::Unmet(Unmet::Header(name)) => format!("header {name}"),
            Lost::Unmet(Unmet::Method(method)) => format!("method {method}"),
            Lost::Unmet(Unmet::Param(name)) => format!("param {name}"),
            Lost::Unmet(Unmet::Call) => "call".to_owned(),
            Lost::NotGrpc => "not gRPC".to_owned(),
            Lost::Path => "path".to_owned(),
            Lost::Host => "host".to_owned(),
        };
        format!("{}: {why}", other.source.route)
    });
    told.collect()
}

#[test]
fn each_near_miss_says_what_it_missed_by() {
    let here = &["a.example.com"][..];
    let http = |key: &str, hosts: &[&str], it| AnyRoute::http(key, hosts, vec![vec![it]]);
    let table = table(&[
        http("n/exact", here, exact("/cart")),
        http("n/regex", here, regex("/c.*")),
        http("n/prefix", here, prefix("/")),
        http("n/wide", &["*.example.com"], exact("/cart")),
        http("n/header", here, exact("/cart").header("x-team", "blue")),
        http("n/method", here, exact("/cart").method("POST")),
        http("n/path", here, exact("/card")),
        http("n/far", here, exact("/zoo")),
        http("n/host", &["b.example.com"], exact("/cart")),
        http("n/nothing", &["b.example.com"], exact("/zoo")),
        AnyRoute::grpc("n/grpc", here, vec![vec![call(None, None)]]),
    ]);
    let sent = Sent::get("a.example.com", "/cart");
    let explained = table.explain(&sent.request(), 10);
    let winner = explained.winner.unwrap();
    assert_eq!((winner.route, winner.kind), ("n/exact", RouteKind::Http));
    assert_eq!(explained.routes, 11);
    assert_eq!(
        losers(&table, &sent),
        [
            "n/prefix: PathKind",
            "n/regex: PathKind",
            "n/wide: Host",
            "n/header: header x-team",
            "n/method: method POST",
            "n/grpc: not gRPC",
            "n/path: path",
            "n/far: path",
            "n/host: host",
        ]
    );
}

#[test]
fn what_decides_between_two_is_told() {
    let two = |one, two| {
        let routes = [("n/one", one), ("n/two", two)];
        let routes = routes.map(|(key, it)| AnyRoute::http(key, &[], vec![vec![it]]));
        table(&routes)
    };
    let blue = |it: HttpMatch| it.header("x-team", "blue");
    let get = |it: HttpMatch| it.method("GET");
    let sent = Sent::get("x", "/a/b").with("x-team", "blue");
    for (table, expected) in [
        (two(prefix("/a/b"), prefix("/a")), Precedence::LongerPrefix),
        (
            two(regex("/a/b?"), regex("/a.*")),
            Precedence::LongerPattern,
        ),
        (
            two(get(prefix("/a")), blue(prefix("/a"))),
            Precedence::Method,
        ),
        (
            two(blue(prefix("/a")), prefix("/a")),
            Precedence::MoreHeaders,
        ),
        (two(prefix("/a"), prefix("/a")), Precedence::Name),
    ] {
        let expected = format!("n/two: {expected:?}");
        assert_eq!(losers(&table, &sent), [expected]);
    }
    let twice = vec![vec![prefix("/a")], vec![prefix("/a")]];
    let one = table(&[AnyRoute::http("n/one", &[], twice)]);
    assert_eq!(losers(&one, &sent), ["n/one: Earlier"]);
    let old = |key, age| AnyRoute::http(key, &[], vec![vec![prefix("/a")]]).aged(Some(age));
    let aged = table(&[old("n/a", 2), old("n/b", 1)]);
    assert_eq!(losers(&aged, &sent), ["n/a: Older"]);
}

#[test]
fn no_more_are_told_than_asked_for() {
    let route = |n: usize| {
        let path = format!("/{n}");
        AnyRoute::http(&format!("n/r{n:03}"), &[], vec![vec![exact(&path)]])
    };
    let table = table(&(0..200).map(route).collect::<Vec<_>>());
    let sent = Sent::get("x", "/nowhere");
    let explained = table.explain(&sent.request(), 5);
    assert!(explained.found.is_none() && explained.winner.is_none());
    assert_eq!((explained.others.len(), explained.routes), (5, 200));
}
