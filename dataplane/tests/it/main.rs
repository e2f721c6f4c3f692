//! The whole data plane in process, on loopback, under a control plane that the test plays.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod binary;
mod own_network;
mod support;

mod addresses;
mod admin;
mod ai;
mod bootstrap;
mod cli;
mod clients;
mod collectors;
mod explain;
mod failure;
mod filters;
mod handshakes;
mod hostile;
mod http;
mod last_good;
mod limits;
mod mesh;
mod observed;
mod resilience;
mod retry;
mod overload;
mod paths;
mod plugins;
mod proxy_protocol;
mod streams;
mod traces;
mod update;
mod upstream_tls;
mod waits;
