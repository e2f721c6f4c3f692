//! Endpoints that fail at TLS: in time, one by one, and without a trace in what follows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Secured, Step, closed_address};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, eventually};
use futures_util::future::join_all;
use http::Request;
use ir::cluster::ClusterProtocol;

use super::{CLUSTER, NAME, backend, failures, secured, snapshot, trusting};
use crate::support::{Gateway, at};

const PATIENCE: Duration = Duration::from_millis(300);

/// A gateway in front of these endpoints, which waits [`PATIENCE`] for a connection.
async fn gateway(port: u16, endpoints: &[SocketAddr], authority: &Authority) -> Gateway {
    let mut cluster = secured(
        CLUSTER,
        ClusterProtocol::Https,
        endpoints,
        trusting(authority),
    );
    cluster.connect_timeout = PATIENCE;
    Gateway::serving(&snapshot("v1", port, cluster)).await
}

/// Backends that do not get through a handshake, and what that is called.
async fn bad_backends(other: &Authority) -> Vec<(&'static str, Backend, u16, &'static str)> {
    let script = |steps: &[Step]| Kind::Scripted(Script::new(steps.to_vec()));
    let send = |bytes: &'static [u8]| Step::Send(Bytes::from_static(bytes));
    let plain = [send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Step::Finish];
    let alert = [send(&[21, 3, 3, 0, 2, 2, 40]), Step::Finish];
    let endless = [
        send(&[22, 3, 3, 0x40, 0, 2, 0, 0xff, 0xff]),
        send(&[0; 4096]),
        Step::Hold,
    ];
    let kinds = [
        ("plain text", script(&plain), 502, "upstream_tls"),
        ("an alert", script(&alert), 502, "upstream_tls"),
        (
            "an end",
            script(&[Step::Read(10), Step::Finish]),
            502,
            "upstream_tls",
        ),
        (
            "a reset",
            script(&[Step::Read(10), Step::Reset]),
            502,
            "upstream_tls",
        ),
        (
            "a record without an end",
            script(&endless),
            504,
            "connect_timeout",
        ),
        ("silence", Kind::BlackHole, 504, "connect_timeout"),
    ];
    let mut all = Vec::new();
    for (what, kind, status, reason) in kinds {
        all.push((what, Backend::start("bad", kind).await, status, reason));
    }
    let identity = other.server(&[NAME]);
    let untrusted = backend(&identity).await;
    all.push(("a bad certificate", untrusted, 502, "upstream_certificate"));
    all
}

#[tokio::test]
async fn an_endpoint_that_fails_at_tls_is_told_from_others_and_in_time() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    for (what, bad, status, reason) in bad_backends(&other).await {
        let port = free_port();
        let gateway = gateway(port, &[bad.address()], &ours).await;
        let began = Instant::now();
        let response = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(response.status, status, "{what}");
        assert!(failures(&gateway, reason) > 0, "{what}: {reason}");
        // Tried as often as a connection is, each time no longer than the patience.
        assert!(
            began.elapsed() < PATIENCE * 4 + Duration::from_secs(2),
            "{what}"
        );
        eventually("it is let go", || {
            (bad.open_connections() == 0).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn what_fails_before_anything_was_sent_goes_to_the_next_endpoint_once() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    for (what, bad, ..) in bad_backends(&other).await {
        let good = backend(&ours.server(&[NAME])).await;
        let port = free_port();
        let _gateway = gateway(port, &[bad.address(), good.address()], &ours).await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..4 {
            let request = Request::post("/").header("host", "x");
            let request = request.body(Bytes::from_static(b"once")).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status, 200, "{what}");
            assert_eq!(response.json()["body_bytes"], 4, "{what}");
        }
        assert_eq!(good.requests(), 4, "{what}: each arrived once");
        assert_eq!(bad.requests(), 0, "{what}");
    }
}

#[tokio::test]
async fn an_endpoint_that_mends_its_certificate_is_reached_at_once() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let tls = Secured::new(&other.server(&[NAME])).alpn(&["http/1.1"]);
    let backend = Backend::start_secured("b", Kind::Http1, &tls).await;
    let port = free_port();
    let _gateway = gateway(port, &[backend.address()], &ours).await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("x", "/").await.unwrap().status, 502);
    }
    tls.show(&ours.server(&[NAME]));
    let before = backend.connections();
    for _ in 0..5 {
        assert_eq!(client.get("x", "/").await.unwrap().status, 200);
    }
    assert_eq!(
        backend.connections(),
        before + 1,
        "one connection, and it is kept"
    );
}

#[tokio::test]
async fn many_who_wait_for_one_handshake_all_hear_how_it_ended() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let silent = Backend::start("silent", Kind::BlackHole).await;
    let untrusted = backend(&other.server(&[NAME])).await;
    let closed = closed_address();
    for (address, status) in [
        (silent.address(), 504),
        (untrusted.address(), 502),
        (closed, 502),
    ] {
        let port = free_port();
        let _gateway = gateway(port, &[address], &ours).await;
        let client = Http2Client::connect(at(port)).await.unwrap();
        let began = Instant::now();
        let answers = join_all((0..50).map(|_| client.get("x", "/"))).await;
        for answer in answers {
            assert_eq!(answer.unwrap().status, status, "{address}");
        }
        assert!(
            began.elapsed() < PATIENCE * 8 + Duration::from_secs(2),
            "{address}"
        );
    }
}
