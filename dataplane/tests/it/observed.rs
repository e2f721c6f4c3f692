//! What an operator sees while requests run: metrics as real tools read them, the live trace, and that
//! looking on costs no request, whatever has become of those who look.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use dataplane_telemetry::access_log::{self, Sink};
use dataplane_telemetry::otlp::Protocol;
use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::collector::{Collector, Span};
use dataplane_testkit::snapshot::{cluster, free_port, listener, stream_route};
use dataplane_testkit::{
    Backend, ControlPlane, DEADLINE, SnapshotBuilder, StreamBackend, until, within,
};
use futures_util::future::join_all;
use http::Request;
use ir::Filter;
use ir::cluster::ClusterProtocol;
use ir::filter::{PathEdit, Rewrite};
use ir::listener::ListenerProtocol;
use ir::stream_route::StreamKind;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::binary::Binary;
use crate::streams::{line, rest};
use crate::support::{Gateway, at, retry};
use crate::traces::{self, shop};

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
        route.rules[0].retry = retry(&[503], 1, 0);
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

/// Scrapes of all gateways together.
const SCRAPES: usize = 10_000;
/// Clients and scrapers of each gateway.
const AT_ONCE: usize = 2;

/// A gateway whose log goes to `sink` and whose traces go to nobody, under requests and scrapes that
/// never pause.
async fn nothing_is_lost(sink: &str, scrapes: usize) {
    let control_plane = ControlPlane::start().await;
    let gone = at(free_port());
    let keys = format!(
        "accessLog: {{path: {sink}, sampleRate: 1.0, queueBytes: 65536}}\n\
         runtimeTuning: {{httpKeepaliveRequestLimit: 0}}\n\
         log: {{openTelemetry: {{enabled: true, endpoint: 'http://{gone}', sampleRatio: 1.0, \
         timeoutMs: 100}}}}\n"
    );
    let binary = Binary::start(&control_plane, &[], &keys);
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = shop(port, &backend, |_| ());
    control_plane.opened().await;
    control_plane.push_snapshot(&snapshot).await;
    control_plane.acked(snapshot.version.as_str()).await;
    let is_over = AtomicBool::new(false);
    let answered = AtomicUsize::new(0);
    let asking = async || {
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        while !is_over.load(Ordering::Relaxed) {
            let answer = client.get("shop.example", "/shop").await.unwrap();
            assert_eq!(answer.status, 200);
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    let scraping = async || {
        let mut client = None;
        for at in 0..scrapes / AT_ONCE {
            // The admin API ends a connection after a minute.
            if at % 500 == 0 {
                client = Some(Http1Client::connect(binary.admin).await.unwrap());
            }
            let scrape = client.as_mut().unwrap().get("x", "/metrics");
            assert_eq!(scrape.await.unwrap().status, 200);
        }
    };
    let scraped = async {
        join_all((0..AT_ONCE).map(|_| scraping())).await;
        is_over.store(true, Ordering::Relaxed);
    };
    let asked = join_all((0..AT_ONCE).map(|_| asking()));
    tokio::join!(scraped, asked);
    let answered = answered.load(Ordering::Relaxed) as f64;
    assert!(answered > 0.0);
    until(DEADLINE, async || {
        let ok = "http_outcomes_total{listener=\"infra/gw/http\",reason=\"ok\"}";
        let counts = [
            ok,
            "access_log_writer_dropped_lines_total",
            "trace_dropped_spans_total",
        ];
        let counts = join_all(counts.map(|name| binary.metric(name))).await;
        counts[0] == Some(answered) && counts[1..].iter().all(|count| *count > Some(0.0))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_a_pipe_nobody_reads_a_gone_collector_and_10_000_scrapes_cost_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("access.log");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let sinks = ["/dev/full", pipe.to_str().unwrap(), "otlp"];
    let scrapes = SCRAPES.div_ceil(sinks.len() * AT_ONCE) * AT_ONCE;
    join_all(sinks.map(|sink| nothing_is_lost(sink, scrapes))).await;
}

#[tokio::test]
async fn calls_over_grpc_are_told_by_their_code() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let backend = Backend::start("g", Kind::Grpc).await;
    let collector = Collector::start().await;
    let port = free_port();
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .grpc("shop/g", "", "demo.Echo", "shop/g:50051")
        .grpc("shop/none", "", "demo.None", "shop/none:50051")
        .h2c_cluster("shop/g:50051", &[backend.address()])
        .h2c_cluster("shop/none:50051", &[])
        .build();
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(path.clone()),
            sample_rate: 0.0,
            ..access_log::Settings::default()
        });
        bootstrap.traces = Some(traces::settings(&collector, Protocol::Http));
    })
    .await;
    let client = Http2Client::connect(at(port)).await.unwrap();
    // In trailers and in a head of the backend, and our own with a route and without one.
    for (call, want, code) in [
        ("/demo.Echo/Say", "", 0),
        ("/demo.Echo/Say", "grpc_status=5", 5),
        ("/demo.Echo/Say", "grpc_status=13", 13),
        ("/demo.None/Say", "", 14),
        ("/demo.Other/Say", "", 12),
    ] {
        let metadata = [("x-want", want)];
        let reply = grpc::unary(&client, "x.example", call, &metadata, b"hi").await;
        assert_eq!(reply.unwrap().status, Some(code), "{call} {want}");
    }
    // Of gRPC-Web not even those that are told in a head.
    for call in ["/demo.Echo/Say", "/demo.None/Say"] {
        let request = Request::post(format!("http://x.example{call}"))
            .header("content-type", "application/grpc-web+proto")
            .header("x-want", "grpc_status=13");
        let answer = client.send(request.body(Bytes::new()).unwrap()).await;
        assert!(
            answer.unwrap().headers.contains_key("grpc-status"),
            "{call}"
        );
    }
    let spans = traces::spans(&collector, 8 + 3).await;
    let servers = spans.iter().filter(|span| span.kind == 2);
    let code = |span: &Span| span.attributes.get("rpc.grpc.status_code")?.as_u64();
    let mut codes: Vec<_> = servers.map(code).collect();
    codes.sort_unstable();
    let told = [0, 5, 12, 13, 14].map(Some);
    assert_eq!(codes, [&[None, None], &told[..]].concat());
    let count = |labels: &[&str]| gateway.metric("grpc_requests_total{", labels);
    let of_route = "route=\"Grpc/shop/g\"";
    assert_eq!(count(&[]), 5);
    assert_eq!(count(&[of_route]), 3);
    assert_eq!(count(&[of_route, "grpc_status=\"13\""]), 1);
    assert_eq!(count(&["route=\"none\"", "grpc_status=\"12\""]), 1);
    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.map(|line| (line["status"].as_u64(), line["grpc_status"].as_u64()));
    let mut told: Vec<_> = told.collect();
    told.sort_unstable();
    // A method that there is not is the client's fault. The last is the call of gRPC-Web without a
    // backend, which is a fault by its reason.
    assert_eq!(
        told,
        [None, Some(13), Some(14)].map(|code| (Some(200), code))
    );
}

#[tokio::test]
async fn host_and_path_are_told_as_the_client_sent_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let backend = Backend::http1("b").await;
    let collector = Collector::start().await;
    let port = free_port();
    let snapshot = shop(port, &backend, |route| {
        route.rules[0].filters = vec![Filter::Rewrite(Rewrite {
            hostname: Some("inside.example".into()),
            path: Some(PathEdit::Prefix("/v2".to_owned())),
        })];
    });
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(path.clone()),
            ..access_log::Settings::default()
        });
        bootstrap.traces = Some(traces::settings(&collector, Protocol::Http));
    })
    .await;
    let answer = http1::get(at(port), "shop.example", "/%73hop/cart?x=1").await;
    let seen = answer.unwrap().json();
    assert_eq!(
        (&seen["path"], &seen["headers"]["host"][0]),
        (&"/v2/cart".into(), &"inside.example".into())
    );
    let spans = traces::spans(&collector, 2).await;
    let [client, server] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(server.attributes["url.path"], "/%73hop/cart");
    assert_eq!(server.attributes["server.address"], "shop.example");
    assert_eq!(
        client.attributes["url.full"],
        "http://inside.example/v2/cart?x=1"
    );
    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    for (field, value) in [
        ("host", "shop.example"),
        ("path", "/%73hop/cart?x=1"),
        ("upstream_host", "inside.example"),
        ("upstream_path", "/v2/cart?x=1"),
    ] {
        assert_eq!(line[field], value, "{line}");
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_its_line_whatever_the_share() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let backend = Backend::start("b", Kind::Scripted(Script::answer(answer))).await;
    let port = free_port();
    let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(path.clone()),
            sample_rate: 0.0,
            ..access_log::Settings::default()
        });
    })
    .await;
    let cut = http1::get(at(port), "shop.example", "/shop").await;
    assert!(cut.is_err(), "{cut:?}");
    let unrouted = http1::get(at(port), "other.example", "/").await;
    assert_eq!(unrouted.unwrap().status, 404);
    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&200.into(), &"upstream_reset".into())
    );
}

#[tokio::test]
async fn lines_of_routes_of_all_kinds_are_as_their_annotations_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let backend = Backend::http1("b").await;
    let stream_backend = StreamBackend::tcp("s").await;
    let said = |name: &str, value: &str| {
        let name = format!("gateway.nantian.dev/access-log-{name}");
        (name, value.to_owned())
    };
    let ports = [free_port(), free_port(), free_port()];
    let http = shop(ports[0], &backend, |route| {
        let format = said("format", "http %ROUTE_NAME% %STATUS%");
        route.annotations.extend([format]);
    });
    let tcp = |name: &str, port: u16, annotation| {
        let listener_name = format!("infra/gw/{name}");
        let key = format!("tcp/shop/{name}");
        let to = [("shop/s:1", 1)];
        let mut route = stream_route(StreamKind::Tcp, &key, &listener_name, &[], &to);
        route.annotations.extend([annotation]);
        (listener(&listener_name, port, ListenerProtocol::Tcp), route)
    };
    let format = said("format", "%PROTOCOL% %ROUTE_NAME% %BYTES_SENT%");
    let (written, told) = tcp("told", ports[1], format);
    let (silent, untold) = tcp("silent", ports[2], said("enabled", "false"));
    let endpoints = [stream_backend.address()];
    let snapshot = SnapshotBuilder::from(&http, "v2")
        .listener(written)
        .listener(silent)
        .stream_route(told)
        .stream_route(untold)
        .add_cluster(cluster("shop/s:1", ClusterProtocol::Tcp, &endpoints))
        .build();
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(path.clone()),
            ..access_log::Settings::default()
        });
    })
    .await;
    for port in [ports[2], ports[1]] {
        let mut tcp = TcpStream::connect(at(port)).await.unwrap();
        assert_eq!(line(&mut tcp).await, "s");
        tcp.shutdown().await.unwrap();
        rest(&mut tcp).await.unwrap();
    }
    let answer = http1::get(at(ports[0]), "shop.example", "/shop").await;
    assert_eq!(answer.unwrap().status, 200);
    assert!(gateway.stopped().await);
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["http r 200", "tcp told 5"]);
}
