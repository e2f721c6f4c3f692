//! A started binary of the product: its output, its signals, its end.
//!
//! Binaries are taken from beside the test executable, where `cargo test --workspace` puts them.
//! What a process prints is read all the time and kept up to a limit. Dropping a [`Process`] kills it.

use std::env;
use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

/// How long a process may take to end once it should.
const END_LIMIT: Duration = Duration::from_secs(20);
/// Kept of each stream; what comes after is read and forgotten.
const OUTPUT_BYTES_MAX: usize = 8 << 20;

/// The control plane, also in standalone.
pub const SHIM: &str = "nantian-shim";
/// The data plane.
pub const DATA_PLANE: &str = "nantian-dataplane";

/// A process that was started.
#[derive(Debug)]
pub struct Process {
    binary: &'static str,
    child: Child,
    stdout: Captured,
    stderr: Captured,
}

/// What a process said, and how it ended.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; nothing when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `binary` with these arguments and nothing of the product's in its environment.
    pub fn start<A: AsRef<OsStr>>(
        binary: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Self> {
        Self::start_in(binary, arguments, &[])
    }

    /// As [`Self::start`], with these variables in its environment.
    pub fn start_in<A: AsRef<OsStr>>(
        binary: &'static str,
        arguments: impl IntoIterator<Item = A>,
        environment: &[(&str, &OsStr)],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(path_of(binary)?);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("NANTIAN_GW_") || text.starts_with("PGW_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {binary}"))?;
        let stdout = Captured::of(child.stdout.take());
        let stderr = Captured::of(child.stderr.take());
        Ok(Self {
            binary,
            child,
            stdout,
            stderr,
        })
    }

    /// Runs `binary` to its end.
    pub async fn run<A: AsRef<OsStr>>(
        binary: &'static str,
        arguments: impl IntoIterator<Item = A>,
    ) -> anyhow::Result<Finished> {
        Self::start(binary, arguments)?.ended().await
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Everything it has written, for a message.
    pub fn said(&self) -> String {
        let (stdout, stderr) = (self.stdout(), self.stderr());
        format!("{} said:\n{stdout}\n{stderr}", self.binary)
    }

    /// True as long as it runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Sends a signal by its name, such as STOP and CONT.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let id = self.id().to_string();
        let status = Command::new("kill")
            .args([&format!("-{name}"), &id])
            .status();
        ensure!(
            status.context("kill")?.success(),
            "kill -{name} {id} failed"
        );
        Ok(())
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> anyhow::Result<Finished> {
        let status = self.exit_status().await?;
        self.stdout.finish();
        self.stderr.finish();
        Ok(Finished {
            code: status.code(),
            stdout: self.stdout(),
            stderr: self.stderr(),
        })
    }

    async fn exit_status(&mut self) -> anyhow::Result<ExitStatus> {
        let end = Instant::now() + END_LIMIT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < end,
                "it runs after {END_LIMIT:?}; {}",
                self.said()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.kill();
    }
}

/// Where a binary of this build is; `E2E_BINARIES` names another folder.
fn path_of(binary: &str) -> anyhow::Result<PathBuf> {
    if let Some(folder) = env::var_os("E2E_BINARIES") {
        return Ok(PathBuf::from(folder).join(binary));
    }
    // The test is target/<profile>/deps/it-0123456789abcdef.
    let test = env::current_exe().context("cannot tell where this test is")?;
    let profile = test.parent().and_then(Path::parent);
    let path = profile.context("this test is in no target folder")?;
    let path = path.join(binary);
    ensure!(
        path.is_file(),
        "{} is missing; run `cargo build --workspace` with the profile of this test, or \
         `cargo test --workspace`, which builds it",
        path.display()
    );
    Ok(path)
}

/// One stream of a process, read by a thread of its own.
#[derive(Debug)]
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let kept = bytes.clone();
        let reader = stream.map(|stream| std::thread::spawn(move || read_all(stream, &kept)));
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits for the end of the stream, which is there once the process has ended.
    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // A reader that died has nothing to add.
            let _ = reader.join();
        }
    }
}

fn read_all(mut stream: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 8192];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..length.min(room)]);
    }
}
