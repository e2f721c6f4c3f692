//! What the tests of documentation pages share: the blocks of a page, and the quick start they are about.

use std::fs;
use std::path::Path;

use e2e::chart::root;
use e2e::ports::Ports;

/// The fenced blocks of a page with their languages, in its order.
pub(crate) fn blocks(page: &str) -> impl Iterator<Item = (&str, &str)> {
    // Every other part is a block, which begins with its language.
    let blocks = page.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.split_once('\n'))
}

/// Copies `examples/quickstart` into a folder; these ports of it are where they are bound.
pub(crate) fn copy_quickstart(folder: &Path, ports: &Ports, written: &[u16]) {
    for entry in fs::read_dir(root().join("examples/quickstart")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let text = exchange(&text, &bound(ports, written, ""));
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
}

/// Written ports and where they are bound, for [`exchange`]; each with `before` in front of it.
pub(crate) fn bound(ports: &Ports, written: &[u16], before: &str) -> Vec<(String, String)> {
    let pair = |&port: &u16| {
        let bound = ports.address(port).port();
        (format!("{before}{port}"), format!("{before}{bound}"))
    };
    written.iter().map(pair).collect()
}

/// Puts the second of a pair wherever the first stands, and never into what it has put there: port 30025
/// holds the 3002 of another pair.
pub(crate) fn exchange<A: AsRef<str>, B: AsRef<str>>(text: &str, pairs: &[(A, B)]) -> String {
    let mut rest = text;
    let mut exchanged = String::new();
    loop {
        let found = pairs.iter().filter_map(|(from, to)| {
            let (from, to) = (from.as_ref(), to.as_ref());
            Some((rest.find(from)?, from.len(), to))
        });
        let Some((at, length, to)) = found.min_by_key(|(at, ..)| *at) else {
            exchanged.push_str(rest);
            return exchanged;
        };
        exchanged.push_str(&rest[..at]);
        exchanged.push_str(to);
        rest = &rest[at + length..];
    }
}

#[test]
fn what_was_exchanged_stays() {
    let pairs = [(":8080", ":30015"), (":3001", ":23002"), ("3002", "30025")];
    let text = "localhost:8080 localhost:3001 3002.";
    let exchanged = exchange(text, &pairs);
    assert_eq!(exchanged, "localhost:30015 localhost:23002 30025.");
}
