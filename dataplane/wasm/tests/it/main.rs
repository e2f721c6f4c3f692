//! The host as its users see it: modules written in text form, run through streams.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod abi;
mod earlier;
mod fetch;
mod grpc;
mod heads;
mod hooks;
mod hostile;
mod reference;
mod support;
