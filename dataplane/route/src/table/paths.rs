//! The matches of one host, found by path.
//!
//! One persistent map from text to a [`Slot`]: exact paths, prefixes without their trailing slash,
//! and the literal segments regular expressions begin with. A look-up asks for the whole path and
//! for its leading segments, the longest first, and only at the depths at which something is filed;
//! so its cost follows neither the number of routes nor the length of a hostile path. Inside a slot
//! matches stand in their order of precedence and are tried in that order.

use std::slice;
use std::sync::Arc;

use super::compile::{CompiledMatch, Path};
use super::single::{PathKind, Single};
use crate::request::Request;
use crate::text_map::{Text, TextMap};

/// Matches by path; a clone shares every slot.
pub(super) struct PathIndex<R> {
    slots: TextMap<Slot<R>>,
    /// At which depths prefixes and regular expressions are filed, the deepest first.
    depths: Vec<Depth>,
    exact_count: usize,
    regex_count: usize,
}

/// How many matches are filed under this many segments.
#[derive(Clone, Copy)]
struct Depth {
    segments: usize,
    matches: usize,
}

/// The matches filed under one text; nearly always there is one, and it stands in the map itself.
enum Slot<R> {
    One(Single<R>),
    Several(Arc<Lists<R>>),
}

/// Several matches filed under one text, each list in order of precedence.
struct Lists<R> {
    exact: Vec<Arc<CompiledMatch<R>>>,
    prefix: Vec<Arc<CompiledMatch<R>>>,
    regex: Vec<Arc<CompiledMatch<R>>>,
}

impl<R> PathIndex<R> {
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The rule that goes first, and how many bytes of the path it covers if by a prefix.
    pub(super) fn lookup(&self, request: &Request<'_>) -> Option<(&Arc<R>, Option<usize>)> {
        if self.exact_count > 0
            && let Some(slot) = self.slots.get(request.path)
            && let Some(rule) = slot.exact(request)
        {
            return Some((rule, None));
        }
        let deepest = self.depths.first()?.segments;
        let mut cut = Cut::new(request.path, deepest);
        let mut by_prefix = None;
        let mut by_regex: Option<&CompiledMatch<R>> = None;
        for depth in &self.depths {
            let Some(slot) = cut
                .to(depth.segments)
                .and_then(|prefix| self.slots.get(prefix))
            else {
                continue;
            };
            if self.regex_count > 0
                && let Some(found) = slot.regex(by_regex, request)
            {
                by_regex = Some(found);
            }
            if by_prefix.is_none() {
                by_prefix = slot.prefix(request).map(|rule| (rule, Some(cut.end)));
                if by_prefix.is_some() && self.regex_count == 0 {
                    break;
                }
            }
        }
        by_regex.map(|found| (&found.rule, None)).or(by_prefix)
    }

    pub(super) fn insert(&mut self, compiled: &Arc<CompiledMatch<R>>) {
        let key = compiled.path.key();
        match self.slots.get_mut(key) {
            Some(slot) => slot.insert(compiled),
            None => {
                self.slots.insert(key, Slot::One(Single::new(compiled)));
            }
        }
        match compiled.path {
            Path::Exact(_) => self.exact_count += 1,
            Path::Prefix(_) => self.count_depth(key),
            Path::Regex(_) => {
                self.regex_count += 1;
                self.count_depth(key);
            }
        }
    }

    pub(super) fn remove(&mut self, compiled: &Arc<CompiledMatch<R>>) {
        let key = compiled.path.key();
        let Some(slot) = self.slots.get_mut(key) else {
            return;
        };
        match slot.remove(compiled) {
            Removed::Nothing => return,
            Removed::Last => {
                self.slots.remove(key);
            }
            Removed::One => {}
        }
        match compiled.path {
            Path::Exact(_) => self.exact_count -= 1,
            Path::Prefix(_) => self.uncount_depth(key),
            Path::Regex(_) => {
                self.regex_count -= 1;
                self.uncount_depth(key);
            }
        }
    }

    /// The only match there is; nothing when there are several or none.
    pub(super) fn only(&self) -> Option<&Single<R>> {
        match self.slots.only()? {
            Slot::One(one) => Some(one),
            Slot::Several(_) => None,
        }
    }

    fn count_depth(&mut self, key: &Text) {
        let segments = count_segments(key);
        match self.depth_position(segments) {
            Ok(at) => self.depths[at].matches += 1,
            Err(at) => self.depths.insert(
                at,
                Depth {
                    segments,
                    matches: 1,
                },
            ),
        }
    }

    fn uncount_depth(&mut self, key: &Text) {
        if let Ok(at) = self.depth_position(count_segments(key)) {
            self.depths[at].matches -= 1;
            if self.depths[at].matches == 0 {
                self.depths.remove(at);
            }
        }
    }

    fn depth_position(&self, segments: usize) -> Result<usize, usize> {
        self.depths
            .binary_search_by(|depth| segments.cmp(&depth.segments))
    }
}

/// Segments of a text a match is filed under; none for the empty one, which every path begins with.
fn count_segments(key: &Text) -> usize {
    memchr::memchr_iter(b'/', key.as_bytes()).count()
}

/// A path cut down to ever fewer leading segments.
struct Cut<'a> {
    path: &'a str,
    /// Where the current cut ends: at a slash or at the end of the path.
    end: usize,
    segments: usize,
}

impl<'a> Cut<'a> {
    /// Cuts to at most `deepest` segments, reading no further than needed. A path that does not
    /// start with `/` has no segments.
    fn new(path: &'a str, deepest: usize) -> Self {
        let mut cut = Self {
            path,
            end: 0,
            segments: 0,
        };
        if !path.starts_with('/') {
            return cut;
        }
        for (segments, slash) in memchr::memchr_iter(b'/', path.as_bytes()).enumerate() {
            if segments == deepest {
                cut.end = slash;
                cut.segments = segments;
                return cut;
            }
            cut.segments = segments + 1;
        }
        cut.end = path.len();
        cut
    }

    /// The leading `segments` segments, fewer than before; nothing when there are not so many.
    fn to(&mut self, segments: usize) -> Option<&'a str> {
        if segments > self.segments {
            return None;
        }
        while self.segments > segments {
            self.end = memchr::memrchr(b'/', &self.path.as_bytes()[..self.end])?;
            self.segments -= 1;
        }
        Some(&self.path[..self.end])
    }
}

/// What became of a slot that a match was taken out of.
enum Removed {
    /// The match was not there.
    Nothing,
    /// Others remain.
    One,
    /// It was the only one; the slot must go.
    Last,
}

impl<R> Slot<R> {
    fn exact(&self, request: &Request<'_>) -> Option<&Arc<R>> {
        match self {
            Self::One(one) if one.path() == PathKind::Exact => one.rule_if_met(request),
            Self::One(_) => None,
            Self::Several(lists) => first_met(&lists.exact, request),
        }
    }

    fn prefix(&self, request: &Request<'_>) -> Option<&Arc<R>> {
        match self {
            Self::One(one) if one.path() == PathKind::Prefix => one.rule_if_met(request),
            Self::One(_) => None,
            Self::Several(lists) => first_met(&lists.prefix, request),
        }
    }

    /// The first regular expression that is met, unless `best` goes before it.
    fn regex(
        &self,
        best: Option<&CompiledMatch<R>>,
        request: &Request<'_>,
    ) -> Option<&CompiledMatch<R>> {
        let list = match self {
            Self::One(one) => slice::from_ref(one.compiled()),
            Self::Several(lists) => &lists.regex,
        };
        list.iter()
            .map(|compiled| &**compiled)
            .take_while(|compiled| best.is_none_or(|best| compiled.precedence(best).is_lt()))
            .find(|compiled| compiled.is_regex_met(request))
    }

    fn insert(&mut self, compiled: &Arc<CompiledMatch<R>>) {
        match self {
            Self::One(one) => {
                let mut lists = Lists::default();
                lists.insert(one.compiled());
                lists.insert(compiled);
                *self = Self::Several(Arc::new(lists));
            }
            Self::Several(lists) => Arc::make_mut(lists).insert(compiled),
        }
    }

    fn remove(&mut self, compiled: &Arc<CompiledMatch<R>>) -> Removed {
        let remaining = match self {
            Self::One(one) if Arc::ptr_eq(one.compiled(), compiled) => return Removed::Last,
            Self::One(_) => return Removed::Nothing,
            Self::Several(lists) => {
                let lists = Arc::make_mut(lists);
                if !lists.remove(compiled) {
                    return Removed::Nothing;
                }
                lists.only()
            }
        };
        if let Some(one) = remaining {
            *self = Self::One(Single::new(&one));
        }
        Removed::One
    }
}

fn first_met<'a, R>(
    list: &'a [Arc<CompiledMatch<R>>],
    request: &Request<'_>,
) -> Option<&'a Arc<R>> {
    let found = list.iter().find(|compiled| compiled.is_met(request))?;
    Some(&found.rule)
}

impl<R> Lists<R> {
    fn list_mut(&mut self, path: &Path) -> &mut Vec<Arc<CompiledMatch<R>>> {
        match path {
            Path::Exact(_) => &mut self.exact,
            Path::Prefix(_) => &mut self.prefix,
            Path::Regex(_) => &mut self.regex,
        }
    }

    fn insert(&mut self, compiled: &Arc<CompiledMatch<R>>) {
        let list = self.list_mut(&compiled.path);
        let at = list.partition_point(|held| held.precedence(compiled).is_le());
        list.insert(at, compiled.clone());
    }

    fn remove(&mut self, compiled: &Arc<CompiledMatch<R>>) -> bool {
        let list = self.list_mut(&compiled.path);
        let at = list.iter().position(|held| Arc::ptr_eq(held, compiled));
        at.map(|at| list.remove(at)).is_some()
    }

    /// The only match left, when there is just one.
    fn only(&self) -> Option<Arc<CompiledMatch<R>>> {
        let mut all = self.exact.iter().chain(&self.prefix).chain(&self.regex);
        let only = all.next()?;
        all.next().is_none().then(|| only.clone())
    }
}

impl<R> Default for PathIndex<R> {
    fn default() -> Self {
        Self {
            slots: TextMap::default(),
            depths: Vec::new(),
            exact_count: 0,
            regex_count: 0,
        }
    }
}

impl<R> Clone for PathIndex<R> {
    fn clone(&self) -> Self {
        Self {
            slots: self.slots.clone(),
            depths: self.depths.clone(),
            exact_count: self.exact_count,
            regex_count: self.regex_count,
        }
    }
}

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        match self {
            Self::One(one) => Self::One(one.clone()),
            Self::Several(lists) => Self::Several(lists.clone()),
        }
    }
}

impl<R> Default for Lists<R> {
    fn default() -> Self {
        Self {
            exact: Vec::new(),
            prefix: Vec::new(),
            regex: Vec::new(),
        }
    }
}

impl<R> Clone for Lists<R> {
    fn clone(&self) -> Self {
        Self {
            exact: self.exact.clone(),
            prefix: self.prefix.clone(),
            regex: self.regex.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cut_at_its_slashes() {
        for (path, deepest, expected) in [
            ("/", 0, &[Some("")][..]),
            ("/", 2, &[None, Some("/"), Some("")]),
            ("/a", 1, &[Some("/a"), Some("")]),
            ("/a/b/c", 2, &[Some("/a/b"), Some("/a"), Some("")]),
            (
                "/a/b/",
                3,
                &[Some("/a/b/"), Some("/a/b"), Some("/a"), Some("")],
            ),
            ("//a", 2, &[Some("//a"), Some("/"), Some("")]),
            ("*", 1, &[None, Some("")]),
            ("a/b", 1, &[None, Some("")]),
            ("", 1, &[None, Some("")]),
        ] {
            let mut cut = Cut::new(path, deepest);
            let cuts: Vec<_> = (0..=deepest).rev().map(|depth| cut.to(depth)).collect();
            assert_eq!(cuts, expected, "{path} {deepest}");
        }
        let mut cut = Cut::new("/a/b/c/d", 4);
        assert_eq!(cut.to(1), Some("/a"));
    }
}
