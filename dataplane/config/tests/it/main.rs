//! A configuration compiled from what changed is the one compiled from scratch.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use dataplane_config::{
    Backend, ClusterConfig, ListenerConfig, Rule, RuleSettings, RuntimeConfig, compile,
};
use dataplane_route::Request;
use dataplane_telemetry::metrics::{BackendMetrics, Metrics};
use dataplane_testkit::SnapshotBuilder;
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::snapshot::http_route;
use ir::Snapshot;
use ir::policy::RoutePolicy;

const HTTP: &str = "infra/gw/http";

fn base() -> Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener(HTTP, 8080)
        .route("shop/a", "a.example.com", "/", "shop/a:80")
        .route("shop/b", "b.example.com", "/", "shop/b:80")
        .cluster("shop/a:80", &[([127, 0, 0, 1], 1).into()])
        .cluster("shop/b:80", &[([127, 0, 0, 1], 2).into()])
        .build()
}

fn compiled(snapshot: &Snapshot, previous: &RuntimeConfig) -> RuntimeConfig {
    compile(snapshot.clone(), previous, &Metrics::new()).unwrap()
}

fn rule(config: &RuntimeConfig, host: &str) -> Option<Arc<Rule>> {
    rule_at(&config.listeners[HTTP], host)
}

fn rule_at(listener: &ListenerConfig, host: &str) -> Option<Arc<Rule>> {
    let request = Request {
        host,
        path: "/",
        query: None,
        method: &http::Method::GET,
        headers: &http::HeaderMap::new(),
    };
    listener
        .table
        .lookup(&request)
        .map(|found| found.rule.clone())
}

fn route_of(config: &RuntimeConfig, host: &str) -> Option<String> {
    rule(config, host).map(|rule| rule.route.to_string())
}

#[test]
fn edits_additions_and_removals_arrive() {
    let old = compiled(&base(), &RuntimeConfig::default());
    let next = SnapshotBuilder::from(&base(), "v2")
        .route("shop/c", "c.example.com", "/", "shop/a:80")
        .with(|snapshot| {
            snapshot.http_routes.remove("shop/b");
            let mut route = (**snapshot.http_routes.get("shop/a").unwrap()).clone();
            route.hostnames = vec![ir::Hostname::new("new.example.com").unwrap()];
            snapshot.http_routes.insert(route);
        })
        .build();
    let (step, scratch) = (
        compiled(&next, &old),
        compiled(&next, &RuntimeConfig::default()),
    );
    for host in [
        "a.example.com",
        "b.example.com",
        "c.example.com",
        "new.example.com",
    ] {
        assert_eq!(route_of(&step, host), route_of(&scratch, host), "{host}");
    }
    assert_eq!(
        route_of(&step, "new.example.com").as_deref(),
        Some("shop/a")
    );
    assert_eq!(route_of(&step, "a.example.com"), None);
    assert_eq!(route_of(&step, "b.example.com"), None);
}

#[test]
fn what_did_not_change_is_the_same_as_before() {
    let old = compiled(&base(), &RuntimeConfig::default());
    let next = SnapshotBuilder::from(&base(), "v2")
        .with(|snapshot| {
            let mut route = (**snapshot.http_routes.get("shop/a").unwrap()).clone();
            route.rules[0].backends[0].weight = 9;
            snapshot.http_routes.insert(route);
        })
        .build();
    let new = compiled(&next, &old);
    let rule_of = |config: &RuntimeConfig, host: &str| rule(config, host).unwrap();
    assert!(Arc::ptr_eq(
        &rule_of(&old, "b.example.com"),
        &rule_of(&new, "b.example.com")
    ));
    assert!(!Arc::ptr_eq(
        &rule_of(&old, "a.example.com"),
        &rule_of(&new, "a.example.com")
    ));
    for key in ["shop/a:80", "shop/b:80"] {
        assert!(
            Arc::ptr_eq(&old.clusters[key].cluster, &new.clusters[key].cluster),
            "{key}"
        );
    }
}

#[test]
fn a_route_serves_only_where_its_hosts_and_the_listeners_meet() {
    let mut listener =
        dataplane_testkit::snapshot::listener(HTTP, 8080, ir::listener::ListenerProtocol::Http);
    listener.hostnames = vec![ir::Hostname::new("*.example.com").unwrap()];
    let snapshot = SnapshotBuilder::new("v1")
        .listener(listener)
        .route("shop/in", "a.example.com", "/", "shop/a:80")
        .route("shop/out", "a.example.org", "/", "shop/a:80")
        .route("shop/all", "", "/", "shop/a:80")
        .build();
    let config = compiled(&snapshot, &RuntimeConfig::default());
    assert_eq!(
        route_of(&config, "a.example.com").as_deref(),
        Some("shop/in")
    );
    assert_eq!(
        route_of(&config, "b.example.com").as_deref(),
        Some("shop/all")
    );
    assert_eq!(route_of(&config, "a.example.org"), None);
}

#[test]
fn listeners_that_share_a_socket_share_a_bind() {
    let identity = Authority::new("test").server(&["a.example.com", "b.example.com"]);
    let snapshot = SnapshotBuilder::new("v1")
        .https_listener("infra/gw/a", 8443, &["a.example.com"], &["infra/cert"])
        .https_listener("infra/gw/b", 8443, &["b.example.com"], &["infra/cert"])
        .certificate("infra/cert", &identity)
        .build();
    let config = compiled(&snapshot, &RuntimeConfig::default());
    assert_eq!(config.binds.len(), 1);
    let bind = config.binds.values().next().unwrap();
    assert!(bind.tls.is_some());
    let name = |host: &str| {
        bind.listeners
            .best(host)
            .map(|l| l.listener.name.to_string())
    };
    assert_eq!(name("a.example.com").as_deref(), Some("infra/gw/a"));
    assert_eq!(name("b.example.com").as_deref(), Some("infra/gw/b"));
    assert_eq!(name("c.example.com"), None);
}

#[test]
fn a_route_that_moves_to_another_listener_of_its_socket_leaves_all_else_as_it_was() {
    const HOSTS: [&str; 3] = ["a.example.com", "b.example.com", "c.example.com"];
    let identity = Authority::new("test").server(&HOSTS);
    let route_at = |listener: &str| {
        let mut route = http_route("shop/moves", "", "/", &[("shop/a:80", 1)]);
        route.listeners = vec![listener.into(), listener.into()];
        route
    };
    let mut first = SnapshotBuilder::new("v1")
        .certificate("infra/cert", &identity)
        .cluster("shop/a:80", &[([127, 0, 0, 1], 1).into()]);
    for host in HOSTS {
        first = first.https_listener(host, 8443, &[host], &["infra/cert"]);
    }
    let first = first.http_route(route_at(HOSTS[0])).build();
    let moved = SnapshotBuilder::from(&first, "v2").http_route(route_at(HOSTS[1]));
    let moved = moved.build();
    let gone = SnapshotBuilder::from(&moved, "v3").with(|snapshot| {
        snapshot.http_routes.remove("shop/moves");
    });
    let bind = |config: &RuntimeConfig| config.binds.values().next().unwrap().clone();
    let served = |config: &RuntimeConfig| {
        HOSTS.map(|host| {
            let found = bind(config).listeners.best(host).unwrap().clone();
            assert!(Arc::ptr_eq(&found, &config.listeners[host]), "{host}");
            rule_at(&found, host).is_some()
        })
    };
    let first = compiled(&first, &RuntimeConfig::default());
    let moved = compiled(&moved, &first);
    let gone = compiled(&gone.build(), &moved);
    assert_eq!(served(&first), [true, false, false]);
    assert_eq!(served(&moved), [false, true, false]);
    assert_eq!(served(&gone), [false; 3]);
    let tls = |config: &RuntimeConfig| bind(config).tls.clone().unwrap();
    assert!(Arc::ptr_eq(&tls(&first), &tls(&gone)));
    let last = HOSTS[2];
    assert!(Arc::ptr_eq(&first.listeners[last], &gone.listeners[last]));
}

/// Thousands of each are held; the bounds are sizes of the allocator's blocks, less what an `Arc` has
/// in front.
#[test]
fn what_there_are_thousands_of_is_small() {
    for (name, size, most) in [
        ("a rule", size_of::<Rule>(), 208),
        ("a backend of it", size_of::<Backend>(), 96),
        ("a cluster", size_of::<dataplane_upstream::Cluster>(), 208),
        ("its surroundings", size_of::<ClusterConfig>(), 176),
        ("its figures", size_of::<BackendMetrics>(), 48),
        ("a route as it came", size_of::<ir::HttpRoute>(), 176),
        (
            "a rule as it came",
            size_of::<ir::http_route::HttpRule>(),
            192,
        ),
        ("a cluster as it came", size_of::<ir::Cluster>(), 240),
    ] {
        assert!(size <= most, "{name} has {size} bytes, more than {most}");
    }
}

#[test]
fn rules_that_say_nothing_share_their_settings_and_others_have_their_own() {
    let second = Duration::from_secs(1);
    let snapshot = SnapshotBuilder::from(&base(), "v2")
        .with(|snapshot| {
            let mut policy = http_route("shop/c", "c.example.com", "/", &[("shop/a:80", 1)]);
            policy.listeners = vec![HTTP.into()];
            policy.policy = Some(Arc::new(RoutePolicy {
                request_timeout: Some(second),
                connect_timeout: Some(second),
                ..RoutePolicy::default()
            }));
            snapshot.http_routes.insert(policy.clone());
            policy.key = "shop/d".into();
            policy.hostnames = vec![ir::Hostname::new("d.example.com").unwrap()];
            policy.rules[0].timeouts.request = Some(2 * second);
            snapshot.http_routes.insert(policy);
        })
        .build();
    let config = compiled(&snapshot, &RuntimeConfig::default());
    let settings = |host: &str| rule(&config, host).unwrap().settings.clone();
    let plain = settings("a.example.com");
    assert!(Arc::ptr_eq(&plain, &settings("b.example.com")));
    assert_eq!(*plain, RuleSettings::default());
    for (host, request_timeout) in [("c.example.com", second), ("d.example.com", 2 * second)] {
        let expected = RuleSettings {
            request_timeout: Some(request_timeout),
            connect_timeout: Some(second),
            has_timeouts: true,
            ..RuleSettings::default()
        };
        assert_eq!(*settings(host), expected, "{host}");
    }
}
