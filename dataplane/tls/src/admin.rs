//! TLS of the admin listener: one certificate from files, HTTP/1.1 only.
//!
//! `dataplane/src/admin.rs` loads it at start from the paths of the bootstrap file. It knows no
//! snapshot and shares nothing with [`ServerTls`](crate::ServerTls) but the cryptography.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ir::secret::{Certificate, CertificateError, SecretText};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use crate::certificate::ServerCertificate;
use crate::provider::provider;
use crate::server::{HandshakeError, session};
use crate::stream::ServerStream;

/// TLS of the admin listener. Cheap to clone.
#[derive(Clone)]
pub struct AdminTls {
    acceptor: TlsAcceptor,
    name: Arc<str>,
}

/// Why the admin listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum AdminTlsError {
    /// A file cannot be read.
    #[error("cannot read {path}, check that it exists and may be read")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The files hold no usable certificate and key.
    #[error("cannot use the certificate {certificate} with the key {key}")]
    Certificate {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Why not.
        #[source]
        source: CertificateError,
    },
    /// The cryptography cannot be set up.
    #[error("cannot set up TLS: {0}")]
    Setup(String),
}

impl AdminTls {
    /// Reads a certificate chain and its key from PEM files.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, AdminTlsError> {
        let pair = Certificate::new(read(certificate)?, SecretText::new(read(key)?));
        let compiled = pair.and_then(|pair| ServerCertificate::compile(&pair));
        let compiled = compiled.map_err(|source| AdminTlsError::Certificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            source,
        })?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
            .map_err(|error| AdminTlsError::Setup(error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(compiled.key)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            name: "admin".into(),
        })
    }

    /// Shakes hands on `stream`; the caller keeps the deadline.
    pub async fn accept<S>(&self, stream: S) -> Result<ServerStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let tls = self.acceptor.accept(stream).await?;
        let sni = tls.get_ref().1.server_name().map(str::to_owned);
        let session = session(&tls, &self.name, sni);
        Ok(ServerStream::new(tls, session))
    }
}

fn read(path: &Path) -> Result<String, AdminTlsError> {
    std::fs::read_to_string(path).map_err(|source| AdminTlsError::Read {
        path: path.to_owned(),
        source,
    })
}
