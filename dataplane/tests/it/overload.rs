//! Too much of anything: requests, connections, memory, descriptors. What is over a limit is turned
//! away, what is below it is served, and the admin API answers whatever happens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dataplane::bootstrap::Bootstrap;
use dataplane::overload::{Source, Usage};
use dataplane_testkit::backend::Kind;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until, within};
use http::{Method, Request};
use tokio::net::TcpSocket;

use crate::support::{Gateway, at};

mod descriptors;

/// Two listeners with two routes each; everything goes to one backend.
fn two_by_two(first: u16, second: u16, backend: &Backend) -> ir::Snapshot {
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/first", first)
        .http_listener("infra/gw/second", second)
        .route("shop/a", "a.example.com", "/", "shop/b:80")
        .route("shop/c", "c.example.com", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

#[tokio::test]
async fn requests_over_a_limit_are_503_and_those_beside_it_are_served() {
    type Set = fn(&mut dataplane_http::InflightLimits);
    type At = (usize, &'static str);
    // The request that is turned away, and one that is not, while one runs at `a` on the first.
    let cases: [(&str, Set, &str, At, Option<At>); 3] = [
        (
            "global",
            |limits| limits.global = Some(1),
            "scope=\"global\"",
            (1, "c.example.com"),
            None,
        ),
        (
            "listener",
            |limits| limits.listener = Some(1),
            "scope=\"listener\"",
            (0, "c.example.com"),
            Some((1, "a.example.com")),
        ),
        (
            "route",
            |limits| limits.route = Some(1),
            "scope=\"route\"",
            (1, "a.example.com"),
            Some((0, "c.example.com")),
        ),
    ];
    for (name, set, scope, refused, served) in cases {
        let backend = Backend::http1("b").await;
        let ports = [free_port(), free_port()];
        let admin = at(free_port());
        let _gateway = Gateway::with(&two_by_two(ports[0], ports[1], &backend), |bootstrap| {
            set(&mut bootstrap.http.inflight);
            bootstrap.admin.address = admin;
        })
        .await;
        let mut running = Http1Client::connect(at(ports[0])).await.unwrap();
        let slow = b"GET /?delay_ms=1500 HTTP/1.1\r\nhost: a.example.com\r\n\r\n";
        running.send_bytes(slow).await.unwrap();
        until(DEADLINE, async || backend.requests() == 1).await;

        let (port, host) = refused;
        let response = http1::get(at(ports[port]), host, "/").await.unwrap();
        assert_eq!(response.status, 503, "{name}");
        assert!(response.text().contains("(overload)"), "{name}");
        assert_eq!(response.header("retry-after"), "1", "{name}");
        if let Some((port, host)) = served {
            let response = http1::get(at(ports[port]), host, "/").await.unwrap();
            assert_eq!(response.status, 200, "{name}");
        }
        let counted = format!("http_overload_rejected_total{{{scope}}} 1\n");
        // Who was served leaves right behind its answer.
        until(DEADLINE, async || {
            let metrics = http1::get(admin, "x", "/metrics").await.unwrap().text();
            metrics.contains(&counted) && metrics.contains("http_global_inflight_current 1\n")
        })
        .await;

        let now = http1::get(admin, "x", "/v1/overload").await.unwrap().json();
        let by_route = &now["httpRouteInflightCurrent"];
        match name {
            "route" => assert_eq!(by_route["shop/a"], 1, "{now}"),
            _ => assert_eq!(*by_route, serde_json::json!({}), "{name}"),
        }

        let response = running.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, 200, "{name}");
        // The place is given back right behind the answer, too.
        until(DEADLINE, async || {
            let response = http1::get(at(ports[port]), host, "/").await.unwrap();
            response.status == 200
        })
        .await;
    }
}

#[tokio::test]
async fn what_runs_on_a_route_is_told_no_longer_than_there_is_the_route() {
    let backend = Backend::http1("b").await;
    let (port, admin) = (free_port(), at(free_port()));
    let with = |version: &str, routes: &[&str]| {
        let mut built = SnapshotBuilder::new(version)
            .http_listener("infra/gw/http", port)
            .cluster("shop/b:80", &[backend.address()]);
        for name in routes {
            built = built.route(&format!("shop/{name}"), name, "/", "shop/b:80");
        }
        built.build()
    };
    let first = with("v1", &["a.test", "b.test"]);
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.http.inflight.route = Some(9);
        bootstrap.admin.address = admin;
    })
    .await;
    for host in ["a.test", "b.test"] {
        assert_eq!(http1::get(at(port), host, "/").await.unwrap().status, 200);
    }
    let told = async || {
        let now = http1::get(admin, "x", "/v1/overload").await.unwrap().json();
        let by_route = now["httpRouteInflightCurrent"].as_object().unwrap();
        by_route.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(told().await, ["shop/a.test", "shop/b.test"]);
    gateway.change(&first, &with("v2", &["b.test"])).await;
    // Whoever was served leaves right behind its answer.
    until(DEADLINE, async || told().await == ["shop/b.test"]).await;
    let metrics = http1::get(admin, "x", "/metrics").await.unwrap().text();
    let series = metrics
        .lines()
        .filter(|line| line.contains("http_route_inflight_current{"));
    assert_eq!(series.count(), 1);
}

#[tokio::test]
async fn a_backend_gets_no_more_requests_than_its_limit_and_others_are_served() {
    let backend = Backend::http1("b").await;
    let (port, admin) = (free_port(), at(free_port()));
    let mut own = dataplane_testkit::snapshot::cluster(
        "shop/own:80",
        ir::cluster::ClusterProtocol::Http,
        &[backend.address()],
    );
    own.max_inflight_requests = Some(1);
    let first = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .route("shop/a", "a.example.com", "/", "shop/b:80")
        .route("shop/own", "own.example.com", "/", "shop/own:80")
        .cluster("shop/b:80", &[backend.address()])
        .add_cluster(own.clone())
        .build();
    let gateway = Gateway::with(&first, |bootstrap| {
        bootstrap.http.upstream_limits.requests = Some(2);
        bootstrap.admin.address = admin;
    })
    .await;
    let mut running = Vec::new();
    for host in ["own", "a", "a"] {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        let slow = format!("GET /?delay_ms=2000 HTTP/1.1\r\nhost: {host}.example.com\r\n\r\n");
        client.send_bytes(slow.as_bytes()).await.unwrap();
        running.push(client);
    }
    until(DEADLINE, async || backend.requests() == 3).await;
    // An update does not open it.
    own.connect_timeout = Duration::from_secs(4);
    let next = SnapshotBuilder::from(&first, "v2").add_cluster(own).build();
    gateway.change(&first, &next).await;
    for host in ["own.example.com", "a.example.com"] {
        let response = http1::get(at(port), host, "/").await.unwrap();
        assert_eq!(response.status, 503, "{host}");
        assert!(response.text().contains("(backend_overload)"), "{host}");
        assert_eq!(response.header("retry-after"), "1", "{host}");
    }
    let metrics = http1::get(admin, "x", "/metrics").await.unwrap().text();
    let counted = "{backend=\"shop/own:80\",reason=\"backend_overload\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
    for mut client in running {
        let response = client.read_response(&Method::GET).await.unwrap();
        assert_eq!(response.status, 200);
    }
    let response = http1::get(at(port), "own.example.com", "/").await.unwrap();
    assert_eq!(response.status, 200);
}

#[tokio::test]
async fn a_refused_update_leaves_no_figures_behind() {
    let backend = Backend::http1("b").await;
    let (port, admin) = (free_port(), at(free_port()));
    let first = two_by_two(port, free_port(), &backend);
    let gateway = Gateway::with(&first, |bootstrap| bootstrap.admin.address = admin).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = SnapshotBuilder::from(&first, "v2")
        .http_listener("infra/gw/taken", taken.local_addr().unwrap().port())
        .route("shop/new", "new.example.com", "/", "shop/new:80")
        .cluster("shop/new:80", &[backend.address()])
        .build();
    gateway.control_plane.push_snapshot(&refused).await;
    gateway.control_plane.nacked("v2").await;
    // Until it is asked for something a backend has no figures.
    let response = http1::get(at(port), "a.example.com", "/").await.unwrap();
    assert_eq!(response.status, 200);
    let metrics = http1::get(admin, "x", "/metrics").await.unwrap().text();
    for name in ["shop/new", "infra/gw/taken"] {
        assert!(!metrics.contains(name), "{name}: {metrics}");
    }
    assert!(metrics.contains("shop/b:80") && metrics.contains("infra/gw/first"));
}

#[tokio::test]
async fn one_client_address_cannot_take_all_connections() {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let _gateway = Gateway::with(&two_by_two(port, free_port(), &backend), |bootstrap| {
        bootstrap.client_connections_max = Some(2);
    })
    .await;
    let from = async |client: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket
            .bind(SocketAddr::new(client.parse().unwrap(), 0))
            .unwrap();
        let tcp = socket.connect(at(port)).await.unwrap();
        let mut client = Http1Client::over(tcp);
        let response = client.get("a.example.com", "/").await;
        response.map(|response| (client, response.status.as_u16()))
    };
    let one = from("127.0.0.1").await.unwrap();
    let two = from("127.0.0.1").await.unwrap();
    assert_eq!((one.1, two.1), (200, 200));
    assert!(from("127.0.0.1").await.is_err());
    assert_eq!(from("127.0.0.2").await.unwrap().1, 200);
    drop(one);
    until(DEADLINE, async || from("127.0.0.1").await.is_ok()).await;
    drop(two);
}

/// A gateway whose memory is whatever the test says, in percent.
struct Pressed {
    gateway: Gateway,
    backend: Backend,
    port: u16,
    admin: SocketAddr,
    percent: Arc<AtomicU64>,
}

impl Pressed {
    async fn start() -> Self {
        Self::with(|_| ()).await
    }

    async fn with(change: impl FnOnce(&mut Bootstrap)) -> Self {
        let backend = Backend::http1("b").await;
        let (port, admin) = (free_port(), at(free_port()));
        let percent = Arc::new(AtomicU64::new(10));
        let used = percent.clone();
        let gateway = Gateway::with(&two_by_two(port, free_port(), &backend), |bootstrap| {
            bootstrap.admin.address = admin;
            bootstrap.overload.interval = Duration::from_millis(10);
            bootstrap.overload.source = Source::new(move || {
                let used = used.load(Ordering::Relaxed);
                Some(Usage { used, limit: 100 })
            });
            change(bootstrap);
        })
        .await;
        Self {
            gateway,
            backend,
            port,
            admin,
            percent,
        }
    }

    /// Sets the use of memory and waits until the level follows.
    async fn presses(&self, percent: u64, level: u8) {
        self.percent.store(percent, Ordering::Relaxed);
        let line = format!("overload_level {level}\n");
        until(DEADLINE, async || self.metrics().await.contains(&line)).await;
    }

    async fn metrics(&self) -> String {
        let response = http1::get(self.admin, "x", "/metrics").await;
        response.unwrap().text()
    }
}

#[tokio::test]
async fn when_memory_is_short_no_connection_is_kept() {
    let pressed = Pressed::start().await;
    let mut http1 = Http1Client::connect(at(pressed.port)).await.unwrap();
    let mut http2 = Http2Client::connect(at(pressed.port)).await.unwrap();
    let before = http1.get("a.example.com", "/").await.unwrap();
    assert_eq!(
        (before.status.as_u16(), before.header("connection")),
        (200, "")
    );
    assert_eq!(http2.get("a.example.com", "/").await.unwrap().status, 200);

    pressed.presses(86, 1).await;
    let last = http1.get("a.example.com", "/").await.unwrap();
    assert_eq!(
        (last.status.as_u16(), last.header("connection")),
        (200, "close")
    );
    assert!(within("the end", http1.is_closed()).await.unwrap());
    assert_eq!(http2.get("a.example.com", "/").await.unwrap().status, 200);
    within("GOAWAY", http2.closed()).await.unwrap();
    let fresh = http1::get(at(pressed.port), "a.example.com", "/")
        .await
        .unwrap();
    assert_eq!(fresh.status, 200, "new ones are still served");
    assert!(
        !pressed
            .metrics()
            .await
            .contains("overload_connections_not_kept_total 0\n")
    );
}

#[tokio::test]
async fn when_memory_is_shorter_new_requests_are_503_and_running_ones_finish() {
    let pressed = Pressed::start().await;
    let mut running = Http1Client::connect(at(pressed.port)).await.unwrap();
    let slow = b"GET /?delay_ms=700 HTTP/1.1\r\nhost: a.example.com\r\n\r\n";
    running.send_bytes(slow).await.unwrap();
    until(DEADLINE, async || pressed.backend.requests() == 1).await;
    pressed.presses(93, 2).await;
    let refused = http1::get(at(pressed.port), "a.example.com", "/")
        .await
        .unwrap();
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), "1");
    let http2 = Http2Client::connect(at(pressed.port)).await.unwrap();
    assert_eq!(http2.get("a.example.com", "/").await.unwrap().status, 503);
    let response = running.read_response(&Method::GET).await.unwrap();
    assert_eq!(response.status, 200);
    assert!(
        pressed
            .metrics()
            .await
            .contains("http_overload_rejected_total{scope=\"memory\"} 2\n")
    );
    pressed.presses(91, 2).await;
    pressed.presses(50, 0).await;
    let served = http1::get(at(pressed.port), "a.example.com", "/")
        .await
        .unwrap();
    assert_eq!(served.status, 200);
}

#[tokio::test]
async fn clients_are_told_when_to_come_again_and_a_level_lasts_as_the_settings_say() {
    let pressed = Pressed::with(|bootstrap| {
        bootstrap.http.overload_retry_after = Duration::from_millis(2500);
        let memory = bootstrap.overload.memory.as_mut().unwrap();
        memory.slack = 20;
    })
    .await;
    pressed.presses(93, 2).await;
    let get = async || http1::get(at(pressed.port), "a.example.com", "/").await;
    let refused = get().await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (503, "3")
    );
    pressed.presses(73, 2).await;
    assert_eq!(get().await.unwrap().status, 503);
    pressed.presses(71, 1).await;
    assert_eq!(get().await.unwrap().status, 200);
    pressed.presses(64, 0).await;
}

#[tokio::test]
async fn large_heads_that_are_not_complete_have_their_share_of_memory() {
    for (percent, fit) in [(12, 1), (50, 5)] {
        let limit = 10 * 64 * 1024;
        let pressed = Pressed::with(|bootstrap| {
            bootstrap.overload.large_heads_percent = percent;
            bootstrap.overload.source = Source::new(move || Some(Usage { used: 0, limit }));
        })
        .await;
        let mut begun = Vec::new();
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}", "a".repeat(10_000));
        for number in 0..=fit {
            let mut client = Http1Client::connect(at(pressed.port)).await.unwrap();
            client.send_bytes(head.as_bytes()).await.unwrap();
            if number < fit {
                // A place is taken once enough of it was read, which nothing else shows.
                tokio::time::sleep(Duration::from_millis(50)).await;
                begun.push(client);
                continue;
            }
            let refused = client.read_response(&Method::GET).await.unwrap();
            assert_eq!(refused.status, 503, "{percent} %");
            assert_eq!(refused.header("retry-after"), "1");
        }
        for mut client in begun {
            client.send_bytes(b"\r\n\r\n").await.unwrap();
            let answer = client.read_response(&Method::GET).await.unwrap();
            assert_eq!(answer.status, 404, "{percent} %");
        }
    }
}

#[tokio::test]
async fn when_memory_is_out_clients_wait_and_are_served_later() {
    let mut pressed = Pressed::start().await;
    pressed.presses(99, 3).await;
    let mut waiting = Http1Client::connect(at(pressed.port)).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nhost: a.example.com\r\n\r\n";
    waiting.send_bytes(request).await.unwrap();
    let paused = "downstream_accept_pauses_total{listener=\"infra/gw/first\",cause=\"memory\"}";
    until(DEADLINE, async || {
        let metrics = pressed.metrics().await;
        let line = metrics.lines().find(|line| line.contains(paused));
        line.is_some_and(|line| !line.ends_with(" 0"))
    })
    .await;
    assert_eq!(pressed.backend.requests(), 0);
    pressed.presses(10, 0).await;
    let response = within("an answer", waiting.read_response(&Method::GET)).await;
    assert_eq!(response.unwrap().status, 200);
    // The end comes while nobody is let in.
    pressed.presses(99, 3).await;
    pressed.gateway.stop();
    assert!(pressed.gateway.stopped().await);
}

#[tokio::test]
async fn when_memory_is_short_the_connection_with_the_most_streams_ends() {
    let pressed = Pressed::start().await;
    let hole = Backend::start("hole", Kind::BlackHole).await;
    let next = SnapshotBuilder::from(
        &two_by_two(pressed.port, free_port(), &pressed.backend),
        "v2",
    )
    .route("shop/hole", "hole.example.com", "/", "shop/hole:80")
    .cluster("shop/hole:80", &[hole.address()])
    .build();
    pressed.gateway.apply(&next).await;
    let open = async |count: usize| {
        let client = Http2Client::connect(at(pressed.port)).await.unwrap();
        let mut exchanges = Vec::new();
        for _ in 0..count {
            let request = Request::get("http://hole.example.com/").body(()).unwrap();
            exchanges.push(client.open(request).await.unwrap());
        }
        (client, exchanges)
    };
    let (mut heavy, _many) = open(60).await;
    let (light, _few) = open(3).await;
    until(DEADLINE, async || hole.connections() >= 60).await;
    pressed.presses(86, 1).await;
    let _ = within("the reset", heavy.closed()).await;
    assert!(
        pressed
            .metrics()
            .await
            .contains("overload_connections_reset_total 1\n")
    );
    drop((light, _few));
}
