//! The built binary as a process of its own, beside a control plane that the test plays.
//!
//! For what can only be done to a process: limits of the kernel, signals, another clock. Its output
//! goes to files of a folder that lives as long as the value; dropping the value kills the process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{ControlPlane, DEADLINE, until};
use tempfile::TempDir;

use crate::support::at;

/// A running data plane.
pub(crate) struct Binary {
    pub(crate) admin: SocketAddr,
    folder: TempDir,
    child: Child,
}

impl Binary {
    /// Starts it under `wrapper` (a command that runs the one behind it), with more keys.
    pub(crate) fn start(control_plane: &ControlPlane, wrapper: &[&str], keys: &str) -> Self {
        let address = format!("http://{}", control_plane.address());
        Self::dialling(&address, wrapper, keys)
    }

    /// Starts it as [`Self::start`] does, for a control plane at that URL.
    pub(crate) fn dialling(control_plane: &str, wrapper: &[&str], keys: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let admin = at(free_port());
        let path = folder.path().join("config.yaml");
        let access_log = match keys.contains("accessLog:") {
            true => "",
            false => "accessLog: {enabled: false}\n",
        };
        let text = format!(
            "nodeId: dp-binary\ncontrolPlaneAddr: {control_plane}\nadminAddr: {admin}\n\
             xdsTls: {{enabled: false}}\n{access_log}{keys}\n"
        );
        fs::write(&path, text).unwrap();
        let binary = env!("CARGO_BIN_EXE_nantian-dataplane");
        let mut words: Vec<&str> = wrapper.to_vec();
        words.extend([binary, "--config", path.to_str().unwrap()]);
        let output = |name: &str| File::create(folder.path().join(name)).unwrap();
        let child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            admin,
            folder,
            child,
        }
    }

    /// Starts it as [`Self::start`] does and waits until `snapshot` serves.
    pub(crate) async fn serving(
        snapshot: &ir::Snapshot,
        wrapper: &[&str],
        keys: &str,
    ) -> (Self, ControlPlane) {
        let control_plane = ControlPlane::start().await;
        control_plane.greet_with(snapshot);
        let binary = Self::start(&control_plane, wrapper, keys);
        binary.becomes_ready().await;
        (binary, control_plane)
    }

    /// Runs a command of the same binary on the same settings.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nantian-dataplane"));
        let config = self.folder.path().join("config.yaml");
        command.args(words).arg("--config").arg(config);
        command.output().unwrap()
    }

    pub(crate) async fn becomes_ready(&self) {
        until(DEADLINE, async || self.status("/readyz").await == 200).await;
    }

    /// The status of an admin path; 0 without an answer.
    pub(crate) async fn status(&self, path: &str) -> u16 {
        let response = http1::get(self.admin, "x", path).await;
        response.map_or(0, |response| response.status.as_u16())
    }

    /// The text of an admin path.
    pub(crate) async fn text(&self, path: &str) -> String {
        let response = http1::get(self.admin, "x", path).await;
        response.unwrap().text()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output and error.
    pub(crate) fn said(&self) -> String {
        let read = |name: &str| -> String {
            let path: PathBuf = self.folder.path().join(name);
            fs::read_to_string(path).unwrap_or_default()
        };
        read("stdout") + &read("stderr")
    }

    /// CPU time used so far, in clock ticks (100 a second).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let (_, rest) = stat.rsplit_once(')').unwrap();
        let field = |at: usize| -> u64 {
            rest.split_whitespace()
                .nth(at - 3)
                .unwrap()
                .parse()
                .unwrap()
        };
        field(14) + field(15)
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        assert!(sent.unwrap().success(), "kill -{name} {id}");
    }

    /// Its resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let digits = line.unwrap().trim().trim_end_matches(" kB");
        digits.parse().unwrap()
    }

    /// The value of a metric; with labels as they are written.
    pub(crate) async fn metric(&self, name: &str) -> Option<f64> {
        let metrics = self.text("/metrics").await;
        let mut values = metrics.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            series.ends_with(name).then(|| value.parse().ok())?
        });
        values.next()
    }

    /// True as long as it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills it and starts no other.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL, too.
        self.kill();
    }
}

/// True when a program is there; says loudly when it is not.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
pub(crate) fn is_there(program: &str, why: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !found {
        eprintln!("SKIPPED: {why}: there is no {program} here, install it");
    }
    found
}
