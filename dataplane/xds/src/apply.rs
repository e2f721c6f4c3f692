//! What this crate asks of the rest of the data plane: take an update, or refuse it.
//!
//! The binary implements [`Apply`] (decode, compile, swap); tests implement it in a few lines. The
//! client calls it for one update at a time, in the order in which updates arrived.

use std::future::Future;

use ir::{Version, Violation, Violations, wire};

/// One update, as it came from the wire.
#[derive(Debug)]
pub enum Update {
    /// A whole configuration. Its `id` is never blank: a blank one was filled in from the response.
    Full(Box<wire::ConfigSnapshot>),
    /// The way from the held version to the next. Its `base_version` is the held version and its
    /// `version` is not blank.
    Delta(Box<wire::SnapshotDelta>),
}

/// Takes configurations in.
pub trait Apply: Send + 'static {
    /// Applies one update as a whole, or refuses it as a whole and changes nothing.
    ///
    /// Resolves with the version that now serves, and only once its listeners do: the client tells
    /// the control plane so as soon as this returns.
    fn apply(&mut self, update: Update) -> impl Future<Output = Result<Version, Rejection>> + Send;

    /// The version that serves now; read once, when the client starts.
    fn held(&self) -> Option<Version>;
}

/// Why an update was refused. The previous configuration still serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejection {
    /// The refusal in words, for the control plane's operator.
    pub reason: String,
    /// The single faults, when they are known.
    pub violations: Vec<Violation>,
    /// The update was a delta that does not fit what is held: a whole snapshot is needed.
    pub resync: bool,
}

impl Rejection {
    /// A refusal of the update for what it holds.
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            ..Self::default()
        }
    }

    /// A refusal of a delta that does not fit what is held.
    pub fn resync(reason: impl Into<String>) -> Self {
        Self {
            resync: true,
            ..Self::new(reason)
        }
    }
}

impl From<Violations> for Rejection {
    fn from(violations: Violations) -> Self {
        Self {
            reason: violations.to_string(),
            violations: violations.iter().cloned().collect(),
            resync: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn violations_become_a_rejection_that_names_them() {
        let violation = Violation {
            object: "HTTPRoute shop/cart".to_owned(),
            path: "rules[0]".to_owned(),
            message: "has no match".to_owned(),
        };
        let rejection = Rejection::from(Violations::from(violation.clone()));
        assert_eq!(
            rejection.reason,
            "HTTPRoute shop/cart: rules[0]: has no match"
        );
        assert_eq!(rejection.violations, [violation]);
        assert!(!rejection.resync);
    }
}
