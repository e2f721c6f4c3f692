//! What a client's verified certificate says of it, as text that can stand in a log and in a field.
//!
//! The accept loop reads it once per connection. All texts are printable ASCII without quotes and
//! backslashes, whatever the certificate holds: names are written by RFC 4514 with everything else
//! escaped by numbers, and alternative names that cannot be written plainly are left out.

use std::fmt::Write as _;

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// Longest text that is taken over.
const TEXT_BYTES_MAX: usize = 1024;
/// Most alternative names of a kind that are taken over.
const NAMES_MAX: usize = 16;

/// A client that proved itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFacts {
    /// Its name, as in `CN=worker,O=Shop` (RFC 4514).
    pub subject: String,
    /// Its URIs, such as SPIFFE ids.
    pub uris: Vec<String>,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: String,
}

impl ClientFacts {
    /// Reads a certificate (DER) that was verified; nothing when it cannot be read.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let extension = certificate.subject_alternative_name().ok().flatten();
        let names = extension.map_or(&[][..], |extension| &extension.value.general_names);
        let plain = |wanted: fn(&GeneralName<'_>) -> Option<String>| {
            let texts = names.iter().filter_map(wanted).filter(|it| is_plain(it));
            texts.take(NAMES_MAX).collect()
        };
        Some(Self {
            subject: subject(certificate.subject()),
            uris: plain(|name| match name {
                GeneralName::URI(text) => Some((*text).to_owned()),
                _ => None,
            }),
            dns_names: plain(|name| match name {
                GeneralName::DNSName(text) => Some(text.to_ascii_lowercase()),
                _ => None,
            }),
            fingerprint: fingerprint(der),
        })
    }

    /// As Envoy writes `X-Forwarded-Client-Cert`: hash, subject, URIs, DNS names.
    pub fn to_field(&self) -> String {
        let mut text = format!("Hash={};Subject=\"{}\"", self.fingerprint, self.subject);
        for uri in &self.uris {
            let _ = write!(text, ";URI={}", quoted(uri));
        }
        for name in &self.dns_names {
            let _ = write!(text, ";DNS={}", quoted(name));
        }
        text
    }
}

/// A text that needs no escaping anywhere.
fn is_plain(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    !text.is_empty() && text.len() <= TEXT_BYTES_MAX && text.bytes().all(is_plain)
}

/// In quotes when it holds what separates.
fn quoted(text: &str) -> String {
    match text.contains([',', ';', '=']) {
        true => format!("\"{text}\""),
        false => text.to_owned(),
    }
}

/// The last part first, as RFC 4514 wants it.
fn subject(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (place, part) in parts.iter().rev().enumerate() {
        for (index, attribute) in part.iter().enumerate() {
            let separator = match (place, index) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            };
            let oid = attribute.attr_type().to_id_string();
            let kind = match oid.as_str() {
                "2.5.4.3" => "CN",
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.9" => "STREET",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                "0.9.2342.19200300.100.1.1" => "UID",
                "0.9.2342.19200300.100.1.25" => "DC",
                other => other,
            };
            let _ = write!(text, "{separator}{kind}=");
            push_escaped(&mut text, attribute.as_slice());
            if text.len() > TEXT_BYTES_MAX {
                text.truncate(TEXT_BYTES_MAX);
                return text;
            }
        }
    }
    text
}

/// Everything but letters, digits and harmless punctuation becomes `\XX`... without the backslash a
/// reader could not tell it from text, so that one is the only one there is.
fn push_escaped(text: &mut String, value: &[u8]) {
    for byte in value {
        let is_plain = byte.is_ascii_alphanumeric() || b" -._@:/()'*!?&".contains(byte);
        if is_plain {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\{byte:02X}");
        }
    }
}

fn fingerprint(der: &[u8]) -> String {
    let SupportedCipherSuite::Tls13(suite) = TLS13_AES_128_GCM_SHA256 else {
        return String::new();
    };
    let hash = suite.common.hash_provider.hash(der);
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use dataplane_testkit::certificate::Authority;

    use super::*;

    #[test]
    fn a_certificate_is_read() {
        let identity = Authority::new("clients").client_with(
            "worker \"7\", Ünit\\x;y=1",
            &["spiffe://shop.example/ns/a", "https://a.example/?x=1,2"],
            &["Worker.shop.example"],
        );
        let facts = ClientFacts::read(&identity.leaf).unwrap();
        assert_eq!(
            facts.subject,
            "CN=worker \\227\\22\\2C \\C3\\9Cnit\\5Cx\\3By\\3D1"
        );
        assert_eq!(facts.uris.len(), 2);
        assert_eq!(facts.dns_names, ["worker.shop.example"]);
        assert_eq!(facts.fingerprint.len(), 64);
        assert_eq!(
            facts.to_field(),
            format!(
                "Hash={};Subject=\"{}\";URI=spiffe://shop.example/ns/a;\
                 URI=\"https://a.example/?x=1,2\";DNS=worker.shop.example",
                facts.fingerprint, facts.subject
            )
        );
        assert_eq!(ClientFacts::read(b"no certificate"), None);
    }

    #[test]
    fn a_subject_is_cut_and_names_are_counted() {
        let long = "x".repeat(5000);
        let names: Vec<_> = (0..40).map(|n| format!("n{n}.example")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let identity = Authority::new("clients").client_with(&long, &[], &names);
        let facts = ClientFacts::read(&identity.leaf).unwrap();
        assert_eq!(facts.subject.len(), TEXT_BYTES_MAX);
        assert_eq!(facts.dns_names.len(), NAMES_MAX);
    }

    #[test]
    fn a_fingerprint_is_the_sha_256_of_the_certificate() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint(b"abc"), expected);
    }
}
