//! What overload costs: the level of the process, and what was refused or ended for it.
//!
//! The level is set by whoever measures memory, the counters by those who act on it; all of it is
//! rare, or rare until it matters, so the counters are plain.

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, Gauge};

/// Counters of overload.
#[derive(Debug, Default)]
pub struct OverloadMetrics {
    /// 0 normal, 1 saving, 2 shedding, 3 closed.
    pub level: Gauge,
    /// Memory in use, as last measured.
    pub memory_bytes: Gauge,
    /// What it is compared with; 0 for nothing.
    pub memory_limit_bytes: Gauge,
    /// HTTP/2 connections ended because they were the largest.
    pub connections_reset: Counter,
    /// Connections ended behind a request instead of being kept.
    pub connections_not_kept: Counter,
    /// Connections of TCP and TLS listeners closed because of a limit.
    pub streams_rejected: Counter,
    rejected: [Counter; OverloadScope::ALL.len()],
}

impl OverloadMetrics {
    /// Counts a request that was answered with 503.
    pub fn rejected(&self, scope: OverloadScope) {
        self.rejected[scope as usize].increment();
    }

    /// Requests answered with 503 so far.
    pub fn rejected_count(&self, scope: OverloadScope) -> u64 {
        self.rejected[scope as usize].value()
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::OVERLOAD_LEVEL)
            .sample(&[], self.level.value());
        out.family(&family::OVERLOAD_MEMORY)
            .sample(&[], self.memory_bytes.value());
        out.family(&family::OVERLOAD_MEMORY_LIMIT)
            .sample(&[], self.memory_limit_bytes.value());
        out.family(&family::OVERLOAD_RESETS)
            .sample(&[], self.connections_reset.value());
        out.family(&family::OVERLOAD_CLOSED)
            .sample(&[], self.connections_not_kept.value());
        let mut samples = out.family(&family::OVERLOAD_REJECTED);
        for scope in OverloadScope::ALL {
            samples.sample(&[scope.as_str()], self.rejected_count(scope));
        }
        out.family(&family::STREAMS_REJECTED)
            .sample(&[], self.streams_rejected.value());
    }
}

/// The limit a request met before it was sent anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverloadScope {
    /// Memory is short.
    Memory,
    /// Requests of the process.
    Global,
    /// Requests of the listener.
    Listener,
    /// Requests of the route.
    Route,
}

impl OverloadScope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Global, Self::Listener, Self::Route];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Global => "global",
            Self::Listener => "listener",
            Self::Route => "route",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_stand_at_their_own_index() {
        for (at, scope) in OverloadScope::ALL.into_iter().enumerate() {
            assert_eq!(scope as usize, at);
        }
    }
}
