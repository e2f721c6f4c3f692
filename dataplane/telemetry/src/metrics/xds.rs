//! Counters of the configuration stream and of applying what it brings.
//!
//! The client in `dataplane/xds` and the conductor in `apply.rs` record here; all of it is rare, so
//! the counters are plain and public.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, Distribution, Gauge, Histogram};

/// Counters of the configuration stream.
#[derive(Debug, Default)]
pub struct XdsMetrics {
    /// 1 while the stream is up.
    pub connected: Gauge,
    /// 1 while the configuration is older than the freshness limit.
    pub snapshot_stale: Gauge,
    /// Failed attempts to connect.
    pub connect_failures: Counter,
    /// Streams that ended with an error.
    pub stream_failures: Counter,
    /// Streams after the first one.
    pub stream_reconnects: Counter,
    /// Health checks that failed.
    pub health_check_failures: Counter,
    /// Full snapshots acknowledged.
    pub snapshots_applied: Counter,
    /// Deltas acknowledged.
    pub deltas_applied: Counter,
    /// Updates refused.
    pub snapshots_nacked: Counter,
    /// Snapshots whose version was in use already.
    pub snapshots_skipped: Counter,
    last_apply_ms: AtomicU64,
    stages: [Histogram; ApplyStage::ALL.len()],
}

impl XdsMetrics {
    /// Remembers when a configuration was applied.
    pub fn applied_at(&self, time: SystemTime) {
        let since = time
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        self.last_apply_ms.store(ms, Ordering::Relaxed);
    }

    /// Records the time one stage of an update took.
    pub fn stage(&self, stage: ApplyStage, duration: Duration) {
        self.stages[stage as usize].observe(duration);
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::XDS_CONNECTED)
            .sample(&[], self.connected.value());
        out.family(&family::XDS_STALE)
            .sample(&[], self.snapshot_stale.value());
        let counters = [
            (&family::XDS_CONNECT_FAILURES, &self.connect_failures),
            (&family::XDS_STREAM_FAILURES, &self.stream_failures),
            (&family::XDS_RECONNECTS, &self.stream_reconnects),
            (&family::XDS_HEALTH_FAILURES, &self.health_check_failures),
            (&family::XDS_APPLIED, &self.snapshots_applied),
            (&family::XDS_DELTAS, &self.deltas_applied),
            (&family::XDS_NACKED, &self.snapshots_nacked),
            (&family::XDS_SKIPPED, &self.snapshots_skipped),
        ];
        for (family, counter) in counters {
            out.family(family).sample(&[], counter.value());
        }
        let last = self.last_apply_ms.load(Ordering::Relaxed) as f64 / 1e3;
        out.family(&family::XDS_LAST_APPLY).sample(&[], last);
        let mut samples = out.family(&family::XDS_STAGE);
        for (stage, content) in self.stages() {
            samples.histogram(&[stage.as_str()], &content);
        }
    }

    /// The stages once more, as they were published.
    pub(super) fn encode_ms(&self, out: &mut Exposition<'_>) {
        let mut samples = out.family(&family::XDS_STAGE_MS);
        for (stage, content) in self.stages() {
            samples.scaled(&[stage.as_str()], &content, 1e6);
        }
    }

    fn stages(&self) -> impl Iterator<Item = (ApplyStage, Distribution)> {
        let stages = ApplyStage::ALL.into_iter().zip(&self.stages);
        stages.map(|(stage, histogram)| {
            let mut content = Distribution::default();
            histogram.add_to(&mut content);
            (stage, content)
        })
    }
}

/// A stage of applying a configuration, as `apply.rs` goes through them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyStage {
    /// Wire messages become a typed snapshot or delta.
    Decode,
    /// A delta is put onto the snapshot before it.
    Merge,
    /// The engines compile the snapshot, and carry over what outlives it.
    Compile,
    /// New sockets are bound.
    Prepare,
    /// The new configuration takes the place of the old.
    Swap,
    /// New listeners start, removed ones drain.
    Commit,
    /// The acknowledgement is on its way.
    Ack,
}

impl ApplyStage {
    const ALL: [Self; 7] = [
        Self::Decode,
        Self::Merge,
        Self::Compile,
        Self::Prepare,
        Self::Swap,
        Self::Commit,
        Self::Ack,
    ];

    /// The label value; where an earlier data plane had the same stage, its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Merge => "merge",
            Self::Compile => "rebuild_indexes",
            Self::Prepare => "listener_prepare",
            Self::Swap => "snapshot_swap",
            Self::Commit => "listener_apply",
            Self::Ack => "ack_wait",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_stand_at_their_own_index() {
        for (at, stage) in ApplyStage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
        }
    }
}
