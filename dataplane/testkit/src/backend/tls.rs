//! TLS in front of a fake backend: what it shows, whom it asks, and what was agreed on.
//!
//! A [`Secured`] is shared: its certificate and the authorities it asks clients for can be changed
//! while the backend runs, and hold for the handshakes that follow. What came of each finished
//! handshake is remembered and read with [`super::Backend::handshakes`].

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    DigitallySignedStruct, DistinguishedName, HandshakeKind, RootCertStore, ServerConfig,
    ServerConnection, SignatureScheme,
};
use tokio_rustls::TlsAcceptor;

use crate::certificate::{Authority, Identity};

/// Handshakes one backend remembers.
pub(super) const HANDSHAKES_MAX: usize = 4096;

/// How a backend speaks TLS; clones share what can be changed.
#[derive(Clone, Debug)]
pub struct Secured {
    shown: Arc<Shown>,
    asked: Option<Arc<Asked>>,
    protocols: Vec<Vec<u8>>,
}

/// What was agreed on with one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The name it asked for.
    pub server_name: Option<String>,
    /// The protocol agreed on by ALPN.
    pub alpn: Option<String>,
    /// The certificate it showed (DER).
    pub client: Option<Vec<u8>>,
    /// True for TLS 1.3.
    pub is_tls13: bool,
    /// True when the keys come from an earlier session.
    pub is_resumed: bool,
}

impl Secured {
    /// Shows this certificate, asks for none, and agrees on no protocol.
    pub fn new(identity: &Identity) -> Self {
        Self {
            shown: Arc::new(Shown(Mutex::new(certified(identity)))),
            asked: None,
            protocols: Vec::new(),
        }
    }

    /// Agrees on the first of these that the client offers, and on nothing else.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    /// Asks clients for a certificate and takes none that is bad; one without may come in.
    pub fn asking(self, authorities: &[&Authority]) -> Self {
        self.verifying(authorities, false)
    }

    /// Takes only clients with a certificate of one of these authorities.
    pub fn requiring(self, authorities: &[&Authority]) -> Self {
        self.verifying(authorities, true)
    }

    fn verifying(mut self, authorities: &[&Authority], is_mandatory: bool) -> Self {
        self.asked = Some(Arc::new(Asked {
            verifier: Mutex::new(verifier(authorities)),
            is_mandatory,
        }));
        self
    }

    /// Shows another certificate from now on.
    pub fn show(&self, identity: &Identity) {
        *lock(&self.shown.0) = certified(identity);
    }

    /// Trusts other authorities from now on, where it asks for certificates at all.
    pub fn trust(&self, authorities: &[&Authority]) {
        if let Some(asked) = &self.asked {
            *lock(&asked.verifier) = verifier(authorities);
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows both versions");
        let builder = match &self.asked {
            Some(asked) => builder.with_client_cert_verifier(asked.clone()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.shown.clone());
        config.alpn_protocols.clone_from(&self.protocols);
        TlsAcceptor::from(Arc::new(config))
    }
}

impl Handshake {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let version = connection.protocol_version();
        Self {
            server_name: connection.server_name().map(str::to_owned),
            alpn: connection
                .alpn_protocol()
                .map(|name| String::from_utf8_lossy(name).into_owned()),
            client: leaf.map(|leaf| leaf.to_vec()),
            is_tls13: version == Some(rustls::ProtocolVersion::TLSv1_3),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
        }
    }
}

/// The certificate of the moment.
struct Shown(Mutex<Arc<CertifiedKey>>);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(lock(&self.0).clone())
    }
}

/// The authorities of the moment.
#[derive(Debug)]
struct Asked {
    verifier: Mutex<Arc<dyn ClientCertVerifier>>,
    is_mandatory: bool,
}

impl Asked {
    fn now(&self) -> Arc<dyn ClientCertVerifier> {
        lock(&self.verifier).clone()
    }
}

impl ClientCertVerifier for Asked {
    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.now().verify_client_cert(leaf, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.now()
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.now().supported_verify_schemes()
    }
}

fn verifier(authorities: &[&Authority]) -> Arc<dyn ClientCertVerifier> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        let certificate = CertificateDer::from_pem_slice(authority.pem().as_bytes());
        roots
            .add(certificate.expect("an authority is PEM"))
            .expect("an authority can be trusted");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("there is an authority")
}

fn certified(identity: &Identity) -> Arc<CertifiedKey> {
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.as_bytes());
    let chain = CertificateDer::pem_slice_iter(identity.chain_pem.as_bytes())
        .collect::<Result<_, _>>()
        .expect("an identity is PEM");
    let key = rustls::crypto::ring::sign::any_supported_type(&key.expect("an identity has a key"))
        .expect("ring can sign with its own keys");
    Arc::new(CertifiedKey::new(chain, key))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
