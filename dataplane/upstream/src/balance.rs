//! The choice among the endpoints of a cluster.
//!
//! A balancer is compiled for one configuration and gives positions in the list of endpoints that
//! can be chosen; what it remembers between requests belongs to the cluster and outlives it.
//! Everything but in turn is yet to come, so that is what every `ir::Balancing` gets.

mod round_robin;
mod random;
mod consistent_hash;
mod available;

pub(crate) use round_robin::{RoundRobin, Turn};
