//! Typed access to a `google.protobuf.Struct`.
//!
//! Numbers arrive as doubles, lists and objects are open: each accessor says what it wanted when
//! it meets something else. A null is the same as nothing.

use std::collections::BTreeMap;

use prost_types::value::Kind;
use prost_types::{Struct, Value};

use super::report::{At, Report};

/// The fields of a struct and the place it stands in.
pub(super) struct Fields<'a> {
    fields: &'a BTreeMap<String, Value>,
    pub(super) at: &'a At<'a>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(item: &'a Struct, at: &'a At<'a>) -> Self {
        Self {
            fields: &item.fields,
            at,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    fn kind(&self, name: &str) -> Option<&'a Kind> {
        match self.fields.get(name)?.kind.as_ref()? {
            Kind::NullValue(_) => None,
            kind => Some(kind),
        }
    }

    pub(super) fn text(&self, name: &'static str, report: &mut Report) -> Option<Option<String>> {
        match self.kind(name) {
            None => Some(None),
            Some(Kind::StringValue(text)) => Some(Some(text.clone())),
            Some(_) => report.refuse(&self.at.field(name), "is not a text"),
        }
    }

    pub(super) fn flag(&self, name: &'static str, report: &mut Report) -> Option<Option<bool>> {
        match self.kind(name) {
            None => Some(None),
            Some(Kind::BoolValue(flag)) => Some(Some(*flag)),
            Some(_) => report.refuse(&self.at.field(name), "is neither true nor false"),
        }
    }

    pub(super) fn whole_number(
        &self,
        name: &'static str,
        min: u32,
        max: u32,
        report: &mut Report,
    ) -> Option<Option<u32>> {
        let number = match self.kind(name) {
            None => return Some(None),
            Some(Kind::NumberValue(number)) => *number,
            Some(_) => return report.refuse(&self.at.field(name), "is not a number"),
        };
        if number.fract() == 0.0 && number >= f64::from(min) && number <= f64::from(max) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a whole number between two values of u32"
            )]
            return Some(Some(number as u32));
        }
        report.refuse(
            &self.at.field(name),
            format_args!("{number} is not a whole number from {min} to {max}"),
        )
    }

    pub(super) fn object<'b>(
        &self,
        name: &'static str,
        at: &'b At<'b>,
        report: &mut Report,
    ) -> Option<Option<Fields<'b>>>
    where
        'a: 'b,
    {
        match self.kind(name) {
            None => Some(None),
            Some(Kind::StructValue(item)) => Some(Some(Fields::new(item, at))),
            Some(_) => report.refuse(at, "is not an object"),
        }
    }

    pub(super) fn texts(
        &self,
        name: &'static str,
        report: &mut Report,
        decode: impl Fn(String, &At<'_>, &mut Report) -> Option<String>,
    ) -> Option<Vec<String>> {
        self.entries(name, report, |kind, at, report| match kind {
            Some(Kind::StringValue(text)) => decode(text.clone(), at, report),
            _ => report.refuse(at, "is not a text"),
        })
    }

    pub(super) fn objects<T>(
        &self,
        name: &'static str,
        report: &mut Report,
        decode: impl Fn(&Fields<'_>, &mut Report) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.entries(name, report, |kind, at, report| match kind {
            Some(Kind::StructValue(item)) => decode(&Fields::new(item, at), report),
            _ => report.refuse(at, "is not an object"),
        })
    }

    /// Entries that are texts, by name.
    pub(super) fn text_map(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| match &value.kind {
            Some(Kind::StringValue(text)) => Some(text.clone()),
            _ => None,
        };
        let entries = self.fields.iter();
        entries
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect()
    }

    fn entries<T>(
        &self,
        name: &'static str,
        report: &mut Report,
        decode: impl Fn(Option<&Kind>, &At<'_>, &mut Report) -> Option<T>,
    ) -> Option<Vec<T>> {
        let values = match self.kind(name) {
            None => return Some(Vec::new()),
            Some(Kind::ListValue(list)) => &list.values,
            Some(_) => return report.refuse(&self.at.field(name), "is not a list"),
        };
        let mut decoded = Vec::with_capacity(values.len());
        let mut is_good = true;
        for (index, value) in values.iter().enumerate() {
            match decode(value.kind.as_ref(), &self.at.index(name, index), report) {
                Some(entry) => decoded.push(entry),
                None => is_good = false,
            }
        }
        is_good.then_some(decoded)
    }
}
