//! TLS below a client: which name it asks for, what it offers, whom it trusts.
//!
//! A [`TlsClient`] remembers its sessions, so a second connection resumes when the server lets it.
//! What was agreed on is read with [`agreed`], an alert of the server with [`alert`].

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue,
    Tls13ClientSessionValue,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, NamedGroup, ProtocolVersion, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::certificate::{Authority, Identity};

pub use tokio_rustls::client::TlsStream;

type Versions = &'static [&'static rustls::SupportedProtocolVersion];
static TLS12_ONLY: Versions = &[&rustls::version::TLS12];
static TLS13_ONLY: Versions = &[&rustls::version::TLS13];

/// Makes TLS connections, all with the same offer.
#[derive(Clone)]
pub struct TlsClient {
    anchors: RootCertStore,
    identity: Option<Identity>,
    alpn: Vec<Vec<u8>>,
    versions: Versions,
    sends_sni: bool,
    sessions: Option<Arc<dyn ClientSessionStore>>,
    config: OnceLock<Arc<ClientConfig>>,
}

/// What was agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
    /// The server's certificate (DER).
    pub leaf: Vec<u8>,
    /// True for TLS 1.3.
    pub is_tls13: bool,
    /// True when the keys come from an earlier session.
    pub is_resumed: bool,
}

impl TlsClient {
    /// Trusts `authority`; offers TLS 1.2 and 1.3 and no ALPN; has no certificate of its own.
    pub fn trusting(authority: &Authority) -> Self {
        let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
        let mut anchors = RootCertStore::empty();
        anchors
            .add(certificate.expect("an authority is PEM"))
            .expect("an authority can be trusted");
        Self {
            anchors,
            identity: None,
            alpn: Vec::new(),
            versions: rustls::ALL_VERSIONS,
            sends_sni: true,
            sessions: None,
            config: OnceLock::new(),
        }
    }

    /// Offers these protocols by ALPN.
    pub fn alpn(self, protocols: &[&str]) -> Self {
        let alpn = protocols.iter().map(|name| name.as_bytes().to_vec());
        Self {
            alpn: alpn.collect(),
            config: OnceLock::new(),
            ..self
        }
    }

    /// Shows this certificate when it is asked for one.
    pub fn identity(self, identity: &Identity) -> Self {
        Self {
            identity: Some(identity.clone()),
            config: OnceLock::new(),
            ..self
        }
    }

    /// Offers TLS 1.2 only.
    pub fn tls12_only(self) -> Self {
        Self {
            versions: TLS12_ONLY,
            config: OnceLock::new(),
            ..self
        }
    }

    /// Offers TLS 1.3 only.
    pub fn tls13_only(self) -> Self {
        Self {
            versions: TLS13_ONLY,
            config: OnceLock::new(),
            ..self
        }
    }

    /// Names no server in the ClientHello.
    pub fn without_sni(self) -> Self {
        Self {
            sends_sni: false,
            config: OnceLock::new(),
            ..self
        }
    }

    /// Offers the sessions it has to every server, whatever name they were made for, as a client
    /// would that wants in where it may not.
    pub fn resuming_anywhere(self) -> Self {
        let sessions = ClientSessionMemoryCache::new(64);
        Self {
            sessions: Some(Arc::new(OneName(sessions))),
            config: OnceLock::new(),
            ..self
        }
    }

    /// Connects to `address` and shakes hands; the certificate must be good for `name`.
    pub async fn connect(
        &self,
        address: SocketAddr,
        name: &str,
    ) -> io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        self.over(stream, name).await
    }

    /// Shakes hands over a stream that stands; the certificate must be good for `name`.
    pub async fn over<S>(&self, stream: S, name: &str) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let config = self.config.get_or_init(|| Arc::new(self.compile())).clone();
        let handshake = TlsConnector::from(config).connect(name, stream);
        tokio::time::timeout(crate::wait::DEADLINE, handshake).await?
    }

    fn compile(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(self.versions)
            .expect("ring knows both versions")
            .with_root_certificates(self.anchors.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
                let chain = vec![CertificateDer::from(identity.leaf.clone())];
                builder
                    .with_client_auth_cert(chain, key.expect("an identity has a key"))
                    .expect("certificate and key were made together")
            }
        };
        config.alpn_protocols.clone_from(&self.alpn);
        config.enable_sni = self.sends_sni;
        if let Some(sessions) = &self.sessions {
            config.resumption = Resumption::store(sessions.clone());
        }
        config
    }
}

/// Keeps all sessions under one name.
#[derive(Debug)]
struct OneName(ClientSessionMemoryCache);

impl OneName {
    fn name() -> ServerName<'static> {
        ServerName::IpAddress(std::net::IpAddr::from([0, 0, 0, 0]).into())
    }
}

impl ClientSessionStore for OneName {
    fn set_kx_hint(&self, _: ServerName<'static>, group: NamedGroup) {
        self.0.set_kx_hint(Self::name(), group);
    }

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        self.0.kx_hint(&Self::name())
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.0.set_tls12_session(Self::name(), value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.0.tls12_session(&Self::name())
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        self.0.remove_tls12_session(&Self::name());
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.0.insert_tls13_ticket(Self::name(), value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.take_tls13_ticket(&Self::name())
    }
}

/// What was agreed on in the handshake of `stream`.
pub fn agreed<S>(stream: &TlsStream<S>) -> Agreed {
    let connection = stream.get_ref().1;
    let alpn = connection.alpn_protocol();
    let chain = connection.peer_certificates().unwrap_or_default();
    Agreed {
        alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
        leaf: chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default(),
        is_tls13: connection.protocol_version() == Some(ProtocolVersion::TLSv1_3),
        is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
    }
}

/// The name of the fatal alert behind `error` (RFC 8446 section 6, `UnrecognisedName`), when the
/// server sent one.
pub fn alert(error: &io::Error) -> Option<String> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(format!("{alert:?}")),
        _ => None,
    }
}
