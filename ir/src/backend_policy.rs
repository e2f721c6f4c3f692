//! How the endpoints of a cluster are watched, spared and limited.
//!
//! What the kind BackendLBPolicy says beyond the shared contract. Whatever is absent here is the
//! data plane's own default; engines are in `dataplane/resilience` and `dataplane/upstream`.

use std::num::NonZeroU16;
use std::time::Duration;

/// The policy of one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendPolicy {
    /// Requests of the data plane's own that find out which endpoints are well.
    pub health_check: Option<HealthCheck>,
    /// Leaves endpoints out that keep failing.
    pub outlier_detection: Option<OutlierDetection>,
    /// Stops calling the cluster while it fails.
    pub breaker: Option<BreakerThresholds>,
    /// Connections open at once.
    pub max_connections: Option<u32>,
    /// Requests that wait for a connection.
    pub max_pending_requests: Option<u32>,
    /// Requests on one connection, after which it is closed; absent for no limit.
    pub max_requests_per_connection: Option<u32>,
    /// How long a new endpoint takes to get its whole share; absent for at once.
    pub slow_start_window: Option<Duration>,
    /// Below this share of well endpoints all are used again, 0 to 100; 0 for never.
    pub panic_threshold_percent: Option<u8>,
    /// Endpoints in the data plane's own zone come first while enough of them are well.
    pub prefers_own_zone: bool,
    /// With consistent hashing: how far above the mean an endpoint may be loaded before its keys go
    /// to the next one, in percent of the mean and more than 100; absent for as far as may be.
    pub hash_load_percent: Option<u32>,
    /// How many attempts may be repetitions.
    pub retry_budget: Option<RetryBudget>,
}

/// Requests of the data plane's own that find out which endpoints are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// Between two checks of one endpoint.
    pub interval: Option<Duration>,
    /// Until a check has failed.
    pub timeout: Option<Duration>,
    /// Failures in a row that make an endpoint unwell.
    pub unhealthy_threshold: Option<u32>,
    /// Successes in a row that make it well again.
    pub healthy_threshold: Option<u32>,
    /// The port asked; absent for that of the traffic.
    pub port: Option<NonZeroU16>,
}

/// What a health check asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// That a connection comes up.
    Tcp,
    /// That a GET is answered well.
    Http {
        /// The path, beginning with a slash.
        path: String,
        /// The host; absent for the endpoint's address.
        host: Option<String>,
        /// Statuses that mean well, 100 to 599; empty for 200 to 299.
        expected_statuses: Vec<u16>,
    },
    /// That `grpc.health.v1.Health/Check` says SERVING.
    Grpc {
        /// The service asked about; empty for the whole server.
        service: String,
    },
}

/// Leaves endpoints out that keep failing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutlierDetection {
    /// Failures in a row of any kind; 0 for never.
    pub consecutive_failures: Option<u32>,
    /// Failures in a row to answer at all, or 502, 503, 504; 0 for never.
    pub consecutive_gateway_failures: Option<u32>,
    /// How long the first ejection lasts; the nth in a row lasts n times that.
    pub base_ejection: Option<Duration>,
    /// How long one lasts at most.
    pub max_ejection: Option<Duration>,
    /// The largest share of endpoints that may be ejected at once, 0 to 100.
    pub max_ejection_percent: Option<u8>,
}

/// When a breaker opens and closes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BreakerThresholds {
    /// Failures in a row that open it.
    pub failure_threshold: Option<u32>,
    /// Successful trials that close it.
    pub success_threshold: Option<u32>,
    /// How long it stays open.
    pub open_time: Option<Duration>,
}

/// How many attempts may be repetitions (`XBackendTrafficPolicy` `retryConstraint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryBudget {
    /// Share of all requests, 0 to 100.
    pub percent: u8,
    /// Repetitions that are allowed in a second whatever the share.
    pub min_per_second: u32,
}
