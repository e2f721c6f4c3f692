//! Key material: certificates are checked against their keys here.
//!
//! Messages name the secret and the field, never a value.

use super::report::{At, Report};
use super::value;
use crate::secret::{Certificate, CertificateError};
use crate::{Secret, SecretText, wire};

pub(super) fn secret(secret: wire::SecretMaterial, report: &mut Report) -> Option<Secret> {
    let wire::SecretMaterial {
        namespace,
        name,
        cert_pem,
        key_pem,
        htpasswd,
        oidc_client_secret,
        values,
    } = secret;
    let key_pem = SecretText::new(key_pem);
    let htpasswd = SecretText::new(htpasswd);
    let oidc_client_secret = SecretText::new(oidc_client_secret);
    let values = values.into_iter();
    let values = values.map(|(key, text)| (key, SecretText::new(text)));
    let values = values.collect();
    let key = value::object_key(&namespace, &name, "Secret", report)?;
    let at = At::object("Secret", &key);
    let certificate = if cert_pem.is_empty() && key_pem.is_empty() {
        None
    } else {
        Some(certificate(cert_pem, key_pem, &at, report)?)
    };
    Some(Secret {
        certificate,
        htpasswd: (!htpasswd.is_empty()).then_some(htpasswd),
        oidc_client_secret: (!oidc_client_secret.is_empty()).then_some(oidc_client_secret),
        values,
        key: key.clone(),
    })
}

fn certificate(
    chain: String,
    key: SecretText,
    at: &At<'_>,
    report: &mut Report,
) -> Option<Certificate> {
    match Certificate::new(chain, key) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            let field = match error {
                CertificateError::NoCertificate | CertificateError::BadCertificate => "cert_pem",
                CertificateError::NoKey
                | CertificateError::UnsupportedKey
                | CertificateError::Mismatch => "key_pem",
            };
            report.refuse(&at.field(field), error)
        }
    }
}
