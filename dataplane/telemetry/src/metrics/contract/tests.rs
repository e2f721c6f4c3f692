//! Tests of the names that were published: all are there, and totals outlive what they were counted by.

use std::time::Duration;

use super::super::{Kind, reference};
use super::*;

/// Names behind the prefix, and their labels; as the published pages and the earlier data plane have
/// them.
const PUBLISHED: &[(Kind, &str, &[&str])] = {
    use Kind::{Counter, Gauge, Histogram};
    &[
        // The page of the reference.
        (Gauge, "ready", &[]),
        (Gauge, "runtime_supervisor_http_states", &[]),
        (
            Counter,
            "http_requests_total",
            &["listener", "route", "status_class"],
        ),
        (
            Histogram,
            "http_request_duration_seconds",
            &["listener", "route"],
        ),
        (
            Counter,
            "http_responses_total",
            &["listener", "route", "status_code"],
        ),
        (Gauge, "backend_connections_active", &["backend"]),
        (Counter, "backend_connections_total", &["backend"]),
        (
            Counter,
            "backend_connection_errors_total",
            &["backend", "reason"],
        ),
        (Gauge, "backend_health_status", &["backend", "endpoint"]),
        (
            Counter,
            "admin_requests_total",
            &["method", "route", "status_class"],
        ),
        // Inventory, HTTP/3, sessions.
        (Gauge, "listener_count", &[]),
        (Gauge, "http_route_count", &[]),
        (Gauge, "grpc_route_count", &[]),
        (Gauge, "stream_route_count", &[]),
        (Gauge, "backend_count", &[]),
        (Gauge, "secret_count", &[]),
        (Gauge, "http3_configured", &[]),
        (Gauge, "http3_available", &[]),
        (Gauge, "http3_enabled", &[]),
        (Gauge, "session_persistence_active", &[]),
        (Gauge, "session_persistence_ephemeral_secret", &[]),
        (Gauge, "session_persistence_route_rule_count", &[]),
        // Traffic.
        (Counter, "traffic_events_total", &[]),
        (Counter, "traffic_request_events_total", &[]),
        (Counter, "traffic_bytes_received_total", &[]),
        (Counter, "traffic_bytes_sent_total", &[]),
        (Counter, "traffic_latency_ms_total", &[]),
        (Gauge, "traffic_latency_ms_max", &[]),
        (Counter, "traffic_retried_events_total", &[]),
        (Counter, "traffic_retry_attempts_total", &[]),
        (Counter, "traffic_retried_success_events_total", &[]),
        (Gauge, "traffic_retry_rate", &[]),
        (Gauge, "traffic_failover_success_rate", &[]),
        (Counter, "traffic_status_1xx_total", &[]),
        (Counter, "traffic_status_2xx_total", &[]),
        (Counter, "traffic_status_3xx_total", &[]),
        (Counter, "traffic_status_4xx_total", &[]),
        (Counter, "traffic_status_5xx_total", &[]),
        (Counter, "traffic_status_other_total", &[]),
        (Counter, "traffic_response_flags_total", &["flag"]),
        (
            Histogram,
            "traffic_request_latency_ms",
            &[
                "listener",
                "protocol",
                "route_kind",
                "status_class",
                "response_flag",
            ],
        ),
        (Counter, "traffic_upstream_pool_hits_total", &[]),
        (Counter, "traffic_upstream_pool_misses_total", &[]),
        (Gauge, "traffic_upstream_pool_hit_ratio", &[]),
        (Counter, "traffic_upstream_peer_build_failures_total", &[]),
        (
            Counter,
            "traffic_upstream_tls_handshake_failures_total",
            &[],
        ),
        (Histogram, "traffic_upstream_connect_latency_ms", &[]),
        (Counter, "traffic_upstream_connect_latency_ms_total", &[]),
        (Gauge, "traffic_upstream_connect_latency_ms_max", &[]),
        (Gauge, "traffic_upstream_connect_latency_ms_average", &[]),
        (
            Histogram,
            "traffic_upstream_tls_handshake_failure_latency_ms",
            &[],
        ),
        // Limits.
        (Gauge, "http_global_inflight_current", &[]),
        (Gauge, "http_listener_inflight_current", &["listener"]),
        (Gauge, "http_route_inflight_current", &["route"]),
        (Counter, "http_overload_rejected_total", &["scope"]),
        (Counter, "http_overload_rejected_listener_total", &[]),
        (Counter, "http_overload_rejected_route_total", &[]),
        (Counter, "tcp_overload_rejected_total", &[]),
        (Counter, "udp_overload_rejected_total", &[]),
        (
            Gauge,
            "http_circuit_breaker_backend_max_inflight_requests",
            &[],
        ),
        (
            Gauge,
            "http_circuit_breaker_backend_inflight_current",
            &["backend"],
        ),
        (Counter, "http_circuit_breaker_rejected_total", &["scope"]),
        (
            Counter,
            "http_circuit_breaker_rejected_backend_total",
            &["backend"],
        ),
        (
            Gauge,
            "http_rate_limit_global_requests_per_second",
            &["limit"],
        ),
        (Gauge, "http_rate_limit_global_burst", &["limit"]),
        (Gauge, "http_rate_limit_global_available_tokens", &["limit"]),
        (
            Gauge,
            "http_rate_limit_listener_requests_per_second",
            &["listener", "limit"],
        ),
        (
            Gauge,
            "http_rate_limit_listener_burst",
            &["listener", "limit"],
        ),
        (
            Gauge,
            "http_rate_limit_listener_available_tokens",
            &["listener", "limit"],
        ),
        (
            Gauge,
            "http_rate_limit_route_requests_per_second",
            &["route", "limit"],
        ),
        (Gauge, "http_rate_limit_route_burst", &["route", "limit"]),
        (
            Gauge,
            "http_rate_limit_route_available_tokens",
            &["route", "limit"],
        ),
        (
            Counter,
            "http_rate_limit_rejected_total",
            &["scope", "object", "limit"],
        ),
        (Gauge, "http_retry_budget_enabled", &[]),
        (Gauge, "http_retry_budget_ratio_percent", &[]),
        (Gauge, "http_retry_budget_burst", &[]),
        (Gauge, "http_retry_budget_available_tokens", &["backend"]),
        (
            Gauge,
            "http_retry_budget_available_milli_tokens",
            &["backend"],
        ),
        (
            Counter,
            "http_retry_budget_retryable_requests_observed_total",
            &[],
        ),
        (Counter, "http_retry_budget_allowed_total", &[]),
        (Counter, "http_retry_budget_rejected_total", &[]),
        // UDP.
        (Gauge, "udp_sessions_active_current", &[]),
        (Gauge, "udp_sessions_active_listener_current", &["listener"]),
        (Gauge, "udp_session_queue_depth_current", &[]),
        (
            Gauge,
            "udp_session_queue_depth_listener_current",
            &["listener"],
        ),
        (Counter, "udp_session_queue_overflow_dropped_total", &[]),
        (
            Counter,
            "udp_session_queue_overflow_dropped_listener_total",
            &["listener"],
        ),
        (Counter, "udp_session_idle_evictions_total", &[]),
        (
            Counter,
            "udp_session_idle_evictions_listener_total",
            &["listener"],
        ),
        // The access log, the configuration stream, health.
        (Gauge, "access_log_writer_count", &[]),
        (Gauge, "access_log_writer_queue_depth", &[]),
        (Counter, "access_log_writer_dropped_lines_total", &[]),
        (Counter, "access_log_writer_flushes_total", &[]),
        (Counter, "access_log_writer_flush_latency_ms_total", &[]),
        (Gauge, "access_log_writer_flush_latency_ms_max", &[]),
        (Counter, "access_log_writer_sink_errors_total", &[]),
        (Counter, "xds_connect_failures_total", &[]),
        (Counter, "xds_stream_failures_total", &[]),
        (Counter, "xds_snapshots_applied_total", &[]),
        (Counter, "xds_snapshots_nacked_total", &[]),
        (Counter, "xds_snapshots_skipped_total", &[]),
        (Gauge, "xds_last_apply_timestamp_seconds", &[]),
        (Histogram, "xds_apply_stage_duration_ms", &["stage"]),
        (Gauge, "endpoint_passive_ejected_current", &[]),
    ]
};

#[test]
fn every_published_name_is_declared_as_it_was_published() {
    let docs = reference();
    for (kind, name, labels) in PUBLISHED {
        let full = format!("nantian_gateway_dataplane_{name}");
        let doc = docs.iter().find(|doc| doc.name == full);
        let doc = doc.unwrap_or_else(|| panic!("{name} is not declared"));
        assert_eq!((doc.kind, doc.labels), (*kind, *labels), "{name}");
    }
}

fn value(metrics: &Metrics, name: &str) -> f64 {
    let mut text = String::new();
    metrics.encode_text(&mut text);
    let start = format!("nantian_gateway_dataplane_{name} ");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(&start));
    let value = lines.next().unwrap_or_else(|| panic!("no {name}"));
    value.parse().unwrap()
}

#[test]
fn totals_do_not_fall_when_what_they_were_counted_by_goes() {
    let metrics = Metrics::new();
    let route = metrics.route("Http/shop/cart", "web");
    route.observe(200, Reason::Ok, Duration::from_millis(3), 10, 20);
    route.observe(503, Reason::NoEndpoint, Duration::from_millis(5), 10, 20);
    metrics
        .listener("web")
        .observe(404, Reason::RouteNotFound, Duration::from_millis(1), 1, 2);
    metrics
        .stream("tcp/shop/db", "db")
        .session_ended(Reason::Ok);
    let expected = [
        ("traffic_events_total", 4.0),
        ("traffic_request_events_total", 3.0),
        ("traffic_bytes_received_total", 21.0),
        ("traffic_bytes_sent_total", 42.0),
        ("traffic_latency_ms_total", 9.0),
        ("traffic_latency_ms_max", 5.0),
        ("traffic_status_2xx_total", 1.0),
        ("traffic_status_4xx_total", 1.0),
        ("traffic_status_5xx_total", 1.0),
        ("traffic_response_flags_total{flag=\"UH\"}", 1.0),
        ("traffic_upstream_peer_build_failures_total", 1.0),
    ];
    let check = |when: &str| {
        for (name, expected) in expected {
            assert!(
                (value(&metrics, name) - expected).abs() < 1e-9,
                "{name} {when}"
            );
        }
    };
    check("at first");
    metrics.remove_route("Http/shop/cart");
    check("without the route");
    metrics.remove_stream("tcp/shop/db");
    check("without the stream route");
    metrics.retain_listeners(|_| false);
    check("without the listener");
}

#[test]
fn latencies_are_told_by_kind_class_and_flag() {
    let metrics = Metrics::new();
    metrics
        .route("Grpc/shop/pay", "web")
        .observe(200, Reason::Ok, Duration::from_millis(3), 0, 0);
    metrics
        .listener("web")
        .observe(404, Reason::RouteNotFound, Duration::ZERO, 0, 0);
    for (labels, count) in [
        (
            "protocol=\"grpc\",route_kind=\"Grpc\",status_class=\"2xx\",response_flag=\"none\"",
            1.0,
        ),
        (
            "protocol=\"http\",route_kind=\"none\",status_class=\"4xx\",response_flag=\"NR\"",
            1.0,
        ),
    ] {
        let name = format!("traffic_request_latency_ms_count{{listener=\"web\",{labels}}}");
        assert!((value(&metrics, &name) - count).abs() < 1e-9, "{name}");
    }
}

#[test]
fn attempts_tell_kept_connections_from_new_ones_and_what_a_retry_saved() {
    let metrics = Metrics::new();
    let upstream = &metrics.upstream;
    for (attempts, connecting, is_well) in [(1, 0, true), (1, 2, true), (3, 0, true), (2, 6, false)]
    {
        upstream.attempted(attempts, Duration::from_millis(connecting), is_well);
    }
    upstream.handshake_failed(Duration::from_millis(7));
    for (name, expected) in [
        ("traffic_upstream_pool_hits_total", 2.0),
        ("traffic_upstream_pool_misses_total", 2.0),
        ("traffic_upstream_pool_hit_ratio", 0.5),
        ("traffic_upstream_connect_latency_ms_total", 8.0),
        ("traffic_upstream_connect_latency_ms_max", 6.0),
        ("traffic_upstream_connect_latency_ms_average", 4.0),
        ("traffic_upstream_connect_latency_ms_count", 2.0),
        ("traffic_upstream_tls_handshake_failures_total", 1.0),
        ("traffic_retried_events_total", 2.0),
        ("traffic_retried_success_events_total", 1.0),
        ("traffic_failover_success_rate", 0.5),
    ] {
        assert!((value(&metrics, name) - expected).abs() < 1e-9, "{name}");
    }
}
