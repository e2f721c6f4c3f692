//! The last good configuration on disk: whether it serves, and whether it could be written.

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, Gauge};

/// Counters of the configuration on disk.
#[derive(Debug, Default)]
pub struct LastGoodMetrics {
    /// 1 while a configuration from disk serves.
    pub serving: Gauge,
    /// Objects of it that are not served as they should be.
    pub withheld: Gauge,
    /// Bytes of the file.
    pub bytes: Gauge,
    /// Files written.
    pub writes: Counter,
    /// Files that could not be written.
    pub failures: Counter,
}

impl LastGoodMetrics {
    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::LAST_GOOD_SERVING)
            .sample(&[], self.serving.value());
        out.family(&family::LAST_GOOD_WITHHELD)
            .sample(&[], self.withheld.value());
        out.family(&family::LAST_GOOD_BYTES)
            .sample(&[], self.bytes.value());
        out.family(&family::LAST_GOOD_WRITES)
            .sample(&[], self.writes.value());
        out.family(&family::LAST_GOOD_FAILURES)
            .sample(&[], self.failures.value());
    }
}
