//! A new host or path on the way to a backend (Gateway API `HTTPURLRewriteFilter`).
//!
//! [`PathEdit`] is shared with redirects. Replacing a prefix works on whole segments and never
//! doubles or drops a slash; the table of `HTTPPathModifier.replacePrefixMatch` is a test below.
//! The query is kept.

use std::borrow::Cow;

use http::HeaderValue;

use super::FilterError;

/// A compiled `URLRewrite`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    host: Option<HeaderValue>,
    path: Option<PathEdit>,
}

impl Rewrite {
    /// Parses the host and prepares the path.
    pub fn compile(rewrite: &ir::filter::Rewrite) -> Result<Self, FilterError> {
        let host = match &rewrite.hostname {
            Some(name) => Some(checked_host(name)?),
            None => None,
        };
        Ok(Self {
            host,
            path: rewrite.path.as_ref().map(PathEdit::compile),
        })
    }

    /// The new `Host`, when it changes.
    pub fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// The new path and query, when the path changes. `prefix_len` is that of
    /// [`crate::table::Found`].
    pub fn path_and_query(
        &self,
        path: &str,
        query: Option<&str>,
        prefix_len: Option<usize>,
    ) -> Option<String> {
        let path = self.path.as_ref()?.apply(path, prefix_len)?;
        Some(match query {
            Some(query) => [&*path, "?", query].concat(),
            None => path.into_owned(),
        })
    }
}

/// A host name as a header value.
pub(super) fn checked_host(name: &str) -> Result<HeaderValue, FilterError> {
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    match HeaderValue::from_str(name) {
        Ok(value) if is_name => Ok(value),
        _ => Err(FilterError::Hostname(name.to_owned())),
    }
}

/// A compiled `HTTPPathModifier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// The whole path becomes this; starts with `/`.
    Full(Box<str>),
    /// The matched prefix becomes this; empty or starting with `/`, no trailing slash.
    Prefix(Box<str>),
}

impl PathEdit {
    /// Prepares the path; what a path cannot hold is percent-encoded.
    pub fn compile(edit: &ir::filter::PathEdit) -> Self {
        match edit {
            ir::filter::PathEdit::Full(path) => Self::Full(as_path(path).into()),
            ir::filter::PathEdit::Prefix(path) => {
                Self::Prefix(as_path(path).trim_end_matches('/').into())
            }
        }
    }

    /// The new path; nothing when it stays as it is, which is also the case for a new prefix where
    /// no prefix was matched (Gateway API refuses such a rule).
    pub fn apply<'a>(&'a self, path: &str, prefix_len: Option<usize>) -> Option<Cow<'a, str>> {
        match self {
            Self::Full(full) => Some(Cow::Borrowed(full)),
            Self::Prefix(prefix) => {
                let rest = path.get(prefix_len?..)?;
                Some(match (&**prefix, rest) {
                    ("", "") => Cow::Borrowed("/"),
                    (prefix, "") => Cow::Borrowed(prefix),
                    (prefix, rest) => Cow::Owned([prefix, rest].concat()),
                })
            }
        }
    }
}

/// `text` with a leading slash and without bytes that end or break a path (RFC 3986 3.3).
fn as_path(text: &str) -> String {
    use std::fmt::Write as _;
    let mut path = String::with_capacity(text.len() + 1);
    if !text.starts_with('/') {
        path.push('/');
    }
    for byte in text.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'@'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {
                path.push(char::from(byte));
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> PathEdit {
        PathEdit::compile(&ir::filter::PathEdit::Prefix(text.into()))
    }

    fn full(text: &str) -> PathEdit {
        PathEdit::compile(&ir::filter::PathEdit::Full(text.into()))
    }

    /// As a table tells it for a match on `prefix`.
    fn prefix_len(matched: &str) -> Option<usize> {
        Some(matched.strip_suffix('/').unwrap_or(matched).len())
    }

    #[test]
    fn a_prefix_is_replaced_by_whole_segments() {
        for (path, matched, replacement, expected) in [
            // HTTPPathModifier.replacePrefixMatch
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // beyond the table
            ("/", "/", "/xyz", "/xyz/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/foo", "/", "/", "/foo"),
            ("/foo//bar", "/foo", "/xyz", "/xyz//bar"),
            ("/foo/b%20r", "/foo", "/x", "/x/b%20r"),
            ("/foo", "/foo", "xyz", "/xyz"),
        ] {
            let edited = prefix(replacement)
                .apply(path, prefix_len(matched))
                .map(Cow::into_owned);
            let row = format!("{path} {matched} {replacement}");
            assert_eq!(edited.as_deref(), Some(expected), "{row}");
        }
    }

    #[test]
    fn a_new_prefix_without_a_matched_one_changes_nothing() {
        assert_eq!(prefix("/xyz").apply("/foo", None), None);
        assert_eq!(prefix("/xyz").apply("/foo", Some(9)), None);
        assert_eq!(prefix("/xyz").apply("/é", Some(2)), None);
    }

    #[test]
    fn a_full_path_replaces_everything() {
        for (text, expected) in [
            ("/xyz", "/xyz"),
            ("/xyz/", "/xyz/"),
            ("xyz", "/xyz"),
            ("", "/"),
            ("/a b?c#d\r\né%41", "/a%20b%3Fc%23d%0D%0A%C3%A9%41"),
            ("/A-z_0.9~!$&'()*+,;=:@", "/A-z_0.9~!$&'()*+,;=:@"),
            ("/<>\"`^{|}\\[]", "/%3C%3E%22%60%5E%7B%7C%7D%5C%5B%5D"),
        ] {
            assert_eq!(full(text).apply("/foo/bar", None).unwrap(), expected);
        }
    }

    #[test]
    fn a_rewrite_keeps_the_query() {
        let rewrite = |hostname: Option<&str>, path| {
            Rewrite::compile(&ir::filter::Rewrite {
                hostname: hostname.map(str::to_owned),
                path,
            })
        };
        let path = ir::filter::PathEdit::Prefix("/xyz".into());
        let both = rewrite(Some("one.example.org"), Some(path)).unwrap();
        assert_eq!(both.host().unwrap(), "one.example.org");
        for (query, expected) in [
            (None, "/xyz/bar"),
            (Some(""), "/xyz/bar?"),
            (Some("a=b?c"), "/xyz/bar?a=b?c"),
        ] {
            let edited = both.path_and_query("/foo/bar", query, Some(4));
            assert_eq!(edited.as_deref(), Some(expected));
        }
        let host_only = rewrite(Some("one.example.org"), None).unwrap();
        assert_eq!(host_only.path_and_query("/foo", Some("a"), Some(4)), None);
        for bad in ["", "a b", "a:80", "a/b", "é", "a\r\nb"] {
            assert_eq!(
                rewrite(Some(bad), None),
                Err(FilterError::Hostname(bad.into()))
            );
        }
    }
}
