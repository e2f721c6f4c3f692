//! The secret under which persistent sessions are sealed.

use std::path::PathBuf;
use std::time::Duration;

use dataplane_config::session_secrets::Overlap;
use ir::SecretText;

use super::key;
use crate::bootstrap::written::Written;
use crate::session_secret::{self, SecretFile};

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// From the file or from a file of its own; none when neither says anything.
pub(super) fn secret(written: &mut Written) -> Option<SecretText> {
    let inline = written.secret(&key::SESSION_SECRET);
    let file = written.text(&key::SESSION_SECRET_FILE);
    let (key, secret) = match (inline, file) {
        (None, None) => return None,
        (Some(_), Some(_)) => {
            let message = "sessionPersistence.secretKeyFile is set too, keep one of them";
            written.fault(key::SESSION_SECRET.name, message);
            return None;
        }
        (Some(secret), None) => {
            let checked = session_secret::checked(secret.expose());
            (key::SESSION_SECRET.name, checked)
        }
        (None, Some(path)) => {
            let read = session_secret::read(&PathBuf::from(path));
            (key::SESSION_SECRET_FILE.name, read)
        }
    };
    match secret {
        Ok(secret) => Some(secret),
        Err(unusable) => {
            written.fault(key, unusable.to_string());
            None
        }
    }
}

/// The file that is looked at while running, if there is one.
pub(super) fn file(written: &Written) -> Option<SecretFile> {
    Some(SecretFile {
        path: written.text(&key::SESSION_SECRET_FILE)?.into(),
        interval: LOOK_EVERY,
        overlap: Overlap {
            seals_after: written.duration(&key::SESSION_SEALS_AFTER),
            former_opens_for: written.duration(&key::SESSION_FORMER),
        },
    })
}
