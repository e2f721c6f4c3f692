//! What the query of a request asks of a list: which rows, in which order, and which page of them.
//!
//! Every list goes through [`Wanted`], so that all of them take the same parameters and refuse the
//! same nonsense; a refusal names parameter and value. Parameters that are not known are ignored.
//! What the rows are is in `lists.rs`.

use std::borrow::Cow;
use std::fmt::Write as _;

use dataplane::admin::query::{encode, kind as short};
use serde_json::Value;

/// Rows of a page when nobody says how many.
const PAGE: usize = 1000;
/// The most rows of a page.
const PAGE_MAX: usize = 10_000;

/// One object of a list.
pub(super) trait Row {
    /// The kinds that the list may hold.
    const KINDS: &'static [&'static str];
    /// What it can be sorted by; [`Row::key`] knows each of them.
    const SORTS: &'static [&'static str];

    /// Its kind, one of [`Row::KINDS`].
    fn kind(&self) -> &'static str;
    /// Its namespace; empty where there is none.
    fn namespace(&self) -> &str;
    /// Its name within the namespace.
    fn name(&self) -> &str;
    /// Its place when the list is sorted by that field.
    fn key(&self, field: &str) -> Key<'_>;
    /// What is shown of it.
    fn view(&self) -> Value;
}

/// What rows are sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key<'r> {
    /// It says nothing.
    None,
    /// A number; of what holds or does not, 1 or 0.
    Number(u64),
    /// A text.
    Text(Cow<'r, str>),
}

impl<'r> From<&'r str> for Key<'r> {
    fn from(text: &'r str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Key<'_> {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u64> for Key<'_> {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<bool> for Key<'_> {
    fn from(claim: bool) -> Self {
        Self::Number(claim.into())
    }
}

/// Which rows of a list are wanted.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    namespace: Option<String>,
    name: Option<String>,
    kind: Option<String>,
    search: Option<String>,
    sort: Option<&'static str>,
    is_descending: bool,
    limit: Option<usize>,
    offset: usize,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page {
    /// What is shown.
    pub(super) rows: Vec<Value>,
    /// The query of the next page; nothing on the last one.
    pub(super) next: Option<String>,
}

impl Wanted {
    /// Reads a query for a list of such rows.
    pub(super) fn of<R: Row>(query: &str) -> Result<Self, String> {
        let mut wanted = Self::default();
        let mut seen = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(parameter) = PARAMETERS.iter().find(|known| is_named(name, known)) else {
                continue;
            };
            if seen.contains(parameter) {
                return Err(format!("{parameter} is given more than once"));
            }
            seen.push(parameter);
            let value = decode(value, Plus::IsSpace).ok_or_else(|| {
                format!("{parameter} must be UTF-8 in percent-encoding, not {value:?}")
            })?;
            wanted.set::<R>(parameter, value)?;
        }
        Ok(wanted)
    }

    fn set<R: Row>(&mut self, parameter: &str, value: String) -> Result<(), String> {
        let some = |value: String| (!value.is_empty()).then_some(value);
        let one_of = |known: &[&str]| {
            let known = known.join(", ");
            Err(format!("{parameter} must be one of {known}, not {value:?}"))
        };
        match parameter {
            "namespace" => self.namespace = some(value),
            "name" => self.name = some(value),
            "search" => self.search = some(value),
            "kind" | "sort" | "order" if value.is_empty() => {}
            "kind" => match R::KINDS.iter().any(|kind| short(kind) == short(&value)) {
                true => self.kind = Some(short(&value)),
                false => return one_of(R::KINDS),
            },
            "sort" => match R::SORTS.iter().find(|field| **field == value) {
                Some(field) => self.sort = Some(field),
                None => return one_of(R::SORTS),
            },
            "order" => match value.as_str() {
                "asc" => self.is_descending = false,
                "desc" => self.is_descending = true,
                _ => return one_of(&["asc", "desc"]),
            },
            "limit" => match number(parameter, &value)? {
                limit @ 1..=PAGE_MAX => self.limit = Some(limit),
                limit => return Err(format!("limit must be from 1 to {PAGE_MAX}, not {limit}")),
            },
            _ => self.offset = number(parameter, &value)?,
        }
        Ok(())
    }

    /// The page that is wanted of these rows, which come in the order of their names.
    pub(super) fn page<R: Row>(&self, rows: impl Iterator<Item = R>) -> Page {
        let mut rows: Vec<R> = rows.filter(|row| self.takes(row)).collect();
        if let Some(field) = self.sort {
            // It keeps rows in their order that say the same.
            rows.sort_by(|one, other| one.key(field).cmp(&other.key(field)));
        }
        if self.is_descending {
            rows.reverse();
        }
        let limit = self.limit.unwrap_or(PAGE);
        let mut rest = rows.iter().skip(self.offset);
        let shown = rest.by_ref().take(limit).map(Row::view).collect();
        let has_more = rest.next().is_some();
        Page {
            rows: shown,
            next: has_more.then(|| self.query_from(self.offset + limit, limit)),
        }
    }

    fn takes(&self, row: &impl Row) -> bool {
        let is_found = |text: &String| {
            let (namespace, name) = (row.namespace(), row.name());
            // Also where the text reaches over both.
            namespace.contains(text)
                || name.contains(text)
                || format!("{namespace}/{name}").contains(text)
        };
        self.namespace
            .as_ref()
            .is_none_or(|it| it == row.namespace())
            && self
                .name
                .as_ref()
                .is_none_or(|it| row.name().starts_with(it))
            && self.kind.as_ref().is_none_or(|it| *it == short(row.kind()))
            && self.search.as_ref().is_none_or(is_found)
    }

    fn query_from(&self, offset: usize, limit: usize) -> String {
        let mut query = String::new();
        for (parameter, value) in [
            ("namespace", self.namespace.as_deref()),
            ("name", self.name.as_deref()),
            ("kind", self.kind.as_deref()),
            ("search", self.search.as_deref()),
            ("sort", self.sort),
            ("order", self.is_descending.then_some("desc")),
        ] {
            if let Some(value) = value {
                // Writing to a text cannot fail.
                let _ = write!(query, "{parameter}={}&", encode(value));
            }
        }
        let _ = write!(query, "limit={limit}&offset={offset}");
        query
    }
}

/// What lists know.
const PARAMETERS: [&str; 8] = [
    "namespace",
    "name",
    "kind",
    "search",
    "sort",
    "order",
    "limit",
    "offset",
];

fn is_named(name: &str, known: &str) -> bool {
    decode(name, Plus::IsSpace).is_some_and(|name| name == known)
}

fn number(parameter: &str, value: &str) -> Result<usize, String> {
    let number = value.parse();
    number.map_err(|_| format!("{parameter} must be a whole number, not {value:?}"))
}

/// What `+` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plus {
    /// A space, in a query.
    IsSpace,
    /// Itself, in a path.
    IsItself,
}

/// Percent-decodes; nothing when a sign is cut short, or what comes of it is no UTF-8.
pub(super) fn decode(text: &str, plus: Plus) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => u8::try_from(digit(rest.next())? << 4 | digit(rest.next())?).ok()?,
            b'+' if plus == Plus::IsSpace => b' ',
            byte => *byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fruit(&'static str, &'static str, u64);

    impl Row for Fruit {
        const KINDS: &'static [&'static str] = &["FruitRoute"];
        const SORTS: &'static [&'static str] = &["name", "size"];

        fn kind(&self) -> &'static str {
            "FruitRoute"
        }

        fn namespace(&self) -> &str {
            self.0
        }

        fn name(&self) -> &str {
            self.1
        }

        fn key(&self, field: &str) -> Key<'_> {
            match field {
                "name" => self.1.into(),
                _ => self.2.into(),
            }
        }

        fn view(&self) -> Value {
            self.1.into()
        }
    }

    fn fruits() -> impl Iterator<Item = Fruit> {
        [
            Fruit("a", "pear", 2),
            Fruit("a", "plum", 1),
            Fruit("b b", "apple", 3),
            Fruit("b b", "pea", 1),
        ]
        .into_iter()
    }

    #[test]
    fn rows_are_chosen_sorted_and_paged() {
        for (query, shown, next) in [
            ("", "pear plum apple pea", None),
            ("sort=size", "plum pea pear apple", None),
            ("sort=size&order=desc", "apple pear pea plum", None),
            ("order=desc", "pea apple plum pear", None),
            ("order=asc&sort=name", "apple pea pear plum", None),
            ("name=pe&sort=name", "pea pear", None),
            ("kind=fruit&namespace=b+b", "apple pea", None),
            ("kind=FRUITROUTE&namespace=b%20b", "apple pea", None),
            ("search=a%2Fp", "pear plum", None),
            ("%6eame=pl&x=%zz&limits=0", "plum", None),
            ("namespace=&name=&kind=&sort=&order=&offset=4", "", None),
            ("offset=18446744073709551615", "", None),
            ("limit=2&search=b+b&namespace=b%20b", "apple pea", None),
            (
                "limit=1&search=b+b%2F&sort=size&order=desc",
                "apple",
                Some("search=b%20b%2F&sort=size&order=desc&limit=1&offset=1"),
            ),
            ("offset=1&limit=2", "plum apple", Some("limit=2&offset=3")),
        ] {
            let page = Wanted::of::<Fruit>(query).unwrap().page(fruits());
            let names: Vec<_> = page.rows.iter().flat_map(Value::as_str).collect();
            assert_eq!(names.join(" "), shown, "{query}");
            assert_eq!(page.next.as_deref(), next, "{query}");
        }
    }

    #[test]
    fn bad_values_are_refused_by_parameter_and_value() {
        for (query, expected) in [
            ("limit=0", "limit must be from 1 to 10000, not 0"),
            ("limit=10001", "limit must be from 1 to 10000, not 10001"),
            ("limit=x", "limit must be a whole number, not \"x\""),
            ("limit=", "limit must be a whole number, not \"\""),
            ("offset=-1", "offset must be a whole number, not \"-1\""),
            (
                "sort=colour",
                "sort must be one of name, size, not \"colour\"",
            ),
            ("order=up", "order must be one of asc, desc, not \"up\""),
            ("kind=Pod", "kind must be one of FruitRoute, not \"Pod\""),
            ("limit=1&limit=2", "limit is given more than once"),
            (
                "name=%zz",
                "name must be UTF-8 in percent-encoding, not \"%zz\"",
            ),
            ("search=%f", "search must be UTF-8"),
            ("namespace=%ff", "namespace must be UTF-8"),
        ] {
            let message = Wanted::of::<Fruit>(query).unwrap_err();
            assert!(message.starts_with(expected), "{query}: {message}");
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        for text in ["shop/cart:80", "a b&c=d+e%", "\u{4e2d}"] {
            assert_eq!(decode(&encode(text), Plus::IsSpace).unwrap(), text);
        }
        assert_eq!(decode("a+b", Plus::IsItself).unwrap(), "a+b");
    }
}
