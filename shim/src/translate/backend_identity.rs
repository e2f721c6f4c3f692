//! Who a Gateway says it is to backends: `Gateway.spec.tls.backend.clientCertificateRef`.
//!
//! [`super::gateway`] asks once per Gateway; the certificate is shown for whatever came in at its
//! listeners. One that cannot be used keeps nothing from serving (Gateway API says so): none is
//! shown, and endpoints that ask for one refuse by themselves.

use std::sync::Arc;

use super::certificate::Certificates;
use super::listener::{Context, SecretReference, certificate};

/// Why the certificate cannot be used: reason and message.
pub(super) type Fault = (&'static str, String);

/// The key of the Secret whose certificate is shown; nothing when the Gateway names none.
pub(super) fn asked(
    context: &Context<'_>,
    certificates: &mut Certificates,
) -> Result<Option<Arc<str>>, Fault> {
    let tls = context.gateway.value.spec.tls.as_ref();
    let backend = tls.and_then(|tls| tls.backend.as_ref());
    let Some(written) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return Ok(None);
    };
    let reference = SecretReference {
        group: written.group.as_deref(),
        kind: written.kind.as_deref(),
        namespace: written.namespace.as_deref(),
        name: &written.name,
    };
    let found = certificate(
        reference,
        "InvalidClientCertificateRef",
        context,
        certificates,
    );
    let path = "spec.tls.backend.clientCertificateRef";
    found
        .map(Some)
        .map_err(|(reason, message)| (reason, format!("{path}: {message}")))
}
