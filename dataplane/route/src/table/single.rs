//! A match that stands alone under its path, with all that a look-up reads of it in one place.
//!
//! [`super::paths`] has one for a path with one match, [`super::host`] one for a host with one
//! match. Nearly every match of a large table is such, and its rule is found without reading the
//! compiled match behind it, unless the match has conditions.

use std::sync::Arc;

use super::compile::{CompiledMatch, Path};
use crate::request::Request;

/// One match and what is read most of it.
pub(super) struct Single<R> {
    rule: Arc<R>,
    compiled: Arc<CompiledMatch<R>>,
    path: PathKind,
    has_conditions: bool,
}

/// The kind of the match's [`Path`], in the order in which they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathKind {
    Exact,
    Regex,
    Prefix,
}

impl<R> Single<R> {
    pub(super) fn new(compiled: &Arc<CompiledMatch<R>>) -> Self {
        Self {
            rule: compiled.rule.clone(),
            compiled: compiled.clone(),
            path: PathKind::of(&compiled.path),
            has_conditions: compiled.has_conditions(),
        }
    }

    pub(super) fn compiled(&self) -> &Arc<CompiledMatch<R>> {
        &self.compiled
    }

    pub(super) fn path(&self) -> PathKind {
        self.path
    }

    /// The rule, when the request agrees with everything but host and path.
    pub(super) fn rule_if_met(&self, request: &Request<'_>) -> Option<&Arc<R>> {
        (!self.has_conditions || self.compiled.is_met(request)).then_some(&self.rule)
    }

    /// As [`Single::rule_if_met`], but the path must agree too; `key` is the text it is filed under.
    /// With it, how many bytes of the path it covers if it is a prefix.
    pub(super) fn lookup(
        &self,
        key: &[u8],
        request: &Request<'_>,
    ) -> Option<(&Arc<R>, Option<usize>)> {
        if self.path == PathKind::Regex {
            let is_met = self.compiled.is_regex_met(request);
            return is_met.then_some((&self.rule, None));
        }
        if !self.path.covers(key, request.path) {
            return None;
        }
        let prefix_len = (self.path == PathKind::Prefix).then_some(key.len());
        Some((self.rule_if_met(request)?, prefix_len))
    }
}

impl PathKind {
    pub(super) fn of(path: &Path) -> Self {
        match path {
            Path::Exact(_) => Self::Exact,
            Path::Prefix(_) => Self::Prefix,
            Path::Regex(_) => Self::Regex,
        }
    }

    /// Whether what is filed under `key` takes the path. Regular expressions say that themselves.
    pub(super) fn covers(self, key: &[u8], path: &str) -> bool {
        match self {
            Self::Exact => path.as_bytes() == key,
            Self::Prefix => has_leading_segments(path.as_bytes(), key),
            Self::Regex => false,
        }
    }
}

impl<R> Clone for Single<R> {
    fn clone(&self) -> Self {
        Self {
            rule: self.rule.clone(),
            compiled: self.compiled.clone(),
            ..*self
        }
    }
}

/// True when `path` begins with the segments of `prefix`, which ends in none of its slashes or is
/// empty; every path begins with the empty one.
fn has_leading_segments(path: &[u8], prefix: &[u8]) -> bool {
    prefix.is_empty()
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        for (path, prefix, expected) in [
            ("/", "", true),
            ("*", "", true),
            ("", "", true),
            ("/a", "/a", true),
            ("/a/", "/a", true),
            ("/a/b", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", false),
            ("/a//b", "/a/", true),
            ("/a/", "/a/", true),
            ("/a/b", "/a/", false),
            ("*", "/a", false),
        ] {
            let found = has_leading_segments(path.as_bytes(), prefix.as_bytes());
            assert_eq!(found, expected, "{path} {prefix}");
        }
    }
}
