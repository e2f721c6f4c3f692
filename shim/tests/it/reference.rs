//! The page of the settings is the table of the settings, and is named where users look.

use std::path::Path;

use shim::conditions::reasons::{self, REASONS};
use shim::settings::reference_page;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[test]
fn the_page_of_settings_is_current() {
    let path = Path::new(ROOT).join("docs/reference/shim.md");
    let page = reference_page();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/reference/shim.md is stale; run UPDATE_REFERENCE=1 cargo test -p shim and commit \
         the page"
    );
}

/// What stands above the commands.
const COMMANDS: &str = "# nantian-shim

<!-- Generated: UPDATE_REFERENCE=1 cargo test --workspace reference:: -->

The control plane for development; its settings file is in [shim.md](shim.md).

| exit code | means |
| --- | --- |
| 0 | a clean stop; `check` found nothing wrong |
| 1 | something failed while running; `check` found something wrong |
| 2 | the command line or the settings cannot be used, or files cannot be read |
";

#[test]
fn the_page_of_commands_is_current() {
    let path = Path::new(ROOT).join("docs/reference/nantian-shim.md");
    let sections = dataplane::cli::pages(shim::cli::command(), "nantian-shim");
    let page = format!("{COMMANDS}{sections}");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/reference/nantian-shim.md is stale; run UPDATE_REFERENCE=1 cargo test -p shim and \
         commit the page"
    );
}

#[test]
fn completion_scripts_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = std::process::Command::new(env!("CARGO_BIN_EXE_nantian-shim"))
            .args(["completion", shell])
            .output()
            .unwrap();
        let script = String::from_utf8(script.stdout).unwrap();
        assert!(script.contains("standalone"), "{shell}: {script}");
    }
}

#[test]
fn the_help_and_the_readme_name_the_page() {
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_nantian-shim"))
        .args(["serve", "--help"])
        .output()
        .unwrap();
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).unwrap();
    for text in [String::from_utf8(help.stdout).unwrap(), readme] {
        assert!(text.contains("docs/reference/shim.md"), "{text}");
    }
}

#[test]
fn the_page_of_conditions_is_current() {
    let path = Path::new(ROOT).join("docs/reference/conditions.md");
    let page = reasons::reference_page();
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == page,
        "docs/reference/conditions.md is stale; run UPDATE_REFERENCE=1 cargo test -p shim and \
         commit the page"
    );
}

/// The source of the shim without blanks, and without the table of reasons and tests.
fn source(folder: &Path, all: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source(&path, all);
        } else if !path.ends_with("conditions/reasons.rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            all.extend(code.split_whitespace());
        }
    }
}

/// What stands before a reason where a condition is made.
const BEFORE_A_REASON: &[&str] = &[
    "Fault::new(",
    ".refuse(",
    ".unresolved(",
    "Err((",
    "ConditionType::Accepted,",
    "ConditionType::Programmed,",
    "ConditionType::ResolvedRefs,",
    "Truth::True,",
    "Truth::False,",
    "Truth::Unknown,",
    "letreason=",
    "reason:",
];

#[test]
fn every_reason_in_the_source_is_on_the_page_and_no_other() {
    let mut code = String::new();
    source(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut code,
    );
    for before in BEFORE_A_REASON {
        let opener = format!("{before}\"");
        let quoted = code.split(&opener).skip(1);
        for name in quoted.filter_map(|rest| rest.split('"').next()) {
            let is_reason = name.starts_with(char::is_uppercase) && !name.contains(['{', ':']);
            let is_known = REASONS.iter().any(|reason| reason.name == name);
            assert!(
                !is_reason || is_known,
                "{name} is a reason of conditions: give it a row in shim/src/conditions/reasons.rs"
            );
        }
    }
    for reason in REASONS {
        let name = reason.name;
        let is_named = code.contains(&format!("\"{name}\""));
        assert!(is_named, "no condition has the reason {name} any more");
    }
}
