//! A cluster that keeps failing is given a rest, and tried with a few requests before all.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::{Backend, SnapshotBuilder, wait};
use http::Request;
use ir::backend_policy::{BackendPolicy, BreakerThresholds};
use ir::policy::RoutePolicy;

use super::{Case, breaking};
use crate::support::{Gateway, at, http_route, retry};

const OPENED: &str = "http_circuit_breaker_opened_total{backend=\"shop/b:80\"}";
const REFUSED: &str = "http_circuit_breaker_rejected_backend_total{backend=\"shop/b:80\"}";

fn behind(breaker: BreakerThresholds) -> BackendPolicy {
    BackendPolicy {
        breaker: Some(breaker),
        ..BackendPolicy::default()
    }
}

#[tokio::test]
async fn a_breaker_opens_refuses_at_once_tries_and_closes() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], behind(breaking(3, 2, 1_500)));
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/?status=500", 2).await, [500; 2]);
    assert_eq!(case.statuses("/", 1).await, [200], "a row that was broken");
    assert_eq!(case.statuses("/?status=500", 3).await, [500; 3]);
    let refused = case.get("/").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.headers["retry-after"], "2");
    assert!(
        refused.text().contains("circuit_open"),
        "{}",
        refused.text()
    );
    assert_eq!(backend.requests(), 6, "nothing more was sent");
    assert_eq!(
        (gateway.metric(OPENED, &[]), gateway.metric(REFUSED, &[])),
        (1, 1)
    );

    // Half-open: a trial that fails opens it again, two that succeed close it.
    wait::until(Duration::from_secs(5), async || {
        case.get("/?status=500").await.status == 500
    })
    .await;
    assert_eq!(case.get("/").await.status, 503);
    assert_eq!(gateway.metric(OPENED, &[]), 2);
    wait::until(Duration::from_secs(5), async || {
        case.get("/").await.status == 200
    })
    .await;
    assert_eq!(case.statuses("/", 1).await, [200]);
    assert_eq!(case.statuses("/?status=500", 2).await, [500; 2]);
    assert_eq!(
        case.statuses("/", 1).await,
        [200],
        "closed, with a new count"
    );
}

#[tokio::test]
async fn no_more_trials_run_than_successes_are_needed() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], behind(breaking(1, 2, 100)));
    let _gateway = case.serve().await;
    assert_eq!(case.statuses("/?status=500", 1).await, [500]);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let requests: Vec<_> = (0..20)
        .map(|_| {
            let port = case.port;
            tokio::spawn(async move {
                let answer = http1::get(at(port), "x", "/?delay_ms=500").await.unwrap();
                answer.status.as_u16()
            })
        })
        .collect();
    let mut served = 0;
    for request in requests {
        served += usize::from(request.await.unwrap() == 200);
    }
    assert_eq!((served, backend.requests()), (2, 3));
}

#[tokio::test]
async fn a_trial_that_streams_keeps_nobody_out() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], behind(breaking(1, 1, 100)));
    let _gateway = case.serve().await;
    assert_eq!(case.statuses("/?status=500", 1).await, [500]);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut streaming = Http1Client::connect(at(case.port)).await.unwrap();
    let head = b"GET /?bytes=100000000 HTTP/1.1\r\nhost: x\r\n\r\n";
    streaming.send_bytes(head).await.unwrap();
    assert_eq!(streaming.read_head().await.unwrap().status, 200);
    assert_eq!(case.statuses("/", 3).await, [200; 3]);
}

#[tokio::test]
async fn a_grpc_call_hears_unavailable() {
    let case = Case::new(
        &[dataplane_testkit::backend::closed_address()],
        behind(breaking(1, 1, 60_000)),
    );
    let _gateway = case.serve().await;
    assert_eq!(case.statuses("/", 1).await, [502]);
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    let call = Request::post("http://x/a.B/C")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Bytes::new())
        .unwrap();
    let answer = client.send(call).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["grpc-status"], "14");
    assert_eq!(answer.headers["retry-after"], "60");
}

#[tokio::test]
async fn retries_end_where_the_breaker_opens() {
    let backend = Backend::http1("b").await;
    let mut case = Case::new(&[backend.address()], behind(breaking(3, 1, 60_000)));
    case.route.rules[0].retry = retry(&[500], 10, 0);
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/?status=500", 2).await, [500, 503]);
    assert_eq!(backend.requests(), 3);
    let denied = |cause: &str| {
        let labels = format!("{{backend=\"shop/b:80\",cause=\"{cause}\"}}");
        gateway.metric(&format!("backend_retries_denied_total{labels}"), &[])
    };
    assert_eq!((denied("unwell"), denied("budget")), (1, 0));
}

#[tokio::test]
async fn a_route_has_breakers_of_its_own_that_outlive_its_changes() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], BackendPolicy::default());
    let route = |key: &str, host: &str, breaker: Option<BreakerThresholds>| {
        let mut route = http_route(key, host, "/", &[("shop/b:80", 1)]);
        route.policy = Some(
            RoutePolicy {
                breaker,
                ..RoutePolicy::default()
            }
            .into(),
        );
        route
    };
    let snapshot = |version: &str, strict: ir::HttpRoute| {
        SnapshotBuilder::new(version)
            .http_listener("infra/gw/http", case.port)
            .http_route(strict)
            .http_route(route("shop/lax", "lax", None))
            .add_cluster(case.cluster.clone())
            .build()
    };
    let strict = route("shop/strict", "strict", Some(breaking(2, 1, 60_000)));
    let gateway = Gateway::serving(&snapshot("v1", strict.clone())).await;
    let status = async |host: &str, path: &str| {
        let answer = http1::get(at(case.port), host, path).await.unwrap();
        answer.status.as_u16()
    };
    for _ in 0..4 {
        assert_eq!(status("lax", "/?status=500").await, 500);
    }
    for expected in [500, 500, 503] {
        assert_eq!(status("strict", "/?status=500").await, expected);
    }
    assert_eq!(status("lax", "/").await, 200, "another route's is closed");
    let mut changed = strict;
    changed.rules[0].timeouts.request = Some(Duration::from_secs(9));
    gateway.apply(&snapshot("v2", changed)).await;
    assert_eq!(status("strict", "/").await, 503, "still open");
}
