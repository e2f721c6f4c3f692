//! Checks on the tree itself, so that the walls of the house hold without anybody watching.
//!
//! Run by CI as `cargo run -p tidy` and by `cargo test`. It reads `Cargo.toml` files, `use` lines
//! and the docs as text, with the standard library alone, and takes well under a second. What the
//! rules are for is told in `docs/architecture.md`.

mod modules;
mod files;
mod docs;
mod manifest;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What is wrong, one line each.
type Faults = Vec<String>;

fn main() -> ExitCode {
    let root = root();
    let faults = check(&root);
    report(&faults);
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    }
}

fn check(root: &Path) -> Faults {
    let mut faults = Faults::new();
    let crates = manifest::crates(root, &mut faults);
    manifest::check(&crates, &mut faults);
    for krate in &crates {
        modules::check(krate, &mut faults);
    }
    files::check(root, &crates, &mut faults);
    docs::check(root, &mut faults);
    faults
}

/// The top of the tree, seen from this crate.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn report(faults: &Faults) {
    for fault in faults {
        println!("tidy: {fault}");
    }
    println!("tidy: {} faults", faults.len());
}

/// The text of a file; nothing when it cannot be read.
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// All files below `dir` whose name ends with `.ending`, in order, without `target` and what is hidden:
/// builds of examples stand there.
fn files_below(dir: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "target" && !name.to_string_lossy().starts_with('.') {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|e| e == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A path as a reader of the tree writes it.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.rsplit_once("/../../")
        .map_or_else(|| text.as_ref(), |(_, rest)| rest)
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_is_tidy() {
        let faults = check(&root());
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
}
