//! Opens one connection to the control plane.
//!
//! `connection.rs` calls [`dial`] for each attempt. Certificates are read from their files each time,
//! so a rotated one is used from the next connection on. Nothing is retried here.

use std::error::Error;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::settings::{KEEPALIVE_INTERVAL_MIN, Settings, TlsFiles};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("the address {address:?} of the control plane is not a URL; check controlPlaneAddr")]
    Address {
        address: String,
        source: tonic::transport::Error,
    },
    #[error(
        "the address {address:?} asks for TLS and no CA is configured; \
         set xdsTls.enabled and xdsTls.caPath"
    )]
    TlsNotConfigured { address: String },
    #[error("cannot read {}; check xdsTls and that the Secret is mounted", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the certificates in xdsTls cannot be used")]
    Certificates(#[source] tonic::transport::Error),
    #[error("cannot connect to {address}; check that it is reachable from the data plane")]
    Connect {
        address: String,
        source: tonic::transport::Error,
    },
    #[error(
        "no connection to {address} within {} ms; check that it is reachable from the data plane",
        limit.as_millis()
    )]
    Timeout { address: String, limit: Duration },
}

impl DialError {
    /// Whether nobody answers at the address, as long as no control plane is there. A dial that nobody
    /// answered within its limit, as at a Service whose last Pod is just gone, has waited long enough.
    pub(crate) fn is_unanswered(&self) -> bool {
        use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
        if let Self::Timeout { .. } = self {
            return true;
        }
        let mut cause = self.source();
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if let Some(ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut) = kind
            {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// Opens a connection, with TLS when it is configured.
pub(crate) async fn dial(settings: &Settings) -> Result<Channel, DialError> {
    let url = url(settings)?;
    let mut endpoint = Endpoint::from_shared(url.clone())
        .map_err(|source| DialError::Address {
            address: url.clone(),
            source,
        })?
        .connect_timeout(settings.connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(settings.keepalive_interval.max(KEEPALIVE_INTERVAL_MIN))
        .keep_alive_timeout(settings.keepalive_timeout)
        // Without a stream the control plane permits a ping every two hours.
        .keep_alive_while_idle(false);
    if let Some(files) = &settings.tls {
        endpoint = endpoint
            .tls_config(tls_config(files).await?)
            .map_err(DialError::Certificates)?;
    }
    // The endpoint's own limit covers TCP only; this one covers the TLS handshake too.
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(source)) => Err(DialError::Connect {
            address: url,
            source,
        }),
        Err(_) => Err(DialError::Timeout {
            address: url,
            limit,
        }),
    }
}

/// The address as a URL whose scheme says whether TLS is spoken: the settings decide that, since
/// tonic would otherwise speak plain text to an `http` URL whatever certificates it was given.
fn url(settings: &Settings) -> Result<String, DialError> {
    let address = settings.address.trim();
    let (scheme, rest) = address.split_once("://").unwrap_or(("", address));
    match &settings.tls {
        Some(_) => Ok(format!("https://{rest}")),
        None if scheme.eq_ignore_ascii_case("https") => Err(DialError::TlsNotConfigured {
            address: address.to_owned(),
        }),
        None => Ok(format!("http://{rest}")),
    }
}

async fn tls_config(files: &TlsFiles) -> Result<ClientTlsConfig, DialError> {
    let ca = Certificate::from_pem(read(&files.ca).await?);
    let mut config = ClientTlsConfig::new().ca_certificate(ca);
    if let Some((certificate, key)) = &files.identity {
        let identity = Identity::from_pem(read(certificate).await?, read(key).await?);
        config = config.identity(identity);
    }
    if let Some(name) = &files.domain_name {
        config = config.domain_name(name);
    }
    Ok(config)
}

async fn read(path: &Path) -> Result<Vec<u8>, DialError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| DialError::File {
            path: path.to_owned(),
            source,
        })
}

/// An error and its causes in one line, for a log field and for the admin API.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.ends_with(&part) {
            let _ = write!(text, ": {part}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use dataplane_testkit::certificate::Authority;

    use super::*;

    fn tls() -> TlsFiles {
        TlsFiles {
            ca: PathBuf::from("/nowhere/ca.crt"),
            identity: None,
            domain_name: None,
        }
    }

    #[test]
    fn the_scheme_follows_the_tls_settings() {
        let rows = [
            ("127.0.0.1:18080", false, Some("http://127.0.0.1:18080")),
            ("http://cp:18080", false, Some("http://cp:18080")),
            ("https://cp:18080", false, None),
            ("HTTPS://cp:18080", false, None),
            ("cp:18080", true, Some("https://cp:18080")),
            ("http://cp:18080", true, Some("https://cp:18080")),
            ("https://cp:18080", true, Some("https://cp:18080")),
        ];
        for (address, has_tls, expected) in rows {
            let mut settings = Settings::new(address, "node");
            settings.tls = has_tls.then(tls);
            assert_eq!(
                url(&settings).ok().as_deref(),
                expected,
                "{address}, TLS {has_tls}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let mut settings = Settings::new("127.0.0.1:1", "node");
        settings.tls = Some(tls());
        let error = dial(&settings).await.unwrap_err();
        let text = with_causes(&error);
        assert!(
            text.contains("/nowhere/ca.crt") && text.contains("xdsTls"),
            "{text}"
        );
        assert!(text.contains("No such file"), "{text}");
    }

    #[tokio::test]
    async fn who_listens_and_fails_is_told_from_nobody_and_from_silence() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = Settings::new(listener.local_addr().unwrap().to_string(), "node");
        let hang_up = async { drop(listener.accept().await) };
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.crt");
        std::fs::write(&ca, Authority::new("ca.test").pem()).unwrap();
        settings.tls = Some(TlsFiles { ca, ..tls() });
        let (dialled, ()) = tokio::join!(dial(&settings), hang_up);
        let error = dialled.unwrap_err();
        assert!(!error.is_unanswered(), "{}", with_causes(&error));

        // The kernel takes the connection, and nobody shakes hands.
        settings.connect_timeout = Duration::from_millis(50);
        let error = dial(&settings).await.unwrap_err();
        assert!(error.is_unanswered(), "{}", with_causes(&error));

        drop(listener);
        let error = dial(&settings).await.unwrap_err();
        assert!(error.is_unanswered(), "{}", with_causes(&error));
    }

    #[tokio::test]
    async fn an_address_that_is_no_url_is_named() {
        let error = dial(&Settings::new("not a url", "node")).await.unwrap_err();
        assert!(with_causes(&error).contains("controlPlaneAddr"), "{error}");
    }
}
