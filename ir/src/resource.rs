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

/// Free-form pairs that travel with a resource, by name.
///
/// Most resources have none or one of them. They stand in order in one place that is just as large
/// as they are: a map of the standard library has room for eleven from the first one on.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Metadata(Box<[(Box<str>, Box<str>)]>);

impl Metadata {
    /// No pairs.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(held, _)| (**held).cmp(name));
        Some(&self.0[at.ok()?].1)
    }

    /// All pairs in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Adds a pair, or replaces the value of that name.
    pub fn insert(&mut self, name: String, value: String) {
        self.extend([(name, value)]);
    }

    /// Takes all pairs out.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The same as a map of the standard library.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }
}

impl From<BTreeMap<String, String>> for Metadata {
    fn from(map: BTreeMap<String, String>) -> Self {
        // A map gives its entries in order, and each name once.
        let pairs = map.into_iter();
        Self(
            pairs
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

impl<const N: usize> From<[(String, String); N]> for Metadata {
    fn from(pairs: [(String, String); N]) -> Self {
        pairs.into_iter().collect()
    }
}

impl FromIterator<(String, String)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        BTreeMap::from_iter(pairs).into()
    }
}

impl Extend<(String, String)> for Metadata {
    fn extend<I: IntoIterator<Item = (String, String)>>(&mut self, pairs: I) {
        let mut all = self.to_map();
        all.extend(pairs);
        *self = all.into();
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn pairs_are_found_by_name_and_the_last_of_a_name_counts() {
        let mut metadata = Metadata::from([pair("b", "2"), pair("a", "1"), pair("b", "3")]);
        assert_eq!(
            metadata.iter().collect::<Vec<_>>(),
            [("a", "1"), ("b", "3")]
        );
        metadata.insert("0".to_owned(), "0".to_owned());
        metadata.insert("a".to_owned(), String::new());
        for (name, expected) in [
            ("0", Some("0")),
            ("a", Some("")),
            ("b", Some("3")),
            ("", None),
            ("c", None),
        ] {
            assert_eq!(metadata.get(name), expected, "{name}");
        }
        assert_eq!(Metadata::from(metadata.to_map()), metadata);
        assert_eq!((metadata.len(), metadata.is_empty()), (3, false));
        metadata.clear();
        assert_eq!(metadata, Metadata::new());
    }
}
