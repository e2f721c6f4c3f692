//! What a cluster's policy says beyond the shared contract.

use super::report::{At, Quoted, Report, list, optional};
use super::value;
use crate::backend_policy::{
    BackendPolicy, BreakerThresholds, HealthCheck, OutlierDetection, Probe, RetryBudget,
};
use crate::wire;

pub(super) fn policy(
    item: wire::BackendPolicy,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BackendPolicy> {
    let health_check = optional(item.health_check, at, "health_check", report, health_check);
    let outlier = optional(
        item.outlier_detection,
        at,
        "outlier_detection",
        report,
        outlier_detection,
    );
    let breaker = optional(item.breaker, at, "breaker", report, breaker);
    let slow_start = value::duration(item.slow_start_window, at, "slow_start_window", report);
    let panic = optional(
        item.panic_threshold_percent,
        at,
        "panic_threshold_percent",
        report,
        percent,
    );
    let hash_load = match item.hash_load_percent {
        0 => Some(None),
        load if load > 100 => Some(Some(load)),
        load => report.refuse(
            &at.field("hash_load_percent"),
            format_args!("{load} is not more than the mean, write more than 100"),
        ),
    };
    let budget = optional(item.retry_budget, at, "retry_budget", report, retry_budget);
    Some(BackendPolicy {
        health_check: health_check?,
        outlier_detection: outlier?,
        breaker: breaker?,
        max_connections: set(item.max_connections),
        max_pending_requests: set(item.max_pending_requests),
        max_requests_per_connection: set(item.max_requests_per_connection),
        slow_start_window: slow_start?,
        panic_threshold_percent: panic?,
        prefers_own_zone: item.prefers_own_zone,
        hash_load_percent: hash_load?,
        retry_budget: budget?,
    })
}

fn set(number: u32) -> Option<u32> {
    (number > 0).then_some(number)
}

fn percent(number: u32, at: &At<'_>, report: &mut Report) -> Option<u8> {
    match u8::try_from(number) {
        Ok(percent @ 0..=100) => Some(percent),
        _ => report.refuse(at, format_args!("{number} is no share, write 0 to 100")),
    }
}

fn health_check(item: wire::HealthCheck, at: &At<'_>, report: &mut Report) -> Option<HealthCheck> {
    let interval = value::duration(item.interval, at, "interval", report);
    let timeout = value::duration(item.timeout, at, "timeout", report);
    let port = value::optional_port(item.port, &at.field("port"), report);
    let thresholds = (set(item.unhealthy_threshold), set(item.healthy_threshold));
    let probe = probe(item, at, report);
    Some(HealthCheck {
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        unhealthy_threshold: thresholds.0,
        healthy_threshold: thresholds.1,
        port: port?,
    })
}

/// A kind that is unknown here is read as TCP, which every endpoint can answer.
fn probe(item: wire::HealthCheck, at: &At<'_>, report: &mut Report) -> Option<Probe> {
    use wire::HealthCheckKind as Kind;
    match Kind::try_from(item.kind) {
        Ok(Kind::HealthCheckUnspecified | Kind::HealthCheckTcp) => Some(Probe::Tcp),
        Ok(Kind::HealthCheckHttp) => {
            let path = match item.path.as_str() {
                "" => Some("/".to_owned()),
                path if path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic()) => {
                    Some(item.path)
                }
                path => {
                    let shown = Quoted(path);
                    report.refuse(
                        &at.field("path"),
                        format_args!("{shown} is no path, write one that begins with a slash"),
                    )
                }
            };
            let host = match item.host.is_empty() {
                true => Some(None),
                false => value::exact_hostname(&item.host, &at.field("host"), report)
                    .map(|host| Some(host.as_str().to_owned())),
            };
            let statuses = item.expected_statuses;
            let statuses = list(statuses, at, "expected_statuses", report, status);
            Some(Probe::Http {
                path: path?,
                host: host?,
                expected_statuses: statuses?,
            })
        }
        Ok(Kind::HealthCheckGrpc) => Some(Probe::Grpc {
            service: item.grpc_service,
        }),
        Err(_) => {
            let number = item.kind;
            report.notice(
                &at.field("kind"),
                format_args!("{number} is not known, TCP is used"),
            );
            Some(Probe::Tcp)
        }
    }
}

fn status(number: u32, at: &At<'_>, report: &mut Report) -> Option<u16> {
    match u16::try_from(number) {
        Ok(status @ 100..=599) => Some(status),
        _ => report.refuse(at, format_args!("{number} is no status, write 100 to 599")),
    }
}

fn outlier_detection(
    item: wire::OutlierDetection,
    at: &At<'_>,
    report: &mut Report,
) -> Option<OutlierDetection> {
    let base = value::duration(item.base_ejection, at, "base_ejection", report);
    let max = value::duration(item.max_ejection, at, "max_ejection", report);
    let share = optional(
        item.max_ejection_percent,
        at,
        "max_ejection_percent",
        report,
        percent,
    );
    Some(OutlierDetection {
        consecutive_failures: item.consecutive_failures,
        consecutive_gateway_failures: item.consecutive_gateway_failures,
        base_ejection: base?,
        max_ejection: max?,
        max_ejection_percent: share?,
    })
}

pub(super) fn breaker(
    item: wire::BreakerThresholds,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BreakerThresholds> {
    let open_time = value::duration(item.open_time, at, "open_time", report);
    Some(BreakerThresholds {
        failure_threshold: set(item.failure_threshold),
        success_threshold: set(item.success_threshold),
        open_time: open_time?,
    })
}

fn retry_budget(item: wire::RetryBudget, at: &At<'_>, report: &mut Report) -> Option<RetryBudget> {
    Some(RetryBudget {
        percent: percent(item.percent, &at.field("percent"), report)?,
        min_per_second: item.min_per_second,
    })
}
