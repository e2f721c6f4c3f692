//! The compiled configuration: sockets, listeners, routing tables, rules and clusters.
//!
//! Everything here is immutable and shared. Parts that a new snapshot leaves alone are the same
//! `Arc`s as before, so a change of one route among 40,000 costs that route's part.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::sync::Arc;

use imbl::GenericHashMap;
use imbl::shared_ptr::DefaultSharedPtr;
use ir::listener::{
    EscapedSlashes, ForwardedFields, ListenerSettings, ProxyProtocol, RequestIds, TlsVersion,
    TrustedProxies,
};
use ir::{Network, Snapshot, Version};
use tokio_util::sync::CancellationToken;

use dataplane_resilience::circuit_breaker::Breaker;
use dataplane_resilience::retry::{Allowance, RetryBudget};
use dataplane_route::hostname::HostMap;
use dataplane_route::table::Table;
use dataplane_telemetry::metrics::{BackendMetrics, ListenerMetrics, RouteMetrics};
use dataplane_tls::{ClientIdentity, ServerTls};
use dataplane_upstream::Cluster;
use dataplane_upstream::weighted::WeightedChoice;

use crate::access::AddressLists;
use crate::ai::{AiCluster, Site};
use crate::backend_tls::{ClusterTls, Identities};
use crate::filters::Filters;
use crate::kept::Kept;
use crate::plugins::{self, Configured, PluginSet};
use crate::rate_limits::Limits;
use crate::rule_settings::RuleSettings;
use crate::sessions::SessionPolicy;
use crate::streams::{Streams, UdpBind};

/// Clusters by key. Each stands in a place of its own, because the map's nodes have room for many that are
/// not there. Every request looks its cluster up, and nobody but the control plane chooses keys.
pub type Clusters =
    GenericHashMap<Arc<str>, Arc<ClusterConfig>, foldhash::quality::RandomState, DefaultSharedPtr>;

/// One compiled configuration.
#[derive(Clone, Default)]
pub struct RuntimeConfig {
    /// The snapshot it was made from; what the next delta builds on.
    pub snapshot: Snapshot,
    /// Sockets that must stand open, by address.
    pub binds: BTreeMap<SocketAddr, Arc<Bind>>,
    /// The same for UDP, which has ports of its own.
    pub udp_binds: BTreeMap<SocketAddr, Arc<UdpBind>>,
    /// Listeners by name.
    pub listeners: BTreeMap<Arc<str>, Arc<ListenerConfig>>,
    /// Clusters by key.
    pub clusters: Clusters,
    /// Keys of those that are AI services.
    pub ai_services: BTreeSet<Arc<str>>,
    /// Plugins that listeners, rules and clusters name.
    pub plugins: Arc<PluginSet>,
    /// What holds for listeners that say nothing else; of the process, handed on from one
    /// configuration to the next.
    pub defaults: Arc<ListenerDefaults>,
    /// Client certificates that are shown to endpoints.
    pub identities: Identities,
    /// Namespaces of the workloads known, by address; empty where no listener asks for them.
    pub workloads: Arc<HashMap<IpAddr, Arc<str>>>,
    /// What routes keep when they are compiled anew; handed on from one configuration to the next.
    pub kept: Arc<Kept>,
}

/// What holds for listeners that say nothing else; set by the bootstrap file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerDefaults {
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// What happens to `%2F` and `%5C` in a path.
    pub escaped_slashes: EscapedSlashes,
    /// Slashes in a row count as one.
    pub merge_slashes: bool,
    /// Whose request backends are told it is.
    pub clients: Arc<Clients>,
    /// No listener speaks an older version of TLS.
    pub tls_min_version: TlsVersion,
    /// No listener speaks a newer one.
    pub tls_max_version: TlsVersion,
}

impl Default for ListenerDefaults {
    fn default() -> Self {
        Self {
            proxy_protocol: ProxyProtocol::Off,
            escaped_slashes: EscapedSlashes::Keep,
            merge_slashes: true,
            clients: Arc::default(),
            tls_min_version: TlsVersion::V1_2,
            tls_max_version: TlsVersion::V1_3,
        }
    }
}

impl RuntimeConfig {
    /// The version of the snapshot it was made from.
    pub fn version(&self) -> &Version {
        &self.snapshot.version
    }

    /// The cluster of a backend, under the first of its keys that exists.
    pub fn cluster(&self, backend: &Backend) -> Option<&ClusterConfig> {
        self.cluster_by_keys(&backend.cluster_keys)
    }

    /// Plugins of these names in the order in which requests meet them.
    pub fn plugins_in_order(&self, names: &[Arc<str>]) -> Vec<&Arc<Configured>> {
        plugins::in_order(&self.plugins, names)
    }

    /// Tells the connections of listeners that `previous` had and this one does not have to end.
    pub fn drain_gone(&self, previous: &Self) {
        for (name, before) in &previous.listeners {
            let now = self.listeners.get(name);
            if !now.is_some_and(|now| Arc::ptr_eq(&now.drain, &before.drain)) {
                before.drain.cancel();
            }
        }
    }

    /// Providers of AI services with addresses of their own.
    pub fn ai_sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        let services = self.ai_services.iter();
        let services = services.filter_map(|key| self.clusters.get(key)?.ai.as_ref());
        services.flat_map(|service| service.sites())
    }

    /// The cluster under the first of these keys that exists.
    pub fn cluster_by_keys(&self, keys: &[Arc<str>]) -> Option<&ClusterConfig> {
        let found = keys.iter().find_map(|key| self.clusters.get(key));
        found.map(Arc::as_ref)
    }
}

impl fmt::Debug for RuntimeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuntimeConfig")
            .field("version", self.version())
            .field("binds", &self.binds.keys())
            .finish_non_exhaustive()
    }
}

/// One cluster and its figures.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Its endpoints and how they are chosen.
    pub cluster: Arc<Cluster>,
    /// Whether and how TLS is spoken to its endpoints.
    pub tls: ClusterTls,
    /// Figures of connections to it.
    pub metrics: Arc<BackendMetrics>,
    /// Clients that may not come in; absent for none.
    pub access: Option<Arc<AddressLists>>,
    /// How often its failed requests may be sent again; outlives this configuration.
    pub retries: Arc<RetryBudget>,
    /// How many may be; `None` for the process's allowance.
    pub retry_allowance: Option<Allowance>,
    /// Stops calling it while it fails, for routes without a breaker of their own.
    pub breaker: Option<Arc<Breaker>>,
    /// Limits of rate in front of it; all of them hold once it is chosen.
    pub limits: Limits,
    /// Keeps clients at their endpoints, for rules that do not do so themselves.
    pub session: Option<Arc<SessionPolicy>>,
    /// Names of its plugins; mostly none.
    pub plugins: Vec<Arc<str>>,
    /// Its AI service, when it is one.
    pub ai: Option<Arc<AiCluster>>,
}

/// One socket and the listeners that share it.
#[derive(Debug)]
pub struct Bind {
    /// Where it is bound.
    pub address: SocketAddr,
    /// What is spoken on it; the same for all its listeners.
    pub protocol: Protocol,
    /// Its listeners by server name; empty unless it speaks [`Protocol::Tls`], where the ClientHello
    /// has to be looked at before anybody reads it.
    pub by_server_name: HostMap<Arc<ListenerConfig>>,
    /// Certificates and settings, when TLS ends here.
    pub tls: Option<Arc<ServerTls>>,
    /// One of its listeners passes TLS through: what comes may not be ours to speak in.
    pub passes_through: bool,
    /// Its listeners by the hosts they serve.
    pub listeners: HostMap<Arc<ListenerConfig>>,
    /// Its listeners for the workloads of a namespace, see [`Consumers`]; absent for none.
    pub consumers: Option<Consumers>,
    /// The port clients know it by.
    pub public_port: NonZeroU16,
    /// Connections begin with a PROXY protocol header and come from one of these sources; empty for
    /// every source. Absent when no header is read.
    pub proxy_protocol: Option<Vec<Network>>,
    /// For figures about connections, before a host is known.
    pub metrics: Arc<ListenerMetrics>,
}

/// Listeners of a mesh socket that serve the workloads of one namespace each.
#[derive(Debug)]
pub struct Consumers {
    /// Whose workload has an address.
    pub workloads: Arc<HashMap<IpAddr, Arc<str>>>,
    /// Their listeners by namespace.
    pub listeners: HashMap<Arc<str>, Arc<ListenerConfig>>,
}

impl Bind {
    /// The listener for a request of `client` to `host`.
    pub fn listener(&self, client: IpAddr, host: &str) -> Option<&Arc<ListenerConfig>> {
        if let Some(consumers) = &self.consumers
            && let Some(namespace) = consumers.workloads.get(&client)
            && let Some(own) = consumers.listeners.get(namespace)
        {
            return Some(own);
        }
        self.listeners.best(host)
    }

    /// The listener for a TLS client that asked for `name`, or for none.
    pub fn by_server_name(&self, name: Option<&str>) -> Option<&Arc<ListenerConfig>> {
        match name {
            Some(name) => self.by_server_name.best(name),
            None => self.by_server_name.get(None),
        }
    }

    /// The listener that serves every host, such as that of plain TCP.
    pub fn any_listener(&self) -> Option<&Arc<ListenerConfig>> {
        self.listeners.get(None)
    }
}

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/2 in plain text.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS.
    Https,
    /// Bytes, which the first listener carries.
    Tcp,
    /// TLS, of which a listener passes some through or carries what is inside as bytes; others may
    /// speak HTTP.
    Tls,
}

/// One listener with the routes attached to it.
pub struct ListenerConfig {
    /// What it was made from.
    pub listener: Arc<ir::Listener>,
    /// What happens to `%2F` and `%5C` in a path.
    pub escaped_slashes: EscapedSlashes,
    /// Slashes in a row count as one.
    pub merge_slashes: bool,
    /// Whose request backends are told it is.
    pub clients: Arc<Clients>,
    /// Clients that may not come in; absent for none.
    pub access: Option<Arc<AddressLists>>,
    /// Its routes.
    pub table: Table<Rule>,
    /// The client certificate that endpoints of TLS clusters are shown.
    pub backend_identity: Option<Arc<ClientIdentity>>,
    /// Figures of requests that no route takes.
    pub unrouted: Arc<ListenerMetrics>,
    /// Its TCP and TLS routes; absent where HTTP is spoken.
    pub streams: Option<Streams>,
    /// Limits of rate in front of it, those of the process included.
    pub limits: Limits,
    /// Cancelled once it is gone, or serves another address: its connections of bytes are to end.
    /// The same one for as long as it stays, whatever else changes.
    pub drain: Arc<CancellationToken>,
}

/// Whom a listener believes about its clients, and what backends are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// By which fields backends are told whose request it is.
    pub fields: ForwardedFields,
    /// Which proxies in front of us are believed.
    pub trusted: TrustedProxies,
    /// Where the value of `X-Request-Id` comes from.
    pub request_ids: RequestIds,
    /// Backends are told the client's certificate.
    pub certificate_field: bool,
}

impl Clients {
    /// What `settings` say, and `defaults` where they say nothing.
    pub(crate) fn compile(settings: &ListenerSettings, defaults: &Arc<Self>) -> Arc<Self> {
        let clients = Self {
            fields: settings.forwarded_fields.unwrap_or(defaults.fields),
            trusted: settings
                .trusted_proxies
                .clone()
                .unwrap_or_else(|| defaults.trusted.clone()),
            request_ids: settings.request_ids.unwrap_or(defaults.request_ids),
            certificate_field: settings
                .client_certificate_field
                .unwrap_or(defaults.certificate_field),
        };
        if clients == **defaults {
            return defaults.clone();
        }
        Arc::new(clients)
    }
}

impl ListenerConfig {
    /// Number of routes of all kinds.
    pub fn routes_len(&self) -> usize {
        self.table.len() + self.streams.as_ref().map_or(0, Streams::len)
    }
}

impl fmt::Debug for ListenerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ListenerConfig")
            .field("name", &self.listener.name)
            .finish_non_exhaustive()
    }
}

/// One rule of a route on one listener, ready to be applied.
#[derive(Debug)]
pub struct Rule {
    /// `namespace/name` of the route.
    pub route: Arc<str>,
    /// HTTP or gRPC, for display.
    pub kind: dataplane_route::table::RouteKind,
    /// Position of the rule in its route.
    pub index: usize,
    /// Name of the rule, when it has one.
    pub name: Option<Box<str>>,
    /// Limits of rate in front of the route.
    pub limits: Limits,
    /// Clients that may not come in; absent for none.
    pub access: Option<Arc<AddressLists>>,
    /// What is done to requests and responses.
    pub filters: Filters,
    /// Names of its plugins; mostly none.
    pub plugins: Box<[Arc<str>]>,
    /// Where requests go; empty means that only a filter may answer.
    pub backends: Box<[Backend]>,
    /// Chooses among `backends`.
    pub choice: WeightedChoice,
    /// Keeps clients at their backend and endpoint.
    pub session: Option<Arc<SessionPolicy>>,
    /// What it says of times, sizes and figures; one and the same for all that say nothing.
    pub settings: Arc<RuleSettings>,
    /// Figures of this route on this listener.
    pub metrics: Arc<RouteMetrics>,
}

/// One backend of a rule.
#[derive(Debug)]
pub struct Backend {
    /// What it names, for logs.
    pub display: Arc<str>,
    /// Keys its cluster may have; empty when it could not be resolved.
    pub cluster_keys: Box<[Arc<str>]>,
    /// What is done to requests and responses of this backend only.
    pub filters: Filters,
    /// The route's own breaker in front of it.
    pub breaker: Option<Arc<Breaker>>,
    /// Its share of the requests.
    pub weight: u32,
}
