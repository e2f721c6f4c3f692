//! `docs/reference/shim.md`, made from the table of settings.
//!
//! A test compares it with the page and fails when that is stale; nothing else calls this module.

use std::fmt::Write as _;

use super::keys::KEYS;

/// `docs/reference/shim.md`.
pub fn reference_page() -> String {
    let mut page = String::from(INTRODUCTION);
    let mut sections = vec![""];
    for (key, ..) in KEYS {
        if !sections.contains(&section_of(key)) {
            sections.push(section_of(key));
        }
    }
    for section in sections {
        let title = match section {
            "" => "The process",
            section => section,
        };
        let _ = write!(page, "\n## {title}\n\n{TABLE_HEAD}");
        for (key, default, meaning) in KEYS.iter().filter(|(key, ..)| section_of(key) == section) {
            let default = match *default {
                "\"\"" => "",
                default => &format!("`{default}`"),
            };
            let _ = writeln!(page, "| `{key}` | {default} | {} |", sentence(meaning));
        }
    }
    page
}

/// What a key stands below; nothing for one at the top.
fn section_of(key: &str) -> &str {
    key.split_once('.').map_or("", |(section, _)| section)
}

const INTRODUCTION: &str = "\
# Settings of the shim

<!-- Generated from shim/src/settings/keys.rs; `UPDATE_REFERENCE=1 cargo test -p shim` rewrites it. -->

`nantian-shim serve --config FILE` reads this file once at start; it is YAML with camelCase keys.
A key that is left out has its default, so an empty file means all defaults.
Flags of the command line win over the file.
A key that is not listed here is refused, and the nearest valid one is named.
A dot is a level: `grpcRuntime.keepaliveTime` is `keepaliveTime` below `grpcRuntime`.
Durations are written as in Go: `500ms`, `30s`, `1h30m`; a number without a unit is refused, except 0.
The level of the log is no setting of the file: `--log`, or `NANTIAN_GW_LOG` of the environment.
`nantian-shim standalone` and `nantian-shim check` read no settings file.
";

const TABLE_HEAD: &str = "\
| Key | Default | Meaning |
| --- | --- | --- |
";

/// A meaning of the table as a sentence; what begins with a flag stays as it is.
fn sentence(meaning: &str) -> String {
    let mut characters = meaning.chars();
    let first = characters.next().map(|first| first.to_ascii_uppercase());
    let rest = characters.as_str();
    let flagged = meaning.strip_prefix(ONLY_KUBE);
    match (flagged, first) {
        (Some(rest), _) => format!("{} Only with `--source kube`.", sentence(rest)),
        (None, Some(first)) => format!("{first}{rest}."),
        (None, None) => String::new(),
    }
}

/// How the table marks what is read for a cluster alone.
const ONLY_KUBE: &str = "--source kube: ";
