//! Keys of the section `runtime`: what holds for every listener that says nothing else.
//!
//! Called by `checked.rs`. It ends up in the configuration, where a listener may say otherwise.

use dataplane_config::ListenerDefaults;
use ir::listener::{ProxyProtocol, TlsVersion};

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
    ListenerDefaults {
        proxy_protocol: match is_required {
            true => ProxyProtocol::Required(sources),
            false => ProxyProtocol::Off,
        },
        tls_min_version,
        tls_max_version,
        ..ListenerDefaults::default()
    }
}
