//! The words of the protocol: what can happen to a session and what it can want done.
//!
//! Plain values; the rules that connect them are in `session.rs`.

use std::collections::BTreeMap;

use ir::Version;

use crate::apply::Rejection;

/// Something that happened. `U` is what an update carries; the session only hands it on.
#[derive(Debug)]
pub enum Event<U> {
    /// The client was started.
    Start,
    /// The dial succeeded.
    Dialled,
    /// Nobody listens at the address, which costs neither side anything to find out.
    Unanswered(String),
    /// The dial failed otherwise.
    DialFailed(String),
    /// The control plane answered, or failed to answer, a health check.
    HealthChecked(Health),
    /// The control plane accepted the stream.
    Opened,
    /// A message came.
    Received(Response<U>),
    /// The update that was handed out is finished.
    Applied(Result<Version, Rejection>),
    /// A status report was taken, or not.
    Reported(Result<(), String>),
    /// The stream, or the attempt to open it, is over.
    StreamEnded(String),
    /// The moment of [`Session::deadline`] has come.
    Tick,
}

/// The answer to a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Ready for a stream.
    Serving,
    /// Up, and not willing to serve now.
    NotServing,
    /// It has no health service: as good as serving, and not asked again on this connection.
    Unimplemented,
    /// No answer.
    Failed(String),
}

/// One message of the control plane.
#[derive(Clone, Debug)]
pub enum Response<U> {
    /// A sign of life.
    Heartbeat,
    /// An update, to be answered.
    Push(Push<U>),
}

/// One update.
#[derive(Clone, Debug)]
pub struct Push<U> {
    /// To be echoed in the answer.
    pub nonce: String,
    /// The update itself.
    pub content: Content<U>,
    /// Versions by resource type of the state it leads to.
    pub type_versions: BTreeMap<String, String>,
}

/// What an update is.
#[derive(Clone, Debug)]
pub enum Content<U> {
    /// A whole configuration.
    Full {
        /// Its version.
        version: Version,
        /// What to apply.
        update: U,
    },
    /// The way from one version to another.
    Delta {
        /// The version it starts from; `None` fits nothing.
        base: Option<Version>,
        /// The version it leads to.
        version: Version,
        /// What to apply.
        update: U,
    },
    /// Something that cannot be applied, such as an update without a version.
    Unusable {
        /// Why.
        reason: String,
    },
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<U> {
    /// Open a connection.
    Dial,
    /// Ask for the health of the control plane.
    CheckHealth,
    /// Open the stream with the first request. No version asks for a whole snapshot.
    Open {
        /// The version that is held.
        version: Option<Version>,
    },
    /// Apply this update and hand in [`Event::Applied`].
    Apply(U),
    /// Acknowledge.
    Ack {
        /// The version that was applied.
        version: Version,
        /// The nonce of the push.
        nonce: String,
    },
    /// Refuse.
    Nack {
        /// The version that was refused, if it had one.
        version: Option<Version>,
        /// The nonce of the push.
        nonce: String,
        /// Why.
        rejection: Rejection,
    },
    /// Ask on the open stream for a whole snapshot.
    RequestFull,
    /// Send a status report.
    Report(Standing),
    /// Drop the stream and the connection.
    Hangup,
    /// Tell people and counters.
    Note(Note),
}

/// The content of a status report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The version just acknowledged; `None` in a periodic report.
    pub version: Option<Version>,
    /// A configuration is held.
    pub ready: bool,
    /// In words.
    pub message: String,
}

/// Something worth a log line or a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The control plane speaks, for the first time or again.
    Connected,
    /// The connection is gone or could not be made.
    Disconnected {
        /// Why.
        reason: String,
        /// A stream stood.
        was_active: bool,
        /// The control plane was reachable until now: worth a warning, once.
        is_first: bool,
    },
    /// An update serves.
    Applied {
        /// The version that serves now.
        version: Version,
        /// It came as a delta.
        is_delta: bool,
    },
    /// An update was refused.
    Rejected {
        /// The version that was refused, if it had one.
        version: Option<Version>,
        /// Why.
        reason: String,
    },
    /// An update brought the version that is held already.
    Skipped(Version),
    /// A delta does not fit; a whole snapshot was asked for.
    Resync {
        /// The version the delta starts from.
        base: Option<Version>,
    },
    /// The control plane has been silent for too long; what is held may be out of date.
    Stale,
    /// It is heard again.
    Fresh,
    /// A health check had no answer; the stream stands.
    HealthCheckFailed(String),
    /// A status report was not taken.
    ReportFailed(String),
}
