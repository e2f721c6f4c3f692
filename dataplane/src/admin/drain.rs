//! The way out: shown, and begun.
//!
//! What SIGTERM does, for those who cannot send a signal. `app.rs` waits for it beside the signal;
//! there is no way back from it.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::answer::Answer;
use super::{Context, Phase};

/// What a body may say; nothing yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {}

/// GET.
pub(super) fn show(context: &Context) -> Answer {
    Answer::json(&view(context))
}

/// POST, with `{}`.
pub(super) fn begin(context: &Context, body: &Bytes) -> Answer {
    if let Err(error) = serde_json::from_slice::<Request>(body) {
        let message = format!("expected the body {{}}: {error}");
        return Answer::error(StatusCode::BAD_REQUEST, &message);
    }
    info!("asked to drain by the admin API");
    context.state.drain.cancel();
    show(context).with_status(StatusCode::ACCEPTED)
}

fn view(context: &Context) -> serde_json::Value {
    let state = &context.state;
    let phase = state.readiness.phase();
    json!({
        "draining": phase == Phase::Draining || state.drain.is_cancelled(),
        "phase": phase.as_str(),
        "connections": state.connections.current(),
    })
}
