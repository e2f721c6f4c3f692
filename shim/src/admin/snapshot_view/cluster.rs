//! Clusters: endpoints, TLS towards them, and how they are chosen, watched and spared.

use ir::backend_policy::{HealthCheck, OutlierDetection, Probe, RetryBudget};
use ir::cluster::{BackendTls, Balancing, HashKey, ProxyProtocol, SubjectAltName};
use ir::{BackendPolicy, Cluster, Endpoint};
use serde_json::{Value, json};

use super::super::words;
use super::{ai, authorities, list, ms, policy, some_ms, texts, wasm};

pub(super) fn cluster(cluster: &Cluster) -> Value {
    let Cluster {
        key,
        protocol,
        endpoints,
        connect_timeout,
        request_timeout,
        metadata,
        tls,
        session_persistence,
        balancing,
        max_inflight_requests,
        ai_service,
        token_policy,
        wasm_plugin,
        plugins,
        security_policy,
        policy,
        proxy_protocol,
    } = cluster;
    json!({
        "key": &**key,
        "protocol": protocol.as_str(),
        "endpoints": list(endpoints, endpoint),
        "connect_timeout_ms": ms(*connect_timeout),
        "request_timeout_ms": some_ms(*request_timeout),
        "metadata": metadata.to_map(),
        "tls": tls.as_deref().map(backend_tls),
        "session_persistence": session_persistence.as_deref().map(policy::session_persistence),
        "balancing": self::balancing(balancing),
        "max_inflight_requests": max_inflight_requests,
        "ai_service": ai_service.as_deref().map(ai::service),
        "token_policy": token_policy.as_deref().map(ai::token_policy),
        "wasm_plugin": wasm_plugin.as_deref().map(wasm::plugin),
        "plugins": texts(plugins),
        "security_policy": security_policy.as_deref().map(policy::security),
        "policy": policy.as_deref().map(backend_policy),
        "proxy_protocol": proxy_protocol.map(|it| match it {
            ProxyProtocol::V1 => "v1",
            ProxyProtocol::V2 => "v2",
        }),
    })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let Endpoint {
        address,
        port,
        is_ready,
        is_ending,
        zone,
        zone_hints,
        weight,
    } = endpoint;
    json!({
        "address": words::endpoint_address(address),
        "port": port.get(),
        "ready": is_ready,
        "ending": is_ending,
        "zone": zone,
        "zone_hints": zone_hints,
        "weight": weight,
    })
}

fn backend_tls(tls: &BackendTls) -> Value {
    let BackendTls {
        hostname,
        use_system_ca_certificates,
        ca_pems,
        subject_alt_names,
        min_version,
        max_version,
    } = tls;
    json!({
        "hostname": hostname.as_str(),
        "use_system_ca_certificates": use_system_ca_certificates,
        "authorities": authorities(ca_pems),
        "subject_alt_names": list(subject_alt_names, |it| match it {
            SubjectAltName::Hostname(name) => json!({ "hostname": name.as_str() }),
            SubjectAltName::Uri(uri) => json!({ "uri": uri }),
        }),
        "min_version": words::tls_version(*min_version),
        "max_version": words::tls_version(*max_version),
    })
}

fn balancing(balancing: &Balancing) -> Value {
    match balancing {
        Balancing::RoundRobin => json!("round_robin"),
        Balancing::LeastRequest => json!("least_request"),
        Balancing::Random => json!("random"),
        Balancing::ConsistentHash(key) => json!({ "consistent_hash": match key {
            HashKey::SourceIp => json!("source_ip"),
            HashKey::Header(name) => json!({ "header": name }),
            HashKey::Cookie(name) => json!({ "cookie": name }),
            HashKey::Hostname => json!("hostname"),
        }}),
    }
}

fn backend_policy(policy: &BackendPolicy) -> Value {
    let BackendPolicy {
        health_check,
        outlier_detection,
        breaker,
        max_connections,
        max_pending_requests,
        max_requests_per_connection,
        slow_start_window,
        panic_threshold_percent,
        prefers_own_zone,
        hash_load_percent,
        retry_budget,
    } = policy;
    json!({
        "health_check": health_check.as_ref().map(self::health_check),
        "outlier_detection": outlier_detection.as_ref().map(self::outlier_detection),
        "breaker": breaker.as_ref().map(policy::breaker),
        "max_connections": max_connections,
        "max_pending_requests": max_pending_requests,
        "max_requests_per_connection": max_requests_per_connection,
        "slow_start_window_ms": some_ms(*slow_start_window),
        "panic_threshold_percent": panic_threshold_percent,
        "prefers_own_zone": prefers_own_zone,
        "hash_load_percent": hash_load_percent,
        "retry_budget": retry_budget.as_ref().map(|it| {
            let RetryBudget { percent, min_per_second } = it;
            json!({ "percent": percent, "min_per_second": min_per_second })
        }),
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let HealthCheck {
        probe,
        interval,
        timeout,
        unhealthy_threshold,
        healthy_threshold,
        port,
    } = check;
    json!({
        "probe": match probe {
            Probe::Tcp => json!("tcp"),
            Probe::Http { path, host, expected_statuses } => json!({ "http": {
                "path": words::url(path),
                "host": host,
                "expected_statuses": expected_statuses,
            }}),
            Probe::Grpc { service } => json!({ "grpc": { "service": service } }),
        },
        "interval_ms": some_ms(*interval),
        "timeout_ms": some_ms(*timeout),
        "unhealthy_threshold": unhealthy_threshold,
        "healthy_threshold": healthy_threshold,
        "port": port.map(std::num::NonZero::get),
    })
}

fn outlier_detection(detection: &OutlierDetection) -> Value {
    let OutlierDetection {
        consecutive_failures,
        consecutive_gateway_failures,
        base_ejection,
        max_ejection,
        max_ejection_percent,
    } = detection;
    json!({
        "consecutive_failures": consecutive_failures,
        "consecutive_gateway_failures": consecutive_gateway_failures,
        "base_ejection_ms": some_ms(*base_ejection),
        "max_ejection_ms": some_ms(*max_ejection),
        "max_ejection_percent": max_ejection_percent,
    })
}
