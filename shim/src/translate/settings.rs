//! What a translation is told besides the objects: whose Gateways, which addresses and ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU16;

/// The name in `GatewayClass.spec.controllerName` by which a class is ours.
pub const CONTROLLER_NAME: &str = "gateway.networking.k8s.io/nantian-gw";

/// Settings of a translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whose Gateways are served.
    pub classes: Classes,
    /// Addresses to bind for a Gateway that asks for none; empty means all of IPv4.
    pub addresses: Vec<IpAddr>,
    /// Addresses a Gateway may ask for besides loopback and unspecified ones; absent means any.
    pub local_addresses: Option<BTreeSet<IpAddr>>,
    /// Where ports are bound.
    pub ports: PortMap,
    /// What sets Gateways apart that want the same port.
    pub addressing: Addressing,
    /// Routes may have Services as parents; data planes listen for these on ports of this range.
    pub mesh: Option<(NonZeroU16, NonZeroU16)>,
}

/// What sets Gateways apart that want the same port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// Nothing: they share addresses, and the older one wins.
    #[default]
    Shared,
    /// Each that asks for none gets an address of its own, as long as there are enough.
    Pool(Vec<IpAddr>),
    /// Each has ports of its own out of this range, and a Service in front.
    Service {
        /// First port.
        first: NonZeroU16,
        /// Last port.
        last: NonZeroU16,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            classes: Classes::default(),
            addresses: vec![Ipv4Addr::UNSPECIFIED.into()],
            local_addresses: None,
            ports: PortMap::default(),
            addressing: Addressing::default(),
            mesh: None,
        }
    }
}

impl Settings {
    /// True when a Gateway may ask for that address.
    pub(super) fn may_bind(&self, address: IpAddr) -> bool {
        let known = self.local_addresses.as_ref();
        let is_everywhere = address.is_unspecified() || address.is_loopback();
        known.is_none_or(|known| is_everywhere || known.contains(&address))
    }
}

/// Whose Gateways are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Classes {
    /// Those of classes with this controller name.
    Controller(String),
    /// All of them, even where the class is not there: for a folder that no other controller reads.
    Any,
}

impl Default for Classes {
    fn default() -> Self {
        Self::Controller(CONTROLLER_NAME.to_owned())
    }
}

impl Classes {
    /// True when a class of that controller is served.
    pub(super) fn include(&self, controller: &str) -> bool {
        match self {
            Self::Controller(ours) => ours == controller,
            Self::Any => true,
        }
    }
}

/// Which port is bound for a port as written; a user without privileges cannot bind 80.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortMap {
    /// Added to ports below 1024.
    pub privileged_offset: u16,
    /// Exceptions: port as written → port to bind.
    pub table: BTreeMap<u16, u16>,
}

impl PortMap {
    /// The port to bind; nothing when there is no such port.
    pub fn bound(&self, port: u16) -> Option<NonZeroU16> {
        let bound = match self.table.get(&port) {
            Some(bound) => *bound,
            None if port > 0 && port < 1024 => port.checked_add(self.privileged_offset)?,
            None => port,
        };
        NonZeroU16::new(bound)
    }
}
