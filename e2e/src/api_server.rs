//! A Kubernetes API server for tests of controllers: etcd and kube-apiserver on loopback, no node.
//!
//! `e2e/cluster/up api` starts it, once for a test binary; it has the Gateway API's CRDs and goes down
//! with the process that asked for it, however that ends. Where the programs are not there the tests
//! say so on standard error and pass, except in CI, where they fail unless E2E_WITHOUT_CLUSTER is set
//! (`.ci/run` sets it, loudly, where they were never built). Nothing runs Pods there: tests
//! write Pods, EndpointSlices and statuses themselves.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, ensure};
use dataplane_testkit::snapshot::free_port;

/// `up` ends with this when something would have to be compiled for minutes.
const NOT_BUILT: i32 = 3;

/// A running API server.
#[derive(Debug)]
pub struct ApiServer {
    run: PathBuf,
    kubeconfig: PathBuf,
    /// What the scripts are told; empty for a cluster that is not ours.
    environment: Vec<(&'static str, String)>,
}

/// What `kubectl` said.
#[derive(Debug)]
pub struct Answer {
    /// It ended with 0.
    pub is_success: bool,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl ApiServer {
    /// The one of this test binary; nothing where its programs are missing. Tests that share it take a
    /// namespace each ([`ApiServer::namespace`]).
    ///
    /// With `E2E_KUBECONFIG` set it is that cluster, which gets CRDs and namespaces written.
    ///
    /// # Panics
    /// When it does not start, and in CI (`CI` is set to anything but `false`) when it is missing.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<ApiServer>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// One of its own, for tests that stop it or count what it holds; see [`ApiServer::shared`].
    ///
    /// # Panics
    /// As [`ApiServer::shared`].
    #[expect(clippy::panic, reason = "a test without its server has failed")]
    pub fn start() -> Option<Self> {
        if let Some(kubeconfig) = env::var_os("E2E_KUBECONFIG") {
            return Some(Self {
                run: PathBuf::new(),
                kubeconfig: PathBuf::from(kubeconfig),
                environment: Vec::new(),
            });
        }
        match Self::try_start() {
            Ok(started) => started,
            Err(error) => panic!("the API server did not start: {error:#}"),
        }
    }

    /// Another client of the same API server, by its kubeconfig; it stops nothing.
    pub fn with_kubeconfig(&self, kubeconfig: PathBuf) -> Self {
        Self {
            run: PathBuf::new(),
            kubeconfig,
            environment: self.environment.clone(),
        }
    }

    fn try_start() -> anyhow::Result<Option<Self>> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let owner = std::process::id();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let run = env::temp_dir().join(format!("nantian-api-server-{owner}-{number}"));
        let server = Self {
            kubeconfig: run.join("kubeconfig"),
            environment: vec![
                ("CLUSTER_RUN", run.display().to_string()),
                ("CLUSTER_OWNER", owner.to_string()),
                ("CLUSTER_BUILD", "never".to_owned()),
                ("API_PORT", free_port().to_string()),
                ("ETCD_PORT", free_port().to_string()),
                ("ETCD_PEER_PORT", free_port().to_string()),
            ],
            run,
        };
        let output = server.script("up", &["api"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(NOT_BUILT) {
            let is_set =
                |name: &str| env::var(name).is_ok_and(|it| !it.is_empty() && it != "false");
            let may_lack = is_set("E2E_WITHOUT_CLUSTER");
            ensure!(!is_set("CI") || may_lack, "it is not there: {said}");
            tell_skipped(&said);
            return Ok(None);
        }
        ensure!(output.status.success(), "`e2e/cluster/up api`: {said}");
        Ok(Some(server))
    }

    /// The file that clients are pointed to.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Runs `kubectl` with `input` on its standard input.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> anyhow::Result<Answer> {
        let mut child = self
            .kubectl_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start `bash`")?;
        if let Some(mut stdin) = child.stdin.take() {
            // A `kubectl` that ended early says why itself.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        Ok(Answer {
            is_success: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs commands of `bash` at the root of the repository, with this API server's `kubectl`; gives
    /// what they print, and an error once one of them fails.
    pub fn shell(&self, commands: &str) -> anyhow::Result<String> {
        let script = ". ./common && cd ../.. && eval \"$1\"";
        let output = Command::new("bash")
            .args(["-euc", script, "bash", commands])
            .current_dir(scripts())
            .env("here", scripts())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .output()
            .context("cannot start `bash`")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{commands}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl` in the environment that the scripts give it.
    pub(crate) fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .args(["-c", ". ./common && exec kubectl \"$@\"", "kubectl"])
            .args(arguments)
            .current_dir(scripts())
            .env("here", scripts())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Applies manifests server-side; an error is what the API server said.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        let answer = self.kubectl(&arguments, manifests)?;
        ensure!(answer.is_success, "{}", answer.stderr.trim());
        Ok(())
    }

    /// Makes a namespace that no other test has; its name begins with `prefix`.
    pub fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let answer = self.kubectl(&["create", "namespace", &name], "")?;
        ensure!(answer.is_success, "{}", answer.stderr.trim());
        Ok(name)
    }

    /// Ends the API server; its database stays. Only for one's own ([`ApiServer::start`]).
    pub fn stop(&self) -> anyhow::Result<()> {
        let output = self.script("down", &["kube-apiserver"])?;
        ensure!(output.status.success(), "`e2e/cluster/down` failed");
        Ok(())
    }

    /// Starts it again after [`ApiServer::stop`].
    pub fn resume(&self) -> anyhow::Result<()> {
        let output = self.script("up", &["again"])?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`e2e/cluster/up again`: {said}");
        Ok(())
    }

    fn script(&self, name: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let script = scripts().join(name);
        Command::new(&script)
            .args(arguments)
            .env_remove("KUBECONFIG")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("cannot start {}", script.display()))
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if !self.run.as_os_str().is_empty() {
            // The process's end takes down what this leaves.
            let _ = self.script("down", &[]);
        }
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster")
}

/// Straight to standard error: what goes through `eprintln` is hidden while a test passes.
fn tell_skipped(reason: &str) {
    let line = "=".repeat(78);
    let message = format!(
        "\n{line}\nSKIPPED: the tests against a Kubernetes API server did not run:\n{reason}{line}\n"
    );
    // Without standard error there is nobody to tell.
    let _ = std::io::stderr().write_all(message.as_bytes());
}
