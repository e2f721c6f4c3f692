//! Listeners that cannot live beside each other (Gateway API `Gateway.spec.listeners`).
//!
//! Within one Gateway nobody wins: all listeners that are not distinct are left out. Those of its
//! ListenerSets come after them, the older set first, and none takes a place that is taken. Between
//! Gateways that share an address and port the older one keeps its place, because the younger must
//! not be able to take traffic away from it. Ports that the mesh leads Services to are nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZeroU16;

use ir::Hostname;
use ir::listener::{ListenerProtocol, ProxyProtocol};

use super::gateway::Candidate;
use super::listener::Draft;
use crate::conditions::{ConditionType, Truth};

/// Why two listeners cannot live beside each other: the reason, and what the other one has.
#[derive(Clone, Copy)]
struct Clash {
    reason: &'static str,
    what: &'static str,
}

const PROTOCOL: Clash = Clash {
    reason: "ProtocolConflict",
    what: "another protocol",
};
const PROXY_PROTOCOL: Clash = Clash {
    reason: "ProtocolConflict",
    what: "another setting for the PROXY protocol",
};
const HOSTNAME: Clash = Clash {
    reason: "HostnameConflict",
    what: "the same host name",
};
const NO_HOSTNAME: Clash = Clash {
    reason: "HostnameConflict",
    what: "no host name either",
};

/// What a younger Gateway can do where the older one keeps its place.
const WAYS_OUT: &str = "give this listener a host name, a port or an address (spec.addresses) that \
                        the other does not have";

/// Refuses listeners on ports that Services of the mesh are led to: what is on its way to a Service
/// must not come out at somebody's Gateway. The mesh takes no port that a Gateway has already.
pub(super) fn with_mesh(candidates: &mut [Candidate<'_>], mesh: &BTreeSet<NonZeroU16>) {
    let drafts = candidates.iter_mut().flat_map(|it| &mut it.drafts);
    for draft in drafts.filter(|draft| draft.protocol != Some(ListenerProtocol::Udp)) {
        if let Some(port) = draft.bound_port.filter(|port| mesh.contains(port)) {
            let message = format!(
                "data planes serve a Service of the mesh on port {port}: use another port, best one \
                 outside of mesh.firstPort to mesh.lastPort of the shim's settings"
            );
            draft.refuse("PortUnavailable", message);
        }
    }
}

/// Marks every listener that is not distinct within its Gateway.
pub(super) fn within_gateways(candidates: &mut [Candidate<'_>]) {
    for candidate in candidates {
        for draft in &mut candidate.drafts {
            let kind = ConditionType::Conflicted;
            draft
                .conditions
                .set(kind, Truth::False, "NoConflicts", String::new());
        }
        let mut found = Vec::new();
        let own = candidate.drafts.iter().filter(|draft| draft.set.is_none());
        let own: Vec<&Draft> = own.collect();
        for (index, draft) in own.iter().enumerate() {
            let others = own.iter().enumerate().filter(|(other, _)| *other != index);
            let conflicts: Vec<_> = others
                .filter_map(|(_, other)| Some((clash(draft, other)?, other.section.clone())))
                .collect();
            if let Some((reason, _)) = conflicts.first() {
                let names: Vec<_> = conflicts.iter().map(|(_, name)| name.as_str()).collect();
                found.push((
                    index,
                    *reason,
                    format!("listener {}", names.join(", listener ")),
                ));
            }
        }
        for (index, clash, whom) in found {
            let message = format!("{whom} has {} on the same port", clash.what);
            mark(&mut candidate.drafts[index], clash.reason, message);
        }
        among_sets(&mut candidate.drafts);
        note_overlaps(&mut candidate.drafts);
    }
}

/// Marks listeners of ListenerSets that are not distinct from one before them. Whom they meet is not
/// said, because it may be an object that their owner is not to see.
fn among_sets(drafts: &mut [Draft]) {
    struct Taken {
        protocol: ListenerProtocol,
        hostnames: BTreeSet<String>,
    }
    let mut taken: BTreeMap<(u16, bool), Taken> = BTreeMap::new();
    for draft in drafts {
        let (Some(port), Some(protocol)) = (draft.bound_port, draft.protocol) else {
            continue;
        };
        let hostname = host(draft).to_owned();
        let place = (port.get(), protocol == ListenerProtocol::Udp);
        let known = taken.entry(place).or_insert_with(|| Taken {
            protocol,
            hostnames: BTreeSet::new(),
        });
        let clash = if !share_a_socket(known.protocol, protocol) {
            Some(PROTOCOL)
        } else if !known.hostnames.contains(&hostname) {
            None
        } else if hostname.is_empty() {
            Some(NO_HOSTNAME)
        } else {
            Some(HOSTNAME)
        };
        match clash.filter(|_| draft.set.is_some()) {
            Some(Clash { reason, what }) => {
                let whom = "another listener of the Gateway, which comes first,";
                mark(draft, reason, format!("{whom} has {what} on the same port"));
            }
            None => drop(known.hostnames.insert(hostname)),
        }
    }
}

/// The host name of a listener; empty for every host.
fn host(draft: &Draft) -> &str {
    draft.hostname.as_ref().map_or("", Hostname::as_str)
}

/// Tells listeners whose host names overlap over TLS: clients that use a connection for several
/// hosts are answered with 421 there (GEP-3567).
fn note_overlaps(drafts: &mut [Draft]) {
    let mut by_host: BTreeMap<(u16, &str), Vec<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        if let Some(port) = tls_port(draft) {
            by_host.entry((port, host(draft))).or_default().push(index);
        }
    }
    let mut overlaps: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (index, draft) in drafts.iter().enumerate() {
        let Some(port) = tls_port(draft) else {
            continue;
        };
        let mut above = vec![host(draft).to_owned(), String::new()];
        let mut rest = host(draft).trim_start_matches("*.");
        while let Some((_, parent)) = rest.split_once('.') {
            above.push(format!("*.{parent}"));
            rest = parent;
        }
        for host in above {
            for other in by_host.get(&(port, &*host)).into_iter().flatten() {
                if *other != index {
                    overlaps.entry(index).or_default().insert(*other);
                    overlaps.entry(*other).or_default().insert(index);
                }
            }
        }
    }
    let told = |index: usize, others: &BTreeSet<usize>| {
        let others = others.iter().map(|other| &drafts[*other]);
        let own = others.filter(|other| other.set == drafts[index].set);
        let names: Vec<_> = own.map(|other| other.section.as_str()).collect();
        if names.is_empty() {
            "its host names overlap with another listener of the Gateway".to_owned()
        } else {
            format!(
                "its host names overlap with listener {}",
                names.join(", listener ")
            )
        }
    };
    let found: Vec<_> = overlaps
        .iter()
        .map(|(index, others)| (*index, told(*index, others)))
        .collect();
    for (index, message) in found {
        let kind = ConditionType::OverlappingTLSConfig;
        let conditions = &mut drafts[index].conditions;
        conditions.set(kind, Truth::True, "OverlappingHostnames", message);
    }
}

/// The port of a listener that serves TLS.
fn tls_port(draft: &Draft) -> Option<u16> {
    let is_tls = draft.can_serve && draft.tls.is_some();
    is_tls.then_some(draft.bound_port?.get())
}

/// Marks every listener that stands where one of an earlier Gateway stands already.
pub(super) fn between_gateways(candidates: &mut [Candidate<'_>]) {
    type Taken = (
        Vec<IpAddr>,
        ListenerProtocol,
        Option<Hostname>,
        Proxy,
        String,
    );
    type Proxy = Option<ProxyProtocol>;
    let mut taken: BTreeMap<u16, Vec<Taken>> = BTreeMap::new();
    for candidate in candidates {
        if candidate.is_refused() {
            continue;
        }
        let addresses = candidate.addresses.clone();
        let proxy_protocol = &candidate.settings.proxy_protocol;
        let mut own = Vec::new();
        for draft in candidate.drafts.iter_mut().filter(|draft| draft.can_serve) {
            let (Some(port), Some(protocol)) = (draft.bound_port, draft.protocol) else {
                continue;
            };
            let before = taken.get(&port.get()).into_iter().flatten();
            let clash = before
                .filter(|(there, known, ..)| meet(*known, protocol) && overlap(there, &addresses))
                .find_map(|(_, known, hostname, known_proxy, whose)| {
                    if !share_a_socket(*known, protocol) {
                        Some((PROTOCOL, whose.clone()))
                    } else if known_proxy != proxy_protocol {
                        Some((PROXY_PROTOCOL, whose.clone()))
                    } else {
                        let clash = same_hosts(hostname.as_ref(), draft.hostname.as_ref());
                        clash.map(|clash| (clash, whose.clone()))
                    }
                });
            if let Some((Clash { reason, what }, whose)) = clash {
                let place = "on the same address and port";
                mark(
                    draft,
                    reason,
                    format!("{whose} has {what} {place}; {WAYS_OUT}"),
                );
            } else {
                let whose = format!("Gateway {}, which came first,", candidate.object.key);
                let hostname = draft.hostname.clone();
                let taken = (
                    addresses.clone(),
                    protocol,
                    hostname,
                    proxy_protocol.clone(),
                    whose,
                );
                own.push((port.get(), taken));
            }
        }
        for (port, listener) in own {
            taken.entry(port).or_default().push(listener);
        }
    }
}

/// Whether listeners of these protocols can be told apart on one port, by host name: those of TLS
/// can, whatever happens to it (Gateway API `Gateway.spec.listeners`).
fn share_a_socket(one: ListenerProtocol, other: ListenerProtocol) -> bool {
    use ListenerProtocol::{Https, Tls, TlsPassthrough};
    let is_tls = |protocol| matches!(protocol, Https | Tls | TlsPassthrough);
    one == other || (is_tls(one) && is_tls(other))
}

/// Whether listeners of these protocols meet on one port: UDP has ports of its own.
fn meet(one: ListenerProtocol, other: ListenerProtocol) -> bool {
    (one == ListenerProtocol::Udp) == (other == ListenerProtocol::Udp)
}

/// Why two listeners of one Gateway are not distinct, if so.
fn clash(one: &Draft, other: &Draft) -> Option<Clash> {
    let (a, b) = (one.protocol?, other.protocol?);
    if one.bound_port.is_none() || one.bound_port != other.bound_port || !meet(a, b) {
        None
    } else if !share_a_socket(a, b) {
        Some(PROTOCOL)
    } else {
        same_hosts(one.hostname.as_ref(), other.hostname.as_ref())
    }
}

fn same_hosts(one: Option<&Hostname>, other: Option<&Hostname>) -> Option<Clash> {
    match one {
        _ if one != other => None,
        None => Some(NO_HOSTNAME),
        Some(_) => Some(HOSTNAME),
    }
}

fn mark(draft: &mut Draft, reason: &'static str, message: String) {
    draft.conditions.set(
        ConditionType::Conflicted,
        Truth::True,
        reason,
        message.clone(),
    );
    draft.refuse(reason, message);
}

fn overlap(one: &[IpAddr], other: &[IpAddr]) -> bool {
    let same = |a: &IpAddr, b: &IpAddr| a == b || a.is_unspecified() || b.is_unspecified();
    one.iter().any(|a| other.iter().any(|b| same(a, b)))
}
