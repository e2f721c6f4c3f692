//! Updates: which waits, which is being applied, how each is answered, and what is held.
//!
//! `session.rs` calls this when an update arrives, when one is finished and when the stream is lost.
//! It knows neither time nor connection.

use std::collections::{BTreeMap, VecDeque};

use ir::Version;

use super::{Action, Content, NACKS_BEFORE_FULL, Note, Push, QUEUE_MAX};
use crate::apply::Rejection;

#[derive(Debug)]
pub(super) struct Pushes<U> {
    held: Option<Version>,
    type_versions: BTreeMap<String, String>,
    waiting: VecDeque<Push<U>>,
    applying: Option<Applying>,
    need: Need,
    /// Refusals since an update was last applied.
    nacks_in_row: u32,
    /// Why the last update was refused; `None` when it was not.
    refusal: Option<String>,
}

/// What the next update may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// A delta from the held version, or a whole snapshot.
    Any,
    /// A whole snapshot, which this stream has not been asked for.
    Full,
    /// A whole snapshot, and this stream was asked for it.
    FullAsked,
}

#[derive(Debug)]
struct Applying {
    version: Version,
    /// The version a delta starts from; `None` for a whole snapshot.
    base: Option<Version>,
    nonce: String,
    type_versions: BTreeMap<String, String>,
    /// The stream it came from still stands, so an answer can be sent.
    is_answerable: bool,
}

impl<U> Pushes<U> {
    pub(super) fn new(held: Option<Version>) -> Self {
        Self {
            held,
            type_versions: BTreeMap::new(),
            waiting: VecDeque::new(),
            applying: None,
            need: Need::Any,
            nacks_in_row: 0,
            refusal: None,
        }
    }

    pub(super) fn held(&self) -> Option<&Version> {
        self.held.as_ref()
    }

    pub(super) fn type_versions(&self) -> &BTreeMap<String, String> {
        &self.type_versions
    }

    pub(super) fn is_applying(&self) -> bool {
        self.applying.is_some()
    }

    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < QUEUE_MAX
    }

    /// The held version, unless the control plane is to start over.
    pub(super) fn version_to_open_with(&self) -> Option<Version> {
        self.held.clone().filter(|_| self.need == Need::Any)
    }

    /// How the last update went, in the words the control plane knows.
    pub(super) fn outcome(&self) -> String {
        match (&self.refusal, &self.held) {
            (Some(reason), _) => format!("snapshot rejected: {reason}"),
            (None, Some(_)) => "snapshot applied".to_owned(),
            (None, None) => "waiting for snapshot".to_owned(),
        }
    }

    pub(super) fn arrived(&mut self, push: Push<U>) {
        debug_assert!(
            self.has_room(),
            "the stream is not read while the queue is full"
        );
        self.waiting.push_back(push);
    }

    /// Works through the waiting updates until one is to be applied. `Err` when the control plane
    /// cannot be brought to send what fits: the stream must end.
    pub(super) fn advance(&mut self, out: &mut Vec<Action<U>>) -> Result<(), String> {
        while self.applying.is_none() {
            let Some(push) = self.waiting.pop_front() else {
                return Ok(());
            };
            self.take(push, out)?;
        }
        Ok(())
    }

    fn take(&mut self, push: Push<U>, out: &mut Vec<Action<U>>) -> Result<(), String> {
        let nonce = push.nonce;
        let (version, base, update) = match push.content {
            Content::Unusable { reason } => {
                self.refuse(None, nonce, Rejection::new(reason), out);
                return Ok(());
            }
            Content::Full { version, update } => (version, None, update),
            Content::Delta {
                base,
                version,
                update,
            } => {
                // What is held already needs no base.
                let is_held = self.held.as_ref() == Some(&version);
                let fits = base.is_some() && base == self.held;
                if self.need != Need::Any || !(fits || is_held) {
                    return self.ask_for_full(base, out);
                }
                (version, base, update)
            }
        };
        if self.need == Need::Any && self.held.as_ref() == Some(&version) {
            self.refusal = None;
            out.push(Action::Note(Note::Skipped(version.clone())));
            out.push(Action::Ack { version, nonce });
            return Ok(());
        }
        self.applying = Some(Applying {
            version,
            base,
            nonce,
            type_versions: push.type_versions,
            is_answerable: true,
        });
        out.push(Action::Apply(update));
        Ok(())
    }

    fn ask_for_full(
        &mut self,
        base: Option<Version>,
        out: &mut Vec<Action<U>>,
    ) -> Result<(), String> {
        if self.need == Need::FullAsked {
            return Err("a delta came where a whole snapshot was asked for".to_owned());
        }
        self.need = Need::FullAsked;
        out.push(Action::Note(Note::Resync { base }));
        out.push(Action::RequestFull);
        Ok(())
    }

    /// Takes the result of the update that was being applied and answers it.
    pub(super) fn finished(
        &mut self,
        result: Result<Version, Rejection>,
        out: &mut Vec<Action<U>>,
    ) {
        let Some(done) = self.applying.take() else {
            return;
        };
        match result {
            Ok(version) if version == done.version => self.accept(done, out),
            Ok(version) => {
                let reason = format!("version {version} serves instead of {}", done.version);
                self.held = Some(version);
                self.reject(done, Rejection::resync(reason), out);
            }
            Err(rejection) => self.reject(done, rejection, out),
        }
    }

    fn accept(&mut self, done: Applying, out: &mut Vec<Action<U>>) {
        let is_delta = done.base.is_some();
        if !is_delta {
            self.need = Need::Any;
        }
        self.nacks_in_row = 0;
        self.refusal = None;
        self.held = Some(done.version.clone());
        self.type_versions = done.type_versions;
        out.push(Action::Note(Note::Applied {
            version: done.version.clone(),
            is_delta,
        }));
        if done.is_answerable {
            out.push(Action::Ack {
                version: done.version,
                nonce: done.nonce,
            });
        }
    }

    fn reject(&mut self, done: Applying, rejection: Rejection, out: &mut Vec<Action<U>>) {
        let asks = rejection.resync && done.base.is_some() && done.is_answerable;
        if rejection.resync && self.need == Need::Any {
            self.need = Need::Full;
        }
        if asks && self.need == Need::Full {
            // The plain request for a whole snapshot is the answer.
            self.need = Need::FullAsked;
            out.push(Action::Note(Note::Resync { base: done.base }));
            out.push(Action::RequestFull);
        } else if done.is_answerable {
            self.refuse(Some(done.version), done.nonce, rejection, out);
        } else {
            self.note_refusal(Some(done.version), &rejection, out);
        }
    }

    fn refuse(
        &mut self,
        version: Option<Version>,
        nonce: String,
        rejection: Rejection,
        out: &mut Vec<Action<U>>,
    ) {
        self.note_refusal(version.clone(), &rejection, out);
        out.push(Action::Nack {
            version,
            nonce,
            rejection,
        });
    }

    fn note_refusal(
        &mut self,
        version: Option<Version>,
        rejection: &Rejection,
        out: &mut Vec<Action<U>>,
    ) {
        self.nacks_in_row += 1;
        self.refusal = Some(rejection.reason.clone());
        out.push(Action::Note(Note::Rejected {
            version,
            reason: rejection.reason.clone(),
        }));
    }

    /// The stream is gone: what waits is forgotten, what is being applied goes on unanswered.
    pub(super) fn stream_lost(&mut self) {
        self.waiting.clear();
        if let Some(applying) = &mut self.applying {
            applying.is_answerable = false;
        }
        if self.need == Need::FullAsked || self.nacks_in_row >= NACKS_BEFORE_FULL {
            self.need = Need::Full;
        }
    }
}
