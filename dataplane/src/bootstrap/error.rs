//! Why a bootstrap file cannot be used: every fault in it, each at its key.
//!
//! Made by `written.rs` and `checked.rs`, printed by the binary. No message carries the value of a
//! secret key.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why there is no [`Bootstrap`](super::Bootstrap).
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}; check that it exists and may be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is larger than any bootstrap file is.
    #[error("{} is larger than {bytes_max} bytes; is it the bootstrap file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// How large it may be.
        bytes_max: u64,
    },
    /// The file is no YAML.
    #[error("{} is not valid YAML: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_yaml::Error,
    },
    /// Keys or values are wrong.
    #[error("{}", listed(file.as_ref(), faults))]
    Invalid {
        /// The file, when there is one.
        file: Option<PathBuf>,
        /// All that is wrong.
        faults: Vec<Fault>,
    },
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, or the environment variable.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl Fault {
    pub(super) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

fn listed(file: Option<&PathBuf>, faults: &[Fault]) -> String {
    let place = file.map_or_else(
        || "the environment".to_owned(),
        |path| path.display().to_string(),
    );
    let mut text = format!("{place} cannot be used");
    for fault in faults {
        text.push_str("\n  ");
        text.push_str(&fault.to_string());
    }
    text
}
