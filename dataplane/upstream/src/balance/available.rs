//! Which endpoints of a list may be chosen at the moment.
//!
//! One bit per endpoint, turned by whoever learns about its health and read by every choice. While
//! all may be chosen, which is almost always, reading costs one load for the whole list.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// A bit for each of a list's endpoints.
#[derive(Debug)]
pub(crate) struct Available {
    words: Box<[AtomicU64]>,
    len: usize,
    absent: AtomicUsize,
}

impl Available {
    /// All of `len` may be chosen.
    pub(crate) fn all(len: usize) -> Self {
        Self {
            words: (0..len.div_ceil(64))
                .map(|_| AtomicU64::new(u64::MAX))
                .collect(),
            len,
            absent: AtomicUsize::new(0),
        }
    }

    /// Whether all of them may be chosen.
    pub(crate) fn is_complete(&self) -> bool {
        self.absent.load(Ordering::Relaxed) == 0
    }

    /// Whether this one may be chosen.
    pub(crate) fn contains(&self, at: usize) -> bool {
        self.words
            .get(at / 64)
            .is_some_and(|word| word.load(Ordering::Relaxed) & bit(at) != 0)
    }

    /// How many may not be chosen.
    pub(crate) fn absent(&self) -> usize {
        self.absent.load(Ordering::Relaxed)
    }

    /// Turns a bit; true when it was the other way before.
    pub(crate) fn set(&self, at: usize, may_be_chosen: bool) -> bool {
        let Some(word) = self.words.get(at / 64).filter(|_| at < self.len) else {
            return false;
        };
        let before = match may_be_chosen {
            true => word.fetch_or(bit(at), Ordering::Relaxed),
            false => word.fetch_and(!bit(at), Ordering::Relaxed),
        };
        let is_changed = (before & bit(at) != 0) != may_be_chosen;
        match (is_changed, may_be_chosen) {
            (false, _) => {}
            (true, true) => drop(self.absent.fetch_sub(1, Ordering::Relaxed)),
            (true, false) => drop(self.absent.fetch_add(1, Ordering::Relaxed)),
        }
        is_changed
    }
}

fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_turn_one_by_one_and_are_counted() {
        for len in [1, 63, 64, 65, 1000] {
            let available = Available::all(len);
            assert!(available.is_complete());
            for at in 0..len {
                assert!(available.contains(at));
                assert!(available.set(at, false));
                assert!(!available.set(at, false), "turned already");
                assert!(!available.contains(at));
                assert_eq!(available.absent(), at + 1);
            }
            for at in 0..len {
                assert!(available.set(at, true));
            }
            assert!(available.is_complete());
        }
    }

    #[test]
    fn what_is_not_in_the_list_cannot_be_turned() {
        let available = Available::all(3);
        assert!(!available.set(3, false));
        assert!(!available.set(1000, false));
        assert_eq!(available.absent(), 0);
        assert!(!Available::all(0).contains(0));
    }

    #[test]
    fn threads_that_turn_bits_keep_the_count() {
        let available = Available::all(100);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let available = &available;
                scope.spawn(move || {
                    for round in 0..10_000 {
                        available.set((round * 7 + thread) % 100, round % 3 == 0);
                    }
                });
            }
        });
        let absent = (0..100).filter(|at| !available.contains(*at)).count();
        assert_eq!(available.absent(), absent);
    }
}
