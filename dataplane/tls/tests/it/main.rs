//! Handshakes with real clients, in memory: who is let in where, with which certificate.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod support;
mod admin;
mod certificates;
mod client_validation;
mod negotiation;
mod reload;
mod server_names;
