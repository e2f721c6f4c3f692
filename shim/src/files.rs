//! The cluster view from folders and files of YAML.
//!
//! [`FileSource`] reads every `*.yaml`, `*.yml` and `*.json` below its roots and keeps what it read by
//! file, so that a change re-reads one file and not three thousand. [`watch`] keeps it current and
//! hands out a [`Files`] for every change. A file, document or object that cannot be read becomes a
//! [`Fault`]; everything else still counts. What objects mean together is [`crate::translate`].

mod document;
pub(crate) mod object;
mod schema;
mod place;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::cluster_view::{AnyObject, ClusterView, Kind};

/// What the files say now.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Every object that could be read.
    pub view: ClusterView,
    /// What could not be read.
    pub faults: Arc<[Fault]>,
    /// Objects of kinds the gateway does not read.
    pub skipped: Arc<[Skipped]>,
}

/// A file, document or object that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file.
    pub file: Arc<str>,
    /// The line of the field, or of what is nearest to it, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// The object, as `Kind namespace/name`; empty when none could be told.
    pub object: String,
    /// The field, as `spec.rules[0].matches`; empty for the object itself.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.file.is_empty() {
            "API server"
        } else {
            &self.file
        })?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        for part in [&self.object, &self.path] {
            if !part.is_empty() {
                write!(f, ": {part}")?;
            }
        }
        write!(f, ": {}", self.message)
    }
}

/// An object of a kind the gateway does not read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// The file.
    pub file: Arc<str>,
    /// First line of its document.
    pub line: usize,
    /// Version, kind and name.
    pub what: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

/// Larger files are refused.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Folders nested deeper than this are not entered.
const FOLDER_DEPTH_MAX: usize = 32;
/// A file changed this shortly before it was read is read again at the next rescan, because its
/// time stamp may not tell a further change.
const STAMP_SETTLES: Duration = Duration::from_millis(100);

/// Folders and files, what was read from each, and the view they make together.
#[derive(Debug)]
pub struct FileSource {
    /// Absolute, as events of the operating system name them.
    roots: Vec<PathBuf>,
    /// The same as they were given, for messages.
    given: Vec<PathBuf>,
    files: BTreeMap<PathBuf, FileState>,
    /// Who defines an object; the last one by file name and position counts.
    owners: HashMap<(Kind, Arc<str>), Owners>,
    duplicates: BTreeSet<(Kind, Arc<str>)>,
    root_faults: Vec<Fault>,
    view: ClusterView,
}

/// The definitions of one object, by file and position in it.
type Owners = BTreeMap<(PathBuf, usize), AnyObject>;

#[derive(Debug, Default)]
struct FileState {
    stamp: Option<Stamp>,
    objects: Vec<AnyObject>,
    faults: Vec<Fault>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, PartialEq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

/// What became of one file that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing worth telling.
    Same,
    /// The view or the faults are other than before.
    Changed,
    /// It is empty where there was something, as in the midst of being written; look again.
    Emptied,
}

impl FileSource {
    /// Reads everything below `roots`, each a folder or a file.
    pub fn new(roots: impl IntoIterator<Item = PathBuf>) -> Self {
        let given: Vec<_> = roots.into_iter().collect();
        let absolute = |root: &PathBuf| std::path::absolute(root).unwrap_or_else(|_| root.clone());
        let mut source = Self {
            roots: given.iter().map(absolute).collect(),
            given,
            files: BTreeMap::new(),
            owners: HashMap::new(),
            duplicates: BTreeSet::new(),
            root_faults: Vec::new(),
            view: ClusterView::default(),
        };
        source.rescan();
        source
    }

    /// The folders and files it was given, as absolute paths.
    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    /// What the files say now; cheap where nothing is wrong.
    pub fn current(&self) -> Files {
        let mut faults = self.root_faults.clone();
        faults.extend(
            self.files
                .values()
                .flat_map(|file| file.faults.iter().cloned()),
        );
        for key in &self.duplicates {
            faults.extend(self.duplicate_faults(key));
        }
        Files {
            view: self.view.clone(),
            faults: faults.into(),
            skipped: self
                .files
                .values()
                .flat_map(|file| file.skipped.iter().cloned())
                .collect(),
        }
    }

    /// Looks at every file again; reads those whose time or length changed.
    pub fn rescan(&mut self) -> Refreshed {
        let mut found = BTreeSet::new();
        let mut unlisted = Vec::new();
        let faults = std::mem::take(&mut self.root_faults);
        for root in self.roots.clone() {
            if let Err(error) = list(&root, 0, &mut found) {
                self.root_faults.push(fault(
                    &root.to_string_lossy(),
                    format!(
                        "cannot be listed: {error}; what it held serves on, check that it exists and \
                         can be read"
                    ),
                ));
                unlisted.push(root);
            }
        }
        let mut changed = faults != self.root_faults;
        let gone: Vec<_> = self
            .files
            .keys()
            .filter(|path| !found.contains(*path))
            .filter(|path| !unlisted.iter().any(|root| path.starts_with(root)))
            .cloned()
            .collect();
        for path in gone {
            changed |= self.replace(&path, None);
        }
        for path in found {
            let stamp = fs::metadata(&path)
                .ok()
                .map(|metadata| Stamp::new(&metadata));
            let known = self
                .files
                .get(&path)
                .is_some_and(|file| file.stamp.is_some() && file.stamp == stamp);
            if !known {
                changed |= self.read(&path);
            }
        }
        if changed {
            Refreshed::Changed
        } else {
            Refreshed::Same
        }
    }

    /// Reads one file again, whatever its time stamp says; it may be gone or new.
    pub fn refresh(&mut self, path: &Path, patience: Patience) -> Refreshed {
        if !is_manifest(path) || self.is_below_hidden(path) {
            return Refreshed::Same;
        }
        let had_content = self
            .files
            .get(path)
            .is_some_and(|file| !file.objects.is_empty());
        if patience == Patience::WaitForContent
            && had_content
            && fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0)
        {
            return Refreshed::Emptied;
        }
        if self.read(path) {
            Refreshed::Changed
        } else {
            Refreshed::Same
        }
    }

    /// Reads a file into its place; true when anything is other than before.
    fn read(&mut self, path: &Path) -> bool {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_file() => {
                let state = self.load(path, &metadata);
                self.replace(path, Some(state))
            }
            Ok(_) => self.replace(path, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => self.replace(path, None),
            Err(error) => self.replace(path, Some(self.unreadable(path, &error.to_string()))),
        }
    }

    /// A file that cannot be read keeps what it last held.
    fn unreadable(&self, path: &Path, reason: &str) -> FileState {
        let known = self.files.get(path);
        FileState {
            objects: known.map(|known| known.objects.clone()).unwrap_or_default(),
            faults: vec![fault(
                &self.shown(path),
                format!("cannot be read, what it held serves on: {reason}"),
            )],
            ..FileState::default()
        }
    }

    fn load(&self, path: &Path, metadata: &Metadata) -> FileState {
        if metadata.len() > FILE_BYTES_MAX {
            let reason = format!("is larger than {} MiB, split it", FILE_BYTES_MAX >> 20);
            return self.unreadable(path, &reason);
        }
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.unreadable(path, &error.to_string()),
        };
        let settled = metadata
            .modified()
            .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > STAMP_SETTLES));
        let mut state = FileState {
            stamp: settled.then(|| Stamp::new(metadata)),
            ..FileState::default()
        };
        let file = self.shown(path).into();
        for document in document::documents(&file, &text, &mut state.faults) {
            match object::read(document) {
                object::Outcome::Object(object) => state.objects.push(object),
                object::Outcome::Skipped(skipped) => state.skipped.push(skipped),
                object::Outcome::Fault(fault) => state.faults.push(fault),
            }
        }
        state.faults.sort();
        state
    }

    /// Puts what a file says in the place of what it said; true when anything is other than before.
    fn replace(&mut self, path: &Path, state: Option<FileState>) -> bool {
        let before = self.files.remove(path).unwrap_or_default();
        let after = state.as_ref();
        let same = match after {
            Some(after) => *after == before,
            None => before == FileState::default(),
        };
        if !same {
            let objects = after.map_or(&[][..], |after| &after.objects);
            self.give_up(path, &before.objects);
            self.take_on(path, objects);
            let touched = before.objects.iter().chain(objects);
            let keys: BTreeSet<_> = touched.map(|o| (o.kind(), o.key().clone())).collect();
            for key in keys {
                self.settle(key);
            }
        }
        if let Some(state) = state {
            self.files.insert(path.to_owned(), state);
        }
        !same
    }

    fn give_up(&mut self, path: &Path, objects: &[AnyObject]) {
        for (index, object) in objects.iter().enumerate() {
            if let Some(owners) = self.owners.get_mut(&(object.kind(), object.key().clone())) {
                owners.remove(&(path.to_owned(), index));
            }
        }
    }

    fn take_on(&mut self, path: &Path, objects: &[AnyObject]) {
        for (index, object) in objects.iter().enumerate() {
            let owners = self
                .owners
                .entry((object.kind(), object.key().clone()))
                .or_default();
            owners.insert((path.to_owned(), index), object.clone());
        }
    }

    /// Brings the view in line with the owners of one object.
    fn settle(&mut self, key: (Kind, Arc<str>)) {
        let owners = self.owners.get(&key);
        let count = owners.map_or(0, BTreeMap::len);
        match owners
            .and_then(|owners| owners.values().next_back())
            .cloned()
        {
            Some(object) => drop(self.view.insert(object)),
            None => {
                self.owners.remove(&key);
                self.view.remove(key.0, &key.1);
            }
        }
        if count > 1 {
            self.duplicates.insert(key);
        } else {
            self.duplicates.remove(&key);
        }
    }

    fn duplicate_faults(&self, key: &(Kind, Arc<str>)) -> Vec<Fault> {
        let owners: Vec<_> = self
            .owners
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values)
            .collect();
        let Some((winner, losers)) = owners.split_last() else {
            return Vec::new();
        };
        let ignored = losers.iter().map(|loser| Fault {
            file: loser.origin().file.clone(),
            line: loser.origin().line,
            object: format!("{} {}", key.0, key.1),
            path: String::new(),
            message: format!(
                "is also at {}:{}, which counts; remove one of the two",
                winner.origin().file,
                winner.origin().line
            ),
        });
        ignored.collect()
    }

    fn is_below_hidden(&self, path: &Path) -> bool {
        let below = self
            .roots
            .iter()
            .find_map(|root| path.strip_prefix(root).ok());
        below.is_some_and(|below| below.ancestors().any(is_hidden))
    }

    /// The file as an operator would name it: below its folder, or as given.
    fn shown(&self, path: &Path) -> String {
        let roots = self.roots.iter().zip(&self.given);
        let mut named = roots.filter_map(|(root, given)| {
            let below = path.strip_prefix(root).ok()?;
            if below.as_os_str().is_empty() {
                Some(given.clone())
            } else if self.roots.len() == 1 {
                Some(below.to_owned())
            } else {
                Some(given.join(below))
            }
        });
        let named = named.next().unwrap_or_else(|| path.to_owned());
        named.to_string_lossy().into_owned()
    }
}

impl PartialEq for FileState {
    fn eq(&self, other: &Self) -> bool {
        // The time stamp says when, not what.
        self.objects == other.objects
            && self.faults == other.faults
            && self.skipped == other.skipped
    }
}

/// What to do about a file that is empty where there was something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Say so and keep what was read before.
    WaitForContent,
    /// Believe it.
    Believe,
}

impl Stamp {
    fn new(metadata: &Metadata) -> Self {
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        }
    }
}

fn fault(file: &str, message: String) -> Fault {
    Fault {
        file: file.into(),
        line: 0,
        object: String::new(),
        path: String::new(),
        message,
    }
}

/// Collects the manifests at or below `path`; a link to a file counts, a link to a folder does not.
fn list(path: &Path, depth: usize, found: &mut BTreeSet<PathBuf>) -> std::io::Result<()> {
    if fs::metadata(path)?.is_file() {
        found.insert(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let path = entry.path();
        if is_hidden(&path) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            if depth < FOLDER_DEPTH_MAX {
                // A folder that vanished while it was listed is no fault.
                list(&path, depth + 1, found).or_else(|error| match error.kind() {
                    std::io::ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })?;
            }
        } else if is_manifest(&path) && fs::metadata(&path).is_ok_and(|file| file.is_file()) {
            found.insert(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Names that begin with a dot: editors' swap files, and the inner folders of a mounted ConfigMap.
fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
