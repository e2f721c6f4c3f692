//! What a request's query asks for: which objects of a list, and which page of them.
//!
//! Used by every list. A page ends at a key and not at a number, so that what is added or removed
//! between two requests makes nobody miss an object that was there all the time. Nothing here looks
//! at any state.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Objects on a page when nobody says how many.
pub(super) const PAGE: usize = 1000;
/// The most objects on a page.
pub(super) const PAGE_MAX: usize = 10_000;

/// The parameters of a query, decoded, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query apart.
    pub(super) fn of(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&');
        let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// The first value of that name that is not empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(known, _)| known == name);
        let value = values.find(|(_, value)| !value.is_empty())?;
        Some(&value.1)
    }

    /// All parameters.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn number(&self, name: &str) -> Result<Option<usize>, String> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| known == name) else {
            return Ok(None);
        };
        let number = value.parse::<usize>();
        let number = number.map_err(|_| format!("{name} must be a whole number, not {value:?}"))?;
        Ok(Some(number))
    }
}

/// Which objects of a list are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Only of this namespace.
    namespace: Option<String>,
    /// Only names that begin so.
    name: Option<String>,
    /// Only keys that contain this.
    search: Option<String>,
    /// Only of this kind, in lower case and without `route`.
    kind: Option<String>,
    /// Only keys behind this one.
    after: Option<String>,
    /// How many are left out at the front.
    offset: usize,
    /// How many are wanted at most.
    limit: usize,
}

/// A part of a list.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// The objects.
    pub(super) items: Vec<T>,
    /// Where the next page begins; nothing on the last one.
    pub(super) next: Option<String>,
}

impl Filter {
    /// Reads a query; parameters that are not known are ignored, as the contract's server does.
    pub(super) fn of(query: &Query) -> Result<Self, String> {
        let limit = query.number("limit")?.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            let advice = "ask for the rest with the Link field of the answer";
            return Err(format!(
                "limit must be from 1 to {PAGE_MAX}, not {limit}; {advice}"
            ));
        }
        let text = |name| query.get(name).map(str::to_owned);
        Ok(Self {
            namespace: text("namespace"),
            name: text("name"),
            search: text("search"),
            kind: query.get("kind").map(kind),
            after: text("continue"),
            offset: query.number("offset")?.unwrap_or(0),
            limit,
        })
    }

    /// Whether an object is wanted.
    pub(super) fn takes(&self, namespace: &str, name: &str) -> bool {
        let is_found = |text: &String| {
            let text = text.as_str();
            // Also where the text reaches over both.
            namespace.contains(text)
                || name.contains(text)
                || format!("{namespace}/{name}").contains(text)
        };
        self.namespace.as_ref().is_none_or(|it| it == namespace)
            && self.name.as_ref().is_none_or(|it| name.starts_with(it))
            && self.search.as_ref().is_none_or(is_found)
    }

    /// The same for a key of both.
    pub(super) fn takes_key(&self, key: &str) -> bool {
        let (namespace, name) = key.split_once('/').unwrap_or(("", key));
        self.takes(namespace, name)
    }

    /// Whether objects of that kind are wanted.
    pub(super) fn takes_kind(&self, name: &str) -> bool {
        self.kind.as_ref().is_none_or(|it| *it == kind(name))
    }

    /// The wanted part of a list, which is in the order of its keys.
    pub(super) fn page<T>(
        &self,
        all: impl Iterator<Item = T>,
        key: impl Fn(&T) -> String,
    ) -> Page<T> {
        let is_before = |item: &T| self.after.as_ref().is_some_and(|after| key(item) <= *after);
        let mut rest = all.skip_while(is_before).skip(self.offset);
        let items: Vec<T> = rest.by_ref().take(self.limit).collect();
        let has_more = rest.next().is_some();
        let next = items.last().filter(|_| has_more).map(key);
        Page { items, next }
    }

    /// The query of the page that begins behind `next`.
    pub(super) fn next_query(&self, next: &str) -> String {
        let mut query = format!("limit={}", self.limit);
        for (name, value) in [
            ("namespace", &self.namespace),
            ("name", &self.name),
            ("search", &self.search),
            ("kind", &self.kind),
        ] {
            if let Some(value) = value {
                query.push_str(&format!("&{name}={}", encode(value)));
            }
        }
        query.push_str("&continue=");
        query.push_str(&encode(next));
        query
    }
}

/// A kind may be written as Kubernetes does or as in keys: `HTTPRoute`, `http`.
pub fn kind(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_suffix("route").unwrap_or(&name).to_owned()
}

/// Percent-decodes; what is no UTF-8 afterwards is replaced and then matches nothing.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        let decoded = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => hex(*high).zip(hex(*low)).inspect(|_| rest = tail),
            _ => None,
        };
        bytes.push(decoded.map_or(*byte, |(high, low)| high << 4 | low));
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

fn hex(byte: u8) -> Option<u8> {
    let digit = char::from(byte).to_digit(16)?;
    u8::try_from(digit).ok()
}

/// Percent-encodes for a query or one part of a path.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(query: &str) -> Result<Filter, String> {
        Filter::of(&Query::of(Some(query)))
    }

    #[test]
    fn percent_signs_decode_or_stay() {
        for (text, decoded) in [
            ("a%2Fb", "a/b"),
            ("%", "%"),
            ("%2", "%2"),
            ("%zz", "%zz"),
            ("%e4%b8%ad", "\u{4e2d}"),
            ("%ff", "\u{fffd}"),
        ] {
            assert_eq!(decode(text), decoded, "{text}");
        }
        for text in ["shop/cart:80", "a b&c=d", "\u{4e2d}"] {
            assert_eq!(decode(&encode(text)), text);
        }
    }

    #[test]
    fn filters_are_read_and_nonsense_is_told() {
        let found = filter("namespace=shop&name=ca&search=p%2Fc&x=y").unwrap();
        assert!(found.takes("shop", "cart"));
        assert!(!found.takes("shop", "pay"));
        assert!(!found.takes("other", "cart"));
        assert!(!filter("search=z").unwrap().takes("shop", "cart"));
        for name in ["HTTPRoute", "http", "Http"] {
            assert!(filter(&format!("kind={name}")).unwrap().takes_kind("http"));
        }
        for query in ["limit=0", "limit=x", "limit=10001", "offset=-1", "limit="] {
            assert!(filter(query).is_err(), "{query}");
        }
    }

    #[test]
    fn pages_follow_each_other_whatever_is_added_or_removed_between_them() {
        let key = |item: &u32| format!("{item:03}");
        let whole = filter("").unwrap().page(0..9, key);
        assert_eq!((whole.items.len(), whole.next), (9, None));
        let part = filter("limit=2&offset=1").unwrap().page(0..9, key);
        assert_eq!(part.items, [1, 2]);
        let mut seen = Vec::new();
        let mut query = "limit=2".to_owned();
        loop {
            let now = filter(&query).unwrap();
            // 4 is taken away and 0 comes back while somebody reads.
            let all = (0..9).filter(|it| *it != 4 && (*it != 0 || !seen.is_empty()));
            let page = now.page(all, key);
            seen.extend(page.items);
            let Some(next) = page.next else { break };
            query = now.next_query(&next);
        }
        assert_eq!(seen, [1, 2, 3, 5, 6, 7, 8]);
    }
}
