//! The fakes, tried against one another: each client at the backend it is for, and the control
//! plane with the generated client.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod backends;
mod control_plane;
mod snapshot;
