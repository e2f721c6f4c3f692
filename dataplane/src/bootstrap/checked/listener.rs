//! What holds for every listener: of the section `runtime`, and limits of rate.
//!
//! Called by `checked.rs`. It ends up in the configuration, where a listener may say otherwise.

use std::sync::Arc;
use std::time::Duration;

use dataplane_config::{Clients, ListenerDefaults, ProcessLimits};
use ir::listener::{
    EscapedSlashes, ForwardedFields, ProxyProtocol, RequestIds, TlsVersion, TrustedProxies,
};
use ir::policy::{RateLimit, RateLimitKey, RateLimitScope};

use super::{to_u32, to_usize};
use crate::bootstrap::keys as key;
use crate::bootstrap::written::Written;

/// What holds for listeners that say nothing else.
pub(super) fn defaults(written: &mut Written) -> ListenerDefaults {
    let word = |written: &Written, key| written.text(key).unwrap_or_default();
    let version = |word: String| match word.as_str() {
        "1.3" => TlsVersion::V1_3,
        _ => TlsVersion::V1_2,
    };
    let tls_min_version = version(word(written, &key::TLS_MIN));
    let tls_max_version = version(word(written, &key::TLS_MAX));
    if tls_min_version > tls_max_version {
        let message = format!("is above {}", key::TLS_MAX.name);
        written.fault(key::TLS_MIN.name, message);
    }
    let sources = written.networks(&key::PROXY_SOURCES);
    let is_required = written.flag(&key::PROXY_PROTOCOL);
    if !is_required && !sources.is_empty() {
        let message = format!("has no use while {} is false", key::PROXY_PROTOCOL.name);
        written.fault(key::PROXY_SOURCES.name, message);
    }
    let escaped_slashes = match word(written, &key::ESCAPED_SLASHES).as_str() {
        "decode" => EscapedSlashes::Decode,
        "refuse" => EscapedSlashes::Refuse,
        "redirect" => EscapedSlashes::Redirect,
        _ => EscapedSlashes::Keep,
    };
    ListenerDefaults {
        proxy_protocol: match is_required {
            true => ProxyProtocol::Required(sources),
            false => ProxyProtocol::Off,
        },
        escaped_slashes,
        merge_slashes: written.flag(&key::MERGE_SLASHES),
        clients: Arc::new(clients(written)),
        tls_min_version,
        tls_max_version,
    }
}

fn clients(written: &mut Written) -> Clients {
    let fields = written.text(&key::FORWARDED_FIELDS).unwrap_or_default();
    let request_ids = written.text(&key::REQUEST_IDS).unwrap_or_default();
    Clients {
        fields: match fields.as_str() {
            "none" => ForwardedFields::None,
            "forwarded" => ForwardedFields::Forwarded,
            "both" => ForwardedFields::Both,
            _ => ForwardedFields::XForwarded,
        },
        trusted: TrustedProxies {
            hops: u8::try_from(written.number(&key::TRUSTED_HOPS)).unwrap_or(0),
            sources: written.networks(&key::TRUSTED_SOURCES),
        },
        request_ids: match request_ids.as_str() {
            "off" => RequestIds::Off,
            "any" => RequestIds::Any,
            _ => RequestIds::Trusted,
        },
        certificate_field: written.flag(&key::CLIENT_CERTIFICATE),
    }
}

/// Limits of rate in front of everything.
pub(super) fn rate_limits(written: &mut Written) -> ProcessLimits {
    let limit = |rate, burst, scope| {
        let requests = written.limit(rate)?;
        Some(RateLimit {
            name: String::new(),
            scope,
            requests: to_u32(requests),
            period: Duration::from_secs(1),
            burst: written.limit(burst).map_or(0, to_u32),
            key: RateLimitKey::Route,
            queue: false,
            is_dry_run: false,
            is_divided: false,
        })
    };
    ProcessLimits {
        global: limit(
            &key::RATE_GLOBAL,
            &key::RATE_GLOBAL_BURST,
            RateLimitScope::Global,
        ),
        listener: limit(
            &key::RATE_LISTENER,
            &key::RATE_LISTENER_BURST,
            RateLimitScope::Listener,
        ),
        route: limit(
            &key::RATE_ROUTE,
            &key::RATE_ROUTE_BURST,
            RateLimitScope::Route,
        ),
        keys_max: to_usize(written.number(&key::RATE_KEYS)),
    }
}
