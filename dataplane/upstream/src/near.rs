//! Endpoints in the data plane's own zone come first, while enough of them are well.
//!
//! A [`Near`] is a second balancer over those candidates of a cluster that are meant for this zone.
//! As endpoints of the zone fail, ever more requests are balanced over all zones instead, so that
//! the rest of the zone is not overrun; where no endpoint is meant for the zone there is no `Near`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use ir::cluster::EndpointAddress;

use crate::balance::{Balancer, Turn};

/// The zone keeps all of its requests as long as so much more than its well endpoints are needed, in
/// percent: 140 lets two in seven fail before any request leaves.
const HEADROOM_PERCENT: usize = 140;

/// The endpoints of one zone.
#[derive(Debug)]
pub(crate) struct Near {
    balancer: Balancer,
    /// Their places among the cluster's candidates.
    places: Box<[usize]>,
    well: AtomicUsize,
}

impl Near {
    /// Of candidates by address and weight; nothing when none of them is near, or all are.
    pub(crate) fn compile(
        zone: &str,
        source: &ir::Cluster,
        candidates: &[(SocketAddr, u32)],
    ) -> Option<Self> {
        if zone.is_empty() {
            return None;
        }
        let is_near = |address: &SocketAddr| {
            source.endpoints.iter().any(|endpoint| {
                endpoint.address == EndpointAddress::Ip(address.ip())
                    && endpoint.port.get() == address.port()
                    && is_meant_for(endpoint, zone)
            })
        };
        let places: Box<[usize]> = (0..candidates.len())
            .filter(|at| is_near(&candidates[*at].0))
            .collect();
        if places.is_empty() || places.len() == candidates.len() {
            return None;
        }
        let drawn: Vec<_> = places.iter().map(|at| candidates[*at]).collect();
        Some(Self {
            balancer: Balancer::compile(&source.balancing, &drawn),
            well: AtomicUsize::new(places.len()),
            places,
        })
    }

    /// Notes which of the candidates are well.
    pub(crate) fn look(&self, is_well: impl Fn(usize) -> bool) {
        let well = self.places.iter().filter(|at| is_well(**at)).count();
        self.well.store(well, Ordering::Relaxed);
    }

    /// Whether this request stays in the zone; drawn where only a share of them does.
    pub(crate) fn is_meant(&self) -> bool {
        let (well, all) = (self.well.load(Ordering::Relaxed), self.places.len());
        let share = well * HEADROOM_PERCENT;
        share >= all * 100 || fastrand::usize(..all * 100) < share
    }

    /// The place among the candidates of one that fits; nothing when none was drawn.
    pub(crate) fn choose(
        &self,
        turn: &Turn,
        hash: Option<u64>,
        load: impl Fn(usize) -> u64,
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let load = |at: usize| load(self.places[at]);
        let fits = |at: usize| fits(self.places[at]);
        let at = self.balancer.choose(turn, hash, load, fits)?;
        Some(self.places[at])
    }
}

/// Hints say which zones an endpoint serves; without any it serves its own.
fn is_meant_for(endpoint: &ir::Endpoint, zone: &str) -> bool {
    match endpoint.zone_hints.as_slice() {
        [] => endpoint.zone == zone,
        hints => hints.iter().any(|hint| hint == zone),
    }
}
