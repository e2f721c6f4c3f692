//! The example manifests that the Gateway API project publishes, from its Go module.
//!
//! They are never copied into this repository: `go mod download` fetches the module, or finds it in
//! the module cache. Where that cannot be done the tests say so on standard error and pass, except
//! in CI, where they fail.

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The module, with the version that is supported.
pub const MODULE: &str = "sigs.k8s.io/gateway-api@v1.5.1";

/// How long the download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

/// The folder `examples/standard` of the module; nothing where it cannot be had.
///
/// # Panics
/// In CI (`CI` is set to anything but `false`), when it cannot be had.
pub fn examples() -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = download().map(|module| module.join("examples/standard"));
        found.map_err(|error| format!("{error:#}"))
    });
    match found {
        Ok(folder) => Some(folder),
        Err(reason) => {
            let is_ci = env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
            assert!(!is_ci, "the examples of {MODULE} cannot be had: {reason}");
            tell_skipped(reason);
            None
        }
    }
}

/// Every example, as a path below [`examples`].
pub fn files(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            let below = files(&entry.path())?;
            found.extend(below.iter().map(|file| format!("{name}/{file}")));
        } else if name.ends_with(".yaml") {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

/// Straight to standard error: what goes through `eprintln` is hidden while a test passes.
fn tell_skipped(reason: &str) {
    let line = "=".repeat(78);
    let message = format!(
        "\n{line}\nSKIPPED: the examples of {MODULE} were not served, because they cannot be had:\n\
         {reason}\nInstall Go and allow it to download modules, then run this test again.\n{line}\n"
    );
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(message.as_bytes());
}

fn download() -> anyhow::Result<PathBuf> {
    let nowhere = tempfile::tempdir()?;
    let mut go = Command::new("go")
        .args(["mod", "download", "-json", MODULE])
        .env("GOFLAGS", "-mod=mod")
        .current_dir(nowhere.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `go`")?;
    let end = Instant::now() + DOWNLOAD_LIMIT;
    while go.try_wait()?.is_none() {
        if Instant::now() > end {
            go.kill()?;
            bail!("`go mod download` took longer than {DOWNLOAD_LIMIT:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = go.wait_with_output()?;
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if let Some(error) = answer["Error"].as_str() {
        bail!("`go mod download` failed: {error}");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`go mod download` failed: {said}");
    let folder = answer["Dir"]
        .as_str()
        .context("`go mod download` named no folder")?;
    Ok(PathBuf::from(folder))
}
