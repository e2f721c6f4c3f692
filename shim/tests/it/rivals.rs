//! HTTPRoutes and GRPCRoutes that want one host name of one listener: the older has it.

use std::collections::BTreeMap;

use ir::Hostname;
use shim::cluster_view::{ClusterView, Kind};
use shim::conditions::{Condition, ConditionType as Type, Truth};
use shim::translate::{Settings, Translation, translate};

use crate::folder::{conditions_are_on_the_page, view};

/// `infra/gw` with the listeners `any` and `some` (`*.example`), on ports of their own.
const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian-gw}
spec: {controllerName: gateway.networking.k8s.io/nantian-gw}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: infra}
spec:
  gatewayClassName: nantian-gw
  listeners:
    - {name: any, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}
    - {name: some, port: 81, protocol: HTTP, hostname: '*.example', allowedRoutes: {namespaces: {from: All}}}
";

/// A route `namespace/name` made in that minute.
fn route(kind: Kind, key: &str, minute: u32, hosts: &str, parent: &str) -> String {
    let (namespace, name) = key.split_once('/').unwrap();
    let hosts: Vec<_> = hosts
        .split_terminator(", ")
        .map(|it| format!("'{it}'"))
        .collect();
    let hosts = hosts.join(", ");
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:{minute:02}:00Z'}}\n\
         spec: {{parentRefs: [{{name: gw, namespace: infra{parent}}}], hostnames: [{hosts}]}}\n"
    )
}

fn from_nothing(view: &ClusterView) -> Translation {
    translate(view, &Settings::default(), None)
}

/// What the one parent of a route says of it.
fn accepted(translation: &Translation, kind: Kind, key: &str) -> Condition {
    conditions_are_on_the_page(translation);
    let status = translation.status(kind, key).unwrap();
    let mut conditions = status.parents[0].conditions.iter();
    conditions
        .find(|it| it.kind == Type::Accepted)
        .unwrap()
        .clone()
}

/// Listeners that a route is served at, and its condition `Accepted`.
fn outcome(translation: &Translation, kind: Kind, key: &str) -> (Vec<String>, Truth, &'static str) {
    let snapshot = translation.snapshot();
    let listeners = match kind {
        Kind::HttpRoute => snapshot.http_routes.get(key).map(|it| &it.listeners),
        _ => snapshot.grpc_routes.get(key).map(|it| &it.listeners),
    };
    let sections = listeners.into_iter().flatten();
    let sections = sections.map(|it| it.rsplit('/').next().unwrap().to_owned());
    let accepted = accepted(translation, kind, key);
    (sections.collect(), accepted.status, accepted.reason)
}

fn attached(translation: &Translation) -> Vec<usize> {
    let status = translation.status(Kind::Gateway, "infra/gw").unwrap();
    status
        .listeners
        .iter()
        .map(|it| it.attached_routes)
        .collect()
}

#[test]
fn of_an_httproute_and_a_grpcroute_with_one_host_the_older_is_accepted() {
    const HTTP: Option<Kind> = Some(Kind::HttpRoute);
    const GRPC: Option<Kind> = Some(Kind::GrpcRoute);
    // Minute, listener and host names of the HTTPRoute shop/b; key and the same of a GRPCRoute; who is
    // refused.
    for (http, key, grpc, refused) in [
        ("1 any a.example", "shop/a", "2 any a.example", GRPC),
        ("2 any a.example", "shop/a", "1 any a.example", HTTP),
        ("1 any a.example", "shop/a", "1 any a.example", HTTP),
        ("1 any a.example", "shop/c", "1 any a.example", GRPC),
        ("1 any a.example", "other/c", "1 any a.example", HTTP),
        ("1 any a.example", "shop/b", "1 any a.example", GRPC),
        ("1 any a.example", "shop/a", "2 any b.example", None),
        ("1 any *.example", "shop/a", "2 any b.a.example", GRPC),
        ("1 any b.a.example", "shop/a", "2 any *.example", GRPC),
        ("1 any ", "shop/a", "2 any b.example", GRPC),
        ("1 any b.example", "shop/a", "2 any ", GRPC),
        ("1 any a.t, b.t", "shop/a", "2 any c.t, b.t", GRPC),
        // Names that are not the listener's are nothing that could meet.
        (
            "1 some a.example, x.t",
            "shop/a",
            "2 some b.example, x.t",
            None,
        ),
        ("1 any a.example", "shop/a", "2 some a.example", None),
    ] {
        let made = |kind, key, row: &str| {
            let mut parts = row.splitn(3, ' ');
            let minute = parts.next().unwrap().parse().unwrap();
            let parent = format!(", sectionName: {}", parts.next().unwrap());
            route(kind, key, minute, parts.next().unwrap(), &parent)
        };
        let http_route = made(Kind::HttpRoute, "shop/b", http);
        let grpc_route = made(Kind::GrpcRoute, key, grpc);
        let translation = from_nothing(&view(&format!("{GATEWAY}{http_route}{grpc_route}")));
        for (kind, key) in [(Kind::HttpRoute, "shop/b"), (Kind::GrpcRoute, key)] {
            let (listeners, accepted, reason) = outcome(&translation, kind, key);
            let is_refused = refused == Some(kind);
            let at = format!("{kind} of {http} and {key} {grpc}");
            assert_eq!(listeners.is_empty(), is_refused, "{at}");
            let expected = match is_refused {
                true => (Truth::False, "HostnameConflict"),
                false => (Truth::True, "Accepted"),
            };
            assert_eq!((accepted, reason), expected, "{at}");
        }
    }
}

#[test]
fn a_refused_route_is_told_by_whom_and_takes_nothing_from_a_third() {
    let text = format!(
        "{GATEWAY}{}{}{}",
        route(
            Kind::HttpRoute,
            "shop/first",
            1,
            "a.example",
            ", sectionName: any"
        ),
        route(
            Kind::GrpcRoute,
            "shop/second",
            2,
            "a.example, b.example",
            ", sectionName: any"
        ),
        route(
            Kind::HttpRoute,
            "other/third",
            3,
            "b.example",
            ", sectionName: any"
        ),
    );
    let mut view = view(&text);
    let before = from_nothing(&view);
    let told = accepted(&before, Kind::GrpcRoute, "shop/second");
    assert!(
        told.message.starts_with("HTTPRoute shop/first came first"),
        "{}",
        told.message
    );
    assert_eq!(outcome(&before, Kind::HttpRoute, "other/third").0, ["any"]);
    assert_eq!(attached(&before), [2, 0]);

    // Once the first is gone, the second has both names, and the third none.
    view.remove(Kind::HttpRoute, "shop/first");
    let after = translate(&view, &Settings::default(), Some(&before));
    assert_eq!(outcome(&after, Kind::GrpcRoute, "shop/second").0, ["any"]);
    let told = accepted(&after, Kind::HttpRoute, "other/third");
    let start = "another namespace's GRPCRoute came first";
    assert!(told.message.starts_with(start), "{}", told.message);
    assert_eq!(attached(&after), [1, 0]);

    view.remove(Kind::GrpcRoute, "shop/second");
    let last = translate(&view, &Settings::default(), Some(&after));
    assert_eq!(outcome(&last, Kind::HttpRoute, "other/third").0, ["any"]);
}

#[test]
fn a_route_that_loses_one_of_two_listeners_is_served_at_the_other() {
    let text = format!(
        "{GATEWAY}{}{}",
        route(
            Kind::GrpcRoute,
            "shop/calls",
            1,
            "a.example",
            ", sectionName: some"
        ),
        route(Kind::HttpRoute, "shop/pages", 2, "a.example", ""),
    );
    let translation = from_nothing(&view(&text));
    let expected = (vec!["any".to_owned()], Truth::True, "Accepted");
    assert_eq!(
        outcome(&translation, Kind::HttpRoute, "shop/pages"),
        expected
    );
    let status = translation.status(Kind::HttpRoute, "shop/pages").unwrap();
    let told = &status.warnings[0];
    assert!(
        told.contains("GRPCRoute shop/calls came first at listener some"),
        "{told}"
    );
    assert_eq!(attached(&translation), [1, 1]);
}

#[test]
fn a_route_that_is_not_served_takes_no_name() {
    let broken = route(Kind::GrpcRoute, "shop/calls", 1, "a.example", "").replace(
        "hostnames",
        "rules: [{matches: [{method: {service: 'no name'}}]}], hostnames",
    );
    let pages = route(Kind::HttpRoute, "shop/pages", 2, "a.example", "");
    let translation = from_nothing(&view(&format!("{GATEWAY}{broken}{pages}")));
    let listeners = outcome(&translation, Kind::HttpRoute, "shop/pages").0;
    assert_eq!(listeners, ["any", "some"]);
}

/// What the rule gives, found the long way: route by route, the oldest first.
fn expected(routes: &BTreeMap<(Kind, String), (u32, Vec<Hostname>)>) -> Vec<(Kind, String)> {
    let mut order: Vec<_> = routes.iter().collect();
    order.sort_by_key(|((kind, key), (minute, _))| (*minute, key.clone(), *kind));
    let every = |hosts: &[Hostname]| hosts.is_empty();
    let mut taken: Vec<(Kind, &[Hostname])> = Vec::new();
    let mut accepted = Vec::new();
    for ((kind, key), (_, hosts)) in order {
        let meets = |other: &[Hostname]| {
            let names = || {
                hosts
                    .iter()
                    .any(|a| other.iter().any(|b| a.intersect(b).is_some()))
            };
            every(hosts) || every(other) || names()
        };
        if !taken.iter().any(|(of, other)| of != kind && meets(other)) {
            taken.push((*kind, hosts));
            accepted.push((*kind, key.clone()));
        }
    }
    accepted.sort();
    accepted
}

#[test]
fn many_routes_that_come_and_go_are_accepted_as_the_rule_says() {
    let names = [
        "a.example",
        "b.example",
        "*.example",
        "x.b.example",
        "*.b.example",
        "other.test",
    ];
    let mut seed: u32 = 7;
    let mut roll = |sides: u32| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 16) % sides
    };
    let mut routes = BTreeMap::new();
    let mut known = view(GATEWAY);
    let mut before = from_nothing(&known);
    let mut refused = 0;
    for step in 0..400 {
        let kind = [Kind::HttpRoute, Kind::HttpRoute, Kind::GrpcRoute][roll(3) as usize];
        let key = format!("shop/r{}", roll(8));
        if roll(3) == 0 {
            known.remove(kind, &key);
            routes.remove(&(kind, key));
        } else {
            let hosts: Vec<&str> = match roll(9) {
                0 => Vec::new(),
                n => (0..=n % 2).map(|_| names[roll(6) as usize]).collect(),
            };
            let minute = roll(4);
            let text = route(kind, &key, minute, &hosts.join(", "), ", sectionName: any");
            let made = view(&text);
            match kind {
                Kind::HttpRoute => drop(
                    known
                        .http_routes
                        .insert(made.http_routes.get(&key).unwrap().clone()),
                ),
                _ => drop(
                    known
                        .grpc_routes
                        .insert(made.grpc_routes.get(&key).unwrap().clone()),
                ),
            }
            let hosts = hosts.iter().map(|host| Hostname::new(host).unwrap());
            routes.insert((kind, key), (minute, hosts.collect()));
        }
        let next = translate(&known, &Settings::default(), Some(&before));
        let snapshot = next.snapshot();
        let http = snapshot
            .http_routes
            .iter()
            .map(|it| (Kind::HttpRoute, it.key.to_string()));
        let grpc = snapshot
            .grpc_routes
            .iter()
            .map(|it| (Kind::GrpcRoute, it.key.to_string()));
        let mut served: Vec<_> = http.chain(grpc).collect();
        served.sort();
        assert_eq!(served, expected(&routes), "step {step}");
        assert_eq!(attached(&next), [served.len(), 0], "step {step}");
        refused += routes.len() - served.len();
        before = next;
    }
    assert!(refused > 400, "hardly any were refused: {refused}");
}
