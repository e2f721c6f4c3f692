//! How connections are set up: HTTP/2 parameters, and TLS from files that may change.
//!
//! `serve.rs` asks the [`Transport`] for the current [`Door`] before each connection. The files are
//! read again at most once a second; broken ones are reported and the last good ones stay in use, so
//! a half-written renewal locks nobody out. TLS is ended here and not by tonic, because what is to be
//! counted on a connection (`pings.rs`) can be seen in plain text only.

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
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tracing::{info, warn};

use super::connection::Stream;
use crate::settings::{GrpcRuntime, GrpcTls};

/// How often files are looked at.
const RELOAD_INTERVAL: Duration = Duration::from_secs(1);
/// Slow handshakes are given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or unreadable.
    #[error("cannot read {}, check grpcTLS", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The files do not make a TLS server.
    #[error("{} and {} are no usable certificate and key", cert.display(), key.display())]
    Unusable {
        /// `certPath`.
        cert: PathBuf,
        /// `keyPath`.
        key: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// How connections of now are set up.
#[derive(Clone)]
pub(super) struct Door {
    server: Server,
    tls: Option<TlsAcceptor>,
}

impl Door {
    /// The template of a server, with the parameters of HTTP/2.
    pub(super) fn server(&self) -> Server {
        self.server.clone()
    }

    /// Makes the handshake where TLS is on.
    pub(super) async fn open(
        &self,
        socket: TcpStream,
        shutdown: &CancellationToken,
    ) -> io::Result<Stream> {
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(socket));
        };
        tokio::select! {
            accepted = tls.accept(socket) => Ok(Stream::Tls(Box::new(accepted?))),
            () = tokio::time::sleep(HANDSHAKE_TIMEOUT) => Err(io::ErrorKind::TimedOut.into()),
            () = shutdown.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}

/// The current [`Door`], and the files its TLS was made of.
pub(super) struct Transport {
    door: Door,
    files: Option<GrpcTls>,
    material: Option<Material>,
    looked_at: Instant,
}

#[derive(PartialEq)]
struct Material {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Transport {
    /// Reads the files for the first time; here a fault is an error.
    pub(super) async fn new(
        runtime: &GrpcRuntime,
        files: Option<GrpcTls>,
    ) -> Result<Self, TlsError> {
        let server = Server::builder()
            .http2_keepalive_interval(Some(runtime.keepalive_time))
            .http2_keepalive_timeout(Some(runtime.keepalive_timeout))
            .initial_stream_window_size(runtime.initial_window_size)
            .initial_connection_window_size(runtime.initial_conn_window_size)
            .max_concurrent_streams(runtime.max_concurrent_streams)
            .http2_max_header_list_size(16 * 1024);
        let mut transport = Self {
            door: Door { server, tls: None },
            files,
            material: None,
            looked_at: Instant::now(),
        };
        if let Some(files) = &transport.files {
            let material = Material::read(files).await?;
            transport.door.tls = Some(material.acceptor(files)?);
            transport.material = Some(material);
        }
        Ok(transport)
    }

    /// The one to use for a connection that comes now.
    pub(super) async fn current(&mut self) -> Door {
        if let Some(files) = &self.files
            && self.looked_at.elapsed() >= RELOAD_INTERVAL
        {
            self.looked_at = Instant::now();
            let changed = match Material::read(files).await {
                Ok(material) if self.material.as_ref() == Some(&material) => None,
                Ok(material) => Some(material.acceptor(files).map(|tls| (tls, material))),
                Err(error) => Some(Err(error)),
            };
            match changed {
                Some(Ok((tls, material))) => {
                    info!("TLS files changed, new connections use them");
                    self.door.tls = Some(tls);
                    self.material = Some(material);
                }
                Some(Err(error)) => {
                    let error: &dyn Error = &error;
                    warn!(
                        error,
                        "TLS files cannot be used, keeping the last good ones"
                    );
                }
                None => {}
            }
        }
        self.door.clone()
    }
}

impl Material {
    async fn read(files: &GrpcTls) -> Result<Self, TlsError> {
        Ok(Self {
            cert: read(&files.cert_path).await?,
            key: read(&files.key_path).await?,
            client_ca: match &files.client_ca_path {
                Some(path) => Some(read(path).await?),
                None => None,
            },
        })
    }

    fn acceptor(&self, files: &GrpcTls) -> Result<TlsAcceptor, TlsError> {
        let config = self.config(files.require_client_cert);
        let config = config.map_err(|source| TlsError::Unusable {
            cert: files.cert_path.clone(),
            key: files.key_path.clone(),
            source,
        })?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    fn config(&self, needs_client: bool) -> Result<ServerConfig, Box<dyn Error + Send + Sync>> {
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
        config.alpn_protocols.push(b"h2".to_vec());
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

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
}
