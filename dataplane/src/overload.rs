//! Watches what the process uses and tells those who serve how pressed it is.
//!
//! [`watch`] is started by `app` and measures ten times a second, away from traffic; requests and
//! accept loops read the level it sets, with one relaxed load. Memory comes from the control group
//! ([`memory`]), descriptors from the count of connections against what [`descriptors`] allows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use dataplane_resilience::admission::Gate;
use dataplane_resilience::pressure::{Level, Pressure, SharedLevel, Thresholds};
use dataplane_telemetry::metrics::OverloadMetrics;

pub mod descriptors;
pub mod memory;

pub use memory::{Source, Usage};

/// How often is measured. Clients on a fast network fill a small limit within a second.
const INTERVAL: Duration = Duration::from_millis(100);

/// What is watched, and against what.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where levels of memory begin; `None` watches no memory.
    pub memory: Option<Thresholds>,
    /// Where figures about memory come from.
    pub source: Source,
    /// How often is measured.
    pub interval: Duration,
    /// Share of memory for request heads that are large and not complete.
    pub large_heads_percent: u8,
    /// How the limit of open files is shared.
    pub descriptors: descriptors::Shares,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memory: Some(Thresholds::default()),
            source: Source::of_this_process(None),
            interval: INTERVAL,
            large_heads_percent: 12,
            descriptors: descriptors::Shares::default(),
        }
    }
}

/// Connections whose number is held down by the descriptors there are.
#[derive(Clone, Debug)]
pub struct Descriptors {
    /// The connections.
    pub connections: Arc<Gate>,
    /// True when descriptors are why there may not be more.
    pub are_the_limit: bool,
}

/// Measures until `stop` is cancelled.
pub async fn watch(
    settings: Settings,
    descriptors: Descriptors,
    level: SharedLevel,
    metrics: Arc<OverloadMetrics>,
    stop: CancellationToken,
) {
    let mut watch = Watch {
        memory: settings.memory.map(Pressure::new),
        descriptors: Pressure::new(Thresholds::default()),
        said: Level::Normal,
    };
    let mut tick = tokio::time::interval(settings.interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let next = watch.look(&settings.source, &descriptors, &metrics);
        level.set(next);
        metrics.level.set(next as u8);
    }
}

struct Watch {
    memory: Option<Pressure>,
    descriptors: Pressure,
    said: Level,
}

impl Watch {
    /// One measurement; says so when the level has changed.
    fn look(
        &mut self,
        source: &Source,
        descriptors: &Descriptors,
        metrics: &OverloadMetrics,
    ) -> Level {
        let usage = self.memory.as_ref().and_then(|_| source.measure());
        metrics
            .memory_bytes
            .set(usage.map_or(0, |usage| usage.used));
        metrics
            .memory_limit_bytes
            .set(usage.map_or(0, |usage| usage.limit));
        let by_memory = match (&mut self.memory, usage) {
            (Some(pressure), Some(usage)) => pressure.observe(usage.used, usage.limit),
            _ => Level::Normal,
        };
        let by_descriptors = self.by_descriptors(descriptors);
        let level = by_memory.max(by_descriptors);
        if level != self.said {
            self.said = level;
            let Usage { used, limit } = usage.unwrap_or_default();
            let connections = descriptors.connections.current();
            match level {
                Level::Normal => info!(used, limit, connections, "no longer overloaded"),
                level => warn!(
                    level = level.as_str(),
                    used,
                    limit,
                    connections,
                    "overloaded; see overload in docs/reference/limits.md"
                ),
            }
        }
        level
    }

    /// Connections that end behind their request give others a turn; nothing more is needed, since
    /// who is not accepted waits in the kernel.
    fn by_descriptors(&mut self, descriptors: &Descriptors) -> Level {
        let Some(limit) = descriptors.connections.limit() else {
            return Level::Normal;
        };
        if !descriptors.are_the_limit {
            return Level::Normal;
        }
        let used = u64::try_from(descriptors.connections.current()).unwrap_or(u64::MAX);
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.descriptors.observe(used, limit).min(Level::Saving)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("said", &self.said)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn the_level_follows_memory_and_descriptors() {
        let used = Arc::new(AtomicU64::new(0));
        let source = {
            let used = used.clone();
            Source::new(move || {
                Some(Usage {
                    used: used.load(Ordering::Relaxed),
                    limit: 100,
                })
            })
        };
        let descriptors = Descriptors {
            connections: Arc::new(Gate::new(Some(10))),
            are_the_limit: true,
        };
        let metrics = OverloadMetrics::default();
        let mut watch = Watch {
            memory: Some(Pressure::new(Thresholds::default())),
            descriptors: Pressure::new(Thresholds::default()),
            said: Level::Normal,
        };
        for (percent, level) in [
            (50, Level::Normal),
            (86, Level::Saving),
            (93, Level::Shedding),
            (99, Level::Closed),
            (10, Level::Normal),
        ] {
            used.store(percent, Ordering::Relaxed);
            assert_eq!(watch.look(&source, &descriptors, &metrics), level);
        }
        assert_eq!(metrics.memory_bytes.value(), 10);
        assert_eq!(metrics.memory_limit_bytes.value(), 100);
        let permits: Vec<_> = (0..10)
            .filter_map(|_| descriptors.connections.enter())
            .collect();
        let level = watch.look(&source, &descriptors, &metrics);
        assert_eq!(level, Level::Saving, "full of connections, not of memory");
        drop(permits);
        let level = watch.look(&source, &descriptors, &metrics);
        assert_eq!(level, Level::Normal);
    }
}
