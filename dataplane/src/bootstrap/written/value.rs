//! One value of one key: read from YAML or text, held to its type and range.
//!
//! Messages say what was expected; they show the value unless the key is a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};

use ir::{Network, SecretText};
use serde_yaml::Value as Yaml;

use crate::bootstrap::keys::{Kind, Zero};

/// A value of the type its key asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Secret(SecretText),
    Flag(bool),
    Share(f64),
    Address(SocketAddr),
    Number(u64),
    Networks(Vec<Network>),
    Texts(BTreeMap<String, String>),
}

impl Value {
    /// From the file.
    pub(crate) fn from_yaml(kind: Kind, yaml: &Yaml) -> Result<Self, String> {
        match (kind, yaml) {
            (Kind::Flag, Yaml::Bool(flag)) => Ok(Self::Flag(*flag)),
            (Kind::Share, Yaml::Number(number)) => share(number.as_f64().unwrap_or(f64::NAN)),
            (Kind::Number { min, max, zero, .. }, Yaml::Number(number)) => {
                let fits = number.as_u64();
                let fits = fits.ok_or_else(|| {
                    format!("expected a whole number that is not negative, found {number}")
                })?;
                in_range(fits, min, max, zero)
            }
            (Kind::Text | Kind::Secret | Kind::Choice(_) | Kind::Address, Yaml::String(text)) => {
                Self::from_text(kind, text)
            }
            // `1.2` without quotes is a number to YAML.
            (Kind::Choice(_), Yaml::Number(number)) => Self::from_text(kind, &number.to_string()),
            (Kind::Networks, Yaml::String(text)) => Self::from_text(kind, text),
            (Kind::Networks, Yaml::Sequence(blocks)) => {
                let block = |block: &Yaml| match block {
                    Yaml::String(text) => network(text),
                    other => Err(format!("expected {kind}, found {}", shown(other))),
                };
                blocks
                    .iter()
                    .map(block)
                    .collect::<Result<_, _>>()
                    .map(Self::Networks)
            }
            (Kind::Texts, Yaml::Mapping(entries)) => {
                let entry = |(name, text): (&Yaml, &Yaml)| match (name, text) {
                    (Yaml::String(name), Yaml::String(text)) => Ok((name.clone(), text.clone())),
                    (_, other) => Err(format!("expected {kind}, found {}", shown(other))),
                };
                entries
                    .iter()
                    .map(entry)
                    .collect::<Result<_, _>>()
                    .map(Self::Texts)
            }
            (Kind::Secret, _) => Err("expected text; put the value into quotes".to_owned()),
            (Kind::Text, Yaml::Number(_) | Yaml::Bool(_)) => {
                Err("expected text; put the value into quotes".to_owned())
            }
            _ => Err(format!("expected {kind}, found {}", shown(yaml))),
        }
    }

    /// From the environment, and from the table of defaults.
    pub(crate) fn from_text(kind: Kind, text: &str) -> Result<Self, String> {
        let unexpected = || format!("expected {kind}, found {text:?}");
        match kind {
            Kind::Text => Ok(Self::Text(text.trim().to_owned())),
            Kind::Secret => Ok(Self::Secret(SecretText::new(text.to_owned()))),
            Kind::Texts if text.is_empty() => Ok(Self::Texts(BTreeMap::new())),
            Kind::Texts => Err(unexpected()),
            Kind::Choice(words) if words.contains(&text) => Ok(Self::Text(text.to_owned())),
            Kind::Choice(_) => Err(unexpected()),
            Kind::Flag => text.parse().map(Self::Flag).map_err(|_| unexpected()),
            Kind::Share => share(text.parse().unwrap_or(f64::NAN)),
            Kind::Address => address(text).map(Self::Address).ok_or_else(unexpected),
            Kind::Networks => {
                let blocks = text
                    .split(',')
                    .map(str::trim)
                    .filter(|block| !block.is_empty());
                blocks
                    .map(network)
                    .collect::<Result<_, _>>()
                    .map(Self::Networks)
            }
            Kind::Number { min, max, zero, .. } => {
                in_range(text.parse().map_err(|_| unexpected())?, min, max, zero)
            }
        }
    }

    /// The number; 0 when it is none.
    pub(crate) fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            _ => 0,
        }
    }
}

/// As it would be written; a secret is blanked.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Secret(text) if text.is_empty() => f.write_str("\"\""),
            Self::Secret(_) => f.write_str("\"***\""),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Share(share) => write!(f, "{share}"),
            Self::Address(address) => write!(f, "\"{address}\""),
            Self::Number(number) => write!(f, "{number}"),
            Self::Networks(networks) => {
                let blocks: Vec<_> = networks.iter().map(|it| format!("\"{it}\"")).collect();
                write!(f, "[{}]", blocks.join(", "))
            }
            Self::Texts(texts) => {
                let texts: Vec<_> = texts.iter().map(|(k, v)| format!("{k:?}: {v:?}")).collect();
                write!(f, "{{{}}}", texts.join(", "))
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text | Self::Secret => f.write_str("text"),
            Self::Choice(words) => f.write_str(&words.join(" or ")),
            Self::Flag => f.write_str("true or false"),
            Self::Share => f.write_str("a number from 0 to 1"),
            Self::Address => f.write_str("an address as in 127.0.0.1:19080"),
            Self::Number { .. } => f.write_str("a whole number"),
            Self::Networks => f.write_str("a list of address blocks as in [10.0.0.0/8]"),
            Self::Texts => f.write_str("texts by name"),
        }
    }
}

fn share(share: f64) -> Result<Value, String> {
    if (0.0..=1.0).contains(&share) {
        Ok(Value::Share(share))
    } else {
        Err(format!("expected a number from 0 to 1, found {share}"))
    }
}

fn in_range(number: u64, min: u64, max: u64, zero: Zero) -> Result<Value, String> {
    if number == 0 || (min..=max).contains(&number) {
        return Ok(Value::Number(number));
    }
    let zero = match zero {
        Zero::Plain => "0",
        Zero::Unlimited => "0 for no limit",
        Zero::Default => "0 for the default",
    };
    Err(format!(
        "expected {min} to {max}, or {zero}; found {number}"
    ))
}

fn network(text: &str) -> Result<Network, String> {
    text.parse().map_err(|error| format!("{text:?} {error}"))
}

fn address(text: &str) -> Option<SocketAddr> {
    if let Some(port) = text.strip_prefix("localhost:") {
        return Some((Ipv4Addr::LOCALHOST, port.parse().ok()?).into());
    }
    text.parse().ok()
}

fn shown(yaml: &Yaml) -> String {
    match yaml {
        Yaml::Null => "nothing".to_owned(),
        Yaml::Bool(flag) => flag.to_string(),
        Yaml::Number(number) => number.to_string(),
        Yaml::String(text) => format!("the text {text:?}"),
        Yaml::Sequence(_) => "a list".to_owned(),
        Yaml::Mapping(_) => "a section".to_owned(),
        Yaml::Tagged(_) => "a tagged value".to_owned(),
    }
}
