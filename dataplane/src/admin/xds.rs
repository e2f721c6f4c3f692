//! What is known about the control plane: the version that serves and the state of the stream.

use serde_json::json;

use super::answer::Answer;
use super::{Context, Phase};

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
        "last_nack": report.last_nack,
    }))
}

/// `/v1/config/history`.
pub(super) fn history(context: &Context) -> Answer {
    let answers = context.state.status.history().into_iter().map(|answer| {
        let is_refused = !answer.error_detail.is_empty();
        json!({
            "version": answer.version,
            "at_unix_ms": answer.at_unix_ms,
            "result": if is_refused { "refused" } else { "applied" },
            "error_detail": is_refused.then_some(answer.error_detail),
        })
    });
    Answer::json(&json!({ "updates": answers.collect::<Vec<_>>() }))
}

/// `/api/v1/xds/status`.
pub(super) fn status(context: &Context) -> Answer {
    let readiness = &context.state.readiness;
    let mut report = json!(context.state.status.report());
    let is_from_disk = matches!(readiness.phase(), Phase::Partial | Phase::FromDisk);
    report["serving_from_disk"] = is_from_disk.into();
    report["withheld"] = readiness.withheld().into();
    Answer::json(&report)
}
