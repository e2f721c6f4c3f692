//! No rings inside a crate: a module imports only from modules listed after it in `lib.rs`.
//!
//! Read from `mod` and `use` lines as text; a path such as `crate::x::y` in code counts too. In
//! `dataplane/http` a phase never imports a phase.

use std::path::Path;

use crate::manifest::Crate;
use crate::{Faults, files_below, read, shown};

/// Module names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "helpers", "helper", "misc", "types",
];

pub(crate) fn check(krate: &Crate, faults: &mut Faults) {
    let src = krate.dir.join("src");
    let top = ["lib.rs", "main.rs"].map(|name| src.join(name));
    let Some(top) = top.iter().find(|path| path.exists()) else {
        return;
    };
    let modules = modules_of(&read(top));
    for name in &modules {
        if EMPTY_NAMES.contains(&name.as_str()) {
            faults.push(format!(
                "{}: a module called {name} has no home",
                shown(top)
            ));
        }
    }
    for (position, name) in modules.iter().enumerate() {
        let mut files = files_below(&src.join(name), "rs");
        files.push(src.join(format!("{name}.rs")));
        for file in files {
            check_file(krate, &file, &modules, position, faults);
        }
    }
}

fn check_file(
    krate: &Crate,
    file: &Path,
    modules: &[String],
    position: usize,
    faults: &mut Faults,
) {
    let text = read(file);
    let name = &modules[position];
    for imported in imports_of(&text) {
        let Some(other) = modules.iter().position(|module| *module == imported) else {
            continue;
        };
        if other < position {
            faults.push(format!(
                "{}: imports {imported}, which is listed before {name} in its crate",
                shown(file)
            ));
        }
    }
    let is_phase = krate.name == "dataplane-http" && name == "phase";
    if is_phase && file.parent().is_some_and(|dir| dir.ends_with("phase")) {
        let own = file.file_stem().unwrap_or_default().to_string_lossy();
        for line in text.lines().filter(|line| line.contains("phase::")) {
            let imports_step = line.contains("phase::Step") || line.contains("phase::{self");
            if !imports_step && !line.contains(&format!("phase::{own}")) && !is_comment(line) {
                faults.push(format!("{}: a phase never imports a phase", shown(file)));
            }
        }
    }
}

/// Names of `mod x;` lines, in order.
fn modules_of(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let line = line
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ");
            line.strip_prefix("mod ")?
                .strip_suffix(';')
                .map(str::to_owned)
        })
        .collect()
}

/// First segments behind `crate::`, in code and not in comments or tests.
fn imports_of(text: &str) -> Vec<String> {
    let code = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut names = Vec::new();
    for line in code.lines().filter(|line| !is_comment(line)) {
        for (_, rest) in line
            .match_indices("crate::")
            .map(|(at, found)| (at, &line[at + found.len()..]))
        {
            if let Some(list) = rest.strip_prefix('{') {
                let items = list.split([',', '}']);
                names.extend(
                    items
                        .map(|item| first_word(item.trim()))
                        .filter(|n| !n.is_empty()),
                );
            } else {
                names.push(first_word(rest));
            }
        }
    }
    names
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_in_order() {
        let text = "//! x\npub mod b;\nmod a;\npub(crate) mod c;\nuse a::X;\n";
        assert_eq!(modules_of(text), ["b", "a", "c"]);
    }

    #[test]
    fn imports_are_found_in_use_lines_and_code() {
        let text = "use crate::a::X;\nuse crate::{b, c::Y};\nfn f() { crate::d::g() }\n\
                    // crate::e\n#[cfg(test)]\nmod tests { use crate::f::Z; }\n";
        assert_eq!(imports_of(text), ["a", "b", "c", "d"]);
    }
}
