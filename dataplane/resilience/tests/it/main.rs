//! Long runs of the state machines, by seed and with a clock of their own.
#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod simulation;
