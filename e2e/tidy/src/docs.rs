//! What the pages name exists: paths of the tree, definitions in them, and linked files.
//!
//! A page writes `path/of/file.rs` or `path/of/file.rs::name` in backticks; `::name` alone belongs to
//! the last path named before it on the same line. Fenced blocks are not looked at. The page of the
//! request line names every phase. Whether a page tells the truth about what it names is for its
//! readers to see.

use std::path::{Path, PathBuf};

use crate::{Faults, files_below, read, shown};

/// How the paths of this tree begin.
const ROOTS: &[&str] = &[
    ".ci/",
    "crds/",
    "dataplane/",
    "docs/",
    "e2e/",
    "examples/",
    "ir/",
    "shim/",
];
/// What stands before a name where it is defined.
const DEFINERS: &[&str] = &[
    "fn ",
    "struct ",
    "enum ",
    "trait ",
    "type ",
    "const ",
    "static ",
    "mod ",
    "macro_rules! ",
];

/// The page that follows a request, and the folder of the phases it meets.
const REQUEST_PAGE: &str = "docs/request.md";
const PHASES: &str = "dataplane/http/src/phase";

pub(crate) fn check(root: &Path, faults: &mut Faults) {
    let names = names_in(&read(&root.join(REQUEST_PAGE)));
    for phase in unnamed(&phases(root), &names) {
        faults.push(format!(
            "{REQUEST_PAGE}: does not name the phase `{phase}`, give it a row where \
             dataplane/http/src/proxy.rs calls it"
        ));
    }
    for page in pages(root) {
        let text = read(&page);
        for name in names_in(&text) {
            if let Some(fault) = fault_of(root, &name) {
                faults.push(format!("{}: {fault}", shown(&page)));
            }
        }
        let dir = page.parent().unwrap_or(root);
        for link in links(&text) {
            if !dir.join(&link).exists() {
                faults.push(format!(
                    "{}: links to {link}, which does not exist",
                    shown(&page)
                ));
            }
        }
    }
}

/// The files of the phases, as pages name them.
fn phases(root: &Path) -> Vec<String> {
    let files = files_below(&root.join(PHASES), "rs");
    let names = files.iter().filter_map(|file| file.strip_prefix(root).ok());
    names.map(|name| name.display().to_string()).collect()
}

/// Those of `files` that no name leads to.
fn unnamed<'a>(files: &'a [String], names: &[Name]) -> Vec<&'a String> {
    let is_named = |file: &&String| names.iter().any(|name| name.path == **file);
    files.iter().filter(|file| !is_named(file)).collect()
}

/// Every page of the tree, those at its top included.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = files_below(&root.join("docs"), "md");
    pages.extend(files_below(&root.join("examples"), "md"));
    let top = std::fs::read_dir(root).into_iter().flatten().flatten();
    pages.extend(
        top.map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
    );
    pages
}

/// Something that a page names.
#[derive(Debug, PartialEq, Eq)]
struct Name {
    /// A path of the tree; empty when a definition stands without one.
    path: String,
    /// What is said to be defined there, outermost first.
    definitions: Vec<String>,
}

/// What the text names in backticks, outside of fenced blocks.
fn names_in(text: &str) -> Vec<Name> {
    let mut is_fenced = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced {
            continue;
        }
        let mut last = String::new();
        for quoted in line.split('`').skip(1).step_by(2) {
            let (path, rest) = quoted.split_once("::").unwrap_or((quoted, ""));
            if !(is_path(path) || path.is_empty() && is_definition(rest)) {
                continue;
            }
            if !path.is_empty() {
                path.clone_into(&mut last);
            }
            names.push(Name {
                path: last.clone(),
                definitions: rest
                    .split("::")
                    .filter(|definition| is_definition(definition))
                    .map(str::to_owned)
                    .collect(),
            });
        }
    }
    names
}

/// True for what is plainly a path of this tree.
fn is_path(text: &str) -> bool {
    let is_settings_file = text.ends_with(".toml") && !text.contains('/');
    (is_settings_file || ROOTS.iter().any(|root| text.starts_with(root)))
        && !text.contains([' ', '*', '{', '<', '…'])
}

fn is_definition(text: &str) -> bool {
    let is_word = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    text.split("::").all(is_word)
}

/// What is wrong with a name, if anything.
fn fault_of(root: &Path, name: &Name) -> Option<String> {
    let Name { path, definitions } = name;
    if path.is_empty() {
        let name = definitions.join("::");
        return Some(format!("names `::{name}` without a path before it"));
    }
    let file = root.join(path);
    if !file.exists() {
        return Some(format!("names `{path}`, which does not exist"));
    }
    let text = read(&file);
    let missing = definitions.iter().find(|name| !is_defined(&text, name))?;
    Some(format!(
        "names `{path}::{missing}`, which is not defined there"
    ))
}

/// True when the source text defines the name: an item, a variant or a field.
fn is_defined(text: &str, name: &str) -> bool {
    let ends_here = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    text.lines().map(str::trim_start).any(|line| {
        let is_item = DEFINERS.iter().any(|definer| {
            line.split_once(definer)
                .and_then(|(_, rest)| rest.strip_prefix(name))
                .is_some_and(ends_here)
        });
        let line = line
            .trim_start_matches("pub(crate) ")
            .trim_start_matches("pub ");
        let is_part = line
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with([',', '(', ' ', ':']));
        is_item || is_part
    })
}

/// Targets of `](…)` that are files, without their fragments.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default().to_owned())
        .filter(|target| !target.is_empty() && !target.contains("://"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str, definitions: &[&str]) -> Name {
        Name {
            path: path.to_owned(),
            definitions: definitions.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn paths_and_definitions_are_found_outside_of_fences() {
        let text = "See `ir/a.rs` and `x`, `deny.toml`.\n```\n`ir/not`\n```\n\
                    `ir/a.rs::b`, `::C::d`, `ir/…`, `a::b`\n`::e` `ir/f.rs::g`\n";
        let expected = [
            name("ir/a.rs", &[]),
            name("deny.toml", &[]),
            name("ir/a.rs", &["b"]),
            name("ir/a.rs", &["C", "d"]),
            name("", &["e"]),
            name("ir/f.rs", &["g"]),
        ];
        assert_eq!(names_in(text), expected);
    }

    #[test]
    fn definitions_are_items_variants_and_fields() {
        let text = "pub(crate) async fn run(x: u8) {}\npub struct Table<R> {\n    pub rows: u8,\n}\n\
                    enum E {\n    One,\n    Two(u8),\n}\npub const MAX: u8 = 1;\n";
        for defined in ["run", "Table", "rows", "E", "One", "Two", "MAX"] {
            assert!(is_defined(text, defined), "{defined}");
        }
        for missing in ["ru", "runs", "Tab", "x", "u8"] {
            assert!(!is_defined(text, missing), "{missing}");
        }
    }

    #[test]
    fn a_name_without_its_file_is_a_fault() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(fault_of(root, &name("src/docs.rs", &["fault_of", "Name"])).is_none());
        for wrong in [
            name("src/docs.rs", &["nothing"]),
            name("src/nothing.rs", &[]),
            name("", &["fault_of"]),
        ] {
            assert!(fault_of(root, &wrong).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn a_phase_that_the_page_leaves_out_is_found() {
        let files = ["a/b.rs".to_owned(), "a/c.rs".to_owned()];
        let names = names_in("| `ir/x.rs` | `a/b.rs` |");
        assert_eq!(unnamed(&files, &names), [&files[0], &files[1]]);
        let names = [name("a/b.rs", &["run"])];
        assert_eq!(unnamed(&files, &names), [&files[1]]);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        assert!(phases(&root).contains(&format!("{PHASES}/route.rs")));
    }

    #[test]
    fn links_to_files_are_found() {
        let text = "[a](b.md#c) [d](https://e) [f](#g)\n";
        assert_eq!(links(text), ["b.md"]);
    }
}
