//! Limits that are met when something has ended on one side: a connection we have closed, a client
//! that sends no more, a response that nobody wants, a wait for somebody's turn.

use std::time::{Duration, Instant};

use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::backend::{Kind, Script, Step};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::{cluster, free_port, rate_limit, target};
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::Method;
use ir::Filter;
use ir::cluster::ClusterProtocol;
use ir::filter::{ExternalAuth, ExternalAuthProtocol, Mirror};
use ir::policy::{RateLimit, SecurityPolicy};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::to;
use crate::support::{Gateway, at, http_route, retry};

const HOUR: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(200);

async fn scripted(steps: &[Step]) -> Backend {
    Backend::start("scripted", Kind::Scripted(Script::new(steps.to_vec()))).await
}

#[tokio::test]
async fn a_client_that_does_not_end_its_connection_is_left_as_the_limits_say() {
    let port = free_port();
    // How long in all and in silence, how much, what is sent behind our end, and who ends it.
    for (time, silence, bytes, sent, is_left) in [
        (SHORT, HOUR, usize::MAX, 0, true),
        (HOUR, SHORT, usize::MAX, 0, true),
        (HOUR, HOUR, 1000, 1000, true),
        (HOUR, HOUR, 1001, 1000, false),
    ] {
        let gateway = Gateway::with(&to(port, &[]), |bootstrap| {
            bootstrap.http.linger.time_max = time;
            bootstrap.http.linger.silence_max = silence;
            bootstrap.http.linger.bytes_max = bytes;
        })
        .await;
        let ended = || gateway.metric("downstream_connections_ended_total", &["linger"]);
        let open = || gateway.metric("downstream_connections_active", &[]);
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        client.send_bytes(b"no request\r\n\r\n").await.unwrap();
        let refusal = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(refusal.status, 400);
        client.send_bytes(&vec![b'x'; sent]).await.unwrap();
        if is_left {
            until(DEADLINE, async || ended() == 1 && open() == 0).await;
        } else {
            tokio::time::sleep(SHORT).await;
            assert_eq!((ended(), open()), (0, 1));
            drop(client);
            until(DEADLINE, async || open() == 0).await;
            assert_eq!(ended(), 0, "it has ended it itself");
        }
        gateway.stopped().await;
    }
}

#[tokio::test]
async fn connections_that_shall_end_wait_for_a_request_as_long_as_the_limit_says() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut gateway = Gateway::with(&to(port, &[backend.address()]), |bootstrap| {
        bootstrap.http.drain_idle = SHORT;
    })
    .await;
    let mut fresh = Http1Client::connect(at(port)).await.unwrap();
    let mut idle = Http1Client::connect(at(port)).await.unwrap();
    assert_eq!(idle.get("x", "/").await.unwrap().status, 200);
    let began = Instant::now();
    gateway.stop();
    assert!(within("its end", fresh.is_closed()).await.unwrap());
    assert!(within("its end", idle.is_closed()).await.unwrap());
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    assert_eq!(
        gateway.metric("downstream_connections_ended_total", &["drain"]),
        2
    );
}

#[tokio::test]
async fn a_client_that_sends_no_more_waits_as_long_as_the_limit_says() {
    // The endpoint's silence on both sides of what holds where nobody says anything.
    for (limit, silence_ms, is_answered) in [(SHORT, 2_500, false), (HOUR, 4_500, true)] {
        let origin = scripted(&[
            Step::ReadHead,
            Step::Pause(Duration::from_millis(silence_ms)),
            Step::Send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".into()),
            Step::Hold,
        ])
        .await;
        let port = free_port();
        let gateway = Gateway::with(&to(port, &[origin.address()]), |bootstrap| {
            bootstrap.http.half_closed_max = limit;
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        client.send_bytes(get).await.unwrap();
        client.finish().await.unwrap();
        let answer = client.read_response(&Method::GET).await;
        assert_eq!(answer.is_ok(), is_answered, "{limit:?}: {answer:?}");
        let given_up = u64::from(!is_answered);
        let counted = async || gateway.outcomes("client_aborted") == given_up;
        until(DEADLINE, counted).await;
    }
}

/// A gateway to an endpoint whose first answer on each connection is a 503 with these fields and this
/// body, and whose second one is fine; the rule has the former replaced.
async fn retrying(
    fields: &str,
    body: &[Step],
    change: impl FnOnce(&mut Bootstrap),
) -> (Gateway, Backend, u16) {
    let unwanted = format!("HTTP/1.1 503 Not Now\r\n{fields}content-length: 5000\r\n\r\n");
    let mut steps = vec![Step::ReadHead, Step::Send(unwanted.into())];
    steps.extend_from_slice(body);
    let fine = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    steps.extend([Step::ReadHead, Step::Send(fine.into()), Step::Hold]);
    let origin = scripted(&steps).await;
    let port = free_port();
    let mut snapshot = to(port, &[origin.address()]);
    let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
    route.rules[0].retry = retry(&[503], 1, 0);
    snapshot.http_routes.insert(route);
    (Gateway::with(&snapshot, change).await, origin, port)
}

fn body() -> Step {
    Step::Send(vec![b'x'; 5000].into())
}

#[tokio::test]
async fn a_response_that_nobody_wants_is_read_as_far_as_the_limits_say() {
    let late = [Step::Pause(SHORT), body()];
    for (bytes, time, body, is_kept) in [
        (5000, HOUR, vec![body()], true),
        (4999, HOUR, vec![body()], false),
        (0, HOUR, vec![body()], false),
        (5000, HOUR, late.to_vec(), true),
        (5000, SHORT / 10, late.to_vec(), false),
    ] {
        let (gateway, _origin, port) = retrying("", &body, |bootstrap| {
            bootstrap.http.discard_bytes_max = bytes;
            bootstrap.http.discard_time = time;
        })
        .await;
        // Its second answer shows the connection to be the same.
        let answer = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(
            answer.status == 200,
            is_kept,
            "{bytes} {time:?}: {answer:?}"
        );
        let closed = gateway.metric("backend_connections_not_kept_total", &[]);
        assert_eq!(closed, u64::from(!is_kept), "{bytes} {time:?}");
    }
}

#[tokio::test]
async fn no_longer_pause_is_made_for_a_response_than_the_limit_says() {
    for (limit, status) in [(Duration::from_millis(999), 503), (HOUR, 200)] {
        let (gateway, _origin, port) = retrying("retry-after: 1\r\n", &[body()], |bootstrap| {
            bootstrap.http.retry_after_max = limit;
        })
        .await;
        let answer = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(answer.status, status, "{limit:?}");
        let denied = gateway.metric("backend_retries_denied_total", &["retry_after"]);
        assert_eq!(denied, u64::from(status == 503));
    }
}

#[tokio::test]
async fn requests_wait_for_their_turn_as_long_and_as_many_as_the_limits_say() {
    let backend = Backend::http1("b").await;
    // One every 300 ms: how many of three that come at once have an answer.
    for (time, most, answered) in [(HOUR, 10, 3), (HOUR, 1, 2), (SHORT, 10, 1)] {
        let port = free_port();
        let mut snapshot = to(port, &[backend.address()]);
        let mut route = (**snapshot.http_routes.get("shop/r").unwrap()).clone();
        let limit = RateLimit {
            queue: true,
            burst: 1,
            ..rate_limit("slow", 1, Duration::from_millis(300))
        };
        let policy = SecurityPolicy {
            rate_limits: vec![limit],
            ..SecurityPolicy::default()
        };
        route.security_policy = Some(policy.into());
        snapshot.http_routes.insert(route);
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.http.rate_queue_time = time;
            bootstrap.http.rate_queue_max = most;
        })
        .await;
        let asked = (0..3).map(|_| http1::get(at(port), "x", "/"));
        let answers = futures_util::future::join_all(asked).await;
        let fine = answers.iter().flatten().filter(|it| it.status == 200);
        assert_eq!(fine.count(), answered, "{time:?} {most}");
        let refused = gateway.metric("http_rate_limit_rejected_total{", &[]);
        assert_eq!(refused, 3 - answered as u64);
    }
}

/// A gateway whose route has this filter, with another backend beside its own.
async fn filtering(
    filter: Filter,
    beside: &Backend,
    change: impl FnOnce(&mut Bootstrap),
) -> (Gateway, Backend, u16) {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let mut route = http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].filters = vec![filter];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .add_cluster(cluster(
            "shop/beside:80",
            ClusterProtocol::Http,
            &[beside.address()],
        ));
    (
        Gateway::with(&snapshot.build(), change).await,
        backend,
        port,
    )
}

#[tokio::test]
async fn a_refusal_that_is_too_large_is_no_answer_of_an_authorization_service() {
    for (limit, status) in [(1000, 401), (999, 503)] {
        let answer = "HTTP/1.1 401 No\r\ncontent-length: 1000\r\n\r\n".to_owned();
        let answer = answer + &"x".repeat(1000);
        let steps = [Step::ReadHead, Step::Send(answer.into()), Step::Hold];
        let service = scripted(&steps).await;
        let filter = Filter::ExternalAuth(ExternalAuth {
            backend: target("shop/beside:80"),
            protocol: ExternalAuthProtocol::Http {
                path_prefix: String::new(),
                allowed_headers: Vec::new(),
                allowed_response_headers: Vec::new(),
            },
            forward_body_bytes_max: 0,
        });
        let (gateway, backend, port) = filtering(filter, &service, |bootstrap| {
            bootstrap.http.authorization_bytes_max = limit;
        })
        .await;
        let answer = http1::get(at(port), "x", "/").await.unwrap();
        assert_eq!(answer.status, status, "{limit}");
        assert_eq!(backend.requests(), 0);
        let failed = u64::from(status == 503);
        let counted = async || gateway.outcomes("authorization_failed") == failed;
        until(DEADLINE, counted).await;
    }
}

#[tokio::test]
async fn a_mirror_keeps_its_connection_when_its_answer_is_no_larger_than_the_limit_says() {
    for (limit, connections) in [(5000, 1), (4999, 2)] {
        let copies = Backend::http1("copies").await;
        let filter = Filter::Mirror(Mirror {
            backend: target("shop/beside:80"),
            fraction: (1, 1),
        });
        let (gateway, _backend, port) = filtering(filter, &copies, |bootstrap| {
            bootstrap.workers = 1;
            bootstrap.http.mirror_answer_bytes_max = limit;
        })
        .await;
        for copied in 1..=2 {
            let answer = http1::get(at(port), "x", "/?bytes=5000").await.unwrap();
            assert_eq!(answer.body.len(), 5000);
            let ended = || gateway.metric("http_mirrored_requests_total", &["sent"]);
            until(DEADLINE, async || ended() == copied).await;
        }
        assert_eq!(copies.connections(), connections, "{limit}");
    }
}

#[tokio::test]
async fn a_client_of_passthrough_that_was_refused_is_left_as_the_limits_say() {
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .passthrough_listener("infra/gw/passed", port, &["known.test"])
        .build();
    for (time, bytes, sent, is_left) in [
        (SHORT, usize::MAX, 0, true),
        (HOUR, 1010, 1000, true),
        (HOUR, 1011, 1000, false),
    ] {
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.streams.linger_time = time;
            bootstrap.streams.linger_bytes_max = bytes;
        })
        .await;
        let open = || gateway.metric("downstream_connections_active", &[]);
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        // Was looked at and not read.
        tcp.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
        let refused = async || gateway.outcomes("bad_client_hello") == 1;
        until(DEADLINE, refused).await;
        tcp.write_all(&vec![b'x'; sent]).await.unwrap();
        if is_left {
            until(DEADLINE, async || open() == 0).await;
        } else {
            tokio::time::sleep(SHORT).await;
            assert_eq!(open(), 1);
            drop(tcp);
            until(DEADLINE, async || open() == 0).await;
        }
        gateway.stopped().await;
    }
}

#[tokio::test]
async fn a_client_hello_is_looked_at_as_far_as_the_limit_says() {
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .passthrough_listener("infra/gw/passed", port, &["known.test"])
        .build();
    // Version, random, no session, one suite, no compression, and padding (RFC 7685).
    let mut body = vec![3; 2 + 32];
    body.extend([0, 0, 2, 0x13, 1, 1, 0, 7, 212, 0, 21, 7, 208]);
    body.resize(body.len() + 2000, 0);
    let length = u16::try_from(body.len()).unwrap();
    let [a, b] = length.to_be_bytes();
    let [c, d] = (length + 4).to_be_bytes();
    let hello = [&[22, 3, 1, c, d, 1, 0, a, b], &body[..]].concat();
    for (limit, reason) in [
        (hello.len(), "unknown_server_name"),
        (hello.len() - 1, "bad_client_hello"),
    ] {
        let gateway = Gateway::with(&snapshot, |bootstrap| {
            bootstrap.streams.hello_bytes_max = limit;
        })
        .await;
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        tcp.write_all(&hello).await.unwrap();
        until(DEADLINE, async || gateway.outcomes(reason) == 1).await;
        drop(tcp);
        gateway.stopped().await;
    }
}
