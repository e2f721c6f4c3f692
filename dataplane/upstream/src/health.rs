//! Which endpoints of a cluster are well, and what a request's outcome says about it.
//!
//! The request line reports every outcome to `cluster.rs`, which keeps the record of the endpoint
//! here; an endpoint that keeps failing is left out for a while. When too few are well, all are used
//! again: sending everything to the last few would take them down too.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use dataplane_resilience::outlier;
use ir::backend_policy::{BackendPolicy, OutlierDetection};

/// Below this share of well endpoints all are used again, in percent.
const PANIC_THRESHOLD_PERCENT: u8 = 50;

/// How an attempt at an endpoint ended, as far as it tells of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered, and not with a server error.
    Success,
    /// It answered 500 or another status from 500 on that is no gateway's.
    ServerError,
    /// It did not answer, or answered 502, 503 or 504.
    GatewayFailure,
}

impl Outcome {
    /// What a status says.
    pub fn of_status(status: u16) -> Self {
        match status {
            502..=504 => Self::GatewayFailure,
            500.. => Self::ServerError,
            _ => Self::Success,
        }
    }
}

/// The rules of one cluster.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Absent when nothing is held against endpoints.
    pub(crate) outlier: Option<outlier::Settings>,
    panic_threshold_percent: u8,
    /// How long a new endpoint takes to get its whole share.
    pub(crate) slow_start: Option<Duration>,
    /// Requests on one connection, after which it is closed.
    pub(crate) requests_per_connection: Option<u32>,
    /// How far above the mean an endpoint may be loaded, in percent.
    pub(crate) hash_load_percent: Option<u32>,
}

impl Rules {
    /// The rules of a policy; all clusters without one share theirs.
    pub(crate) fn of(policy: Option<&BackendPolicy>) -> Arc<Self> {
        static PLAIN: LazyLock<Arc<Rules>> = LazyLock::new(|| Arc::new(Rules::compile(None)));
        match policy {
            Some(_) => Arc::new(Self::compile(policy)),
            None => Arc::clone(&PLAIN),
        }
    }

    fn compile(policy: Option<&BackendPolicy>) -> Self {
        let outlier = policy.and_then(|policy| policy.outlier_detection.as_ref());
        let threshold = policy.and_then(|policy| policy.panic_threshold_percent);
        Self {
            outlier: outlier.map(settings),
            panic_threshold_percent: threshold.unwrap_or(PANIC_THRESHOLD_PERCENT),
            slow_start: policy.and_then(|policy| policy.slow_start_window),
            requests_per_connection: policy.and_then(|it| it.max_requests_per_connection),
            hash_load_percent: policy.and_then(|policy| policy.hash_load_percent),
        }
    }

    /// Whether those that are unwell are left out: not when too few would be left.
    pub(crate) fn leaves_out(&self, unwell: usize, all: usize) -> bool {
        unwell > 0 && (all - unwell) * 100 >= usize::from(self.panic_threshold_percent) * all
    }
}

fn settings(detection: &OutlierDetection) -> outlier::Settings {
    let default = outlier::Settings::default();
    let base = detection.base_ejection.unwrap_or(default.base_ejection);
    outlier::Settings {
        consecutive_failures: detection
            .consecutive_failures
            .unwrap_or(default.consecutive_failures),
        consecutive_gateway_failures: detection
            .consecutive_gateway_failures
            .unwrap_or(default.consecutive_gateway_failures),
        base_ejection: base,
        max_ejection: detection
            .max_ejection
            .unwrap_or(default.max_ejection)
            .max(base),
        max_ejection_percent: detection
            .max_ejection_percent
            .unwrap_or(default.max_ejection_percent),
    }
}

/// The time as the state machines take it: since a moment of this process.
pub fn since_start(now: Instant) -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    now.saturating_duration_since(*START)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unwell_are_left_out_until_too_few_would_be_left() {
        let rules = |percent| {
            Rules::compile(Some(&BackendPolicy {
                panic_threshold_percent: percent,
                ..BackendPolicy::default()
            }))
        };
        for (percent, unwell, all, expected) in [
            (None, 0, 4, false),
            (None, 2, 4, true),
            (None, 3, 4, false),
            (None, 1, 2, true),
            (Some(0), 4, 4, true),
            (Some(100), 1, 100, false),
        ] {
            let left_out = rules(percent).leaves_out(unwell, all);
            assert_eq!(left_out, expected, "{percent:?} {unwell}/{all}");
        }
    }

    #[test]
    fn statuses_tell_of_the_endpoint() {
        for (status, expected) in [
            (200, Outcome::Success),
            (404, Outcome::Success),
            (500, Outcome::ServerError),
            (501, Outcome::ServerError),
            (502, Outcome::GatewayFailure),
            (504, Outcome::GatewayFailure),
            (505, Outcome::ServerError),
        ] {
            assert_eq!(Outcome::of_status(status), expected, "{status}");
        }
    }
}
