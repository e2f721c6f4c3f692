//! Whether an endpoint's certificate is good: chain, dates and names (Gateway API `BackendTLSPolicy`).
//!
//! The chain is judged by webpki as for any server. Without `subjectAltNames` the name in the
//! certificate must be the policy's host name; with them any one of them must be there, and the
//! host name is no more than what is sent as SNI.

use std::sync::{Arc, LazyLock};

use ir::cluster::{BackendTls, SubjectAltName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::ClientTlsError;
use crate::anchors::Anchors;
use crate::provider::provider;

/// The trust anchors and names of a policy.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: Anchors,
    names: Vec<SubjectAltName>,
}

impl Trust {
    pub(super) fn compile(policy: &BackendTls) -> Result<Self, ClientTlsError> {
        Ok(Self {
            anchors: anchors(policy)?,
            names: policy.subject_alt_names.clone(),
        })
    }

    fn check_names(
        &self,
        leaf: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<(), Error> {
        if self.names.is_empty() {
            return verify_server_name(parsed, server_name);
        }
        let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| bad())?;
        let extension = leaf.subject_alternative_name().map_err(|_| bad())?;
        let presented = extension.map_or(&[][..], |extension| &extension.value.general_names);
        let is_meant = presented.iter().any(|name| {
            self.names
                .iter()
                .any(|expected| matches_name(expected, name))
        });
        if is_meant {
            Ok(())
        } else {
            Err(CertificateError::NotValidForName.into())
        }
    }
}

fn anchors(policy: &BackendTls) -> Result<Anchors, ClientTlsError> {
    if policy.ca_pems.is_empty() {
        let system = system_anchors();
        return if system.is_empty() {
            Err(ClientTlsError::NoSystemAuthorities)
        } else {
            Ok(system.into())
        };
    }
    let anchors = Anchors::of(&policy.ca_pems);
    if anchors.all().is_empty() {
        return Err(ClientTlsError::NoAuthorities);
    }
    Ok(match policy.use_system_ca_certificates {
        true => anchors.and(&system_anchors()),
        false => anchors,
    })
}

/// The authorities of the operating system, read once per process by the first policy that asks.
fn system_anchors() -> Arc<RootCertStore> {
    static ANCHORS: LazyLock<Arc<RootCertStore>> = LazyLock::new(|| {
        let mut anchors = RootCertStore::empty();
        // What cannot be read is as good as not there; an empty store is reported by the caller.
        let certificates = rustls_native_certs::load_native_certs().unwrap_or_default();
        anchors.add_parsable_certificates(certificates);
        Arc::new(anchors)
    });
    ANCHORS.clone()
}

fn matches_name(expected: &SubjectAltName, presented: &GeneralName<'_>) -> bool {
    match (expected, presented) {
        (SubjectAltName::Hostname(expected), GeneralName::DNSName(presented)) => {
            is_same_host(expected.as_str(), presented)
        }
        (SubjectAltName::Uri(expected), GeneralName::URI(presented)) => expected == presented,
        _ => false,
    }
}

/// A wildcard on either side stands for exactly one label (RFC 9525 section 6.3).
fn is_same_host(expected: &str, presented: &str) -> bool {
    let covers = |pattern: &str, name: &str| {
        let parent = name.split_once('.').filter(|(label, _)| !label.is_empty());
        match (pattern.strip_prefix("*."), parent) {
            (Some(suffix), Some((_, parent))) => suffix.eq_ignore_ascii_case(parent),
            _ => false,
        }
    };
    expected.eq_ignore_ascii_case(presented)
        || covers(expected, presented)
        || covers(presented, expected)
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.anchors.at(now),
            intermediates,
            now,
            provider().signature_verification_algorithms.all,
        )?;
        self.check_names(leaf, &parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label_on_either_side() {
        let table = [
            ("a.example", "a.example", true),
            ("A.example", "a.EXAMPLE", true),
            ("a.example", "*.example", true),
            ("*.example", "a.example", true),
            ("*.example", "*.example", true),
            ("a.b.example", "*.example", false),
            ("*.example", "a.b.example", false),
            ("*.example", "example", false),
            ("example", "*.example", false),
            ("b.example", "a.example", false),
            ("*.example", ".example", false),
        ];
        for (expected, presented, is_same) in table {
            let found = is_same_host(expected, presented);
            assert_eq!(found, is_same, "{expected} against {presented}");
        }
    }
}
