//! A cluster as a request meets it, and the state that outlives a configuration.
//!
//! `dataplane/config` compiles one from each `ir::Cluster` and hands in the cluster that had the
//! same key before; whose turn it is and the load of every endpoint that stays are taken from it.
//! Endpoints that are named and not addressed are left out and counted: nothing resolves names yet.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ir::cluster::{ClusterProtocol, EndpointAddress};

use crate::balance::{RoundRobin, Turn};
use crate::endpoint::{Endpoint, Protocol, Tls, identity};

/// A group of endpoints that serve the same thing.
#[derive(Debug)]
pub struct Cluster {
    source: Arc<ir::Cluster>,
    protocol: Protocol,
    tls: Tls,
    /// All with an address, ready or not, one per address, in the order of the control plane.
    endpoints: Box<[Arc<Endpoint>]>,
    /// Those of `endpoints` that may be chosen: ready, and of a weight above 0.
    candidates: Box<[Arc<Endpoint>]>,
    balancer: RoundRobin,
    turn: Arc<Turn>,
    unresolved: usize,
}

impl Cluster {
    /// Compiles a cluster; `previous` is the one of the same key in the configuration before.
    ///
    /// When nothing has changed the answer is `previous` itself.
    pub fn compile(source: &Arc<ir::Cluster>, previous: Option<&Arc<Self>>) -> Arc<Self> {
        let previous = previous.filter(|previous| previous.source.key == source.key);
        if let Some(previous) = previous
            && (Arc::ptr_eq(&previous.source, source) || previous.source == *source)
        {
            return Arc::clone(previous);
        }
        Arc::new(Self::build(source, previous))
    }

    fn build(source: &Arc<ir::Cluster>, previous: Option<&Arc<Self>>) -> Self {
        let protocol = protocol(&source.protocol);
        let tls = tls(source);
        let (endpoints, unresolved) = compile_endpoints(source, protocol, &tls, previous);
        let candidates: Box<[Arc<Endpoint>]> = endpoints
            .iter()
            .filter(|endpoint| endpoint.is_ready() && endpoint.weight() > 0)
            .cloned()
            .collect();
        let weights: Vec<u32> = candidates
            .iter()
            .map(|endpoint| endpoint.weight())
            .collect();
        let turn = previous.map_or_else(first_turn, |previous| Arc::clone(&previous.turn));
        Self {
            source: Arc::clone(source),
            protocol,
            tls,
            endpoints: endpoints.into(),
            candidates,
            balancer: RoundRobin::compile(&weights),
            turn,
            unresolved,
        }
    }

    /// The endpoint whose turn it is; nothing when none is ready.
    pub fn pick(&self) -> Option<Arc<Endpoint>> {
        self.pick_avoiding(&[])
    }

    /// As [`Self::pick`], but rather not one of `avoid`, which a request has tried before.
    ///
    /// When there is no other, it is one of `avoid` once more.
    pub fn pick_avoiding(&self, avoid: &[SocketAddr]) -> Option<Arc<Endpoint>> {
        let first = self.balancer.next(&self.turn)?;
        let turn = self.candidates.get(first)?;
        let is_avoided = |endpoint: &Arc<Endpoint>| avoid.contains(&endpoint.address());
        let chosen = if is_avoided(turn) {
            let (before, after) = self.candidates.split_at(first);
            after
                .iter()
                .chain(before)
                .find(|endpoint| !is_avoided(endpoint))
                .unwrap_or(turn)
        } else {
            turn
        };
        chosen.load().picked();
        Some(Arc::clone(chosen))
    }

    /// `namespace/service:port`.
    pub fn key(&self) -> &Arc<str> {
        &self.source.key
    }

    /// What it was compiled from.
    pub fn source(&self) -> &Arc<ir::Cluster> {
        &self.source
    }

    /// Which HTTP its endpoints speak.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Which HTTP its endpoints speak to a gRPC route. Gateway API lets the kind of route decide where
    /// the Service port names no protocol, and gRPC is always HTTP/2.
    pub fn grpc_protocol(&self) -> Protocol {
        match self.source.protocol {
            ClusterProtocol::Tcp => Protocol::Http2,
            _ => self.protocol,
        }
    }

    /// Whether and how TLS is spoken to its endpoints.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// How long a connection may take to come up.
    pub fn connect_timeout(&self) -> Duration {
        self.source.connect_timeout
    }

    /// Limit for one exchange; absent means the route's.
    pub fn request_timeout(&self) -> Option<Duration> {
        self.source.request_timeout
    }

    /// Every endpoint with an address, ready or not.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How many endpoints [`Self::pick`] chooses among.
    pub fn available(&self) -> usize {
        self.candidates.len()
    }

    /// How many endpoints are left out because they are names.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }
}

fn compile_endpoints(
    source: &ir::Cluster,
    protocol: Protocol,
    tls: &Tls,
    previous: Option<&Arc<Cluster>>,
) -> (Vec<Arc<Endpoint>>, usize) {
    let known: HashMap<SocketAddr, &Arc<Endpoint>> = previous
        .into_iter()
        .flat_map(|previous| previous.endpoints.iter())
        .map(|endpoint| (endpoint.address(), endpoint))
        .collect();
    let mut unresolved = 0;
    let mut positions = HashMap::new();
    let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(source.endpoints.len());
    for endpoint in &source.endpoints {
        let EndpointAddress::Ip(ip) = &endpoint.address else {
            unresolved += 1;
            continue;
        };
        let address = SocketAddr::new(*ip, endpoint.port.get());
        let known = known.get(&address).copied();
        let load = known.map_or_else(Arc::default, |known| Arc::clone(known.load()));
        let id = identity(address, protocol, tls);
        let made = Endpoint::new(address, id, endpoint, load);
        let made = match known {
            Some(known) if known.is_same_as(&made) => Arc::clone(known),
            _ => Arc::new(made),
        };
        // While EndpointSlices are rearranged an address may stand in two of them; the first one
        // that says ready is believed.
        match positions.get(&address) {
            None => {
                positions.insert(address, endpoints.len());
                endpoints.push(made);
            }
            Some(at) if !endpoints[*at].is_ready() && made.is_ready() => endpoints[*at] = made,
            Some(_) => {}
        }
    }
    (endpoints, unresolved)
}

fn first_turn() -> Arc<Turn> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits will do for a random start"
    )]
    let start = RandomState::new().hash_one(0) as usize;
    Arc::new(Turn::new(start))
}

fn protocol(protocol: &ClusterProtocol) -> Protocol {
    match protocol {
        ClusterProtocol::H2c | ClusterProtocol::Grpc | ClusterProtocol::Grpcs => Protocol::Http2,
        ClusterProtocol::Http
        | ClusterProtocol::Https
        | ClusterProtocol::Tcp
        | ClusterProtocol::Udp
        | ClusterProtocol::Other(_) => Protocol::Http1,
    }
}

fn tls(source: &ir::Cluster) -> Tls {
    match (&source.tls, &source.protocol) {
        (Some(policy), _) => Tls::Policy(Arc::clone(policy)),
        (None, ClusterProtocol::Https | ClusterProtocol::Grpcs) => Tls::Unspecified,
        (None, _) => Tls::Plain,
    }
}

#[cfg(test)]
mod tests;
