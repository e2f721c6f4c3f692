//! On which line of a document a field stands, for messages about it.
//!
//! The parser tells places only with its errors, so the way to a field is walked through the text once
//! more and ended by an error on arrival. That is done for a fault alone; a valid object costs nothing.
//! What a field means is judged in [`super::object`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One step of the way to a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The value of a key.
    Key(String),
    /// An item of a list, from 0.
    Item(usize),
}

/// The line of the field at `path`, from 0 at the start of `text`; of the nearest thing around it
/// when there is no such field, as for one that is missing.
pub(super) fn line_of(text: &str, path: &[Step]) -> usize {
    let lengths = (1..=path.len()).rev();
    let mut lines = lengths.filter_map(|length| find(text, &path[..length]));
    lines.next().unwrap_or_default()
}

fn find(text: &str, path: &[Step]) -> Option<usize> {
    let yaml = serde_yaml::Deserializer::from_str(text);
    let error = Walk(path).deserialize(yaml).err()?;
    // Any other error would be a malformed document, which never gets here.
    let is_there = error.to_string().contains(ARRIVED);
    let location = error.location().filter(|_| is_there)?;
    Some(location.line().saturating_sub(1))
}

const ARRIVED: &str = "the field that was looked for";

/// Walks through a value along a path; with no step left, it has arrived.
struct Walk<'a>(&'a [Step]);

impl Walk<'_> {
    fn arrive<E: Error>(&self) -> Result<(), E> {
        match self.0 {
            [] => Err(E::custom(ARRIVED)),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value on the way")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.arrive()?;
        while let Some(is_ours) = map.next_key_seed(AtKey(self.0))? {
            match is_ours {
                true => map.next_value_seed(Walk(&self.0[1..]))?,
                false => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        self.arrive()?;
        for index in 0.. {
            let more = match self.0 {
                [Step::Item(wanted), rest @ ..] if *wanted == index => {
                    list.next_element_seed(Walk(rest))?
                }
                _ => list.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.arrive()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.arrive()
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        self.arrive()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.arrive()
    }
}

/// Reads a key: true when it is the next step, and an arrival when it is the last one, because a
/// field stands where its key does.
struct AtKey<'a>(&'a [Step]);

impl<'de> DeserializeSeed<'de> for AtKey<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for AtKey<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        match self.0 {
            [Step::Key(last)] if last == key => Err(E::custom(ARRIVED)),
            [Step::Key(name), ..] => Ok(name == key),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<Step> {
        let steps = text.split('.').filter(|step| !step.is_empty());
        let steps = steps.map(|step| match step.parse() {
            Ok(index) => Step::Item(index),
            Err(_) => Step::Key(step.to_owned()),
        });
        steps.collect()
    }

    #[test]
    fn a_field_stands_where_its_key_does() {
        let text = "\
kind: X          # 0
metadata:        # 1
  name: a        # 2
  labels: {a: b, # 3
    c: d}        # 4
spec:            # 5
  rules:         # 6
  - matches:     # 7
    - path: &p   # 8
        type: X  # 9
    - path: *p   # 10
  - name: ~      # 11
    'port': 80   # 12
    on: [1,      # 13
      true, 2.5] # 14
";
        for (at, line) in [
            ("", 0),
            ("metadata", 1),
            ("metadata.name", 2),
            ("metadata.labels.c", 4),
            ("metadata.namespace", 1),
            ("spec.rules.0", 7),
            ("spec.rules.0.matches.0", 8),
            ("spec.rules.0.matches.0.path.type", 9),
            ("spec.rules.0.matches.1.path", 10),
            ("spec.rules.0.matches.1.path.type", 9),
            ("spec.rules.1", 11),
            ("spec.rules.1.port", 12),
            ("spec.rules.1.port.deeper", 12),
            ("spec.rules.1.on.0", 13),
            ("spec.rules.1.on.1", 14),
            ("spec.rules.1.on.2", 14),
            ("spec.rules.2.port", 6),
            ("frobnicate", 0),
        ] {
            assert_eq!(line_of(text, &path(at)), line, "{at}");
        }
    }

    #[test]
    fn a_document_in_json_has_lines_too() {
        let text = "{\n  \"spec\": {\n    \"a\": [\n      1,\n      2\n    ]\n  }\n}\n";
        assert_eq!(line_of(text, &path("spec.a")), 2);
        assert_eq!(line_of(text, &path("spec.a.1")), 4);
    }

    #[test]
    fn what_is_no_document_has_only_a_first_line() {
        for text in ["", "a: [", "- {[a]: b}", "!tag {a: b}", "{[x]: 1, a: 2}"] {
            assert_eq!(line_of(text, &path("a")), 0, "{text}");
        }
    }
}
