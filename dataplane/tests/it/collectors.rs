//! Spans and access log lines at a collector that decodes them: by gRPC and HTTP, in plain text and
//! over TLS, from the built binary with keys of its file.

use std::path::Path;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, Collector, ControlPlane, DEADLINE, eventually, until};

use crate::binary::Binary;
use crate::support::at;
use crate::traces::shop;

/// A gateway that sends everything there, and one request through it.
async fn asked(
    collector: &Collector,
    protocol: &str,
    authorities: &Path,
) -> (Binary, ControlPlane) {
    let backend = Backend::http1("b").await;
    let port = free_port();
    let snapshot = shop(port, &backend, |_| ());
    let keys = format!(
        "accessLog: {{path: otlp, sampleRate: 1.0}}\nlog: {{openTelemetry: {{enabled: true, \
         endpoint: '{}', protocol: {protocol}, caPath: '{}', serviceName: edge}}}}\n",
        collector.endpoint(),
        authorities.display(),
    );
    let (gateway, control_plane) = Binary::serving(&snapshot, &[], &keys).await;
    let answer = http1::get(at(port), "shop.example", "/shop/cart?x=1").await;
    assert_eq!(answer.unwrap().status, 200);
    (gateway, control_plane)
}

#[tokio::test]
async fn spans_and_lines_arrive_whole_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("collectors");
    let authorities = authority.write(folder.path(), "ca").unwrap();
    for protocol in ["grpc", "http"] {
        for is_tls in [false, true] {
            let collector = match is_tls {
                true => Collector::secured(&authority.server(&["localhost"])).await,
                false => Collector::start().await,
            };
            let _gateway = asked(&collector, protocol, &authorities).await;
            let name = format!("{protocol}, TLS {is_tls}");
            let spans = eventually(&format!("spans by {name}"), || {
                let spans = collector.spans();
                (spans.len() == 2).then_some(spans)
            })
            .await;
            let server = spans.iter().find(|span| span.kind == 2).unwrap();
            let lines = eventually(&format!("a line by {name}"), || {
                let lines = collector.logs();
                (!lines.is_empty()).then_some(lines)
            })
            .await;
            let [line] = &lines[..] else {
                panic!("{lines:?}")
            };
            assert_eq!(
                (&line.trace_id, &line.span_id),
                (&server.trace_id, &server.span_id),
                "{name}"
            );
            assert_eq!((&*line.severity, line.time > 0), ("INFO", true));
            assert_eq!(line.body, "GET shop.example/shop/cart?x=1 200");
            assert_eq!(line.resource["service.name"], "edge");
            assert_eq!(line.resource["service.instance.id"], "dp-binary");
            assert_eq!(line.attributes["event"], "http_request");
            assert_eq!(line.attributes["status"], 200);
            assert_eq!(line.attributes["route_name"], "r");
            assert_eq!(line.attributes["backend"], "shop/b:80");
            assert!(!line.attributes.contains_key("trace_id"));
        }
    }
}

#[tokio::test]
async fn a_collector_that_nobody_vouches_for_gets_nothing_and_costs_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let other = Authority::new("somebody else");
    let other = other.write(folder.path(), "other").unwrap();
    let nowhere = folder.path().join("nowhere.crt");
    for protocol in ["grpc", "http"] {
        for (authorities, told) in [(&other, "being dropped"), (&nowhere, "nowhere.crt")] {
            let identity = Authority::new("collectors").server(&["localhost"]);
            let collector = Collector::secured(&identity).await;
            let (gateway, _control_plane) = asked(&collector, protocol, authorities).await;
            for name in [
                "trace_dropped_spans_total",
                "access_log_writer_dropped_lines_total",
            ] {
                until(DEADLINE, async || gateway.metric(name).await > Some(0.0)).await;
            }
            let said = gateway.said();
            assert!(said.contains(told), "{protocol}: {said}");
            assert_eq!(collector.requests(), 0);
        }
    }
}
