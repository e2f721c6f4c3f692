//! Limits that are met on the way to a backend or behind its answer: how long an endpoint is dialled,
//! and how much is read of a body that nobody wants any more.

use std::time::Duration;

use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::backend::{Hole, Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::{cluster, free_port};
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::{Method, Request};
use ir::Snapshot;
use ir::cluster::ClusterProtocol;
use ir::policy::RoutePolicy;
use tokio::time::Instant;

use super::to;
use crate::support::{Gateway, at, retry};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(300);

fn times(connect: Duration, elsewhere: Option<Duration>) -> impl FnOnce(&mut Bootstrap) {
    move |bootstrap| {
        bootstrap.workers = 1;
        bootstrap.http.connect_timeout = connect;
        bootstrap.http.connect_timeout_elsewhere = elsewhere;
    }
}

/// A snapshot whose cluster has no connect timeout of its own.
fn patient(port: u16, endpoints: &[std::net::SocketAddr], protocol: ClusterProtocol) -> Snapshot {
    let mut cluster = cluster("shop/b:80", protocol, endpoints);
    cluster.connect_timeout = HOUR;
    SnapshotBuilder::from(&to(port, &[]), "v1")
        .add_cluster(cluster)
        .build()
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_soon_left_while_there_is_another() {
    let hole = Hole::new().await;
    for (kind, protocol) in [
        (Kind::Http1, ClusterProtocol::Http),
        (Kind::Http2, ClusterProtocol::H2c),
    ] {
        let there = Backend::start("there", kind).await;
        let port = free_port();
        let endpoints = [hole.address(), there.address()];
        let snapshot = patient(port, &endpoints, protocol);
        let gateway = Gateway::with(&snapshot, times(HOUR, Some(SHORT))).await;
        // Nothing of a request is in a connection that never came up: a POST goes elsewhere, too.
        for method in ["GET", "POST", "GET", "POST"] {
            let began = Instant::now();
            let mut client = Http1Client::connect(at(port)).await.unwrap();
            let request = Request::builder().method(method).uri("/");
            let request = request.header("host", "x").body("body".into()).unwrap();
            assert_eq!(client.send(request).await.unwrap().status, 200, "{method}");
            assert!(began.elapsed() < DEADLINE / 2, "{:?}", began.elapsed());
        }
        let failed = gateway.metric("backend_connection_errors_total", &["connect_timeout"]);
        assert!((1..=4).contains(&failed), "{failed}");
    }
}

#[tokio::test]
async fn the_last_attempt_has_all_the_time_there_is() {
    let (one, two) = (Hole::new().await, Hole::new().await);
    let all = Duration::from_millis(1500);
    // The endpoints, the retries of connections, and how many of the attempts are cut short.
    for (endpoints, retries, short) in [
        (vec![one.address()], 2, 0),
        (vec![one.address(), two.address()], 0, 0),
        (vec![one.address(), two.address()], 1, 1),
        // Both were tried when the third attempt begins: there is no other any more.
        (vec![one.address(), two.address()], 2, 1),
    ] {
        let port = free_port();
        let snapshot = patient(port, &endpoints, ClusterProtocol::Http);
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            times(all, Some(SHORT))(bootstrap);
            bootstrap.http.connect_retries = retries;
        })
        .await;
        let began = Instant::now();
        let response = http1::get(at(port), "x", "/").await.unwrap();
        let took = began.elapsed();
        assert_eq!(response.status, 504);
        assert!(response.text().contains("(connect_timeout)"));
        let attempts = gateway.metric("backend_connection_errors_total", &["connect_timeout"]);
        assert_eq!(attempts, u64::from(retries) + 1);
        let least = SHORT * short + all * (retries + 1 - short);
        assert!(took >= least, "{took:?} of {least:?}");
        assert!(took < least + all, "{took:?} of {least:?}");
    }
}

#[tokio::test]
async fn a_policy_that_leaves_no_time_for_another_attempt_shortens_none() {
    let hole = Hole::new().await;
    let there = Backend::http1("there").await;
    let port = free_port();
    let mut snapshot = patient(
        port,
        &[hole.address(), there.address()],
        ClusterProtocol::Http,
    );
    let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
    route.rules[0].retry = retry(&[503], 2, 0);
    route.policy = Some(
        RoutePolicy {
            next_upstream_timeout: Some(SHORT / 2),
            ..RoutePolicy::default()
        }
        .into(),
    );
    snapshot.http_routes.insert(route);
    let _gateway = Gateway::with(&snapshot, times(SHORT * 3, Some(SHORT))).await;
    let mut slowest = Duration::ZERO;
    let mut refused = 0;
    for _ in 0..2 {
        let began = Instant::now();
        let response = http1::get(at(port), "x", "/").await.unwrap();
        refused += usize::from(response.status == 504);
        slowest = slowest.max(began.elapsed());
    }
    assert_eq!(refused, 1);
    assert!(slowest >= SHORT * 3, "{slowest:?}");
}

#[tokio::test]
async fn the_rest_of_a_body_is_read_as_far_as_the_limits_say() {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n\r\n";
    let early = [
        Step::ReadHead,
        Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly".into()),
        Step::Hold,
    ];
    // What is read of it, for how long, what comes of it, and whether the connection is kept.
    for (bytes, time, sent, is_kept) in [
        (5000, HOUR, 5000, true),
        (4000, HOUR, 5000, false),
        (0, HOUR, 5000, false),
        (5000, SHORT, 10, false),
    ] {
        let origin = Backend::start("early", Kind::Scripted(Script::new(early.clone()))).await;
        let port = free_port();
        let gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
            bootstrap.http.request_rest_bytes_max = bytes;
            bootstrap.http.request_rest_time = time;
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.send_bytes(HEAD).await.unwrap();
        let response = client.read_response(&Method::POST).await.unwrap();
        assert_eq!(response.text(), "early");
        client.send_bytes(&vec![b'x'; sent]).await.unwrap();
        let ended = || gateway.metric("downstream_connections_ended_total", &["request_rest"]);
        if is_kept {
            client.send_bytes(HEAD).await.unwrap();
            let again = client.read_response(&Method::POST).await.unwrap();
            assert_eq!(again.text(), "early", "{bytes} {time:?}");
            assert_eq!(ended(), 0);
        } else {
            let closed = within("the end", client.is_closed()).await;
            assert!(closed.unwrap(), "{bytes} {time:?}");
            until(DEADLINE, async || ended() == 1).await;
        }
    }
}
