//! The kinds as users meet them: definitions that are current, objects that are taken or refused.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails has failed its test"
)]

mod current;
mod objects;
