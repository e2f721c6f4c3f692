//! What is known about the control plane: the version that serves and the state of the stream.

use serde_json::json;

use super::Context;
use super::answer::Answer;

/// `/api/v1/config/version`.
pub(super) fn config_version(context: &Context) -> Answer {
    let config = context.state.store.load();
    let report = context.state.status.report();
    let version = config.version().as_str();
    Answer::json(&json!({
        "version": (!version.is_empty()).then_some(version),
        "ready": context.state.readiness.is_ready(),
        "applied_at_unix_ms": report.last_applied_unix_ms,
        "type_versions": report.type_versions,
    }))
}

/// `/api/v1/xds/status`.
pub(super) fn status(context: &Context) -> Answer {
    Answer::json(&context.state.status.report())
}
