//! How connections are set up: HTTP/2 parameters, and TLS from files that may change.
//!
//! `serve.rs` asks for the current [`Transport`] before each connection. The files are read again
//! at most once a second; broken ones are reported and the last good ones stay in use, so a
//! half-written renewal locks nobody out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tracing::{info, warn};

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
        source: tonic::transport::Error,
    },
}

/// A server template, and the files its TLS was made of.
pub(super) struct Transport {
    plain: Server,
    server: Server,
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
        let plain = Server::builder()
            .http2_keepalive_interval(Some(runtime.keepalive_time))
            .http2_keepalive_timeout(Some(runtime.keepalive_timeout))
            .initial_stream_window_size(runtime.initial_window_size)
            .initial_connection_window_size(runtime.initial_conn_window_size)
            .max_concurrent_streams(runtime.max_concurrent_streams)
            .http2_max_header_list_size(16 * 1024);
        let mut transport = Self {
            server: plain.clone(),
            plain,
            files,
            material: None,
            looked_at: Instant::now(),
        };
        if let Some(files) = &transport.files {
            let material = Material::read(files).await?;
            transport.server = material.apply(&transport.plain, files)?;
            transport.material = Some(material);
        }
        Ok(transport)
    }

    /// The server to use for a connection that comes now.
    pub(super) async fn current(&mut self) -> Server {
        if let Some(files) = &self.files
            && self.looked_at.elapsed() >= RELOAD_INTERVAL
        {
            self.looked_at = Instant::now();
            let changed = match Material::read(files).await {
                Ok(material) if self.material.as_ref() == Some(&material) => None,
                Ok(material) => Some(
                    material
                        .apply(&self.plain, files)
                        .map(|server| (server, material)),
                ),
                Err(error) => Some(Err(error)),
            };
            match changed {
                Some(Ok((server, material))) => {
                    info!("TLS files changed, new connections use them");
                    self.server = server;
                    self.material = Some(material);
                }
                Some(Err(error)) => {
                    let error: &dyn std::error::Error = &error;
                    warn!(
                        error,
                        "TLS files cannot be used, keeping the last good ones"
                    );
                }
                None => {}
            }
        }
        self.server.clone()
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

    fn apply(&self, plain: &Server, files: &GrpcTls) -> Result<Server, TlsError> {
        let mut tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.cert, &self.key))
            .timeout(HANDSHAKE_TIMEOUT);
        if let Some(client_ca) = &self.client_ca {
            tls = tls
                .client_ca_root(Certificate::from_pem(client_ca))
                .client_auth_optional(!files.require_client_cert);
        }
        plain
            .clone()
            .tls_config(tls)
            .map_err(|source| TlsError::Unusable {
                cert: files.cert_path.clone(),
                key: files.key_path.clone(),
                source,
            })
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
