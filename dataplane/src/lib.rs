//! The data plane: a gateway that does what a control plane tells it.
//!
//! [`app`] builds every part and ties them; [`apply`] is the configuration line, from a message of
//! the control plane to sockets and routes; [`listener`] keeps the sockets that must stand open.
//! What a request goes through is the crate `dataplane-http`. The binary is a thin shell around
//! [`cli::run`], which runs [`app::run`] or asks a data plane that runs; the shim's standalone mode
//! runs the former beside itself.

pub mod cli;
pub mod app;
pub mod apply;
pub mod shutdown;
pub mod listener;
pub mod admin;
pub mod last_good;
pub mod bootstrap;
pub mod overload;
pub mod health;
pub mod session_secret;
pub mod resolver;
pub mod ebb;

/// What [`app::run`] counts into; whoever runs it makes one.
pub use dataplane_telemetry::metrics::Metrics;
