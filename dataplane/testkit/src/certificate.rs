//! Certificates made on the spot: an authority, and servers and clients it vouches for.
//!
//! Keys are ECDSA P-256 and live for one test. Everything is handed out as PEM text, as files in a
//! folder of the caller, or as a secret of a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use ir::Secret;
use ir::secret::{Certificate, SecretText};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// Makes ring the provider of clients that name none; more than once does nothing.
pub fn install_crypto_provider() {
    // Somebody else of this process was faster, with the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A certificate authority of one test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    /// Makes a self-signed authority called `name`.
    pub fn new(name: &str) -> Self {
        Self::until(name, 4096)
    }

    /// As [`Self::new`], but it ended long ago.
    pub fn expired(name: &str) -> Self {
        Self::until(name, 2001)
    }

    fn until(name: &str, end: i32) -> Self {
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(1975, 1, 1);
        params.not_after = date_time_ymd(end, 1, 1);
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).expect("the parameters are sound");
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Its certificate as PEM text.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes its certificate to `<stem>.crt` in `folder`.
    pub fn write(&self, folder: &Path, stem: &str) -> io::Result<PathBuf> {
        let path = folder.join(format!("{stem}.crt"));
        std::fs::write(&path, &self.pem)?;
        Ok(path)
    }

    /// A certificate for servers with these DNS names, wildcards or IP addresses.
    pub fn server(&self, names: &[&str]) -> Identity {
        self.issue(names, "server", ExtendedKeyUsagePurpose::ServerAuth, 2100)
    }

    /// As [`Self::server`], but it ended long ago.
    pub fn expired_server(&self, names: &[&str]) -> Identity {
        self.issue(names, "server", ExtendedKeyUsagePurpose::ServerAuth, 2001)
    }

    /// As [`Self::server`], with these URIs too.
    pub fn server_with_uris(&self, names: &[&str], uris: &[&str]) -> Identity {
        let mut params = params(names, "server", ExtendedKeyUsagePurpose::ServerAuth, 2100);
        let uris = uris.iter().map(|uri| {
            let uri = (*uri).try_into().expect("a URI is ASCII");
            SanType::URI(uri)
        });
        params.subject_alt_names.extend(uris);
        self.sign(&params)
    }

    /// A certificate for a client with this common name.
    pub fn client(&self, name: &str) -> Identity {
        self.issue(&[], name, ExtendedKeyUsagePurpose::ClientAuth, 2100)
    }

    /// As [`Self::client`], with URIs and DNS names besides.
    pub fn client_with(&self, name: &str, uris: &[&str], dns_names: &[&str]) -> Identity {
        let text = |text: &&str| (*text).try_into().expect("test names are ASCII");
        let uris = uris.iter().map(|it| SanType::URI(text(it)));
        let dns_names = dns_names.iter().map(|it| SanType::DnsName(text(it)));
        let mut params = params(&[], name, ExtendedKeyUsagePurpose::ClientAuth, 2100);
        params.subject_alt_names = uris.chain(dns_names).collect();
        self.sign(&params)
    }

    /// As [`Self::client`], but it ended long ago.
    pub fn expired_client(&self, name: &str) -> Identity {
        self.issue(&[], name, ExtendedKeyUsagePurpose::ClientAuth, 2001)
    }

    fn issue(
        &self,
        names: &[&str],
        common_name: &str,
        usage: ExtendedKeyUsagePurpose,
        end: i32,
    ) -> Identity {
        self.sign(&params(names, common_name, usage, end))
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("ring makes P-256 keys");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("the parameters are sound");
        Identity {
            chain_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            leaf: certificate.der().to_vec(),
        }
    }
}

fn params(
    names: &[&str],
    common_name: &str,
    usage: ExtendedKeyUsagePurpose,
    end: i32,
) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names fit into a certificate");
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2000, 1, 1);
    params.not_after = date_time_ymd(end, 1, 1);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    params
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    /// The certificate as PEM text.
    pub chain_pem: String,
    /// The key as PEM text (PKCS#8).
    pub key_pem: String,
    /// The certificate as DER, to be compared with what a peer showed.
    pub leaf: Vec<u8>,
}

impl Identity {
    /// Writes `<stem>.crt` and `<stem>.key` to `folder` and tells their paths.
    pub fn write(&self, folder: &Path, stem: &str) -> io::Result<(PathBuf, PathBuf)> {
        let certificate = folder.join(format!("{stem}.crt"));
        let key = folder.join(format!("{stem}.key"));
        std::fs::write(&certificate, &self.chain_pem)?;
        std::fs::write(&key, &self.key_pem)?;
        Ok((certificate, key))
    }

    /// The secret `key` (`namespace/name`) of a snapshot with this certificate in it.
    pub fn secret(&self, key: &str) -> Secret {
        let material = SecretText::new(self.key_pem.clone());
        let certificate = Certificate::new(self.chain_pem.clone(), material)
            .expect("certificate and key were made together");
        Secret {
            key: key.into(),
            certificate: Some(certificate),
            htpasswd: None,
            oidc_client_secret: None,
            values: std::collections::BTreeMap::new(),
        }
    }
}
