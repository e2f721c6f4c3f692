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

/// What backends are shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// The key of the Secret; nothing when the Gateway names none that can be used.
    pub(super) shown: Option<Arc<str>>,
    /// What is wrong with the one it names.
    pub(super) fault: Option<Fault>,
}

/// What a Gateway wants to be shown.
pub(super) fn asked(context: &Context<'_>, certificates: &mut Certificates) -> Asked {
    let tls = context.gateway.value.spec.tls.as_ref();
    let backend = tls.and_then(|tls| tls.backend.as_ref());
    let Some(written) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return Asked::default();
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
    match found {
        Ok(key) => Asked {
            shown: Some(key),
            fault: None,
        },
        Err(unusable) => {
            let path = "spec.tls.backend.clientCertificateRef";
            Asked {
                shown: unusable.former,
                fault: Some((unusable.reason, format!("{path}: {}", unusable.message))),
            }
        }
    }
}
