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
        let text = written.iter().fold(text, |text, &port| {
            let bound = ports.address(port).port();
            text.replace(&port.to_string(), &bound.to_string())
        });
        fs::write(folder.join(path.file_name().unwrap()), text).unwrap();
    }
}
