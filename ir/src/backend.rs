//! What a route, a mirror or a policy names as its destination.

use std::sync::Arc;

/// A reference to a backend, resolved to the keys its cluster may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTarget {
    /// What it names, for display: `namespace/name:port`.
    pub display: Arc<str>,
    /// Keys under which its cluster may be found, in order of preference.
    ///
    /// Empty when the control plane could not resolve it; its share of requests then fails.
    pub cluster_keys: Vec<Arc<str>>,
    /// API group of the reference; empty for the core group.
    pub group: String,
    /// Kind of the reference, mostly `Service`.
    pub kind: String,
}
