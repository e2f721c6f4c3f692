//! The level of the process's log: shown, and changed while running.
//!
//! The only path that changes anything; it takes PUT, a small body, and lasts until the next start.

use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::Context;
use super::answer::Answer;

/// Largest body.
const BODY_BYTES_MAX: usize = 4 * 1024;
/// How long it may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// What a change looks like.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    level: String,
}

/// GET.
pub(super) fn show(context: &Context) -> Answer {
    match &context.state.log {
        Some(log) => Answer::json(&json!({ "level": log.filter() })),
        None => no_log(),
    }
}

/// PUT, with `{"level": "info,hyper=warn"}` or the bare levels.
pub(super) async fn change(context: &Context, body: Incoming) -> Answer {
    let Some(log) = &context.state.log else {
        return no_log();
    };
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("the body is larger than {BODY_BYTES_MAX} bytes");
            return Answer::error(StatusCode::PAYLOAD_TOO_LARGE, &message);
        }
        Ok(Err(_)) => return Answer::error(StatusCode::BAD_REQUEST, "the body broke off"),
        Err(_) => return Answer::error(StatusCode::REQUEST_TIMEOUT, "the body did not come"),
    };
    let text = String::from_utf8_lossy(&body);
    let text = text.trim();
    let level = if text.starts_with('{') {
        match serde_json::from_str::<Change>(text) {
            Ok(change) => change.level,
            Err(error) => {
                let message = format!("expected {{\"level\": \"info\"}}: {error}");
                return Answer::error(StatusCode::BAD_REQUEST, &message);
            }
        }
    } else {
        text.to_owned()
    };
    if level.trim().is_empty() {
        let message = "no level given, write levels per module as in info,hyper=warn";
        return Answer::error(StatusCode::BAD_REQUEST, message);
    }
    match log.set_filter(level.trim()) {
        Ok(()) => {
            info!(level = level.trim(), "log level changed");
            show(context)
        }
        Err(error) => Answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn no_log() -> Answer {
    Answer::not_found("this process's log is not ours to change")
}
