//! The choice among the endpoints of a cluster.
//!
//! A [`Balancer`] is compiled for one configuration and gives positions in the list of endpoints that
//! can be chosen; what it remembers between requests belongs to the cluster and outlives it. Which
//! of them are well and which a request has tried is the cluster's to say: here only draws are made
//! until one is admitted.

mod round_robin;
mod random;
mod consistent_hash;
mod available;

use std::net::SocketAddr;

use ir::cluster::Balancing;

pub(crate) use available::Available;
pub(crate) use consistent_hash::hash;
pub(crate) use round_robin::{RoundRobin, Turn};

use consistent_hash::Ring;
use random::Draw;

/// Draws before the choice is left to whoever is next in the list.
const DRAWS: usize = 8;

/// What a request brings to the choice of an endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Endpoints that it has tried before: it rather goes to another one.
    pub tried: &'a [SocketAddr],
    /// A hash of what the cluster hashes, see [`crate::Cluster::hash_key`]; without one any endpoint
    /// will do.
    pub hash: Option<u64>,
    /// Where the requests of its session go; taken as long as that endpoint is there and well.
    pub session: Option<SocketAddr>,
}

/// How positions are drawn.
#[derive(Debug)]
pub(crate) enum Balancer {
    InTurn(RoundRobin),
    LessLoaded(Draw),
    Random(Draw),
    ByHash(Box<Ring>),
}

impl Balancer {
    /// Names and weights of the endpoints that can be chosen, none of the weights 0.
    pub(crate) fn compile(balancing: &Balancing, endpoints: &[(SocketAddr, u32)]) -> Self {
        let weights = || -> Vec<u32> { endpoints.iter().map(|(_, weight)| *weight).collect() };
        match balancing {
            Balancing::RoundRobin => Self::InTurn(RoundRobin::compile(&weights())),
            Balancing::LeastRequest => Self::LessLoaded(Draw::compile(&weights())),
            Balancing::Random => Self::Random(Draw::compile(&weights())),
            Balancing::ConsistentHash(_) => {
                let name = |(address, weight): &(SocketAddr, u32)| (address.to_string(), *weight);
                let named: Vec<_> = endpoints.iter().map(name).collect();
                Self::ByHash(Box::new(Ring::compile(&named)))
            }
        }
    }

    /// A position that is admitted; nothing when none was drawn, though there may be one.
    pub(crate) fn choose(
        &self,
        turn: &Turn,
        hash: Option<u64>,
        load: impl Fn(usize) -> u64,
        admits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut draws = 0..DRAWS;
        match self {
            Self::InTurn(order) => draws.find_map(|_| order.next(turn).filter(|at| admits(*at))),
            Self::LessLoaded(draw) => {
                // One that is not admitted loses against any other.
                let load = |at| if admits(at) { load(at) } else { u64::MAX };
                draws.find_map(|_| {
                    draw.less_loaded(fastrand::u64(..), load)
                        .filter(|at| admits(*at))
                })
            }
            Self::Random(draw) => {
                draws.find_map(|_| draw.at(fastrand::u32(..)).filter(|at| admits(*at)))
            }
            Self::ByHash(ring) => {
                let place = hash.unwrap_or_else(|| fastrand::u64(..));
                ring.from(place).find(|at| admits(*at))
            }
        }
    }
}
