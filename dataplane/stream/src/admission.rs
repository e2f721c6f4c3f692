//! Whether a backend takes one more stream, and what it learns from how the stream went.
//!
//! A stream counts as one connection and one request of its cluster for as long as it lives. Only
//! what the cluster's own policies say limits streams: the limits of the process are of HTTP. A
//! breaker lets streams begin and is told whether their endpoint could be reached.

use std::time::Instant;

use tracing::info;

use dataplane_config::ClusterConfig;
use dataplane_telemetry::reason::Reason;
use dataplane_upstream::admission::{ConnectionPlace, Limits, RequestPlace};
use dataplane_upstream::{Endpoint, Outcome, since_start};

/// Nothing, unless a policy says so.
const UNLIMITED: Limits = Limits {
    requests: None,
    connections: None,
    pending: None,
};

/// The places of one stream in its cluster.
pub(crate) type Places = (ConnectionPlace, RequestPlace);

/// Lets one more stream in, unless the cluster has as many as it may or its breaker is open.
pub(crate) fn enter(cluster: &ClusterConfig) -> Result<Places, Reason> {
    if let Some(breaker) = &cluster.breaker
        && breaker.enter(since_start(Instant::now())).is_err()
    {
        // The trial of a half-open breaker is made when the stream's outcome is known.
        cluster.metrics.circuit_refused();
        return Err(Reason::CircuitOpen);
    }
    let limits = cluster.cluster.limits(UNLIMITED);
    let admission = cluster.cluster.admission();
    let places = admission
        .connection(&limits)
        .zip(admission.request_owned(&limits));
    places.ok_or_else(|| {
        cluster.metrics.connection_failed(Reason::BackendOverload);
        Reason::BackendOverload
    })
}

/// Notes whether an endpoint could be reached.
pub(crate) fn report(cluster: &ClusterConfig, endpoint: &Endpoint, outcome: Outcome) {
    let now = Instant::now();
    if cluster.cluster.report(endpoint, outcome, now).is_some() {
        cluster.metrics.ejected();
    }
    let Some(breaker) = &cluster.breaker else {
        return;
    };
    let now = since_start(now);
    // Refused while it is open: then it is not asked.
    if let Ok(pass) = breaker.enter(now) {
        match outcome {
            Outcome::Success => pass.succeeded(),
            _ => {
                if pass.failed(now) {
                    cluster.metrics.circuit_opened();
                    let cluster = &**cluster.cluster.key();
                    info!(cluster, "a cluster keeps failing, its breaker is open");
                }
            }
        }
    }
}
