//! Listeners.

use std::net::{IpAddr, Ipv4Addr};

use super::report::{At, Quoted, Report, list};
use super::{security, tls, value, wasm};
use crate::listener::{
    EscapedSlashes, ForwardedFields, ListenerProtocol, ListenerSettings, ListenerTls,
    ProxyProtocol, RequestIds, TlsVersion, TrustedProxies,
};
use crate::policy::RateLimitScope;
use crate::{Listener, Network, wire};

/// One listener; nothing, with a notice, when its protocol is of another generation.
pub(super) fn listener(listener: wire::Listener, report: &mut Report) -> Option<Listener> {
    use wire::ListenerProtocol as Wire;
    let protocol = match Wire::try_from(listener.protocol) {
        Ok(Wire::ListenerHttp) => ListenerProtocol::Http,
        Ok(Wire::ListenerHttps) => ListenerProtocol::Https,
        Ok(Wire::ListenerGrpc) => ListenerProtocol::Grpc,
        Ok(Wire::ListenerHttp3) => ListenerProtocol::Http3,
        Ok(Wire::ListenerTcp) => ListenerProtocol::Tcp,
        Ok(Wire::ListenerUdp) => ListenerProtocol::Udp,
        Ok(Wire::ListenerTlsPassthrough) => ListenerProtocol::TlsPassthrough,
        Ok(Wire::ListenerTls) => ListenerProtocol::Tls,
        Ok(Wire::ListenerUnspecified) | Err(_) => {
            let number = listener.protocol;
            report.notice(
                &At::object("Listener", &listener.name).field("protocol"),
                format_args!("{number} is not known to this data plane, the listener is left out"),
            );
            return None;
        }
    };
    known_listener(listener, protocol, report)
}

fn known_listener(
    listener: wire::Listener,
    protocol: ListenerProtocol,
    report: &mut Report,
) -> Option<Listener> {
    let name = report.share(&listener.name);
    let at = At::object("Listener", &name);
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_graphic()) {
        return report.refuse(&at.field("name"), "is not a name");
    }
    let addresses = addresses(&listener.address, &listener.addresses, &at, report);
    let port = value::port(listener.port, &at.field("port"), report);
    let hostnames = value::hostnames(&listener.hostnames, &at, "hostnames", report);
    let tls = listener_tls(listener.tls, protocol, &at, report);
    let client_ref = listener
        .backend_tls
        .unwrap_or_default()
        .client_certificate_ref;
    let client_certificate = match client_ref.as_str() {
        "" => Some(None),
        text => {
            let at = at.field("backend_tls");
            value::reference(text, &at.field("client_certificate_ref"), report).map(Some)
        }
    };
    let namespace = name.split('/').next().unwrap_or_default();
    let security = security::policy(
        listener.security_policy,
        namespace,
        RateLimitScope::Listener,
        &at,
        report,
    );
    let settings = settings(listener.settings.unwrap_or_default(), &at, report);
    let plugins = wasm::names(listener.wasm_plugins, &at, report);
    let (protocol, tls) = tls?;
    Some(Listener {
        addresses: addresses?,
        port: port?,
        protocol,
        hostnames: hostnames?,
        tls,
        metadata: listener.metadata.into(),
        backend_client_certificate: client_certificate?,
        security_policy: security?,
        settings: settings?,
        plugins: plugins?,
        name: name.clone(),
    })
}

/// The first address and the further ones, each once; none at all means every IPv4 address.
fn addresses(
    first: &str,
    further: &[String],
    at: &At<'_>,
    report: &mut Report,
) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::with_capacity(1 + further.len());
    let mut is_good = true;
    let first = (!first.is_empty()).then(|| (at.field("address"), first));
    let further = further.iter().enumerate();
    let further = further.map(|(index, text)| (at.index("addresses", index), text.as_str()));
    for (at, text) in first.into_iter().chain(further) {
        match text.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => {
                is_good = false;
                let shown = Quoted(text);
                let _: Option<()> =
                    report.refuse(&at, format_args!("{shown} is not an IP address"));
            }
        }
    }
    if addresses.is_empty() {
        addresses.push(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    let mut seen = std::collections::HashSet::with_capacity(addresses.len());
    addresses.retain(|address| seen.insert(*address));
    is_good.then_some(addresses)
}

fn settings(
    item: wire::ListenerSettings,
    at: &At<'_>,
    report: &mut Report,
) -> Option<ListenerSettings> {
    use wire::EscapedSlashes as Wire;
    let at = at.field("settings");
    let public_port = match item.public_port {
        0 => Some(None),
        port => value::port(port, &at.field("public_port"), report).map(Some),
    };
    let proxy_protocol = match item.proxy_protocol {
        None => Some(None),
        Some(item) => proxy_protocol(item, &at.field("proxy_protocol"), report).map(Some),
    };
    let escaped_slashes = match Wire::try_from(item.escaped_slashes) {
        Ok(Wire::Unspecified) => None,
        Ok(Wire::Keep) => Some(EscapedSlashes::Keep),
        Ok(Wire::Refuse) => Some(EscapedSlashes::Refuse),
        Ok(Wire::Redirect) => Some(EscapedSlashes::Redirect),
        Ok(Wire::Decode) => Some(EscapedSlashes::Decode),
        Err(_) => {
            let place = at.field("escaped_slashes");
            report.notice(&place, "is not known, such paths are refused");
            Some(EscapedSlashes::Refuse)
        }
    };
    let trusted_proxies = match item.trusted_proxies {
        None => Some(None),
        Some(item) => trusted_proxies(item, &at.field("trusted_proxies"), report).map(Some),
    };
    Some(ListenerSettings {
        public_port: public_port?,
        proxy_protocol: proxy_protocol?,
        escaped_slashes,
        merge_slashes: item.merge_slashes,
        forwarded_fields: forwarded_fields(item.forwarded_fields, &at, report),
        trusted_proxies: trusted_proxies?,
        request_ids: request_ids(item.request_ids, &at, report),
        client_certificate_field: item.client_certificate_field,
    })
}

fn forwarded_fields(number: i32, at: &At<'_>, report: &mut Report) -> Option<ForwardedFields> {
    use wire::ForwardedFields as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified) => None,
        Ok(Wire::None) => Some(ForwardedFields::None),
        Ok(Wire::XForwarded) => Some(ForwardedFields::XForwarded),
        Ok(Wire::Forwarded) => Some(ForwardedFields::Forwarded),
        Ok(Wire::Both) => Some(ForwardedFields::Both),
        Err(_) => {
            let place = at.field("forwarded_fields");
            report.notice(&place, "is not known, the data plane's own setting holds");
            None
        }
    }
}

fn request_ids(number: i32, at: &At<'_>, report: &mut Report) -> Option<RequestIds> {
    use wire::RequestIds as Wire;
    match Wire::try_from(number) {
        Ok(Wire::Unspecified) => None,
        Ok(Wire::Off) => Some(RequestIds::Off),
        Ok(Wire::Trusted) => Some(RequestIds::Trusted),
        Ok(Wire::Any) => Some(RequestIds::Any),
        Err(_) => {
            let place = at.field("request_ids");
            report.notice(&place, "is not known, the data plane's own setting holds");
            None
        }
    }
}

fn trusted_proxies(
    item: wire::TrustedProxies,
    at: &At<'_>,
    report: &mut Report,
) -> Option<TrustedProxies> {
    let hops = u8::try_from(item.hops).ok();
    let hops = hops.filter(|hops| *hops <= TrustedProxies::HOPS_MAX);
    if hops.is_none() {
        let max = TrustedProxies::HOPS_MAX;
        let message = format_args!("{} is more than {max}", item.hops);
        let _: Option<()> = report.refuse(&at.field("hops"), message);
    }
    let sources = networks(item.sources, at, "sources", report)?;
    Some(TrustedProxies {
        hops: hops?,
        sources,
    })
}

fn networks(
    texts: Vec<String>,
    at: &At<'_>,
    field: &'static str,
    report: &mut Report,
) -> Option<Vec<Network>> {
    list(texts, at, field, report, |text, at, report| {
        match text.parse() {
            Ok(network) => Some(network),
            Err(error) => report.refuse(at, format_args!("{} {error}", Quoted(&text))),
        }
    })
}

fn proxy_protocol(
    item: wire::ProxyProtocolSettings,
    at: &At<'_>,
    report: &mut Report,
) -> Option<ProxyProtocol> {
    let sources = networks(item.trusted_sources, at, "trusted_sources", report)?;
    Some(match item.required {
        true => ProxyProtocol::Required(sources),
        false => ProxyProtocol::Off,
    })
}

/// The settings the protocol needs, and the protocol they make it: what passes through undecrypted
/// is routed by SNI, whatever it is called.
fn listener_tls(
    item: Option<wire::TlsConfig>,
    protocol: ListenerProtocol,
    at: &At<'_>,
    report: &mut Report,
) -> Option<(ListenerProtocol, Option<ListenerTls>)> {
    use ListenerProtocol::{Grpc, Http, Http3, Https, Tcp, Tls, TlsPassthrough, Udp};
    let at = at.field("tls");
    let is_enabled = item.as_ref().is_some_and(|item| item.enabled);
    match protocol {
        Http | Tcp | Udp if is_enabled => {
            report.refuse(&at, "is set for a protocol without TLS, use HTTPS or TLS")
        }
        Http | Tcp | Udp => Some((protocol, None)),
        Grpc if !is_enabled => Some((protocol, None)),
        TlsPassthrough => {
            let mut tls = tls::listener_tls(item.unwrap_or_default(), &at, report)?;
            tls.passthrough = true;
            Some((protocol, Some(tls)))
        }
        Https | Tls | Grpc | Http3 => {
            let tls = tls::listener_tls(item.unwrap_or_default(), &at, report)?;
            match tls {
                tls if tls.passthrough && protocol != Http3 => Some((TlsPassthrough, Some(tls))),
                tls if tls.certificate_refs.is_empty() => report.refuse(
                    &at.field("secret_refs"),
                    "is empty, name the certificate to show",
                ),
                tls if protocol == Http3 && tls.max_version < TlsVersion::V1_3 => {
                    report.refuse(&at.field("max_version"), "is below 1.3, which QUIC needs")
                }
                tls => Some((protocol, Some(tls))),
            }
        }
    }
}
