//! Adding, setting and removing header fields (Gateway API `HTTPHeaderFilter`).
//!
//! One edit is applied as remove, then set, then add: what the filter removes are the fields that
//! came with the message, never those it writes itself. `add` puts a line of its own below existing
//! ones, which RFC 9110 5.3 calls the same as one line joined by commas and which is also right for
//! `Set-Cookie`. Framing and connection fields are the engine's own: entries that name one are left
//! out, since a configuration must not be able to make a message ambiguous.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::FilterError;

/// A compiled `RequestHeaderModifier` or `ResponseHeaderModifier`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdit {
    set: Box<[(HeaderName, HeaderValue)]>,
    add: Box<[(HeaderName, HeaderValue)]>,
    remove: Box<[HeaderName]>,
}

impl HeaderEdit {
    /// Parses names and values.
    ///
    /// Of several entries on one name in `set`, or in `add`, the first counts (Gateway API
    /// `HTTPHeader.name`).
    pub fn compile(edit: &ir::filter::HeaderEdit) -> Result<Self, FilterError> {
        Ok(Self {
            set: fields(&edit.set)?,
            add: fields(&edit.add)?,
            remove: edit
                .remove
                .iter()
                .map(|text| name(text))
                .filter(|name| !name.as_ref().is_ok_and(is_of_engine))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Changes `headers`.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            // Fails only beyond 32,768 fields; heads are limited to far fewer.
            let _ = headers.try_insert(name, value.clone());
        }
        for (name, value) in &self.add {
            let _ = headers.try_append(name, value.clone());
        }
    }

    /// True when it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// Fields that say where a message ends, what its connection does, and whom it is for.
fn is_of_engine(name: &HeaderName) -> bool {
    const FIELDS: [HeaderName; 8] = [
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::HOST,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    FIELDS.contains(name)
}

fn fields(entries: &[(String, String)]) -> Result<Box<[(HeaderName, HeaderValue)]>, FilterError> {
    let mut fields: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(entries.len());
    for (text, value) in entries {
        let name = name(text)?;
        // White space around a value is no part of it (RFC 9110 5.5).
        let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes())
            .map_err(|_| FilterError::HeaderValue(text.clone()))?;
        if !is_of_engine(&name) && !fields.iter().any(|(held, _)| *held == name) {
            fields.push((name, value));
        }
    }
    Ok(fields.into())
}

fn name(text: &str) -> Result<HeaderName, FilterError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| FilterError::HeaderName(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn edit(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> ir::filter::HeaderEdit {
        ir::filter::HeaderEdit {
            set: pairs(set),
            add: pairs(add),
            remove: remove.iter().map(|name| name.to_string()).collect(),
        }
    }

    #[test]
    fn an_edit_removes_then_sets_then_adds() {
        let before = &[("a", "1"), ("a", "2"), ("b", "3")][..];
        for (edit, expected) in [
            (edit(&[], &[], &[]), before),
            (edit(&[("a", "9")], &[], &[]), &[("a", "9"), ("b", "3")]),
            (edit(&[("A", "9")], &[], &[]), &[("a", "9"), ("b", "3")]),
            (
                edit(&[("c", "9")], &[], &[]),
                &[("a", "1"), ("a", "2"), ("b", "3"), ("c", "9")],
            ),
            (
                edit(&[], &[("a", "9")], &[]),
                &[("a", "1"), ("a", "2"), ("a", "9"), ("b", "3")],
            ),
            (edit(&[], &[], &["a", "c"]), &[("b", "3")]),
            (edit(&[], &[("a", "9")], &["A"]), &[("a", "9"), ("b", "3")]),
            (
                edit(&[("a", "8")], &[("a", "9")], &["a"]),
                &[("a", "8"), ("a", "9"), ("b", "3")],
            ),
            (
                edit(&[("b", "8"), ("B", "9")], &[("c", "1"), ("C", "2")], &[]),
                &[("a", "1"), ("a", "2"), ("b", "8"), ("c", "1")],
            ),
            (edit(&[("a", "é ")], &[], &["b"]), &[("a", "é")]),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in before {
                headers.append(*name, value.parse().unwrap());
            }
            HeaderEdit::compile(&edit).unwrap().apply(&mut headers);
            let mut after: Vec<(&str, &str)> = headers
                .iter()
                .map(|(name, value)| {
                    let value = std::str::from_utf8(value.as_bytes()).unwrap();
                    (name.as_str(), value)
                })
                .collect();
            after.sort_by_key(|(name, _)| *name);
            assert_eq!(after, expected, "{edit:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_field_is_named() {
        for (bad, error) in [
            (
                edit(&[("a b", "1")], &[], &[]),
                FilterError::HeaderName("a b".into()),
            ),
            (
                edit(&[], &[("", "1")], &[]),
                FilterError::HeaderName("".into()),
            ),
            (edit(&[], &[], &["é"]), FilterError::HeaderName("é".into())),
            (
                edit(&[("a", "1\r\nb: 2")], &[], &[]),
                FilterError::HeaderValue("a".into()),
            ),
        ] {
            assert_eq!(HeaderEdit::compile(&bad), Err(error));
        }
    }

    #[test]
    fn an_edit_without_entries_is_empty() {
        let compile = |edit| HeaderEdit::compile(&edit).unwrap().is_empty();
        assert!(compile(edit(&[], &[], &[])));
        assert!(!compile(edit(&[("a", "1")], &[], &[])));
        assert!(!compile(edit(&[], &[("a", "1")], &[])));
        assert!(!compile(edit(&[], &[], &["a"])));
    }
}
