//! Tests of the crate from outside: the protocol simulated by seed, and the client against a real
//! control plane on loopback.

mod client;
mod compression;
mod simulation;
mod support;
mod tls;
mod unwilling;
