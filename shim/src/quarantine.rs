//! Objects that a data plane refuses are left out of the snapshot, so that they hurt no other.
//!
//! A NACK refuses a whole snapshot, but names the objects at fault. `serve/stream.rs` hands them in
//! ([`Quarantine::refused`]), `pipeline.rs` publishes without them and tries them again when their
//! time has come. What is left out, and for how long, is decided by [`ward`], which reads no clock;
//! here are the lock, the clock and the wake-up. An object that one data plane refuses is left out
//! for all of them: there is one snapshot.

mod ward;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ir::Snapshot;
use tokio::sync::Notify;
use tokio::time::Instant;

use self::ward::Ward;
pub use self::ward::{Fault, Kept, Nack, OBJECTS_MAX, RETRY_MAX};
use crate::nodes::NodeViolation;
use crate::translate::Refused;

/// What is left out of the snapshot, shared by the streams and the pipeline.
#[derive(Debug)]
pub struct Quarantine {
    ward: Mutex<Ward>,
    changed: Notify,
}

impl Quarantine {
    /// Nothing is left out yet; what will be is tried again after `retry_after`, then ever later.
    pub fn new(retry_after: Duration) -> Self {
        Self {
            ward: Mutex::new(Ward::new(retry_after)),
            changed: Notify::new(),
        }
    }

    /// A node refused this snapshot because of these violations; true when a snapshot without the
    /// objects at fault will follow, so that this one need not be pushed again.
    pub fn refused(
        &self,
        node_id: &str,
        snapshot: &Snapshot,
        violations: &[NodeViolation],
        nack: Nack,
    ) -> bool {
        let believed = self
            .lock()
            .refused(node_id, snapshot, violations, nack, Instant::now());
        if believed {
            self.changed.notify_one();
        }
        believed
    }

    /// A node serves this snapshot, with all that is in it.
    pub fn served(&self, node_id: &str, snapshot: &Snapshot) {
        if self.lock().served(node_id, snapshot) {
            self.changed.notify_one();
        }
    }

    /// True while an object is tried again and an answer is awaited.
    pub fn is_trying(&self) -> bool {
        self.lock().is_trying()
    }

    /// Completes after something changed by a data plane's doing.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// When time changes something.
    pub fn next_change(&self) -> Option<Instant> {
        self.lock().next_change()
    }

    /// Brings the list up to date with what the objects are by now, and with the time; gives what
    /// is to be left out of `wanted` and what is to be shown.
    pub fn settle(&self, wanted: &Snapshot) -> (Vec<Refused>, Vec<Kept>) {
        let now = Instant::now();
        let mut ward = self.lock();
        ward.settle(wanted, now);
        (ward.list(), ward.kept(now))
    }

    fn lock(&self) -> MutexGuard<'_, Ward> {
        self.ward.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
