//! A persistent map from text: what [`crate::hostname`] and [`crate::table`] are built on.
//!
//! Most maps of a configuration hold a handful of names, where scanning a short list beats any
//! hash; a few hold thousands. Those are split by hash into shards, each a flat hash table behind an
//! `Arc`: a look-up reads one slot and one entry in places that lie close together, a clone shares
//! all shards, and a change copies the list of shards and one shard. The hash has a random key, so
//! that nobody outside can choose names that collide. The map keeps no order.

mod shard;
mod text;

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use foldhash::quality::RandomState;

use self::shard::Shard;
pub(crate) use self::text::Text;

/// Longest list before it is split into shards.
const FEW_MAX: usize = 4;
/// Fewest entries in shards before they become a list again; lower, so that an edit does not flip
/// it often.
const MANY_MIN: usize = 3;
/// Entries per shard on average, beyond which there are twice as many shards. At 40,000 entries a
/// change copies 512 pointers and 80 entries.
const SHARD_ENTRIES_MAX: usize = 128;

/// A map from text to `V` whose clones share what they have in common.
#[derive(Clone)]
pub(crate) enum TextMap<V> {
    Few(Vec<Entry<V>>),
    Many(Shards<V>),
}

#[derive(Clone)]
pub(crate) struct Entry<V> {
    key: Text,
    value: V,
}

impl<V> Default for TextMap<V> {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl<V> TextMap<V> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(shards) => shards.len,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        let key = key.as_bytes();
        match self {
            Self::Few(list) => list
                .iter()
                .find_map(|entry| (entry.key == *key).then_some(&entry.value)),
            Self::Many(shards) => shards.get(key),
        }
    }

    /// All values, in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list), None),
            Self::Many(shards) => (None, Some(shards)),
        };
        let few = few.into_iter().flatten();
        let many = many.into_iter().flat_map(|shards| shards.entries());
        few.chain(many).map(|entry| &entry.value)
    }

    /// The value of the only entry; nothing when there are several or none.
    pub(crate) fn only(&self) -> Option<&V> {
        match self {
            Self::Few(list) => match &list[..] {
                [entry] => Some(&entry.value),
                _ => None,
            },
            Self::Many(_) => None,
        }
    }
}

impl<V: Clone> TextMap<V> {
    pub(crate) fn get_mut(&mut self, key: &Text) -> Option<&mut V> {
        let key = key.as_bytes();
        match self {
            Self::Few(list) => list
                .iter_mut()
                .find_map(|entry| (entry.key == *key).then_some(&mut entry.value)),
            Self::Many(shards) => shards.get_mut(key),
        }
    }

    /// The value under `key`, which is made first when there is none.
    pub(crate) fn get_or_insert_with(&mut self, key: &Text, make: impl FnOnce() -> V) -> &mut V {
        let held = match self {
            Self::Few(list) => list.iter().position(|entry| entry.key == *key.as_bytes()),
            Self::Many(shards) => return shards.get_or_insert_with(key, make),
        };
        if let Self::Few(list) = self
            && list.len() >= FEW_MAX
            && held.is_none()
        {
            *self = Self::Many(Shards::new(std::mem::take(list)));
        }
        match self {
            Self::Few(list) => {
                let at = held.unwrap_or_else(|| {
                    list.reserve_exact(1);
                    list.push(Entry {
                        key: key.clone(),
                        value: make(),
                    });
                    list.len() - 1
                });
                &mut list[at].value
            }
            Self::Many(shards) => shards.get_or_insert_with(key, make),
        }
    }

    /// Puts `value` under `key` and returns what was there.
    pub(crate) fn insert(&mut self, key: &Text, value: V) -> Option<V> {
        match self.get_mut(key) {
            Some(held) => Some(std::mem::replace(held, value)),
            None => {
                self.get_or_insert_with(key, || value);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &Text) -> Option<V> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|entry| entry.key == *key.as_bytes())?;
                Some(list.swap_remove(at).value)
            }
            Self::Many(shards) => {
                let removed = shards.remove(key.as_bytes())?;
                if shards.len < MANY_MIN {
                    *self = Self::Few(shards.entries().cloned().collect());
                }
                Some(removed)
            }
        }
    }
}

/// Entries split by hash.
#[derive(Clone)]
pub(crate) struct Shards<V> {
    /// A power of two.
    shards: Arc<[Arc<Shard<V>>]>,
    len: usize,
    hasher: Hasher,
}

impl<V> Shards<V> {
    fn new(entries: Vec<Entry<V>>) -> Self {
        let hasher = Hasher::default();
        Self {
            len: entries.len(),
            shards: Arc::new([Arc::new(Shard::new(entries, &hasher))]),
            hasher,
        }
    }

    fn get(&self, key: &[u8]) -> Option<&V> {
        let hash = self.hasher.hash(key);
        self.shards[shard_of(hash, self.shards.len())].get(hash, key)
    }

    fn entries(&self) -> impl Iterator<Item = &Entry<V>> {
        self.shards.iter().flat_map(|shard| shard.entries())
    }
}

impl<V: Clone> Shards<V> {
    fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        let hash = self.hasher.hash(key);
        // Nothing is copied for a key that is not there.
        self.shards[shard_of(hash, self.shards.len())].get(hash, key)?;
        self.shard_mut(hash).get_mut(hash, key)
    }

    fn get_or_insert_with(&mut self, key: &Text, make: impl FnOnce() -> V) -> &mut V {
        let hash = self.hasher.hash(key.as_bytes());
        let shard = &self.shards[shard_of(hash, self.shards.len())];
        if shard.get(hash, key.as_bytes()).is_none() {
            self.len += 1;
            if self.len > self.shards.len() * SHARD_ENTRIES_MAX {
                self.split(self.shards.len() * 2);
            }
            let entry = Entry {
                key: key.clone(),
                value: make(),
            };
            let hasher = self.hasher.clone();
            return self.shard_mut(hash).push(hash, entry, &hasher);
        }
        let place = self.shard_mut(hash).get_mut(hash, key.as_bytes());
        place.expect("it has just been found")
    }

    fn remove(&mut self, key: &[u8]) -> Option<V> {
        let hash = self.hasher.hash(key);
        self.shards[shard_of(hash, self.shards.len())].get(hash, key)?;
        let hasher = self.hasher.clone();
        let removed = self.shard_mut(hash).remove(hash, key, &hasher)?;
        self.len -= 1;
        // An eighth full: far enough from the half that doubling leaves.
        if self.shards.len() > 1 && self.len < self.shards.len() * (SHARD_ENTRIES_MAX / 8) {
            self.split(self.shards.len() / 2);
        }
        Some(removed)
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<V> {
        let at = shard_of(hash, self.shards.len());
        Arc::make_mut(&mut Arc::make_mut(&mut self.shards)[at])
    }

    /// Splits all entries anew into `count` shards.
    fn split(&mut self, count: usize) {
        let mut parts: Vec<Vec<Entry<V>>> = (0..count).map(|_| Vec::new()).collect();
        for entry in self.entries() {
            let hash = self.hasher.hash(entry.key.as_bytes());
            parts[shard_of(hash, count)].push(entry.clone());
        }
        self.shards = parts
            .into_iter()
            .map(|entries| Arc::new(Shard::new(entries, &self.hasher)))
            .collect();
    }
}

/// The shard among `count`, a power of two: by the highest bits, which choose no slot.
fn shard_of(hash: u64, count: usize) -> usize {
    ((hash >> 48) as usize) & (count - 1)
}

/// A hash with a random key, the same for a map and its clones.
#[derive(Clone, Default)]
struct Hasher(RandomState);

impl Hasher {
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests;
