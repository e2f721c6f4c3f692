//! Routing through the public API: the examples of the Gateway API specification as tables, and
//! laws checked against a plain reading of its text.

#![expect(
    clippy::unwrap_used,
    reason = "a test stops when its own data is wrong"
)]

mod edits;
mod explain;
mod precedence;
mod property;
mod reference;
mod routes;
