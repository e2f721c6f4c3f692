//! Where a decoder is, and what it found wrong there.
//!
//! [`At`] is a path kept on the stack, so that a good configuration pays nothing for messages.
//! [`Report`] collects violations and notices, and shares names and patterns that repeat across
//! the objects of one snapshot.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use crate::pattern::{Pattern, PatternError};
use crate::{Violation, Violations};

/// The object being decoded, as messages name it.
#[derive(Clone, Copy)]
pub(super) struct Object<'a> {
    pub(super) kind: &'static str,
    pub(super) key: &'a str,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'static str),
    Index(&'static str, usize),
    Key(&'static str, &'a str),
}

/// A place inside an object.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    object: Object<'a>,
    parent: Option<&'a Self>,
    step: Step<'a>,
}

impl<'a> At<'a> {
    /// The object itself.
    pub(super) fn object(kind: &'static str, key: &'a str) -> Self {
        Self {
            object: Object { kind, key },
            parent: None,
            step: Step::Root,
        }
    }

    /// A field of this place.
    pub(super) fn field(&'a self, name: &'static str) -> Self {
        self.step(Step::Field(name))
    }

    /// An entry of a list in this place.
    pub(super) fn index(&'a self, name: &'static str, index: usize) -> Self {
        self.step(Step::Index(name, index))
    }

    /// An entry of a map in this place.
    pub(super) fn key(&'a self, name: &'static str, key: &'a str) -> Self {
        self.step(Step::Key(name, key))
    }

    fn step(&'a self, step: Step<'a>) -> Self {
        Self {
            object: self.object,
            parent: Some(self),
            step,
        }
    }

    fn write_path(&self, path: &mut String) {
        if let Some(parent) = self.parent {
            parent.write_path(path);
        }
        if !path.is_empty() && !matches!(self.step, Step::Root) {
            path.push('.');
        }
        // Writing to a string cannot fail.
        let _ = match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => path.write_str(name),
            Step::Index(name, index) => write!(path, "{name}[{index}]"),
            Step::Key(name, key) => write!(path, "{name}[{}]", Quoted(key)),
        };
    }

    fn violation(&self, message: &dyn Display) -> Violation {
        let mut path = String::new();
        self.write_path(&mut path);
        Violation {
            object: format!("{} {}", self.object.kind, Clipped(self.object.key)),
            path,
            message: message.to_string(),
        }
    }
}

/// What one run of decoding found, and what its objects share.
#[derive(Default)]
pub(super) struct Report {
    /// Faults: the whole message is refused.
    pub(super) violations: Violations,
    /// What was understood in part only, and how.
    pub(super) notices: Violations,
    names: HashSet<Arc<str>>,
    scratch: String,
    patterns: HashMap<String, Pattern>,
}

impl Report {
    /// Records a fault. Gives `None`, which is what the decoder of a faulty value returns.
    pub(super) fn refuse<T>(&mut self, at: &At<'_>, message: impl Display) -> Option<T> {
        self.violations.push(at.violation(&message));
        None
    }

    /// Records something that was read in a way its author may not expect.
    pub(super) fn notice(&mut self, at: &At<'_>, message: impl Display) {
        self.notices.push(at.violation(&message));
    }

    /// One allocation for all equal names.
    pub(super) fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(shared) = self.names.get(name) {
            return shared.clone();
        }
        let shared: Arc<str> = name.into();
        self.names.insert(shared.clone());
        shared
    }

    /// As [`Self::share`] for a name that is yet to be written; allocates only for a new one.
    pub(super) fn share_written(&mut self, name: fmt::Arguments<'_>) -> Arc<str> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        // Writing to a string cannot fail.
        let _ = scratch.write_fmt(name);
        let shared = self.share(&scratch);
        self.scratch = scratch;
        shared
    }

    /// One compiled program for all equal patterns.
    pub(super) fn pattern(&mut self, source: &str) -> Result<Pattern, PatternError> {
        if let Some(pattern) = self.patterns.get(source) {
            return Ok(pattern.clone());
        }
        let pattern = Pattern::new(source)?;
        self.patterns.insert(source.to_owned(), pattern.clone());
        Ok(pattern)
    }

    /// The value when nothing is wrong, else the faults.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, Violations> {
        match value {
            Some(value) if self.violations.is_empty() => Ok(value),
            _ => Err(self.violations),
        }
    }
}

/// Decodes every entry of a list, so that every fault is met; `None` when there was one.
pub(super) fn list<W, T>(
    items: Vec<W>,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
    mut decode: impl FnMut(W, &At<'_>, &mut Report) -> Option<T>,
) -> Option<Vec<T>> {
    let mut decoded = Vec::with_capacity(items.len());
    let mut is_good = true;
    for (index, item) in items.into_iter().enumerate() {
        match decode(item, &at.index(name, index), report) {
            Some(value) => decoded.push(value),
            None => is_good = false,
        }
    }
    is_good.then_some(decoded)
}

/// Decodes what may be absent: the outer option is the verdict, the inner one the value.
pub(super) fn optional<W, T>(
    item: Option<W>,
    at: &At<'_>,
    name: &'static str,
    report: &mut Report,
    decode: impl FnOnce(W, &At<'_>, &mut Report) -> Option<T>,
) -> Option<Option<T>> {
    match item {
        Some(item) => decode(item, &at.field(name), report).map(Some),
        None => Some(None),
    }
}

/// Leaves the first of each name.
pub(super) fn first_of_each<T>(items: &mut Vec<T>, name: impl Fn(&T) -> &str) {
    if items.len() < 2 {
        return;
    }
    let mut seen = HashSet::with_capacity(items.len());
    let is_first: Vec<bool> = items.iter().map(|item| seen.insert(name(item))).collect();
    let mut is_first = is_first.into_iter();
    items.retain(|_| is_first.next().unwrap_or(true));
}

/// The longest value shown in a message, in bytes.
const SHOWN_BYTES_MAX: usize = 80;

/// A value in quotes, escaped and shortened for a message.
pub(super) struct Quoted<'a>(pub(super) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", clip(self.0))?;
        if self.0.len() > SHOWN_BYTES_MAX {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// The key of an object, shortened for a message.
struct Clipped<'a>(&'a str);

impl Display for Clipped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Two DNS names, a service port and the slashes between them fit.
        let end = self.0.floor_char_boundary(640);
        write!(f, "{}", self.0[..end].escape_debug())
    }
}

fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(SHOWN_BYTES_MAX)]
}
