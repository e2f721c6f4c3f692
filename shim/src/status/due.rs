//! What must be looked at, and not before when: a queue by time in which each object stands once.
//!
//! [`super::Writer`] asks it many times a second while thousands of objects wait, so no question
//! looks at all of them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::Id;

/// Objects by the time they are due.
#[derive(Default)]
pub(super) struct Due {
    times: BTreeMap<Id, Instant>,
    queue: BTreeSet<(Instant, Id)>,
}

impl Due {
    /// An object is due at that time, or earlier when it was.
    pub(super) fn add(&mut self, id: Id, at: Instant) {
        if self.times.get(&id).is_none_or(|known| *known > at) {
            self.put_off(id, at);
        }
    }

    /// An object is due at that time and not before.
    pub(super) fn put_off(&mut self, id: Id, at: Instant) {
        if let Some(known) = self.times.insert(id.clone(), at) {
            self.queue.remove(&(known, id.clone()));
        }
        self.queue.insert((at, id));
    }

    /// Takes out the object that has been due longest.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Id> {
        if self.first().is_none_or(|at| at > now) {
            return None;
        }
        let (_, id) = self.queue.pop_first()?;
        self.times.remove(&id);
        Some(id)
    }

    /// When the first one is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cluster_view::Kind;

    #[test]
    fn each_object_is_taken_out_once_when_it_is_due() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let id = |name: &str| (Kind::HttpRoute, name.into());
        let mut due = Due::default();
        due.add(id("a"), at(30));
        due.add(id("b"), at(20));
        due.add(id("a"), at(10));
        due.add(id("b"), at(40));
        assert_eq!(due.first(), Some(at(10)));
        assert_eq!(due.pop(at(9)), None);
        assert_eq!(due.pop(at(10)), Some(id("a")));
        due.put_off(id("b"), at(50));
        assert_eq!(due.pop(at(49)), None);
        assert_eq!(due.pop(at(60)), Some(id("b")));
        assert_eq!((due.pop(at(99)), due.first()), (None, None));
    }
}
