//! Tests of the shim through its public API: manifests in, snapshot and conditions out.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a failed step fails the test, and what it prints is for whoever runs it"
)]

mod admin;
mod ai;
mod backend_tls;
mod cli;
mod demo;
mod files;
mod folder;
mod golden;
mod grpc_runtime;
mod imports;
mod herd;
mod law;
mod listener_sets;
mod listeners;
mod mesh;
mod mutual_tls;
mod own_policies;
mod pings;
mod policy_pages;
mod quarantine;
mod reference;
mod rivals;
mod scale;
mod serve;
mod size;
mod standalone;
mod streams;
mod support;
mod translate;
