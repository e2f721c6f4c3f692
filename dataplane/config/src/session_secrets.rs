//! The secrets under which sessions are sealed, and how one takes over from another.
//!
//! [`SessionSecrets`] is what requests seal and open with; replicas that have the same secret know
//! each other's sessions. A [`Rotation`] holds it to what a file says: a new secret opens at once and
//! seals only after a while, so that all replicas have read it by then, and the former one goes on
//! opening for a while longer. It owns no file and no clock; whoever reads the file tells it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use ir::SecretText;

use dataplane_tls::{SealError, Sealer};

/// What sealed values are for; a change of their form changes it too.
const PURPOSE: &str = "nantian session 1";

/// How many secrets that seal no more may open; the oldest ends before its time when there are more.
pub const FORMER_MAX: usize = 4;

/// What requests seal and open with.
#[derive(Debug)]
pub struct SessionSecrets {
    ring: ArcSwap<Ring>,
}

#[derive(Debug)]
struct Ring {
    sealing: Arc<Sealer>,
    /// Further ones that open.
    opening: Box<[Arc<Sealer>]>,
}

impl SessionSecrets {
    /// One secret.
    pub fn new(secret: &SecretText) -> Result<Self, SealError> {
        Ok(Self::of(Known::new(secret)?.sealer))
    }

    /// One that ends with the process.
    pub fn ephemeral() -> Result<Self, SealError> {
        Ok(Self::of(Arc::new(Sealer::ephemeral(PURPOSE)?)))
    }

    fn of(sealing: Arc<Sealer>) -> Self {
        let opening = Box::default();
        Self {
            ring: ArcSwap::from_pointee(Ring { sealing, opening }),
        }
    }

    pub(crate) fn seal(&self, text: &[u8]) -> Vec<u8> {
        self.ring.load().sealing.seal(text)
    }

    /// What was sealed, and by which secret; nothing when by none of these.
    pub(crate) fn open(&self, sealed: &[u8]) -> Option<(Vec<u8>, SealedBy)> {
        let ring = self.ring.load();
        if let Some(text) = ring.sealing.open(sealed) {
            return Some((text, SealedBy::Current));
        }
        let text = ring.opening.iter().find_map(|it| it.open(sealed))?;
        Some((text, SealedBy::Other))
    }
}

/// Under which secret a value was sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedBy {
    /// The one that seals now.
    Current,
    /// One that will seal, or did.
    Other,
}

/// How long two secrets hold beside each other.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlap {
    /// From when a new secret is seen until it seals.
    pub seals_after: Duration,
    /// From then on, how long the former one opens.
    pub former_opens_for: Duration,
}

/// Holds [`SessionSecrets`] to what a file says.
pub struct Rotation {
    secrets: Arc<SessionSecrets>,
    overlap: Overlap,
    sealing: Known,
    /// The newest, and since when it is known.
    next: Option<(Known, Duration)>,
    /// Those that seal no more, and until when they open; the newest first.
    former: Vec<(Known, Duration)>,
}

struct Known {
    text: SecretText,
    sealer: Arc<Sealer>,
}

impl Known {
    fn new(text: &SecretText) -> Result<Self, SealError> {
        Ok(Self {
            text: text.clone(),
            sealer: Arc::new(Sealer::new(text.expose().as_bytes(), PURPOSE)?),
        })
    }
}

/// What became of a look at the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// All is as it was.
    None,
    /// Another secret opens from now on.
    Opens,
    /// The newest secret seals from now on.
    Seals,
    /// A former secret opens no more.
    Ended,
}

impl Rotation {
    /// Begins with that secret, which seals at once.
    pub fn new(secret: &SecretText, overlap: Overlap) -> Result<Self, SealError> {
        let sealing = Known::new(secret)?;
        Ok(Self {
            secrets: Arc::new(SessionSecrets::of(sealing.sealer.clone())),
            overlap,
            sealing,
            next: None,
            former: Vec::new(),
        })
    }

    /// What requests seal and open with.
    pub fn secrets(&self) -> Arc<SessionSecrets> {
        self.secrets.clone()
    }

    /// The file was looked at; nothing is `found` when it could not be read, and time passes all the
    /// same.
    pub fn look(&mut self, found: Option<&SecretText>, now: Duration) -> Result<Change, SealError> {
        let mut change = Change::None;
        if self.former.iter().any(|(_, until)| *until <= now) {
            self.former.retain(|(_, until)| *until > now);
            change = Change::Ended;
        }
        let newest = self.next.as_ref().map_or(&self.sealing, |(next, _)| next);
        if let Some(found) = found.filter(|found| **found != newest.text) {
            let known = Known::new(found)?;
            if let Some((passed_over, _)) = self.next.take() {
                // Another replica may have begun to seal with it.
                self.retire(passed_over, now);
            }
            if known.text != self.sealing.text {
                self.next = Some((known, now));
            }
            change = Change::Opens;
        }
        let is_due = |(_, since): &mut (Known, Duration)| {
            now.saturating_sub(*since) >= self.overlap.seals_after
        };
        if let Some((next, _)) = self.next.take_if(is_due) {
            let before = std::mem::replace(&mut self.sealing, next);
            self.retire(before, now);
            change = Change::Seals;
        }
        if change != Change::None {
            self.publish();
        }
        Ok(change)
    }

    fn retire(&mut self, known: Known, now: Duration) {
        self.former.retain(|(other, _)| other.text != known.text);
        let until = now.saturating_add(self.overlap.former_opens_for);
        if until > now {
            self.former.insert(0, (known, until));
            self.former.truncate(FORMER_MAX);
        }
    }

    fn publish(&self) {
        let next = self.next.as_ref().map(|(next, _)| next);
        let former = self.former.iter().map(|(former, _)| former);
        let opening = next.into_iter().chain(former);
        self.secrets.ring.store(Arc::new(Ring {
            sealing: self.sealing.sealer.clone(),
            opening: opening.map(|known| known.sealer.clone()).collect(),
        }));
    }
}

impl fmt::Debug for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rotation")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAP: Overlap = Overlap {
        seals_after: Duration::from_secs(10),
        former_opens_for: Duration::from_secs(100),
    };

    fn secret(text: &str) -> SecretText {
        SecretText::new(text.to_owned())
    }

    fn rotation(text: &str) -> Rotation {
        Rotation::new(&secret(text), OVERLAP).unwrap()
    }

    fn sealed_under(text: &str) -> Vec<u8> {
        SessionSecrets::new(&secret(text)).unwrap().seal(b"text")
    }

    /// Which of the secrets a, b, c open, and which one seals.
    fn state(secrets: &SessionSecrets) -> (String, String) {
        let sealed = secrets.seal(b"text");
        let all = ["a", "b", "c"];
        let opens = all.into_iter().filter(|text| {
            let opened = secrets.open(&sealed_under(text));
            assert!(opened.as_ref().is_none_or(|(found, _)| found == b"text"));
            opened.is_some()
        });
        let seals = all.into_iter().filter(|text| sealed_under(text) == sealed);
        (opens.collect(), seals.collect())
    }

    #[test]
    fn a_secret_opens_before_it_seals_and_the_former_one_after() {
        let mut rotation = rotation("a");
        let secrets = rotation.secrets();
        for (at, found, change, opens, seals) in [
            (0, "a", Change::None, "a", "a"),
            (1, "b", Change::Opens, "ab", "a"),
            (10, "b", Change::None, "ab", "a"),
            (11, "b", Change::Seals, "ab", "b"),
            (20, "c", Change::Opens, "abc", "b"),
            // Taken back before it sealed; others may have sealed with it.
            (21, "b", Change::Opens, "abc", "b"),
            (110, "b", Change::None, "abc", "b"),
            (111, "b", Change::Ended, "bc", "b"),
            (121, "b", Change::Ended, "b", "b"),
            (500, "b", Change::None, "b", "b"),
        ] {
            let now = Duration::from_secs(at);
            assert_eq!(rotation.look(Some(&secret(found)), now), Ok(change), "{at}");
            assert_eq!(state(&secrets), (opens.into(), seals.into()), "{at}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_changes_nothing_and_time_passes_all_the_same() {
        let mut rotation = rotation("a");
        let secrets = rotation.secrets();
        let at = Duration::from_secs;
        assert_eq!(rotation.look(None, at(1)), Ok(Change::None));
        assert_eq!(rotation.look(Some(&secret("b")), at(2)), Ok(Change::Opens));
        assert_eq!(rotation.look(None, at(12)), Ok(Change::Seals));
        assert_eq!(state(&secrets), ("ab".into(), "b".into()));
        assert_eq!(rotation.look(None, at(112)), Ok(Change::Ended));
        assert_eq!(state(&secrets), ("b".into(), "b".into()));
    }

    #[test]
    fn without_overlap_the_former_secret_ends_at_once() {
        let overlap = Overlap {
            seals_after: Duration::ZERO,
            former_opens_for: Duration::ZERO,
        };
        let mut rotation = Rotation::new(&secret("a"), overlap).unwrap();
        let secrets = rotation.secrets();
        let now = Duration::from_secs(1);
        assert_eq!(rotation.look(Some(&secret("b")), now), Ok(Change::Seals));
        assert_eq!(state(&secrets), ("b".into(), "b".into()));
        assert_eq!(format!("{rotation:?}"), "Rotation");
    }

    #[test]
    fn a_file_that_changes_all_the_time_grows_nothing() {
        let mut rotation = rotation("a");
        let secrets = rotation.secrets();
        for at in 0..1000 {
            let found = secret(&format!("secret {at}"));
            rotation
                .look(Some(&found), Duration::from_millis(at))
                .unwrap();
        }
        assert!(rotation.former.len() <= FORMER_MAX);
        assert!(secrets.ring.load().opening.len() <= FORMER_MAX + 1);
        assert_eq!(
            state(&secrets).1,
            "a",
            "what is not left alone seals nothing"
        );
    }
}
