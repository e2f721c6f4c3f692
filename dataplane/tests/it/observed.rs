//! What an operator sees while requests run: metrics as real tools read them, the live trace, and that
//! looking on costs no request, whatever has become of those who look.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use dataplane_telemetry::otlp::Protocol;
use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::collector::Collector;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, ControlPlane, SnapshotBuilder, within};
use http::Request;
use ir::Snapshot;
use ir::policy::Retry;
use serde_json::Value;

use crate::binary::Binary;
use crate::support::{Gateway, at, http_route};
use crate::traces;

fn shop(port: u16, backend: &Backend, change: impl FnOnce(&mut ir::HttpRoute)) -> Snapshot {
    let mut route = http_route("shop/r", "", "/shop", &[("shop/b:80", 1)]);
    change(&mut route);
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

/// Asks until the trace has ended, and gives its answer.
async fn traced(admin: u16, query: &str, port: u16, paths: &[&str]) -> Value {
    let path = format!("/api/v1/trace?seconds=30&{query}");
    let watching = tokio::spawn(async move { http1::get(at(admin), "x", &path).await });
    let asking = async {
        while !watching.is_finished() {
            for path in paths {
                http1::get(at(port), "shop.example", path).await.unwrap();
            }
        }
    };
    within("the trace ends", asking).await;
    watching.await.unwrap().unwrap().json()
}

fn steps(request: &Value) -> Vec<&str> {
    let steps = request["steps"].as_array().unwrap().iter();
    steps.map(|it| it["step"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_request_is_told_step_by_step_and_others_are_not() {
    let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let backend = Backend::start("b", Kind::Scripted(Script::answer(answer))).await;
    let (port, admin) = (free_port(), free_port());
    let snapshot = shop(port, &backend, |route| {
        route.rules[0].retry = Some(Retry {
            codes: vec![503],
            attempts: 1,
            backoff: None,
        });
    });
    let gateway = Gateway::with(&snapshot, |bootstrap| bootstrap.admin.address = at(admin)).await;
    let paths = ["/shop/cart?token=s3cr3t", "/nowhere"];
    let told = traced(admin, "count=2&route=shop/r&status=5", port, &paths).await;
    assert_eq!(told["ended_by"], "count");
    let requests = told["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request["path"], "/shop/cart?token=***");
        assert_eq!(request["status"], 503);
        assert_eq!(request["backend"], "shop/b:80");
        let expected = [
            "accepted",
            "routed",
            "filtered",
            "backend chosen",
            "sent",
            "sent again",
            "answered",
            "ended",
        ];
        assert_eq!(steps(request), expected, "{request}");
        let times = request["steps"].as_array().unwrap().iter();
        let times: Vec<_> = times.map(|it| it["at_ms"].as_f64().unwrap()).collect();
        assert!(times.is_sorted(), "{request}");
    }
    assert!(!told.to_string().contains("s3cr3t"));
    let told = traced(admin, "count=1&route=none", port, &paths).await;
    assert_eq!(told["requests"][0]["path"], "/nowhere");
    assert_eq!(told["requests"][0]["reason"], "route_not_found");
    assert!(gateway.stopped().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_traced_request_is_the_example_of_its_bucket() {
    let collector = Collector::start().await;
    let backend = Backend::http1("b").await;
    let (port, admin) = (free_port(), free_port());
    let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
        bootstrap.admin.address = at(admin);
        bootstrap.traces = Some(traces::settings(&collector, Protocol::Grpc));
    })
    .await;
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = Request::get("/shop")
        .header("host", "shop.example")
        .header("traceparent", format!("00-{id}-00f067aa0ba902b7-01"));
    client
        .send(request.body(Bytes::new()).unwrap())
        .await
        .unwrap();
    // Counted once the response is out.
    let scrape = async || {
        let mut client = Http1Client::connect(at(admin)).await.unwrap();
        let request = Request::get("/metrics").header("host", "x").header(
            "accept",
            "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
        );
        client
            .send(request.body(Bytes::new()).unwrap())
            .await
            .unwrap()
    };
    let found = async {
        loop {
            let answer = scrape().await;
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            assert_eq!(answer.header("content-type"), kind);
            let text = answer.text();
            assert!(text.ends_with("# EOF\n"));
            if text.contains(&format!(" # {{trace_id=\"{id}\"}} ")) {
                return;
            }
        }
    };
    within("the exemplar is there", found).await;
    assert!(gateway.stopped().await);
}

/// Names that were published, and that `promtool` would have named otherwise.
const PUBLISHED_OTHERWISE: [&str; 5] = ["_count", "_ms", "_ms_total", "_ms_max", "_ms_average"];

#[tokio::test(flavor = "multi_thread")]
async fn promtool_has_nothing_to_say_but_about_published_names() {
    if Command::new("promtool").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "promtool is missing");
        eprintln!("THE METRICS WERE NOT CHECKED: promtool is missing (Debian: prometheus)");
        return;
    }
    let backend = Backend::http1("b").await;
    let (port, admin) = (free_port(), free_port());
    let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
        bootstrap.admin.address = at(admin);
    })
    .await;
    for path in ["/shop", "/nowhere"] {
        http1::get(at(port), "shop.example", path).await.unwrap();
    }
    let path = "/metrics?former_names=true";
    let text = http1::get(at(admin), "x", path).await.unwrap().text();
    let mut checking = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = checking.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = checking.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    let complaints = said.lines().filter(|line| {
        let name = line.split(' ').next().unwrap_or_default();
        !PUBLISHED_OTHERWISE.iter().any(|end| name.ends_with(end))
    });
    let complaints: Vec<_> = complaints.collect();
    assert_eq!(complaints, Vec::<&str>::new(), "{said}");
    assert!(gateway.stopped().await);
}

/// The pipe of the access log has no reader, the collector is gone, and scrapers never stop.
async fn nothing_is_lost(scrapes: usize) {
    let control_plane = ControlPlane::start().await;
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.log");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let (pipe, gone) = (pipe.display(), at(free_port()));
    let keys = format!(
        "accessLog: {{path: {pipe}, sampleRate: 1.0}}\n\
         log: {{openTelemetry: {{enabled: true, endpoint: 'http://{gone}', sampleRatio: 1.0}}}}\n"
    );
    let binary = Binary::start(&control_plane, &[], &keys);
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = shop(port, &backend, |_| ());
    control_plane.opened().await;
    control_plane.push_snapshot(&snapshot).await;
    control_plane.acked(snapshot.version.as_str()).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (is_over, answered) = (is_over.clone(), answered.clone());
            tokio::spawn(async move {
                let mut client = Http1Client::connect(at(port)).await.unwrap();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get("shop.example", "/shop").await.unwrap();
                    assert_eq!(answer.status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let admin = binary.admin;
    let scrapers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = None;
                for at in 0..scrapes / 4 {
                    // The admin API ends a connection after a minute.
                    if at % 500 == 0 {
                        client = Some(Http1Client::connect(admin).await.unwrap());
                    }
                    let scraping = client.as_mut().unwrap().get("x", "/metrics");
                    assert_eq!(scraping.await.unwrap().status, 200);
                }
            })
        })
        .collect();
    for scraper in scrapers {
        scraper.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let answered = answered.load(Ordering::Relaxed);
    assert!(answered > 0);
    let counted = async {
        loop {
            let name = "http_outcomes_total{listener=\"infra/gw/http\",reason=\"ok\"}";
            if binary
                .metric(name)
                .await
                .is_some_and(|it| it >= answered as f64)
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within("all requests are counted", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pipe_a_gone_collector_and_scrapers_cost_no_request() {
    nothing_is_lost(400).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes a minute"]
async fn ten_thousand_scrapes_cost_no_request() {
    nothing_is_lost(10_000).await;
}
