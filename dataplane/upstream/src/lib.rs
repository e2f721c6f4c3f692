//! Where a request goes: clusters, their endpoints, and the choice among them.
//!
//! `dataplane/config` compiles a [`Cluster`] from each `ir::Cluster`, handing in the one before it,
//! so that what was learnt about endpoints outlives a configuration. The request line picks a
//! cluster by weight and an endpoint by turn. No sockets here: connecting is done in
//! `http/src/exchange.rs`.

pub mod cluster;
mod near;
mod balance;
pub mod endpoint;
mod health;
pub mod admission;
pub mod weighted;

pub use balance::Ask;
pub use cluster::Cluster;
pub use endpoint::{Endpoint, EndpointLoad, Protocol, Tls};
pub use health::{Outcome, since_start};
pub use weighted::WeightedChoice;
