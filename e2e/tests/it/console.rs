//! The console of the data plane in a real browser (`e2e/console/run`).

use crate::ai::{binary, cannot_be_tried, run, said};

#[test]
fn the_console_shows_what_is_served_and_runs_nothing_of_it() {
    let installed = run("e2e/console/run", &["install"]);
    if cannot_be_tried(&installed, "e2e/console") {
        return;
    }
    let binaries = binary();
    let binaries = binaries.parent().and_then(|it| it.to_str()).unwrap();
    let output = run("e2e/console/run", &["--binaries", binaries]);
    assert!(output.status.success(), "{}", said(&output));
}
