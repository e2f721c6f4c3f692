//! Whose a connection is, and what it counts for while it is open.
//!
//! Connections are counted where they are made and where they end: for the cluster, whose limit
//! holds in the whole process, for the endpoint, for the figures, and against the share of
//! descriptors that backends have. Nothing here is asked by a request that finds a kept connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use dataplane_config::ClusterConfig;
use dataplane_telemetry::Reason;
use dataplane_telemetry::metrics::BackendMetrics;
use dataplane_upstream::admission::ConnectionPlace;
use dataplane_upstream::{Cluster, Endpoint, EndpointLoad};

use crate::held::Held;
use crate::pool::{Pool, PoolKey};
use crate::settings::Settings;

/// Whose connections they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) metrics: &'a Arc<BackendMetrics>,
    pub(crate) load: &'a Arc<EndpointLoad>,
}

impl<'a> Owner<'a> {
    pub(crate) fn new(cluster: &'a ClusterConfig, endpoint: &'a Endpoint) -> Self {
        Self {
            cluster: &cluster.cluster,
            metrics: &cluster.metrics,
            load: endpoint.load(),
        }
    }

    /// Leave to open a connection; waits while the cluster has as many as it may have, and until
    /// `instead` finds something that serves as well.
    pub(super) async fn place<T>(
        &self,
        pool: &Pool,
        key: PoolKey,
        settings: &Settings,
        mut instead: impl FnMut() -> Option<T>,
    ) -> Result<Result<Held, T>, Reason> {
        let limits = self.cluster.limits(settings.upstream_limits);
        let admission = self.cluster.admission();
        if let Some(place) = admission.connection(&limits) {
            return self.held(place, pool, settings).map(Ok);
        }
        let waiting = admission.wait();
        let _here = pool.wait(key);
        let found = poll_fn(|cx| {
            waiting.register(cx.waker());
            if let Some(found) = instead() {
                return Poll::Ready(Err(found));
            }
            match admission.connection(&limits) {
                Some(place) => Poll::Ready(Ok(place)),
                None => Poll::Pending,
            }
        });
        match found.await {
            Ok(place) => self.held(place, pool, settings).map(Ok),
            Err(found) => Ok(Err(found)),
        }
    }

    fn held(
        &self,
        place: ConnectionPlace,
        pool: &Pool,
        settings: &Settings,
    ) -> Result<Held, Reason> {
        let enter = || settings.upstream_connections.enter();
        // One that is idle for another cluster is worth less than one that is needed.
        let permit = enter().or_else(|| pool.let_go().then(enter).flatten());
        let Some(permit) = permit else {
            return Err(Reason::Overload);
        };
        Ok(Held {
            place,
            _permit: permit,
            _counted: (
                self.metrics.connection_opened(),
                self.load.connection_opened(),
            ),
        })
    }
}
