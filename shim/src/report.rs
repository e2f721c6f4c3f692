//! What is wrong, for whoever typed the command: faults of files, conditions, violations.
//!
//! `check` prints a [`Report`], as lines or as JSON, and takes its exit code from
//! [`Report::has_problems`]; `standalone` prints the lines below its table. Nothing is judged here.

use std::fmt;
use std::sync::Arc;

use ir::Violation;
use serde_json::{Value, json};

use crate::cluster_view::{Kind, Origin};
use crate::conditions::{ObjectStatus, Told, Which};
use crate::files::{Fault, Files, Skipped};
use crate::translate::Translation;

/// Everything worth saying about a folder and its translation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// What is claimed of objects.
    pub conditions: Vec<Told>,
    /// Fields that keep an object out of the snapshot.
    pub violations: Vec<Kept>,
    /// What is written but has no effect yet.
    pub warnings: Vec<Warning>,
    /// Objects of kinds the gateway does not read.
    pub skipped: Vec<Skipped>,
    /// How many objects were read.
    objects: usize,
    problems: usize,
}

/// A field that keeps an object out of the snapshot.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where the object was read; nothing for a cluster, which is made of several.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub violation: Violation,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Some(origin) => write!(f, "{origin}: {}", self.violation),
            None => self.violation.fmt(f),
        }
    }
}

/// What is written but has no effect yet.
#[derive(Clone, Debug)]
pub struct Warning {
    /// Kind of the object.
    pub kind: Kind,
    /// `namespace/name`, or the name alone.
    pub key: Arc<str>,
    /// Where it was read.
    pub origin: Origin,
    /// What has no effect.
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, key, origin) = (&self.kind, &self.key, &self.origin);
        write!(f, "{kind} {key} ({origin}): {}", self.message)
    }
}

impl Report {
    /// Collects from what was read and what became of it; `which` conditions are listed.
    pub fn new(files: &Files, translation: &Translation, which: Which) -> Self {
        let mut report = Self {
            faults: files.faults.to_vec(),
            skipped: files.skipped.to_vec(),
            objects: files.view.len(),
            ..Self::default()
        };
        report.problems = report.faults.len();
        for status in translation.statuses() {
            report.add(status, which);
        }
        let clusters = translation.cluster_violations().map(|violation| Kept {
            origin: None,
            violation: violation.clone(),
        });
        report.violations.extend(clusters);
        report.problems += translation.cluster_violations().count();
        report
    }

    fn add(&mut self, status: &ObjectStatus, which: Which) {
        let problems = status
            .all_conditions()
            .filter(|(_, condition)| condition.is_problem())
            .count();
        self.problems += problems + status.violations.len();
        self.conditions.extend(status.told(which));
        let violations = status.violations.iter().map(|violation| Kept {
            origin: Some(status.origin.clone()),
            violation: violation.clone(),
        });
        self.violations.extend(violations);
        let warnings = status.warnings.iter().map(|message| Warning {
            kind: status.kind,
            key: status.key.clone(),
            origin: status.origin.clone(),
            message: message.clone(),
        });
        self.warnings.extend(warnings);
    }

    /// The same for programs; no field is ever left out.
    pub fn to_json(&self) -> Value {
        json!({
            "objects": self.objects,
            "problems": self.problems,
            "faults": self.faults.iter().map(|it| json!({
                "file": &*it.file,
                "line": it.line,
                "object": it.object,
                "path": it.path,
                "message": it.message,
            })).collect::<Value>(),
            "conditions": self.conditions.iter().map(|it| json!({
                "kind": it.kind.as_str(),
                "key": &*it.key,
                "file": &*it.origin.file,
                "line": it.origin.line,
                "part": it.part,
                "type": it.condition.kind,
                "status": it.condition.status,
                "reason": it.condition.reason,
                "message": it.condition.message,
                "problem": it.condition.is_problem(),
            })).collect::<Value>(),
            "violations": self.violations.iter().map(|it| json!({
                "file": it.origin.as_ref().map_or("", |origin| &origin.file),
                "line": it.origin.as_ref().map_or(0, |origin| origin.line),
                "object": it.violation.object,
                "path": it.violation.path,
                "message": it.violation.message,
            })).collect::<Value>(),
            "warnings": self.warnings.iter().map(|it| json!({
                "kind": it.kind.as_str(),
                "key": &*it.key,
                "file": &*it.origin.file,
                "line": it.origin.line,
                "message": it.message,
            })).collect::<Value>(),
            "skipped": self.skipped.iter().map(|it| json!({
                "file": &*it.file,
                "line": it.line,
                "what": it.what,
            })).collect::<Value>(),
        })
    }

    /// True when something was left out or does not work as written; warnings do not count.
    pub fn has_problems(&self) -> bool {
        self.problems > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        section(f, "faults", &self.faults)?;
        section(f, "conditions", &self.conditions)?;
        section(f, "violations", &self.violations)?;
        section(f, "without effect yet", &self.warnings)?;
        section(f, "skipped", &self.skipped)
    }
}

fn section<T: fmt::Display>(f: &mut fmt::Formatter<'_>, title: &str, lines: &[T]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}:")?;
    for line in lines {
        writeln!(f, "  {line}")?;
    }
    Ok(())
}
