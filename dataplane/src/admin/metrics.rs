//! `/metrics`: all families in the Prometheus text format.
//!
//! Written by a thread of the blocking pool, because a large configuration has many series.

use http::StatusCode;

use dataplane_telemetry::metrics::CONTENT_TYPE;

use super::Context;
use super::answer::Answer;

/// Answers a scrape.
pub(super) async fn scrape(context: &Context) -> Answer {
    let Ok(place) = context.large.clone().try_acquire_owned() else {
        let message = "too many large answers are being written, try again";
        return Answer::error(StatusCode::SERVICE_UNAVAILABLE, message);
    };
    let metrics = context.state.metrics.clone();
    let kept = context.state.store.load().kept.clone();
    let is_ready = context.state.readiness.is_ready();
    let written = tokio::task::spawn_blocking(move || {
        metrics.inventory.ready.set(i64::from(is_ready));
        metrics.set_rate_limit_evictions(kept.rate_limit_keys().0);
        let mut text = String::new();
        metrics.encode_text(&mut text);
        drop(place);
        text
    });
    match written.await {
        Ok(text) => Answer::whole(StatusCode::OK, CONTENT_TYPE, text),
        Err(_) => {
            let message = "the scrape failed, see the log";
            Answer::error(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
    }
}
