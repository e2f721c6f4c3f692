//! Listeners that cannot live beside each other (Gateway API `Gateway.spec.listeners`).
//!
//! Within one Gateway nobody wins: all listeners that are not distinct are left out. Between Gateways
//! that share an address and port the older one keeps its place, because the younger must not be able
//! to take traffic away from it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ir::Hostname;
use ir::listener::ListenerProtocol;

use super::gateway::Candidate;
use super::listener::Draft;
use crate::conditions::{ConditionType, Truth};

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
        for (index, reason, whom) in found {
            mark(&mut candidate.drafts[index], reason, &whom);
        }
    }
}

/// Marks every listener that stands where one of an earlier Gateway stands already.
pub(super) fn between_gateways(candidates: &mut [Candidate<'_>]) {
    type Taken = (Vec<IpAddr>, ListenerProtocol, Option<Hostname>, String);
    let mut taken: BTreeMap<u16, Vec<Taken>> = BTreeMap::new();
    for candidate in candidates {
        let addresses = candidate.addresses.clone();
        let mut own = Vec::new();
        for draft in candidate.drafts.iter_mut().filter(|draft| draft.can_serve) {
            let (Some(port), Some(protocol)) = (draft.bound_port, draft.protocol) else {
                continue;
            };
            let before = taken.get(&port.get()).into_iter().flatten();
            let clash = before
                .filter(|(there, ..)| overlap(there, &addresses))
                .find_map(|(_, known, hostname, whose)| {
                    if *known != protocol {
                        Some(("ProtocolConflict", whose.clone()))
                    } else {
                        (*hostname == draft.hostname).then(|| ("HostnameConflict", whose.clone()))
                    }
                });
            if let Some((reason, whose)) = clash {
                mark(draft, reason, &whose);
            } else {
                let whose = format!("Gateway {}, which came first,", candidate.object.key);
                own.push((
                    port.get(),
                    (addresses.clone(), protocol, draft.hostname.clone(), whose),
                ));
            }
        }
        for (port, listener) in own {
            taken.entry(port).or_default().push(listener);
        }
    }
}

/// Why two listeners of one Gateway are not distinct, if so.
fn clash(one: &Draft, other: &Draft) -> Option<&'static str> {
    let (a, b) = (one.protocol?, other.protocol?);
    if one.bound_port.is_none() || one.bound_port != other.bound_port {
        None
    } else if a != b {
        Some("ProtocolConflict")
    } else {
        (one.hostname == other.hostname).then_some("HostnameConflict")
    }
}

fn mark(draft: &mut Draft, reason: &'static str, whom: &str) {
    let what = if reason == "ProtocolConflict" {
        "another protocol"
    } else {
        "the same host name"
    };
    let message = format!("{whom} has {what} on the same port");
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
