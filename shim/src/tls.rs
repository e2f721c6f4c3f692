//! Ends TLS with certificate and key from files that may change.
//!
//! `serve` and `admin` each have a [`ServerTls`] and ask it before every connection. The files are
//! read again at most once a second; broken ones are reported and the last good ones stay in use, so
//! a half-written renewal locks nobody out. What goes on inside of TLS is for the caller to say.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::settings::TlsFiles;

/// How often files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Slow handshakes are given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("cannot read {}, check {section}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The settings that name it.
        section: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files do not make a TLS server.
    #[error(
        "{} and {} are no usable certificate and key, check {section}",
        cert.display(),
        key.display()
    )]
    Unusable {
        /// `certPath`.
        cert: PathBuf,
        /// `keyPath`.
        key: PathBuf,
        /// The settings that name them.
        section: &'static str,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Whose TLS it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// The settings that name the files.
    pub(crate) section: &'static str,
    /// The one protocol inside, as ALPN names it.
    pub(crate) alpn: &'static str,
}

/// The TLS of a server as its files are now; none at all without files.
pub(crate) struct ServerTls {
    purpose: Purpose,
    files: Option<TlsFiles>,
    used: Option<(Material, TlsAcceptor)>,
    looked_at: Instant,
}

/// What stood in the files.
#[derive(PartialEq)]
struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl ServerTls {
    /// Reads the files for the first time; here a fault is an error.
    pub(crate) async fn new(purpose: Purpose, files: Option<TlsFiles>) -> Result<Self, TlsError> {
        let used = match &files {
            Some(files) => {
                let material = Material::read(purpose, files).await?;
                let acceptor = material.acceptor(purpose, files)?;
                Some((material, acceptor))
            }
            None => None,
        };
        Ok(Self {
            purpose,
            files,
            used,
            looked_at: Instant::now(),
        })
    }

    /// What a connection that comes now is accepted with; nothing where it is plain text.
    pub(crate) async fn current(&mut self) -> Option<TlsAcceptor> {
        if let Some(files) = &self.files
            && self.looked_at.elapsed() >= RELOAD_INTERVAL
        {
            self.looked_at = Instant::now();
            let section = self.purpose.section;
            let used = self.used.as_ref().map(|(material, _)| material);
            let changed = match Material::read(self.purpose, files).await {
                Ok(material) if used == Some(&material) => None,
                Ok(material) => {
                    let acceptor = material.acceptor(self.purpose, files);
                    Some(acceptor.map(|acceptor| (material, acceptor)))
                }
                Err(error) => Some(Err(error)),
            };
            match changed {
                Some(Ok(changed)) => {
                    info!(section, "TLS files changed, new connections use them");
                    self.used = Some(changed);
                }
                Some(Err(error)) => {
                    let error: &dyn Error = &error;
                    warn!(
                        section,
                        error, "TLS files cannot be used, keeping the last good ones"
                    );
                }
                None => {}
            }
        }
        self.used.as_ref().map(|(_, acceptor)| acceptor.clone())
    }
}

/// Makes the handshake, unless it takes too long or everything ends.
pub(crate) async fn accept(
    acceptor: &TlsAcceptor,
    socket: TcpStream,
    shutdown: &CancellationToken,
) -> io::Result<TlsStream<TcpStream>> {
    tokio::select! {
        accepted = acceptor.accept(socket) => accepted,
        () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
        () = shutdown.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

impl Material {
    async fn read(purpose: Purpose, files: &TlsFiles) -> Result<Self, TlsError> {
        let section = purpose.section;
        Ok(Self {
            cert: read(section, &files.cert_path).await?,
            key: read(section, &files.key_path).await?,
            client_ca: match &files.client_ca_path {
                Some(path) => Some(read(section, path).await?),
                None => None,
            },
        })
    }

    fn acceptor(&self, purpose: Purpose, files: &TlsFiles) -> Result<TlsAcceptor, TlsError> {
        let config = self.config(purpose, files.require_client_cert);
        let config = config.map_err(|source| TlsError::Unusable {
            cert: files.cert_path.clone(),
            key: files.key_path.clone(),
            section: purpose.section,
            source,
        })?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn config(
        &self,
        purpose: Purpose,
        needs_client: bool,
    ) -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&self.cert)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(client_ca) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(client_ca)? {
                    roots.add(authority)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match needs_client {
                    true => verifier,
                    false => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
        };
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols.push(purpose.alpn.into());
        Ok(config)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Box<dyn Error + Send + Sync>> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates? {
        none if none.is_empty() => Err("no certificate in PEM is in it".into()),
        some => Ok(some),
    }
}

async fn read(section: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    let bytes = tokio::fs::read(path).await;
    bytes.map_err(|source| TlsError::Read {
        path: path.to_owned(),
        section,
        source,
    })
}
