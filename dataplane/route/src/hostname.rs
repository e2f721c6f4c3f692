//! A map from host names, exact and wildcard, to anything; looked up from specific to general.
//!
//! [`crate::table`] keeps its routes by host in one; whoever needs "the best host name for this
//! host" may use it too. What makes a name valid is `ir::Hostname`; here a wildcard covers one or
//! more labels, as Gateway API says. Hosts are given in lower case, without port or trailing dot.

use std::fmt;

use ir::Hostname;

use crate::text_map::TextMap;

/// Values by host name. Clones are cheap and share what they have in common.
///
/// A name of `None` stands for any host, the least specific of all.
#[derive(Clone)]
pub struct HostMap<T> {
    exact: TextMap<T>,
    /// By the name behind `*.`.
    wildcard: TextMap<T>,
    any: Option<T>,
}

/// Longest host that is looked up, in bytes: no longer name can be configured (RFC 1035 2.3.4), and
/// without this bound a long host of many labels would cost the square of its length.
const HOST_BYTES_MAX: usize = 253;

impl<T> Default for HostMap<T> {
    fn default() -> Self {
        Self {
            exact: TextMap::default(),
            wildcard: TextMap::default(),
            any: None,
        }
    }
}

impl<T> HostMap<T> {
    /// Number of names, "any" included.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len() + usize::from(self.any.is_some())
    }

    /// True when no name is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of the most specific name that covers `host`.
    pub fn best(&self, host: &str) -> Option<&T> {
        self.candidates(host).next()
    }

    /// The values of all names that cover `host`, from most specific to least: the exact name, the
    /// longest wildcard, shorter ones, any. Allocates nothing.
    pub fn candidates<'a, 'h>(&'a self, host: &'h str) -> Candidates<'a, 'h, T> {
        let step = if host.len() > HOST_BYTES_MAX {
            Step::Any
        } else {
            Step::Exact
        };
        Candidates {
            map: self,
            host,
            step,
        }
    }

    /// The value held under exactly this name.
    pub fn get(&self, name: Option<&Hostname>) -> Option<&T> {
        match Place::of(name) {
            Place::Exact(name) => self.exact.get(name),
            Place::Wildcard(suffix) => self.wildcard.get(suffix),
            Place::Any => self.any.as_ref(),
        }
    }
}

impl<T: Clone> HostMap<T> {
    /// As [`HostMap::get`], to change it; what clones share is copied first.
    pub fn get_mut(&mut self, name: Option<&Hostname>) -> Option<&mut T> {
        match Place::of(name) {
            Place::Exact(name) => self.exact.get_mut(&name.into()),
            Place::Wildcard(suffix) => self.wildcard.get_mut(&suffix.into()),
            Place::Any => self.any.as_mut(),
        }
    }

    /// As [`HostMap::get_mut`]; where there is no value, `make` makes it.
    pub fn get_or_insert_with(
        &mut self,
        name: Option<&Hostname>,
        make: impl FnOnce() -> T,
    ) -> &mut T {
        match Place::of(name) {
            Place::Exact(name) => self.exact.get_or_insert_with(&name.into(), make),
            Place::Wildcard(suffix) => self.wildcard.get_or_insert_with(&suffix.into(), make),
            Place::Any => self.any.get_or_insert_with(make),
        }
    }

    /// Puts `value` under a name and returns what was there.
    pub fn insert(&mut self, name: Option<&Hostname>, value: T) -> Option<T> {
        match Place::of(name) {
            Place::Exact(name) => self.exact.insert(&name.into(), value),
            Place::Wildcard(suffix) => self.wildcard.insert(&suffix.into(), value),
            Place::Any => self.any.replace(value),
        }
    }

    /// Takes a name out and returns its value.
    pub fn remove(&mut self, name: Option<&Hostname>) -> Option<T> {
        match Place::of(name) {
            Place::Exact(name) => self.exact.remove(&name.into()),
            Place::Wildcard(suffix) => self.wildcard.remove(&suffix.into()),
            Place::Any => self.any.take(),
        }
    }
}

impl<T> fmt::Debug for HostMap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostMap")
            .field("exact", &self.exact.len())
            .field("wildcard", &self.wildcard.len())
            .field("any", &self.any.is_some())
            .finish()
    }
}

/// Values for one host, from the most specific name to the least; see [`HostMap::candidates`].
#[derive(Debug)]
pub struct Candidates<'a, 'h, T> {
    map: &'a HostMap<T>,
    host: &'h str,
    step: Step,
}

/// What is tried next.
#[derive(Clone, Copy, Debug)]
enum Step {
    Exact,
    /// Wildcards whose dot stands here or later.
    Wildcard(usize),
    Any,
    Done,
}

impl<'a, T> Iterator for Candidates<'a, '_, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.next_place().map(|(_, value)| value)
    }
}

impl<'a, 'h, T> Candidates<'a, 'h, T> {
    /// As [`Iterator::next`], with the name that covers the host.
    pub(crate) fn next_place(&mut self) -> Option<(Place<'h>, &'a T)> {
        loop {
            let found = match self.step {
                Step::Exact => {
                    self.step = if self.map.wildcard.is_empty() {
                        Step::Any
                    } else {
                        // From the second byte: a wildcard stands for a label that is not empty.
                        Step::Wildcard(1)
                    };
                    let found = self.map.exact.get(self.host);
                    found.map(|value| (Place::Exact(self.host), value))
                }
                Step::Wildcard(from) => {
                    let rest = self.host.as_bytes().get(from..).unwrap_or_default();
                    match memchr::memchr(b'.', rest) {
                        Some(offset) => {
                            let after = from + offset + 1;
                            self.step = Step::Wildcard(after);
                            let suffix = &self.host[after..];
                            let found = self.map.wildcard.get(suffix);
                            found.map(|value| (Place::Wildcard(suffix), value))
                        }
                        None => {
                            self.step = Step::Any;
                            None
                        }
                    }
                }
                Step::Any => {
                    self.step = Step::Done;
                    self.map.any.as_ref().map(|value| (Place::Any, value))
                }
                Step::Done => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

/// Where a name is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Exact(&'a str),
    Wildcard(&'a str),
    Any,
}

impl<'a> Place<'a> {
    pub(crate) fn of(name: Option<&'a Hostname>) -> Self {
        match name {
            None => Self::Any,
            Some(name) => match name.wildcard_suffix() {
                Some(suffix) => Self::Wildcard(suffix),
                None => Self::Exact(name.as_str()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 6] = [
        "www.example.com",
        "example.com",
        "*.example.com",
        "*.a.example.com",
        "*.com",
        "localhost",
    ];

    fn map(any: bool) -> HostMap<&'static str> {
        let mut map = HostMap::default();
        for name in NAMES {
            assert_eq!(map.insert(Some(&Hostname::new(name).unwrap()), name), None);
        }
        if any {
            map.insert(None, "any");
        }
        map
    }

    #[test]
    fn names_are_tried_from_specific_to_general() {
        let map = map(true);
        for (host, expected) in [
            (
                "www.example.com",
                &["www.example.com", "*.example.com", "*.com", "any"][..],
            ),
            ("example.com", &["example.com", "*.com", "any"]),
            (
                "x.a.example.com",
                &["*.a.example.com", "*.example.com", "*.com", "any"],
            ),
            (
                "y.x.a.example.com",
                &["*.a.example.com", "*.example.com", "*.com", "any"],
            ),
            ("a.example.com", &["*.example.com", "*.com", "any"]),
            ("notexample.com", &["*.com", "any"]),
            ("com", &["any"]),
            ("localhost", &["localhost", "any"]),
            (".com", &["any"]),
            (".", &["any"]),
            ("", &["any"]),
            ("[::1]", &["any"]),
            ("é.com", &["*.com", "any"]),
        ] {
            let found: Vec<&str> = map.candidates(host).copied().collect();
            assert_eq!(found, expected, "{host}");
            assert_eq!(map.best(host), expected.first(), "{host}");
        }
    }

    #[test]
    fn a_host_longer_than_any_name_meets_only_any() {
        let long = format!("{}.example.com", "a.".repeat(130));
        assert_eq!(map(true).best(&long), Some(&"any"));
        assert_eq!(map(false).best(&long), None);
    }

    #[test]
    fn names_are_removed_one_by_one() {
        let mut map = map(true);
        assert_eq!(map.len(), 7);
        for (index, name) in NAMES.into_iter().enumerate() {
            let name = Hostname::new(name).unwrap();
            assert_eq!(map.get(Some(&name)), Some(&NAMES[index]));
            *map.get_mut(Some(&name)).unwrap() = "changed";
            assert_eq!(map.remove(Some(&name)), Some("changed"));
            assert_eq!(map.get(Some(&name)), None);
        }
        assert_eq!(map.get_mut(None), Some(&mut "any"));
        assert_eq!(map.remove(None), Some("any"));
        assert!(map.is_empty());
    }
}
