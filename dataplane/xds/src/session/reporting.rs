//! When status reports go out: one at a time, after each answer and at a fixed pace.
//!
//! `session.rs` asks; a report that has to wait is kept, and of several that wait the newest with a
//! version wins, so that a slow control plane is never flooded.

use std::time::Duration;

use super::Standing;

#[derive(Debug)]
pub(super) struct Reporting {
    interval: Duration,
    /// When the next periodic report goes out; `None` before the control plane has spoken.
    next: Option<Duration>,
    is_in_flight: bool,
    waiting: Option<Standing>,
}

impl Reporting {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: None,
            is_in_flight: false,
            waiting: None,
        }
    }

    /// The control plane has spoken, so it knows this node and takes reports.
    pub(super) fn start(&mut self, now: Duration) {
        self.next = Some(now + self.interval);
    }

    /// The connection is gone, and with it what was under way.
    pub(super) fn stop(&mut self) {
        *self = Self::new(self.interval);
    }

    /// When a periodic report is due.
    pub(super) fn due(&self) -> Option<Duration> {
        self.next
    }

    /// Returns the report when it may go out now, else keeps it.
    pub(super) fn send(&mut self, now: Duration, standing: Standing) -> Option<Standing> {
        self.next = Some(now + self.interval);
        if !self.is_in_flight {
            self.is_in_flight = true;
            return Some(standing);
        }
        let kept_counts = self
            .waiting
            .as_ref()
            .is_some_and(|kept| kept.version.is_some());
        if standing.version.is_some() || !kept_counts {
            self.waiting = Some(standing);
        }
        None
    }

    /// The one under way is finished; returns the next.
    pub(super) fn finished(&mut self) -> Option<Standing> {
        self.is_in_flight = self.waiting.is_some();
        self.waiting.take()
    }
}
