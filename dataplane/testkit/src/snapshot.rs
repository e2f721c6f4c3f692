//! Typed snapshots in a few lines, for tests that need one to begin with.
//!
//! What is not said gets the plainest value: one rule, one match, weight 1, no filters. For more,
//! take [`http_route`], [`cluster`] or [`listener`], change the fields, and add the result.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ir::cluster::{ClusterProtocol, EndpointAddress};
use ir::http_route::{
    BackendRef, GrpcMatch, GrpcMethodMatch, GrpcRule, HttpMatch, HttpRule, PathMatch, Timeouts,
};
use ir::listener::{ListenerProtocol, ListenerSettings, ListenerTls, TlsVersion};
use ir::policy::{RateLimit, RateLimitKey, RateLimitScope};
use ir::resource::Metadata;
use ir::stream_route::{StreamKind, StreamMatch, StreamRule};
use ir::{
    BackendTarget, Cluster, Endpoint, GrpcRoute, Hostname, HttpRoute, Listener, Secret, Snapshot,
    StreamRoute, Version,
};

use crate::certificate::Identity;

/// Puts a snapshot together.
#[derive(Clone, Debug, Default)]
pub struct SnapshotBuilder(Snapshot);

impl SnapshotBuilder {
    /// An empty snapshot of that version.
    pub fn new(version: &str) -> Self {
        Self(Snapshot {
            version: Version::new(version),
            required_features: vec!["core.v1".to_owned()],
            compatibility_profile: "full-v1".to_owned(),
            ..Snapshot::default()
        })
    }

    /// Continues from `snapshot` under another version.
    pub fn from(snapshot: &Snapshot, version: &str) -> Self {
        Self(Snapshot {
            version: Version::new(version),
            ..snapshot.clone()
        })
    }

    /// Adds a plain HTTP listener on 127.0.0.1 for every host.
    pub fn http_listener(self, name: &str, port: u16) -> Self {
        self.listener(listener(name, port, ListenerProtocol::Http))
    }

    /// Adds an HTTPS listener on 127.0.0.1 for `hostnames`, with certificates by secret.
    pub fn https_listener(
        self,
        name: &str,
        port: u16,
        hostnames: &[&str],
        certificates: &[&str],
    ) -> Self {
        let mut listener = listener(name, port, ListenerProtocol::Https);
        listener.hostnames = hostnames.iter().map(|name| hostname(name)).collect();
        listener.tls = Some(tls(certificates));
        self.listener(listener)
    }

    /// Adds or replaces a listener.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.0.listeners.insert(listener);
        self
    }

    /// Adds or replaces the secret `key` (`namespace/name`) with a certificate.
    pub fn certificate(self, key: &str, identity: &Identity) -> Self {
        self.secret(identity.secret(key))
    }

    /// Adds or replaces a secret.
    pub fn secret(mut self, secret: Secret) -> Self {
        self.0.secrets.insert(secret);
        self
    }

    /// Adds an HTTP route at every listener there is: `host` (empty for all) and a path prefix go
    /// to `cluster`.
    pub fn route(self, key: &str, host: &str, prefix: &str, cluster: &str) -> Self {
        let mut route = http_route(key, host, prefix, &[(cluster, 1)]);
        route.listeners = self.listener_names();
        self.http_route(route)
    }

    /// Adds or replaces an HTTP route as it is.
    pub fn http_route(mut self, route: HttpRoute) -> Self {
        self.0.http_routes.insert(route);
        self
    }

    /// Adds a gRPC route at every listener there is: all calls of `service` (empty for all) go to
    /// `cluster`.
    pub fn grpc(self, key: &str, host: &str, service: &str, cluster: &str) -> Self {
        let mut route = grpc_route(key, host, service, &[(cluster, 1)]);
        route.listeners = self.listener_names();
        self.grpc_route(route)
    }

    /// Adds or replaces a gRPC route as it is.
    pub fn grpc_route(mut self, route: GrpcRoute) -> Self {
        self.0.grpc_routes.insert(route);
        self
    }

    /// Adds or replaces a TCP, UDP or TLS route as it is.
    pub fn stream_route(mut self, route: StreamRoute) -> Self {
        self.0.stream_routes.insert(route);
        self
    }

    /// Adds a TLS listener on 127.0.0.1 that passes through what asks for `hostnames`.
    pub fn passthrough_listener(self, name: &str, port: u16, hostnames: &[&str]) -> Self {
        let mut listener = listener(name, port, ListenerProtocol::TlsPassthrough);
        listener.hostnames = hostnames.iter().map(|name| hostname(name)).collect();
        let mut settings = tls(&[]);
        settings.passthrough = true;
        listener.tls = Some(settings);
        self.listener(listener)
    }

    /// Adds a TLS listener on 127.0.0.1 that ends TLS and carries the bytes inside.
    pub fn tls_listener(
        self,
        name: &str,
        port: u16,
        hostnames: &[&str],
        certificates: &[&str],
    ) -> Self {
        let mut listener = listener(name, port, ListenerProtocol::Tls);
        listener.hostnames = hostnames.iter().map(|name| hostname(name)).collect();
        listener.tls = Some(tls(certificates));
        self.listener(listener)
    }

    /// Adds an HTTP/1.1 cluster (`namespace/service:port`) with these endpoints, all ready.
    pub fn cluster(self, key: &str, endpoints: &[SocketAddr]) -> Self {
        self.add_cluster(cluster(key, ClusterProtocol::Http, endpoints))
    }

    /// Adds an HTTP/2 cluster (`namespace/service:port`) with these endpoints, all ready.
    pub fn h2c_cluster(self, key: &str, endpoints: &[SocketAddr]) -> Self {
        self.add_cluster(cluster(key, ClusterProtocol::H2c, endpoints))
    }

    /// Adds or replaces a cluster as it is.
    pub fn add_cluster(mut self, cluster: Cluster) -> Self {
        self.0.clusters.insert(cluster);
        self
    }

    /// Changes anything else.
    pub fn with(mut self, change: impl FnOnce(&mut Snapshot)) -> Self {
        change(&mut self.0);
        self
    }

    /// The snapshot.
    pub fn build(self) -> Snapshot {
        self.0
    }

    fn listener_names(&self) -> Vec<Arc<str>> {
        self.0.listeners.iter().map(|l| l.name.clone()).collect()
    }
}

/// A listener on 127.0.0.1 for every host, without TLS. `name` is `namespace/gateway/listener`.
pub fn listener(name: &str, port: u16, protocol: ListenerProtocol) -> Listener {
    let mut parts = name.split('/');
    let namespace = parts.next().unwrap_or_default();
    let gateway = parts.next().unwrap_or_default();
    Listener {
        name: name.into(),
        addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        port: NonZeroU16::new(port).expect("a listener has a port"),
        protocol,
        hostnames: Vec::new(),
        tls: None,
        metadata: Metadata::from([
            ("namespace".to_owned(), namespace.to_owned()),
            ("gateway".to_owned(), gateway.to_owned()),
        ]),
        backend_client_certificate: None,
        security_policy: None,
        settings: ListenerSettings::default(),
        plugins: Vec::new(),
    }
}

/// TLS that ends at the listener with these secrets, TLS 1.2 and 1.3, no client certificates.
pub fn tls(certificates: &[&str]) -> ListenerTls {
    ListenerTls {
        passthrough: false,
        certificate_refs: certificates.iter().map(|&key| key.into()).collect(),
        sni_hosts: Vec::new(),
        min_version: TlsVersion::V1_2,
        max_version: TlsVersion::V1_3,
        client_validation: None,
    }
}

/// A cluster in plain text whose endpoints are all ready.
pub fn cluster(key: &str, protocol: ClusterProtocol, endpoints: &[SocketAddr]) -> Cluster {
    let endpoint = |address: &SocketAddr| Endpoint {
        address: EndpointAddress::Ip(address.ip()),
        port: NonZeroU16::new(address.port()).expect("a bound socket has a port"),
        is_ready: true,
        is_ending: false,
        zone: String::new(),
        zone_hints: Vec::new(),
        weight: 1,
    };
    Cluster {
        endpoints: endpoints.iter().map(endpoint).collect(),
        ..Cluster::new(key, protocol)
    }
}

/// A route attached to no listener yet: `host` (empty for all) and a path prefix go to clusters by
/// weight.
pub fn http_route(key: &str, host: &str, prefix: &str, clusters: &[(&str, u32)]) -> HttpRoute {
    let rule = HttpRule {
        name: None,
        matches: vec![HttpMatch {
            path: PathMatch::Prefix(prefix.to_owned()),
            method: None,
            headers: Vec::new(),
            query_params: Vec::new(),
        }],
        filters: Vec::new(),
        backends: backends(clusters),
        timeouts: Timeouts::default(),
        retry: None,
        session_persistence: None,
        plugins: Vec::new(),
    };
    route(key, host, rule)
}

/// A route attached to no listener yet: all calls of `service` (empty for all) at `host` (empty for
/// all) go to clusters by weight.
pub fn grpc_route(key: &str, host: &str, service: &str, clusters: &[(&str, u32)]) -> GrpcRoute {
    let method = if service.is_empty() {
        GrpcMethodMatch::Any
    } else {
        GrpcMethodMatch::Exact {
            service: Some(service.to_owned()),
            method: None,
        }
    };
    let rule = GrpcRule {
        name: None,
        matches: vec![GrpcMatch {
            method,
            headers: Vec::new(),
        }],
        filters: Vec::new(),
        backends: backends(clusters),
        session_persistence: None,
        plugins: Vec::new(),
    };
    route(key, host, rule)
}

/// A stream route on `listener`: what asks for one of `names` (none for everything) goes to
/// clusters by weight. `key` is `kind/namespace/name`.
pub fn stream_route(
    kind: StreamKind,
    key: &str,
    listener: &str,
    names: &[&str],
    clusters: &[(&str, u32)],
) -> StreamRoute {
    let matches = names.iter().map(|name| StreamMatch {
        sni: Some(hostname(name)),
        ..StreamMatch::default()
    });
    let mut matches: Vec<_> = matches.collect();
    if matches.is_empty() {
        matches.push(StreamMatch::default());
    }
    StreamRoute {
        key: key.into(),
        kind,
        listeners: vec![listener.into()],
        parent_refs: Vec::new(),
        rules: vec![StreamRule {
            name: None,
            matches,
            backends: backends(clusters),
        }],
        labels: Metadata::new(),
        annotations: Metadata::new(),
        created_at: None,
    }
}

fn route<R>(key: &str, host: &str, rule: R) -> ir::http_route::Route<R> {
    let hostnames = if host.is_empty() {
        Vec::new()
    } else {
        vec![hostname(host)]
    };
    ir::http_route::Route {
        key: key.into(),
        hostnames,
        listeners: Vec::new(),
        parent_refs: Vec::new(),
        rules: vec![rule],
        labels: Metadata::new(),
        annotations: Metadata::new(),
        policy: None,
        security_policy: None,
        created_at: None,
    }
}

fn backends(clusters: &[(&str, u32)]) -> Vec<BackendRef> {
    let backend = |&(key, weight): &(&str, u32)| BackendRef {
        target: target(key),
        weight,
        filters: Vec::new(),
    };
    clusters.iter().map(backend).collect()
}

/// A reference to the Service behind the cluster `key` (`namespace/service:port`).
pub fn target(key: &str) -> BackendTarget {
    let (namespace, rest) = key.split_once('/').unwrap_or(("default", key));
    let (name, port) = match rest.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (rest, None),
    };
    BackendTarget::new("", "Service", namespace, name, port)
}

/// A limit of rate of a route that all clients share, without a burst beyond it.
pub fn rate_limit(name: &str, requests: u32, period: Duration) -> RateLimit {
    RateLimit {
        name: name.to_owned(),
        scope: RateLimitScope::Route,
        requests,
        period,
        burst: 0,
        key: RateLimitKey::Route,
        queue: false,
        is_dry_run: false,
        is_divided: false,
    }
}

fn hostname(text: &str) -> Hostname {
    Hostname::new(text).expect("a test writes valid host names")
}

/// Where [`free_port`] looks: below what the kernel hands out by itself.
pub const FREE_PORTS: Range<u16> = 22_000..32_000;

/// A port of 127.0.0.1 that was free a moment ago and was not handed out before.
///
/// For listeners of a snapshot, whose port must be known before the data plane binds it. It lies
/// below the ports that kernels choose (32768 and up, `ip_local_port_range`), so that no other
/// socket gets it by chance; test processes beside this one begin elsewhere.
pub fn free_port() -> u16 {
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    let count = u32::from(FREE_PORTS.end - FREE_PORTS.start);
    loop {
        let step = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let at = std::process::id().wrapping_mul(769).wrapping_add(step) % count;
        let port = FREE_PORTS.start + u16::try_from(at).expect("below 65,536");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
