//! The page of functions that plugins may import says what there is.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use dataplane_wasm::imports;

#[test]
fn the_page_of_imports_is_current() {
    let mut page = String::from(
        "# Functions that plugins may import\n\n\
         <!-- Generated from dataplane/wasm; `UPDATE_REFERENCE=1 cargo test -p dataplane-wasm` rewrites it. -->\n\n\
         Those of `env` are the host calls of proxy-wasm 0.1.0 to 0.2.1, with the arguments that it gives them;\n\
         `nantian_log`, `nantian_get_header` and `nantian_set_header` are those of the earlier data plane's plugins.\n\
         What a module imports of WASI besides answers that it is not implemented; anything else keeps the module out.\n\n\
         | Module | Function | Arguments | Result |\n| --- | --- | --- | --- |\n",
    );
    for import in imports().unwrap() {
        let arguments = import.parameters.join(", ");
        let result = import.result.unwrap_or_default();
        let (module, name) = (import.module, import.name);
        writeln!(page, "| `{module}` | `{name}` | {arguments} | {result} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/plugin-imports.md");
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/reference/plugin-imports.md is stale; run UPDATE_REFERENCE=1 cargo test -p dataplane-wasm"
    );
}
