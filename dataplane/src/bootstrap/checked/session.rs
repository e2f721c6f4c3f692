//! The secret under which persistent sessions are sealed.

use std::fs;

use ir::SecretText;

use super::key;
use crate::bootstrap::written::Written;

/// A secret that is shorter can be guessed.
const SECRET_BYTES_MIN: usize = 16;

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
        (Some(secret), None) => (key::SESSION_SECRET.name, secret),
        (None, Some(path)) => match fs::read_to_string(&path) {
            Ok(text) => {
                let secret = SecretText::new(text.trim().to_owned());
                (key::SESSION_SECRET_FILE.name, secret)
            }
            Err(error) => {
                let message = format!("cannot read {path}: {error}; is the Secret mounted?");
                written.fault(key::SESSION_SECRET_FILE.name, message);
                return None;
            }
        },
    };
    if secret.expose().len() < SECRET_BYTES_MIN {
        let message = format!(
            "expected a secret of {SECRET_BYTES_MIN} characters or more, as `openssl rand -hex 32` \
             writes one"
        );
        written.fault(key, message);
        return None;
    }
    Some(secret)
}
