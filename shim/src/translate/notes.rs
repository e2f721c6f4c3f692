//! What comes up while one route is translated, gathered for its conditions.
//!
//! The parts of a route's translation return values and write everything else down here;
//! [`super::route`] turns the notes into conditions once all is known.

use std::collections::BTreeSet;
use std::sync::Arc;

use ir::Violation;

/// What came up while one route was translated.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The route, as `Kind namespace/name`.
    pub(super) object: String,
    /// Faults that keep the whole route out.
    pub(super) violations: Vec<Violation>,
    /// References that lead nowhere: reason and message; their share of requests fails.
    pub(super) unresolved: Vec<(&'static str, String)>,
    /// What the data plane cannot do: rule and message; the rule's requests fail.
    pub(super) unsupported: Vec<(usize, String)>,
    /// What is written but has no effect yet.
    pub(super) warnings: Vec<String>,
    /// Clusters the route sends to, `namespace/service:port`.
    pub(super) clusters: BTreeSet<Arc<str>>,
    /// Services the route names, there or not, `namespace/service`.
    pub(super) services: BTreeSet<Arc<str>>,
    /// Services the route may send to, for the policies that target them.
    pub(super) reached: BTreeSet<Arc<str>>,
    /// AIServices the route names, there or not, `namespace/name`.
    pub(super) ai_services: BTreeSet<Arc<str>>,
    /// DirectResponses the route names, there or not, `namespace/name`.
    pub(super) direct_responses: BTreeSet<Arc<str>>,
    /// It names something in another namespace.
    pub(super) crosses_namespaces: bool,
}

impl Notes {
    pub(super) fn new(object: String) -> Self {
        Self {
            object,
            ..Self::default()
        }
    }

    /// A fault at a field, which keeps the route out.
    pub(super) fn violation(&mut self, path: &str, message: impl Into<String>) {
        self.violations.push(Violation {
            object: self.object.clone(),
            path: path.to_owned(),
            message: message.into(),
        });
    }

    /// A reference that leads nowhere.
    pub(super) fn unresolved(&mut self, reason: &'static str, path: &str, message: String) {
        self.unresolved.push((reason, format!("{path}: {message}")));
    }

    /// Something of rule `rule` that the data plane cannot do.
    pub(super) fn unsupported(&mut self, rule: usize, path: &str, message: &str) {
        self.unsupported.push((rule, format!("{path}: {message}")));
    }

    /// Something that is written but has no effect yet.
    pub(super) fn warn(&mut self, path: &str, message: &str) {
        self.warnings.push(format!("{path}: {message}"));
    }
}
