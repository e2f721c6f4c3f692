//! JSON without loss: text between quotes as it was written, numbers as they were spelled.
//!
//! Readers take members as raw slices of the body and writers copy these, so that nothing passes through
//! a float or is escaped anew without need. [`Members`] reads one object, [`Text`] is the inside of one
//! string, [`Object`] and [`array`] write. What a model does with the values is no affair of this file.

mod strings;

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

pub(crate) use self::strings::containers;
pub use self::strings::{DEPTH_MAX, Place, strings};

/// Most members of an object that is taken apart.
pub const MEMBERS_MAX: usize = 1024;

/// The inside of a JSON string literal: valid between quotes, its escapes as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text<'a>(Cow<'a, str>);

impl<'a> Text<'a> {
    /// Plain text, escaped where JSON asks for it.
    pub fn new(plain: &str) -> Text<'static> {
        let mut escaped = String::with_capacity(plain.len() + 8);
        escape_into(&mut escaped, plain);
        Text(Cow::Owned(escaped))
    }

    /// What stands between the quotes of `raw`, if that is a string.
    pub fn of(raw: &'a RawValue) -> Option<Self> {
        let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
        Some(Text(Cow::Borrowed(inner)))
    }

    /// The text in its written form.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// True when it was written with nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True when nothing but white space is in it.
    pub fn is_blank(&self) -> bool {
        if self.0.contains('\\') {
            self.plain().trim().is_empty()
        } else {
            self.0.trim().is_empty()
        }
    }

    /// The text without escapes. Halves of surrogate pairs that stand alone become U+FFFD.
    pub fn plain(&self) -> Cow<'_, str> {
        if self.0.contains('\\') {
            Cow::Owned(unescape(&self.0))
        } else {
            Cow::Borrowed(&self.0)
        }
    }

    /// Adds another text. A surrogate pair that was cut in two is whole again afterwards.
    pub fn append(&mut self, other: &Text<'_>) {
        if self.0.is_empty() {
            self.0 = Cow::Owned(other.0.as_ref().to_owned());
        } else {
            self.0.to_mut().push_str(&other.0);
        }
    }

    /// Adds a text after a line break; nothing is glued to what stands before.
    pub fn append_line(&mut self, other: &Text<'_>) {
        if !self.0.is_empty() {
            self.0.to_mut().push_str("\\n");
        }
        self.append(other);
    }

    /// The same without a borrow.
    pub fn into_owned(self) -> Text<'static> {
        Text(Cow::Owned(self.0.into_owned()))
    }

    /// The same, borrowed.
    pub fn borrowed(&self) -> Text<'_> {
        Text(Cow::Borrowed(&self.0))
    }

    /// Text that is known to need no escapes.
    pub(crate) const fn literal(plain: &'static str) -> Text<'static> {
        Text(Cow::Borrowed(plain))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'de RawValue>::deserialize(deserializer)?;
        Text::of(raw).ok_or_else(|| de::Error::custom("expected a string"))
    }
}

/// The members of one object, in their order.
#[derive(Debug, Default)]
pub struct Members<'a>(Vec<(Cow<'a, str>, Option<&'a RawValue>)>);

impl<'a> Members<'a> {
    /// Reads an object. A member that stands there twice is refused: readers would differ about it.
    pub fn read(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Takes a member out; `null` is like none.
    pub fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let at = self.0.iter_mut().find(|(key, _)| key == name)?;
        at.1.take().filter(|value| value.get() != "null")
    }

    /// A member as it stands there, also `null`; it is not taken.
    pub(crate) fn find(&self, name: &str) -> Option<&'a RawValue> {
        let (_, value) = self.0.iter().find(|(key, _)| key == name)?;
        *value
    }

    /// Names of the members that nobody has taken, those with `null` left out.
    pub fn left(&self) -> impl Iterator<Item = &str> {
        let left = self
            .0
            .iter()
            .filter(|(_, value)| value.is_some_and(|value| value.get() != "null"));
        left.map(|(key, _)| key.as_ref())
    }
}

impl<'a> Members<'a> {
    /// All members but one, those that were taken left out.
    pub(crate) fn others(self, name: &str) -> Vec<(Cow<'a, str>, &'a RawValue)> {
        let others = self.0.into_iter().filter(|(key, _)| key != name);
        others
            .filter_map(|(key, value)| Some((key, value?)))
            .collect()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(Cow<'de, str>, Option<&'de RawValue>)> =
                    Vec::with_capacity(8);
                while let Some(key) = map.next_key::<&'de RawValue>()? {
                    let key = Text::of(key).ok_or_else(|| de::Error::custom("expected a name"))?;
                    let key = match key.0 {
                        Cow::Borrowed(name) if !name.contains('\\') => Cow::Borrowed(name),
                        other => Cow::Owned(unescape(&other)),
                    };
                    let value = map.next_value()?;
                    if members.len() == MEMBERS_MAX {
                        return Err(de::Error::custom("too many members in one object"));
                    }
                    members.push((key, Some(value)));
                }
                match twice(&members) {
                    None => Ok(Members(members)),
                    Some(name) => Err(de::Error::custom(format_args!(
                        "`{name}` stands there twice"
                    ))),
                }
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A name that stands there twice. Few are compared with each other, many are put in order first.
fn twice<'m>(members: &'m [(Cow<'_, str>, Option<&RawValue>)]) -> Option<&'m str> {
    const FEW: usize = 16;
    if members.len() > FEW {
        let mut names: Vec<&str> = members.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|two| two[0] == two[1]);
        return twice.map(|two| two[0]);
    }
    let stands_before = |at: usize, name: &str| members[..at].iter().any(|(it, _)| it == name);
    let mut names = members.iter().map(|(name, _)| name.as_ref()).enumerate();
    names
        .find(|(at, name)| stands_before(*at, name))
        .map(|(_, name)| name)
}

/// What kind of value a slice of JSON is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{…}`
    Object,
    /// `[…]`
    Array,
    /// `"…"`
    String,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// `null`
    Null,
}

/// The kind of a value.
pub fn kind(raw: &RawValue) -> Kind {
    match raw.get().as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The items of an array, as they were written.
pub fn items(raw: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(raw.get()).ok()
}

/// The objects of an array.
pub(crate) fn objects(raw: &RawValue) -> Result<Vec<Members<'_>>, serde_json::Error> {
    serde_json::from_str(raw.get())
}

/// A number as a count; floats without a fraction are understood, as some providers write them.
pub fn count(raw: &RawValue) -> Option<u64> {
    let text = raw.get();
    if let Ok(count) = text.parse() {
        return Some(count);
    }
    let number: f64 = text.parse().ok()?;
    let is_count = number.is_finite() && number >= 0.0 && number.fract() == 0.0 && number < 1e15;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a whole number between 0 and 10^15"
    )]
    is_count.then_some(number as u64)
}

/// Writes the members of one object.
pub struct Object<'o> {
    out: &'o mut String,
    is_first: bool,
}

impl<'o> Object<'o> {
    /// Opens an object at the end of `out`.
    pub fn open(out: &'o mut String) -> Self {
        out.push('{');
        Self {
            out,
            is_first: true,
        }
    }

    /// Writes a name and gives the place for its value. Names need no escapes.
    pub fn member(&mut self, name: &str) -> &mut String {
        if !self.is_first {
            self.out.push(',');
        }
        self.is_first = false;
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
        self.out
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, name: &str, json: &str) -> &mut Self {
        self.member(name).push_str(json);
        self
    }

    /// A value that is JSON already, if there is one.
    pub fn maybe(&mut self, name: &str, json: Option<&RawValue>) -> &mut Self {
        if let Some(json) = json {
            self.raw(name, json.get());
        }
        self
    }

    /// A string.
    pub fn text(&mut self, name: &str, text: &Text<'_>) -> &mut Self {
        quote(self.member(name), text);
        self
    }

    /// A string that needs no escapes.
    pub fn word(&mut self, name: &str, word: &str) -> &mut Self {
        let out = self.member(name);
        out.push('"');
        out.push_str(word);
        out.push('"');
        self
    }

    /// A number.
    pub fn number(&mut self, name: &str, number: u64) -> &mut Self {
        push_number(self.member(name), number);
        self
    }

    /// An object inside.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut Object<'_>)) -> &mut Self {
        let mut inner = Object::open(self.member(name));
        write(&mut inner);
        inner.close();
        self
    }

    /// A list, each item written by `write`.
    pub fn list<T>(
        &mut self,
        name: &str,
        items: impl IntoIterator<Item = T>,
        write: impl FnMut(&mut String, T),
    ) -> &mut Self {
        array(self.member(name), items, write);
        self
    }

    /// Closes it.
    pub fn close(self) {
        self.out.push('}');
    }
}

/// Writes an array.
pub fn array<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    mut write: impl FnMut(&mut String, T),
) {
    out.push('[');
    let mut is_first = true;
    for item in items {
        if !is_first {
            out.push(',');
        }
        is_first = false;
        write(out, item);
    }
    out.push(']');
}

/// Writes a string.
pub fn quote(out: &mut String, text: &Text<'_>) {
    out.push('"');
    out.push_str(text.raw());
    out.push('"');
}

/// Writes plain text as a string.
pub fn quote_plain(out: &mut String, plain: &str) {
    out.push('"');
    escape_into(out, plain);
    out.push('"');
}

/// Writes a number in decimal.
pub fn push_number(out: &mut String, number: u64) {
    use fmt::Write as _;
    // Writing to a string cannot fail.
    let _ = write!(out, "{number}");
}

/// Writes plain text with the escapes that JSON asks for.
pub fn escape_into(out: &mut String, plain: &str) {
    let bytes = plain.as_bytes();
    let mut from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0x00..=0x1f => "",
            _ => continue,
        };
        out.push_str(&plain[from..at]);
        from = at + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.push_str("\\u00");
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(&plain[from..]);
}

/// Resolves the escapes of a valid string literal.
fn unescape(raw: &str) -> String {
    let mut plain = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let escaped = &rest[at + 1..];
        let (c, used) = match escaped.as_bytes().first() {
            Some(b'n') => ('\n', 1),
            Some(b't') => ('\t', 1),
            Some(b'r') => ('\r', 1),
            Some(b'b') => ('\u{8}', 1),
            Some(b'f') => ('\u{c}', 1),
            Some(b'u') => unicode(&escaped[1..]),
            Some(&byte) if byte.is_ascii() => (char::from(byte), 1),
            _ => (char::REPLACEMENT_CHARACTER, 0),
        };
        plain.push(c);
        rest = &escaped[used..];
    }
    plain.push_str(rest);
    plain
}

/// The character of what follows `\u`, and how much of it was used, the `u` included.
fn unicode(digits: &str) -> (char, usize) {
    let unit = |text: &str| {
        text.get(..4)
            .and_then(|hex| u32::from_str_radix(hex, 16).ok())
    };
    let Some(first) = unit(digits) else {
        return (char::REPLACEMENT_CHARACTER, 1);
    };
    if let Some(c) = char::from_u32(first) {
        return (c, 5);
    }
    let second = digits[4..].strip_prefix("\\u").and_then(unit);
    match second {
        Some(second @ 0xdc00..=0xdfff) if first < 0xdc00 => {
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            (
                char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER),
                11,
            )
        }
        _ => (char::REPLACEMENT_CHARACTER, 5),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_are_resolved_and_half_pairs_replaced() {
        let table = [
            (r"plain", "plain"),
            (r#"a\"b\\c\/d"#, "a\"b\\c/d"),
            (r"\b\f\n\r\t", "\u{8}\u{c}\n\r\t"),
            (r"\u00e9\u20AC", "é€"),
            (r"\ud83d\ude00!", "😀!"),
            (r"\ud83d", "\u{fffd}"),
            (r"\ude00x", "\u{fffd}x"),
            (r"\ud83d\u0041", "\u{fffd}A"),
        ];
        for (raw, plain) in table {
            let json = format!("\"{raw}\"");
            let text: Text<'_> = serde_json::from_str(&json).unwrap();
            assert_eq!(text.plain(), plain, "{raw}");
        }
    }

    #[test]
    fn a_pair_cut_in_two_texts_is_whole_when_they_are_joined() {
        let mut text = Text(Cow::Borrowed(r"\ud83d"));
        text.append(&Text(Cow::Borrowed(r"\ude00")));
        assert_eq!(text.plain(), "😀");
    }

    #[test]
    fn members_are_taken_once_and_nulls_are_none() {
        let mut members = Members::read(r#"{"a":1,"b":null,"\u0063":"x","d":[1.0e2]}"#).unwrap();
        assert_eq!(members.take("a").unwrap().get(), "1");
        assert!(members.take("a").is_none());
        assert!(members.take("b").is_none());
        assert_eq!(members.left().collect::<Vec<_>>(), ["c", "d"]);
        assert_eq!(members.take("d").unwrap().get(), "[1.0e2]");
    }

    #[test]
    fn what_readers_would_differ_about_is_refused() {
        for json in [
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
            "[]",
            "1",
            "{",
            r#"{"a":1}x"#,
        ] {
            assert!(Members::read(json).is_err(), "{json}");
        }
        let object = |names: &mut dyn Iterator<Item = usize>| {
            let members: Vec<String> = names.map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        for count in [3, 16, 17, MEMBERS_MAX - 1, MEMBERS_MAX] {
            let json = object(&mut (0..count));
            assert!(Members::read(&json).is_ok(), "{json}");
            let json = object(&mut (0..count).chain([count / 2]));
            assert!(Members::read(&json).is_err(), "{json}");
        }
        assert!(Members::read(&object(&mut (0..=MEMBERS_MAX))).is_err());
    }

    #[test]
    fn counts_are_whole_numbers() {
        let table = [
            ("7", Some(7)),
            ("7.0", Some(7)),
            ("1e3", Some(1000)),
            ("-1", None),
            ("1.5", None),
            ("18446744073709551615", Some(u64::MAX)),
            ("\"7\"", None),
        ];
        for (json, expected) in table {
            let raw: &RawValue = serde_json::from_str(json).unwrap();
            assert_eq!(count(raw), expected, "{json}");
        }
    }

    proptest! {
        #[test]
        fn escaping_is_what_json_asks_for(plain in any::<String>()) {
            let text = Text::new(&plain);
            let read: String = serde_json::from_str(&format!("\"{}\"", text.raw())).unwrap();
            prop_assert_eq!(&read, &plain);
            prop_assert_eq!(text.plain(), plain);
        }
    }
}
