//! Runs a test of this binary once more, in a network of its own.
//!
//! For what must not be done to the machine's network: dropping packets, forging sources, telling
//! the kernel lies by ICMP. It needs root and the programs, and says so where they are missing; the
//! test that is run is marked as ignored and asks [`is_inside`] first.

use std::process::Command;

use crate::binary::is_there;

const INSIDE: &str = "NANTIAN_TEST_OWN_NETWORK";

/// True in a network of the test's own.
pub(crate) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs the ignored test of that full name inside; `why` says what is left out where it cannot be.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn enter(test: &str, why: &str) {
    if !["unshare", "ip"].iter().all(|it| is_there(it, why)) {
        return;
    }
    let tried = Command::new("unshare").args(["--net", "true"]).status();
    if !tried.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {why}: unshare --net is not allowed here, run the tests as root");
        return;
    }
    let output = Command::new("unshare")
        .arg("--net")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Runs a command that must succeed, its words apart by spaces.
pub(crate) fn run(command: &str) {
    let words: Vec<_> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
}
