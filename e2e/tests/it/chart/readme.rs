//! The chart's README lists every value; it is made of the comments in `values.yaml`.
//!
//! `UPDATE_REFERENCE=1` writes it anew.

use std::fs;

use e2e::chart::chart;
use serde_json::Value;

/// What follows this line of the README is generated.
const MARK: &str =
    "<!-- Generated from values.yaml: UPDATE_REFERENCE=1 cargo test -p e2e --test it chart -->\n";

#[test]
fn the_readme_lists_every_value() {
    let file = chart().join("README.md");
    let readme = fs::read_to_string(&file).unwrap();
    let (by_hand, _) = readme.split_once(MARK).unwrap();
    let now = format!("{by_hand}{MARK}\n{}", table());
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&file, &now).unwrap();
        return;
    }
    assert!(
        now == readme,
        "values.yaml says otherwise; UPDATE_REFERENCE=1 takes it over"
    );
}

/// A row for every value with a comment.
fn table() -> String {
    let text = fs::read_to_string(chart().join("values.yaml")).unwrap();
    let all: Value = serde_yaml::from_str(&text).unwrap();
    let mut rows = String::from("| Value | Default | Meaning |\n| --- | --- | --- |\n");
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut meaning = None;
    for line in text.lines() {
        let inner = line.trim_start();
        let depth = line.len() - inner.len();
        if let Some(said) = inner.strip_prefix("# -- ") {
            meaning = Some(said);
            continue;
        }
        let Some((key, _)) = inner.split_once(':') else {
            continue;
        };
        if inner.starts_with(['-', '#']) {
            continue;
        }
        path.retain(|(of, _)| *of < depth);
        path.push((depth, key));
        let names: Vec<_> = path.iter().map(|(_, name)| *name).collect();
        let Some(said) = meaning.take() else {
            continue;
        };
        let value = all.pointer(&format!("/{}", names.join("/"))).unwrap();
        rows += &format!("| `{}` | `{value}` | {said} |\n", names.join("."));
    }
    rows
}
