//! The first stage: what was written, key by key, with its type known and nothing else.
//!
//! Called by `bootstrap.rs`. Keys are looked up in `keys.rs`, other spellings are put back to the
//! main one, environment variables win over the file, and every fault is kept. What values mean to
//! each other is for `checked.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ir::{Network, SecretText};
use serde_yaml::Value as Yaml;

use super::error::Fault;
use super::keys::{self, ALIASES, Key, Kind, WITHOUT_EFFECT, Zero};

mod nearest;
mod value;

pub(super) use value::Value;

/// All keys with their values.
#[derive(Debug, Default)]
pub(super) struct Written {
    values: BTreeMap<&'static str, Entry>,
    /// Known keys that were written and do nothing yet.
    pub(super) without_effect: Vec<String>,
    pub(super) faults: Vec<Fault>,
}

#[derive(Debug)]
struct Entry {
    value: Value,
    origin: Origin,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The bootstrap file.
    File,
    /// This environment variable.
    Environment(&'static str),
}

impl Written {
    /// Reads the document, then the environment over it.
    pub(super) fn read(document: &Yaml, env: impl Fn(&str) -> Option<String>) -> Self {
        let mut written = Self::default();
        match document {
            Yaml::Null => {}
            Yaml::Mapping(_) => written.section("", document),
            _ => written.fault("the file", "holds no keys; write `key: value` lines"),
        }
        written.environment(env);
        written
    }

    /// Goes through one section.
    fn section(&mut self, path: &str, section: &Yaml) {
        let Yaml::Mapping(entries) = section else {
            if !section.is_null() {
                self.fault(path, "is a section; write its keys indented below it");
            }
            return;
        };
        for (name, value) in entries {
            let Some(name) = name.as_str() else {
                let place = if path.is_empty() { "the file" } else { path };
                self.fault(place, format!("holds the key {name:?}, which is not text"));
                continue;
            };
            let path = match path {
                "" => name.to_owned(),
                _ => format!("{path}.{name}"),
            };
            self.entry(&path, value);
        }
    }

    fn entry(&mut self, path: &str, value: &Yaml) {
        let main = main_spelling(path);
        if let Some(key) = keys::ALL.iter().find(|key| key.name == main) {
            self.set(key, path, value);
        } else if WITHOUT_EFFECT.contains(&main.as_str()) {
            self.without_effect.push(path.to_owned());
        } else if is_section(&main) {
            self.section(path, value);
        } else {
            let advice = match nearest::key(&main) {
                Some(near) => format!("is not a key; did you mean {near}?"),
                None => "is not a key; docs/reference/bootstrap.md lists them".to_owned(),
            };
            self.fault(path, advice);
        }
    }

    fn set(&mut self, key: &'static Key, path: &str, value: &Yaml) {
        // `key:` with nothing behind it is what templates leave of a value nobody gave.
        if value.is_null() {
            return;
        }
        match Value::from_yaml(key.kind, value) {
            Err(message) => self.fault(path, message),
            Ok(value) => {
                let entry = Entry {
                    value,
                    origin: Origin::File,
                };
                let before = self.values.insert(key.name, entry);
                let disagrees = before.is_some_and(|before| before.value != self.value(key));
                if disagrees {
                    let name = key.name;
                    let message = if path == name {
                        "an earlier spelling of it says otherwise, keep one".to_owned()
                    } else {
                        format!("another spelling of {name} says otherwise, keep one")
                    };
                    self.fault(path, message);
                }
            }
        }
    }

    fn environment(&mut self, env: impl Fn(&str) -> Option<String>) {
        for key in keys::ALL.iter().copied() {
            let set = key.env.iter().find_map(|name| {
                let text = env(name).filter(|text| !text.is_empty())?;
                Some((*name, text))
            });
            let Some((name, text)) = set else { continue };
            match Value::from_text(key.kind, &text) {
                Err(message) => self.fault(name, message),
                Ok(value) => {
                    let origin = Origin::Environment(name);
                    self.values.insert(key.name, Entry { value, origin });
                }
            }
        }
    }

    pub(super) fn fault(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.faults.push(Fault::new(key, message));
    }

    /// Where the value of a key comes from.
    pub(super) fn origin(&self, key: &Key) -> Origin {
        let entry = self.values.get(key.name);
        entry.map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Replaces a value by what it turned out to mean.
    pub(super) fn resolve(&mut self, key: &'static Key, text: &str, origin: Origin) {
        let value = Value::Text(text.to_owned());
        self.values.insert(key.name, Entry { value, origin });
    }

    /// The value of a key, its default when nobody set it or it was wrong.
    pub(super) fn value(&self, key: &Key) -> Value {
        let entry = self.values.get(key.name);
        entry.map_or_else(|| default_of(key), |entry| entry.value.clone())
    }

    /// A text; `None` when it is empty.
    pub(super) fn text(&self, key: &Key) -> Option<String> {
        match self.value(key) {
            Value::Text(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A secret; `None` when it is empty.
    pub(super) fn secret(&self, key: &Key) -> Option<SecretText> {
        match self.value(key) {
            Value::Secret(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    pub(super) fn flag(&self, key: &Key) -> bool {
        matches!(self.value(key), Value::Flag(true))
    }

    pub(super) fn share(&self, key: &Key) -> f64 {
        match self.value(key) {
            Value::Share(share) => share,
            _ => 0.0,
        }
    }

    pub(super) fn address(&self, key: &Key) -> Option<SocketAddr> {
        match self.value(key) {
            Value::Address(address) => Some(address),
            _ => None,
        }
    }

    pub(super) fn networks(&self, key: &Key) -> Vec<Network> {
        match self.value(key) {
            Value::Networks(networks) => networks,
            _ => Vec::new(),
        }
    }

    pub(super) fn texts(&self, key: &Key) -> BTreeMap<String, String> {
        match self.value(key) {
            Value::Texts(texts) => texts,
            _ => BTreeMap::new(),
        }
    }

    /// A number; its default for 0 where 0 means that.
    pub(super) fn number(&self, key: &Key) -> u64 {
        let falls_back = matches!(
            key.kind,
            Kind::Number {
                zero: Zero::Default,
                ..
            }
        );
        match self.value(key) {
            Value::Number(0) if falls_back => default_of(key).number(),
            value => value.number(),
        }
    }

    /// A number; `None` for 0.
    pub(super) fn limit(&self, key: &Key) -> Option<u64> {
        Some(self.number(key)).filter(|number| *number > 0)
    }

    pub(super) fn duration(&self, key: &Key) -> Duration {
        Duration::from_millis(self.number(key))
    }
}

/// The default of a key; a test parses all of them.
fn default_of(key: &Key) -> Value {
    Value::from_text(key.kind, key.default).unwrap_or(Value::Text(String::new()))
}

/// The same path in its main spelling.
fn main_spelling(path: &str) -> String {
    for (alias, main) in ALIASES {
        if let Some(rest) = path.strip_prefix(alias)
            && (rest.is_empty() || rest.starts_with('.'))
        {
            return format!("{main}{rest}");
        }
    }
    path.to_owned()
}

/// True when keys begin with this path and a dot.
fn is_section(path: &str) -> bool {
    let is_below =
        |name: &str| matches!(name.strip_prefix(path), Some(rest) if rest.starts_with('.'));
    let mut names = keys::ALL.iter().map(|key| key.name);
    names.any(is_below) || WITHOUT_EFFECT.iter().any(|name| is_below(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_valid_for_its_kind() {
        for key in keys::ALL {
            let value = Value::from_text(key.kind, key.default);
            assert!(value.is_ok(), "{}: {value:?}", key.name);
        }
    }

    #[test]
    fn names_are_unique_and_no_key_is_a_section() {
        let mut names: Vec<_> = keys::ALL.iter().map(|key| key.name).collect();
        names.extend(WITHOUT_EFFECT);
        let count = names.len();
        for name in &names {
            assert!(!is_section(name), "{name}");
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn aliases_lead_to_what_exists() {
        for (alias, main) in ALIASES {
            let is_key = keys::ALL.iter().any(|key| key.name == *main);
            assert!(is_key || is_section(main), "{alias}");
        }
        assert_eq!(main_spelling("access.path"), "accessLog.path");
        assert_eq!(main_spelling("accessLog.path"), "accessLog.path");
        assert_eq!(main_spelling("xdsTransport.caCertPath"), "xdsTls.caPath");
    }
}
