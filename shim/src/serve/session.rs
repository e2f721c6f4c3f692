//! One data plane's stream as a state machine: what it holds, what it was sent, what it answered.
//!
//! `stream.rs` feeds it requests and asks it what to push next. It owns no socket and reads no
//! clock, so every order of events can be tested. Rules: one push at a time, the newest snapshot
//! only, a refused snapshot is pushed once more; when it is refused again, either what was at fault is
//! left out of the next one or the stream ends, which is not decided here.

use std::time::{Duration, Instant};

use ir::Version;
use ir::wire::{DiscoveryRequest, DiscoveryResultStatus};

use crate::projection::Profile;

/// Longest node id taken; a pod name has at most 253 characters.
const NODE_ID_BYTES_MAX: usize = 512;

/// What the stream knows about its data plane.
#[derive(Debug)]
pub(super) struct Session {
    node_id: String,
    profile: Profile,
    accepts_delta: bool,
    /// What the data plane serves, as far as it told or acknowledged.
    held: Option<Version>,
    /// The next push must be whole, whatever is held.
    needs_full: bool,
    pending: Option<Pending>,
    /// The snapshot that was refused last, to be pushed once more only.
    refused: Option<Version>,
    /// The refused push had to be whole already.
    refused_whole: bool,
    nonces: u64,
}

/// A push that was not answered yet.
#[derive(Debug)]
struct Pending {
    version: Version,
    nonce: String,
    since: Instant,
    deadline: Instant,
}

/// What to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Nothing: an answer is awaited, or the data plane has it already.
    Nothing,
    /// The whole snapshot.
    Full,
    /// The way from this version.
    Delta(Version),
}

/// What a request turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// The pushed snapshot serves; this long after the push.
    Acked(Version, Duration),
    /// The pushed snapshot was refused for the first time; it will be pushed once more.
    Refused(Version, Duration),
    /// It was refused again: it must not be pushed a third time.
    RefusedAgain(Version, Duration),
    /// Facts about the node changed, or it asked for a whole snapshot.
    Refreshed,
    /// An answer to something that is not pending.
    Ignored,
}

/// Why a request cannot be accepted; the stream ends with INVALID_ARGUMENT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The first request names no node.
    #[error("node_id is empty, set nodeId in the data plane's bootstrap file")]
    Nameless,
    /// An absurd name.
    #[error("node_id is longer than {NODE_ID_BYTES_MAX} bytes")]
    LongName,
    /// A stream belongs to one node.
    #[error("node_id changed on an open stream from `{0}` to `{1}`")]
    OtherNode(String, String),
}

impl Session {
    /// Begins with the first request of a stream.
    pub(super) fn open(request: &DiscoveryRequest) -> Result<Self, Refusal> {
        if request.node_id.trim().is_empty() {
            return Err(Refusal::Nameless);
        }
        if request.node_id.len() > NODE_ID_BYTES_MAX {
            return Err(Refusal::LongName);
        }
        let mut session = Self {
            node_id: request.node_id.clone(),
            profile: Profile::negotiate(&request.supported_features),
            accepts_delta: request.accepts_delta,
            held: None,
            needs_full: false,
            pending: None,
            refused: None,
            refused_whole: false,
            nonces: 0,
        };
        // Others are always sent the whole: the contract's clients expect it, and a projection has
        // no history.
        if session.takes_deltas() && !request.version.is_empty() {
            session.held = Some(Version::new(&request.version));
        }
        Ok(session)
    }

    /// The data plane's name.
    pub(super) fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The projection it gets.
    pub(super) fn profile(&self) -> &Profile {
        &self.profile
    }

    /// What it serves, as far as known.
    pub(super) fn held(&self) -> Option<&Version> {
        self.held.as_ref()
    }

    /// The next push will be whole.
    pub(super) fn require_full(&mut self) {
        self.needs_full = true;
    }

    /// When the answer to the pending push is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.as_ref().map(|pending| pending.deadline)
    }

    /// What was at fault is being left out, so the refusal says nothing about the stream.
    pub(super) fn excuse(&mut self) {
        self.refused = None;
        self.needs_full = self.refused_whole;
    }

    /// What brings the data plane to `current`; `is_known` tells which versions are in the history.
    pub(super) fn plan(&self, current: &Version, is_known: impl Fn(&Version) -> bool) -> Plan {
        if self.pending.is_some() {
            return Plan::Nothing;
        }
        if self.needs_full {
            return Plan::Full;
        }
        match &self.held {
            Some(held) if held == current => Plan::Nothing,
            Some(held) if self.takes_deltas() && is_known(held) => Plan::Delta(held.clone()),
            _ => Plan::Full,
        }
    }

    /// A push goes out; gives its nonce.
    pub(super) fn pushed(&mut self, version: &Version, now: Instant, patience: Duration) -> String {
        self.nonces += 1;
        let nonce = format!("{version}.{}", self.nonces);
        self.pending = Some(Pending {
            version: version.clone(),
            nonce: nonce.clone(),
            since: now,
            deadline: now + patience,
        });
        nonce
    }

    /// Takes in a request after the first.
    pub(super) fn on_request(
        &mut self,
        request: &DiscoveryRequest,
        now: Instant,
    ) -> Result<Reaction, Refusal> {
        if !request.node_id.is_empty() && request.node_id != self.node_id {
            let mut other = request.node_id.clone();
            other.truncate(other.floor_char_boundary(NODE_ID_BYTES_MAX));
            return Err(Refusal::OtherNode(self.node_id.clone(), other));
        }
        Ok(match request.result_status() {
            DiscoveryResultStatus::DiscoveryUnspecified => self.refresh(request),
            DiscoveryResultStatus::DiscoveryAck => self.on_ack(request, now),
            DiscoveryResultStatus::DiscoveryNack => self.on_nack(request, now),
        })
    }

    fn on_ack(&mut self, request: &DiscoveryRequest, now: Instant) -> Reaction {
        let Some(pending) = self.take_pending(request) else {
            return Reaction::Ignored;
        };
        self.needs_full = false;
        self.refused = None;
        self.held = Some(pending.version.clone());
        Reaction::Acked(pending.version, now.duration_since(pending.since))
    }

    fn on_nack(&mut self, request: &DiscoveryRequest, now: Instant) -> Reaction {
        let Some(pending) = self.take_pending(request) else {
            return Reaction::Ignored;
        };
        let lag = now.duration_since(pending.since);
        self.refused_whole = self.needs_full;
        // Whole this time: whatever was wrong with a delta is not repeated.
        self.needs_full = true;
        if self.refused.as_ref() == Some(&pending.version) {
            return Reaction::RefusedAgain(pending.version, lag);
        }
        self.refused = Some(pending.version.clone());
        Reaction::Refused(pending.version, lag)
    }

    fn refresh(&mut self, request: &DiscoveryRequest) -> Reaction {
        self.accepts_delta |= request.accepts_delta;
        if !request.supported_features.is_empty() {
            let profile = Profile::negotiate(&request.supported_features);
            self.needs_full |= profile != self.profile;
            self.profile = profile;
        }
        // The way a data plane says that it could not apply a delta.
        if self.takes_deltas() && request.version.is_empty() {
            self.held = None;
            self.pending = None;
            self.needs_full = true;
        }
        Reaction::Refreshed
    }

    /// The pending push, when the request answers it: by nonce, or by version when the client
    /// sends no nonce of ours (the contract's server uses the version for both).
    fn take_pending(&mut self, request: &DiscoveryRequest) -> Option<Pending> {
        self.pending.take_if(|pending| {
            request.nonce == pending.nonce
                || (request.version == pending.version.as_str()
                    && (request.nonce.is_empty() || request.nonce == request.version))
        })
    }

    /// A projection is always sent whole, see `projection.rs`.
    fn takes_deltas(&self) -> bool {
        self.accepts_delta && self.profile.is_full()
    }
}

#[cfg(test)]
mod tests;
