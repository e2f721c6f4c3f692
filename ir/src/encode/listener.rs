//! Listeners.

use super::policy::security_policy;
use super::texts;
use crate::listener::{
    ClientValidationMode, EscapedSlashes, ForwardedFields, ListenerProtocol, ListenerSettings,
    ListenerTls, ProxyProtocol, RequestIds, TlsVersion,
};
use crate::{Hostname, Listener, wire};

/// One listener, without the routes attached to it.
pub fn listener(listener: &Listener) -> wire::Listener {
    let mut addresses = listener.addresses.iter().map(ToString::to_string);
    let client_certificate = listener.backend_client_certificate.as_ref();
    wire::Listener {
        name: listener.name.as_ref().to_owned(),
        address: addresses.next().unwrap_or_default(),
        addresses: addresses.collect(),
        port: u32::from(listener.port.get()),
        protocol: protocol(listener.protocol).into(),
        hostnames: hostnames(&listener.hostnames),
        attached_routes: Vec::new(),
        tls: listener.tls.as_ref().map(tls),
        metadata: listener.metadata.to_map(),
        backend_tls: client_certificate.map(|reference| wire::BackendTlsConfig {
            client_certificate_ref: reference.as_ref().to_owned(),
        }),
        security_policy: listener.security_policy.as_deref().map(security_policy),
        settings: settings(&listener.settings),
        wasm_plugins: texts(&listener.plugins),
    }
}

/// Nothing when nothing is set.
fn settings(settings: &ListenerSettings) -> Option<wire::ListenerSettings> {
    if *settings == ListenerSettings::default() {
        return None;
    }
    let escaped = settings.escaped_slashes.map(|slashes| match slashes {
        EscapedSlashes::Keep => wire::EscapedSlashes::Keep,
        EscapedSlashes::Refuse => wire::EscapedSlashes::Refuse,
        EscapedSlashes::Redirect => wire::EscapedSlashes::Redirect,
        EscapedSlashes::Decode => wire::EscapedSlashes::Decode,
    });
    let fields = settings.forwarded_fields.map(|fields| match fields {
        ForwardedFields::None => wire::ForwardedFields::None,
        ForwardedFields::XForwarded => wire::ForwardedFields::XForwarded,
        ForwardedFields::Forwarded => wire::ForwardedFields::Forwarded,
        ForwardedFields::Both => wire::ForwardedFields::Both,
    });
    let request_ids = settings.request_ids.map(|ids| match ids {
        RequestIds::Off => wire::RequestIds::Off,
        RequestIds::Trusted => wire::RequestIds::Trusted,
        RequestIds::Any => wire::RequestIds::Any,
    });
    let trusted = settings.trusted_proxies.as_ref();
    let proxy_protocol = settings.proxy_protocol.as_ref();
    Some(wire::ListenerSettings {
        public_port: settings.public_port.map_or(0, |port| u32::from(port.get())),
        proxy_protocol: proxy_protocol.map(|proxy_protocol| match proxy_protocol {
            ProxyProtocol::Off => wire::ProxyProtocolSettings::default(),
            ProxyProtocol::Required(sources) => wire::ProxyProtocolSettings {
                required: true,
                trusted_sources: sources.iter().map(ToString::to_string).collect(),
            },
        }),
        escaped_slashes: escaped.unwrap_or_default().into(),
        merge_slashes: settings.merge_slashes,
        forwarded_fields: fields.unwrap_or_default().into(),
        trusted_proxies: trusted.map(|trusted| wire::TrustedProxies {
            hops: trusted.hops.into(),
            sources: trusted.sources.iter().map(ToString::to_string).collect(),
        }),
        request_ids: request_ids.unwrap_or_default().into(),
        client_certificate_field: settings.client_certificate_field,
    })
}

fn protocol(protocol: ListenerProtocol) -> wire::ListenerProtocol {
    match protocol {
        ListenerProtocol::Http => wire::ListenerProtocol::ListenerHttp,
        ListenerProtocol::Https => wire::ListenerProtocol::ListenerHttps,
        ListenerProtocol::Grpc => wire::ListenerProtocol::ListenerGrpc,
        ListenerProtocol::Http3 => wire::ListenerProtocol::ListenerHttp3,
        ListenerProtocol::Tcp => wire::ListenerProtocol::ListenerTcp,
        ListenerProtocol::Udp => wire::ListenerProtocol::ListenerUdp,
        ListenerProtocol::TlsPassthrough => wire::ListenerProtocol::ListenerTlsPassthrough,
        ListenerProtocol::Tls => wire::ListenerProtocol::ListenerTls,
    }
}

fn tls(tls: &ListenerTls) -> wire::TlsConfig {
    let validation = tls.client_validation.as_ref();
    wire::TlsConfig {
        enabled: true,
        passthrough: tls.passthrough,
        secret_refs: texts(&tls.certificate_refs),
        sni_hosts: hostnames(&tls.sni_hosts),
        min_version: tls_version(tls.min_version),
        max_version: tls_version(tls.max_version),
        frontend_validation: validation.map(|validation| wire::FrontendValidation {
            ca_pems: validation.ca_pems.clone(),
            mode: match validation.mode {
                ClientValidationMode::AllowValidOnly => "AllowValidOnly",
                ClientValidationMode::AllowInsecureFallback => "AllowInsecureFallback",
                ClientValidationMode::RejectAll => "RejectClientCertificate",
            }
            .to_owned(),
        }),
    }
}

pub(super) fn tls_version(version: TlsVersion) -> String {
    match version {
        TlsVersion::V1_2 => "1.2",
        TlsVersion::V1_3 => "1.3",
    }
    .to_owned()
}

pub(super) fn hostnames(names: &[Hostname]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}
