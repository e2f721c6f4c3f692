//! The level of the process's log: shown, and changed while running.
//!
//! A change takes PUT and a small body, and lasts until the next start.

use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tracing::info;

use super::Context;
use super::answer::Answer;

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
pub(super) fn change(context: &Context, body: &Bytes) -> Answer {
    let Some(log) = &context.state.log else {
        return no_log();
    };
    let text = String::from_utf8_lossy(body);
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
    Answer::not_found("this process's log is not ours to change, see the process that runs it")
}
