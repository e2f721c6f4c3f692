//! Choosing by server name: exact, then the longest wildcard, then whoever takes any name.
//!
//! Used for listeners (Gateway API: a wildcard covers one or more labels). Certificates follow
//! another rule (RFC 6125: exactly one label) and are matched in `certificate.rs`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ir::Hostname;

/// Values by host name; the first one put under a name stays.
#[derive(Debug)]
pub(crate) struct NameTable<T> {
    exact: HashMap<Arc<str>, T>,
    /// By what follows `*.`.
    wildcard: HashMap<Arc<str>, T>,
    any: Option<T>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            any: None,
        }
    }
}

impl<T: Clone> NameTable<T> {
    /// Puts `value` under every name of `names`, or under any name when there are none.
    pub(crate) fn insert(&mut self, names: &[Hostname], value: &T) {
        if names.is_empty() {
            self.any.get_or_insert_with(|| value.clone());
        }
        for name in names {
            let (map, text) = match name.wildcard_suffix() {
                Some(suffix) => (&mut self.wildcard, suffix),
                None => (&mut self.exact, name.as_str()),
            };
            if let Entry::Vacant(entry) = map.entry(text.into()) {
                entry.insert(value.clone());
            }
        }
    }

    /// The value for a client that asked for `name`, in lower case, or for none.
    pub(crate) fn best(&self, name: Option<&str>) -> Option<&T> {
        let Some(name) = name else {
            return self.any.as_ref();
        };
        if let Some(value) = self.exact.get(name) {
            return Some(value);
        }
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(value) = self.wildcard.get(suffix) {
                return Some(value);
            }
            rest = suffix;
        }
        self.any.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&[&str], &'static str)]) -> NameTable<&'static str> {
        let mut table = NameTable::default();
        for (names, value) in rows {
            let names: Vec<_> = names.iter().map(|n| Hostname::new(n).unwrap()).collect();
            table.insert(&names, value);
        }
        table
    }

    #[test]
    fn exact_beats_the_longest_wildcard_beats_any() {
        let table = table(&[
            (&[], "any"),
            (&["*.com"], "com"),
            (&["*.example.com"], "example"),
            (&["www.example.com"], "www"),
        ]);
        for (name, value) in [
            (Some("www.example.com"), "www"),
            (Some("api.example.com"), "example"),
            (Some("a.b.example.com"), "example"),
            (Some("example.com"), "com"),
            (Some("com"), "any"),
            (Some("example.org"), "any"),
            (Some(""), "any"),
            (None, "any"),
        ] {
            assert_eq!(table.best(name), Some(&value), "{name:?}");
        }
    }

    #[test]
    fn without_a_taker_of_any_name_strangers_get_nothing() {
        let table = table(&[(&["*.example.com", "shop.org"], "shop")]);
        for name in [None, Some("example.com"), Some("x.shop.org"), Some(".")] {
            assert_eq!(table.best(name), None, "{name:?}");
        }
    }

    #[test]
    fn the_first_under_a_name_stays() {
        let table = table(&[(&["a.com"], "one"), (&["a.com"], "two"), (&[], "three")]);
        assert_eq!(table.best(Some("a.com")), Some(&"one"));
        assert_eq!(table.best(Some("b.com")), Some(&"three"));
    }
}
