//! Listeners: a bound address with its protocol, host names and TLS settings.
//!
//! One Gateway listener becomes one [`Listener`]; several may share an address and port and are
//! then told apart by host name (SNI or `Host`). Sockets are opened per address and port by the
//! data plane, see `dataplane/src/listener.rs`.

use std::net::IpAddr;
use std::num::NonZeroU16;
use std::sync::Arc;

use crate::policy::SecurityPolicy;
use crate::resource::{Metadata, Resource};
use crate::{Hostname, Network};

/// A port binding of a Gateway (or ListenerSet), or of a mesh Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// Unique name: `namespace/gateway/listener`, or `mesh/namespace/service/port`.
    pub name: Arc<str>,
    /// Addresses to bind; never empty. `0.0.0.0` or `::` for all of a family.
    pub addresses: Vec<IpAddr>,
    /// Port to bind.
    pub port: NonZeroU16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
    /// Hosts it serves (SNI for TLS, `Host` for HTTP); empty means every host.
    pub hostnames: Vec<Hostname>,
    /// TLS settings; present exactly when the protocol needs them.
    pub tls: Option<ListenerTls>,
    /// Keys `gateway` and `namespace` for a Gateway's listener, `nantian.dev/…` for the mesh.
    pub metadata: Metadata,
    /// `namespace/name` of the secret the gateway shows to TLS backends, when there is one.
    pub backend_client_certificate: Option<Arc<str>>,
    /// Authentication, limits and the like for everything that enters here.
    pub security_policy: Option<Arc<SecurityPolicy>>,
    /// Ports, PROXY protocol and paths.
    pub settings: ListenerSettings,
    /// Keys of the plugins that see everything that enters here, in no order.
    pub plugins: Vec<Arc<str>>,
}

/// Metadata of a mesh listener: the kind of what it stands in front of, always `Service`.
pub const FRONTEND_KIND: &str = "nantian.dev/frontend-kind";
/// Metadata of a mesh listener: namespace of its Service.
pub const FRONTEND_NAMESPACE: &str = "nantian.dev/frontend-namespace";
/// Metadata of a mesh listener: name of its Service.
pub const FRONTEND_NAME: &str = "nantian.dev/frontend-name";
/// Metadata of a mesh listener: port of its Service.
pub const FRONTEND_PORT: &str = "nantian.dev/frontend-port";
/// Metadata of a mesh listener that serves the workloads of one namespace alone; it shares the
/// socket with the listener that serves all others.
pub const CONSUMER_NAMESPACE: &str = "nantian.dev/consumer-namespace";

impl Listener {
    /// True when it stands in front of a Service, for clients inside the cluster.
    pub fn is_mesh(&self) -> bool {
        self.metadata
            .get(FRONTEND_KIND)
            .is_some_and(|kind| kind == "Service")
    }

    /// The namespace whose workloads alone it serves; `None` for every client.
    pub fn consumer_namespace(&self) -> Option<&str> {
        let namespace = self.metadata.get(CONSUMER_NAMESPACE)?;
        self.is_mesh().then_some(namespace)
    }

    /// The port clients know, which is written into answers.
    pub fn public_port(&self) -> NonZeroU16 {
        self.settings.public_port.unwrap_or(self.port)
    }
}

impl Resource for Listener {
    fn key(&self) -> &Arc<str> {
        &self.name
    }
}

/// Settings beyond protocol and TLS; what is absent is for the data plane's own settings to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The port clients know, where ports are mapped on the way; absent for the bound one.
    pub public_port: Option<NonZeroU16>,
    /// Whether connections begin with a PROXY protocol header; one answer for a socket.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// What happens to `%2F` and `%5C` in a path.
    pub escaped_slashes: Option<EscapedSlashes>,
    /// Slashes in a row count as one.
    pub merge_slashes: Option<bool>,
    /// By which fields backends are told whose request it is.
    pub forwarded_fields: Option<ForwardedFields>,
    /// Which proxies in front of the data plane are believed.
    pub trusted_proxies: Option<TrustedProxies>,
    /// Where the value of `X-Request-Id` comes from.
    pub request_ids: Option<RequestIds>,
    /// Backends are told the client's certificate by `X-Forwarded-Client-Cert`.
    pub client_certificate_field: Option<bool>,
}

/// Whether connections begin with a PROXY protocol header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// They do not.
    Off,
    /// They must, and come from one of these sources; empty for every source.
    Required(Vec<Network>),
}

/// What happens to `%2F` and `%5C` in a path, which some backends read as separators.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    /// They stay escaped and separate nothing.
    #[default]
    Keep,
    /// The request is answered with 400.
    Refuse,
    /// The client is sent to the same path with slashes.
    Redirect,
    /// They become slashes.
    Decode,
}

/// By which fields backends are told whose request it is; those that are not written are removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ForwardedFields {
    /// By none.
    None,
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`; these are read, too.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239), which is read, too.
    Forwarded,
    /// Both are written, `X-Forwarded-For` is read.
    Both,
}

/// Which proxies in front of the data plane are believed; nobody by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// How many, counted from the data plane; 0 for any number of trusted sources.
    pub hops: u8,
    /// Where they are; empty for everywhere.
    pub sources: Vec<Network>,
}

impl TrustedProxies {
    /// No chain of proxies is longer than this.
    pub const HOPS_MAX: u8 = 32;

    /// True when the proxy at `address`, the `place`th counted from the data plane's peer, which is
    /// 0, is believed.
    pub fn include(&self, address: IpAddr, place: usize) -> bool {
        let hops = match self.hops {
            0 if self.sources.is_empty() => 0,
            0 => Self::HOPS_MAX,
            hops => hops,
        };
        place < usize::from(hops)
            && (self.sources.is_empty() || self.sources.iter().any(|it| it.contains(address)))
    }
}

/// Where the value of `X-Request-Id` comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RequestIds {
    /// From the client, as it came; none is made.
    Off,
    /// From a trusted proxy, else made.
    #[default]
    Trusted,
    /// From any client when it is sound, else made.
    Any,
}

/// What a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge, in plain text.
    Http,
    /// HTTP/1.1 and HTTP/2 over TLS that ends here.
    Https,
    /// As [`Self::Https`] with TLS settings, as [`Self::Http`] without; the name only tells intent.
    Grpc,
    /// HTTP/3 over QUIC.
    Http3,
    /// Bytes over TCP.
    Tcp,
    /// Datagrams.
    Udp,
    /// TLS that is routed by SNI and not ended here.
    TlsPassthrough,
    /// TLS that ends here, bytes inside.
    Tls,
}

/// TLS settings of a listener.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerTls {
    /// Forward the encrypted bytes instead of ending TLS here.
    pub passthrough: bool,
    /// `namespace/name` of the certificates, in order of preference; empty only with passthrough.
    pub certificate_refs: Vec<Arc<str>>,
    /// Host names asked for by SNI; empty means the listener's host names.
    pub sni_hosts: Vec<Hostname>,
    /// Lowest version accepted.
    pub min_version: TlsVersion,
    /// Highest version accepted; never below `min_version`.
    pub max_version: TlsVersion,
    /// How client certificates are judged; absent means none is asked for.
    pub client_validation: Option<ClientValidation>,
}

/// A TLS version that the gateway speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// RFC 5246.
    V1_2,
    /// RFC 8446.
    V1_3,
}

/// How client certificates are judged (Gateway API `FrontendTLSValidation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientValidation {
    /// PEM texts of the trust anchors; empty only with [`ClientValidationMode::RejectAll`].
    pub ca_pems: Vec<String>,
    /// What happens to a client without a valid certificate.
    pub mode: ClientValidationMode,
}

/// What happens to a client without a valid certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientValidationMode {
    /// Its handshake fails.
    AllowValidOnly,
    /// It is let in; the backend is not told a client identity.
    AllowInsecureFallback,
    /// Nobody is let in, because no trust anchor could be read (`RejectClientCertificate`).
    RejectAll,
}
