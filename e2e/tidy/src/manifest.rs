//! Floors and locked rooms: which crate may depend on which, read from the `Cargo.toml` files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{Faults, files_below, read, shown};

/// One crate of the workspace.
#[derive(Debug)]
pub(crate) struct Crate {
    /// Its package name.
    pub(crate) name: String,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// What it needs to build and run.
    dependencies: BTreeSet<String>,
    /// What its tests need.
    dev_dependencies: BTreeSet<String>,
}

/// Floor of each crate and which of ours it may import; a crate never imports its own floor.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("ir", 0, &[]),
    ("dataplane-telemetry", 1, &[]),
    ("dataplane-resilience", 1, &[]),
    ("dataplane-memory", 1, &[]),
    (
        "dataplane-route",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-tls",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-upstream",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-xds",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-ai",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-wasm",
        2,
        &["ir", "dataplane-telemetry", "dataplane-resilience"],
    ),
    (
        "dataplane-config",
        3,
        &[
            "ir",
            "dataplane-telemetry",
            "dataplane-resilience",
            "dataplane-route",
            "dataplane-tls",
            "dataplane-upstream",
            "dataplane-wasm",
            "dataplane-ai",
        ],
    ),
    (
        "dataplane-http",
        4,
        &[
            "ir",
            "dataplane-telemetry",
            "dataplane-resilience",
            "dataplane-route",
            "dataplane-tls",
            "dataplane-upstream",
            "dataplane-wasm",
            "dataplane-ai",
            "dataplane-config",
        ],
    ),
    (
        "dataplane-stream",
        4,
        &[
            "ir",
            "dataplane-telemetry",
            "dataplane-resilience",
            "dataplane-route",
            "dataplane-tls",
            "dataplane-upstream",
            "dataplane-wasm",
            "dataplane-config",
        ],
    ),
    (
        "dataplane",
        5,
        &[
            "ir",
            "dataplane-telemetry",
            "dataplane-resilience",
            "dataplane-memory",
            "dataplane-route",
            "dataplane-tls",
            "dataplane-upstream",
            "dataplane-wasm",
            "dataplane-xds",
            "dataplane-config",
            "dataplane-http",
            "dataplane-stream",
        ],
    ),
    ("dataplane-testkit", 1, &["ir"]),
    ("crds", 0, &[]),
    ("shim", 6, &["ir", "crds", "dataplane"]),
    ("e2e", 7, &["ir", "crds", "dataplane-testkit"]),
    ("tidy", 0, &[]),
];

/// What tests may import beside that: those of the shim bring its true clients.
const TESTS: &[(&str, &[&str])] = &[("shim", &["dataplane-telemetry", "dataplane-xds"])];

/// Packages (by the start of their name) and the only crates that may use them.
const ROOMS: &[(&str, &[&str])] = &[
    ("pingora", &["dataplane-http", "dataplane-upstream"]),
    ("wasmtime", &["dataplane-wasm"]),
    // `ir` judges certificates for both sides, see docs/decisions/0003.
    // The shim ends TLS of its data planes, see docs/decisions/0017.
    (
        "rustls",
        &["dataplane-tls", "dataplane-testkit", "ir", "shim"],
    ),
    (
        "tokio-rustls",
        &["dataplane-tls", "dataplane-testkit", "shim"],
    ),
    ("x509-parser", &["dataplane-tls", "dataplane-testkit"]),
    ("prost", &["ir"]),
    (
        "tonic",
        &["ir", "dataplane-xds", "shim", "dataplane-testkit"],
    ),
    ("kube", &["crds", "shim", "e2e"]),
    ("k8s-openapi", &["crds", "shim", "e2e"]),
    ("gateway-api", &["crds", "shim", "e2e"]),
    ("schemars", &["crds", "shim", "e2e"]),
    ("prometheus", &["dataplane-telemetry", "shim"]),
    ("opentelemetry", &["dataplane-telemetry"]),
    ("arc-swap", &["dataplane-config"]),
    ("serde_yaml", &["dataplane", "crds", "shim", "e2e"]),
];

/// Finds the crates of the workspace by its member list.
pub(crate) fn crates(root: &Path, faults: &mut Faults) -> Vec<Crate> {
    let mut crates = Vec::new();
    for path in files_below(root, "toml") {
        if path.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let text = read(&path);
        let Some(name) = value_of(&text, "name") else {
            continue;
        };
        let dir = path.parent().unwrap_or(root).to_path_buf();
        if value_of(&text, "description").is_none_or(|text| text.is_empty()) {
            faults.push(format!("{}: says nothing in `description`", shown(&path)));
        }
        let dependencies = names_in(&text, &["dependencies", "build-dependencies"]);
        let dev_dependencies = names_in(&text, &["dev-dependencies"]);
        crates.push(Crate {
            name,
            dir,
            dependencies,
            dev_dependencies,
        });
    }
    crates
}

/// Holds every crate to its floor and every locked package to its room.
pub(crate) fn check(crates: &[Crate], faults: &mut Faults) {
    let ours: BTreeSet<&str> = crates.iter().map(|krate| krate.name.as_str()).collect();
    for krate in crates {
        // Workspaces of their own: one may compare any crate with the package it stands for, the other is
        // built for WebAssembly.
        if ["fuzz", "example-plugins"].contains(&krate.name.as_str()) {
            continue;
        }
        let Some((_, _, allowed)) = FLOORS.iter().find(|(name, _, _)| *name == krate.name) else {
            faults.push(format!(
                "crate {} stands on no floor, see tidy's FLOORS",
                krate.name
            ));
            continue;
        };
        for dependency in &krate.dependencies {
            if ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                faults.push(format!("{} may not import {dependency}", krate.name));
            }
            if let Some((_, rooms)) = room_of(dependency)
                && !rooms.contains(&krate.name.as_str())
            {
                faults.push(format!(
                    "{dependency} is locked into {}, {} may not use it",
                    rooms.join(", "),
                    krate.name
                ));
            }
        }
        let of_tests = TESTS.iter().find(|(name, _)| *name == krate.name);
        let of_tests = of_tests.map_or(&[][..], |(_, names)| names);
        for dependency in &krate.dev_dependencies {
            if ours.contains(dependency.as_str())
                && !allowed.contains(&dependency.as_str())
                && dependency != "dataplane-testkit"
                && !of_tests.contains(&dependency.as_str())
            {
                faults.push(format!(
                    "tests of {} may not import {dependency}",
                    krate.name
                ));
            }
        }
        if krate.name != "e2e" && krate.dependencies.contains("dataplane-testkit") {
            faults.push(format!(
                "{}: dataplane-testkit is for tests only",
                krate.name
            ));
        }
    }
}

fn room_of(package: &str) -> Option<&'static (&'static str, &'static [&'static str])> {
    ROOMS.iter().find(|(name, _)| {
        package == *name
            || package
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['-', '_']))
    })
}

/// The value of `key = "…"` in `[package]`.
fn value_of(manifest: &str, key: &str) -> Option<String> {
    let package = manifest.split_once("[package]")?.1;
    let package = package.split("\n[").next()?;
    package.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().trim_matches('"').to_owned())
    })
}

/// The package names in the tables of that kind.
fn names_in(manifest: &str, tables: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut is_inside = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            is_inside = tables.contains(&table.trim_end_matches(']'));
        } else if is_inside && !line.starts_with(['#', ' ']) {
            let name = line
                .split(['=', '.', ' '])
                .next()
                .unwrap_or_default()
                .trim();
            if !name.is_empty() {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn krate(name: &str, dependencies: &[&str]) -> Crate {
        Crate {
            name: name.to_owned(),
            dir: PathBuf::new(),
            dependencies: dependencies.iter().map(ToString::to_string).collect(),
            dev_dependencies: BTreeSet::new(),
        }
    }

    fn faults_of(crates: &[Crate]) -> Faults {
        let mut faults = Faults::new();
        check(crates, &mut faults);
        faults
    }

    #[test]
    fn an_engine_may_not_import_its_neighbour() {
        let faults = faults_of(&[
            krate("dataplane-route", &["dataplane-tls"]),
            krate("dataplane-tls", &[]),
        ]);
        assert_eq!(faults, ["dataplane-route may not import dataplane-tls"]);
    }

    #[test]
    fn a_locked_package_stays_in_its_room() {
        let faults = faults_of(&[krate("dataplane-route", &["tonic-prost"])]);
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults_of(&[krate("dataplane-http", &["pingora-core"])]).is_empty());
    }

    #[test]
    fn names_are_read_from_the_right_tables() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\nir = { workspace = true }\n\
                        bytes.workspace = true\n\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(value_of(manifest, "name").as_deref(), Some("x"));
        let names: Vec<_> = names_in(manifest, &["dependencies"]).into_iter().collect();
        assert_eq!(names, ["bytes", "ir"]);
    }
}
