//! The normal form of a path, which is matched and forwarded alike (RFC 3986 6.2.2): unreserved bytes
//! decoded, other escapes in upper case, dot segments resolved even when they came escaped, slashes merged
//! where the listener says so. The path phase calls it once per request. The query is not touched, and path parameters (`;v=1`)
//! have no meaning here.

use std::borrow::Cow;

use thiserror::Error;

/// What to do with `%2F` and `%5C`, which some backends read as separators and others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlash {
    /// Refuse the request.
    #[default]
    Refuse,
    /// Leave them as they are: no separators for us, and forwarded escaped.
    Keep,
    /// Take both for slashes; dot segments between them are resolved, too.
    Decode,
}

/// What a listener says about paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What to do with `%2F` and `%5C`.
    pub escaped_slash: EscapedSlash,
    /// Slashes in a row are one.
    pub merge_slashes: bool,
}

/// Why a path has no normal form. All are answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathError {
    /// It does not begin with a slash.
    #[error("path does not begin with a slash")]
    NotAbsolute,
    /// `%` is not followed by two hexadecimal digits.
    #[error("percent sign without two hexadecimal digits")]
    BadEscape,
    /// `%00`.
    #[error("escaped zero byte")]
    EscapedZero,
    /// `%2F` or `%5C` where these are refused.
    #[error("escaped slash or backslash")]
    EscapedSlash,
    /// A control, space, backslash or byte beyond ASCII.
    #[error("byte {0:#04x} in a path")]
    BadByte(u8),
}

/// The normal form of `path`, which must not hold a query. Borrowed when it is in this form already.
///
/// Normalising twice changes nothing. `..` above the root stays at the root (RFC 3986 5.2.4).
pub fn normalise(path: &str, rules: Rules) -> Result<Cow<'_, str>, PathError> {
    let bytes = path.as_bytes();
    if bytes.first() != Some(&b'/') {
        return Err(PathError::NotAbsolute);
    }
    let mut must_change = false;
    let mut previous = 0;
    for (index, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' => must_change = true,
            b'/' => must_change |= previous == b'/' && rules.merge_slashes,
            b'.' => must_change |= previous == b'/' && is_dot_segment(&bytes[index..]),
            b'\\' => return Err(PathError::BadByte(*byte)),
            0x21..=0x7e => {}
            _ => return Err(PathError::BadByte(*byte)),
        }
        previous = *byte;
    }
    if !must_change {
        return Ok(Cow::Borrowed(path));
    }
    rewrite(bytes, rules).map(Cow::Owned)
}

/// True when a path that has a normal form holds `%2F` or `%5C`.
pub fn has_escaped_slash(path: &str) -> bool {
    let mut escapes = path.as_bytes().windows(3);
    escapes.any(|three| matches!(three, [b'%', b'2', b'f' | b'F'] | [b'%', b'5', b'c' | b'C']))
}

/// Whether a segment that begins here is `.` or `..`. An escaped dot after it is found when rewriting.
fn is_dot_segment(rest: &[u8]) -> bool {
    matches!(
        rest,
        [b'.'] | [b'.', b'/', ..] | [b'.', b'.'] | [b'.', b'.', b'/', ..]
    )
}

fn rewrite(bytes: &[u8], rules: Rules) -> Result<String, PathError> {
    let mut out = Normal {
        text: String::with_capacity(bytes.len()),
        segment: 1,
        merges_slashes: rules.merge_slashes,
    };
    out.text.push('/');
    let mut rest = bytes.get(1..).unwrap_or_default();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => out.end_segment(true),
            b'%' => {
                let Some(([high, low], after)) =
                    after.split_first_chunk::<2>().map(|(a, b)| (*a, b))
                else {
                    return Err(PathError::BadEscape);
                };
                rest = after;
                out.push_escape(high, low, rules.escaped_slash)?;
            }
            _ => out.text.push(char::from(*byte)),
        }
    }
    out.end_segment(false);
    Ok(out.text)
}

/// The part that is already in normal form, and where its last segment begins.
struct Normal {
    text: String,
    segment: usize,
    merges_slashes: bool,
}

impl Normal {
    fn push_escape(
        &mut self,
        high: u8,
        low: u8,
        escaped_slash: EscapedSlash,
    ) -> Result<(), PathError> {
        let digit = |byte: u8| {
            char::from(byte)
                .to_digit(16)
                .and_then(|n| u8::try_from(n).ok())
        };
        let (Some(upper), Some(lower)) = (digit(high), digit(low)) else {
            return Err(PathError::BadEscape);
        };
        match upper << 4 | lower {
            byte @ (b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~') => {
                self.text.push(char::from(byte));
            }
            0 => return Err(PathError::EscapedZero),
            b'/' | b'\\' if escaped_slash == EscapedSlash::Refuse => {
                return Err(PathError::EscapedSlash);
            }
            b'/' | b'\\' if escaped_slash == EscapedSlash::Decode => self.end_segment(true),
            _ => {
                self.text.push('%');
                self.text.push(char::from(high.to_ascii_uppercase()));
                self.text.push(char::from(low.to_ascii_uppercase()));
            }
        }
        Ok(())
    }

    /// Resolves the last segment when it is a dot segment, and begins the next one after a slash.
    fn end_segment(&mut self, has_slash: bool) {
        match self.text.get(self.segment..).unwrap_or_default() {
            "." => self.text.truncate(self.segment),
            ".." => {
                // Without the slash before this segment, so that the one before that is found.
                let parent = self.text.get(..self.segment - 1).unwrap_or_default();
                self.segment = parent.rfind('/').map_or(1, |slash| slash + 1);
                self.text.truncate(self.segment);
            }
            // Two slashes in a row are one.
            "" if self.merges_slashes => {}
            _ if has_slash => {
                self.text.push('/');
                self.segment = self.text.len();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
