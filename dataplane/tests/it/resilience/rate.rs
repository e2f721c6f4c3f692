//! Limits of rate: what they count, whom they tell apart, and what clients hear.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::Backend;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::rate_limit;
use http::Request;
use ir::backend_policy::BackendPolicy;
use ir::policy::{RateLimit, RateLimitKey, RateLimitScope, SecurityPolicy};

use super::Case;
use crate::support::{Gateway, at, http_route};

/// So many, and then none for an hour each.
fn limit(requests: u32, scope: RateLimitScope) -> RateLimit {
    RateLimit {
        scope,
        burst: requests,
        ..rate_limit("few", 1, Duration::from_secs(3600))
    }
}

fn policy(rate_limits: Vec<RateLimit>) -> Option<Arc<SecurityPolicy>> {
    Some(Arc::new(SecurityPolicy {
        rate_limits,
        ..SecurityPolicy::default()
    }))
}

fn case(backend: &Backend) -> Case {
    Case::new(&[backend.address()], BackendPolicy::default())
}

const REJECTED: &str = "http_rate_limit_rejected_total";

#[tokio::test]
async fn beyond_the_limit_clients_hear_429_and_when_to_come_again() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.route.security_policy = policy(vec![limit(3, RateLimitScope::Route)]);
    let gateway = case.serve().await;
    for left in [2, 1, 0] {
        let answer = case.get("/").await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["ratelimit-policy"], "\"few\";q=1;w=3600");
        let said = answer.headers["ratelimit"].to_str().unwrap();
        assert!(said.starts_with(&format!("\"few\";r={left};t=")), "{said}");
    }
    let refused = case.get("/").await;
    assert_eq!(refused.status, 429);
    assert!(refused.text().contains("rate_limited"));
    let wait: u64 = refused.headers["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3590..=3600).contains(&wait), "{wait}");
    let said = refused.headers["ratelimit"].to_str().unwrap();
    assert_eq!(said, format!("\"few\";r=0;t={wait}"));
    assert_eq!(backend.requests(), 3);
    let name = format!("{REJECTED}{{scope=\"route\",object=\"shop/r\",limit=\"few\"}}");
    assert_eq!(gateway.metric(&name, &[]), 1);

    // gRPC knows the same by another name.
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    let call = Request::post("http://x/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Bytes::new())
        .unwrap();
    let answer = client.send(call).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.headers["grpc-status"]),
        (200, &"8".parse().unwrap())
    );
    assert!(answer.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn clients_are_told_apart_by_address_header_or_cookie() {
    let backend = Backend::http1("b").await;
    let address = (RateLimitKey::SourceIp, "x-any: ", 1);
    let header = (RateLimitKey::Header("x-user".to_owned()), "x-user: ", 4);
    let cookie = (
        RateLimitKey::Cookie("user".to_owned()),
        "cookie: a=b; user=",
        4,
    );
    for (key, field, clients) in [address, header, cookie] {
        let mut case = case(&backend);
        let limit = RateLimit {
            key: key.clone(),
            ..limit(2, RateLimitScope::Route)
        };
        case.route.security_policy = policy(vec![limit]);
        let _gateway = case.serve().await;
        let mut passed = 0;
        for round in 0..12 {
            let mut client = Http1Client::connect(at(case.port)).await.unwrap();
            let own = match round % 4 {
                0 => String::new(),
                user => format!("{field}u{user}\r\n"),
            };
            let head = format!("GET / HTTP/1.1\r\nhost: x\r\n{own}\r\n");
            client.send_bytes(head.as_bytes()).await.unwrap();
            let answer = client.read_response(&http::Method::GET).await.unwrap();
            passed += usize::from(answer.status == 200);
        }
        assert_eq!(passed, clients * 2, "{key:?}");
    }
}

#[tokio::test]
async fn no_more_clients_are_remembered_than_the_limit_says() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.route.security_policy = policy(vec![RateLimit {
        key: RateLimitKey::Header("x-user".to_owned()),
        ..limit(2, RateLimitScope::Route)
    }]);
    for (keys_max, is_met) in [(64, true), (262_144, false)] {
        let admin = at(dataplane_testkit::snapshot::free_port());
        let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            bootstrap.admin.address = admin;
            bootstrap.rate_limits.keys_max = keys_max;
        })
        .await;
        let mut client = Http1Client::connect(at(case.port)).await.unwrap();
        for user in 0..200 {
            let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-user: {user}\r\n\r\n");
            client.send_bytes(head.as_bytes()).await.unwrap();
            let answer = client.read_response(&http::Method::GET).await.unwrap();
            assert_eq!(answer.status, 200, "who was forgotten starts anew");
        }
        let metrics = http1::get(admin, "x", "/metrics").await.unwrap().text();
        let is_zero = metrics.contains("http_rate_limit_keys_evicted_total 0\n");
        assert_eq!(is_zero, !is_met, "{keys_max}");
        drop(client);
        assert!(gateway.stopped().await, "the next one has the port");
    }
}

#[tokio::test]
async fn a_listener_counts_all_its_requests_and_those_of_no_route_too() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.route = http_route("shop/r", "", "/in", &[("shop/b:80", 1)]);
    let snapshot = |scope| {
        let mut snapshot = case.snapshot("v1");
        let mut listener = snapshot.listeners.iter().next().unwrap().as_ref().clone();
        listener.security_policy = policy(vec![limit(3, scope)]);
        snapshot.listeners = [listener].into_iter().collect();
        snapshot
    };
    let _gateway = Gateway::serving(&snapshot(RateLimitScope::Listener)).await;
    assert_eq!(case.statuses("/out", 2).await, [404; 2]);
    assert_eq!(case.statuses("/in", 2).await, [200, 429]);
    assert_eq!(case.statuses("/out", 1).await, [429]);
}

#[tokio::test]
async fn a_cluster_counts_what_comes_to_it_from_all_routes() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.cluster.security_policy = policy(vec![limit(3, RateLimitScope::Backend)]);
    let other = http_route("shop/s", "s", "/", &[("shop/b:80", 1)]);
    let snapshot = dataplane_testkit::SnapshotBuilder::from(&case.snapshot("v1"), "v2")
        .http_route(other)
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    assert_eq!(case.statuses("/", 2).await, [200; 2]);
    for status in [200, 429] {
        let answer = http1::get(at(case.port), "s", "/").await.unwrap();
        assert_eq!(answer.status, status);
    }
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn a_route_counts_each_cluster_for_itself_when_it_says_so() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let mut case = case(&a);
    case.route = http_route("shop/r", "", "/", &[("shop/b:80", 1), ("shop/c:80", 1)]);
    case.route.security_policy = policy(vec![limit(2, RateLimitScope::Backend)]);
    let second = dataplane_testkit::snapshot::cluster(
        "shop/c:80",
        ir::cluster::ClusterProtocol::Http,
        &[b.address()],
    );
    let snapshot = dataplane_testkit::SnapshotBuilder::from(&case.snapshot("v1"), "v2")
        .add_cluster(second)
        .build();
    let _gateway = Gateway::serving(&snapshot).await;
    case.statuses("/", 20).await;
    assert_eq!((a.requests(), b.requests()), (2, 2));
}

#[tokio::test]
async fn a_limit_that_is_only_tried_refuses_nothing_and_says_nothing() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    let tried = RateLimit {
        is_dry_run: true,
        ..limit(2, RateLimitScope::Route)
    };
    case.route.security_policy = policy(vec![tried]);
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/", 5).await, [200; 5]);
    assert!(!case.get("/").await.headers.contains_key("ratelimit"));
    assert_eq!(
        gateway.metric("http_rate_limit_dry_run_rejected_total", &[]),
        4
    );
    assert_eq!(gateway.metric(&format!("{REJECTED}{{"), &[]), 0);
}

#[tokio::test]
async fn where_a_limit_says_so_requests_wait_for_their_turn() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    let queue = RateLimit {
        queue: true,
        requests: 10,
        period: Duration::from_secs(1),
        ..limit(1, RateLimitScope::Route)
    };
    case.route.security_policy = policy(vec![queue]);
    let gateway = case.serve().await;
    let began = Instant::now();
    let requests = (0..4).map(|_| http1::get(at(case.port), "x", "/"));
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    assert!(
        began.elapsed() >= Duration::from_millis(290),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(gateway.metric("http_rate_limit_queued_total", &[]), 3);

    // Too far back in the queue is refused at once.
    let mut long = limit(1, RateLimitScope::Route);
    long.queue = true;
    case.route.security_policy = policy(vec![long]);
    gateway.apply(&case.snapshot("v2")).await;
    let answers = case.statuses("/", 3).await;
    assert_eq!(answers[1..], [429, 429]);
}

#[tokio::test]
async fn who_is_refused_by_one_limit_takes_nothing_from_another() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    let all = limit(4, RateLimitScope::Route);
    let each = RateLimit {
        key: RateLimitKey::Header("x-user".to_owned()),
        name: "each".to_owned(),
        ..limit(1, RateLimitScope::Route)
    };
    case.route.security_policy = policy(vec![all, each]);
    let _gateway = case.serve().await;
    let ask = async |user: &str| {
        let request = Request::get("/").header("host", "x").header("x-user", user);
        let mut client = Http1Client::connect(at(case.port)).await.unwrap();
        let answer = client
            .send(request.body(Bytes::new()).unwrap())
            .await
            .unwrap();
        (
            answer.status.as_u16(),
            answer.headers.get_all("ratelimit").iter().count(),
        )
    };
    assert_eq!(ask("a").await, (200, 2), "both say what is left");
    for _ in 0..10 {
        assert_eq!(ask("a").await, (429, 1));
    }
    for user in ["b", "c", "d"] {
        assert_eq!(ask(user).await.0, 200, "{user}");
    }
    assert_eq!(ask("e").await.0, 429, "none is left for all");
}

#[tokio::test]
async fn what_was_taken_outlives_a_change_of_route_and_rate() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.route.security_policy = policy(vec![limit(3, RateLimitScope::Route)]);
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/", 3).await, [200; 3]);
    case.route.rules[0].timeouts.request = Some(Duration::from_secs(9));
    gateway.apply(&case.snapshot("v2")).await;
    assert_eq!(case.statuses("/", 1).await, [429]);
    case.route.security_policy = policy(vec![limit(5, RateLimitScope::Route)]);
    gateway.apply(&case.snapshot("v3")).await;
    assert_eq!(case.statuses("/", 3).await, [200, 200, 429], "two more");
    case.route.security_policy = None;
    gateway.apply(&case.snapshot("v4")).await;
    assert_eq!(case.statuses("/", 5).await, [200; 5]);
}

#[tokio::test]
async fn a_worker_without_requests_lets_go_of_what_was_replaced() {
    let backend = Backend::http1("b").await;
    let mut case = case(&backend);
    case.route.security_policy = policy(vec![limit(1, RateLimitScope::Route)]);
    let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| bootstrap.workers = 3).await;
    let series = || gateway.scrape().contains(&format!("{REJECTED}{{"));
    // Every worker has met the configuration.
    while !case.statuses("/", 20).await.contains(&429) {}
    assert!(series());
    case.route.security_policy = None;
    gateway.apply(&case.snapshot("v2")).await;
    let gone = || (!series()).then_some(());
    dataplane_testkit::eventually("the series are gone", gone).await;
}

#[tokio::test]
async fn the_process_has_limits_of_its_own() {
    let backend = Backend::http1("b").await;
    let case = case(&backend);
    type Change = fn(&mut dataplane_config::ProcessLimits, RateLimit);
    let cases: [(&str, Change); 3] = [
        ("global", |limits, it| limits.global = Some(it)),
        ("listener", |limits, it| limits.listener = Some(it)),
        ("route", |limits, it| limits.route = Some(it)),
    ];
    for (scope, change) in cases {
        let own = match scope {
            "global" => RateLimitScope::Global,
            "listener" => RateLimitScope::Listener,
            _ => RateLimitScope::Route,
        };
        let gateway = Gateway::with(&case.snapshot("v1"), |bootstrap| {
            let unnamed = RateLimit {
                name: String::new(),
                ..limit(2, own)
            };
            change(&mut bootstrap.rate_limits, unnamed);
        })
        .await;
        assert_eq!(case.statuses("/", 3).await, [200, 200, 429], "{scope}");
        let name = format!("{REJECTED}{{scope=\"{scope}\"");
        assert_eq!(gateway.metric(&name, &[]), 1);
        assert!(gateway.stopped().await);
    }
}
