//! Traces as a collector sees them: nested spans, retries, what backends are told, who is recorded.

use std::sync::Arc;
use std::time::Duration;

use dataplane_telemetry::otlp::{Collector as Settings, Protocol};
use dataplane_telemetry::trace;
use dataplane_telemetry::trace_context::Forms;
use dataplane_testkit::backend::{Kind, Script};
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::collector::{Collector, Span};
use dataplane_testkit::snapshot::{free_port, target};
use dataplane_testkit::{Backend, SnapshotBuilder, eventually};
use ir::filter::{HeaderEdit, Mirror};
use ir::{Filter, Snapshot};

use crate::filters::capture::{Capture, OK};
use crate::support::{Gateway, at, http_route, retry};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const CONFIG: &str = "00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-01";

/// Everything is recorded, unless the sender says otherwise.
pub(crate) fn settings(collector: &Collector, protocol: Protocol) -> trace::Settings {
    trace::Settings {
        collector: Settings {
            endpoint: collector.endpoint(),
            protocol,
            authorities: std::path::PathBuf::new(),
            timeout: Duration::from_secs(3),
            service_name: "edge".to_owned(),
            service_namespace: "tests".to_owned(),
            instance: "dp-test".to_owned(),
        },
        sample_ratio: 1.0,
        parent_based: true,
        forms: Forms {
            w3c: true,
            ..Forms::default()
        },
        queue_spans: 1024,
        counts: Arc::default(),
    }
}

/// One route to one backend, in a configuration whose building was traced.
pub(crate) fn shop(
    port: u16,
    backend: &Backend,
    change: impl FnOnce(&mut ir::HttpRoute),
) -> Snapshot {
    let mut route = http_route("shop/r", "", "/shop", &[("shop/b:80", 1)]);
    change(&mut route);
    SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(route)
        .cluster("shop/b:80", &[backend.address()])
        .with(|snapshot| snapshot.traceparent = Some(CONFIG.to_owned()))
        .build()
}

async fn ask(port: u16, path: &str, fields: &str) -> Response {
    let mut client = Http1Client::connect(at(port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{fields}\r\n");
    client.send_bytes(request.as_bytes()).await.unwrap();
    client.read_response(&http::Method::GET).await.unwrap()
}

/// What the backend saw of a field; empty for nothing.
fn told(response: &Response, name: &str) -> String {
    let values = &response.json()["headers"][name];
    let values = values.as_array().into_iter().flatten();
    values
        .map(|it| it.as_str().unwrap())
        .collect::<Vec<_>>()
        .join("|")
}

pub(crate) async fn spans(collector: &Collector, count: usize) -> Vec<Span> {
    eventually("the spans arrive", || {
        let spans = collector.spans();
        (spans.len() >= count).then_some(spans)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_with_one_of_its_attempt_inside() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let collector = Collector::start().await;
        let backend = Backend::http1("b").await;
        let port = free_port();
        let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
            bootstrap.traces = Some(settings(&collector, protocol));
        })
        .await;
        let fields = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=7\r\n");
        let answer = ask(port, "/shop/cart?x=1", &fields).await;
        assert_eq!(answer.status, 200);
        let spans = spans(&collector, 2).await;
        let [client, server] = &spans[..] else {
            panic!("{spans:?}")
        };
        assert_eq!((client.kind, server.kind), (3, 2));
        assert_eq!((&*server.name, &*client.name), ("GET /shop", "GET"));
        assert_eq!((&*server.trace_id, &*client.trace_id), (TRACE, TRACE));
        assert_eq!(
            (&*server.parent_id, &client.parent_id),
            (PARENT, &server.span_id)
        );
        assert_eq!(server.trace_state, "vendor=7");
        assert!(server.began <= client.began && client.ended <= server.ended);
        assert_eq!(server.attributes["http.response.status_code"], 200);
        assert_eq!(server.attributes["url.path"], "/shop/cart");
        assert_eq!(server.attributes["nantian.backend"], "shop/b:80");
        let peer = client.attributes["network.peer.port"].as_u64();
        assert_eq!(peer, Some(backend.address().port().into()));
        assert_eq!(server.resource["service.name"], "edge");
        assert_eq!(server.resource["service.instance.id"], "dp-test");
        let config = [("a".repeat(32), "b".repeat(16))];
        assert_eq!(server.links, config);
        // The backend goes on from the attempt's span.
        let expected = format!("00-{TRACE}-{}-01", client.span_id);
        assert_eq!(told(&answer, "traceparent"), expected);
        assert_eq!(told(&answer, "tracestate"), "vendor=7");
        assert!(gateway.stopped().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_retry_is_a_span_of_its_own() {
    let collector = Collector::start().await;
    let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let backend = Backend::start("b", Kind::Scripted(Script::answer(answer))).await;
    let port = free_port();
    let snapshot = shop(port, &backend, |route| {
        route.rules[0].retry = retry(&[503], 2, 0);
    });
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.traces = Some(settings(&collector, Protocol::Grpc));
    })
    .await;
    assert_eq!(ask(port, "/shop", "").await.status, 503);
    // What is left goes out at the end.
    assert!(gateway.stopped().await);
    let spans = spans(&collector, 4).await;
    let server = spans.iter().find(|span| span.kind == 2).unwrap();
    assert_eq!((server.parent_id.as_str(), server.status), ("", 2));
    let clients: Vec<_> = spans.iter().filter(|span| span.kind == 3).collect();
    assert_eq!(clients.len(), 3);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!((&client.parent_id, client.status), (&server.span_id, 2));
        assert_eq!(client.attributes["http.response.status_code"], 503);
        let count = client.attributes.get("http.request.resend_count");
        assert_eq!(
            count.and_then(serde_json::Value::as_u64),
            (at > 0).then_some(at as u64)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_comes_in_and_goes_out_in_its_forms() {
    let collector = Collector::start().await;
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
        bootstrap.traces = Some(settings(&collector, Protocol::Http));
    })
    .await;
    let single = ask(port, "/shop", &format!("b3: {TRACE}-{PARENT}-1\r\n")).await;
    let multi = format!("X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {PARENT}\r\nX-B3-Sampled: 1\r\n");
    let multi = ask(port, "/shop", &multi).await;
    assert!(gateway.stopped().await);
    let spans = spans(&collector, 4).await;
    for span in &spans {
        assert_eq!(span.trace_id, TRACE);
    }
    let known = |id: &str| {
        spans
            .iter()
            .any(|span| span.kind == 3 && span.span_id == id)
    };
    let b3 = told(&single, "b3");
    let parts: Vec<_> = b3.split('-').collect();
    assert!(
        parts[0] == TRACE && known(parts[1]) && parts[2] == "1",
        "{b3}"
    );
    assert_eq!(
        told(&single, "traceparent"),
        format!("00-{TRACE}-{}-01", parts[1])
    );
    assert_eq!(told(&multi, "x-b3-traceid"), TRACE);
    assert!(known(&told(&multi, "x-b3-spanid")));
    assert_eq!(
        (told(&multi, "x-b3-sampled"), told(&multi, "b3")),
        ("1".into(), "".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_still_passes_on_its_trace() {
    let collector = Collector::start().await;
    let backend = Backend::http1("b").await;
    let port = free_port();
    let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
        let settings = settings(&collector, Protocol::Grpc);
        bootstrap.traces = Some(trace::Settings {
            sample_ratio: 0.0,
            ..settings
        });
    })
    .await;
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let fields = format!("traceparent: {unsampled}\r\ntracestate: a=1\r\n");
    let answer = ask(port, "/shop", &fields).await;
    assert_eq!(told(&answer, "traceparent"), unsampled);
    assert_eq!(told(&answer, "tracestate"), "a=1");
    let answer = ask(port, "/shop", "b3: 0\r\n").await;
    assert_eq!(
        (told(&answer, "b3"), told(&answer, "traceparent")),
        ("0".into(), "".into())
    );
    // A trace that begins here is told not to be recorded.
    let begun = told(
        &ask(port, "/shop", "tracestate: a=1\r\n").await,
        "traceparent",
    );
    assert!(begun.len() == 55 && begun.ends_with("-00"), "{begun}");
    assert!(gateway.stopped().await);
    assert_eq!(collector.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_that_nobody_records_is_told_to_whoever_reads_the_fields() {
    let collector = Collector::start().await;
    let (http1, http2) = (Backend::http1("1").await, Backend::http2("2").await);
    let copy = Capture::answering(OK).await;
    let port = free_port();
    let mut edited = http_route("shop/edited", "", "/edited", &[("shop/1:80", 1)]);
    edited.rules[0].filters = vec![Filter::RequestHeaders(HeaderEdit {
        remove: vec!["traceparent".to_owned()],
        ..HeaderEdit::default()
    })];
    let mut mirrored = http_route("shop/mirrored", "", "/mirrored", &[("shop/1:80", 1)]);
    mirrored.rules[0].filters = vec![Filter::Mirror(Mirror {
        backend: target("shop/m:80"),
        fraction: (1, 1),
    })];
    let snapshot = SnapshotBuilder::new("v1")
        .http_listener("infra/gw/http", port)
        .http_route(http_route("shop/1", "", "/1", &[("shop/1:80", 1)]))
        .http_route(http_route("shop/2", "", "/2", &[("shop/2:80", 1)]))
        .http_route(edited)
        .http_route(mirrored)
        .cluster("shop/1:80", &[http1.address()])
        .h2c_cluster("shop/2:80", &[http2.address()])
        .cluster("shop/m:80", &[copy.address])
        .build();
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.traces = Some(trace::Settings {
            sample_ratio: 0.0,
            ..settings(&collector, Protocol::Grpc)
        });
    })
    .await;
    let mut seen = Vec::new();
    // One that breaks its format is none, and is written over.
    for (path, fields) in [
        ("/1", ""),
        ("/2", ""),
        ("/mirrored", ""),
        ("/1", "traceparent: x\r\n"),
    ] {
        let begun = told(&ask(port, path, fields).await, "traceparent");
        assert!(
            begun.len() == 55 && begun.ends_with("-00"),
            "{path}: {begun}"
        );
        assert!(!seen.contains(&begun), "{begun}");
        seen.push(begun);
    }
    let answer = ask(port, "/edited", "").await;
    assert_eq!(told(&answer, "traceparent"), "");
    let copied = copy.requests(1).await.remove(0);
    let line = format!("\r\ntraceparent: {}\r\n", seen[2]);
    assert!(copied.contains(&line), "{copied}");
    assert!(gateway.stopped().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_may_ask_for_a_share_of_its_own_and_refusals_are_spans_too() {
    let collector = Collector::start().await;
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = shop(port, &backend, |route| {
        let key = "gateway.nantian.dev/tracing-sample-ratio";
        route.annotations.insert(key.to_owned(), "0".to_owned());
    });
    let gateway = Gateway::with(&snapshot, |bootstrap| {
        bootstrap.traces = Some(settings(&collector, Protocol::Grpc));
    })
    .await;
    assert_eq!(ask(port, "/shop", "").await.status, 200);
    assert_eq!(ask(port, "/nowhere", "").await.status, 404);
    assert!(gateway.stopped().await);
    let spans = collector.spans();
    let [refused] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!((&*refused.name, refused.status), ("GET", 0));
    assert_eq!(refused.attributes["nantian.reason"], "route_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_or_is_gone_is_not_felt() {
    let hanging = Collector::hanging().await;
    let gone = Collector::start().await;
    let backend = Backend::http1("b").await;
    for (collector, is_dropped) in [(hanging, false), (gone, true)] {
        let port = free_port();
        let mut traces = settings(&collector, Protocol::Grpc);
        traces.collector.timeout = Duration::from_millis(200);
        traces.queue_spans = 64;
        let kept = (!is_dropped).then_some(collector);
        let gateway = Gateway::with(&shop(port, &backend, |_| ()), |bootstrap| {
            bootstrap.traces = Some(traces);
        })
        .await;
        let mut client = Http1Client::connect(at(port)).await.unwrap();
        for _ in 0..500 {
            let request = b"GET /shop HTTP/1.1\r\nhost: shop.example\r\n\r\n";
            client.send_bytes(request).await.unwrap();
            let answer = client.read_response(&http::Method::GET).await.unwrap();
            assert_eq!(answer.status, 200);
        }
        let counts = gateway.metrics.traces.clone();
        drop(client);
        assert!(gateway.stopped().await);
        assert_eq!(counts.exported_spans.value(), 0);
        assert!(counts.dropped_spans.value() > 500, "{counts:?}");
        drop(kept);
    }
}
