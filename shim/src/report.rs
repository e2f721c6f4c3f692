//! What is wrong, for whoever typed the command: faults of files, conditions, violations.
//!
//! `check` prints a [`Report`] and takes its exit code from [`Report::has_problems`]; `standalone`
//! prints the same below its table. Nothing is judged here.

use std::fmt;

use crate::conditions::{ObjectStatus, Which};
use crate::files::{Fault, Files, Skipped};
use crate::translate::Translation;

/// Everything worth saying about a folder and its translation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What could not be read.
    pub faults: Vec<Fault>,
    /// One line per condition, see [`ObjectStatus::lines`].
    pub conditions: Vec<String>,
    /// Fields that keep an object out of the snapshot.
    pub violations: Vec<String>,
    /// What is written but has no effect yet.
    pub warnings: Vec<String>,
    /// Objects of kinds the gateway does not read.
    pub skipped: Vec<Skipped>,
    problems: usize,
}

impl Report {
    /// Collects from what was read and what became of it; `which` conditions are listed.
    pub fn new(files: &Files, translation: &Translation, which: Which) -> Self {
        let mut report = Self {
            faults: files.faults.to_vec(),
            skipped: files.skipped.to_vec(),
            ..Self::default()
        };
        report.problems = report.faults.len();
        for status in translation.statuses() {
            report.add(status, which);
        }
        let clusters = translation.cluster_violations().map(ToString::to_string);
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
        self.conditions.extend(status.lines(which));
        let at = &status.origin;
        self.violations.extend(
            status
                .violations
                .iter()
                .map(|violation| format!("{at}: {violation}")),
        );
        let title = format!("{} {} ({at})", status.kind, status.key);
        self.warnings.extend(
            status
                .warnings
                .iter()
                .map(|warning| format!("{title}: {warning}")),
        );
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
