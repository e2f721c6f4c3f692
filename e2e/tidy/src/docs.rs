//! What the docs name exists: source paths in backticks, and links to files of the tree.

use std::path::Path;

use crate::{Faults, files_below, read, shown};

pub(crate) fn check(root: &Path, faults: &mut Faults) {
    let mut pages = files_below(&root.join("docs"), "md");
    pages.extend(["README.md", "CONTRIBUTING.md"].map(|name| root.join(name)));
    for page in pages {
        let text = read(&page);
        for path in paths_in_backticks(&text) {
            if !root.join(&path).exists() {
                faults.push(format!(
                    "{}: names `{path}`, which does not exist",
                    shown(&page)
                ));
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

/// Backticked texts that are plainly source paths of this tree.
fn paths_in_backticks(text: &str) -> Vec<String> {
    let roots = [
        "dataplane/",
        "ir/",
        "shim/",
        "e2e/",
        "docs/",
        "examples/",
        "crds/",
    ];
    let mut is_fenced = false;
    let mut paths = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        }
        if is_fenced {
            continue;
        }
        for quoted in line.split('`').skip(1).step_by(2) {
            let is_path = roots.iter().any(|root| quoted.starts_with(root))
                && !quoted.contains([' ', '*', '{', '<', '…']);
            if is_path {
                paths.push(quoted.to_owned());
            }
        }
    }
    paths
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

    #[test]
    fn paths_and_links_are_found() {
        let text = "See `dataplane/http/src/proxy.rs` and `x`.\n```\n`ir/not`\n```\n[a](b.md#c) [d](https://e)\n";
        assert_eq!(paths_in_backticks(text), ["dataplane/http/src/proxy.rs"]);
        assert_eq!(links(text), ["b.md"]);
    }
}
