//! What other projects publish in their Go modules: the Gateway API's example manifests, and the kinds
//! of the operators that the chart speaks to.
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

/// Modules of operators, and the files in them that hold the kinds the chart makes objects of.
const OPERATORS: &[(&str, &[&str])] = &[
    (
        "github.com/cert-manager/cert-manager@v1.18.2",
        &[
            "deploy/crds/crd-certificates.yaml",
            "deploy/crds/crd-issuers.yaml",
        ],
    ),
    (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        &[
            "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
            "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        ],
    ),
];

/// How long a download may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(120);

/// The folder `examples/standard` of the module; nothing where it cannot be had.
///
/// # Panics
/// In CI (`CI` is set to anything but `false`), when it cannot be had.
pub fn examples() -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = download(MODULE).map(|module| module.join("examples/standard"));
        found.map_err(|error| format!("{error:#}"))
    });
    had(found.as_deref(), &format!("the examples of {MODULE}"))
}

/// The CustomResourceDefinitions of the operators' kinds; nothing where they cannot be had.
///
/// # Panics
/// In CI (`CI` is set to anything but `false`), when they cannot be had.
pub fn kinds_of_operators() -> Option<&'static [Value]> {
    static FOUND: OnceLock<Result<Vec<Value>, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| kinds().map_err(|error| format!("{error:#}")));
    had(found.as_deref(), "the kinds of operators")
}

/// What was found; where it was not, that is told, and in CI it is a failure.
fn had<'a, T: ?Sized>(found: Result<&'a T, &'a String>, what: &str) -> Option<&'a T> {
    match found {
        Ok(found) => Some(found),
        Err(reason) => {
            let is_ci = env::var("CI").is_ok_and(|value| !value.is_empty() && value != "false");
            assert!(!is_ci, "{what} cannot be had: {reason}");
            tell_skipped(what, reason);
            None
        }
    }
}

fn kinds() -> anyhow::Result<Vec<Value>> {
    let mut kinds = Vec::new();
    for (module, files) in OPERATORS {
        let folder = download(module)?;
        for file in *files {
            let text = fs::read_to_string(folder.join(file))
                .with_context(|| format!("{module} has no {file}"))?;
            let mut kind: Value = serde_yaml::from_str(&text)?;
            // Labels are templates of a chart there.
            let name = kind["metadata"]["name"].take();
            kind["metadata"] = serde_json::json!({ "name": name });
            kinds.push(kind);
        }
    }
    Ok(kinds)
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
fn tell_skipped(what: &str, reason: &str) {
    let line = "=".repeat(78);
    let message = format!(
        "\n{line}\nSKIPPED: {what} were not tried, because they cannot be had:\n\
         {reason}\nInstall Go and allow it to download modules, then run this test again.\n{line}\n"
    );
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(message.as_bytes());
}

fn download(module: &str) -> anyhow::Result<PathBuf> {
    let nowhere = tempfile::tempdir()?;
    let mut go = Command::new("go")
        .args(["mod", "download", "-json", module])
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
