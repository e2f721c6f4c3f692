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

/// The kind of the match's [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PathKind {
    Exact,
    Prefix,
    Regex,
}

impl<R> Single<R> {
    pub(super) fn new(compiled: &Arc<CompiledMatch<R>>) -> Self {
        Self {
            rule: compiled.rule.clone(),
            compiled: compiled.clone(),
            path: match compiled.path {
                Path::Exact(_) => PathKind::Exact,
                Path::Prefix(_) => PathKind::Prefix,
                Path::Regex(_) => PathKind::Regex,
            },
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
        let path = request.path.as_bytes();
        let prefix_len = match self.path {
            PathKind::Exact if path == key => None,
            PathKind::Prefix if has_leading_segments(path, key) => Some(key.len()),
            PathKind::Regex if self.compiled.is_regex_met(request) => {
                return Some((&self.rule, None));
            }
            PathKind::Exact | PathKind::Prefix | PathKind::Regex => return None,
        };
        Some((self.rule_if_met(request)?, prefix_len))
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
