//! Resources by key, in persistent maps.
//!
//! Copying a map and changing one of 40,000 entries costs a few nodes of a tree, not 40,000 clones;
//! comparing two maps walks only what they do not share. That is what makes [`crate::delta`]
//! independent of the size of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use imbl::OrdMap;

/// Something a snapshot holds by key.
pub trait Resource: Clone + fmt::Debug + PartialEq {
    /// The unique key among resources of this type; how it is made is said at the snapshot's field.
    fn key(&self) -> &Arc<str>;
}

/// A shared value that equals itself without a look at what it holds.
///
/// A difference of two maps compares every entry of the nodes that they do not share, most of which
/// are the same values.
#[derive(Debug)]
pub struct Shared<T>(pub Arc<T>);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

/// All resources of one type, by key, in a persistent map.
#[derive(Clone, PartialEq)]
pub struct Resources<T>(OrdMap<Arc<str>, Shared<T>>);

impl<T> Default for Resources<T> {
    fn default() -> Self {
        Self(OrdMap::new())
    }
}

impl<T: Resource> Resources<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The resource of that key.
    pub fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.0.get(key).map(|shared| &shared.0)
    }

    /// Adds or replaces; gives back the one that was there.
    pub fn insert(&mut self, resource: impl Into<Arc<T>>) -> Option<Arc<T>> {
        let resource = resource.into();
        let key = resource.key().clone();
        let former = self.0.insert(key, Shared(resource));
        former.map(|shared| shared.0)
    }

    /// Takes one out.
    pub fn remove(&mut self, key: &str) -> Option<Arc<T>> {
        self.0.remove(key).map(|shared| shared.0)
    }

    /// All of them in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.0.values().map(|shared| &shared.0)
    }

    /// True when both share the same tree, which means equal without looking.
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ptr_eq(&other.0)
    }

    /// What must be done to `self` to get `next`: one [`Change`] per key that differs.
    ///
    /// Walks only the parts of the trees that are not shared.
    pub fn changes<'a>(&'a self, next: &'a Self) -> impl Iterator<Item = Change<'a, T>> {
        self.0.diff(&next.0).map(|item| match item {
            // The map has compared them.
            imbl::ordmap::DiffItem::Add(_, new)
            | imbl::ordmap::DiffItem::Update { new: (_, new), .. } => Change::Upsert(&new.0),
            imbl::ordmap::DiffItem::Remove(_, old) => Change::Remove(&old.0),
        })
    }
}

/// One difference between two sets of resources.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a, T> {
    /// New, or other than before.
    Upsert(&'a Arc<T>),
    /// No longer there; the value is the old one.
    Remove(&'a Arc<T>),
}

impl<T: Resource> FromIterator<T> for Resources<T> {
    fn from_iter<I: IntoIterator<Item = T>>(iter: I) -> Self {
        let mut resources = Self::default();
        for resource in iter {
            resources.insert(resource);
        }
        resources
    }
}

impl<T: fmt::Debug> fmt::Debug for Resources<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.0.iter().map(|(key, shared)| (key, &shared.0));
        f.debug_map().entries(entries).finish()
    }
}

/// Free-form pairs that travel with a resource.
pub type Metadata = BTreeMap<String, String>;
