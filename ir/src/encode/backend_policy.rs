//! What a cluster's policy says beyond the shared contract.

use super::duration;
use crate::backend_policy::{
    BackendPolicy, BreakerThresholds, HealthCheck, OutlierDetection, Probe, RetryBudget,
};
use crate::wire;

pub(super) fn policy(policy: &BackendPolicy) -> wire::BackendPolicy {
    wire::BackendPolicy {
        health_check: policy.health_check.as_ref().map(health_check),
        outlier_detection: policy.outlier_detection.as_ref().map(outlier_detection),
        breaker: policy.breaker.as_ref().map(breaker),
        max_connections: policy.max_connections.unwrap_or(0),
        max_pending_requests: policy.max_pending_requests.unwrap_or(0),
        max_requests_per_connection: policy.max_requests_per_connection.unwrap_or(0),
        slow_start_window: duration(policy.slow_start_window),
        panic_threshold_percent: policy.panic_threshold_percent.map(u32::from),
        prefers_own_zone: policy.prefers_own_zone,
        hash_load_percent: policy.hash_load_percent.unwrap_or(0),
        retry_budget: policy.retry_budget.map(retry_budget),
    }
}

fn health_check(check: &HealthCheck) -> wire::HealthCheck {
    use wire::HealthCheckKind as Kind;
    let common = wire::HealthCheck {
        interval: duration(check.interval),
        timeout: duration(check.timeout),
        unhealthy_threshold: check.unhealthy_threshold.unwrap_or(0),
        healthy_threshold: check.healthy_threshold.unwrap_or(0),
        port: check.port.map_or(0, |port| u32::from(port.get())),
        ..wire::HealthCheck::default()
    };
    match &check.probe {
        Probe::Tcp => wire::HealthCheck {
            kind: Kind::HealthCheckTcp.into(),
            ..common
        },
        Probe::Http {
            path,
            host,
            expected_statuses,
        } => wire::HealthCheck {
            kind: Kind::HealthCheckHttp.into(),
            path: path.clone(),
            host: host.clone().unwrap_or_default(),
            expected_statuses: expected_statuses.iter().copied().map(u32::from).collect(),
            ..common
        },
        Probe::Grpc { service } => wire::HealthCheck {
            kind: Kind::HealthCheckGrpc.into(),
            grpc_service: service.clone(),
            ..common
        },
    }
}

fn outlier_detection(outlier: &OutlierDetection) -> wire::OutlierDetection {
    wire::OutlierDetection {
        consecutive_failures: outlier.consecutive_failures,
        consecutive_gateway_failures: outlier.consecutive_gateway_failures,
        base_ejection: duration(outlier.base_ejection),
        max_ejection: duration(outlier.max_ejection),
        max_ejection_percent: outlier.max_ejection_percent.map(u32::from),
    }
}

pub(super) fn breaker(breaker: &BreakerThresholds) -> wire::BreakerThresholds {
    wire::BreakerThresholds {
        failure_threshold: breaker.failure_threshold.unwrap_or(0),
        success_threshold: breaker.success_threshold.unwrap_or(0),
        open_time: duration(breaker.open_time),
    }
}

fn retry_budget(budget: RetryBudget) -> wire::RetryBudget {
    wire::RetryBudget {
        percent: u32::from(budget.percent),
        min_per_second: budget.min_per_second,
    }
}
