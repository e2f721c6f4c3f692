//! Connections and waiting requests of a cluster: never more than the limit, nobody left hanging.

use std::time::Duration;

use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::{Backend, within};
use http::Request;
use ir::backend_policy::BackendPolicy;
use ir::cluster::ClusterProtocol;

use super::{Case, ejecting};
use crate::support::at;

fn at_most(connections: u32) -> BackendPolicy {
    BackendPolicy {
        max_connections: Some(connections),
        ..BackendPolicy::default()
    }
}

/// The statuses of so many requests at once, each on a connection of its own.
async fn at_once(case: &Case, path: &str, requests: usize) -> Vec<u16> {
    let requests = (0..requests).map(|_| http1::get(at(case.port), "x", path));
    let answers = futures_util::future::join_all(requests).await;
    answers
        .into_iter()
        .map(|answer| answer.unwrap().status.as_u16())
        .collect()
}

fn count(statuses: &[u16], status: u16) -> usize {
    statuses.iter().filter(|it| **it == status).count()
}

#[tokio::test]
async fn a_cluster_never_has_more_connections_than_its_limit_and_all_are_served() {
    for (kind, protocol) in [
        (Kind::Http1, ClusterProtocol::Http),
        (Kind::Http2, ClusterProtocol::H2c),
    ] {
        let is_http2 = protocol == ClusterProtocol::H2c;
        let backend = Backend::start("b", kind).await;
        let mut case = Case::new(&[backend.address()], at_most(2));
        case.cluster.protocol = protocol;
        let gateway = case.serve().await;
        let most = async {
            let mut most = 0;
            loop {
                most = most.max(backend.open_connections());
                if backend.requests() >= 12 {
                    return most;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let asked = at_once(&case, "/?delay_ms=100", 12);
        let (statuses, most) =
            within("all are served", futures_util::future::join(asked, most)).await;
        assert_eq!(statuses, [200; 12], "HTTP/2: {is_http2}");
        assert!((1..=2).contains(&most), "{most} connections");
        assert!(gateway.metric("backend_connections_active", &[]) <= 2);
        assert!(gateway.metric("backend_connections_total", &[]) > 0);
    }
}

#[tokio::test]
async fn workers_pass_connections_on_to_each_other() {
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], at_most(1));
    let _gateway = case.serve().await;
    for _ in 0..3 {
        let statuses = within("all are served", at_once(&case, "/?delay_ms=5", 16)).await;
        assert_eq!(statuses, [200; 16]);
    }
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let backend = Backend::http1("b").await;
    let policy = BackendPolicy {
        max_pending_requests: Some(2),
        ..at_most(1)
    };
    let case = Case::new(&[backend.address()], policy);
    let gateway = case.serve().await;
    // Whoever dials waits for a connection too, so it is up before the others come.
    let mut first = Http1Client::connect(at(case.port)).await.unwrap();
    first
        .send_bytes(b"GET /?delay_ms=1000 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    dataplane_testkit::wait::eventually("the connection is in use", || {
        (backend.requests() == 1).then_some(())
    })
    .await;
    let statuses = at_once(&case, "/?delay_ms=100", 7).await;
    assert_eq!(
        (count(&statuses, 200), count(&statuses, 503)),
        (2, 5),
        "{statuses:?}"
    );
    let refused =
        "backend_connection_errors_total{backend=\"shop/b:80\",reason=\"backend_overload\"}";
    assert_eq!(gateway.metric(refused, &[]), 5);
}

#[tokio::test]
async fn who_waits_too_long_hears_503_and_no_endpoint_is_left_out_for_it() {
    let hold = Script::new([Step::ReadHead, Step::Hold]);
    let backend = Backend::start("b", Kind::Scripted(hold)).await;
    let policy = BackendPolicy {
        max_connections: Some(1),
        ..ejecting(1)
    };
    let mut case = Case::new(&[backend.address()], policy);
    case.cluster.connect_timeout = Duration::from_millis(100);
    let gateway = case.serve().await;
    let mut holding = Http1Client::connect(at(case.port)).await.unwrap();
    holding
        .send_bytes(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    dataplane_testkit::wait::eventually("the connection is in use", || {
        (backend.requests() == 1).then_some(())
    })
    .await;
    let refused = case.get("/").await;
    assert_eq!(refused.status, 503);
    assert!(refused.text().contains("backend_overload"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(gateway.metric("backend_endpoint_ejections_total", &[]), 0);
}

#[tokio::test]
async fn a_connection_ends_behind_its_last_request() {
    let policy = BackendPolicy {
        max_requests_per_connection: Some(3),
        ..BackendPolicy::default()
    };
    let backend = Backend::http1("b").await;
    let case = Case::new(&[backend.address()], policy.clone());
    let _gateway = case.serve().await;
    let mut client = Http1Client::connect(at(case.port)).await.unwrap();
    for _ in 0..9 {
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    }
    assert_eq!(backend.connections(), 3);

    let backend = Backend::http2("b").await;
    let mut case = Case::new(&[backend.address()], policy);
    case.cluster.protocol = ClusterProtocol::H2c;
    let _gateway = case.serve().await;
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    for _ in 0..9 {
        let request = Request::get("http://x/").body(bytes::Bytes::new()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status, 200);
    }
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn backends_have_their_share_of_descriptors_and_no_more() {
    let (a, b) = (Backend::http1("a").await, Backend::http1("b").await);
    let mut case = Case::new(&[a.address(), b.address()], BackendPolicy::default());
    case.cluster.connect_timeout = Duration::from_secs(4);
    let snapshot = case.snapshot("v1");
    let room = dataplane_resilience::admission::Gate::new(None);
    let gateway = crate::support::Gateway::with(&snapshot, |bootstrap| {
        bootstrap.http.upstream_connections = room.clone();
        // Idle connections make room for others of their own worker.
        bootstrap.workers = 1;
    })
    .await;
    room.set_limit(Some(2));
    let statuses = at_once(&case, "/?delay_ms=1500", 6).await;
    assert_eq!(
        (count(&statuses, 200), count(&statuses, 503)),
        (2, 4),
        "{statuses:?}"
    );
    // An idle connection makes room for one that is needed.
    assert_eq!(case.statuses("/", 6).await, [200; 6]);
    assert!(room.current() <= 2);
    assert!(gateway.stopped().await);
}
