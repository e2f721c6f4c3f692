//! What is wrong with a snapshot, and where.
//!
//! `decode` collects violations instead of stopping at the first, because the author of a
//! configuration wants the whole list. A list is bounded ([`Violations::LIMIT`]): past it only the
//! count grows, so that a hostile snapshot cannot grow memory through its own error report.

use std::fmt;

/// One fault: the object it is in, the field's path inside that object, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The object, as `kind namespace/name`, for example `HTTPRoute shop/cart`.
    pub object: String,
    /// Where in the object, for example `rules[2].matches[0].path`; empty for the object itself.
    pub path: String,
    /// What is wrong with the value and what to do, lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "{}: {}", self.object, self.message)
        } else {
            write!(f, "{}: {}: {}", self.object, self.path, self.message)
        }
    }
}

/// Every fault found in one snapshot, in the order in which they were met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Violations {
    list: Vec<Violation>,
    dropped: usize,
}

impl Violations {
    /// How many violations are kept; further ones are only counted.
    pub const LIMIT: usize = 256;

    /// Adds one fault, or counts it when the list is full.
    pub fn push(&mut self, violation: Violation) {
        if self.list.len() < Self::LIMIT {
            self.list.push(violation);
        } else {
            self.dropped += 1;
        }
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many faults were found, kept or not.
    pub fn len(&self) -> usize {
        self.list.len() + self.dropped
    }

    /// The faults that were kept.
    pub fn iter(&self) -> std::slice::Iter<'_, Violation> {
        self.list.iter()
    }

    /// Moves all faults of `other` behind these.
    pub fn extend(&mut self, other: Self) {
        self.dropped += other.dropped;
        for violation in other.list {
            self.push(violation);
        }
    }
}

impl From<Violation> for Violations {
    fn from(violation: Violation) -> Self {
        Self {
            list: vec![violation],
            dropped: 0,
        }
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, violation) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{violation}")?;
        }
        if self.dropped > 0 {
            write!(f, "; and {} more", self.dropped)?;
        }
        Ok(())
    }
}

impl std::error::Error for Violations {}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(n: usize) -> Violation {
        Violation {
            object: format!("HTTPRoute a/r{n}"),
            path: "rules[0]".to_owned(),
            message: "is wrong".to_owned(),
        }
    }

    #[test]
    fn display_names_object_path_and_message() {
        assert_eq!(fault(1).to_string(), "HTTPRoute a/r1: rules[0]: is wrong");
    }

    #[test]
    fn a_full_list_only_counts() {
        let mut violations = Violations::default();
        for n in 0..Violations::LIMIT + 3 {
            violations.push(fault(n));
        }
        assert_eq!(violations.len(), Violations::LIMIT + 3);
        assert_eq!(violations.iter().count(), Violations::LIMIT);
        assert!(violations.to_string().ends_with("; and 3 more"));
    }
}
