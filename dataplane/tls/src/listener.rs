//! One listener that ends TLS: its certificates, its versions, and who may come in.
//!
//! `server.rs` compiles one of these per listener and keeps it over updates as long as nothing in
//! it changed. Each has a rustls configuration and a ticket key of its own, so a session made at
//! one listener can never be resumed at another, whatever that one asks of its clients.

use std::collections::HashMap;
use std::sync::Arc;

use ir::listener::{ListenerProtocol, ListenerTls, TlsVersion};
use ir::secret::Secret;
use ir::{Listener, Resources, Violation, Violations};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::certificate::{Fit, ServerCertificate};
use crate::provider::provider;
use crate::verify::Clients;

/// A listener that ends TLS, compiled.
#[derive(Debug)]
pub(crate) struct TlsListener {
    pub(crate) name: Arc<str>,
    pub(crate) clients: Clients,
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) certificates: Vec<Served>,
    protocol: ListenerProtocol,
    tls: ListenerTls,
}

/// A certificate and the secret it was compiled from.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) secret: Arc<Secret>,
    pub(crate) certificate: Arc<ServerCertificate>,
}

/// Certificates by key of their secret, so that each is compiled once for all listeners.
pub(crate) type Compiled = HashMap<Arc<str>, Served>;

impl TlsListener {
    /// The certificate for a client that asks for `name` and understands all keys.
    pub(crate) fn certificate_for(&self, name: Option<&str>) -> Option<&Served> {
        let all = self.certificates.iter();
        all.min_by_key(|served| fit(&served.certificate, name))
    }

    /// Compiles `listener`, or hands out `previous` when nothing changed that concerns handshakes.
    pub(crate) fn compile(
        listener: &Listener,
        secrets: &Resources<Secret>,
        compiled: &mut Compiled,
        previous: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, Violations> {
        let fault = |path: &str, message: String| {
            Violations::from(Violation {
                object: format!("Listener {}", listener.name),
                path: path.to_owned(),
                message,
            })
        };
        let Some(tls) = listener.tls.as_ref().filter(|tls| !tls.passthrough) else {
            return Err(fault("tls", "is needed to end TLS here".to_owned()));
        };
        let certificates = certificates(listener, tls, secrets, compiled)?;
        if let Some(previous) = previous
            && previous.is_current(listener.protocol, tls, &certificates)
        {
            return Ok(previous.clone());
        }
        let clients = Clients::compile(tls.client_validation.as_ref())
            .map_err(|message| fault("tls.client_validation.ca_pems", message))?;
        let config = server_config(listener.protocol, tls, &certificates, &clients)
            .map_err(|error| fault("tls", format!("cannot be set up: {error}")))?;
        Ok(Arc::new(Self {
            name: listener.name.clone(),
            clients,
            config: Arc::new(config),
            certificates,
            protocol: listener.protocol,
            tls: tls.clone(),
        }))
    }

    /// True when a handshake with these settings would not differ from one with its own.
    ///
    /// Server names are left out: they say which listener is chosen, not how it shakes hands.
    fn is_current(&self, protocol: ListenerProtocol, tls: &ListenerTls, next: &[Served]) -> bool {
        let versions = (tls.min_version, tls.max_version);
        let same_certificates = self.certificates.len() == next.len()
            && self.certificates.iter().zip(next).all(|(old, new)| {
                old.secret.key == new.secret.key && Arc::ptr_eq(&old.certificate, &new.certificate)
            });
        same_certificates
            && self.protocol == protocol
            && (self.tls.min_version, self.tls.max_version) == versions
            && self.tls.client_validation == tls.client_validation
    }
}

impl TlsListener {
    /// True when `other` asks the same of its clients.
    pub(crate) fn asks_the_same(&self, other: &Self) -> bool {
        self.tls.client_validation == other.tls.client_validation
    }
}

/// The certificates a listener names, in its order of preference.
fn certificates(
    listener: &Listener,
    tls: &ListenerTls,
    secrets: &Resources<Secret>,
    compiled: &mut Compiled,
) -> Result<Vec<Served>, Violations> {
    let mut certificates = Vec::with_capacity(tls.certificate_refs.len());
    let mut violations = Violations::default();
    let mut fault = |path: String, message: String| {
        violations.push(Violation {
            object: format!("Listener {}", listener.name),
            path,
            message,
        });
    };
    if tls.certificate_refs.is_empty() {
        let message = "is empty, name a secret with a certificate".to_owned();
        fault("tls.certificate_refs".to_owned(), message);
    }
    for (index, key) in tls.certificate_refs.iter().enumerate() {
        match certificate(key, secrets, compiled) {
            Ok(served) => certificates.push(served),
            Err(message) => fault(format!("tls.certificate_refs[{index}]"), message),
        }
    }
    if violations.is_empty() {
        Ok(certificates)
    } else {
        Err(violations)
    }
}

fn certificate(
    key: &Arc<str>,
    secrets: &Resources<Secret>,
    compiled: &mut Compiled,
) -> Result<Served, String> {
    let Some(secret) = secrets.get(key) else {
        return Err(format!("names secret {key}, which is not in the snapshot"));
    };
    let Some(material) = &secret.certificate else {
        return Err(format!(
            "names secret {key}, which holds no certificate, use one of type kubernetes.io/tls"
        ));
    };
    if let Some(known) = compiled.get(key)
        && (Arc::ptr_eq(&known.secret, secret) || known.secret.certificate == secret.certificate)
    {
        return Ok(known.clone());
    }
    let certificate = ServerCertificate::compile(material)
        .map_err(|error| format!("names secret {key}, which cannot be used: {error}"))?;
    let served = Served {
        secret: secret.clone(),
        certificate: Arc::new(certificate),
    };
    compiled.insert(key.clone(), served.clone());
    Ok(served)
}

fn server_config(
    protocol: ListenerProtocol,
    tls: &ListenerTls,
    certificates: &[Served],
    clients: &Clients,
) -> Result<ServerConfig, rustls::Error> {
    let versions: Vec<_> = [
        (TlsVersion::V1_2, &rustls::version::TLS12),
        (TlsVersion::V1_3, &rustls::version::TLS13),
    ]
    .into_iter()
    .filter(|(version, _)| (tls.min_version..=tls.max_version).contains(version))
    .map(|(_, version)| version)
    .collect();
    let choice = CertificateChoice(certificates.iter().map(|c| c.certificate.clone()).collect());
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&versions)?
        .with_client_cert_verifier(clients.handshake_verifier())
        .with_cert_resolver(Arc::new(choice));
    config.alpn_protocols = match protocol {
        // Bytes inside are not ours to name.
        ListenerProtocol::Tls => Vec::new(),
        _ => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
    };
    config.ticketer = rustls::crypto::ring::Ticketer::new()?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.max_early_data_size = 0;
    Ok(config)
}

/// How well a certificate fits the name that a client asked for, if it asked for one.
fn fit(certificate: &ServerCertificate, name: Option<&str>) -> Fit {
    name.map_or(Fit::None, |name| certificate.fit(name))
}

/// Chooses among the certificates of one listener; never empty.
#[derive(Debug)]
struct CertificateChoice(Vec<Arc<ServerCertificate>>);

impl ResolvesServerCert for CertificateChoice {
    /// Of those whose key the client understands, the best fit for its server name; the order of
    /// the listener decides between equals. When the client understands none, the first one.
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        self.0
            .iter()
            .filter(|certificate| certificate.can_sign(schemes))
            .min_by_key(|certificate| fit(certificate, hello.server_name()))
            .or_else(|| self.0.first())
            .map(|certificate| certificate.key.clone())
    }
}
