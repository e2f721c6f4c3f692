//! Who may come in over HTTPS: `Gateway.spec.tls.frontend`, per port or for all.
//!
//! [`super::listener`] asks for every HTTPS listener. A listener none of whose authorities can be
//! used is not served at all, because letting everybody in would be worse; with one of several bad
//! it is served with the good ones. What concerns the Gateway as a whole is [`is_insecure`].

use gateway_api::experimental::gateways as api;
use ir::listener::{ClientValidation, ClientValidationMode};

use super::listener::Context;
use super::reference::{From, To};

/// The key of a ConfigMap under which authorities stand (Gateway API `CACertificateRefs`).
const CA_KEY: &str = "ca.crt";

/// What a Gateway asks of the clients of one port.
pub(super) struct Asked {
    /// What the data plane does; absent when no authority can be used.
    pub(super) validation: Option<ClientValidation>,
    /// What is wrong with the references: reason and message.
    pub(super) fault: Option<(&'static str, String)>,
}

/// What the Gateway asks of clients of `port` (as written); nothing when it asks for nothing.
pub(super) fn asked(context: &Context<'_>, port: i32) -> Option<Asked> {
    let wanted = wanted(&context.gateway.value, port)?;
    let mut ca_pems = Vec::new();
    let mut fault: Option<(&'static str, String)> = None;
    for (index, reference) in wanted.references.iter().enumerate() {
        match authorities(reference, context) {
            Ok(pem) => ca_pems.push(pem),
            Err((reason, message)) => {
                let path = format!("{}.caCertificateRefs[{index}]", wanted.path);
                let text = match &fault {
                    Some((_, before)) => format!("{before}; {path}: {message}"),
                    None => format!("{path}: {message}"),
                };
                fault = Some((fault.map_or(reason, |(first, _)| first), text));
            }
        }
    }
    if wanted.references.is_empty() {
        let message = format!("{}.caCertificateRefs: is empty", wanted.path);
        fault = Some(("InvalidCACertificateRef", message));
    }
    let mode = wanted.mode;
    let validation = (!ca_pems.is_empty()).then_some(ClientValidation { ca_pems, mode });
    Some(Asked { validation, fault })
}

/// True when clients without a valid certificate are let in on some port (Gateway API
/// `InsecureFrontendValidationMode`).
pub(super) fn is_insecure(gateway: &api::Gateway) -> bool {
    use api::GatewayTlsFrontendDefaultValidationMode as Default;
    use api::GatewayTlsFrontendPerPortTlsValidationMode as PerPort;
    let frontend = gateway
        .spec
        .tls
        .as_ref()
        .and_then(|tls| tls.frontend.as_ref());
    frontend.is_some_and(|frontend| {
        let default = frontend.default.validation.as_ref();
        let by_default = default.and_then(|validation| validation.mode.as_ref());
        let of_ports = frontend.per_port.iter().flatten();
        let mut of_ports = of_ports.filter_map(|own| own.tls.validation.as_ref()?.mode.as_ref());
        matches!(by_default, Some(Default::AllowInsecureFallback))
            || of_ports.any(|mode| matches!(mode, PerPort::AllowInsecureFallback))
    })
}

/// `validation` as it is written in one of the two places.
struct Wanted<'a> {
    path: String,
    references: Vec<Reference<'a>>,
    mode: ClientValidationMode,
}

struct Reference<'a> {
    group: &'a str,
    kind: &'a str,
    name: &'a str,
    namespace: Option<&'a str>,
}

/// Per port when there is an entry for it, even one that asks for nothing; else the default.
fn wanted(gateway: &api::Gateway, port: i32) -> Option<Wanted<'_>> {
    use api::GatewayTlsFrontendDefaultValidationMode as Default;
    use api::GatewayTlsFrontendPerPortTlsValidationMode as PerPort;
    let mode = |is_insecure: bool| match is_insecure {
        true => ClientValidationMode::AllowInsecureFallback,
        false => ClientValidationMode::AllowValidOnly,
    };
    let frontend = gateway.spec.tls.as_ref()?.frontend.as_ref()?;
    let mut of_ports = frontend.per_port.iter().flatten().enumerate();
    if let Some((index, own)) = of_ports.find(|(_, own)| own.port == port) {
        let validation = own.tls.validation.as_ref()?;
        let references = validation.ca_certificate_refs.iter();
        return Some(Wanted {
            path: format!("spec.tls.frontend.perPort[{index}].tls.validation"),
            references: references
                .map(|it| Reference {
                    group: &it.group,
                    kind: &it.kind,
                    name: &it.name,
                    namespace: it.namespace.as_deref(),
                })
                .collect(),
            mode: mode(validation.mode == Some(PerPort::AllowInsecureFallback)),
        });
    }
    let validation = frontend.default.validation.as_ref()?;
    let references = validation.ca_certificate_refs.iter();
    Some(Wanted {
        path: "spec.tls.frontend.default.validation".to_owned(),
        references: references
            .map(|it| Reference {
                group: &it.group,
                kind: &it.kind,
                name: &it.name,
                namespace: it.namespace.as_deref(),
            })
            .collect(),
        mode: mode(validation.mode == Some(Default::AllowInsecureFallback)),
    })
}

/// The PEM text a reference leads to, or why it leads nowhere.
fn authorities(
    reference: &Reference<'_>,
    context: &Context<'_>,
) -> Result<String, (&'static str, String)> {
    let Reference {
        group, kind, name, ..
    } = *reference;
    if kind != "ConfigMap" || !matches!(group, "" | "core") {
        let message = format!("kind {kind} holds no authorities here, use a ConfigMap");
        return Err(("InvalidCACertificateKind", message));
    }
    let own = context.gateway.namespace();
    let namespace = reference.namespace.unwrap_or(own);
    let key = format!("{namespace}/{name}");
    let to = To {
        group: "",
        kind: "ConfigMap",
        namespace,
        name,
    };
    if !context.grants.allow(From::gateway_api("Gateway", own), to) {
        let message =
            format!("ConfigMap {key} is in another namespace, which needs a ReferenceGrant there");
        return Err(("RefNotPermitted", message));
    }
    let invalid = |message: String| ("InvalidCACertificateRef", message);
    let Some(object) = context.view.config_maps.get(&key) else {
        return Err(invalid(format!("there is no ConfigMap {key}")));
    };
    let pem = object.value.data.as_ref().and_then(|data| data.get(CA_KEY));
    let Some(pem) = pem else {
        let message = format!("ConfigMap {key} ({}) has no {CA_KEY}", object.origin);
        return Err(invalid(message));
    };
    if ir::decode::is_authorities(pem) {
        return Ok(pem.clone());
    }
    let origin = &object.origin;
    Err(invalid(format!(
        "ConfigMap {key} ({origin}): {CA_KEY} holds no PEM certificates that can be trust anchors"
    )))
}
