//! What limits of rate refuse, counted for each rule.
//!
//! The handle is held by the compiled rule; when no configuration holds it any more, its series
//! vanish. What is let pass is not counted here: requests are, elsewhere.

use std::sync::Arc;

use super::exposition::Exposition;
use super::family;
use super::instrument::Counter;

/// The counters of one rule.
#[derive(Debug)]
pub struct RateLimitMetrics {
    scope: &'static str,
    object: Arc<str>,
    limit: Arc<str>,
    /// Requests answered with 429.
    pub rejected: Counter,
    /// Requests that would have been, by a rule that only tries.
    pub would_reject: Counter,
    /// Requests that waited.
    pub queued: Counter,
}

impl RateLimitMetrics {
    pub(super) fn new(scope: &'static str, object: &str, limit: &str) -> Self {
        Self {
            scope,
            object: object.into(),
            limit: limit.into(),
            rejected: Counter::default(),
            would_reject: Counter::default(),
            queued: Counter::default(),
        }
    }

    /// The namespaced name of the object that it stands in.
    pub fn object(&self) -> &str {
        &self.object
    }
}

/// Writes the families of rate limits.
pub(super) fn encode(out: &mut Exposition<'_>, all: &[Arc<RateLimitMetrics>], evicted: u64) {
    out.family(&family::RATE_EVICTED).sample(&[], evicted);
    type Count = fn(&RateLimitMetrics) -> &Counter;
    let families: [(_, Count); 3] = [
        (&family::RATE_REJECTED, |it| &it.rejected),
        (&family::RATE_WOULD_REJECT, |it| &it.would_reject),
        (&family::RATE_QUEUED, |it| &it.queued),
    ];
    for (family, count) in families {
        let mut samples = out.family(family);
        for it in all {
            samples.sample(&[it.scope, &it.object, &it.limit], count(it).value());
        }
    }
}
