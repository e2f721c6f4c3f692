//! Endpoints that keep failing are left out, and nothing that a client does leaves one out.

use std::time::Duration;

use bytes::Bytes;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::{Backend, within};
use http::{Method, Request};
use ir::backend_policy::BackendPolicy;
use ir::cluster::ClusterProtocol;

use super::{Case, ejecting};
use crate::support::{at, retry};

const EJECTIONS: &str = "backend_endpoint_ejections_total{backend=\"shop/b:80\"}";

fn answering(status: &str) -> Script {
    Script::answer(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"))
}

#[tokio::test]
async fn an_endpoint_that_keeps_failing_is_asked_no_more() {
    // What the endpoint does, whether the client notices, and whether it is left out for it.
    let cut = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf";
    for (name, script, is_left_out) in [
        ("500", answering("500 X"), true),
        ("503", answering("503 X"), true),
        ("404", answering("404 X"), false),
        ("reset", Script::new([Step::ReadHead, Step::Reset]), true),
        ("closed", Script::new([Step::ReadHead]), true),
        ("cut", Script::answer(cut), true),
        ("nonsense", Script::answer("HTTP/9 x\r\n\r\n"), true),
    ] {
        let bad = Backend::start("bad", Kind::Scripted(script)).await;
        let good = Backend::http1("good").await;
        let case = Case::new(&[bad.address(), good.address()], ejecting(3));
        let gateway = case.serve().await;
        for _ in 0..30 {
            // A response that is cut is no response to this client.
            let mut client = Http1Client::connect(at(case.port)).await.unwrap();
            let _ = client.get("x", "/").await;
        }
        let expected = if is_left_out { (3, 1) } else { (15, 0) };
        let seen = (bad.requests(), gateway.metric(EJECTIONS, &[]));
        assert_eq!(seen, expected, "{name}");
    }
}

#[tokio::test]
async fn an_endpoint_that_takes_no_connection_is_dialled_no_more() {
    let good = Backend::http1("good").await;
    let case = Case::new(&[closed_address(), good.address()], ejecting(3));
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/", 30).await, [200; 30], "tried elsewhere");
    let failed = "backend_connection_errors_total{backend=\"shop/b:80\",reason=\"connect_failed\"}";
    assert_eq!(gateway.metric(failed, &[]), 3);
    assert_eq!(gateway.metric(EJECTIONS, &[]), 1);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_in_time_is_left_out() {
    let bad = Backend::start(
        "bad",
        Kind::Scripted(Script::new([Step::ReadHead, Step::Hold])),
    )
    .await;
    let good = Backend::http1("good").await;
    for (request_ms, attempt_ms, status) in [(None, Some(50), 504), (Some(50), None, 504)] {
        let mut case = Case::new(&[bad.address(), good.address()], ejecting(2));
        let timeouts = &mut case.route.rules[0].timeouts;
        timeouts.request = request_ms.map(Duration::from_millis);
        timeouts.backend_request = attempt_ms.map(Duration::from_millis);
        let gateway = case.serve().await;
        let statuses = case.statuses("/", 12).await;
        let late = statuses.iter().filter(|it| **it == status).count();
        assert_eq!(late, 2, "{request_ms:?} {attempt_ms:?}: {statuses:?}");
        assert_eq!(gateway.metric(EJECTIONS, &[]), 1);
    }
}

#[tokio::test]
async fn clients_that_send_slowly_or_give_up_leave_no_endpoint_out() {
    let backend = Backend::http1("b").await;
    let other = Backend::http1("b").await;
    let mut case = Case::new(&[backend.address(), other.address()], ejecting(1));
    case.route.rules[0].timeouts.backend_request = Some(Duration::from_millis(100));
    let gateway = case.serve().await;
    for _ in 0..4 {
        let mut slow = Http1Client::connect(at(case.port)).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nhalf";
        slow.send_bytes(head).await.unwrap();
        let response = within("the deadline", slow.read_response(&Method::POST)).await;
        assert_eq!(response.unwrap().status, 504);
        let mut gone = Http1Client::connect(at(case.port)).await.unwrap();
        let head = b"GET /?delay_ms=50 HTTP/1.1\r\nhost: x\r\n\r\n";
        gone.send_bytes(head).await.unwrap();
        drop(gone);
    }
    assert_eq!(gateway.metric(EJECTIONS, &[]), 0);
}

#[tokio::test]
async fn a_call_with_a_short_time_of_its_own_leaves_no_endpoint_out() {
    let backend = Backend::start("b", Kind::Http2).await;
    let other = Backend::start("b", Kind::Http2).await;
    let mut case = Case::new(&[backend.address(), other.address()], ejecting(1));
    case.cluster.protocol = ClusterProtocol::H2c;
    let gateway = case.serve().await;
    let client = Http2Client::connect(at(case.port)).await.unwrap();
    for _ in 0..4 {
        let call = Request::post("http://x/?delay_ms=2000")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-timeout", "30m")
            .body(Bytes::new())
            .unwrap();
        let response = client.send(call).await.unwrap();
        assert_eq!(response.headers["grpc-status"], "4");
    }
    assert_eq!(gateway.metric(EJECTIONS, &[]), 0);
}

#[tokio::test]
async fn what_is_held_against_an_endpoint_outlives_its_configuration() {
    let bad = Backend::start("bad", Kind::Scripted(answering("503 X"))).await;
    let good = Backend::http1("good").await;
    let late = Backend::http1("late").await;
    let mut case = Case::new(&[bad.address(), good.address()], ejecting(3));
    let gateway = case.serve().await;
    case.statuses("/", 10).await;
    assert_eq!(bad.requests(), 3);
    let both = [bad.address(), good.address(), late.address()];
    let mut cluster = Case::new(&both, ejecting(3)).cluster;
    cluster.connect_timeout = Duration::from_secs(4);
    case.cluster = cluster;
    gateway.apply(&case.snapshot("v2")).await;
    assert_eq!(case.statuses("/", 10).await, [200; 10]);
    assert_eq!(bad.requests(), 3, "it is still left out");
    assert_eq!(late.requests(), 5, "those who are well share");
}

#[tokio::test]
async fn a_retry_goes_to_another_endpoint_and_nowhere_when_too_many_fail() {
    let bad = Backend::start("bad", Kind::Scripted(answering("503 X"))).await;
    let good = Backend::http1("good").await;
    let mut case = Case::new(&[bad.address(), good.address()], ejecting(3));
    case.route.rules[0].retry = retry(&[503], 5, 0);
    let gateway = case.serve().await;
    assert_eq!(case.statuses("/", 20).await, [200; 20]);
    assert_eq!(bad.requests(), 3);
    assert_eq!(gateway.metric("backend_retries_total", &[]), 3);

    // All endpoints fail: once they would be left out, nothing is sent twice any more.
    let worse = Backend::start("worse", Kind::Scripted(answering("503 X"))).await;
    let mut case = Case::new(
        &[worse.address()],
        BackendPolicy {
            panic_threshold_percent: Some(100),
            ..ejecting(3)
        },
    );
    case.route.rules[0].retry = retry(&[503], 5, 0);
    let _gateway = case.serve().await;
    assert_eq!(case.statuses("/", 4).await, [503; 4]);
    assert_eq!(
        worse.requests(),
        3 + 3,
        "three for the first, then one each"
    );
}

#[tokio::test]
async fn without_a_policy_nothing_is_held_against_an_endpoint() {
    let bad = Backend::start("bad", Kind::Scripted(answering("503 X"))).await;
    let good = Backend::http1("good").await;
    let case = Case::new(&[bad.address(), good.address()], BackendPolicy::default());
    let gateway = case.serve().await;
    case.statuses("/", 30).await;
    assert_eq!(bad.requests(), 15);
    assert_eq!(gateway.metric(EJECTIONS, &[]), 0);
}

#[tokio::test]
async fn calls_that_end_badly_in_their_trailers_leave_their_endpoint_out() {
    let ending = |status: u16, kind: &str| {
        Script::answer(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n\
             1\r\nx\r\n0\r\ngrpc-status: {status}\r\n\r\n"
        ))
    };
    for (status, kind, is_left_out) in [
        (14, "application/grpc", true),
        (13, "application/grpc+proto", true),
        (5, "application/grpc", false),
        (0, "application/grpc", false),
        (14, "text/plain", false),
    ] {
        let bad = Backend::start("bad", Kind::Scripted(ending(status, kind))).await;
        let good = Backend::http1("good").await;
        let case = Case::new(&[bad.address(), good.address()], ejecting(3));
        let gateway = case.serve().await;
        assert_eq!(case.statuses("/", 20).await, [200; 20]);
        let expected = if is_left_out { (3, 1) } else { (10, 0) };
        let seen = (bad.requests(), gateway.metric(EJECTIONS, &[]));
        assert_eq!(seen, expected, "{status} {kind}");
    }
}
