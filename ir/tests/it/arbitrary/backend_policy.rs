//! Policies of clusters beyond the shared contract.

use ir::backend_policy::{
    BackendPolicy, BreakerThresholds, HealthCheck, OutlierDetection, Probe, RetryBudget,
};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::{any_text, duration, exact_hostname, port};

pub(super) fn policy() -> impl Strategy<Value = BackendPolicy> {
    let watch = (of(health_check()), of(outlier_detection()), of(breaker()));
    let limits = proptest::array::uniform3(of(1..=u32::MAX));
    let choice = (
        of(duration()),
        of(percent()),
        any::<bool>(),
        of(101..=u32::MAX),
    );
    let budget = of(
        (percent(), any::<u32>()).prop_map(|(percent, min_per_second)| RetryBudget {
            percent,
            min_per_second,
        }),
    );
    (watch, limits, choice, budget).prop_map(|(watch, limits, choice, retry_budget)| {
        BackendPolicy {
            health_check: watch.0,
            outlier_detection: watch.1,
            breaker: watch.2,
            max_connections: limits[0],
            max_pending_requests: limits[1],
            max_requests_per_connection: limits[2],
            slow_start_window: choice.0,
            panic_threshold_percent: choice.1,
            prefers_own_zone: choice.2,
            hash_load_percent: choice.3,
            retry_budget,
        }
    })
}

fn percent() -> impl Strategy<Value = u8> {
    0..=100u8
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    let http = (
        "/[a-z/]{0,4}",
        of(exact_hostname().prop_map(|host| host.as_str().to_owned())),
        vec(100..=599u16, 0..3),
    );
    let probe = prop_oneof![
        Just(Probe::Tcp),
        http.prop_map(|(path, host, expected_statuses)| Probe::Http {
            path,
            host,
            expected_statuses
        }),
        any_text().prop_map(|service| Probe::Grpc { service }),
    ];
    let times = (of(duration()), of(duration()));
    let thresholds = (of(1..=u32::MAX), of(1..=u32::MAX));
    (probe, times, thresholds, of(port())).prop_map(|(probe, times, thresholds, port)| {
        HealthCheck {
            probe,
            interval: times.0,
            timeout: times.1,
            unhealthy_threshold: thresholds.0,
            healthy_threshold: thresholds.1,
            port,
        }
    })
}

fn outlier_detection() -> impl Strategy<Value = OutlierDetection> {
    (
        of(any::<u32>()),
        of(any::<u32>()),
        of(duration()),
        of(duration()),
        of(percent()),
    )
        .prop_map(|(any, gateway, base, max, share)| OutlierDetection {
            consecutive_failures: any,
            consecutive_gateway_failures: gateway,
            base_ejection: base,
            max_ejection: max,
            max_ejection_percent: share,
        })
}

pub(super) fn breaker() -> impl Strategy<Value = BreakerThresholds> {
    (of(1..=u32::MAX), of(1..=u32::MAX), of(duration())).prop_map(|(failures, successes, open)| {
        BreakerThresholds {
            failure_threshold: failures,
            success_threshold: successes,
            open_time: open,
        }
    })
}
