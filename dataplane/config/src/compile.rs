//! A snapshot becomes a [`RuntimeConfig`], from scratch or by what changed since the last one.
//!
//! Called by `dataplane/src/apply.rs` before anything is swapped; a violation here means that the
//! update is refused and nothing has changed. Slow parts (regular expressions, certificates) happen
//! here, away from traffic. The parts are compiled below: `clusters`, `listeners` with the rules of
//! their routes, and the sockets they share, `binds`.

use std::cell::LazyCell;
use std::collections::BTreeMap;

use ir::listener::ListenerProtocol;
use ir::{Snapshot, Violations};

use dataplane_telemetry::metrics::Metrics;

use crate::ai::Around;
use crate::backend_tls::Identities;
use crate::consumers;
use crate::runtime::RuntimeConfig;

mod binds;
mod clusters;
mod listeners;
mod rules;

use binds::{binds, protocol_of, udp_binds};
use clusters::clusters;
use listeners::{ChangedRoutes, Routes, listener_from_scratch};

/// Compiles `snapshot`, reusing all parts of `previous` that it leaves alone.
pub fn compile(
    snapshot: Snapshot,
    previous: &RuntimeConfig,
    metrics: &Metrics,
) -> Result<RuntimeConfig, Violations> {
    let identities = Identities::compile(&snapshot, &previous.identities);
    let around = Around {
        snapshot: &snapshot,
        identities: &identities,
        kept: &previous.kept,
        metrics,
    };
    let (clusters, ai_services) = clusters(previous, around);
    let changed = ChangedRoutes::between(&previous.snapshot, &snapshot);
    let routes = LazyCell::new(|| Routes::of(&snapshot));
    let mut listeners = BTreeMap::new();
    for listener in snapshot
        .listeners
        .iter()
        .filter(|l| protocol_of(l).is_some() || l.protocol == ListenerProtocol::Udp)
    {
        let config = match previous.listeners.get(&listener.name) {
            Some(before) if before.listener == *listener => {
                changed.apply_to(before, &identities, &previous.kept, metrics)
            }
            _ => listener_from_scratch(listener, &routes, previous, &identities, metrics),
        };
        listeners.insert(listener.name.clone(), config);
    }
    let workloads = consumers::workloads(&listeners, &snapshot, previous);
    let binds = binds(&listeners, &snapshot, (previous, &workloads), metrics)?;
    let udp_binds = udp_binds(&listeners, metrics);
    let plugins = previous.kept.plugins().of(&snapshot, metrics);
    Ok(RuntimeConfig {
        plugins,
        snapshot,
        binds,
        udp_binds,
        listeners,
        clusters,
        ai_services,
        defaults: previous.defaults.clone(),
        identities,
        workloads,
        kept: previous.kept.clone(),
    })
}
