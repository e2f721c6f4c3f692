//! What a Gateway says about its listeners in annotations, where the Gateway API has no field.
//!
//! [`super::gateway`] reads them once per Gateway; they hold for all its listeners. A value that is
//! not understood is a fault of the whole Gateway: leaving the PROXY protocol off by a slip of the
//! pen would let clients say who they are.

use std::collections::BTreeMap;

use ir::listener::{ListenerSettings, ProxyProtocol};

/// All annotations of ours begin with this.
const PREFIX: &str = "gateway.nantian.dev/";
/// `required` or `off`.
const PROXY_PROTOCOL: &str = "gateway.nantian.dev/proxy-protocol";
/// Address blocks with commas between them.
const PROXY_SOURCES: &str = "gateway.nantian.dev/proxy-protocol-trusted-sources";

type Annotations = BTreeMap<String, String>;

/// What the annotations ask for; the error names the one that cannot be understood.
pub(super) fn settings(annotations: Option<&Annotations>) -> Result<ListenerSettings, String> {
    let value = |name: &str| annotations?.get(name).map(|value| value.trim());
    let sources = value(PROXY_SOURCES).map(|text| {
        let blocks = text
            .split(',')
            .map(str::trim)
            .filter(|block| !block.is_empty());
        let blocks = blocks.map(|block| {
            let wanted = "address blocks with commas between them, as 10.0.0.0/8";
            block
                .parse()
                .map_err(|_| fault(PROXY_SOURCES, block, wanted))
        });
        blocks.collect::<Result<Vec<_>, _>>()
    });
    let sources = sources.transpose()?;
    let proxy_protocol = match (value(PROXY_PROTOCOL), sources) {
        (Some("required"), sources) => Some(ProxyProtocol::Required(sources.unwrap_or_default())),
        (Some("off"), None) => Some(ProxyProtocol::Off),
        (None, None) => None,
        (None | Some("off"), Some(_)) => {
            return Err(format!(
                "annotation {PROXY_SOURCES}: needs {PROXY_PROTOCOL}: required"
            ));
        }
        (Some(other), _) => return Err(fault(PROXY_PROTOCOL, other, "required or off")),
    };
    Ok(ListenerSettings {
        proxy_protocol,
        ..ListenerSettings::default()
    })
}

/// Annotations with our prefix that nobody here knows.
pub(super) fn unknown(annotations: Option<&Annotations>) -> impl Iterator<Item = String> {
    const KNOWN: [&str; 2] = [PROXY_PROTOCOL, PROXY_SOURCES];
    let names = annotations.into_iter().flat_map(BTreeMap::keys);
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str()));
    unknown.map(|name| format!("annotation {name}: is not known for a Gateway"))
}

fn fault(name: &str, value: &str, wanted: &str) -> String {
    format!("annotation {name}: {value:?} is not understood, write {wanted}")
}
