//! Listeners of the mesh that serve the workloads of one namespace, told apart by client address.
//!
//! `compile.rs` calls. Such a listener shares its socket with the one that serves every other client
//! of the same Service; the snapshot says whose workload has which address. A client whose address is
//! not known is served as every other.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ir::Snapshot;

use crate::runtime::{Consumers, ListenerConfig, RuntimeConfig};

/// Whose workload has which address, where a listener tells its clients apart by that.
pub(crate) fn workloads(
    listeners: &BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    snapshot: &Snapshot,
    previous: &RuntimeConfig,
) -> Arc<HashMap<IpAddr, Arc<str>>> {
    let configs = listeners.values();
    let namespaces: BTreeSet<Arc<str>> = configs
        .filter_map(|config| config.listener.consumer_namespace())
        .map(Arc::from)
        .collect();
    let mut workloads = HashMap::new();
    for workload in snapshot.workloads.iter() {
        if let Some(namespace) = namespaces.get(workload.namespace.as_str()) {
            workloads.insert(workload.ip, namespace.clone());
        }
    }
    if *previous.workloads == workloads {
        return previous.workloads.clone();
    }
    Arc::new(workloads)
}

/// The listeners of a socket that serve every client, and the others.
pub(crate) fn set_apart<'a>(
    configs: Vec<&'a Arc<ListenerConfig>>,
    workloads: &Arc<HashMap<IpAddr, Arc<str>>>,
) -> (Vec<&'a Arc<ListenerConfig>>, Option<Consumers>) {
    let (own, all): (Vec<_>, Vec<_>) = configs
        .into_iter()
        .partition(|config| config.listener.consumer_namespace().is_some());
    if own.is_empty() {
        return (all, None);
    }
    let pair = |config: &Arc<ListenerConfig>| {
        Some((
            Arc::from(config.listener.consumer_namespace()?),
            Arc::clone(config),
        ))
    };
    let consumers = Consumers {
        workloads: Arc::clone(workloads),
        listeners: own.into_iter().filter_map(pair).collect(),
    };
    (all, Some(consumers))
}
