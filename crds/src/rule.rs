//! A validation rule that needs more than one field: as CEL for the API server, with its message.
//!
//! Types carry their rules in the schema (`x-kubernetes-validations`), and the same message is given
//! by [`crate::check`] where no API server is asked. What one field alone may hold is in the schema
//! proper: ranges, lengths, patterns, enumerations.

use serde_json::{Value, json};

/// A rule about an object of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The condition that must hold, in CEL, about `self`.
    pub cel: &'static str,
    /// What is wrong and what to write.
    pub message: &'static str,
}

/// The value of `x-kubernetes-validations`.
pub(crate) fn validations(rules: &[Rule]) -> Value {
    let rules = rules.iter().map(
        |rule| json!({"rule": rule.cel, "message": rule.message, "reason": "FieldValueInvalid"}),
    );
    Value::Array(rules.collect())
}

/// What is wrong with an object, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The field, such as `spec.loadBalancing.consistentHash`.
    pub path: String,
    /// What is wrong and what to write.
    pub message: String,
}

/// Collects the faults of an object's rules.
#[derive(Debug, Default)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl Faults {
    /// Notes a broken rule.
    pub(crate) fn unless(&mut self, holds: bool, path: impl Into<String>, rule: Rule) {
        if !holds {
            self.0.push(Fault {
                path: path.into(),
                message: rule.message.to_owned(),
            });
        }
    }
}
