//! The official clients of language models through the built gateway (`e2e/ai/run`), and
//! `examples/ai` with a real model server behind it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{env, fs};

use dataplane_testkit::snapshot::free_port;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// What the script ends with when it could not be run.
const NOT_RUN: i32 = 3;

/// The shim of this build.
pub(crate) fn binary() -> PathBuf {
    // The test is target/<profile>/deps/it-0123456789abcdef.
    let test = env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    profile.join("nantian-shim")
}

/// Runs a script of the repository to its end.
pub(crate) fn run(script: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(Path::new(ROOT).join(script));
    command.args(arguments).stdin(Stdio::null());
    command.output().expect("bash starts")
}

/// True when something is missing; loud, and a failure where CI is set.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn cannot_be_tried(output: &Output, what: &str) -> bool {
    if output.status.code() != Some(NOT_RUN) {
        return false;
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(env::var_os("CI").is_none(), "{said}");
    eprintln!("{what} WAS NOT TRIED: {said}");
    true
}

pub(crate) fn said(output: &Output) -> String {
    let said = [&*output.stdout, &*output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn the_official_clients_are_served_by_every_provider() {
    let installed = run("e2e/ai/run", &["install"]);
    if cannot_be_tried(&installed, "e2e/ai") {
        return;
    }
    let output = run("e2e/ai/run", &["--binary", binary().to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_example_answers_with_a_real_model() {
    let installed = run("examples/ai/run", &["install"]);
    if cannot_be_tried(&installed, "examples/ai") {
        return;
    }
    // The example as it is written, at other ports.
    let (public, model) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(Path::new(ROOT).join("examples/ai")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "yaml") {
            let text = fs::read_to_string(&path).unwrap();
            let text = text
                .replace("port: 8080", &format!("port: {public}"))
                .replace(":8090/", &format!(":{model}/"));
            fs::write(folder.path().join(path.file_name().unwrap()), text).unwrap();
        }
    }
    let output = Command::new(Path::new(ROOT).join("examples/ai/run"))
        .args(["try", folder.path().to_str().unwrap()])
        .args([public.to_string(), model.to_string()])
        .env("NANTIAN_SHIM", binary())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
