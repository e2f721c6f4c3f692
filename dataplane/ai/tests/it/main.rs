//! The rules of conversion between dialects, as tables.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reports a broken assumption by panicking"
)]

mod hostile;
mod pass_through;
mod pieces;
mod requests_from_anthropic;
mod requests_to_anthropic;
mod requests_to_ollama;
mod responses;
mod rules;
mod streams;
mod support;
mod tokens;
