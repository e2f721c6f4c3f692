//! What the operating system says about this process.
//!
//! Read from `/proc` while a scrape is answered and at no other time. A file that cannot be read,
//! as on another system, leaves its samples out.

use std::fs;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use tokio::runtime::RuntimeMetrics;

use super::exposition::{Exposition, Value};
use super::family::{self, Family};
use super::instrument::Counter;

/// Facts about this process.
#[derive(Debug, Default)]
pub struct ProcessMetrics {
    panics: Counter,
    /// Seconds of the epoch at which it was started; asked for once, so that it stays the same while
    /// the clock is set.
    start: OnceLock<Option<f64>>,
    threads: Mutex<Vec<(String, RuntimeMetrics)>>,
}

/// Clock ticks per second in `/proc`; the kernel's interface fixes it for the processors we build
/// for, whatever its own timer does.
const TICKS: f64 = 100.0;

impl ProcessMetrics {
    /// Memory of this process that is held in RAM, in bytes.
    pub fn resident_bytes(&self) -> Option<u64> {
        resident_bytes(&fs::read_to_string("/proc/self/status").ok()?)
    }

    /// Counts a request that a panic ended.
    pub fn request_panicked(&self) {
        self.panics.increment();
    }

    /// Tells of a thread that serves, with a runtime of its own.
    pub fn thread_serves(&self, name: &str, runtime: RuntimeMetrics) {
        self.threads().push((name.to_owned(), runtime));
    }

    pub(super) fn encode_threads(&self, out: &mut Exposition<'_>) {
        let threads = self.threads();
        let mut samples = out.family(&family::THREAD_BUSY);
        for (name, runtime) in &*threads {
            let busy = runtime.worker_total_busy_duration(0);
            samples.sample(&[name], busy.as_secs_f64());
        }
        let mut samples = out.family(&family::THREAD_TASKS);
        for (name, runtime) in &*threads {
            samples.sample(&[name], runtime.num_alive_tasks() as u64);
        }
    }

    fn threads(&self) -> MutexGuard<'_, Vec<(String, RuntimeMetrics)>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        out.family(&family::PANICS).sample(&[], self.panics.value());
        let stat = fs::read_to_string("/proc/self/stat").ok();
        let stat = stat.as_deref().and_then(Stat::parse);
        let limits = fs::read_to_string("/proc/self/limits").ok();
        let mut write = |family: &'static Family, value: Option<Value>| {
            let mut samples = out.family(family);
            if let Some(value) = value {
                samples.sample(&[], value);
            }
        };
        write(
            &family::PROCESS_MEMORY,
            self.resident_bytes().map(Value::from),
        );
        let cpu = stat.as_ref().map(|stat| stat.cpu_ticks as f64 / TICKS);
        write(&family::PROCESS_CPU, cpu.map(Value::from));
        write(&family::PROCESS_FDS, open_descriptors().map(Value::from));
        write(
            &family::PROCESS_MAX_FDS,
            limits
                .as_deref()
                .and_then(descriptor_limit)
                .map(Value::from),
        );
        write(
            &family::PROCESS_THREADS,
            stat.as_ref().map(|stat| Value::from(stat.threads)),
        );
        let start = self.start.get_or_init(|| start_seconds(stat.as_ref()?));
        write(&family::PROCESS_START, start.map(Value::from));
    }
}

fn resident_bytes(status: &str) -> Option<u64> {
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    kib.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

fn open_descriptors() -> Option<u64> {
    // The directory itself is open while it is counted.
    let count = fs::read_dir("/proc/self/fd")
        .ok()?
        .count()
        .saturating_sub(1);
    u64::try_from(count).ok()
}

fn descriptor_limit(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// By the time of the boot, of which `/proc` tells whole seconds, and the time since then, of which it
/// tells hundredths.
fn start_seconds(stat: &Stat) -> Option<f64> {
    let system = fs::read_to_string("/proc/stat").ok()?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let now = SystemTime::UNIX_EPOCH.elapsed().ok()?;
    let boot = boot_seconds(&system)? as f64;
    let boot = finer(boot, now.as_secs_f64() - uptime_seconds(&uptime)?);
    Some(boot + stat.start_ticks as f64 / TICKS)
}

/// The second, if it is the same time told finer. Where a container is shown an uptime of its own
/// (lxcfs) it is not.
fn finer(coarse: f64, fine: f64) -> f64 {
    const APART_MAX: f64 = 1.5;
    if (fine - coarse).abs() <= APART_MAX {
        fine
    } else {
        coarse
    }
}

fn boot_seconds(system: &str) -> Option<u64> {
    system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

fn uptime_seconds(uptime: &str) -> Option<f64> {
    uptime.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/self/stat` that we use.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name, which may hold anything; the rest follows the
        // last parenthesis and begins with the third field (proc_pid_stat(5)).
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)?.checked_add(number(15)?)?,
            threads: number(20)?,
            start_ticks: number(22)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_program_name() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194304 10 0 0 0 150 25 0 0 20 0 3 0 900 1 2\n";
        let expected = Stat {
            cpu_ticks: 175,
            threads: 3,
            start_ticks: 900,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        for broken in [
            "",
            "7 (a",
            "7 (a) S",
            "7 (a) S 1 7 7 0 -1 4194304 10 0 0 0 x 25 0",
        ] {
            assert_eq!(Stat::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn files_of_proc_are_read() {
        assert_eq!(
            resident_bytes("VmPeak:\t 9 kB\nVmRSS:\t   12 kB\n"),
            Some(12_288)
        );
        assert_eq!(resident_bytes("VmRSS:\t x kB\n"), None);
        let limits = "Max processes  1 2 processes\nMax open files   1024   4096   files\n";
        assert_eq!(descriptor_limit(limits), Some(1024));
        assert_eq!(
            boot_seconds("cpu 1\nbtime 1700000000\n"),
            Some(1_700_000_000)
        );
        assert_eq!(uptime_seconds("350735.47 234388.90\n"), Some(350_735.47));
        assert_eq!(uptime_seconds("\n"), None);
    }

    #[test]
    fn an_uptime_of_the_container_alone_is_not_believed() {
        assert_eq!(finer(1000.0, 1000.87), 1000.87);
        assert_eq!(finer(1000.0, 5000.0), 1000.0);
    }

    #[test]
    fn this_process_started_a_moment_ago() {
        let stat = Stat::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let start = start_seconds(&stat).unwrap();
        // Each end of the difference is rounded to a hundredth.
        assert!(start < now + 0.02 && start > now - 3600.0, "{start} {now}");
    }
}
