//! The collector that traces and access log lines are sent to, by OTLP.
//!
//! Says where it is and who we are, and makes the exporters of the OpenTelemetry SDK for it. When
//! what is sent, and what happens when it is not taken, is decided by those who send: `trace/export.rs`
//! and `access_log/otlp.rs`, each on a thread of its own.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig,
    WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use thiserror::Error;

/// Where a collector is, and who speaks to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// As in `http://collector:4317`. For HTTP the path of each signal is added to a bare address.
    pub endpoint: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// PEM authorities that may vouch for it; read when it is `https`.
    pub authorities: PathBuf,
    /// How long one batch may take, repeated attempts included.
    pub timeout: Duration,
    /// `service.name`.
    pub service_name: String,
    /// `service.namespace`; empty for none.
    pub service_namespace: String,
    /// `service.instance.id`.
    pub instance: String,
}

/// How OTLP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC, usually at port 4317.
    Grpc,
    /// Protocol buffers over HTTP/1.1, usually at port 4318.
    Http,
}

/// Why nothing can be sent.
#[derive(Debug, Error)]
pub(crate) enum CollectorError {
    /// The authorities cannot be read.
    #[error("cannot read {path:?}: {cause}")]
    Authorities {
        /// Where they should be.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// They are no certificates.
    #[error("{path:?} holds no certificates that can be used: {cause}")]
    Certificates {
        /// Where they are.
        path: PathBuf,
        /// Why.
        cause: reqwest::Error,
    },
    /// The address or the environment holds what cannot be used.
    #[error(transparent)]
    Exporter(#[from] ExporterBuildError),
}

impl Collector {
    /// Who we are.
    pub(crate) fn resource(&self) -> Resource {
        let mut resource = Resource::builder()
            .with_service_name(self.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if !self.service_namespace.is_empty() {
            let namespace = KeyValue::new("service.namespace", self.service_namespace.clone());
            resource = resource.with_attribute(namespace);
        }
        if !self.instance.is_empty() {
            let instance = KeyValue::new("service.instance.id", self.instance.clone());
            resource = resource.with_attribute(instance);
        }
        resource.build()
    }

    /// To be called within a runtime of tokio.
    pub(crate) fn spans(&self) -> Result<SpanExporter, CollectorError> {
        let exporter = SpanExporter::builder();
        Ok(match self.protocol {
            Protocol::Grpc => self.by_grpc(exporter.with_tonic())?.build()?,
            Protocol::Http => self.by_http(exporter.with_http(), "/v1/traces")?.build()?,
        })
    }

    /// The same.
    pub(crate) fn logs(&self) -> Result<LogExporter, CollectorError> {
        let exporter = LogExporter::builder();
        Ok(match self.protocol {
            Protocol::Grpc => self.by_grpc(exporter.with_tonic())?.build()?,
            Protocol::Http => self.by_http(exporter.with_http(), "/v1/logs")?.build()?,
        })
    }

    fn by_grpc<B>(&self, exporter: B) -> Result<B, CollectorError>
    where
        B: WithExportConfig + WithTonicConfig,
    {
        let mut exporter = exporter
            .with_endpoint(&self.endpoint)
            .with_timeout(self.timeout);
        if self.is_tls() {
            let authorities = Certificate::from_pem(self.authorities()?);
            let tls = ClientTlsConfig::new().ca_certificate(authorities);
            exporter = exporter.with_tls_config(tls);
        }
        let policy = RetryPolicy::recommended();
        Ok(WithTonicConfig::with_retry_policy(exporter, policy))
    }

    fn by_http<B>(&self, exporter: B, path: &str) -> Result<B, CollectorError>
    where
        B: WithExportConfig + WithHttpConfig,
    {
        let mut exporter = exporter
            .with_endpoint(self.endpoint_of(path))
            .with_timeout(self.timeout);
        if self.is_tls() {
            let authorities = reqwest::Certificate::from_pem_bundle(&self.authorities()?);
            let client = authorities.and_then(|authorities| {
                reqwest::Client::builder()
                    .timeout(self.timeout)
                    .tls_certs_only(authorities)
                    .build()
            });
            let client = client.map_err(|cause| CollectorError::Certificates {
                path: self.authorities.clone(),
                cause,
            })?;
            exporter = exporter.with_http_client(client);
        }
        let policy = RetryPolicy::recommended();
        Ok(WithHttpConfig::with_retry_policy(exporter, policy))
    }

    fn is_tls(&self) -> bool {
        let scheme = self.endpoint.split_once("://");
        scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
    }

    fn authorities(&self) -> Result<Vec<u8>, CollectorError> {
        std::fs::read(&self.authorities).map_err(|cause| CollectorError::Authorities {
            path: self.authorities.clone(),
            cause,
        })
    }

    /// The address of one signal: that of the collector with `path`, unless it has a path already.
    fn endpoint_of(&self, path: &str) -> String {
        let (scheme, rest) = self
            .endpoint
            .split_once("://")
            .unwrap_or(("http", &self.endpoint));
        match rest.split_once('/') {
            None => format!("{scheme}://{rest}{path}"),
            Some((host, "")) => format!("{scheme}://{host}{path}"),
            Some(_) => format!("{scheme}://{rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_address_gets_the_path_of_the_signal() {
        let cases = [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("c:4318", "http://c:4318/v1/traces"),
            ("http://c/otlp/v1/traces", "http://c/otlp/v1/traces"),
        ];
        for (written, expected) in cases {
            let collector = Collector {
                endpoint: written.to_owned(),
                protocol: Protocol::Http,
                authorities: PathBuf::new(),
                timeout: Duration::from_secs(1),
                service_name: String::new(),
                service_namespace: String::new(),
                instance: String::new(),
            };
            assert_eq!(collector.endpoint_of("/v1/traces"), expected, "{written}");
        }
    }
}
