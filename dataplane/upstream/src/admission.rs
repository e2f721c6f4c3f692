//! How much a cluster is asked at once: requests, connections, and those who wait for one.
//!
//! The counts belong to the whole process and outlive configurations for as long as the cluster
//! keeps its key; the limits are said at each entrance, because a cluster may have its own and
//! those of the process may differ. Waiting and answering are the callers'.

use std::sync::Arc;

use dataplane_resilience::admission::{Count, OwnedPlace, Place};

/// What a cluster carries at most; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run.
    pub requests: Option<usize>,
    /// Connections that are open, kept ones included.
    pub connections: Option<usize>,
    /// Requests that wait for a connection, because there may be no more of them.
    pub pending: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: Some(1024),
            connections: Some(1024),
            pending: Some(1024),
        }
    }
}

impl Limits {
    /// These limits, with those that the cluster has of its own in their place.
    pub(crate) fn of(self, source: &ir::Cluster) -> Self {
        let own = |limit: Option<u32>| limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let policy = source.policy.as_deref();
        Self {
            requests: own(source.max_inflight_requests).or(self.requests),
            connections: own(policy.and_then(|policy| policy.max_connections)).or(self.connections),
            pending: own(policy.and_then(|policy| policy.max_pending_requests)).or(self.pending),
        }
    }
}

/// What a cluster carries now.
#[derive(Debug, Default)]
pub struct Admission {
    requests: Count,
    connections: Arc<Count>,
    pending: Arc<Count>,
}

impl Admission {
    /// One more request, unless the limit is reached.
    pub fn request(&self, limits: &Limits) -> Option<Place<'_>> {
        self.requests.enter(limits.requests)
    }

    /// One more connection, unless the limit is reached.
    pub fn connection(&self, limits: &Limits) -> Option<OwnedPlace> {
        self.connections.enter_owned(limits.connections)
    }

    /// One more request that waits for a connection, unless the limit is reached.
    pub fn pending(&self, limits: &Limits) -> Option<OwnedPlace> {
        self.pending.enter_owned(limits.pending)
    }

    /// Requests that run.
    pub fn requests_active(&self) -> usize {
        self.requests.current()
    }

    /// Connections that are open.
    pub fn connections_active(&self) -> usize {
        self.connections.current()
    }

    /// Requests that wait for a connection.
    pub fn waiting(&self) -> usize {
        self.pending.current()
    }
}
