//! The wire to the control plane: dial, stream, apply, answer, report, and dial again.
//!
//! The binary calls [`client::run`] once and hands it an [`Apply`], which knows how a configuration
//! is compiled and swapped in; this crate does not. The protocol itself is [`session::Session`], a
//! state machine without sockets, clock or randomness of its own, so it can be simulated by seed.
//! What the client is doing is published in [`status::Status`] for the admin API.

mod client;
mod connection;
mod dial;
mod message;
pub mod session;
pub mod settings;
pub mod apply;
pub mod status;

pub use apply::{Apply, Rejection, Update};
pub use client::run;
pub use settings::{Settings, Timing, TlsFiles};
pub use status::{Report, State, Status};
