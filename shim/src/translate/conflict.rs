//! Listeners that cannot live beside each other (Gateway API `Gateway.spec.listeners`).
//!
//! Within one Gateway nobody wins: all listeners that are not distinct are left out. Between Gateways
//! that share an address and port the older one keeps its place, because the younger must not be able
//! to take traffic away from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

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
        let drafts = &candidate.drafts;
        for (index, draft) in drafts.iter().enumerate() {
            let others = drafts
                .iter()
                .enumerate()
                .filter(|(other, _)| *other != index);
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
        note_overlaps(&mut candidate.drafts);
    }
}

/// Tells listeners whose host names overlap over TLS: clients that use a connection for several
/// hosts are answered with 421 there (GEP-3567).
fn note_overlaps(drafts: &mut [Draft]) {
    let overlap = |a: &Draft, b: &Draft| match (&a.hostname, &b.hostname) {
        (Some(a), Some(b)) => a.intersect(b).is_some(),
        _ => true,
    };
    let mut found = Vec::new();
    for (index, draft) in drafts.iter().enumerate() {
        let others = drafts
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != index);
        let others = others.map(|(_, other)| other).filter(|other| {
            let both_tls = [draft, other]
                .iter()
                .all(|it| it.can_serve && it.tls.is_some());
            both_tls && draft.bound_port == other.bound_port && overlap(draft, other)
        });
        let names: Vec<_> = others.map(|other| other.section.as_str()).collect();
        if !names.is_empty() {
            let message = format!(
                "its host names overlap with listener {}",
                names.join(", listener ")
            );
            found.push((index, message));
        }
    }
    for (index, message) in found {
        let kind = ConditionType::OverlappingTLSConfig;
        let conditions = &mut drafts[index].conditions;
        conditions.set(kind, Truth::True, "OverlappingHostnames", message);
    }
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
