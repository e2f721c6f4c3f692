//! Rules between objects: listeners that get in each other's way, certificates and plugins that are
//! missing.
//!
//! Used by `decode` on a whole snapshot and by `delta` on what it touches. The cost of a change grows
//! with the number of listeners, not with that of routes; only a plugin that goes is looked for in all
//! of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::listener::ListenerProtocol;
use crate::{
    Cluster, GrpcRoute, HttpRoute, Listener, Resources, Secret, Snapshot, Violation, Violations,
    WasmPlugin,
};

/// Every violation of the rules between these listeners and secrets.
///
/// Listeners conflict when they cannot share the socket of an address and port (plain HTTP, TLS
/// and bytes exclude each other, as do datagrams and QUIC), ask for different headers in front of
/// connections, or share it for the same host name and the same clients.
/// Of two the one later in the order of names is blamed; both are named.
pub fn check(listeners: &Resources<Listener>, secrets: &Resources<Secret>) -> Violations {
    let mut violations = Violations::default();
    let mut sockets: HashMap<Socket, &Listener> = HashMap::with_capacity(listeners.len());
    let mut hosts: HashMap<Place<'_>, &Listener> = HashMap::with_capacity(listeners.len());
    for listener in listeners.iter() {
        check_certificates(listener, secrets, &mut violations);
        if let Some((path, message)) = conflict(listener, &mut sockets, &mut hosts) {
            violations.push(Violation {
                object: format!("Listener {}", listener.name),
                path: path.to_owned(),
                message,
            });
        }
    }
    violations
}

/// A violation for every plugin that is named and not there.
///
/// A plugin may be what keeps somebody out, so nothing is served without it.
pub fn check_plugins(snapshot: &Snapshot) -> Violations {
    let mut missing = MissingPlugins::among(&snapshot.wasm_plugins);
    snapshot
        .listeners
        .iter()
        .for_each(|it| missing.of_listener(it));
    snapshot
        .http_routes
        .iter()
        .for_each(|it| missing.of_http_route(it));
    snapshot
        .grpc_routes
        .iter()
        .for_each(|it| missing.of_grpc_route(it));
    snapshot
        .clusters
        .iter()
        .for_each(|it| missing.of_cluster(it));
    missing.violations
}

/// Names of plugins that lead nowhere.
pub(crate) struct MissingPlugins<'a> {
    plugins: &'a Resources<WasmPlugin>,
    pub(crate) violations: Violations,
}

impl<'a> MissingPlugins<'a> {
    pub(crate) fn among(plugins: &'a Resources<WasmPlugin>) -> Self {
        Self {
            plugins,
            violations: Violations::default(),
        }
    }

    pub(crate) fn of_listener(&mut self, listener: &Listener) {
        self.of("Listener", &listener.name, "", &listener.plugins);
    }

    pub(crate) fn of_http_route(&mut self, route: &HttpRoute) {
        for (index, rule) in route.rules.iter().enumerate() {
            self.of_rule("HTTPRoute", &route.key, index, &rule.plugins);
        }
    }

    pub(crate) fn of_grpc_route(&mut self, route: &GrpcRoute) {
        for (index, rule) in route.rules.iter().enumerate() {
            self.of_rule("GRPCRoute", &route.key, index, &rule.plugins);
        }
    }

    pub(crate) fn of_cluster(&mut self, cluster: &Cluster) {
        self.of("Cluster", &cluster.key, "", &cluster.plugins);
    }

    fn of_rule(&mut self, kind: &str, key: &str, index: usize, names: &[Arc<str>]) {
        if !names.is_empty() {
            self.of(kind, key, &format!("rules[{index}]."), names);
        }
    }

    fn of(&mut self, kind: &str, key: &str, before: &str, names: &[Arc<str>]) {
        for (index, name) in names.iter().enumerate() {
            if self.plugins.get(name).is_none() {
                self.violations.push(Violation {
                    object: format!("{kind} {key}"),
                    path: format!("{before}wasm_plugins[{index}]"),
                    message: format!(
                        "plugin {name} is not in the snapshot, send it or take its name out"
                    ),
                });
            }
        }
    }
}

/// What a bound socket is told apart by; datagrams and TCP do not meet.
type Socket = (IpAddr, u16, bool);

/// A host name on a socket, and whose clients are meant: all, or the workloads of a namespace.
type Place<'a> = (Socket, Option<&'a str>, &'a str);

/// What is spoken on a socket, as far as sharing it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    PlainHttp,
    Tls,
    Bytes,
    Datagrams,
    Quic,
}

fn family(listener: &Listener) -> Family {
    match listener.protocol {
        ListenerProtocol::Grpc if listener.tls.is_some() => Family::Tls,
        ListenerProtocol::Http | ListenerProtocol::Grpc => Family::PlainHttp,
        ListenerProtocol::Https | ListenerProtocol::TlsPassthrough | ListenerProtocol::Tls => {
            Family::Tls
        }
        ListenerProtocol::Tcp => Family::Bytes,
        ListenerProtocol::Udp => Family::Datagrams,
        ListenerProtocol::Http3 => Family::Quic,
    }
}

/// The first conflict of `listener` with one seen before; records it otherwise.
fn conflict<'a>(
    listener: &'a Listener,
    sockets: &mut HashMap<Socket, &'a Listener>,
    hosts: &mut HashMap<Place<'a>, &'a Listener>,
) -> Option<(&'static str, String)> {
    let family = family(listener);
    let is_datagram = matches!(family, Family::Datagrams | Family::Quic);
    let port = listener.port.get();
    for address in &listener.addresses {
        let socket = (*address, port, is_datagram);
        let other = *sockets.entry(socket).or_insert(listener);
        if self::family(other) != family {
            return Some((
                "protocol",
                format!(
                    "cannot share {address} port {port} with listener {}, \
                     which speaks {:?}: use another port",
                    other.name, other.protocol
                ),
            ));
        }
        if other.settings.proxy_protocol != listener.settings.proxy_protocol {
            return Some((
                "settings.proxy_protocol",
                format!(
                    "differs from that of listener {} on {address} port {port}, and one socket \
                     has one answer: use another port, or set both alike",
                    other.name
                ),
            ));
        }
        let names = listener.hostnames.iter().map(|hostname| hostname.as_str());
        let any = listener.hostnames.is_empty().then_some("*");
        for name in names.chain(any) {
            let place = (socket, listener.consumer_namespace(), name);
            let other = *hosts.entry(place).or_insert(listener);
            if !std::ptr::eq(other, listener) {
                return Some((
                    "hostnames",
                    format!(
                        "{name:?} on {address} port {port} is also served by listener {}: \
                         use another host name or port",
                        other.name
                    ),
                ));
            }
        }
    }
    None
}

fn check_certificates(
    listener: &Listener,
    secrets: &Resources<Secret>,
    violations: &mut Violations,
) {
    let Some(tls) = listener.tls.as_ref().filter(|tls| !tls.passthrough) else {
        return;
    };
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        let message = match secrets.get(reference) {
            None => "is not in the snapshot, leave the listener out or send the secret",
            Some(secret) if secret.certificate.is_none() => "holds no certificate",
            Some(_) => continue,
        };
        violations.push(Violation {
            object: format!("Listener {}", listener.name),
            path: format!("tls.secret_refs[{index}]"),
            message: format!("secret {reference} {message}"),
        });
    }
}
