//! Keeps a [`FileSource`] current and hands out its state after every change.
//!
//! Events of the operating system only say where to look; what is there is read again. Editors write
//! in place or rename over, mounted ConfigMaps swap a link, so an event that does not plainly name a
//! manifest means looking at every time stamp. Events are gathered for a short while, because one
//! save is several of them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::watch;

use super::{FileSource, Files, Patience, Refreshed, is_manifest};

/// Events that come this close together are one change.
const QUIET: Duration = Duration::from_millis(4);
/// A change is told at the latest this long after its first event.
const DEBOUNCE_MAX: Duration = Duration::from_millis(20);
/// How long a file that became empty may stay so before it is believed.
const EMPTY_GRACE: Duration = Duration::from_millis(100);
/// How often a root that is gone is looked for, and whether anybody still listens.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Events waiting to be looked at; beyond, everything is looked at.
const EVENTS_MAX: usize = 4096;

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The operating system refused.
    #[error(
        "cannot watch {path}: check that it exists and that fs.inotify.max_user_watches is not used up"
    )]
    Refused {
        /// What was to be watched.
        path: PathBuf,
        /// Why not.
        #[source]
        source: notify::Error,
    },
    /// No watcher or no thread could be made.
    #[error("cannot start watching files: check fs.inotify.max_user_instances")]
    Start(#[source] notify::Error),
    /// No thread could be started.
    #[error("cannot start the thread that watches files")]
    Thread(#[source] std::io::Error),
}

/// Watches until the last receiver is gone; the first state is there at once.
pub fn watch(mut source: FileSource) -> Result<watch::Receiver<Files>, WatchError> {
    let (events, received) = sync_channel(EVENTS_MAX);
    let overflow = Arc::new(AtomicBool::new(false));
    let mut watcher = start(events, overflow.clone())?;
    for root in source.roots() {
        observe(&mut watcher, root)?;
    }
    // Only now, so that nothing can change between the last look and the first event.
    source.rescan();
    let (sender, receiver) = watch::channel(source.current());
    let mut observer = Observer {
        source,
        watcher,
        overflow,
        received,
        sender,
        emptied: BTreeSet::new(),
        rescan: false,
    };
    thread::Builder::new()
        .name("watch-files".to_owned())
        .spawn(move || observer.run())
        .map_err(WatchError::Thread)?;
    Ok(receiver)
}

fn start(
    events: SyncSender<Event>,
    overflow: Arc<AtomicBool>,
) -> Result<RecommendedWatcher, WatchError> {
    let handler = move |event: notify::Result<Event>| {
        // An error, like a full queue, means that something was missed.
        let missed = event.map_or(true, |event| {
            !matches!(event.kind, EventKind::Access(_)) && events.try_send(event).is_err()
        });
        if missed {
            overflow.store(true, Ordering::Release);
        }
    };
    notify::recommended_watcher(handler).map_err(WatchError::Start)
}

/// A file is watched through its folder, because a rename over it would end a watch on itself.
fn observe(watcher: &mut RecommendedWatcher, root: &Path) -> Result<(), WatchError> {
    let (path, mode) = if root.is_file() {
        let folder = root
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        (
            folder.unwrap_or_else(|| Path::new(".")),
            RecursiveMode::NonRecursive,
        )
    } else {
        (root, RecursiveMode::Recursive)
    };
    watcher
        .watch(path, mode)
        .map_err(|source| WatchError::Refused {
            path: path.to_owned(),
            source,
        })
}

struct Observer {
    source: FileSource,
    watcher: RecommendedWatcher,
    overflow: Arc<AtomicBool>,
    received: Receiver<Event>,
    sender: watch::Sender<Files>,
    /// Files that became empty and may just be in the midst of being written.
    emptied: BTreeSet<PathBuf>,
    /// Something may have changed that no event names.
    rescan: bool,
}

impl Observer {
    fn run(&mut self) {
        while !self.sender.is_closed() {
            let patience = if self.emptied.is_empty() {
                LOOK_AGAIN
            } else {
                EMPTY_GRACE
            };
            let changed = match self.received.recv_timeout(patience) {
                Ok(event) => self.look_where(event),
                Err(RecvTimeoutError::Timeout) => self.look_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if changed {
                self.sender.send_replace(self.source.current());
            }
        }
    }

    /// Gathers the events of one change and looks at what they name.
    fn look_where(&mut self, first: Event) -> bool {
        let deadline = Instant::now() + DEBOUNCE_MAX;
        let mut paths = BTreeSet::new();
        let mut event = Some(first);
        while let Some(known) = event.take() {
            self.rescan |= known.need_rescan() || known.paths.is_empty();
            for path in known.paths {
                self.rescan |= !names_a_manifest(&path, self.source.roots());
                paths.insert(path);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            event = self.received.recv_timeout(QUIET.min(left)).ok();
        }
        self.rescan |= self.overflow.swap(false, Ordering::AcqRel);
        if self.rescan {
            return self.look_everywhere();
        }
        let mut changed = false;
        for path in paths {
            match self.source.refresh(&path, Patience::WaitForContent) {
                Refreshed::Emptied => drop(self.emptied.insert(path)),
                outcome => {
                    self.emptied.remove(&path);
                    changed |= outcome == Refreshed::Changed;
                }
            }
        }
        changed
    }

    fn look_everywhere(&mut self) -> bool {
        self.rescan = false;
        self.source.rescan() == Refreshed::Changed
    }

    /// Nothing happened for a while: believe what is empty, look for what is gone.
    fn look_again(&mut self) -> bool {
        let mut changed = false;
        for path in std::mem::take(&mut self.emptied) {
            changed |= self.source.refresh(&path, Patience::Believe) == Refreshed::Changed;
        }
        if self.overflow.swap(false, Ordering::AcqRel) {
            changed |= self.look_everywhere();
        }
        if !self.source.root_faults.is_empty() && self.look_everywhere() {
            for root in self.source.roots() {
                // A root that came back needs a new watch; the old one died with it.
                drop(observe(&mut self.watcher, root));
            }
            changed = true;
        }
        changed
    }
}

/// True when looking at `path` alone tells all there is to an event.
fn names_a_manifest(path: &Path, roots: &[PathBuf]) -> bool {
    if roots.iter().any(|root| root.is_file()) {
        return roots.iter().any(|root| root == path);
    }
    is_manifest(path)
        && path
            .symlink_metadata()
            .map_or(true, |metadata| metadata.is_file())
}
