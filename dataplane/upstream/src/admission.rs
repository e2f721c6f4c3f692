//! How many requests and connections a cluster has at once.
//!
//! The counts belong to the whole process and outlive configurations for as long as the cluster
//! keeps its key; the limits are said at each entrance, because a cluster may have its own and those
//! of the process may differ. Answering is the caller's, and so is waiting: whoever waits for a
//! connection leaves its waker here and is woken when one may be had.

use std::sync::atomic::{AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use dataplane_resilience::admission::{Count, OwnedPlace, Place};

/// What a cluster carries at most; `None` for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run.
    pub requests: Option<usize>,
    /// Connections that are open.
    pub connections: Option<usize>,
    /// Requests that have no connection yet.
    pub pending: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests: Some(1024),
            connections: Some(1024),
            pending: Some(1024),
        }
    }
}

impl Limits {
    /// These limits, with those of the cluster in their place where it has some.
    pub(crate) fn of(self, source: &ir::Cluster) -> Self {
        let wide = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
        let policy = source.policy.as_deref();
        let connections = policy.and_then(|policy| policy.max_connections);
        let pending = policy.and_then(|policy| policy.max_pending_requests);
        Self {
            requests: source.max_inflight_requests.map(wide).or(self.requests),
            connections: connections.map(wide).or(self.connections),
            pending: pending.map(wide).or(self.pending),
        }
    }
}

/// What a cluster carries now.
#[derive(Debug, Default)]
pub struct Admission {
    requests: Count,
    connections: Arc<Count>,
    pending: Count,
    /// Those of the pending that wait for others to give up a connection.
    waiting: AtomicUsize,
    wakers: Mutex<Vec<Waker>>,
}

impl Admission {
    /// One more request, unless the limit is reached.
    pub fn request(&self, limits: &Limits) -> Option<Place<'_>> {
        self.requests.enter(limits.requests)
    }

    /// As [`Self::request`], for what outlives the configuration it began with.
    pub fn request_owned(self: &Arc<Self>, limits: &Limits) -> Option<RequestPlace> {
        self.requests.enter(limits.requests)?.keep();
        Some(RequestPlace(Arc::clone(self)))
    }

    /// One more request without a connection, unless the limit is reached.
    pub fn pending(&self, limits: &Limits) -> Option<Place<'_>> {
        self.pending.enter(limits.pending)
    }

    /// One more connection, unless the limit is reached.
    pub fn connection(self: &Arc<Self>, limits: &Limits) -> Option<ConnectionPlace> {
        let place = self.connections.enter_owned(limits.connections)?;
        Some(ConnectionPlace {
            place: Some(place),
            admission: Arc::clone(self),
        })
    }

    /// Counts somebody as waiting for a connection until the guard is dropped.
    pub fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(self)
    }

    /// How many wait for a connection.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Wakes whoever waits; some may wait again.
    pub fn wake(&self) {
        // Pairs with that of whoever registers: one of the two sees what the other did.
        fence(Ordering::SeqCst);
        if self.waiting() > 0 {
            let wakers = std::mem::take(&mut *self.wakers());
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Requests that run.
    pub fn requests_active(&self) -> usize {
        self.requests.current()
    }

    /// Connections that are open.
    pub fn connections_active(&self) -> usize {
        self.connections.current()
    }

    /// Requests that have no connection yet.
    pub fn requests_pending(&self) -> usize {
        self.pending.current()
    }

    fn wakers(&self) -> std::sync::MutexGuard<'_, Vec<Waker>> {
        self.wakers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody waits; see [`Admission::wait`].
#[derive(Debug)]
#[must_use = "whoever drops it waits no more"]
pub struct Waiting<'a>(&'a Admission);

impl Waiting<'_> {
    /// Leaves the waker to be woken when a connection may be had; to be looked for again afterwards,
    /// so that none is missed that came free meanwhile.
    pub fn register(&self, waker: &Waker) {
        let mut wakers = self.0.wakers();
        if !wakers.iter().any(|known| known.will_wake(waker)) {
            wakers.push(waker.clone());
        }
        drop(wakers);
        fence(Ordering::SeqCst);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
            let mut wakers = self.0.wakers();
            // Whoever came meanwhile was counted before the waker was left here.
            if self.0.waiting() == 0 {
                wakers.clear();
            }
        }
    }
}

/// One request of a cluster; dropping it makes room.
#[derive(Debug)]
#[must_use = "the request counts as running only while this is held"]
pub struct RequestPlace(Arc<Admission>);

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.0.requests.leave();
    }
}

/// One connection of a cluster; dropping it makes room and wakes who waits.
#[derive(Debug)]
#[must_use = "the connection counts as open only while this is held"]
pub struct ConnectionPlace {
    place: Option<OwnedPlace>,
    admission: Arc<Admission>,
}

impl ConnectionPlace {
    /// Whether somebody waits for such a place.
    pub fn is_wanted(&self) -> bool {
        self.admission.waiting() > 0
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.place = None;
        self.admission.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::task::Wake;

    use super::*;

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[test]
    fn whoever_waits_is_woken_when_a_connection_ends() {
        let admission = Arc::new(Admission::default());
        let limits = Limits {
            connections: Some(1),
            ..Limits::default()
        };
        let held = admission.connection(&limits).unwrap();
        assert!(admission.connection(&limits).is_none());
        assert!(!held.is_wanted());
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waiting = admission.wait();
        waiting.register(&flag.clone().into());
        assert!(held.is_wanted());
        drop(held);
        assert!(flag.0.load(Ordering::SeqCst));
        let again = admission.connection(&limits);
        assert!(again.is_some());
        drop((waiting, again));
        assert_eq!(
            (admission.waiting(), admission.connections_active()),
            (0, 0)
        );
    }

    #[test]
    fn requests_that_are_kept_count_with_the_others() {
        let admission = Arc::new(Admission::default());
        let limits = Limits {
            requests: Some(2),
            ..Limits::default()
        };
        let borrowed = admission.request(&limits);
        let owned = admission.request_owned(&limits);
        assert!(borrowed.is_some() && owned.is_some());
        assert!(admission.request(&limits).is_none() && admission.request_owned(&limits).is_none());
        drop(owned);
        assert_eq!(admission.requests_active(), 1);
        drop(borrowed);
        assert_eq!(admission.requests_active(), 0);
    }

    #[test]
    fn wakers_do_not_pile_up() {
        let admission = Admission::default();
        let waker = Waker::from(Arc::new(Flag(AtomicBool::new(false))));
        let waiting = admission.wait();
        (0..1000).for_each(|_| waiting.register(&waker));
        assert_eq!(admission.wakers().len(), 1);
        drop(waiting);
        assert!(admission.wakers().is_empty());
    }
}
