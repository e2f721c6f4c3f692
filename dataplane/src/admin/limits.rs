//! What this process carries at most, and what it carries now.
//!
//! The process's own limits; those of backends are in `/v1/circuit-breakers`, those of rate in
//! `/v1/rate-limits`. Answers from atomics and never walks the configuration.

use dataplane_resilience::admission::Gate;
use serde_json::{Value, json};

use super::Context;
use super::answer::Answer;

/// `/v1/limits`; a limit that is null is none.
pub(super) fn show(context: &Context) -> Answer {
    let state = &context.state;
    let http = &state.http;
    Answer::json(&json!({
        "level": state.level.get().as_str(),
        "connections": gate(&state.connections),
        "upstream_connections": gate(&http.upstream_connections),
        "large_heads": gate(&http.large_heads),
        "mirrors": gate(&http.mirrors),
        "requests": {
            "process": http.inflight.global,
            "listener": http.inflight.listener,
            "route": http.inflight.route,
        },
        "backend": {
            "requests": http.upstream_limits.requests,
            "connections": http.upstream_limits.connections,
            "pending": http.upstream_limits.pending,
        },
        "retry_budget": http.retry_budget.map(|it| json!({
            "ratio_percent": it.ratio_percent,
            "burst": it.burst,
        })),
        "request_body_bytes": http.request_body_bytes_max,
        "request_head_bytes": http.request_head.head_bytes_max,
    }))
}

fn gate(gate: &Gate) -> Value {
    json!({ "current": gate.current(), "limit": gate.limit() })
}
