//! A certificate and its key, ready for handshakes, with the names it is good for.
//!
//! `listener.rs` compiles these from the snapshot's secrets, once per secret, and asks which one
//! suits a server name. Whether a certificate is still valid is not judged: an expired one is
//! served, and its end is reported through [`CertificateFacts`].

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ir::secret::{Certificate, CertificateError};
use rustls::SignatureScheme;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::provider::provider;

/// What an operator wants to know of a served certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// `namespace/name` of its secret.
    pub secret: Arc<str>,
    /// Its DNS names, wildcards with their `*.`, in lower case.
    pub names: Vec<String>,
    /// When it ends.
    pub not_after: SystemTime,
}

/// What is written in a certificate; nothing of its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Its DNS names, wildcards with their `*.`, in lower case.
    pub names: Vec<String>,
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its number, in hexadecimal.
    pub serial: String,
    /// When it begins, in seconds since 1970.
    pub not_before: i64,
    /// When it ends, in seconds since 1970.
    pub not_after: i64,
    /// How many certificates the chain has.
    pub chain_length: usize,
    /// The leaf as it is sent.
    pub leaf: Vec<u8>,
}

impl CertificateDetails {
    /// Reads the leaf.
    pub fn of(certificate: &Certificate) -> Result<Self, CertificateError> {
        let chain = certificate.chain()?;
        let der = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, leaf) =
            X509Certificate::from_der(der).map_err(|_| CertificateError::BadCertificate)?;
        Ok(Self {
            names: dns_names(&leaf)?,
            subject: leaf.subject().to_string(),
            issuer: leaf.issuer().to_string(),
            serial: leaf.raw_serial_as_string(),
            not_before: leaf.validity().not_before.timestamp(),
            not_after: leaf.validity().not_after.timestamp(),
            chain_length: chain.len(),
            leaf: der.to_vec(),
        })
    }
}

/// A certificate with its key and the names in it.
#[derive(Debug)]
pub(crate) struct ServerCertificate {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) names: Vec<String>,
    pub(crate) not_after: SystemTime,
}

/// How well a certificate fits a server name; the smaller the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    /// The name itself is in it.
    Exact,
    /// A wildcard covers the name.
    Wildcard,
    /// It is for other names.
    None,
}

impl ServerCertificate {
    /// Loads the key and reads names and validity of the leaf.
    pub(crate) fn compile(certificate: &Certificate) -> Result<Self, CertificateError> {
        let chain = certificate.chain()?;
        let key = provider()
            .key_provider
            .load_private_key(certificate.private_key()?)
            .map_err(|_| CertificateError::UnsupportedKey)?;
        let leaf = chain.first().ok_or(CertificateError::NoCertificate)?;
        let (_, leaf) =
            X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadCertificate)?;
        let names = dns_names(&leaf)?;
        let seconds = leaf.validity().not_after.timestamp();
        let not_after = SystemTime::UNIX_EPOCH
            + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
            names,
            not_after,
        })
    }

    /// How well it fits `server_name`, which is in lower case.
    ///
    /// A wildcard covers exactly one label (RFC 6125 section 6.4.3).
    pub(crate) fn fit(&self, server_name: &str) -> Fit {
        if self.names.iter().any(|name| name == server_name) {
            return Fit::Exact;
        }
        let parent = server_name.split_once('.').map(|(_, parent)| parent);
        let covers = |name: &String| name.strip_prefix("*.").is_some_and(|s| Some(s) == parent);
        if self.names.iter().any(covers) {
            Fit::Wildcard
        } else {
            Fit::None
        }
    }

    /// True when its key can make one of the signatures the client understands.
    pub(crate) fn can_sign(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

fn dns_names(leaf: &X509Certificate<'_>) -> Result<Vec<String>, CertificateError> {
    let extension = leaf
        .subject_alternative_name()
        .map_err(|_| CertificateError::BadCertificate)?;
    let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
    Ok(names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect())
}
