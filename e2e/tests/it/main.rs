//! The product as a user meets it: manifests, binaries, traffic.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails has failed its test"
)]

mod ai;
mod api_server;
mod backend_tls_example;
mod bad_input;
mod bad_objects;
mod chart;
mod client_certificates;
mod cluster;
mod cluster_backends;
mod cluster_faults;
mod console;
mod documented;
mod faults;
mod gateway_api_examples;
mod gateway_api_pages;
mod images;
mod isolation;
mod kinds;
mod monitoring;
mod operations;
mod pages;
mod quickstart;
mod shutdown;
mod streams;
mod support;
mod tasks;
mod two_processes;
mod wasm_example;
mod wasm_status;
