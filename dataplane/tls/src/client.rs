//! Handshakes with endpoints: whom to trust, which name to ask for, who we say we are.
//!
//! `config` compiles one [`BackendTrust`] per TLS policy of a cluster and one [`ClientTls`] per pair
//! of trust and client certificate; `http` and `stream` dial and call [`ClientTls::connect`], and
//! keep the deadline. Every [`ClientTls`] has an id of its own and a session store of its own: neither a
//! connection nor a session is ever used under another policy or another client certificate.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use ir::cluster::BackendTls;
use ir::listener::TlsVersion;
use ir::secret::Certificate;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificate::ServerCertificate;
use crate::provider::provider;
use crate::stream::Alpn;

mod trust;

use trust::Trust;

/// Server names a session store holds; there is only one per policy.
const SERVER_NAMES: usize = 8;

/// Why TLS towards a cluster cannot be set up; its requests fail, others are not concerned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientTlsError {
    /// The policy trusts the system's authorities and there are none.
    #[error(
        "the system has no certificate authorities, install them (often the package \
         ca-certificates) or name some in caCertificateRefs"
    )]
    NoSystemAuthorities,
    /// None of the PEM texts holds a certificate that can be a trust anchor.
    #[error("no PEM certificate can be a trust anchor, check the ca.crt of caCertificateRefs")]
    NoAuthorities,
    /// The host name cannot be sent as SNI.
    #[error("{0:?} is no name that can be sent to a server, use a DNS name")]
    ServerName(String),
    /// rustls refuses the settings.
    #[error("TLS towards endpoints cannot be set up: {0}")]
    Unusable(String),
    /// The client certificate cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    ClientCertificate(String),
}

/// Why a handshake with an endpoint failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
    /// The endpoint's certificate is not trusted, or is for another name.
    #[error("the endpoint's certificate is refused: {0}")]
    Certificate(String),
    /// No common version, cipher or protocol, or an alert from the endpoint.
    #[error("the TLS handshake failed: {0}")]
    Protocol(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            None => Self::Io(error),
            Some(
                cause @ (rustls::Error::InvalidCertificate(_)
                | rustls::Error::NoCertificatesPresented),
            ) => Self::Certificate(cause.to_string()),
            Some(cause) => Self::Protocol(cause.to_string()),
        }
    }
}

/// Which HTTP we offer by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1; an endpoint that answers nothing is taken to speak it.
    Http1,
    /// HTTP/2, and nothing else will do.
    Http2,
    /// Both, HTTP/2 rather.
    Either,
    /// Nothing: what is carried is bytes, and whose protocol they are is not known.
    Bytes,
}

/// The certificate that we show to endpoints which ask for one.
#[derive(Clone)]
pub struct ClientIdentity {
    certificate: Certificate,
    key: Arc<CertifiedKey>,
}

impl ClientIdentity {
    /// Loads the key of a certificate.
    pub fn compile(certificate: &Certificate) -> Result<Self, ClientTlsError> {
        let compiled = ServerCertificate::compile(certificate)
            .map_err(|error| ClientTlsError::ClientCertificate(error.to_string()))?;
        Ok(Self {
            certificate: certificate.clone(),
            key: compiled.key,
        })
    }

    /// True when it was made from that very certificate and key.
    pub fn is_of(&self, certificate: &Certificate) -> bool {
        self.certificate == *certificate
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").finish_non_exhaustive()
    }
}

/// What a policy says about endpoints, ready for handshakes.
#[derive(Debug)]
pub struct BackendTrust {
    policy: Arc<BackendTls>,
    server_name: ServerName<'static>,
    verifier: Arc<Trust>,
}

impl BackendTrust {
    /// Reads the trust anchors; may read files of the system, hence not for the request path.
    pub fn compile(policy: &Arc<BackendTls>) -> Result<Self, ClientTlsError> {
        let name = policy.hostname.as_str();
        let server_name = ServerName::try_from(name.to_owned())
            .map_err(|_| ClientTlsError::ServerName(name.to_owned()))?;
        Ok(Self {
            server_name,
            verifier: Arc::new(Trust::compile(policy)?),
            policy: Arc::clone(policy),
        })
    }

    /// What it was compiled from.
    pub fn policy(&self) -> &Arc<BackendTls> {
        &self.policy
    }
}

/// TLS towards the endpoints of a cluster, under one client certificate or none.
pub struct ClientTls {
    id: u64,
    server_name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl ClientTls {
    /// Compiles the pair; sessions and connections of another pair are never used under this one.
    pub fn compile(
        trust: &BackendTrust,
        identity: Option<&ClientIdentity>,
    ) -> Result<Self, ClientTlsError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let config = client_config(trust, identity)
            .map_err(|error| ClientTlsError::Unusable(error.to_string()))?;
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            server_name: trust.server_name.clone(),
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
            bytes: offering(&[]),
        })
    }

    /// Names policy and client certificate together, within this process; never 0.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Shakes hands on `stream`. Dropping the future drops the connection.
    pub async fn connect<S>(&self, stream: S, offer: Offer) -> Result<ClientStream<S>, ConnectError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match offer {
            Offer::Http1 => &self.http1,
            Offer::Http2 => &self.http2,
            Offer::Either => &self.either,
            Offer::Bytes => &self.bytes,
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(self.server_name.clone(), stream).await?;
        let alpn = match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => Alpn::H2,
            _ if offer == Offer::Http2 => {
                let message = "the endpoint does not agree on h2 by ALPN".to_owned();
                return Err(ConnectError::Protocol(message));
            }
            _ => Alpn::Http1,
        };
        Ok(ClientStream { tls, alpn })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("id", &self.id)
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

fn client_config(
    trust: &BackendTrust,
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, rustls::Error> {
    let policy = &trust.policy;
    let versions: Vec<_> = [
        (TlsVersion::V1_2, &rustls::version::TLS12),
        (TlsVersion::V1_3, &rustls::version::TLS13),
    ]
    .into_iter()
    .filter(|(version, _)| (policy.min_version..=policy.max_version).contains(version))
    .map(|(_, version)| version)
    .collect();
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)?
        .dangerous()
        .with_custom_certificate_verifier(trust.verifier.clone());
    let mut config = match identity {
        Some(identity) => {
            let resolver = SingleCertAndKey::from(identity.key.clone());
            builder.with_client_cert_resolver(Arc::new(resolver))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(SERVER_NAMES);
    config.enable_early_data = false;
    Ok(config)
}

/// A stream to an endpoint, inside TLS.
pub struct ClientStream<S> {
    tls: TlsStream<S>,
    alpn: Alpn,
}

impl<S> ClientStream<S> {
    /// What both sides will speak.
    pub fn alpn(&self) -> Alpn {
        self.alpn
    }

    /// The stream below.
    pub fn get_ref(&self) -> &S {
        self.tls.get_ref().0
    }
}

impl<S> fmt::Debug for ClientStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream")
            .field("alpn", &self.alpn)
            .finish_non_exhaustive()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tls).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tls).poll_shutdown(cx)
    }
}
