//! The file of the last good configuration: its form, and how it is written and read.
//!
//! The first line names the form and carries the SHA-256 of all that follows; the second is JSON
//! with the versions of product and configuration and what was withheld; the rest is the snapshot.
//! It is written beside the old one, made durable, and put in its place in one step, so that a
//! crash leaves one of the two whole.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use ir::at_rest::{self, AtRestError, Bare};

use super::Found;

/// What the first line begins with; the number changes with the form.
const FORM: &str = "nantian-gw-last-good/1";
/// Nobody but us may read or write it.
const MODE: u32 = 0o600;
/// Largest file that is read.
const BYTES_MAX: u64 = 1 << 30;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none.
    #[error("there is none")]
    Absent,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Read(#[source] io::Error),
    /// It is larger than any this program writes.
    #[error("it is larger than {BYTES_MAX} bytes")]
    TooLarge,
    /// It is of another form.
    #[error(
        "its form is {0:?}, this version reads {FORM}; it is written anew with the next update"
    )]
    OtherForm(String),
    /// It was cut, or changed by someone.
    #[error("its checksum is wrong, it was cut or changed; remove it")]
    Checksum,
    /// Its second line is not what it should be.
    #[error("its head cannot be read: {0}")]
    Head(#[source] serde_json::Error),
    /// It holds no sound snapshot.
    #[error("{0}")]
    Snapshot(#[from] AtRestError),
}

/// The second line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    /// Version of the program that wrote it.
    product: String,
    /// Version of the configuration.
    version: String,
    /// What needs secrets.
    withheld: Vec<String>,
}

/// Puts `bare` into the file; the bytes written.
pub fn write(path: &Path, bare: &Bare) -> io::Result<u64> {
    let head = Head {
        product: env!("CARGO_PKG_VERSION").to_owned(),
        version: bare.snapshot.version.as_str().to_owned(),
        withheld: bare.withheld.clone(),
    };
    let mut content = serde_json::to_vec(&head)?;
    content.push(b'\n');
    content.extend_from_slice(&at_rest::to_bytes(bare));
    let first = format!("{FORM} {}\n", checksum(&content));

    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let beside = folder.join(name);
    // One that a crash left behind may have other rights.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = replace(&beside, path, &[first.as_bytes(), &content]);
    if written.is_err() {
        // Half a file is of no use, and the disk may be full.
        let _ = fs::remove_file(&beside);
    }
    written?;
    File::open(folder)?.sync_all()?;
    Ok(first.len() as u64 + content.len() as u64)
}

fn replace(beside: &Path, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(beside)?;
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fs::rename(beside, path)
}

/// Reads the file and checks all of it.
pub fn read(path: &Path) -> Result<Found, LoadError> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => LoadError::Absent,
        _ => LoadError::Read(error),
    })?;
    let mode = file.metadata().map_err(LoadError::Read)?.permissions();
    if mode.mode() & 0o077 != 0 {
        warn!(
            path = %path.display(),
            mode = format!("{:o}", mode.mode() & 0o7777),
            "others may use the file of the last good configuration, give it the mode 600"
        );
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(LoadError::Read)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(LoadError::TooLarge);
    }
    let (first, content) = line(&bytes).ok_or(LoadError::Checksum)?;
    let first = String::from_utf8_lossy(first);
    let (form, sum) = first.split_once(' ').unwrap_or((&first, ""));
    if form != FORM {
        let shown = form.chars().take(40).collect();
        return Err(LoadError::OtherForm(shown));
    }
    if sum != checksum(content) {
        return Err(LoadError::Checksum);
    }
    let (head, snapshot) = line(content).ok_or(LoadError::Checksum)?;
    let head: Head = serde_json::from_slice(head).map_err(LoadError::Head)?;
    Ok(Found {
        snapshot: at_rest::from_bytes(snapshot)?,
        withheld: head.withheld,
    })
}

/// The first line without its end, and what follows it.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at(end);
    Some((line, rest.get(1..)?))
}

fn checksum(content: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(content) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use ir::{Snapshot, Version};

    use super::*;

    fn bare() -> Bare {
        Bare {
            snapshot: Snapshot {
                version: Version::new("v7"),
                ..Snapshot::default()
            },
            withheld: vec!["Listener a/b/c".to_owned()],
        }
    }

    #[test]
    fn what_is_written_is_read_and_nobody_else_may() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        assert!(matches!(read(&path), Err(LoadError::Absent)));
        fs::write(folder.path().join("last-good.tmp"), "left by a crash").unwrap();
        for _ in 0..2 {
            let bytes = write(&path, &bare()).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(metadata.len(), bytes);
            assert_eq!(metadata.permissions().mode() & 0o777, MODE);
        }
        let found = read(&path).unwrap();
        assert_eq!(found.snapshot, bare().snapshot);
        assert_eq!(found.withheld, bare().withheld);
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 1, "nothing is left beside it");
    }

    #[test]
    fn what_is_not_whole_or_of_another_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        write(&path, &bare()).unwrap();
        let good = fs::read(&path).unwrap();
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read(&path).is_err(), "cut to {length}");
        }
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            fs::write(&path, &changed).unwrap();
            assert!(read(&path).is_err(), "changed at {at}");
        }
        let other = String::from_utf8_lossy(&good).replacen("/1 ", "/2 ", 1);
        fs::write(&path, other).unwrap();
        assert!(matches!(read(&path), Err(LoadError::OtherForm(form)) if form.ends_with("/2")));
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-good");
        write(&path, &bare()).unwrap();
        let blocked = folder.path().join("last-good.tmp");
        fs::create_dir(&blocked).unwrap();
        assert!(write(&path, &bare()).is_err());
        assert!(read(&path).is_ok());
    }
}
