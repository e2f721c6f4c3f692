//! Whether a backend takes one more stream, and what it learns from how the stream went.
//!
//! A stream counts as one connection and one request of its cluster for as long as it lives. Only
//! what the cluster's own policies say limits streams: the limits of the process are of HTTP. A
//! breaker lets streams begin and is told whether their endpoint could be reached.

use std::time::Instant;

use tracing::info;

use dataplane_config::ClusterConfig;
use dataplane_resilience::circuit_breaker::{OwnedPass, State};
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

/// Lets one more stream in, unless the cluster has as many as it may or its breaker is open. A trial
/// of a half-open breaker is to be told how the stream went.
pub(crate) fn enter(cluster: &ClusterConfig) -> Result<(Places, Option<OwnedPass>), Reason> {
    let now = since_start(Instant::now());
    let pass = cluster
        .breaker
        .as_ref()
        .map(|breaker| breaker.enter_owned(now));
    let pass = pass.transpose().map_err(|_| {
        cluster.metrics.circuit_refused();
        Reason::CircuitOpen
    })?;
    let limits = cluster.cluster.limits(UNLIMITED);
    let admission = cluster.cluster.admission();
    let places = admission
        .connection(&limits)
        .zip(admission.request_owned(&limits));
    let places = places.ok_or_else(|| {
        cluster.metrics.connection_failed(Reason::BackendOverload);
        Reason::BackendOverload
    })?;
    Ok((places, pass.filter(OwnedPass::is_trial)))
}

/// Notes whether an endpoint could be reached. `trial` is what the stream began with where the
/// breaker was half-open; a stream that began otherwise says nothing while it is not closed.
pub(crate) fn report(
    cluster: &ClusterConfig,
    endpoint: &Endpoint,
    trial: Option<OwnedPass>,
    outcome: Outcome,
) {
    let now = Instant::now();
    if cluster.cluster.report(endpoint, outcome, now).is_some() {
        cluster.metrics.ejected();
    }
    let now = since_start(now);
    let closed = cluster.breaker.as_ref();
    let closed = closed.filter(|breaker| breaker.state(now) == State::Closed);
    let pass = trial.or_else(|| closed?.enter_owned(now).ok());
    let Some(pass) = pass else { return };
    if outcome == Outcome::Success {
        pass.succeeded();
    } else if pass.failed(now) {
        cluster.metrics.circuit_opened();
        let cluster = &**cluster.cluster.key();
        info!(cluster, "a cluster keeps failing, its breaker is open");
    }
}
