//! The contract between a control plane and the data plane, typed.
//!
//! A control plane describes everything the gateway must do as one [`Snapshot`]: listeners, routes,
//! clusters and key material. On the wire it is the protobuf package `gateway.control.v1`
//! ([`wire`]); [`decode`] turns that into the types below and collects every [`Violation`] with its
//! path, [`encode`] is the way back, [`delta`] carries one snapshot to the next, and [`at_rest`] keeps
//! one without its secrets.
//!
//! Both sides of the stream use this crate, so what the shim calls valid the data plane accepts.
//! After `decode` nobody checks a value again: the types cannot hold a bad one. The crate opens no
//! sockets and knows neither Kubernetes nor a proxy.

pub mod at_rest;
pub mod content_hash;
pub mod decode;
pub mod encode;
pub mod delta;
pub mod consistency;
pub mod snapshot;
pub mod cluster;
pub mod listener;
pub mod stream_route;
pub mod http_route;
pub mod policy;
pub mod backend_policy;
pub mod filter;
pub mod backend;
pub mod ai;
pub mod wasm;
pub mod secret;
pub mod resource;
pub mod hostname;
pub mod network;
pub mod pattern;
pub mod violation;
pub mod wire;
pub mod authorization;
pub mod codec;

pub use backend::BackendTarget;
pub use backend_policy::BackendPolicy;
pub use cluster::{Cluster, Endpoint};
pub use content_hash::{ContentHash, TypeVersions};
pub use delta::Delta;
pub use filter::Filter;
pub use hostname::Hostname;
pub use http_route::{GrpcRoute, HttpRoute};
pub use listener::Listener;
pub use network::Network;
pub use pattern::Pattern;
pub use resource::{Change, Resource, Resources};
pub use secret::{Secret, SecretText};
pub use snapshot::{Snapshot, Version};
pub use stream_route::StreamRoute;
pub use violation::{Violation, Violations};
pub use wasm::WasmPlugin;
