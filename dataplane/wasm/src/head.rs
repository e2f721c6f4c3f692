//! The head of a message as a plugin sees it: header fields, and what HTTP/2 writes as pseudo fields.
//!
//! Made by the proxy for each hook and read back by it; here are the rules of what a plugin may write.
//! Fields that speak of framing or of the connection are not a plugin's to set.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pairs;

/// Bytes of names and values that plugins may add to a head, however large it came.
const ADDED_BYTES_MAX: isize = 64 * 1024;
/// Fields that they may add.
const ADDED_FIELDS_MAX: isize = 256;

/// Fields that plugins may not write: they would change where a message ends, or whom it is for.
const NOT_TO_WRITE: [&str; 8] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A head, or trailers.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// `:method`, `:path`, `:authority`, `:scheme`, or `:status`; a plugin may change values, not names.
    pub pseudo: Vec<(&'static str, Bytes)>,
    /// The header fields.
    pub fields: HeaderMap,
    /// A pseudo field was written.
    pub is_rewritten: bool,
    /// What plugins added beyond what they removed.
    added: Added,
}

/// Fields and bytes; below zero where more was removed.
#[derive(Clone, Copy, Debug, Default)]
struct Added {
    fields: isize,
    bytes: isize,
}

/// A plugin wrote what may not stand in a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAllowed;

impl Head {
    /// A head as it came.
    pub fn new(pseudo: Vec<(&'static str, Bytes)>, fields: HeaderMap) -> Self {
        Self {
            pseudo,
            fields,
            ..Self::default()
        }
    }

    /// A head without pseudo fields, such as trailers.
    pub fn of(fields: HeaderMap) -> Self {
        Self::new(Vec::new(), fields)
    }

    /// The value of a pseudo field.
    pub fn pseudo(&self, name: &str) -> Option<&Bytes> {
        let mut all = self.pseudo.iter();
        all.find(|(it, _)| *it == name).map(|(_, value)| value)
    }

    /// The same with all values of fields in one piece of memory of their own: as they were read, each of
    /// them keeps the whole buffer that it came in.
    #[must_use]
    pub fn unshared(mut self) -> Self {
        let bytes = self.fields.values().map(HeaderValue::len).sum();
        let mut room = BytesMut::with_capacity(bytes);
        for value in self.fields.values_mut() {
            room.extend_from_slice(value.as_bytes());
            let copied = HeaderValue::from_maybe_shared(room.split().freeze());
            if let Ok(mut copied) = copied {
                copied.set_sensitive(value.is_sensitive());
                *value = copied;
            }
        }
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.pseudo.len() + self.fields.len()
    }

    /// Bytes of all names and values.
    pub(crate) fn bytes(&self) -> usize {
        let pseudo = self.pseudo.iter();
        let pseudo = pseudo.map(|(name, value)| name.len() + value.len());
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| name.as_str().len() + value.len());
        pseudo.chain(fields).sum()
    }

    /// All fields as they are written in a guest's memory.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let pseudo = self.pseudo.iter();
        let pseudo = pseudo.map(|(name, value)| (name.as_bytes(), &value[..]));
        let fields = self.fields.iter();
        let fields = fields.map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
        pairs::encode(pseudo.chain(fields))
    }

    /// The value of a field, joined by commas where it stands several times.
    pub(crate) fn value(&self, name: &[u8]) -> Option<Vec<u8>> {
        if name.first() == Some(&b':') {
            let name = std::str::from_utf8(name).ok()?;
            return self.pseudo(name).map(|value| value.to_vec());
        }
        let name = HeaderName::from_bytes(name).ok()?;
        let mut values = self.fields.get_all(name).iter();
        let mut joined = values.next()?.as_bytes().to_vec();
        for value in values {
            joined.push(b',');
            joined.extend_from_slice(value.as_bytes());
        }
        Some(joined)
    }

    pub(crate) fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), NotAllowed> {
        if name.first() == Some(&b':') {
            return self.set_pseudo(name, value);
        }
        let (name, value) = field(name, value)?;
        self.added = self.added.and((&name, &value))?;
        self.fields.append(name, value);
        Ok(())
    }

    pub(crate) fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), NotAllowed> {
        if name.first() == Some(&b':') {
            return self.set_pseudo(name, value);
        }
        let (name, value) = field(name, value)?;
        self.added = self.without(&name).and((&name, &value))?;
        self.fields.insert(name, value);
        Ok(())
    }

    /// Removes a field; one that is not there, and a pseudo field, stays as it is.
    pub(crate) fn remove(&mut self, name: &[u8]) {
        if let Ok(name) = HeaderName::from_bytes(name) {
            self.added = self.without(&name);
            self.fields.remove(name);
        }
    }

    /// Replaces all fields; nothing changes when one of them is not allowed.
    pub(crate) fn set(&mut self, pairs: &[(&[u8], &[u8])]) -> Result<(), NotAllowed> {
        let mut next = Self {
            pseudo: self.pseudo.clone(),
            fields: HeaderMap::new(),
            is_rewritten: self.is_rewritten,
            added: self.added.less(self.fields.iter()),
        };
        for (name, value) in pairs {
            next.add(name, value)?;
        }
        *self = next;
        Ok(())
    }

    fn set_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), NotAllowed> {
        let mut all = self.pseudo.iter_mut();
        let known = all.find(|(it, _)| it.as_bytes() == name);
        let (_, known) = known.ok_or(NotAllowed)?;
        if value.len().cast_signed() > ADDED_BYTES_MAX
            || value.iter().any(|byte| *byte < b' ' || *byte == 0x7f)
        {
            return Err(NotAllowed);
        }
        if known != value {
            *known = Bytes::copy_from_slice(value);
            self.is_rewritten = true;
        }
        Ok(())
    }

    /// What has been added once that field is gone.
    fn without(&self, name: &HeaderName) -> Added {
        let values = self.fields.get_all(name).iter();
        self.added.less(values.map(|value| (name, value)))
    }
}

type Field<'a> = (&'a HeaderName, &'a HeaderValue);

impl Added {
    /// With one field more, if there is room for it.
    fn and(self, field: Field<'_>) -> Result<Self, NotAllowed> {
        let with = Self {
            fields: self.fields + 1,
            bytes: self.bytes + bytes(field),
        };
        match with.fields <= ADDED_FIELDS_MAX && with.bytes <= ADDED_BYTES_MAX {
            true => Ok(with),
            false => Err(NotAllowed),
        }
    }

    fn less<'a>(self, fields: impl Iterator<Item = Field<'a>>) -> Self {
        fields.fold(self, |added, field| Self {
            fields: added.fields - 1,
            bytes: added.bytes - bytes(field),
        })
    }
}

fn bytes((name, value): Field<'_>) -> isize {
    (name.as_str().len() + value.len()).cast_signed()
}

fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), NotAllowed> {
    let name = HeaderName::from_bytes(name).map_err(|_| NotAllowed)?;
    if NOT_TO_WRITE.contains(&name.as_str()) {
        return Err(NotAllowed);
    }
    let value = HeaderValue::from_bytes(value).map_err(|_| NotAllowed)?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        let mut head = Head {
            pseudo: vec![(":path", Bytes::from_static(b"/a"))],
            ..Head::default()
        };
        head.add(b"x-a", b"1").unwrap();
        head.add(b"x-a", b"2").unwrap();
        head
    }

    #[test]
    fn values_are_read_written_and_removed() {
        let mut head = head();
        assert_eq!(head.value(b"X-A").unwrap(), b"1,2");
        assert_eq!(head.value(b":path").unwrap(), b"/a");
        head.replace(b"x-a", b"3").unwrap();
        head.replace(b":path", b"/b").unwrap();
        assert!(head.is_rewritten);
        assert_eq!(head.value(b"x-a").unwrap(), b"3");
        head.remove(b"x-a");
        head.remove(b":path");
        assert_eq!(head.value(b"x-a"), None);
        assert_eq!(head.value(b":path").unwrap(), b"/b");
    }

    #[test]
    fn what_is_kept_of_a_head_does_not_keep_its_buffer() {
        let buffer = Bytes::from(b"one two".to_vec());
        let shared = |range| HeaderValue::from_maybe_shared(buffer.slice(range)).unwrap();
        let mut head = Head::of(HeaderMap::new());
        for (name, range) in [
            ("x-a", 0..3),
            ("x-b", 4..7),
            ("x-a", 4..7),
            ("x-none", 7..7),
        ] {
            head.fields.append(name, shared(range));
        }
        head.fields.get_mut("x-b").unwrap().set_sensitive(true);
        let fields = head.fields.clone();
        let head = head.unshared();
        assert_eq!(head.fields, fields);
        assert!(head.fields["x-b"].is_sensitive() && !head.fields["x-a"].is_sensitive());
        drop(fields);
        assert!(buffer.is_unique());
        assert_eq!(
            head.bytes(),
            "x-aone".len() + "x-atwo".len() + "x-btwo".len() + "x-none".len()
        );
    }

    #[test]
    fn framing_and_broken_fields_are_refused() {
        for (name, value) in [
            (&b"transfer-encoding"[..], &b"chunked"[..]),
            (b"Host", b"evil.test"),
            (b"connection", b"close"),
            (b"a b", b"1"),
            (b"", b"1"),
            (b"x", b"a\r\nb: c"),
            (b":unknown", b"1"),
            (b":path", b"/a\r\nx: y"),
        ] {
            let mut head = head();
            assert_eq!(head.add(name, value), Err(NotAllowed));
            assert_eq!(head.replace(name, value), Err(NotAllowed));
            assert_eq!(head.set(&[(name, value)]), Err(NotAllowed));
            assert_eq!(head.value(b"x-a").unwrap(), b"1,2", "nothing changed");
        }
    }

    #[test]
    fn a_head_does_not_grow_without_bound() {
        let mut head = head();
        let large = vec![b'v'; 1024];
        let added = (0..10_000).take_while(|_| head.add(b"x", &large).is_ok());
        assert_eq!(added.count(), 63);
        let added = (0..10_000).take_while(|_| head.add(b"y", b"").is_ok());
        assert!((1..256).contains(&added.count()));
        head.remove(b"x");
        head.replace(b"x", &large).unwrap();
    }

    #[test]
    fn a_large_head_can_be_changed_and_loses_nothing_to_a_refusal() {
        let mut head = Head::of(HeaderMap::new());
        let large = HeaderValue::from_bytes(&[b'v'; 1024]).unwrap();
        for at in 0..300_u16 {
            let name = HeaderName::from_bytes(format!("x-{at}").as_bytes()).unwrap();
            head.fields.insert(name, large.clone());
        }
        head.add(b"x-stamp", b"one").unwrap();
        head.replace(b"x-7", b"short").unwrap();
        let all = head.clone();
        let pairs = all.fields.iter();
        let pairs: Vec<_> = pairs
            .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
            .collect();
        head.set(&pairs).unwrap();
        assert_eq!(head.fields, all.fields);
        let too_large = vec![b'v'; 70_000];
        assert_eq!(head.replace(b"x-7", &too_large), Err(NotAllowed));
        assert_eq!(head.value(b"x-7").unwrap(), b"short");
    }
}
