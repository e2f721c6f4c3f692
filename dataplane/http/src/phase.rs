//! The phases of a request; each does one thing and is called by `proxy` alone.
//!
//! A phase says [`Step::Continue`] or [`Step::Reply`] and never calls another phase.

pub(crate) mod access;
pub(crate) mod ai;
pub(crate) mod route;
pub(crate) mod path;
pub(crate) mod client;
pub(crate) mod limit;
pub(crate) mod rate;
pub(crate) mod filter;
pub(crate) mod plugin;
pub(crate) mod upstream;
pub(crate) mod hops;
pub(crate) mod health;
pub(crate) mod retry;
pub(crate) mod trace;
pub(crate) mod log;

use crate::reply::Reply;

/// What a phase decides.
#[derive(Debug)]
pub(crate) enum Step {
    /// On to the next phase.
    Continue,
    /// The request ends with this answer; boxed because most requests go on.
    Reply(Box<Reply>),
}

impl Step {
    pub(crate) fn reply(reply: Reply) -> Self {
        Self::Reply(Box::new(reply))
    }

    /// What comes next decides, unless this ends the request.
    pub(crate) fn and_then(self, next: impl FnOnce() -> Self) -> Self {
        match self {
            Self::Continue => next(),
            reply => reply,
        }
    }
}
