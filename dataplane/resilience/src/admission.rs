//! A gate that lets in no more at once than its limit.
//!
//! Used for connections, requests and pending work: whoever enters holds a [`Permit`], and dropping
//! it is leaving, so no way out is forgotten. Nobody waits at the gate; what to answer to the one
//! turned away is the caller's decision. [`Count`] is told its limit at each entrance, [`Clients`]
//! has one per client address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

mod clients;
mod count;

pub use clients::{ClientPlace, Clients};
pub use count::{Count, OwnedPlace, Place};

/// Counts who is in and turns away whoever would be one too many. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    current: AtomicUsize,
    /// `usize::MAX` stands for no limit.
    limit: AtomicUsize,
}

/// One place behind a [`Gate`]; dropping it leaves.
#[derive(Debug)]
pub struct Permit {
    state: Arc<State>,
}

impl Gate {
    /// A gate for `limit` at once; none means any number.
    pub fn new(limit: Option<usize>) -> Self {
        Self {
            state: Arc::new(State {
                current: AtomicUsize::new(0),
                limit: AtomicUsize::new(limit.unwrap_or(usize::MAX)),
            }),
        }
    }

    /// Enters, unless the limit is reached.
    pub fn enter(&self) -> Option<Permit> {
        // Pairs with the release of leaving: what was done behind the gate before someone left is
        // seen by whoever takes the place.
        self.state
            .current
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |current| {
                let limit = self.state.limit.load(Ordering::Relaxed);
                (current < limit).then(|| current + 1)
            })
            .ok()?;
        Some(Permit {
            state: self.state.clone(),
        })
    }

    /// How many are in.
    pub fn current(&self) -> usize {
        self.state.current.load(Ordering::Relaxed)
    }

    /// True when nobody more may enter.
    pub fn is_full(&self) -> bool {
        self.current() >= self.state.limit.load(Ordering::Relaxed)
    }

    /// How many may be in at once.
    pub fn limit(&self) -> Option<usize> {
        let limit = self.state.limit.load(Ordering::Relaxed);
        (limit != usize::MAX).then_some(limit)
    }

    /// Changes the limit from the next one on; nobody inside is sent out.
    pub fn set_limit(&self, limit: Option<usize>) {
        self.state
            .limit
            .store(limit.unwrap_or(usize::MAX), Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.state.current.fetch_sub(1, Ordering::Release);
        debug_assert!(before > 0, "every permit was counted when it entered");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn entering_stops_at_the_limit_and_leaving_makes_room() {
        for limit in [0, 1, 3] {
            let gate = Gate::new(Some(limit));
            let mut permits: Vec<Permit> = (0..limit).filter_map(|_| gate.enter()).collect();
            assert_eq!((permits.len(), gate.current()), (limit, limit));
            assert!(gate.enter().is_none());
            if permits.pop().is_some() {
                assert_eq!(gate.current(), limit - 1);
                assert!(gate.enter().is_some());
            }
            drop(permits);
            assert_eq!(gate.current(), 0);
        }
    }

    #[test]
    fn without_a_limit_everyone_enters() {
        let gate = Gate::new(None);
        let permits: Vec<Permit> = (0..10_000).filter_map(|_| gate.enter()).collect();
        assert_eq!((permits.len(), gate.current()), (10_000, 10_000));
        assert_eq!(gate.limit(), None);
    }

    #[test]
    fn a_changed_limit_holds_from_the_next_one_on() {
        let gate = Gate::new(Some(2));
        let permits = [gate.enter(), gate.enter()];
        gate.set_limit(Some(1));
        assert_eq!((gate.limit(), gate.current()), (Some(1), 2));
        assert!(gate.enter().is_none());
        let [first, second] = permits;
        drop(first);
        assert!(gate.enter().is_none());
        drop(second);
        let permit = gate.enter();
        assert!(permit.is_some());
        assert!(gate.enter().is_none());
        gate.set_limit(None);
        assert!(gate.enter().is_some());
    }

    #[test]
    fn clones_are_the_same_gate() {
        let gate = Gate::new(Some(1));
        let same = gate.clone();
        let permit = same.enter();
        assert!(permit.is_some());
        assert!(gate.enter().is_none());
    }

    #[test]
    fn a_permit_outlives_its_gate() {
        let gate = Gate::new(Some(1));
        let permit = gate.enter();
        drop(gate);
        drop(permit);
    }

    /// Threads come and go while the limit changes among `limits`; returns the most that were
    /// counted inside at once by a counter of its own.
    fn rush(gate: &Gate, limits: &[usize]) -> usize {
        const THREADS: usize = 8;
        let inside = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let start = Barrier::new(THREADS + 1);
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    for turn in 0..5_000 {
                        let Some(permit) = gate.enter() else {
                            std::hint::spin_loop();
                            continue;
                        };
                        most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        if turn % 16 == 0 {
                            std::thread::yield_now();
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(permit);
                    }
                });
            }
            start.wait();
            for limit in limits.iter().cycle().take(200) {
                gate.set_limit(Some(*limit));
                std::thread::yield_now();
            }
        });
        most.into_inner()
    }

    #[test]
    fn many_threads_never_exceed_the_limit() {
        for limit in [1, 2, 5] {
            let gate = Gate::new(Some(limit));
            let most = rush(&gate, &[limit]);
            assert!((1..=limit).contains(&most), "{most} of {limit}");
            assert_eq!(gate.current(), 0);
        }
    }

    #[test]
    fn many_threads_never_exceed_the_highest_of_changing_limits() {
        let gate = Gate::new(Some(3));
        let most = rush(&gate, &[1, 3, 0, 2, 3]);
        assert!(most <= 3, "{most}");
        assert_eq!(gate.current(), 0);
    }
}
