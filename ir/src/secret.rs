//! Key material; nothing here can be printed.
//!
//! Secrets travel inside the snapshot (`SecretMaterial`) and live in memory only. [`SecretText`]
//! shows `***` in `Debug`, has no `Display` and no `Serialize`, and wipes itself when dropped. A
//! certificate and its key are checked here, because both the shim and the data plane must agree
//! on which secrets are good; turning them into rustls keys is `dataplane/tls`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::resource::Resource;

/// Text that must not be seen: `Debug` shows `***`, memory is wiped on drop.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes the text over.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for whoever must use it; never for printing.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// One Secret of the cluster, as far as the data plane needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// A certificate with its key, when the secret holds one.
    pub certificate: Option<Certificate>,
    /// htpasswd lines (bcrypt) for basic authentication.
    pub htpasswd: Option<SecretText>,
    /// Client secret for OpenID Connect.
    pub oidc_client_secret: Option<SecretText>,
    /// Credentials towards AI providers, by key inside the Secret.
    pub values: BTreeMap<String, SecretText>,
}

impl Resource for Secret {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}

/// A certificate chain and the key that belongs to it; the pair is known to match.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificate {
    chain_pem: String,
    key_pem: SecretText,
}

/// Why a certificate and key are not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// `tls.crt` is not PEM or holds no certificate.
    #[error("tls.crt holds no PEM certificate")]
    NoCertificate,
    /// `tls.key` is not PEM or holds no private key.
    #[error("tls.key holds no PEM private key (PKCS#8, PKCS#1 or SEC1)")]
    NoKey,
    /// A key of a kind or size that TLS cannot use here.
    #[error("tls.key is of a kind that is not supported, use ECDSA P-256 or P-384, RSA or Ed25519")]
    UnsupportedKey,
    /// The certificate cannot be read as X.509.
    #[error("tls.crt is not a valid X.509 certificate")]
    BadCertificate,
    /// Certificate and key are of different pairs.
    #[error("tls.crt and tls.key do not belong together")]
    Mismatch,
}

impl Certificate {
    /// Checks that the chain parses, the key is usable, and both belong together.
    ///
    /// Validity dates are not checked: an expired certificate is served and reported.
    pub fn new(chain_pem: String, key_pem: SecretText) -> Result<Self, CertificateError> {
        let certificate = Self { chain_pem, key_pem };
        let chain = certificate.chain()?;
        let signer = rustls::crypto::ring::sign::any_supported_type(&certificate.private_key()?)
            .map_err(|_| CertificateError::UnsupportedKey)?;
        match rustls::sign::CertifiedKey::new(chain, signer).keys_match() {
            Ok(()) => Ok(certificate),
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(CertificateError::Mismatch)
            }
            Err(_) => Err(CertificateError::BadCertificate),
        }
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(self.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CertificateError::NoCertificate)?;
        if chain.is_empty() {
            return Err(CertificateError::NoCertificate);
        }
        Ok(chain)
    }

    /// The private key of the leaf.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, CertificateError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes())
            .map_err(|_| CertificateError::NoKey)
    }

    /// The chain as PEM text.
    pub fn chain_pem(&self) -> &str {
        &self.chain_pem
    }

    /// The key as PEM text.
    pub fn key_pem(&self) -> &SecretText {
        &self.key_pem
    }
}
