//! What the process as a whole may carry, and how pressed it is.
//!
//! One [`Overload`] is shared by all workers; each has an [`Inflight`] of its own, which remembers
//! the counts of listeners and routes by name so that no lock is taken once they are known. Both
//! are asked by the limit phase and by the connections; what is off costs nothing. The heaviest
//! HTTP/2 connections of a worker are found here too, because memory that is short needs them gone.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use dataplane_resilience::admission::{Count, OwnedPlace};
use dataplane_resilience::pressure::{Level, SharedLevel};
use dataplane_telemetry::metrics::OverloadMetrics;

/// Names remembered before those that are not in use are forgotten.
const NAMES_MAX: usize = 4096;
/// Streams from which on a connection counts as heavy.
const HEAVY_STREAMS: usize = 10;
/// Of the heavy connections, the share that is ended at once when memory is short.
const HEAVY_ENDED_SHARE: usize = 10;

/// Requests that may be served at once; `None` for no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InflightLimits {
    /// In the whole process.
    pub global: Option<usize>,
    /// On one listener.
    pub listener: Option<usize>,
    /// On one route, on all its listeners.
    pub route: Option<usize>,
}

/// What all workers share. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Overload {
    /// How pressed the process is.
    pub level: SharedLevel,
    /// What overload costs.
    pub metrics: Arc<OverloadMetrics>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    global: Count,
    listeners: Named,
    routes: Named,
}

type Named = Mutex<HashMap<Arc<str>, Arc<Count>>>;

impl Overload {
    /// No one is in, and there is no pressure.
    pub fn new(level: SharedLevel, metrics: Arc<OverloadMetrics>) -> Self {
        Self {
            level,
            metrics,
            shared: Arc::default(),
        }
    }

    /// Routes that have a limit of requests and were asked for, and how many run on each; one that is
    /// gone, as `is_there` says by its name, for as long as any do.
    pub fn routes_inflight(&self, is_there: impl Fn(&str) -> bool) -> Vec<(Arc<str>, usize)> {
        let routes = &self.shared.routes;
        let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = routes
            .iter()
            .map(|(name, count)| (name.clone(), count.current()))
            .filter(|(name, count)| *count > 0 || is_there(name))
            .collect();
        all.sort();
        all
    }

    /// True when no connection shall be kept.
    pub(crate) fn is_saving(&self) -> bool {
        self.level.get() >= Level::Saving
    }

    /// True when no new request shall be taken.
    pub(crate) fn is_shedding(&self) -> bool {
        self.level.get() >= Level::Shedding
    }

    /// Requests of the whole process.
    pub(crate) fn global(&self) -> &Count {
        &self.shared.global
    }
}

/// One worker's way to the counts by name, and its HTTP/2 connections by weight.
#[derive(Debug, Default)]
pub(crate) struct Inflight {
    listeners: Known,
    routes: Known,
    connections: RefCell<Vec<Weak<Weight>>>,
}

type Known = RefCell<HashMap<Arc<str>, Arc<Count>>>;

impl Inflight {
    /// One more request on that listener, unless `limit` run already.
    pub(crate) fn enter_listener(
        &self,
        overload: &Overload,
        name: &Arc<str>,
        limit: usize,
    ) -> Option<OwnedPlace> {
        enter(&self.listeners, &overload.shared.listeners, name, limit)
    }

    /// One more request on that route, unless `limit` run already.
    pub(crate) fn enter_route(
        &self,
        overload: &Overload,
        name: &Arc<str>,
        limit: usize,
    ) -> Option<OwnedPlace> {
        enter(&self.routes, &overload.shared.routes, name, limit)
    }

    /// A place on the scales for an HTTP/2 connection.
    pub(crate) fn weigh(&self) -> Rc<Weight> {
        let weight = Rc::new(Weight::default());
        self.connections.borrow_mut().push(Rc::downgrade(&weight));
        weight
    }

    /// Called about every second: forgets what is gone, and ends the heaviest when memory is short.
    pub(crate) fn tend(&self, overload: &Overload) {
        for known in [&self.listeners, &self.routes] {
            if known.borrow().len() > NAMES_MAX {
                known.borrow_mut().clear();
            }
        }
        let mut connections = self.connections.borrow_mut();
        connections.retain(|weight| weight.strong_count() > 0);
        if !overload.is_saving() {
            return;
        }
        let mut heavy: Vec<_> = connections
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|weight| weight.streams.get() >= HEAVY_STREAMS)
            .collect();
        heavy.sort_unstable_by_key(|weight| std::cmp::Reverse(weight.streams.get()));
        let ended = heavy.len().div_ceil(HEAVY_ENDED_SHARE);
        for weight in heavy.iter().take(ended) {
            overload.metrics.connections_reset.increment();
            weight.end.notify_one();
        }
    }
}

fn enter(known: &Known, shared: &Named, name: &Arc<str>, limit: usize) -> Option<OwnedPlace> {
    if let Some(count) = known.borrow().get(name) {
        return count.enter_owned(Some(limit));
    }
    let count = {
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.len() > NAMES_MAX {
            // Whoever is held by a worker or by a request is still counted by it.
            shared.retain(|_, count| Arc::strong_count(count) > 1);
        }
        Arc::clone(shared.entry(Arc::clone(name)).or_default())
    };
    let place = count.enter_owned(Some(limit));
    known.borrow_mut().insert(Arc::clone(name), count);
    place
}

/// What one HTTP/2 connection holds.
#[derive(Debug, Default)]
pub(crate) struct Weight {
    /// Streams that run.
    pub(crate) streams: Cell<usize>,
    end: Notify,
}

impl Weight {
    /// Waits until the connection shall end at once.
    pub(crate) async fn is_too_much(&self) {
        self.end.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn workers_share_the_counts_of_a_name() {
        let overload = Overload::default();
        let (one, other) = (Inflight::default(), Inflight::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let held = one.enter_route(&overload, &a, 1);
        assert!(held.is_some());
        assert!(other.enter_route(&overload, &a, 1).is_none());
        assert!(other.enter_route(&overload, &b, 1).is_some());
        assert!(
            other.enter_listener(&overload, &a, 1).is_some(),
            "a listener is no route"
        );
        drop(held);
        assert!(other.enter_route(&overload, &a, 1).is_some());
    }

    #[test]
    fn a_route_that_is_gone_is_told_while_requests_run_on_it() {
        let overload = Overload::default();
        let inflight = Inflight::default();
        let (stays, goes): (Arc<str>, Arc<str>) = ("stays".into(), "goes".into());
        drop(inflight.enter_route(&overload, &stays, 1));
        let held = inflight.enter_route(&overload, &goes, 1);
        let told = || overload.routes_inflight(|name| name == "stays");
        assert_eq!(told(), [(goes, 1), (stays.clone(), 0)]);
        drop(held);
        assert_eq!(told(), [(stays, 0)]);
    }

    #[test]
    fn names_are_forgotten_but_not_while_they_are_in_use() {
        let overload = Overload::default();
        let inflight = Inflight::default();
        let used: Arc<str> = "used".into();
        let held = inflight.enter_route(&overload, &used, 1);
        assert!(held.is_some());
        for turn in 0..3 * NAMES_MAX {
            let name = format!("route-{turn}").into();
            assert!(inflight.enter_route(&overload, &name, 1).is_some());
            inflight.tend(&overload);
        }
        let names = overload.shared.routes.lock().map_or(0, |names| names.len());
        assert!(names <= 2 * NAMES_MAX + 2, "{names}");
        assert!(inflight.enter_route(&overload, &used, 1).is_none());
    }

    #[test]
    fn the_heaviest_connections_end_when_memory_is_short_and_not_before() {
        let overload = Overload::default();
        let inflight = Inflight::default();
        let weights: Vec<_> = (0..20)
            .map(|streams| {
                let weight = inflight.weigh();
                weight.streams.set(streams);
                weight
            })
            .collect();
        let ended = || {
            let ended = weights.iter().filter(|weight| {
                let ended = weight.is_too_much().now_or_never();
                ended.is_some()
            });
            ended.map(|weight| weight.streams.get()).collect::<Vec<_>>()
        };
        inflight.tend(&overload);
        assert_eq!(ended(), [0; 0]);
        overload.level.set(Level::Saving);
        inflight.tend(&overload);
        assert_eq!(ended(), [19]);
        assert_eq!(overload.metrics.connections_reset.value(), 1);
    }
}
