//! What more than one field of an AIService must agree on.

use super::{AIServiceSpec, HeaderField, ProviderAuth, ProviderTls};
use crate::rule::{Faults, Rule};

pub(super) const ONE_SECRET: Rule = Rule {
    cel: "!has(self.secretRef) || (!has(self.secret) && !has(self.key))",
    message: "secretRef and secret with key say the same, write one of them",
};
pub(super) const CREDENTIAL: Rule = Rule {
    cel: "has(self.secretRef) || has(self.secret)",
    message: "names no Secret, set secretRef {name, key}",
};
pub(super) const HEADER: Rule = Rule {
    cel: "!has(self.type) || self.type != 'header' || has(self.header)",
    message: "header is needed for type header, add it",
};
pub(super) const REGEX: Rule = Rule {
    cel: "(self.kind == 'regex') == has(self.pattern)",
    message: "pattern goes with kind regex and is needed there",
};
pub(super) const TLS_PLAIN: Rule = Rule {
    cel: "!has(self.tls) || !has(self.endpoint) || self.endpoint.startsWith('https://')",
    message: "tls goes with an endpoint that begins with https://, write that or remove tls",
};
pub(super) const TRUST: Rule = Rule {
    cel: "has(self.hostname) || (has(self.caCertificateRefs) && size(self.caCertificateRefs) > 0)",
    message: "says nothing, set caCertificateRefs or hostname",
};
pub(super) const OWN_AND_CLIENTS: Rule = Rule {
    cel: "!has(self.passClientCredentials) || !self.passClientCredentials || !has(self.auth) || (has(self.providers) && self.providers.exists(p, !has(p.auth)))",
    message: "passClientCredentials is for providers without auth and all have one, remove either",
};
pub(super) const CREDENTIAL_FIELD: Rule = Rule {
    cel: "!(self.name.lowerAscii() in ['authorization', 'proxy-authorization', 'x-api-key', 'api-key'])",
    message: "credentials would be readable for all who may read this object, use auth with a Secret",
};

/// The rules that the types carry.
pub(crate) fn all_rules() -> &'static [Rule] {
    &[
        ONE_SECRET,
        CREDENTIAL,
        HEADER,
        REGEX,
        TLS_PLAIN,
        TRUST,
        OWN_AND_CLIENTS,
        CREDENTIAL_FIELD,
    ]
}

pub(crate) fn rules(spec: &AIServiceSpec, faults: &mut Faults) {
    one_provider(
        "spec",
        spec.auth.as_ref(),
        (spec.endpoint.as_deref(), spec.tls.as_ref()),
        &spec.headers,
        faults,
    );
    for (index, other) in spec.providers.iter().enumerate() {
        one_provider(
            &format!("spec.providers[{index}]"),
            other.auth.as_ref(),
            (other.endpoint.as_deref(), other.tls.as_ref()),
            &other.headers,
            faults,
        );
    }
    let has_own = |auth: &Option<ProviderAuth>| auth.is_some();
    let all_have = has_own(&spec.auth) && spec.providers.iter().all(|other| has_own(&other.auth));
    let passes = spec.pass_client_credentials.unwrap_or_default();
    faults.unless(!passes || !all_have, "spec", OWN_AND_CLIENTS);
    for (index, item) in spec.redaction.iter().enumerate() {
        let holds = (item.kind == "regex") == item.pattern.is_some();
        faults.unless(holds, format!("spec.redaction[{index}]"), REGEX);
    }
}

fn one_provider(
    path: &str,
    auth: Option<&ProviderAuth>,
    (endpoint, tls): (Option<&str>, Option<&ProviderTls>),
    headers: &[HeaderField],
    faults: &mut Faults,
) {
    if let Some(auth) = auth {
        provider_auth(auth, &format!("{path}.auth"), faults);
    }
    let is_plain = endpoint.is_some_and(|endpoint| !endpoint.starts_with("https://"));
    faults.unless(tls.is_none() || !is_plain, path, TLS_PLAIN);
    if let Some(tls) = tls {
        let says = tls.hostname.is_some() || !tls.ca_certificate_refs.is_empty();
        faults.unless(says, format!("{path}.tls"), TRUST);
    }
    for (index, field) in headers.iter().enumerate() {
        let is_credential = matches!(
            &*field.name.to_ascii_lowercase(),
            "authorization" | "proxy-authorization" | "x-api-key" | "api-key"
        );
        let path = format!("{path}.headers[{index}]");
        faults.unless(!is_credential, path, CREDENTIAL_FIELD);
    }
}

fn provider_auth(auth: &ProviderAuth, path: &str, faults: &mut Faults) {
    let is_old = auth.secret.is_some() || auth.key.is_some();
    faults.unless(auth.secret_ref.is_none() || !is_old, path, ONE_SECRET);
    faults.unless(
        auth.secret_ref.is_some() || auth.secret.is_some(),
        path,
        CREDENTIAL,
    );
    let needs_header = auth.kind.as_deref() == Some("header");
    faults.unless(!needs_header || auth.header.is_some(), path, HEADER);
}
