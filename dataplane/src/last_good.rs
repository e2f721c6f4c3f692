//! The last good configuration on a disk, so that a restart without a control plane still serves.
//!
//! `apply` hands every configuration that serves to [`Keeper::keep`]; a task of its own writes the
//! newest one, away from traffic, and at most one at a time. `app` asks [`load`] at start. Nothing
//! secret is written (`ir::at_rest`). A disk that is full or cannot be written costs a line in the
//! log and a count, never more; a file that is not whole is not used.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use dataplane_telemetry::metrics::LastGoodMetrics;
use ir::{Snapshot, at_rest};

pub mod file;

pub use file::LoadError;

/// Updates that come within this time of one another are written once.
const SETTLE: Duration = Duration::from_secs(1);

/// What was found on the disk.
#[derive(Debug)]
pub struct Found {
    /// The configuration, without secrets.
    pub snapshot: Snapshot,
    /// What of it is not served as it should be, because it needs secrets.
    pub withheld: Vec<String>,
}

/// Reads the file; `None` when there is none or it cannot be used, which is said in the log.
pub fn load(path: &Path) -> Option<Found> {
    match file::read(path) {
        Ok(found) => {
            info!(
                path = %path.display(),
                version = %found.snapshot.version,
                withheld = found.withheld.len(),
                "the last good configuration is read from disk"
            );
            Some(found)
        }
        Err(LoadError::Absent) => {
            info!(path = %path.display(), "no last good configuration on disk yet");
            None
        }
        Err(error) => {
            warn!(path = %path.display(), %error, "the last good configuration is not used");
            None
        }
    }
}

/// Writes what serves; does nothing when there is no file to write to.
#[derive(Debug, Default)]
pub struct Keeper {
    newest: Option<watch::Sender<Option<Snapshot>>>,
    writing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Writes to `path` from now on.
    pub fn start(path: PathBuf, metrics: Arc<LastGoodMetrics>) -> Self {
        let (newest, changes) = watch::channel(None);
        let writing = tokio::spawn(write_all(path, metrics, changes));
        Self {
            newest: Some(newest),
            writing: Some(writing),
        }
    }

    /// Has this configuration written, soon and unless a newer one comes; cheap.
    pub fn keep(&self, snapshot: &Snapshot) {
        if let Some(newest) = &self.newest {
            newest.send_replace(Some(snapshot.clone()));
        }
    }

    /// Writes out what waits and ends.
    pub async fn stop(mut self) {
        drop(self.newest.take());
        if let Some(writing) = self.writing.take() {
            // It cannot panic for what is on the disk; a panic was told by the hook.
            let _ = writing.await;
        }
    }
}

async fn write_all(
    path: PathBuf,
    metrics: Arc<LastGoodMetrics>,
    mut changes: watch::Receiver<Option<Snapshot>>,
) {
    let mut has_failed = false;
    loop {
        let is_last = changes.changed().await.is_err();
        if !is_last {
            // What follows closely is written with it; the end does not wait.
            let ended = async { while changes.changed().await.is_ok() {} };
            let _ = tokio::time::timeout(SETTLE, ended).await;
        }
        let newest = changes.borrow_and_update().clone();
        if let Some(snapshot) = newest.filter(|_| !is_last) {
            let target = path.clone();
            let written = tokio::task::spawn_blocking(move || {
                let bare = at_rest::without_secrets(&snapshot);
                file::write(&target, &bare)
            });
            let outcome = written
                .await
                .unwrap_or_else(|_| Err(std::io::Error::other("the writer panicked")));
            note(&path, outcome, &metrics, &mut has_failed);
        }
        if is_last {
            return;
        }
    }
}

/// Counts, and says once that it fails and once that it works again.
fn note(
    path: &Path,
    outcome: std::io::Result<u64>,
    metrics: &LastGoodMetrics,
    has_failed: &mut bool,
) {
    match outcome {
        Ok(bytes) => {
            metrics.writes.increment();
            metrics.bytes.set(bytes);
            if *has_failed {
                info!(path = %path.display(), "the last good configuration is written again");
            }
            *has_failed = false;
        }
        Err(error) => {
            metrics.failures.increment();
            if !*has_failed {
                warn!(
                    path = %path.display(),
                    %error,
                    "the last good configuration cannot be written; traffic is not affected, \
                     check lastGoodCache.path and the space there"
                );
            }
            *has_failed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(version: &str) -> Snapshot {
        Snapshot {
            version: ir::Version::new(version),
            ..Snapshot::default()
        }
    }

    #[tokio::test]
    async fn a_storm_is_written_once_and_the_end_writes_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        let metrics = Arc::new(LastGoodMetrics::default());
        let keeper = Keeper::start(path.clone(), metrics.clone());
        for turn in 0..1000 {
            keeper.keep(&snapshot(&format!("v{turn}")));
        }
        keeper.stop().await;
        let found = file::read(&path).unwrap();
        assert_eq!(found.snapshot.version.as_str(), "v999");
        assert!(metrics.writes.value() <= 2, "{}", metrics.writes.value());
    }

    #[tokio::test]
    async fn a_disk_that_cannot_be_written_is_counted_and_nothing_more() {
        let metrics = Arc::new(LastGoodMetrics::default());
        let keeper = Keeper::start("/proc/nowhere/last-good".into(), metrics.clone());
        keeper.keep(&snapshot("v1"));
        keeper.stop().await;
        assert_eq!((metrics.writes.value(), metrics.failures.value()), (0, 1));
    }
}
