//! A persistent map from text: what [`crate::hostname`] and [`crate::table`] are built on.
//!
//! Most maps of a configuration hold a handful of names, where scanning a short list beats any
//! hash and costs no more than its entries; a few hold thousands, where a hash trie keeps both the
//! look-up and the copy on change short. This map is the first up to [`FEW_MAX`] entries and the
//! second beyond. It keeps no order.

use std::sync::Arc;

use foldhash::quality::RandomState;
use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;

/// Longest list before it becomes a trie.
const FEW_MAX: usize = 12;
/// Shortest trie before it becomes a list again; lower, so that an edit does not flip it often.
const MANY_MIN: usize = 6;

/// A map from text to `V` whose clones share what they have in common.
#[derive(Clone)]
pub(crate) enum TextMap<V> {
    Few(Vec<(Arc<str>, V)>),
    Many(GenericHashMap<Arc<str>, V, RandomState, DefaultSharedPtr>),
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
            Self::Many(map) => map.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        match self {
            Self::Few(list) => list
                .iter()
                .find_map(|(name, value)| (**name == *key).then_some(value)),
            Self::Many(map) => map.get(key),
        }
    }
}

impl<V: Clone> TextMap<V> {
    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        match self {
            Self::Few(list) => list
                .iter_mut()
                .find_map(|(name, value)| (**name == *key).then_some(value)),
            Self::Many(map) => map.get_mut(key),
        }
    }

    /// The value under `key`, which is made first when there is none.
    pub(crate) fn get_or_insert_with(
        &mut self,
        key: &Arc<str>,
        make: impl FnOnce() -> V,
    ) -> &mut V {
        if let Self::Few(list) = self
            && list.len() >= FEW_MAX
            && !list.iter().any(|(name, _)| name == key)
        {
            *self = Self::Many(std::mem::take(list).into_iter().collect());
        }
        match self {
            Self::Few(list) => {
                let held = list.iter().position(|(name, _)| name == key);
                let at = held.unwrap_or_else(|| {
                    list.reserve_exact(1);
                    list.push((key.clone(), make()));
                    list.len() - 1
                });
                &mut list[at].1
            }
            Self::Many(map) => map.entry(key.clone()).or_insert_with(make),
        }
    }

    /// Puts `value` under `key` and returns what was there.
    pub(crate) fn insert(&mut self, key: &Arc<str>, value: V) -> Option<V> {
        match self.get_mut(key) {
            Some(held) => Some(std::mem::replace(held, value)),
            None => {
                self.get_or_insert_with(key, || value);
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &str) -> Option<V> {
        match self {
            Self::Few(list) => {
                let at = list.iter().position(|(name, _)| **name == *key)?;
                Some(list.swap_remove(at).1)
            }
            Self::Many(map) => {
                let removed = map.remove(key)?;
                if map.len() < MANY_MIN {
                    *self = Self::Few(std::mem::take(map).into_iter().collect());
                }
                Some(removed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> Arc<str> {
        format!("name-{n}").into()
    }

    #[test]
    fn growing_and_shrinking_keeps_every_entry() {
        let mut map = TextMap::default();
        for n in 0..100 {
            assert_eq!(map.insert(&name(n), n), None);
            assert_eq!(map.len(), n + 1);
            assert!((0..=n).all(|held| map.get(&name(held)) == Some(&held)));
        }
        for n in 0..100 {
            assert_eq!(map.remove(&name(n)), Some(n));
            assert_eq!(map.remove(&name(n)), None);
            assert!((n + 1..100).all(|held| map.get(&name(held)) == Some(&held)));
        }
        assert!(map.is_empty());
    }

    #[test]
    fn inserting_again_replaces() {
        for size in [1, FEW_MAX, FEW_MAX + 1, 50] {
            let mut map: TextMap<usize> = TextMap::default();
            for n in 0..size {
                map.insert(&name(n), n);
            }
            assert_eq!(map.insert(&name(0), 7), Some(0), "{size}");
            *map.get_mut("name-0").unwrap() += 1;
            assert_eq!(map.get("name-0"), Some(&8), "{size}");
            assert_eq!(map.get_mut("other"), None, "{size}");
            assert_eq!(map.len(), size);
        }
    }

    #[test]
    fn a_clone_does_not_see_later_changes() {
        for size in [3, 50] {
            let mut map: TextMap<usize> = TextMap::default();
            for n in 0..size {
                map.insert(&name(n), n);
            }
            let before = map.clone();
            map.insert(&name(0), 9);
            map.remove(&name(1));
            assert_eq!(before.get("name-0"), Some(&0));
            assert_eq!(before.get("name-1"), Some(&1));
        }
    }
}
