//! Tests of the contract through its public API: golden snapshots, laws, refusals, hostile bytes.
//!
//! Cases are data where they can be: `tests/data/golden` holds snapshots in protobuf's text form
//! and what they decode to, `tests/data/refusals` holds tables of what is refused and why.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports a broken assumption by panicking"
)]

mod arbitrary;
mod at_rest;
mod delta;
mod golden;
mod hostile;
mod limits;
mod plain;
mod refusals;
mod round_trip;
mod secrets;
mod text;
