//! Sockets: which listeners share an address, and what tells them apart there.
//!
//! Called by `compile` when all listeners are there. Nothing is opened here.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ir::listener::{ListenerProtocol, ListenerTls, ProxyProtocol};
use ir::{Hostname, Listener, Snapshot, Violation, Violations};

use dataplane_route::hostname::HostMap;
use dataplane_telemetry::metrics::Metrics;
use dataplane_tls::ServerTls;

use crate::consumers;
use crate::runtime::{Bind, Consumers, ListenerConfig, ListenerDefaults, Protocol, RuntimeConfig};
use crate::streams::{Streams, UdpBind, server_names};

pub(super) fn binds(
    listeners: &BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    snapshot: &Snapshot,
    (previous, workloads): (&RuntimeConfig, &Arc<HashMap<IpAddr, Arc<str>>>),
    metrics: &Metrics,
) -> Result<BTreeMap<SocketAddr, Arc<Bind>>, Violations> {
    let mut by_address: BTreeMap<SocketAddr, Vec<&Arc<ListenerConfig>>> = BTreeMap::new();
    let of_tcp = listeners
        .values()
        .filter(|config| protocol_of(&config.listener).is_some());
    for config in of_tcp {
        for address in &config.listener.addresses {
            let address = SocketAddr::new(*address, config.listener.port.get());
            by_address.entry(address).or_default().push(config);
        }
    }
    let are_listeners_same = previous.snapshot.listeners.is_same(&snapshot.listeners)
        && previous.snapshot.secrets.is_same(&snapshot.secrets);
    let mut violations = Violations::default();
    let mut binds = BTreeMap::new();
    for (address, configs) in by_address {
        let (configs, consumers) = consumers::set_apart(configs, workloads);
        if configs.is_empty() {
            continue;
        }
        if let Some(before) = previous.binds.get(&address).filter(|_| are_listeners_same) {
            let bind = with_other_routes(before, &configs, consumers, previous);
            binds.insert(address, Arc::new(bind));
            continue;
        }
        match bind(address, (&configs, consumers), snapshot, previous, metrics) {
            Ok(bind) => {
                binds.insert(address, bind);
            }
            Err(found) => violations.extend(found),
        }
    }
    if violations.is_empty() {
        Ok(binds)
    } else {
        Err(violations)
    }
}

fn bind(
    address: SocketAddr,
    (configs, consumers): (&[&Arc<ListenerConfig>], Option<Consumers>),
    snapshot: &Snapshot,
    previous: &RuntimeConfig,
    metrics: &Metrics,
) -> Result<Arc<Bind>, Violations> {
    let defaults = &*previous.defaults;
    // `ir` has refused listeners that cannot share a socket; those of TLS can.
    let protocols: Vec<_> = configs
        .iter()
        .filter_map(|c| protocol_of(&c.listener))
        .collect();
    let protocol = match protocols.as_slice() {
        many if many.contains(&Protocol::Tls) => Protocol::Tls,
        many => many.first().copied().unwrap_or(Protocol::Http),
    };
    let passes_through = |config: &&&Arc<ListenerConfig>| {
        config.listener.protocol == ListenerProtocol::TlsPassthrough
    };
    let ends_tls = |config: &&&Arc<ListenerConfig>| !passes_through(config);
    let tls = match protocol {
        Protocol::Http | Protocol::Tcp => None,
        Protocol::Https | Protocol::Tls => {
            let parts = configs.iter().filter(ends_tls);
            let parts = parts.map(|config| bounded(&config.listener, defaults));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            let parts: Vec<&Listener> = parts.iter().map(|listener| &**listener).collect();
            let before = previous.binds.get(&address);
            let before = before.and_then(|bind| bind.tls.as_deref());
            let compile = || ServerTls::compile(&parts, &snapshot.secrets, before).map(Arc::new);
            (!parts.is_empty()).then(compile).transpose()?
        }
    };
    let by_server_name = match protocol {
        Protocol::Tls => by_server_name(configs),
        _ => HostMap::default(),
    };
    let mut by_host = HostMap::default();
    for config in configs {
        put(&mut by_host, &config.listener.hostnames, config);
    }
    let first = &configs[0].listener;
    // `ir` has refused listeners of different minds about this on one socket.
    let proxy_protocol = first.settings.proxy_protocol.as_ref();
    let proxy_protocol = match proxy_protocol.unwrap_or(&defaults.proxy_protocol) {
        ProxyProtocol::Off => None,
        ProxyProtocol::Required(sources) => Some(sources.clone()),
    };
    Ok(Arc::new(Bind {
        address,
        protocol,
        passes_through: configs.iter().any(|config| passes_through(&config)),
        by_server_name,
        tls,
        listeners: by_host,
        consumers,
        public_port: first.public_port(),
        proxy_protocol,
        metrics: metrics.listener(&first.name),
    }))
}

/// A socket whose listeners stay, and some of them have other routes: of thousands on one socket only
/// these are put in anew.
fn with_other_routes(
    before: &Bind,
    configs: &[&Arc<ListenerConfig>],
    consumers: Option<Consumers>,
    previous: &RuntimeConfig,
) -> Bind {
    let mut listeners = before.listeners.clone();
    let mut by_server_name = before.by_server_name.clone();
    for config in configs {
        let known = previous.listeners.get(&config.listener.name);
        if known.is_some_and(|known| Arc::ptr_eq(known, config)) {
            continue;
        }
        put(&mut listeners, &config.listener.hostnames, config);
        if before.protocol == Protocol::Tls {
            put(&mut by_server_name, server_names(&config.listener), config);
        }
    }
    Bind {
        address: before.address,
        protocol: before.protocol,
        passes_through: before.passes_through,
        by_server_name,
        tls: before.tls.clone(),
        listeners,
        consumers,
        public_port: before.public_port,
        proxy_protocol: before.proxy_protocol.clone(),
        metrics: before.metrics.clone(),
    }
}

fn by_server_name(configs: &[&Arc<ListenerConfig>]) -> HostMap<Arc<ListenerConfig>> {
    let mut map = HostMap::default();
    for config in configs {
        put(&mut map, server_names(&config.listener), config);
    }
    map
}

/// Puts a listener in under its names; one without serves every name.
fn put(map: &mut HostMap<Arc<ListenerConfig>>, names: &[Hostname], config: &Arc<ListenerConfig>) {
    if names.is_empty() {
        map.insert(None, Arc::clone(config));
    }
    for name in names {
        map.insert(Some(name), Arc::clone(config));
    }
}

pub(super) fn udp_binds(
    listeners: &BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    metrics: &Metrics,
) -> BTreeMap<SocketAddr, Arc<UdpBind>> {
    let mut binds = BTreeMap::new();
    for config in listeners.values() {
        let listener = &config.listener;
        if listener.protocol != ListenerProtocol::Udp {
            continue;
        }
        for ip in &listener.addresses {
            let address = SocketAddr::new(*ip, listener.port.get());
            let bind = UdpBind {
                address,
                listener: listener.name.clone(),
                access: config.access.clone(),
                streams: config
                    .streams
                    .clone()
                    .unwrap_or_else(|| Streams::new(listener, metrics)),
                metrics: metrics.listener(&listener.name),
            };
            binds.insert(address, Arc::new(bind));
        }
    }
    binds
}

/// The listener with TLS versions that the process speaks too.
fn bounded<'a>(
    listener: &'a Listener,
    defaults: &ListenerDefaults,
) -> Result<Cow<'a, Listener>, Violations> {
    let Some(tls) = &listener.tls else {
        return Ok(Cow::Borrowed(listener));
    };
    let min_version = tls.min_version.max(defaults.tls_min_version);
    let max_version = tls.max_version.min(defaults.tls_max_version);
    if (min_version, max_version) == (tls.min_version, tls.max_version) {
        return Ok(Cow::Borrowed(listener));
    }
    if min_version > max_version {
        return Err(Violations::from(Violation {
            object: format!("Listener {}", listener.name),
            path: "tls".to_owned(),
            message: "speaks no version of TLS that this data plane speaks, see \
                      runtime.tlsMinVersion and runtime.tlsMaxVersion"
                .to_owned(),
        }));
    }
    let mut bounded = listener.clone();
    bounded.tls = Some(ListenerTls {
        min_version,
        max_version,
        ..tls.clone()
    });
    Ok(Cow::Owned(bounded))
}

/// What is served by this data plane so far.
pub(super) fn protocol_of(listener: &Listener) -> Option<Protocol> {
    match listener.protocol {
        ListenerProtocol::Http => Some(Protocol::Http),
        ListenerProtocol::Https => Some(Protocol::Https),
        ListenerProtocol::Grpc if listener.tls.is_some() => Some(Protocol::Https),
        ListenerProtocol::Grpc => Some(Protocol::Http),
        ListenerProtocol::Tcp => Some(Protocol::Tcp),
        ListenerProtocol::Tls | ListenerProtocol::TlsPassthrough => Some(Protocol::Tls),
        ListenerProtocol::Udp | ListenerProtocol::Http3 => None,
    }
}
