//! Every source file tells what it is, stays readable in size, and the top of the tree stays tidy.

use std::path::Path;

use crate::manifest::Crate;
use crate::{Faults, files_below, read, shown};

/// Lines a source file may have.
const LINES_MAX: usize = 800;
/// What may stand at the top of the tree; it is prescribed.
const TOP: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "dataplane",
    "ir",
    "crds",
    "shim",
    "charts",
    "manifests",
    "e2e",
    "docs",
    "examples",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "LICENSE",
    "rustfmt.toml",
    "clippy.toml",
    "deny.toml",
    "rust-toolchain.toml",
    "target",
];

pub(crate) fn check(root: &Path, crates: &[Crate], faults: &mut Faults) {
    for krate in crates {
        for file in files_below(&krate.dir, "rs") {
            let is_of_inner_crate = crates.iter().any(|other| {
                other.name != krate.name
                    && other.dir.starts_with(&krate.dir)
                    && file.starts_with(&other.dir)
            });
            if is_of_inner_crate {
                continue;
            }
            let text = read(&file);
            if !text.starts_with("//!") {
                faults.push(format!(
                    "{}: does not begin with module docs (`//!`)",
                    shown(&file)
                ));
            }
            let lines = text.lines().count();
            if lines > LINES_MAX {
                faults.push(format!(
                    "{}: {lines} lines, at most {LINES_MAX}",
                    shown(&file)
                ));
            }
        }
    }
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !TOP.contains(&name.as_str()) {
            faults.push(format!(
                "{name}: the top level is prescribed, this is not part of it"
            ));
        }
    }
}
