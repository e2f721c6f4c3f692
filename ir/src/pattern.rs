//! A regular expression from the configuration, compiled within a size limit.
//!
//! It matches a whole value, not a part of it, as Envoy and Istio read Gateway API's
//! implementation-specific regular expressions. The engine is linear in the input, so a pattern
//! cannot be made to backtrack; what it could do is compile to something huge, hence the limit.

use std::fmt;
use std::sync::Arc;

/// A compiled regular expression that must match the whole value.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: regex::Regex,
}

/// Why a text is no [`Pattern`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// More text than [`Pattern::SOURCE_BYTES_MAX`].
    #[error("is longer than {} bytes", Pattern::SOURCE_BYTES_MAX)]
    TooLong,
    /// It compiles to more than [`Pattern::PROGRAM_BYTES_MAX`].
    #[error(
        "compiles to more than {} KiB, use smaller repetition counts",
        Pattern::PROGRAM_BYTES_MAX / 1024
    )]
    TooBig,
    /// It is no regular expression (RE2 syntax: no look-around, no back-references).
    #[error("is not a regular expression (RE2 syntax): {0}")]
    Syntax(String),
}

impl Pattern {
    /// Longest source accepted, in bytes.
    pub const SOURCE_BYTES_MAX: usize = 4096;
    /// Largest compiled program, in bytes; also bounds the lazy automaton's cache.
    pub const PROGRAM_BYTES_MAX: usize = 256 * 1024;

    /// Compiles `source`.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        if source.len() > Self::SOURCE_BYTES_MAX {
            return Err(PatternError::TooLong);
        }
        // On its own first, so that `a)|(b` cannot close the group it is put into.
        let compiled = compile(source).and_then(|_| compile(&format!("^(?:{source})$")));
        match compiled {
            Ok(regex) => Ok(Self {
                source: source.into(),
                regex,
            }),
            Err(regex::Error::CompiledTooBig(_)) => Err(PatternError::TooBig),
            Err(error) => {
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default();
                Err(PatternError::Syntax(
                    reason.trim_start_matches("error: ").to_owned(),
                ))
            }
        }
    }

    /// True when the whole of `value` matches.
    pub fn is_match(&self, value: &str) -> bool {
        self.regex.is_match(value)
    }

    /// The expression as written in the configuration.
    pub fn as_str(&self) -> &str {
        &self.source
    }
}

fn compile(source: &str) -> Result<regex::Regex, regex::Error> {
    regex::RegexBuilder::new(source)
        .size_limit(Pattern::PROGRAM_BYTES_MAX)
        .dfa_size_limit(Pattern::PROGRAM_BYTES_MAX)
        .build()
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_value_must_match() {
        let pattern = Pattern::new("/v[0-9]+|/beta").unwrap();
        assert!(pattern.is_match("/v12"));
        assert!(pattern.is_match("/beta"));
        assert!(!pattern.is_match("/v12/x"));
        assert!(!pattern.is_match("x/beta"));
    }

    #[test]
    fn explosive_patterns_are_refused() {
        assert_eq!(
            Pattern::new("((a{1000}){1000}){1000}"),
            Err(PatternError::TooBig)
        );
        assert_eq!(Pattern::new(&"a".repeat(5000)), Err(PatternError::TooLong));
        assert!(matches!(Pattern::new("a("), Err(PatternError::Syntax(_))));
        assert!(matches!(
            Pattern::new("(?=a)"),
            Err(PatternError::Syntax(_))
        ));
    }

    #[test]
    fn source_cannot_escape_its_group() {
        assert!(Pattern::new("a)|(b").is_err());
    }
}
