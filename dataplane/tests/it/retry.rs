//! Retries as an origin counts them: what is sent again, what never is, how soon, and how often.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, SnapshotBuilder};
use http::{Method, Request, StatusCode};
use ir::cluster::ClusterProtocol;
use ir::policy::{Retry, RoutePolicy};

use crate::support::{Gateway, at, http_route, retry};

/// One route to one cluster.
struct Case {
    port: u16,
    protocol: ClusterProtocol,
    endpoints: Vec<SocketAddr>,
    route: ir::HttpRoute,
}

impl Case {
    fn new(endpoints: &[SocketAddr], retry: Option<Arc<Retry>>) -> Self {
        let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
        route.rules[0].retry = retry;
        Self {
            port: free_port(),
            protocol: ClusterProtocol::Http,
            endpoints: endpoints.to_vec(),
            route,
        }
    }

    fn h2c(mut self) -> Self {
        self.protocol = ClusterProtocol::H2c;
        self
    }

    fn timeouts(mut self, request_ms: Option<u64>, backend_request_ms: Option<u64>) -> Self {
        let timeouts = &mut self.route.rules[0].timeouts;
        timeouts.request = request_ms.map(Duration::from_millis);
        timeouts.backend_request = backend_request_ms.map(Duration::from_millis);
        self
    }

    fn policy(mut self, policy: RoutePolicy) -> Self {
        self.route.policy = Some(policy.into());
        self
    }

    fn snapshot(&self) -> ir::Snapshot {
        SnapshotBuilder::new("v1")
            .http_listener("infra/gw/http", self.port)
            .http_route(self.route.clone())
            .add_cluster(cluster("shop/b:80", self.protocol.clone(), &self.endpoints))
            .build()
    }

    async fn serve(&self) -> Gateway {
        Gateway::serving(&self.snapshot()).await
    }

    async fn http1(&self, request: Request<Bytes>) -> Response {
        let mut client = Http1Client::connect(at(self.port)).await.unwrap();
        client.send(request).await.unwrap()
    }

    async fn http2(&self, mut request: Request<Bytes>) -> Response {
        *request.uri_mut() = format!("http://x{}", request.uri()).parse().unwrap();
        request.headers_mut().remove("host");
        let client = Http2Client::connect(at(self.port)).await.unwrap();
        client.send(request).await.unwrap()
    }
}

fn request(method: Method, path: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "x")
        .body(body.into())
        .unwrap()
}

fn get(path: &str) -> Request<Bytes> {
    request(Method::GET, path, "")
}

/// Bytes that differ from place to place.
fn noise(length: usize) -> Bytes {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test]
async fn listed_statuses_are_tried_again_up_to_the_number_of_attempts() {
    // codes, attempts, status of the backend, how often -> status, requests at the backend
    let all = &[500, 502, 503, 504][..];
    let cases = [
        (&[500][..], 3, 500, 2, 200, 3),
        (&[500], 3, 500, 4, 500, 4),
        (&[500], 3, 503, 2, 503, 1),
        (all, 2, 502, 1, 200, 2),
        (all, 2, 502, 3, 502, 3),
        (all, 2, 503, 2, 200, 3),
        (all, 2, 504, 3, 504, 3),
        (all, 0, 503, 3, 503, 1),
        (&[404], 1, 404, 1, 200, 2),
    ];
    for (codes, attempts, failing, first, status, requests) in cases {
        for is_http2 in [false, true] {
            let kind = if is_http2 { Kind::Http2 } else { Kind::Http1 };
            let backend = Backend::start("b", kind).await;
            let mut case = Case::new(&[backend.address()], retry(codes, attempts, 0));
            if is_http2 {
                case = case.h2c();
            }
            let gateway = case.serve().await;
            let wanted = get(&format!("/?status={failing}&first={first}"));
            let response = match is_http2 {
                true => case.http2(wanted).await,
                false => case.http1(wanted).await,
            };
            let name = format!("{codes:?} {attempts} {failing} {first} {is_http2}");
            assert_eq!(response.status, status, "{name}");
            assert!(response.text().contains("\"backend\":\"b\""), "{name}");
            assert_eq!(backend.requests(), requests, "{name}");
            if !is_http2 {
                assert_eq!(backend.connections(), 1, "{name}: its connection is kept");
            }
            assert_eq!(
                gateway.metric("backend_retries_total", &[]),
                requests as u64 - 1
            );
            // Each attempt that was answered.
            let answers = |class: &str| {
                let labels = ["backend=\"shop/b:80\"", class];
                gateway.metric("backend_requests_total{", &labels)
            };
            let failed = answers("status_class=\"4xx\"") + answers("status_class=\"5xx\"");
            let went_well = u64::from(status == 200);
            assert_eq!(answers("2xx"), went_well, "{name}");
            assert_eq!(failed, requests as u64 - went_well, "{name}");
        }
    }
}

#[tokio::test]
async fn a_post_that_may_have_arrived_is_never_sent_again() {
    let body = "pay 5";
    // What the backend does -> the client's status; the policy would cover all of it.
    let cases = [
        ("/?status=503", 503),
        ("/?close=head", 502),
        ("/?delay_ms=2000", 504),
    ];
    for (path, status) in cases {
        for method in [Method::POST, Method::PATCH] {
            for is_http2 in [false, true] {
                let kind = if is_http2 { Kind::Http2 } else { Kind::Http1 };
                let backend = Backend::start("b", kind).await;
                let mut case = Case::new(&[backend.address()], retry(&[503], 5, 0));
                case = case.timeouts(None, Some(150));
                if is_http2 {
                    case = case.h2c();
                }
                let _gateway = case.serve().await;
                let wanted = request(method.clone(), path, body);
                let response = match is_http2 {
                    true => case.http2(wanted).await,
                    false => case.http1(wanted).await,
                };
                assert_eq!(response.status, status, "{method} {path} {is_http2}");
                assert_eq!(backend.requests(), 1, "{method} {path} {is_http2}");
            }
        }
    }
}

#[tokio::test]
async fn a_post_that_cannot_have_arrived_is_sent_to_another_endpoint_once() {
    let backend = Backend::http1("b").await;
    let dead = [closed_address(), closed_address(), closed_address()];
    let mut endpoints = dead.to_vec();
    endpoints.push(backend.address());
    let case = Case::new(&endpoints, retry(&[], 3, 0));
    let _gateway = case.serve().await;
    for _ in 0..8 {
        let response = case.http1(request(Method::POST, "/", "once")).await;
        assert_eq!(response.status, 200);
    }
    assert_eq!(backend.requests(), 8, "each request arrived once");
}

#[tokio::test]
async fn resets_and_timeouts_of_an_idempotent_request_are_tried_again() {
    for path in ["/?close=head&first=2", "/?delay_ms=5000&first=2"] {
        for is_http2 in [false, true] {
            let kind = if is_http2 { Kind::Http2 } else { Kind::Http1 };
            let backend = Backend::start("b", kind).await;
            let mut case = Case::new(&[backend.address()], retry(&[], 2, 0));
            case = case.timeouts(None, Some(150));
            if is_http2 {
                case = case.h2c();
            }
            let _gateway = case.serve().await;
            for method in [Method::GET, Method::PUT, Method::DELETE] {
                let response = case.http1(request(method.clone(), path, "")).await;
                assert_eq!(response.status, 200, "{method} {path} {is_http2}");
            }
            assert_eq!(backend.requests(), 5, "{path} {is_http2}");
        }
    }
}

#[tokio::test]
async fn without_a_policy_a_failed_request_is_not_sent_again() {
    for path in ["/?status=503", "/?close=head", "/?delay_ms=5000"] {
        let backend = Backend::http1("b").await;
        let case = Case::new(&[backend.address()], None).timeouts(None, Some(150));
        let _gateway = case.serve().await;
        let response = case.http1(get(path)).await;
        assert!(response.status.is_server_error(), "{path}");
        assert_eq!(backend.requests(), 1, "{path}");
    }
}

#[tokio::test]
async fn after_two_kept_connections_that_ended_a_new_one_is_dialled() {
    const KEPT: usize = 6;
    // Each connection serves one request and ends with the next.
    let backend = Backend::start(
        "b",
        Kind::Scripted(Script::new([
            Step::ReadHead,
            Step::Pause(Duration::from_millis(300)),
            Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
            Step::ReadHead,
        ])),
    )
    .await;
    let case = Case::new(&[backend.address()], None);
    let _gateway = Gateway::with(&case.snapshot(), |bootstrap| bootstrap.workers = 1).await;
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    let burst = (0..KEPT).map(|_| client.get("x", "/"));
    for response in futures_util::future::join_all(burst).await {
        assert_eq!(response.unwrap().status, 200);
    }
    assert_eq!(backend.connections(), KEPT);
    assert_eq!(case.http1(get("/")).await.text(), "ok");
    assert_eq!(backend.connections(), KEPT + 1);
}

#[tokio::test]
async fn a_kept_body_arrives_again_byte_by_byte() {
    let cases: [(Kind, ClusterProtocol); 2] = [
        (Kind::Http1, ClusterProtocol::Http),
        (Kind::Http2, ClusterProtocol::H2c),
    ];
    for (kind, protocol) in cases {
        let backend = Backend::start("b", kind).await;
        let mut case = Case::new(&[backend.address()], retry(&[503], 3, 0));
        case.protocol = protocol;
        let _gateway = case.serve().await;
        let mut before = 0;
        for length in [1, 5_000, 65_536] {
            let body = noise(length);
            let path = format!("/echo?status=503&first={}", before + 2);
            let mut chunked = request(Method::PUT, &path, chunks(&body));
            let headers = chunked.headers_mut();
            headers.insert("transfer-encoding", "chunked".parse().unwrap());
            let sized = request(Method::PUT, &path, body.clone());
            let response = case.http1(chunked).await;
            assert_eq!(
                (response.status, response.body),
                (StatusCode::OK, body.clone())
            );
            let response = case.http1(sized.clone()).await;
            assert_eq!(
                (response.status, response.body),
                (StatusCode::OK, body.clone())
            );
            let response = case.http2(sized).await;
            assert_eq!((response.status, response.body), (StatusCode::OK, body));
            before = backend.requests();
        }
        assert_eq!(
            before,
            3 * (3 + 1 + 1),
            "the first of each length failed twice"
        );
    }
}

/// In chunks of growing size.
fn chunks(body: &Bytes) -> Bytes {
    let mut wire = Vec::new();
    let (mut rest, mut size) = (&body[..], 1);
    while !rest.is_empty() {
        let (chunk, left) = rest.split_at(size.min(rest.len()));
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        (rest, size) = (left, size * 2 + 1);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire.into()
}

#[tokio::test]
async fn a_body_that_is_too_large_to_keep_is_sent_once() {
    let backend = Backend::http1("b").await;
    let small = RoutePolicy {
        request_body_buffer_bytes: Some(1000),
        ..RoutePolicy::default()
    };
    let case = Case::new(&[backend.address()], retry(&[503], 3, 0)).policy(small);
    let gateway = case.serve().await;
    let body = noise(1001);
    let response = case
        .http1(request(Method::PUT, "/echo?status=503", body.clone()))
        .await;
    assert_eq!((response.status.as_u16(), response.body), (503, body));
    assert_eq!(backend.requests(), 1);
    let labels = ["cause=\"body\""];
    assert_eq!(gateway.metric("backend_retries_denied_total", &labels), 1);
    let body = noise(1000);
    let response = case
        .http1(request(
            Method::PUT,
            "/echo?status=503&first=2",
            body.clone(),
        ))
        .await;
    assert_eq!((response.status.as_u16(), response.body), (200, body));
    assert_eq!(backend.requests(), 3);
}

#[tokio::test]
async fn the_backoff_passes_before_each_attempt() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], retry(&[503], 3, 100));
    let _gateway = case.serve().await;
    let started = Instant::now();
    assert_eq!(case.http1(get("/?status=503&first=2")).await.status, 200);
    assert!(started.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn attempts_that_cannot_begin_in_time_are_not_made() {
    // The backend's own answer is passed on when the pause would outlast the request.
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], retry(&[503], 9, 60_000)).timeouts(Some(5000), None);
    let _gateway = case.serve().await;
    let started = Instant::now();
    assert_eq!(case.http1(get("/?status=503")).await.status, 503);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(backend.requests(), 1);

    // All attempts together have no more time than one.
    let hole = Backend::http1("b").await;
    let case = Case::new(&[hole.address()], retry(&[503], 9, 0)).timeouts(Some(2000), Some(800));
    let _gateway = case.serve().await;
    let started = Instant::now();
    let response = case.http1(get("/?delay_ms=10000")).await;
    assert_eq!(response.status, 504);
    assert!(
        response.text().contains("request_timeout"),
        "{}",
        response.text()
    );
    assert!(started.elapsed() >= Duration::from_millis(2000));
    assert!((2..=3).contains(&hole.requests()), "{}", hole.requests());

    // No further attempt begins behind the route's limit for that.
    let late = Backend::http1("b").await;
    let policy = RoutePolicy {
        next_upstream_timeout: Some(Duration::from_millis(100)),
        ..RoutePolicy::default()
    };
    let case = Case::new(&[late.address()], retry(&[503], 9, 150)).policy(policy);
    let _gateway = case.serve().await;
    assert_eq!(case.http1(get("/?status=503")).await.status, 503);
    assert_eq!(late.requests(), 1);
}

#[tokio::test]
async fn a_backend_that_asks_to_be_left_alone_is() {
    for (seconds, requests) in [("1", 2), ("60", 1)] {
        let answer =
            format!("HTTP/1.1 503 Busy\r\nretry-after: {seconds}\r\ncontent-length: 4\r\n\r\nbusy");
        let script = Script::new([Step::ReadHead, Step::Send(answer.into()), Step::Repeat]);
        let backend = Backend::start("b", Kind::Scripted(script)).await;
        let case = Case::new(&[backend.address()], retry(&[503], 1, 0));
        let _gateway = case.serve().await;
        let started = Instant::now();
        let response = case.http1(get("/")).await;
        assert_eq!(
            (response.status.as_u16(), response.text()),
            (503, "busy".into())
        );
        assert_eq!(backend.requests(), requests);
        let waited = started.elapsed() >= Duration::from_secs(1);
        assert_eq!(waited, requests == 2);
    }
}

#[tokio::test]
async fn a_backend_that_always_fails_bears_a_fifth_more_and_the_burst() {
    const REQUESTS: usize = 200;
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], retry(&[503], 5, 0));
    let gateway = case.serve().await;
    let started = Instant::now();
    let mut client = Http1Client::connect(at(case.port)).await.unwrap();
    for _ in 0..REQUESTS {
        let response = client.get("x", "/?status=503").await.unwrap();
        assert_eq!(response.status, 503, "the answer is passed on as it is");
    }
    let windows = started.elapsed().as_secs_f64() / 10.0;
    let most = REQUESTS as f64 * 1.2 + 16.0 * (1.0 + windows);
    let seen = backend.requests();
    assert!((seen as f64) <= most, "{seen} of {most}");
    assert!(
        seen as f64 >= REQUESTS as f64 * 1.2,
        "{seen}: the budget is used"
    );
    assert_eq!(
        gateway.metric("backend_retries_total", &[]),
        (seen - REQUESTS) as u64
    );
    let denied = |cause: &str| {
        let labels = format!("{{backend=\"shop/b:80\",cause=\"{cause}\"}}");
        gateway.metric(&format!("backend_retries_denied_total{labels}"), &[])
    };
    assert!(denied("budget") > 0);
    assert_eq!(denied("unwell"), 0);
    for name in [
        "backend_retryable_requests_total",
        "http_retry_budget_retryable_requests_observed_total",
    ] {
        assert_eq!(gateway.metric(name, &[]), REQUESTS as u64, "{name}");
    }
    assert_eq!(
        gateway.metric("http_retry_budget_rejected_total", &[]),
        denied("budget")
    );

    // What is owed lives through an update of the cluster.
    let mut changed = Case::new(&[backend.address()], retry(&[503], 5, 0));
    changed.port = case.port;
    changed.endpoints.push(backend.address());
    let next = SnapshotBuilder::from(&changed.snapshot(), "v2").build();
    gateway.change(&case.snapshot(), &next).await;
    let before = backend.requests();
    for _ in 0..10 {
        client.get("x", "/?status=503").await.unwrap();
    }
    let more = backend.requests() - before;
    assert!(
        more <= 10 + 2 + 3,
        "{more}: a new cluster would have had a new burst"
    );
}

#[tokio::test]
async fn without_a_budget_every_attempt_is_made() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], retry(&[503], 2, 0));
    let _gateway = Gateway::with(&case.snapshot(), |bootstrap| {
        bootstrap.http.retry_budget = None;
    })
    .await;
    for _ in 0..30 {
        assert_eq!(case.http1(get("/?status=503")).await.status, 503);
    }
    assert_eq!(backend.requests(), 90);
}

#[tokio::test]
async fn endpoints_that_failed_are_avoided() {
    let mut backends = Vec::new();
    for name in ["a", "b", "c"] {
        backends.push(Backend::http1(name).await);
    }
    let endpoints: Vec<_> = backends.iter().map(Backend::address).collect();
    let case = Case::new(&endpoints, retry(&[503], 2, 0));
    let _gateway = case.serve().await;
    assert_eq!(case.http1(get("/?status=503")).await.status, 503);
    let seen: Vec<_> = backends.iter().map(Backend::requests).collect();
    assert_eq!(seen, [1, 1, 1]);
}
