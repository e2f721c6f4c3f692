//! What a finished translation can be asked by those who tell an API server of it.
//!
//! `status.rs` and `services.rs` call; nothing here changes anything.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use imbl::ordmap::DiffItem;

use super::Translation;
use super::allotment::service_key;
use crate::cluster_view::{ClusterView, Kind};

impl Translation {
    /// Objects of which `next` says something else, or nothing any more.
    pub fn changed_statuses(&self, next: &Self) -> Vec<(Kind, Arc<str>)> {
        let changes = self.all_statuses().diff(next.all_statuses());
        let id = |item| match item {
            DiffItem::Add(id, _) | DiffItem::Remove(id, _) => Some(id),
            DiffItem::Update { old, new } => (old.1 != new.1).then_some(new.0),
        };
        changes.filter_map(id).cloned().collect()
    }

    /// Objects of a kind that are told something.
    pub fn told(&self, kind: Kind) -> impl Iterator<Item = &Arc<str>> {
        let first: (Kind, Arc<str>) = (kind, "".into());
        let statuses = self.all_statuses().range(first..);
        let keys = statuses.map(|((of, key), _)| (*of, key));
        keys.take_while(move |(of, _)| *of == kind)
            .map(|(_, key)| key)
    }

    /// The objects it was made of.
    pub fn view(&self) -> &ClusterView {
        &self.view
    }

    /// Gateways that are ours.
    pub fn own_gateways(&self) -> impl Iterator<Item = &Arc<str>> {
        let parents = self.gateways.parents.values();
        parents
            .filter(|parent| parent.is_ours && parent.kind == Kind::Gateway)
            .map(|parent| &parent.key)
    }

    /// Addresses that a Gateway is bound to.
    pub fn addresses(&self, gateway: &str) -> &[IpAddr] {
        self.gateways
            .addresses
            .get(gateway)
            .map_or(&[], |addresses| addresses)
    }

    /// Addresses that a Gateway asks for.
    pub fn asked_addresses(&self, gateway: &str) -> Vec<String> {
        let gateway = self.view.gateways.get(gateway);
        let asked = gateway
            .into_iter()
            .flat_map(|it| it.value.spec.addresses.iter().flatten());
        let is_ip = |kind: Option<&str>| kind.is_none_or(|kind| kind == "IPAddress");
        let asked = asked.filter(|it| is_ip(it.r#type.as_deref()));
        asked
            .filter_map(|it| it.value.clone())
            .filter(|it| !it.is_empty())
            .collect()
    }

    /// `namespace/name` of a Gateway's Service, where it has one.
    pub fn service_of(&self, gateway: &str) -> Option<Arc<str>> {
        self.bound_ports(gateway).map(|_| service_key(gateway))
    }

    /// Ports that data planes bind for a Gateway with a Service, by ports as written.
    pub fn bound_ports(&self, gateway: &str) -> Option<&BTreeMap<u16, NonZeroU16>> {
        self.gateways.allotments.get(gateway)?.ports.as_ref()
    }

    /// Ports of a Gateway and its ListenerSets, as written, and what runs over them.
    pub fn written_ports(&self, gateway: &str) -> impl Iterator<Item = (u16, &'static str)> {
        let ports = self.gateways.ports.get(gateway);
        ports.into_iter().flatten().copied()
    }

    /// The address of a Service in the cluster.
    pub fn cluster_ip(&self, service: &str) -> Option<Arc<str>> {
        let service = self.view.services.get(service)?;
        let spec = service.value.spec.as_ref()?;
        // Behind a load balancer it is not where clients shall go.
        let is_inside = spec.type_.as_deref() != Some("LoadBalancer");
        let ip = spec.cluster_ip.as_deref().filter(|_| is_inside)?;
        (!ip.is_empty() && ip != "None").then(|| ip.into())
    }
}
