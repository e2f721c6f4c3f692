//! How many requests a cluster is asked at once.
//!
//! The count belongs to the whole process and outlives configurations for as long as the cluster
//! keeps its key; the limit is said at each entrance, because a cluster may have its own and that
//! of the process may differ. Answering is the caller's.

use dataplane_resilience::admission::{Count, Place};

/// What a cluster carries at most; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run.
    pub requests: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: Some(1024),
        }
    }
}

impl Limits {
    /// These limits, with that of the cluster in their place when it has one.
    pub(crate) fn of(self, source: &ir::Cluster) -> Self {
        let own = source.max_inflight_requests;
        let own = own.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        Self {
            requests: own.or(self.requests),
        }
    }
}

/// What a cluster carries now.
#[derive(Debug, Default)]
pub struct Admission {
    requests: Count,
}

impl Admission {
    /// One more request, unless the limit is reached.
    pub fn request(&self, limits: &Limits) -> Option<Place<'_>> {
        self.requests.enter(limits.requests)
    }

    /// Requests that run.
    pub fn requests_active(&self) -> usize {
        self.requests.current()
    }
}
