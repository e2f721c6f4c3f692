//! The product as a user meets it: manifests, binaries, traffic.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails has failed its test"
)]

mod api_server;
mod bad_input;
mod gateway_api_examples;
mod kinds;
mod shutdown;
mod support;
mod two_processes;
