//! A count whose limit is said at each entrance.
//!
//! For limits that belong to a configuration while the count outlives it, and for the path of every
//! request: entering and leaving are one atomic operation each, because the place borrows its count
//! instead of sharing it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts who is in.
#[derive(Debug, Default)]
pub struct Count(AtomicUsize);

/// One place in a [`Count`]; dropping it leaves.
#[derive(Debug)]
#[must_use = "whoever drops the place has left"]
pub struct Place<'a>(&'a Count);

/// As [`Place`], for what outlives the borrow.
#[derive(Debug)]
#[must_use = "whoever drops the place has left"]
pub struct OwnedPlace(Arc<Count>);

impl Count {
    /// Enters, unless `limit` are in already; none means any number.
    pub fn enter(&self, limit: Option<usize>) -> Option<Place<'_>> {
        self.take(limit).then(|| Place(self))
    }

    /// As [`Self::enter`].
    pub fn enter_owned(self: &Arc<Self>, limit: Option<usize>) -> Option<OwnedPlace> {
        self.take(limit).then(|| OwnedPlace(Arc::clone(self)))
    }

    /// Gives back a place that was kept, see [`Place::keep`].
    pub fn leave(&self) {
        let before = self.0.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "every place was counted when it was taken");
    }

    /// How many are in.
    pub fn current(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whoever comes while another one is on its way out again may be turned away for it; nobody
    /// is ever let in above the limit.
    fn take(&self, limit: Option<usize>) -> bool {
        let before = self.0.fetch_add(1, Ordering::Acquire);
        let is_in = limit.is_none_or(|limit| before < limit);
        if !is_in {
            self.leave();
        }
        is_in
    }
}

impl Place<'_> {
    /// Keeps the place beyond the borrow; whoever does so gives it back by [`Count::leave`].
    pub fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for OwnedPlace {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entering_stops_at_the_limit_said_and_leaving_makes_room() {
        let count = Arc::new(Count::default());
        let first = count.enter(Some(2));
        let second = count.enter_owned(Some(2));
        assert!(first.is_some() && second.is_some());
        assert!(count.enter(Some(2)).is_none() && count.enter_owned(Some(1)).is_none());
        assert!(count.enter(Some(3)).is_some(), "the limit is the caller's");
        assert!(count.enter(None).is_some());
        drop(first);
        assert!(count.enter(Some(2)).is_some());
        drop(second);
        assert_eq!(count.current(), 0);
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        let count = Count::default();
        let inside = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..5_000 {
                        let Some(place) = count.enter(Some(3)) else {
                            std::thread::yield_now();
                            continue;
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(place);
                    }
                });
            }
        });
        assert!((1..=3).contains(&most.into_inner()));
        assert_eq!(count.current(), 0);
    }
}
