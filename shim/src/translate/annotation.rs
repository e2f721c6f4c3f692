//! What a Gateway says about its listeners in annotations, where the Gateway API has no field.
//!
//! [`super::gateway`] reads them once per Gateway; they hold for all its listeners. A value that is
//! not understood is a fault of the whole Gateway: leaving the PROXY protocol off by a slip of the
//! pen would let clients say who they are.

use std::collections::BTreeMap;

use ir::Network;
use ir::listener::{
    EscapedSlashes, ForwardedFields, ListenerSettings, ProxyProtocol, RequestIds, TrustedProxies,
};

/// All annotations of ours begin with this.
const PREFIX: &str = "gateway.nantian.dev/";
/// `required` or `off`.
const PROXY_PROTOCOL: &str = "gateway.nantian.dev/proxy-protocol";
/// Address blocks with commas between them.
const PROXY_SOURCES: &str = "gateway.nantian.dev/proxy-protocol-trusted-sources";
/// `keep`, `decode`, `refuse` or `redirect`.
const ESCAPED_SLASHES: &str = "gateway.nantian.dev/escaped-slashes";
/// `true` or `false`.
const MERGE_SLASHES: &str = "gateway.nantian.dev/merge-slashes";
/// `none`, `x-forwarded`, `forwarded` or `both`.
const FORWARDED_FIELDS: &str = "gateway.nantian.dev/forwarded-fields";
/// A number; 0 for any number of trusted sources, or for nobody.
const TRUSTED_HOPS: &str = "gateway.nantian.dev/forwarded-trusted-hops";
/// Address blocks with commas between them.
const TRUSTED_SOURCES: &str = "gateway.nantian.dev/forwarded-trusted-sources";
/// `true` or `false`.
const CLIENT_CERTIFICATE: &str = "gateway.nantian.dev/forwarded-client-certificate";
/// `off`, `trusted` or `any`.
const REQUEST_ID: &str = "gateway.nantian.dev/request-id";

const KNOWN: [&str; 9] = [
    PROXY_PROTOCOL,
    PROXY_SOURCES,
    ESCAPED_SLASHES,
    MERGE_SLASHES,
    FORWARDED_FIELDS,
    TRUSTED_HOPS,
    TRUSTED_SOURCES,
    CLIENT_CERTIFICATE,
    REQUEST_ID,
];

type Annotations = BTreeMap<String, String>;

/// What the annotations ask for; the error names the one that cannot be understood.
pub(super) fn settings(annotations: Option<&Annotations>) -> Result<ListenerSettings, String> {
    let Some(annotations) = annotations else {
        return Ok(ListenerSettings::default());
    };
    let written = Written(annotations);
    Ok(ListenerSettings {
        public_port: None,
        proxy_protocol: proxy_protocol(&written)?,
        escaped_slashes: written.word(
            ESCAPED_SLASHES,
            &[
                ("keep", EscapedSlashes::Keep),
                ("decode", EscapedSlashes::Decode),
                ("refuse", EscapedSlashes::Refuse),
                ("redirect", EscapedSlashes::Redirect),
            ],
        )?,
        merge_slashes: written.flag(MERGE_SLASHES)?,
        forwarded_fields: written.word(
            FORWARDED_FIELDS,
            &[
                ("none", ForwardedFields::None),
                ("x-forwarded", ForwardedFields::XForwarded),
                ("forwarded", ForwardedFields::Forwarded),
                ("both", ForwardedFields::Both),
            ],
        )?,
        trusted_proxies: trusted_proxies(&written)?,
        request_ids: written.word(
            REQUEST_ID,
            &[
                ("off", RequestIds::Off),
                ("trusted", RequestIds::Trusted),
                ("any", RequestIds::Any),
            ],
        )?,
        client_certificate_field: written.flag(CLIENT_CERTIFICATE)?,
    })
}

fn proxy_protocol(written: &Written<'_>) -> Result<Option<ProxyProtocol>, String> {
    let sources = written.networks(PROXY_SOURCES)?;
    Ok(match (written.text(PROXY_PROTOCOL), sources) {
        (Some("required"), sources) => Some(ProxyProtocol::Required(sources.unwrap_or_default())),
        (Some("off"), None) => Some(ProxyProtocol::Off),
        (None, None) => None,
        (None | Some("off"), Some(_)) => {
            return Err(format!(
                "annotation {PROXY_SOURCES}: needs {PROXY_PROTOCOL}: required"
            ));
        }
        (Some(other), _) => return Err(fault(PROXY_PROTOCOL, other, "required or off")),
    })
}

fn trusted_proxies(written: &Written<'_>) -> Result<Option<TrustedProxies>, String> {
    let max = TrustedProxies::HOPS_MAX;
    let hops = written.text(TRUSTED_HOPS).map(|text| {
        let number = text.parse().ok().filter(|hops| *hops <= max);
        number.ok_or_else(|| fault(TRUSTED_HOPS, text, &format!("a number from 0 to {max}")))
    });
    let (hops, sources) = (hops.transpose()?, written.networks(TRUSTED_SOURCES)?);
    Ok(match (hops, sources) {
        (None, None) => None,
        (hops, sources) => Some(TrustedProxies {
            hops: hops.unwrap_or(0),
            sources: sources.unwrap_or_default(),
        }),
    })
}

/// The annotations of one Gateway.
struct Written<'a>(&'a Annotations);

impl<'a> Written<'a> {
    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.trim())
    }

    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let known = words.iter().find(|(word, _)| *word == text);
        let known = known.map(|(_, value)| Some(*value));
        known.ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let (last, others) = words.split_last().unwrap_or((&"", &[]));
            fault(name, text, &format!("{} or {last}", others.join(", ")))
        })
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        self.word(name, &[("true", true), ("false", false)])
    }

    fn networks(&self, name: &str) -> Result<Option<Vec<Network>>, String> {
        let blocks = self.text(name).map(|text| {
            let blocks = text.split(',').map(str::trim);
            let blocks = blocks.filter(|block| !block.is_empty());
            blocks
                .map(|block| {
                    let wanted = "address blocks with commas between them, as 10.0.0.0/8";
                    block.parse().map_err(|_| fault(name, block, wanted))
                })
                .collect()
        });
        blocks.transpose()
    }
}

/// Annotations with our prefix that nobody here knows.
pub(super) fn unknown(annotations: Option<&Annotations>) -> impl Iterator<Item = String> {
    let names = annotations.into_iter().flat_map(BTreeMap::keys);
    let unknown = names.filter(|name| name.starts_with(PREFIX) && !KNOWN.contains(&name.as_str()));
    unknown.map(|name| format!("annotation {name}: is not known for a Gateway"))
}

fn fault(name: &str, value: &str, wanted: &str) -> String {
    format!("annotation {name}: {value:?} is not understood, write {wanted}")
}
