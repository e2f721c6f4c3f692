//! The Helm chart and the Kustomize folders, rendered by the programs that users render them with.
//!
//! `helm` and `kubectl` are those that `e2e/cluster/build` makes, or of the PATH. Where they are
//! missing the tests say so on standard error and pass, except in CI, where they fail unless
//! E2E_WITHOUT_CLUSTER is set. Nothing here needs a cluster.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use serde_json::Value;

/// What charts are told the cluster is; the `helm` built with the test cluster has an old default.
const KUBERNETES: &str = "1.35.0";

/// `helm` and `kubectl`.
#[derive(Debug)]
pub struct Tools {
    helm: PathBuf,
    kubectl: PathBuf,
}

impl Tools {
    /// Those of this machine; nothing where they are missing.
    ///
    /// # Panics
    /// In CI (`CI` is set to anything but `false`), when they are missing.
    pub fn shared() -> Option<&'static Self> {
        static FOUND: OnceLock<Option<Tools>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let (helm, kubectl) = (program("helm")?, program("kubectl")?);
            Some(Self { helm, kubectl })
        });
        if found.is_none() {
            let is_set =
                |name: &str| env::var(name).is_ok_and(|it| !it.is_empty() && it != "false");
            let may_lack = !is_set("CI") || is_set("E2E_WITHOUT_CLUSTER");
            assert!(may_lack, "helm is missing: run e2e/cluster/build all");
            tell_skipped();
        }
        found.as_ref()
    }

    /// The chart rendered with these arguments of `helm template`; an error is what Helm said.
    pub fn render(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.helm);
        command.args(["template", "nantian-gw"]).arg(chart());
        command.args(["--kube-version", KUBERNETES]).args(arguments);
        text_of(command.stdin(Stdio::null()).output()?)
    }

    /// What `helm lint` finds with this file of values.
    pub fn lint(&self, values: &Path) -> anyhow::Result<String> {
        let mut command = Command::new(&self.helm);
        command.arg("lint").arg("--strict").arg(chart());
        command.args(["--kube-version", KUBERNETES, "-f"]);
        text_of(command.arg(values).output()?)
    }

    /// A folder of `manifests`, as `kubectl kustomize` shows it.
    pub fn kustomize(&self, folder: &str) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        command
            .arg("kustomize")
            .arg(root().join("manifests").join(folder));
        text_of(command.output()?)
    }
}

/// The folder of the chart.
pub fn chart() -> PathBuf {
    root().join("charts/nantian-gw")
}

/// The folder of the repository.
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Every object of a stream of YAML documents.
pub fn objects(text: &str) -> anyhow::Result<Vec<Value>> {
    use serde::Deserialize;
    let documents = serde_yaml::Deserializer::from_str(text);
    let values = documents.map(Value::deserialize);
    let values: Result<Vec<_>, _> = values.collect();
    let mut values = values.context("what was rendered is not YAML")?;
    values.retain(|value| !value.is_null());
    Ok(values)
}

/// Kind and name of an object, as messages say them.
pub fn title(object: &Value) -> String {
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    format!("{}/{name}", object["kind"].as_str().unwrap_or_default())
}

fn text_of(output: Output) -> anyhow::Result<String> {
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{said}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A program of the test cluster, else of the PATH.
fn program(name: &str) -> Option<PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let cache = env::var_os("CLUSTER_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| home.map(|home| home.join(".cache/gateway-cluster")));
    let kept = cache.map(|cache| cache.join("bin").join(name));
    let paths = env::var_os("PATH").unwrap_or_default();
    let paths: Vec<_> = env::split_paths(&paths).map(|it| it.join(name)).collect();
    kept.into_iter().chain(paths).find(|path| path.is_file())
}

/// Straight to standard error: what goes through `eprintln` is hidden while a test passes.
fn tell_skipped() {
    let line = "=".repeat(78);
    let message = format!(
        "\n{line}\nSKIPPED: chart and manifests were not rendered, because helm is missing.\n\
         To render them, build it once: e2e/cluster/build all\n{line}\n"
    );
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(message.as_bytes());
}
