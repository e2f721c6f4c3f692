//! Mirrors: what they get, what share of it, and that nothing they do is felt by the client.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane::bootstrap::Bootstrap;
use dataplane_testkit::backend::{Kind, Script, Step, closed_address};
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::{grpc, websocket};
use dataplane_testkit::snapshot::{free_port, target};
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::{Method, Request};
use ir::Filter;
use ir::filter::{HeaderEdit, Mirror, PathEdit, Redirect, Rewrite};

use super::capture::{Capture, OK};
use super::{both, serving};
use crate::support::{Gateway, at};

fn mirror(cluster: &str, fraction: (u32, u32)) -> Filter {
    Filter::Mirror(Mirror {
        backend: target(cluster),
        fraction,
    })
}

/// Serves from `backend` what `copy` is shown too, with such settings; the port of it is told.
async fn mirrored_with(
    backend: &Backend,
    copy: &Backend,
    change: impl FnOnce(&mut Bootstrap),
) -> (Gateway, u16) {
    let port = free_port();
    let mut route = crate::support::http_route("shop/r", "", "/", &[("shop/b:80", 1)]);
    route.rules[0].filters = vec![mirror("shop/m:80", (1, 1))];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .cluster("shop/m:80", &[copy.address()])
        .build();
    (Gateway::with(&snapshot, change).await, port)
}

/// Waits until that many copies have ended that way.
async fn counted(gateway: &Gateway, result: &str, count: u64) {
    let label = format!("result=\"{result}\"");
    let copies = || gateway.metric("http_mirrored_requests_total", &[&label]);
    until(DEADLINE, async || copies() == count).await;
}

#[tokio::test]
async fn a_copy_is_the_request_as_the_filter_met_it() {
    let (backend, copy) = (Backend::http1("b").await, Capture::answering(OK).await);
    let set = |name: &str| {
        Filter::RequestHeaders(HeaderEdit {
            set: vec![(name.to_owned(), "1".to_owned())],
            ..HeaderEdit::default()
        })
    };
    let rewrite = Filter::Rewrite(Rewrite {
        hostname: Some("new.example.com".to_owned()),
        path: Some(PathEdit::Full("/new".to_owned())),
    });
    let filters = vec![
        set("x-before"),
        mirror("shop/m:80", (1, 1)),
        rewrite,
        set("x-after"),
    ];
    let (gateway, port) = serving(filters, vec![], |snapshot| {
        snapshot
            .cluster("shop/b:80", &[backend.address()])
            .cluster("shop/m:80", &[copy.address])
    })
    .await;
    let body = "x".repeat(100_000);
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = Request::post("/old?q=1")
        .header("host", "x.example.com")
        .header("expect", "100-continue")
        .body(Bytes::from(body.clone()))
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["path"], "/new");
    assert_eq!(answer.json()["body_bytes"], 100_000);

    let seen = copy.requests(1).await.remove(0);
    let (head, copied) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /old?q=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: x.example.com"), "{head}");
    assert!(head.contains("\r\nx-before: 1"), "{head}");
    assert!(
        !head.contains("x-after") && !head.contains("expect"),
        "{head}"
    );
    assert!(copied == body);
    counted(&gateway, "sent", 1).await;
}

#[tokio::test]
async fn several_mirrors_at_rule_and_backend_get_every_version_of_a_request() {
    let backend = Backend::http1("b").await;
    let (first, second, third) = (
        Backend::http1("1").await,
        Backend::http2("2").await,
        Backend::http1("3").await,
    );
    let rule = vec![mirror("shop/1:80", (1, 1)), mirror("shop/2:80", (1, 1))];
    let of_backend = vec![mirror("shop/3:80", (1, 1))];
    let (gateway, port) = serving(rule, of_backend, |snapshot| {
        snapshot
            .cluster("shop/b:80", &[backend.address()])
            .cluster("shop/1:80", &[first.address()])
            .h2c_cluster("shop/2:80", &[second.address()])
            .cluster("shop/3:80", &[third.address()])
    })
    .await;
    for answer in both(port, Method::GET, "/a", &[]).await {
        assert_eq!(
            answer.header("x-backend"),
            "b",
            "a mirror's answer is not the client's"
        );
    }
    // Of unknown length, with trailers.
    let client = Http2Client::connect(at(port)).await.unwrap();
    let request = Request::post("http://x.example.com/echo").body(()).unwrap();
    let mut exchange = client.open(request).await.unwrap();
    exchange.send("hello").await.unwrap();
    let trailers =
        [("x-t", "1")].map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
    exchange
        .finish_with(trailers.into_iter().collect())
        .unwrap();
    assert_eq!(exchange.response().await.unwrap().text(), "hello");
    counted(&gateway, "sent", 9).await;
    for mirror in [&first, &second, &third] {
        assert_eq!(mirror.requests(), 3, "{}", mirror.name());
    }
}

#[tokio::test]
async fn shares_are_exact() {
    let backend = Backend::http1("b").await;
    let mirrors = [
        ("shop/1:80", (20, 100), 40),
        ("shop/2:80", (1, 2), 100),
        ("shop/3:80", (35, 100), 70),
        ("shop/4:80", (0, 100), 0),
        ("shop/5:80", (1, 3), 67),
        ("shop/6:80", (7, 7), 200),
    ];
    let mut copies = Vec::new();
    for (key, _, _) in mirrors {
        copies.push(Backend::http1(key).await);
    }
    let filters = mirrors
        .map(|(key, fraction, _)| mirror(key, fraction))
        .to_vec();
    let (gateway, port) = serving(filters, vec![], |snapshot| {
        let snapshot = snapshot.cluster("shop/b:80", &[backend.address()]);
        copies.iter().fold(snapshot, |snapshot, copy| {
            snapshot.cluster(copy.name(), &[copy.address()])
        })
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..200 {
        assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    }
    let expected: usize = mirrors.iter().map(|(_, _, count)| count).sum();
    let sent = async {
        while copies.iter().map(Backend::requests).sum::<usize>() + 6 < expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("the copies are sent", sent).await;
    assert!(gateway.stopped().await);
    for (copy, (key, _, count)) in copies.iter().zip(mirrors) {
        let off = copy.requests().abs_diff(count);
        let allowed = if count == 0 || count == 200 { 0 } else { 2 };
        assert!(
            off <= allowed,
            "{key}: {} instead of {count}",
            copy.requests()
        );
    }
}

#[tokio::test]
async fn whatever_a_mirror_does_the_client_feels_nothing() {
    let backend = Backend::http1("b").await;
    let hangs = Backend::start("hangs", Kind::BlackHole).await;
    let never_reads = Backend::start(
        "never",
        Kind::Scripted(Script::new([
            Step::ReadHead,
            Step::Pause(Duration::from_secs(60)),
        ])),
    )
    .await;
    let resets = Backend::start(
        "resets",
        Kind::Scripted(Script::new([Step::ReadHead, Step::Reset])),
    )
    .await;
    let nonsense = Backend::start(
        "nonsense",
        Kind::Scripted(Script::answer("nonsense\r\n\r\n")),
    )
    .await;
    let endless = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()
        + &("8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n").repeat(40);
    let endless = Backend::start(
        "endless",
        Kind::Scripted(Script::new([
            Step::ReadHead,
            Step::Send(endless.into()),
            Step::Hold,
        ])),
    )
    .await;
    let gone = closed_address();
    for (address, result) in [
        (Some(hangs.address()), "slow"),
        (Some(never_reads.address()), "slow"),
        (Some(resets.address()), "failed"),
        (Some(nonsense.address()), "failed"),
        (Some(endless.address()), "sent"),
        (Some(gone), "failed"),
        (None, "no_backend"),
    ] {
        let filters = vec![mirror("shop/m:80", (1, 1))];
        let (gateway, port) = serving(filters, vec![], |snapshot| {
            let snapshot = snapshot.cluster("shop/b:80", &[backend.address()]);
            match address {
                Some(address) => snapshot.cluster("shop/m:80", &[address]),
                None => snapshot,
            }
        })
        .await;
        let started = Instant::now();
        let body = Bytes::from(vec![7_u8; 12 * 1024 * 1024]);
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..2 {
            let request = Request::post("/echo")
                .header("host", "x.example.com")
                .body(body.clone())
                .unwrap();
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status, 200, "{result}");
            assert!(answer.body == body, "{result}");
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{result}");
        if result == "no_backend" {
            counted(&gateway, result, 2).await;
        }
        // It does not hold up the end of the process either.
        assert!(within("the process ends", gateway.stopped()).await);
    }
}

#[tokio::test]
async fn a_mirror_that_never_answers_is_given_up_and_there_are_only_so_many() {
    let (backend, hangs) = (
        Backend::http1("b").await,
        Backend::start("hangs", Kind::BlackHole).await,
    );
    let (gateway, port) = mirrored_with(&backend, &hangs, |bootstrap| {
        bootstrap.http.mirror_timeout = Duration::from_millis(300);
        bootstrap.http.mirrors.set_limit(Some(3));
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    }
    counted(&gateway, "concurrency", 2).await;
    counted(&gateway, "timeout", 3).await;
    assert_eq!(client.get("x.example.com", "/").await.unwrap().status, 200);
    counted(&gateway, "timeout", 4).await;
}

#[tokio::test]
async fn a_request_that_breaks_off_or_is_not_forwarded_is_no_copy() {
    let (backend, copy) = (Backend::http1("b").await, Capture::answering(OK).await);
    let filters = vec![mirror("shop/m:80", (1, 1))];
    let (gateway, port) = serving(filters.clone(), vec![], |snapshot| {
        snapshot
            .cluster("shop/b:80", &[backend.address()])
            .cluster("shop/m:80", &[copy.address])
    })
    .await;
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let half = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    client.send_bytes(half).await.unwrap();
    within("the backend is asked", async {
        while backend.requests() == 0 && backend.connections() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(client);
    counted(&gateway, "aborted", 1).await;
    assert_eq!(copy.seen(), [""; 0]);

    let redirect = Filter::Redirect(Redirect {
        scheme: None,
        hostname: None,
        path: None,
        port: None,
        status: 302,
    });
    let filters = [filters, vec![redirect]].concat();
    let (_gateway, port) = serving(filters, vec![], |snapshot| {
        snapshot.cluster("shop/m:80", &[copy.address])
    })
    .await;
    for answer in both(port, Method::GET, "/", &[]).await {
        assert_eq!(answer.status, 302);
    }
    assert_eq!(copy.seen(), [""; 0]);
}

#[tokio::test]
async fn calls_of_grpc_are_copied_and_upgrades_are_not() {
    let (backend, copy) = (
        Backend::start("b", Kind::Grpc).await,
        Backend::start("m", Kind::Grpc).await,
    );
    let port = free_port();
    let name = "infra/gw/http";
    let mut route = dataplane_testkit::snapshot::grpc_route("shop/g", "", "", &[("shop/b:80", 1)]);
    route.listeners = vec![name.into()];
    route.rules[0].filters = vec![mirror("shop/m:80", (1, 1))];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener(name, port)
        .grpc_route(route)
        .h2c_cluster("shop/b:80", &[backend.address()])
        .h2c_cluster("shop/m:80", &[copy.address()])
        .build();
    let gateway = Gateway::serving(&snapshot).await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    let reply = grpc::unary(&client, "x.example.com", "/a.B/C", &[], b"hi")
        .await
        .unwrap();
    assert_eq!((reply.status, reply.messages.len()), (Some(0), 1));
    counted(&gateway, "sent", 1).await;
    assert_eq!(copy.requests(), 1);
    for cluster in ["backend=\"shop/b:80\"", "backend=\"shop/m:80\""] {
        let answers = gateway.metric("backend_requests_total{", &[cluster, "2xx"]);
        assert_eq!(answers, 1, "{cluster}");
    }

    let sockets = Backend::start("ws", Kind::WebSocket).await;
    let copy = Backend::http1("m").await;
    let (_gateway, port) = serving(vec![mirror("shop/m:80", (1, 1))], vec![], |snapshot| {
        snapshot
            .cluster("shop/b:80", &[sockets.address()])
            .cluster("shop/m:80", &[copy.address()])
    })
    .await;
    let socket = websocket::connect(at(port), "x.example.com", "/").await;
    assert!(socket.is_ok());
    assert_eq!(copy.connections(), 0);
}

#[tokio::test]
async fn a_mirror_may_fall_behind_by_as_much_as_the_limit_says() {
    const BYTES: usize = 24 << 20;
    let backend = Backend::http1("b").await;
    for (bytes, result) in [(16 << 10, "slow"), (BYTES, "sent")] {
        // More than any kernel keeps for it while it sleeps.
        let sleepy = Script::new([
            Step::ReadHead,
            Step::Pause(Duration::from_secs(1)),
            Step::Read(BYTES),
            Step::Send(OK.into()),
            Step::Hold,
        ]);
        let sleepy = Backend::start("sleepy", Kind::Scripted(sleepy)).await;
        let (gateway, port) = mirrored_with(&backend, &sleepy, |bootstrap| {
            bootstrap.http.mirror_buffer_bytes = bytes;
        })
        .await;
        let request = Request::post("/").header("host", "x.example.com");
        let request = request.body(Bytes::from(vec![7; BYTES])).unwrap();
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        assert_eq!(client.send(request).await.unwrap().status, 200);
        counted(&gateway, result, 1).await;
    }
}
