//! Images are made without Docker, hold what they should and no more, and can be made again.

use std::path::Path;
use std::process::Command;

use e2e::chart::root;

/// Makes an image of a program of this machine, and returns the archive's bytes.
fn image(folder: &Path, name: &str) -> Vec<u8> {
    let archive = folder.join(name);
    let made = Command::new(root().join("manifests/images/build"))
        .args(["test.local/true:1", "/bin/true"])
        .arg(&archive)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{said}");
    std::fs::read(archive).unwrap()
}

fn tar(arguments: &[&str], folder: &Path) -> String {
    let listed = Command::new("tar")
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

#[test]
fn an_image_can_be_made_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (
        image(folder.path(), "first.tar"),
        image(folder.path(), "second.tar"),
    );
    assert!(first == second, "the archives differ");
}

#[test]
fn an_image_holds_a_program_and_no_shell_and_does_not_run_as_root() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path(), "image.tar");
    tar(&["xf", "image.tar"], folder.path());
    let text = std::fs::read_to_string(folder.path().join("manifest.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(manifest[0]["RepoTags"][0], "test.local/true:1");
    let config = folder.path().join(manifest[0]["Config"].as_str().unwrap());
    let config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
    assert_eq!(config["config"]["User"], "65532:65532");
    assert_eq!(config["config"]["Entrypoint"][0], "/true");
    let version = &config["config"]["Labels"]["org.opencontainers.image.version"];
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    let files = tar(
        &["tf", manifest[0]["Layers"][0].as_str().unwrap()],
        folder.path(),
    );
    assert!(files.lines().any(|it| it == "./true"), "{files}");
    assert!(files.lines().any(|it| it == "./etc/passwd"), "{files}");
    let is_shell = |it: &str| it.ends_with("/sh") || it.ends_with("/bash");
    assert!(!files.lines().any(is_shell), "{files}");
}
