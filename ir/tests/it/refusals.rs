//! Every rule of decoding as a table: what is sent, and each violation it earns.
//!
//! A case in `tests/data/refusals` starts with `## name`, goes on with a snapshot (or, in
//! `delta.txt`, a delta) in text form and ends with one `=> violation` per fault. `id: "v1"` is
//! added where a case does not speak of it. `UPDATE_GOLDEN=1` writes the violations anew.

use std::fmt::Write as _;
use std::path::Path;

use ir::{Violations, decode};

use crate::text;

struct Case {
    name: String,
    input: String,
    expected: Vec<String>,
}

fn cases(table: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in table.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            cases.push(Case {
                name: name.to_owned(),
                input: String::new(),
                expected: Vec::new(),
            });
        } else if let Some(case) = cases.last_mut() {
            match line.strip_prefix("=> ") {
                Some(violation) => case.expected.push(violation.to_owned()),
                None if line.is_empty() => {}
                None => writeln!(case.input, "{line}").unwrap(),
            }
        }
    }
    cases
}

fn check(file: &str, refuse: fn(&str) -> Result<(), Violations>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/refusals")
        .join(file);
    let table = std::fs::read_to_string(&path).unwrap();
    let cases = cases(&table);
    assert!(!cases.is_empty(), "{file} holds no case");
    let mut written = String::new();
    let mut wrong = Vec::new();
    for case in cases {
        let found: Vec<String> = match refuse(&case.input) {
            Ok(()) => Vec::new(),
            Err(violations) => violations.iter().map(ToString::to_string).collect(),
        };
        write!(written, "## {}\n{}", case.name, case.input).unwrap();
        for violation in &found {
            writeln!(written, "=> {violation}").unwrap();
        }
        written.push('\n');
        if found.is_empty() || found != case.expected {
            let expected = case.expected;
            wrong.push(format!(
                "{}: expected {expected:#?}, found {found:#?}",
                case.name
            ));
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, written.trim_end().to_owned() + "\n").unwrap();
        return;
    }
    assert!(wrong.is_empty(), "{file}:\n{}", wrong.join("\n"));
}

fn snapshot(input: &str) -> Result<(), Violations> {
    let id = if input.contains("id:") {
        ""
    } else {
        "id: \"v1\"\n"
    };
    decode::snapshot(text::snapshot(&format!("{id}{input}"))).map(drop)
}

fn delta(input: &str) -> Result<(), Violations> {
    decode::delta(text::delta(input)).map(drop)
}

#[test]
fn faulty_snapshots_are_refused_with_their_reason() {
    check("snapshot.txt", snapshot);
}

#[test]
fn faulty_listeners_are_refused_with_their_reason() {
    check("listener.txt", snapshot);
}

#[test]
fn faulty_routes_are_refused_with_their_reason() {
    check("route.txt", snapshot);
}

#[test]
fn faulty_filters_are_refused_with_their_reason() {
    check("filter.txt", snapshot);
}

#[test]
fn faulty_clusters_are_refused_with_their_reason() {
    check("cluster.txt", snapshot);
}

#[test]
fn faulty_plugins_are_refused_with_their_reason() {
    check("wasm.txt", snapshot);
}

#[test]
fn faulty_security_policies_are_refused_with_their_reason() {
    check("security.txt", snapshot);
}

#[test]
fn faulty_deltas_are_refused_with_their_reason() {
    check("delta.txt", delta);
}
