//! The product from the outside: built binaries, manifests in a folder, clients and backends.
//!
//! The tests in `tests/it` start the binaries as a user does and look at nothing but traffic, the
//! admin APIs, printed text and exit codes. Everything runs on loopback at ports that were free, is
//! bounded in time, and ends with the test.

pub mod chart;
pub mod published;
pub mod scenario;
pub mod gateway;
pub mod load;
pub mod manifest;
pub mod kube_api;
pub mod api_server;
pub mod admin;
pub mod ports;
pub mod process;

pub use scenario::{Running, Scenario};
