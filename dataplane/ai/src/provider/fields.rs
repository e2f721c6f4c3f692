//! Members of a request with the type they must have, and what a client is told when they have not.
//!
//! What nobody has asked for when [`Fields`] go out of use is noted as left behind, so that no reader can
//! forget it.

use std::cell::RefCell;

use serde_json::value::RawValue;

use crate::chat::Reasoning;
use crate::failure::Failure;
use crate::json::{self, Kind, Members, Text};
use crate::left_behind::LeftBehind;

/// An object whose faults name the member they are about.
pub(super) struct Fields<'a, 'l> {
    members: Members<'a>,
    path: &'static str,
    left: &'l RefCell<LeftBehind>,
}

impl Drop for Fields<'_, '_> {
    fn drop(&mut self) {
        let mut left = self.left.borrow_mut();
        for name in self.members.left() {
            left.note_in(self.path, name);
        }
    }
}

impl<'a, 'l> Fields<'a, 'l> {
    /// Reads an object; `path` is how messages name it.
    pub(super) fn read(
        raw: &'a str,
        path: &'static str,
        left: &'l RefCell<LeftBehind>,
    ) -> Result<Self, Failure> {
        match Members::read(raw) {
            Ok(members) => Ok(Self {
                members,
                path,
                left,
            }),
            Err(error) => Err(wrong(path, "an object").because(&error)),
        }
    }

    /// Reads an object that stands somewhere in this one.
    pub(super) fn inner(&self, raw: &'a RawValue, path: &'static str) -> Result<Self, Failure> {
        Self::read(raw.get(), path, self.left)
    }

    /// Notes a member that was understood and still has no place.
    pub(super) fn leave(&self, member: &str) {
        self.left.borrow_mut().note_in(self.path, member);
    }

    pub(super) fn raw(&mut self, name: &str) -> Option<&'a RawValue> {
        self.members.take(name)
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<Text<'a>>, Failure> {
        self.of_kind(name, Kind::String, "a string")
            .map(|raw| raw.and_then(Text::of))
    }

    pub(super) fn needed_text(&mut self, name: &str) -> Result<Text<'a>, Failure> {
        self.text(name)?.ok_or_else(|| {
            Failure::invalid(format!("`{}` is missing", self.path_of(name)))
                .about(&self.path_of(name))
        })
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<&'a RawValue>, Failure> {
        self.of_kind(name, Kind::Number, "a number")
    }

    pub(super) fn bool(&mut self, name: &str) -> Result<Option<bool>, Failure> {
        let raw = self.of_kind(name, Kind::Bool, "true or false")?;
        Ok(raw.map(|raw| raw.get() == "true"))
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<&'a RawValue>, Failure> {
        self.of_kind(name, Kind::Object, "an object")
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<&'a RawValue>, Failure> {
        let raw = self.of_kind(name, Kind::Array, "a list")?;
        Ok(raw.and_then(json::items).unwrap_or_default())
    }

    /// The objects of a list, which `path` names in messages. They are read with the list in one pass, since
    /// almost all of a request is text in its messages.
    pub(super) fn objects(&mut self, name: &str, path: &'static str) -> Result<Vec<Self>, Failure> {
        let Some(raw) = self.of_kind(name, Kind::Array, "a list")? else {
            return Ok(Vec::new());
        };
        let left = self.left;
        let fields = |members| Self {
            members,
            path,
            left,
        };
        match json::objects(raw) {
            Ok(objects) => Ok(objects.into_iter().map(fields).collect()),
            // What is wrong with which of them is said by reading one after the other.
            Err(_) => {
                let items = json::items(raw).unwrap_or_default().into_iter();
                items.map(|item| self.inner(item, path)).collect()
            }
        }
    }

    pub(super) fn texts(&mut self, name: &str) -> Result<Vec<Text<'a>>, Failure> {
        let texts = self.list(name)?.into_iter().map(Text::of);
        let texts: Option<Vec<_>> = texts.collect();
        texts.ok_or_else(|| wrong(&self.path_of(name), "a list of strings").failure())
    }

    fn of_kind(
        &mut self,
        name: &str,
        kind: Kind,
        expected: &'static str,
    ) -> Result<Option<&'a RawValue>, Failure> {
        match self.members.take(name) {
            Some(raw) if json::kind(raw) != kind => {
                Err(wrong(&self.path_of(name), expected).failure())
            }
            raw => Ok(raw),
        }
    }

    fn path_of(&self, name: &str) -> String {
        match self.path {
            "" => name.to_owned(),
            path => format!("{path}.{name}"),
        }
    }
}

struct Wrong {
    path: String,
    expected: &'static str,
}

/// `path` is not what it must be.
fn wrong(path: &str, expected: &'static str) -> Wrong {
    Wrong {
        path: path.to_owned(),
        expected,
    }
}

impl Wrong {
    fn failure(self) -> Failure {
        let Self { path, expected } = self;
        Failure::invalid(format!("`{path}` must be {expected}")).about(&path)
    }

    fn because(self, error: &serde_json::Error) -> Failure {
        if self.path.is_empty() {
            return Failure::invalid(format!("the body is not a JSON object: {error}"));
        }
        let Self { path, expected } = self;
        Failure::invalid(format!("`{path}` must be {expected}: {error}")).about(&path)
    }
}

/// A value is not what it must be.
pub(super) fn must_be(path: &str, expected: &'static str) -> Failure {
    wrong(path, expected).failure()
}

/// A number for comparing; what is forwarded is always its spelling.
pub(super) fn magnitude(raw: &RawValue) -> f64 {
    raw.get().parse().unwrap_or(f64::NAN)
}

/// The words for efforts that all formats share; `path` is where the word stands.
pub(super) fn effort_of(word: &str, path: &'static str) -> Result<Reasoning, Failure> {
    Ok(match word {
        "low" => Reasoning::Low,
        "medium" => Reasoning::Medium,
        "high" => Reasoning::High,
        "xhigh" => Reasoning::XHigh,
        "max" => Reasoning::Max,
        other => {
            let message = format!("`{other}` is not an effort");
            return Err(Failure::invalid(message).about(path));
        }
    })
}
