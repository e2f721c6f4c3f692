//! One part of a large [`super::TextMap`]: a flat hash table of some dozens of entries.
//!
//! Entries stand side by side; a table of small numbers says where. A number tells the place of its
//! entry and, in the bits that are left, a piece of the hash, so that hardly ever an entry is read
//! that is not the right one. Linear probing, never more than half full. Nothing is shared here:
//! the map shares whole shards and copies one to change it.

use super::{Entry, Hasher};

/// Fewest slots of a shard with entries.
const SLOTS_MIN: usize = 16;
/// A slot that leads nowhere. No used slot equals it, since at most half of the places it could
/// tell exist.
const UNUSED: u32 = u32::MAX;

/// Entries of one shard.
#[derive(Clone)]
pub(super) struct Shard<V> {
    /// A power of two, at least twice the number of entries: place in the low bits, as many as it
    /// takes to number the slots; a piece of the hash in the others.
    slots: Box<[u32]>,
    entries: Vec<Entry<V>>,
}

impl<V> Shard<V> {
    pub(super) fn new(entries: Vec<Entry<V>>, hasher: &Hasher) -> Self {
        let mut shard = Self {
            slots: Box::default(),
            entries,
        };
        shard.fill_slots(hasher);
        shard
    }

    pub(super) fn entries(&self) -> &[Entry<V>] {
        &self.entries
    }

    pub(super) fn get(&self, hash: u64, key: &[u8]) -> Option<&V> {
        self.place(hash, key)
            .map(|place| &self.entries[place].value)
    }

    pub(super) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut V> {
        let place = self.place(hash, key)?;
        Some(&mut self.entries[place].value)
    }

    /// Puts an entry in whose key is not there.
    pub(super) fn push(&mut self, hash: u64, entry: Entry<V>, hasher: &Hasher) -> &mut V {
        let place = self.entries.len();
        self.entries.push(entry);
        if self.entries.len() * 2 > self.slots.len() {
            self.fill_slots(hasher);
        } else {
            self.fill_slot(hash, place);
        }
        &mut self.entries[place].value
    }

    pub(super) fn remove(&mut self, hash: u64, key: &[u8], hasher: &Hasher) -> Option<V> {
        let place = self.place(hash, key)?;
        let removed = self.entries.swap_remove(place);
        self.fill_slots(hasher);
        Some(removed.value)
    }

    fn place(&self, hash: u64, key: &[u8]) -> Option<usize> {
        let mask = self.slots.len().checked_sub(1)?;
        let place_bits = low_bits(mask as u64);
        let mut at = first_slot(hash) & mask;
        loop {
            let slot = self.slots[at];
            if (slot ^ low_bits(hash)) & !place_bits == 0 {
                let place = (slot & place_bits) as usize;
                if let Some(entry) = self.entries.get(place)
                    && entry.key == *key
                {
                    return Some(place);
                }
            }
            if slot == UNUSED {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn fill_slots(&mut self, hasher: &Hasher) {
        let len = (self.entries.len() * 2).next_power_of_two().max(SLOTS_MIN);
        self.slots = vec![UNUSED; len].into();
        for place in 0..self.entries.len() {
            let hash = hasher.hash(self.entries[place].key.as_bytes());
            self.fill_slot(hash, place);
        }
    }

    fn fill_slot(&mut self, hash: u64, place: usize) {
        let mask = self.slots.len() - 1;
        let mut at = first_slot(hash) & mask;
        while self.slots[at] != UNUSED {
            at = (at + 1) & mask;
        }
        let place_bits = low_bits(mask as u64);
        self.slots[at] = (low_bits(hash) & !place_bits) | low_bits(place as u64);
    }
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self {
            slots: Box::default(),
            entries: Vec::new(),
        }
    }
}

/// Where probing begins. Other bits of the hash than those in the slots, and mostly others than
/// those that chose the shard.
fn first_slot(hash: u64) -> usize {
    low_bits(hash >> 32) as usize
}

fn low_bits(number: u64) -> u32 {
    (number & 0xffff_ffff) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_map::Text;

    fn entry(n: usize) -> Entry<usize> {
        Entry {
            key: Text::from(n.to_string().as_str()),
            value: n,
        }
    }

    /// Whoever guesses the seed makes look-ups slow, never wrong or endless.
    #[test]
    fn keys_of_one_hash_are_all_found() {
        for hash in [0, u64::MAX, 0x0123_4567_89ab_cdef] {
            let hasher = Hasher::default();
            let mut shard = Shard::new(Vec::new(), &hasher);
            for n in 0..8 {
                *shard.push(hash, entry(n), &hasher) += 1;
            }
            for n in 0..8 {
                assert_eq!(shard.get(hash, n.to_string().as_bytes()), Some(&(n + 1)));
            }
            assert_eq!(shard.get(hash, b"8"), None);
        }
    }

    #[test]
    fn a_shard_has_no_largest_size() {
        let hasher = Hasher::default();
        let mut shard = Shard::new((0..70_000).map(entry).collect(), &hasher);
        let find = |shard: &Shard<usize>, n: usize| {
            let key = n.to_string();
            shard
                .get(hasher.hash(key.as_bytes()), key.as_bytes())
                .copied()
        };
        assert!((0..70_000).all(|n| find(&shard, n) == Some(n)));
        assert_eq!(find(&shard, 70_000), None);
        assert_eq!(shard.remove(hasher.hash(b"7"), b"7", &hasher), Some(7));
        assert_eq!(find(&shard, 7), None);
        assert_eq!(find(&shard, 69_999), Some(69_999));
    }
}
