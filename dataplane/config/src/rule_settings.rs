//! What a rule may say of times, sizes, its log and its traces, and mostly does not.
//!
//! Thousands of rules say nothing and share what that comes to, see
//! [`Kept::plain_settings`](crate::Kept::plain_settings). Compiled by `compile/rules.rs`.

use std::sync::Arc;
use std::time::Duration;

use ir::policy::Retry;

use dataplane_telemetry::access_log::Override;
use dataplane_telemetry::trace::Ratio;

/// What a rule says of times, sizes, its log and its traces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSettings {
    /// From the request's head to the end of the response; `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// One attempt; `None` for no limit.
    pub backend_request_timeout: Option<Duration>,
    /// One of these two was asked for, be it to have no limit: then the process's own limit for the
    /// head of a response does not count.
    pub has_timeouts: bool,
    /// When a failed attempt is made again; `None` for only when nothing of it can have arrived.
    pub retry: Option<Arc<Retry>>,
    /// No further attempt begins later than this after the request.
    pub next_upstream_timeout: Option<Duration>,
    /// How much of a request body is kept for another attempt; `None` for the process's limit.
    pub request_body_buffer_bytes: Option<u64>,
    /// Read the request body, as far as it is kept, before it is sent on.
    pub request_buffering: bool,
    /// Largest request head; `None` for the process's limit alone.
    pub request_header_bytes_max: Option<u64>,
    /// Requests on one HTTP/1.1 connection before it is closed; `None` for the process's limit alone.
    pub keepalive_requests_max: Option<u32>,
    /// Until a connection is up; `None` for the cluster's.
    pub connect_timeout: Option<Duration>,
    /// Largest request body; `None` for the process's limit.
    pub request_body_bytes_max: Option<u64>,
    /// What its lines of the access log are like; absent for as all.
    pub log: Option<Arc<Override>>,
    /// The share of its traces that are recorded; `None` for the process's.
    pub trace_ratio: Option<Ratio>,
}
