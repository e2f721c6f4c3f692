//! Clusters: a Service (or AIService) port with its endpoints and how they are used.
//!
//! The wire calls it `BackendCluster`. A cluster is shared by all routes that name it; what lives
//! longer than one configuration (health, load, breakers) is kept in `dataplane/upstream` by key.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use crate::Hostname;
use crate::ai::{AiProviderTls, AiService, TokenPolicy};
use crate::backend_policy::BackendPolicy;
use crate::listener::TlsVersion;
use crate::policy::{SecurityPolicy, SessionPersistence};
use crate::resource::{Metadata, Resource};
use crate::wasm::WasmPlugin;

/// How long a connection may take to come up where the wire says nothing.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A group of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Cluster {
    /// `namespace/service:port`.
    pub key: Arc<str>,
    /// What its endpoints speak.
    pub protocol: ClusterProtocol,
    /// Addresses, in the order of the control plane.
    pub endpoints: Vec<Endpoint>,
    /// How long a connection may take to come up; [`DEFAULT_CONNECT_TIMEOUT`] where nothing is said.
    pub connect_timeout: Duration,
    /// Limit for one exchange; absent means the route's.
    pub request_timeout: Option<Duration>,
    /// `service` names the Service.
    pub metadata: Metadata,
    /// TLS towards the endpoints (Gateway API `BackendTLSPolicy`).
    pub tls: Option<Arc<BackendTls>>,
    /// Keeps a client at one endpoint.
    pub session_persistence: Option<Arc<SessionPersistence>>,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// Limit of requests in flight; absent means no limit.
    pub max_inflight_requests: Option<u32>,
    /// Makes this cluster an AI provider.
    pub ai_service: Option<Arc<AiService>>,
    /// Token limits.
    pub token_policy: Option<Arc<TokenPolicy>>,
    /// A plugin on everything that goes to this cluster, from a control plane of the contract.
    pub wasm_plugin: Option<Arc<WasmPlugin>>,
    /// Keys of further plugins on it, in no order.
    pub plugins: Vec<Arc<str>>,
    /// Authentication, limits and the like in front of this cluster.
    pub security_policy: Option<Arc<SecurityPolicy>>,
    /// How its endpoints are watched, spared and limited.
    pub policy: Option<Arc<BackendPolicy>>,
    /// Tells the endpoints of TCP and TLS routes who the client is; HTTP has header fields for it.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl Cluster {
    /// A cluster without endpoints and without policies, whose connections may take as long to come
    /// up as the wire says by default.
    pub fn new(key: impl Into<Arc<str>>, protocol: ClusterProtocol) -> Self {
        Self {
            key: key.into(),
            protocol,
            endpoints: Vec::new(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            request_timeout: None,
            metadata: Metadata::new(),
            tls: None,
            session_persistence: None,
            balancing: Balancing::RoundRobin,
            max_inflight_requests: None,
            ai_service: None,
            token_policy: None,
            wasm_plugin: None,
            plugins: Vec::new(),
            security_policy: None,
            policy: None,
            proxy_protocol: None,
        }
    }
}

impl Resource for Cluster {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}

/// What the endpoints of a cluster speak (Service `appProtocol`, else the port's protocol).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterProtocol {
    /// HTTP/1.1 in plain text; also what a TCP Service port without `appProtocol` means to HTTP.
    Http,
    /// HTTP/2 with prior knowledge in plain text.
    H2c,
    /// HTTP over TLS.
    Https,
    /// gRPC over plain-text HTTP/2.
    Grpc,
    /// gRPC over TLS.
    Grpcs,
    /// Bytes over TCP.
    Tcp,
    /// Datagrams.
    Udp,
    /// A name this data plane does not know; treated as [`Self::Tcp`].
    Other(String),
}

impl ClusterProtocol {
    /// Its name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Http => "HTTP",
            Self::H2c => "H2C",
            Self::Https => "HTTPS",
            Self::Grpc => "GRPC",
            Self::Grpcs => "GRPCS",
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Other(name) => name,
        }
    }
}

/// One address of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it is; names appear only for AI providers and are resolved off the request path.
    pub address: EndpointAddress,
    /// Its port.
    pub port: NonZeroU16,
    /// Ready in its EndpointSlice.
    pub is_ready: bool,
    /// Not ready because it ends, and still serving (EndpointSlice `serving` and `terminating`).
    pub is_ending: bool,
    /// Topology zone; empty when unknown.
    pub zone: String,
    /// Zones whose traffic it is meant for; empty for that of its own zone.
    pub zone_hints: Vec<String>,
    /// Share among the cluster's endpoints; 1 unless the control plane says otherwise.
    pub weight: u32,
}

/// An address or a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointAddress {
    /// An IP address.
    Ip(IpAddr),
    /// A DNS name.
    Name(Hostname),
}

/// TLS towards endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTls {
    /// Sent as SNI, and the name the certificate must have unless `subject_alt_names` says others.
    pub hostname: Hostname,
    /// Trust the operating system's certificate authorities.
    pub use_system_ca_certificates: bool,
    /// PEM texts of the trust anchors.
    pub ca_pems: Vec<String>,
    /// Any one of these must be in the certificate; empty means `hostname`.
    pub subject_alt_names: Vec<SubjectAltName>,
    /// Lowest version offered.
    pub min_version: TlsVersion,
    /// Highest version offered; never below `min_version`.
    pub max_version: TlsVersion,
}

impl From<&AiProviderTls> for BackendTls {
    fn from(tls: &AiProviderTls) -> Self {
        Self {
            hostname: tls.hostname.clone(),
            use_system_ca_certificates: tls.ca_pems.is_empty(),
            ca_pems: tls.ca_pems.clone(),
            subject_alt_names: Vec::new(),
            min_version: TlsVersion::V1_2,
            max_version: TlsVersion::V1_3,
        }
    }
}

/// A name a backend's certificate may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// A DNS name, perhaps a wildcard.
    Hostname(Hostname),
    /// A URI such as a SPIFFE id, compared as text.
    Uri(String),
}

/// A version of the PROXY protocol, whose header goes in front of a connection's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyProtocol {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Balancing {
    /// In turn.
    #[default]
    RoundRobin,
    /// The less loaded of two random ones.
    LeastRequest,
    /// At random, by weight.
    Random,
    /// By a hash of the request.
    ConsistentHash(HashKey),
}

/// What is hashed for [`Balancing::ConsistentHash`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    SourceIp,
    /// A header field, named in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The request's host.
    Hostname,
}
