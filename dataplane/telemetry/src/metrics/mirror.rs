//! What became of requests that were copied to mirrors.
//!
//! Counted per route and listener once a copy has ended; a route without mirrors has no counters.

use std::array;
use std::sync::{Arc, OnceLock};

use super::exposition::Exposition;
use super::family;
use super::instrument::Counter;
use super::traffic::RouteMetrics;

/// What became of one copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorResult {
    /// It was sent, and an answer came.
    Sent,
    /// No backend of that name, or none that can take it.
    NoBackend,
    /// Too many copies were on their way.
    Concurrency,
    /// The mirror did not keep up with the request's body.
    Slow,
    /// The mirror could not be reached, or broke.
    Failed,
    /// The mirror did nothing for too long.
    Timeout,
    /// The request itself broke off.
    Aborted,
}

impl MirrorResult {
    /// Every result; `ALL[r as usize] == r`.
    pub const ALL: [Self; 7] = [
        Self::Sent,
        Self::NoBackend,
        Self::Concurrency,
        Self::Slow,
        Self::Failed,
        Self::Timeout,
        Self::Aborted,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::NoBackend => "no_backend",
            Self::Concurrency => "concurrency",
            Self::Slow => "slow",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Aborted => "aborted",
        }
    }
}

/// The counters of one route; made at its first copy.
#[derive(Debug, Default)]
pub(super) struct Mirrors(OnceLock<Box<[Counter; MirrorResult::ALL.len()]>>);

impl Mirrors {
    pub(super) fn count(&self, result: MirrorResult) {
        let counters = self
            .0
            .get_or_init(|| Box::new(array::from_fn(|_| Counter::default())));
        counters[result as usize].increment();
    }
}

/// Writes the family of mirrors.
pub(super) fn encode(out: &mut Exposition<'_>, routes: &[Arc<RouteMetrics>]) {
    let mut samples = out.family(&family::MIRRORED);
    for route in routes {
        let Some(counters) = route.mirrors().0.get() else {
            continue;
        };
        for (result, count) in MirrorResult::ALL.into_iter().zip(counters.iter()) {
            if count.value() > 0 {
                let labels = [route.listener().name(), route.route(), result.as_str()];
                samples.sample(&labels, count.value());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_stand_at_their_own_index() {
        for (at, result) in MirrorResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, at);
        }
    }
}
