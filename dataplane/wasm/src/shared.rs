//! What all instances of one plugin share: data, queues, and how well the plugin is.
//!
//! Outlives instances and configurations for as long as a plugin of that name is configured. All of it is
//! bounded, because a guest decides what is put in. Data and queues are a plugin's own, unless plugins of
//! one namespace name the same `vmId`: then they have one [`Space`] together.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use dataplane_telemetry::metrics::{PluginFailure, PluginMetrics};

/// Entries of shared data.
const ENTRIES_MAX: usize = 10_000;
/// Bytes of their keys and values.
const DATA_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Queues of a plugin.
const QUEUES_MAX: usize = 16;
/// Bytes of the name of one.
const QUEUE_NAME_BYTES_MAX: usize = 1024;
/// Entries of one queue.
const QUEUE_ENTRIES_MAX: usize = 1_000;
/// Bytes of one queue.
const QUEUE_BYTES_MAX: usize = 1024 * 1024;
/// Failures in a row from which on a plugin counts as disabled.
const DISABLED_FROM: u32 = 5;
/// The pause behind the second failure in a row; doubled with each further one.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Failures that are further apart are not in a row.
const ROW_MAX: Duration = Duration::from_secs(120);

/// What instances of one plugin share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) space: Arc<Space>,
    health: Mutex<Health>,
    pub(crate) metrics: Arc<PluginMetrics>,
}

/// Data and queues, of one plugin or of several.
#[derive(Debug, Default)]
pub(crate) struct Space {
    data: Mutex<Data>,
    queues: Mutex<Queues>,
}

/// How well a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// It failed so often in a row that it is left alone for a while.
    pub is_disabled: bool,
    /// Failures in a row.
    pub failures: u32,
    /// The last of them; empty before the first.
    pub last_error: String,
}

#[derive(Debug, Default)]
struct Data {
    entries: HashMap<Box<[u8]>, (Bytes, u32)>,
    bytes: usize,
    last_cas: u32,
}

#[derive(Debug, Default)]
struct Queues {
    by_name: HashMap<Box<[u8]>, u32>,
    queues: Vec<Arc<Queue>>,
}

/// A queue between the instances of a plugin.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: Mutex<(VecDeque<Bytes>, usize)>,
    /// One instance that waits for entries is told of each.
    pub(crate) filled: Notify,
}

#[derive(Debug, Default)]
struct Health {
    failures: u32,
    last_at: Option<Instant>,
    retry_at: Option<Instant>,
    last_error: String,
}

/// Why shared data was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotWritten {
    /// Somebody else wrote meanwhile.
    Changed,
    /// There is no room.
    Full,
}

impl Space {
    /// A value and the number of its last change.
    pub(crate) fn data(&self, key: &[u8]) -> Option<(Bytes, u32)> {
        locked(&self.data).entries.get(key).cloned()
    }

    /// Writes a value; unless `cas` is 0, only over the very change that it names.
    pub(crate) fn set_data(&self, key: &[u8], value: &[u8], cas: u32) -> Result<(), NotWritten> {
        let mut data = locked(&self.data);
        let held = data
            .entries
            .get(key)
            .map(|(value, cas)| (value.len(), *cas));
        if cas != 0 && held.is_none_or(|(_, held)| held != cas) {
            return Err(NotWritten::Changed);
        }
        let before = held.map_or(0, |(bytes, _)| key.len() + bytes);
        let bytes = data.bytes - before + key.len() + value.len();
        if bytes > DATA_BYTES_MAX || (held.is_none() && data.entries.len() >= ENTRIES_MAX) {
            return Err(NotWritten::Full);
        }
        data.bytes = bytes;
        data.last_cas = data.last_cas.checked_add(1).unwrap_or(1);
        let entry = (Bytes::copy_from_slice(value), data.last_cas);
        data.entries.insert(key.into(), entry);
        Ok(())
    }

    /// The queue of that name, made on first use; nothing when there are too many or its name is too long.
    pub(crate) fn register_queue(&self, name: &[u8]) -> Option<(u32, Arc<Queue>)> {
        let mut queues = locked(&self.queues);
        let id = match queues.by_name.get(name) {
            Some(id) => *id,
            None if queues.queues.len() >= QUEUES_MAX || name.len() > QUEUE_NAME_BYTES_MAX => {
                return None;
            }
            None => {
                queues.queues.push(Arc::default());
                let id = u32::try_from(queues.queues.len()).ok()?;
                queues.by_name.insert(name.into(), id);
                id
            }
        };
        let queue = queues.queues.get(usize::try_from(id).ok()? - 1)?;
        Some((id, queue.clone()))
    }

    pub(crate) fn queue_id(&self, name: &[u8]) -> Option<u32> {
        locked(&self.queues).by_name.get(name).copied()
    }

    pub(crate) fn queue(&self, id: u32) -> Option<Arc<Queue>> {
        let at = usize::try_from(id).ok()?.checked_sub(1)?;
        locked(&self.queues).queues.get(at).cloned()
    }
}

impl Shared {
    pub(crate) fn new(space: Arc<Space>, metrics: Arc<PluginMetrics>) -> Self {
        Self {
            space,
            health: Mutex::default(),
            metrics,
        }
    }

    /// Somebody changed the plugin: what failed before says nothing of it.
    pub(crate) fn forgive(&self) {
        *locked(&self.health) = Health::default();
        self.metrics.disabled.set_claim(false);
    }

    /// Whether an instance may be made at this moment.
    pub(crate) fn may_start(&self, now: Instant) -> bool {
        let health = locked(&self.health);
        let is_due = health.retry_at.is_none_or(|at| at <= now);
        drop(health);
        if is_due {
            self.metrics.disabled.set_claim(false);
        }
        is_due
    }

    /// Notes that an instance failed; says for how long there is no other, and whether the plugin now
    /// counts as disabled.
    pub(crate) fn failed(
        &self,
        now: Instant,
        kind: PluginFailure,
        error: String,
    ) -> (Duration, bool) {
        self.metrics.failed(kind);
        let mut health = locked(&self.health);
        let is_in_a_row = health.last_at.is_some_and(|at| now < at + ROW_MAX);
        health.failures = match is_in_a_row {
            true => health.failures.saturating_add(1),
            false => 1,
        };
        let pause = match health.failures {
            // One odd request shall cost the others nothing.
            0 | 1 => Duration::ZERO,
            many => (PAUSE * (1 << (many - 2).min(10))).min(PAUSE_MAX),
        };
        health.last_at = Some(now);
        health.retry_at = Some(now + pause);
        health.last_error = error;
        let is_disabled = health.failures >= DISABLED_FROM;
        self.metrics.disabled.set_claim(is_disabled);
        (pause, is_disabled)
    }

    pub(crate) fn condition(&self, now: Instant) -> Condition {
        let health = locked(&self.health);
        let is_paused = health.retry_at.is_some_and(|at| at > now);
        Condition {
            is_disabled: is_paused && health.failures >= DISABLED_FROM,
            failures: health.failures,
            last_error: health.last_error.clone(),
        }
    }
}

impl Queue {
    /// Puts an entry in; false when there is no room.
    pub(crate) fn put(&self, entry: &[u8]) -> bool {
        let mut guard = locked(&self.entries);
        let (entries, bytes) = &mut *guard;
        if entries.len() >= QUEUE_ENTRIES_MAX || *bytes + entry.len() > QUEUE_BYTES_MAX {
            return false;
        }
        *bytes += entry.len();
        entries.push_back(Bytes::copy_from_slice(entry));
        drop(guard);
        self.filled.notify_one();
        true
    }

    pub(crate) fn take(&self) -> Option<Bytes> {
        let mut guard = locked(&self.entries);
        let (entries, bytes) = &mut *guard;
        let entry = entries.pop_front()?;
        *bytes -= entry.len();
        Some(entry)
    }
}

/// Nothing in here is left half done by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared() -> Shared {
        let metrics = dataplane_telemetry::metrics::Metrics::new();
        Shared::new(Arc::default(), metrics.plugin("shop/p"))
    }

    #[test]
    fn data_is_written_over_what_was_read_and_nothing_else() {
        let space = Space::default();
        assert_eq!(space.data(b"k"), None);
        assert_eq!(space.set_data(b"k", b"1", 7), Err(NotWritten::Changed));
        space.set_data(b"k", b"1", 0).unwrap();
        let (value, cas) = space.data(b"k").unwrap();
        assert_eq!(&value[..], b"1");
        space.set_data(b"k", b"2", cas).unwrap();
        assert_eq!(space.set_data(b"k", b"3", cas), Err(NotWritten::Changed));
        assert_eq!(&space.data(b"k").unwrap().0[..], b"2");
    }

    #[test]
    fn data_and_queues_are_bounded() {
        let space = Space::default();
        let megabyte = vec![0; 1024 * 1024];
        let large = (0..10_u8).take_while(|at| space.set_data(&[*at], &megabyte, 0).is_ok());
        assert_eq!(large.count(), 3, "with the keys, four do not fit");
        space.set_data(&[0], b"", 0).unwrap();
        space.set_data(&[9], &megabyte, 0).unwrap();
        let queues = (0..100_u8).take_while(|at| space.register_queue(&[*at]).is_some());
        assert_eq!(queues.count(), QUEUES_MAX);
        let queue = space.queue(1).unwrap();
        assert_eq!(
            (0..2_000).take_while(|_| queue.put(b"")).count(),
            QUEUE_ENTRIES_MAX
        );
        let queue = space.queue(2).unwrap();
        assert_eq!((0..10).take_while(|_| queue.put(&megabyte)).count(), 1);
        assert_eq!(queue.take().unwrap().len(), megabyte.len());
        assert!(queue.put(b"again"));
        assert!(space.queue(0).is_none() && space.queue(99).is_none());
    }

    #[test]
    fn failures_in_a_row_disable_for_a_while_that_grows() {
        let shared = shared();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..6 {
            assert!(shared.may_start(now));
            let (pause, is_disabled) = shared.failed(now, PluginFailure::Trap, "t".to_owned());
            pauses.push((pause.as_millis(), is_disabled));
            now += pause;
        }
        let expected = [0, 100, 200, 400, 800, 1600];
        let expected = expected.map(|pause| (pause, pause >= 800));
        assert_eq!(pauses, expected);
        assert!(shared.condition(now - Duration::from_millis(1)).is_disabled);
        assert!(!shared.may_start(now - Duration::from_millis(1)));
        now += ROW_MAX * 2;
        let (pause, is_disabled) = shared.failed(now, PluginFailure::Trap, "t".to_owned());
        assert_eq!(
            (pause, is_disabled),
            (Duration::ZERO, false),
            "not in a row"
        );
        shared.failed(now, PluginFailure::Trap, "t".to_owned());
        assert!(!shared.may_start(now));
        shared.forgive();
        assert!(shared.may_start(now));
    }
}
