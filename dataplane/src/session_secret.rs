//! The file with the secret of persistent sessions, read at start and looked at from then on.
//!
//! [`follow`] is started by `app`, away from traffic. What a new secret means, and when, is decided
//! by [`Rotation`]; here the file is read and the outcome told. A file that cannot be used changes
//! nothing: sessions go on under the secret that was read before.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dataplane_config::session_secrets::{Change, Overlap, Rotation};
use dataplane_telemetry::metrics::SessionMetrics;
use ir::SecretText;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// A secret that is shorter can be guessed.
const SECRET_BYTES_MIN: usize = 16;
/// A file that is larger is no secret.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Where the secret is, and how often that is looked at.
#[derive(Clone, Debug)]
pub struct SecretFile {
    /// The file.
    pub path: PathBuf,
    /// Between two looks.
    pub interval: Duration,
    /// How one secret takes over from another.
    pub overlap: Overlap,
}

/// Why there is no secret in it.
#[derive(Debug)]
pub enum Unusable {
    /// The file.
    Unread(PathBuf, std::io::Error),
    /// What it says.
    TooShort,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(path, error) => {
                let path = path.display();
                write!(f, "cannot read {path}: {error}; is the Secret mounted?")
            }
            Self::TooShort => write!(
                f,
                "expected a secret of {SECRET_BYTES_MIN} characters or more, as `openssl rand -hex \
                 32` writes one"
            ),
        }
    }
}

/// The secret that a file holds.
pub fn read(path: &Path) -> Result<SecretText, Unusable> {
    let mut text = String::new();
    let file = File::open(path);
    file.and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| Unusable::Unread(path.to_owned(), error))?;
    let secret = checked(text.trim());
    // What is longer than the secret is not left in memory.
    drop(SecretText::new(text));
    secret
}

/// The secret that was written, unless it can be guessed.
pub fn checked(written: &str) -> Result<SecretText, Unusable> {
    match written.len() {
        0..SECRET_BYTES_MIN => Err(Unusable::TooShort),
        _ => Ok(SecretText::new(written.to_owned())),
    }
}

/// Looks at the file until `stop` is cancelled.
pub async fn follow(
    file: SecretFile,
    mut rotation: Rotation,
    metrics: Arc<SessionMetrics>,
    stop: CancellationToken,
) {
    let began = Instant::now();
    let mut tick = tokio::time::interval(file.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_unusable = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        let path = file.path.clone();
        let Ok(found) = tokio::task::spawn_blocking(move || read(&path)).await else {
            continue;
        };
        match &found {
            Err(error) if !is_unusable => {
                warn!(%error, "sessions go on under the secret that was read before");
            }
            Ok(_) if is_unusable => info!("the secret of sessions can be read again"),
            Ok(_) | Err(_) => {}
        }
        is_unusable = found.is_err();
        metrics.is_secret_unusable.set(i64::from(is_unusable));
        match rotation.look(found.ok().as_ref(), began.elapsed()) {
            Ok(Change::None) => {}
            Ok(Change::Opens) => info!("another secret opens sessions"),
            Ok(Change::Seals) => {
                metrics.secrets_taken.increment();
                info!("sessions are sealed under the newest secret");
            }
            Ok(Change::Ended) => info!("a former secret opens sessions no more"),
            Err(error) => warn!(%error, "sessions go on under the secret that was read before"),
        }
    }
}
