//! How many sessions each source has, and which source has the most.
//!
//! A source is what one client is given: an IPv4 address, or the /64 of an IPv6 one. Only the
//! counting is here; `udp_session.rs` decides what follows from it and keeps the lists in order.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::List;

/// What stands for one client.
pub(crate) fn source_of(client: IpAddr) -> u128 {
    match client {
        IpAddr::V4(client) => u128::from(client.to_bits()),
        IpAddr::V6(client) => client.to_bits() >> 64 << 64,
    }
}

/// One source that has sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    key: u128,
    pub(super) count: u32,
    /// Its sessions by standing, each list in the order in which they fell silent.
    pub(super) lists: [List; 2],
}

/// All sources that have sessions.
#[derive(Debug, Default)]
pub(super) struct Sources {
    by_key: HashMap<u128, u32>,
    slots: Vec<Source>,
    free: Vec<u32>,
    /// Those with more than one session: whoever has a single one is never the largest that matters.
    by_count: BTreeSet<(u32, u32)>,
}

impl Sources {
    /// Counts one more session; says where its source is.
    pub(super) fn enter(&mut self, key: u128) -> u32 {
        if let Some(&at) = self.by_key.get(&key) {
            self.recount(at, |count| count + 1);
            return at;
        }
        let source = Source {
            key,
            count: 1,
            lists: [List::EMPTY; 2],
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = source;
                at
            }
            None => {
                self.slots.push(source);
                // There are no more sources than sessions, and those are counted by the same type.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_key.insert(key, at);
        at
    }

    /// Counts one session less; its source is forgotten with the last one.
    pub(super) fn leave(&mut self, at: u32) {
        if self.recount(at, |count| count.saturating_sub(1)) == 0 {
            self.by_key.remove(&self.slots[at as usize].key);
            self.free.push(at);
        }
    }

    pub(super) fn at(&mut self, at: u32) -> Option<&mut Source> {
        self.slots.get_mut(at as usize)
    }

    pub(super) fn of(&self, key: u128) -> Option<Source> {
        let at = *self.by_key.get(&key)?;
        self.slots.get(at as usize).copied()
    }

    /// The source with the most sessions, when it has more than one.
    pub(super) fn largest(&self) -> Option<Source> {
        let (_, at) = *self.by_count.last()?;
        self.slots.get(at as usize).copied()
    }

    fn recount(&mut self, at: u32, change: impl Fn(u32) -> u32) -> u32 {
        let source = &mut self.slots[at as usize];
        let before = source.count;
        source.count = change(before);
        let now = source.count;
        if before > 1 {
            self.by_count.remove(&(before, at));
        }
        if now > 1 {
            self.by_count.insert((now, at));
        }
        now
    }
}
