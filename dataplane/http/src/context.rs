//! What is known about one request while it runs.
//!
//! The configuration is loaded here, once: whatever is swapped in meanwhile, this request sees the
//! one it began with. Phases read and note facts here; the log phase writes them down.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dataplane_config::{Backend, ClusterConfig, ListenerConfig, Rule, RuntimeConfig};
use dataplane_telemetry::Reason;
use dataplane_upstream::Endpoint;
use http::StatusCode;

/// One request's facts.
pub(crate) struct Context {
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) started: Instant,
    pub(crate) started_at: SystemTime,
    pub(crate) listener: Option<Arc<ListenerConfig>>,
    pub(crate) rule: Option<Arc<Rule>>,
    /// Bytes of the path that a prefix match covered, for prefix rewrites.
    pub(crate) prefix_len: Option<usize>,
    /// Which of the rule's backends was chosen.
    pub(crate) backend: Option<usize>,
    pub(crate) cluster: Option<ClusterConfig>,
    /// The endpoint of the last attempt.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// Endpoints that failed already.
    pub(crate) tried: Vec<SocketAddr>,
    pub(crate) attempts: u32,
    pub(crate) connect_time: Duration,
    pub(crate) status: Option<StatusCode>,
    pub(crate) reason: Reason,
}

impl Context {
    pub(crate) fn new(config: Arc<RuntimeConfig>) -> Self {
        Self {
            config,
            started: Instant::now(),
            started_at: SystemTime::now(),
            listener: None,
            rule: None,
            prefix_len: None,
            backend: None,
            cluster: None,
            endpoint: None,
            tried: Vec::new(),
            attempts: 0,
            connect_time: Duration::ZERO,
            status: None,
            reason: Reason::Ok,
        }
    }

    /// The chosen backend of the rule.
    pub(crate) fn backend(&self) -> Option<&Backend> {
        self.rule.as_deref()?.backends.get(self.backend?)
    }
}
