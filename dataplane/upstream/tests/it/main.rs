//! Clusters under load and failure, by seeds and with a clock that the test moves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod everyday;
mod simulation;
