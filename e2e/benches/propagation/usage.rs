//! Memory and CPU of a process, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context;

/// Clock ticks a second that `/proc` counts in (`USER_HZ`, the same on every Linux).
const TICKS: f64 = 100.0;

/// Resident memory in MiB, shared pages of the program included.
pub(crate) fn memory(process: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    let kib: f64 = kib.context("no VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// CPU time used until now.
fn cpu(process: u32) -> anyhow::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the name, in parentheses and perhaps with blanks.
    let rest = stat.rsplit_once(')').context("no name")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks =
        |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("too short")?.parse()?) };
    Ok(Duration::from_secs_f64((ticks(11)? + ticks(12)?) / TICKS))
}

/// CPU of a process over a while.
pub(crate) struct Meter {
    process: u32,
    cpu: Duration,
    since: Instant,
}

impl Meter {
    /// Counts from now on.
    pub(crate) fn start(process: u32) -> anyhow::Result<Self> {
        Ok(Self {
            process,
            cpu: cpu(process)?,
            since: Instant::now(),
        })
    }

    /// CPU seconds since then.
    pub(crate) fn seconds(&self) -> anyhow::Result<f64> {
        Ok((cpu(self.process)? - self.cpu).as_secs_f64())
    }

    /// Mean number of cores since then.
    pub(crate) fn cores(&self) -> anyhow::Result<f64> {
        Ok(self.seconds()? / self.since.elapsed().as_secs_f64())
    }
}
