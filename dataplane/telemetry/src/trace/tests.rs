//! Tests of sampling and of the queue: who is recorded, and what a collector that hangs costs.

use std::net::TcpListener;
use std::time::Instant;

use super::*;
use crate::otlp::Protocol;
use crate::trace_context::Parent;

fn settings(endpoint: String, protocol: Protocol) -> Settings {
    Settings {
        collector: Collector {
            endpoint,
            protocol,
            authorities: std::path::PathBuf::new(),
            timeout: Duration::from_millis(300),
            service_name: "s".to_owned(),
            service_namespace: String::new(),
            instance: String::new(),
        },
        sample_ratio: 1.0,
        parent_based: true,
        forms: Forms::default(),
        queue_spans: 64,
        counts: Arc::default(),
    }
}

pub(super) fn record() -> Record<'static> {
    Record {
        method: "GET",
        host: b"a.example",
        path: b"/",
        status: 200,
        ..Record::unknown()
    }
}

pub(super) fn active() -> Active {
    Active {
        is_exported: true,
        watchers: Vec::new(),
        steps: Vec::new(),
        trace_id: 1,
        span_id: 2,
        parent: None,
        state: String::new(),
        forms: Forms::default(),
        http_route: None,
        attempts: Vec::new(),
    }
}

#[test]
fn sampling_decisions() {
    let (none, half, all) = (0.0, 0.5, 1.0);
    // Half of all ids, by their lower 63 bits.
    let (low, high) = (1 << 40, u128::from(u64::MAX));
    let told = |is_sampled| Remote {
        parent: Some(Parent {
            trace_id: 1,
            span_id: 1,
        }),
        is_sampled,
    };
    type Case = (f64, bool, Option<bool>, u128, Option<f64>, bool);
    let cases: [Case; 16] = [
        (all, true, None, high, None, true),
        (none, true, None, low, None, false),
        (half, true, None, low, None, true),
        (half, true, None, high, None, false),
        // The sender's decision.
        (none, true, Some(true), high, None, true),
        (all, true, Some(false), low, None, false),
        (none, true, Some(true), high, Some(none), true),
        (all, true, Some(false), low, Some(all), false),
        // Not believed.
        (none, false, Some(true), low, None, false),
        (all, false, Some(false), high, None, true),
        (half, false, Some(true), high, None, false),
        (half, false, Some(false), low, None, true),
        // The route's own share.
        (none, true, None, high, Some(all), true),
        (all, true, None, low, Some(none), false),
        (all, true, None, high, Some(half), false),
        (none, false, Some(false), low, Some(half), true),
    ];
    for (ratio, parent_based, is_sampled, trace_id, route, expected) in cases {
        let sampling = Sampling {
            ratio: Ratio::new(ratio),
            parent_based,
        };
        let decided = sampling.decide(&told(is_sampled), trace_id, route.map(Ratio::new));
        assert_eq!(
            decided, expected,
            "{ratio} {parent_based} {is_sampled:?} {trace_id:x} {route:?}"
        );
    }
}

#[test]
fn a_share_of_ids_is_sampled() {
    let ratio = Ratio::new(0.1);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let taken = (0..100_000).filter(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ratio.takes(u128::from(state.rotate_left(23)))
    });
    let taken = taken.count();
    assert!((9_000..11_000).contains(&taken), "{taken}");
}

#[test]
fn without_traces_nothing_is_wanted_of_a_request() {
    let tracing = Tracing::default();
    assert!(!tracing.tracer().is_wanted());
    assert!(tracing.stop(Duration::ZERO));
}

#[test]
fn a_collector_that_hangs_costs_spans_and_no_time() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    let settings = settings(endpoint, Protocol::Grpc);
    let counts = Arc::clone(&settings.counts);
    let tracing = Tracing::start(settings).unwrap();
    let tracer = tracing.tracer();
    let began = Instant::now();
    for _ in 0..5000 {
        tracer.finish(Box::new(active()), &record(), None);
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(
        counts.dropped_spans.value() >= 5000 - 64 - 512,
        "{counts:?}"
    );
    assert!(tracing.stop(Duration::from_secs(20)));
    assert_eq!(counts.dropped_spans.value(), 5000);
    assert_eq!(counts.exported_spans.value(), 0);
    assert!(counts.export_failures.value() >= 1);
}

#[test]
fn an_address_nobody_listens_at_loses_spans_and_is_counted() {
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let settings = settings(format!("http://{gone}"), Protocol::Grpc);
    let counts = Arc::clone(&settings.counts);
    let tracing = Tracing::start(settings).unwrap();
    tracing.tracer().finish(Box::new(active()), &record(), None);
    assert!(tracing.stop(Duration::from_secs(20)));
    assert_eq!(counts.dropped_spans.value(), 1);
}
