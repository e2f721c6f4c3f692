//! TLS settings, of listeners and towards backends: versions, trust anchors, names.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::report::{At, Quoted, Report, list, optional};
use super::value;
use crate::cluster::{BackendTls, SubjectAltName};
use crate::listener::{ClientValidation, ClientValidationMode, ListenerTls, TlsVersion};
use crate::wire;

/// The settings of a listener; which of them its protocol needs is the listener's business.
pub(super) fn listener_tls(
    item: wire::TlsConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<ListenerTls> {
    let mut refs = list(
        item.secret_refs,
        at,
        "secret_refs",
        report,
        |text, at, report| value::reference(&text, at, report),
    );
    if let Some(refs) = &mut refs {
        super::report::first_of_each(refs, |name| name);
    }
    let sni_hosts = value::hostnames(&item.sni_hosts, at, "sni_hosts", report);
    let versions = versions(&item.min_version, &item.max_version, at, report);
    let validation = item
        .frontend_validation
        .filter(|validation| *validation != wire::FrontendValidation::default());
    let client_validation = optional(
        validation,
        at,
        "frontend_validation",
        report,
        client_validation,
    );
    let (min_version, max_version) = versions?;
    Some(ListenerTls {
        passthrough: item.passthrough,
        certificate_refs: refs?,
        sni_hosts: sni_hosts?,
        min_version,
        max_version,
        client_validation: client_validation?,
    })
}

fn client_validation(
    item: wire::FrontendValidation,
    at: &At<'_>,
    report: &mut Report,
) -> Option<ClientValidation> {
    let mode = match item.mode.as_str() {
        "" | "AllowValidOnly" | "strict" => ClientValidationMode::AllowValidOnly,
        "AllowInsecureFallback" | "optional" => ClientValidationMode::AllowInsecureFallback,
        "RejectClientCertificate" => ClientValidationMode::RejectAll,
        other => {
            let shown = Quoted(other);
            report.notice(
                &at.field("mode"),
                format_args!("{shown} is not known, only valid certificates are accepted"),
            );
            ClientValidationMode::AllowValidOnly
        }
    };
    let ca_pems = anchors(item.ca_pems, at, report)?;
    if ca_pems.is_empty() && mode != ClientValidationMode::RejectAll {
        return report.refuse(
            &at.field("ca_pems"),
            "is empty, name a trust anchor or use RejectClientCertificate",
        );
    }
    Some(ClientValidation { ca_pems, mode })
}

pub(super) fn backend_tls(
    item: wire::BackendTlsValidation,
    at: &At<'_>,
    report: &mut Report,
) -> Option<BackendTls> {
    let hostname = value::exact_hostname(&item.hostname, &at.field("hostname"), report);
    let ca_pems = anchors(item.ca_pems, at, report);
    let names = list(
        item.subject_alt_names,
        at,
        "subject_alt_names",
        report,
        subject_alt_name,
    );
    let versions = versions(&item.min_version, &item.max_version, at, report);
    let ca_pems = ca_pems?;
    if ca_pems.is_empty() && !item.use_system_ca_certificates {
        return report.refuse(
            &at.field("ca_pems"),
            "is empty, name a trust anchor or use the system's",
        );
    }
    let (min_version, max_version) = versions?;
    Some(BackendTls {
        hostname: hostname?,
        use_system_ca_certificates: item.use_system_ca_certificates,
        ca_pems,
        subject_alt_names: names?,
        min_version,
        max_version,
    })
}

fn subject_alt_name(
    item: wire::BackendTlsSubjectAltName,
    at: &At<'_>,
    report: &mut Report,
) -> Option<SubjectAltName> {
    use wire::BackendTlsSubjectAltNameType as Kind;
    let at_value = at.field("value");
    match Kind::try_from(item.r#type) {
        Ok(Kind::BackendTlsSanHostname | Kind::BackendTlsSanUnspecified) => {
            value::hostname(&item.value, &at_value, report).map(SubjectAltName::Hostname)
        }
        Ok(Kind::BackendTlsSanUri) if item.value.contains(':') => {
            Some(SubjectAltName::Uri(item.value))
        }
        Ok(Kind::BackendTlsSanUri) => {
            let shown = Quoted(&item.value);
            report.refuse(&at_value, format_args!("{shown} is not a URI"))
        }
        // A name that is not understood must not widen what is trusted.
        Err(_) => report.refuse(&at.field("type"), "is not known, use a host name or a URI"),
    }
}

/// True when a PEM text holds certificates, and each of them can be a trust anchor.
pub fn is_authorities(pem: &str) -> bool {
    let mut store = RootCertStore::empty();
    let is_good = CertificateDer::pem_slice_iter(pem.as_bytes())
        .all(|certificate| certificate.is_ok_and(|certificate| store.add(certificate).is_ok()));
    is_good && !store.is_empty()
}

/// PEM texts that each hold at least one usable trust anchor.
fn anchors(pems: Vec<String>, at: &At<'_>, report: &mut Report) -> Option<Vec<String>> {
    list(pems, at, "ca_pems", report, |pem, at, report| {
        if is_authorities(&pem) {
            return Some(pem);
        }
        report.refuse(at, "holds no PEM certificates that can be trust anchors")
    })
}

fn versions(
    min: &str,
    max: &str,
    at: &At<'_>,
    report: &mut Report,
) -> Option<(TlsVersion, TlsVersion)> {
    let lowest = match min {
        "" => Some(TlsVersion::V1_2),
        "1.0" | "1.1" => {
            report.notice(
                &at.field("min_version"),
                "is not spoken any more, 1.2 is used",
            );
            Some(TlsVersion::V1_2)
        }
        text => version(text, &at.field("min_version"), report),
    };
    let highest = match max {
        "" => Some(TlsVersion::V1_3),
        text => version(text, &at.field("max_version"), report),
    };
    let (lowest, highest) = (lowest?, highest?);
    if lowest > highest {
        return report.refuse(&at.field("min_version"), "is above max_version");
    }
    Some((lowest, highest))
}

fn version(text: &str, at: &At<'_>, report: &mut Report) -> Option<TlsVersion> {
    match text {
        "1.2" | "TLS1_2" | "TLSv1.2" => Some(TlsVersion::V1_2),
        "1.3" | "TLS1_3" | "TLSv1.3" => Some(TlsVersion::V1_3),
        other => {
            let shown = Quoted(other);
            report.refuse(
                at,
                format_args!("{shown} is not a TLS version, write 1.2 or 1.3"),
            )
        }
    }
}
