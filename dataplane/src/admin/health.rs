//! Whether this process lives and whether it wants traffic.
//!
//! Asked for by the kubelet every few seconds without a token, so an answer looks at atomics and
//! one small lock. A control plane that is gone does not make a serving process unready.

use http::StatusCode;

use super::answer::Answer;
use super::{Context, Phase};

/// `/livez`: answering is the proof.
pub(super) fn live(context: &Context) -> Answer {
    let phase = context.state.readiness.phase();
    Answer::text(StatusCode::OK, format!("{}\n", phase.as_str()))
}

/// `/readyz`.
pub(super) fn ready(context: &Context) -> Answer {
    let phase = context.state.readiness.phase();
    let is_connected = context.state.status.is_connected();
    let (status, reason) = match (phase, is_connected) {
        (Phase::Ready, true) => (StatusCode::OK, ""),
        (Phase::Ready, false) => (
            StatusCode::OK,
            ": the control plane is not connected, the last configuration serves",
        ),
        (Phase::FromDisk, _) => (
            StatusCode::OK,
            ": the control plane has sent nothing yet, the last good configuration serves from disk",
        ),
        (Phase::Partial, _) => {
            let names = context.state.readiness.withheld();
            let text = format!(
                "partial: serving from disk until the control plane sends its configuration; \
                 closed, because their secrets are not kept on disk: {}\n",
                names.join(", ")
            );
            return Answer::text(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        (Phase::Starting, true) => (
            StatusCode::SERVICE_UNAVAILABLE,
            ": the control plane has sent no configuration that serves yet",
        ),
        (Phase::Starting, false) => (
            StatusCode::SERVICE_UNAVAILABLE,
            ": the control plane is not connected yet, see /api/v1/xds/status",
        ),
        (Phase::Draining, _) => (
            StatusCode::SERVICE_UNAVAILABLE,
            ": the process is stopping, new connections belong elsewhere",
        ),
    };
    Answer::text(status, format!("{}{reason}\n", phase.as_str()))
}
