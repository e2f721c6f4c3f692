//! A short text that stands where it is kept.
//!
//! [`super::TextMap`] has one for each entry. Host names and paths are mostly shorter than
//! [`SHORT_MAX`]; keeping them inside the entry saves a look-up one step to another place in
//! memory. Longer ones are shared.

use std::fmt;
use std::sync::Arc;

/// Longest text that is kept in place, in bytes; with it a [`Text`] is half a cache line.
const SHORT_MAX: usize = 30;

/// Text that is cheap to clone and to compare.
#[derive(Clone)]
pub(crate) enum Text {
    Short { len: u8, bytes: [u8; SHORT_MAX] },
    Long(Arc<str>),
}

impl Text {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(text) => text.as_bytes(),
        }
    }

    /// The text in place, when it is short enough.
    fn short(text: &str) -> Option<Self> {
        let mut bytes = [0; SHORT_MAX];
        bytes
            .get_mut(..text.len())?
            .copy_from_slice(text.as_bytes());
        let len = u8::try_from(text.len()).ok()?;
        Some(Self::Short { len, bytes })
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::short(text).unwrap_or_else(|| Self::Long(text.into()))
    }
}

impl From<&Arc<str>> for Text {
    fn from(text: &Arc<str>) -> Self {
        Self::short(text).unwrap_or_else(|| Self::Long(text.clone()))
    }
}

impl PartialEq<[u8]> for Text {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&String::from_utf8_lossy(self.as_bytes()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_any_length_is_kept_whole() {
        for len in [0, 1, SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 1_000] {
            let source = "é".repeat(len / 2) + &"x".repeat(len % 2);
            let text = Text::from(source.as_str());
            assert_eq!(text.as_bytes(), source.as_bytes());
            assert!(text == *source.as_bytes());
            assert!(text != *format!("{source}x").as_bytes());
            assert_eq!(format!("{text:?}"), format!("{source:?}"));
            assert_eq!(matches!(text, Text::Short { .. }), len <= SHORT_MAX);
        }
    }

    #[test]
    fn a_text_is_half_a_cache_line() {
        assert_eq!(size_of::<Text>(), 32);
    }
}
