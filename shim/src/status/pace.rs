//! How often a Gateway is written that only counts differently.
//!
//! A thousand routes that come one by one would be a thousand writes of their Gateway. Therefore a
//! count waits until it rests, and no longer than a while after the write before; the first one after
//! a calm is written at once. Conditions do not come here: [`super::Writer`] writes them without
//! delay. Pure: the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Id;

/// A count that has not moved for so long rests.
const SETTLE: Duration = Duration::from_millis(150);
/// Pause behind a write when the count rests; twice as long each time, up to the longest.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// A count that never rests is written again after this.
const RESTLESS: Duration = Duration::from_millis(800);
/// After so long without a change everything begins anew.
const CALM: Duration = Duration::from_secs(1);

/// When what was written, and how long it pauses.
#[derive(Default)]
pub(super) struct Pace {
    gateways: BTreeMap<Id, Times>,
}

struct Times {
    moved: Instant,
    /// Nothing before the first write of a row.
    written: Option<(Instant, Duration)>,
}

impl Pace {
    /// What is said of a Gateway has changed.
    pub(super) fn moved(&mut self, id: &Id, now: Instant) {
        let written = self.times(id, now).and_then(|times| times.written);
        let times = Times {
            moved: now,
            written,
        };
        self.gateways.insert(id.clone(), times);
    }

    /// A Gateway was written.
    pub(super) fn written(&mut self, id: &Id, now: Instant) {
        let former = self.times(id, now);
        let moved = former.map_or(now, |times| times.moved);
        let pause = former.and_then(|times| times.written);
        let pause = pause.map_or(PAUSE, |(_, pause)| (pause * 2).min(PAUSE_MAX));
        let is_young = |times: &Times| now - times.latest() < CALM;
        self.gateways.retain(|_, times| is_young(times));
        let written = Some((now, pause));
        self.gateways.insert(id.clone(), Times { moved, written });
    }

    /// When a count may be written that differs; nothing when that is now.
    pub(super) fn wait(&self, id: &Id, now: Instant) -> Option<Instant> {
        let times = self.times(id, now)?;
        let (written, pause) = times.written?;
        let rests = (times.moved + SETTLE).max(written + pause);
        Some(rests.min(written + RESTLESS)).filter(|due| *due > now)
    }

    fn times(&self, id: &Id, now: Instant) -> Option<&Times> {
        let times = self.gateways.get(id);
        times.filter(|times| now - times.latest() < CALM)
    }
}

impl Times {
    fn latest(&self) -> Instant {
        let written = self.written.map(|(written, _)| written);
        written.map_or(self.moved, |written| written.max(self.moved))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster_view::Kind;

    /// Plays changes at these times and returns when the Gateway was written.
    fn writes(changes: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let id: Id = (Kind::Gateway, "default/gw".into());
        let mut pace = Pace::default();
        let mut writes = Vec::new();
        let mut is_waiting = false;
        let last = changes.last().copied().unwrap_or_default();
        for millis in 0..last + 5_000 {
            let now = start + Duration::from_millis(millis);
            if changes.binary_search(&millis).is_ok() {
                pace.moved(&id, now);
                is_waiting = true;
            }
            if is_waiting && pace.wait(&id, now).is_none() {
                pace.written(&id, now);
                writes.push(millis);
                is_waiting = false;
            }
        }
        writes
    }

    #[test]
    fn two_thousand_changes_are_few_writes_and_the_last_is_soon_told() {
        for (gap, writes_max) in [(1, 6), (5, 16), (18, 50), (30, 80)] {
            let changes: Vec<u64> = (0..2_000).map(|number| number * gap).collect();
            let writes = writes(&changes);
            let late = writes[writes.len() - 1] - changes[changes.len() - 1];
            assert!(
                writes.len() <= writes_max && late <= 500,
                "a change every {gap} ms: {} writes, the last after {late} ms",
                writes.len()
            );
        }
    }

    #[test]
    fn one_change_is_told_at_once_and_a_second_one_when_it_rests() {
        assert_eq!(writes(&[10]), [10]);
        assert_eq!(writes(&[10, 20]), [10, 170]);
        assert_eq!(writes(&[10, 20, 100, 160]), [10, 310]);
        // After a calm everything begins anew.
        assert_eq!(writes(&[10, 20, 3_000]), [10, 170, 3_000]);
    }

    #[test]
    fn changes_that_come_slowly_are_not_each_written() {
        let changes: Vec<u64> = (0..100).map(|number| number * 200).collect();
        let writes = writes(&changes);
        assert!(writes.len() <= 42, "{} writes in 20 s", writes.len());
    }
}
