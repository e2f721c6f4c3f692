//! Wasm plugins, and the names of those that a listener, rule or cluster has.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ai::plain;
use super::report::{At, Quoted, Report, list};
use super::value;
use crate::SecretText;
use crate::wasm::{
    MODULE_BYTES_MAX, PLUGINS_PER_PLACE_MAX, PullSecret, WasmFailure, WasmHook, WasmHooks,
    WasmImage, WasmNetwork, WasmPhase, WasmPlugin, WasmSandbox, WasmSource,
};
use crate::wire;

/// The longest time one call may be allowed, ten minutes.
const EXECUTION_MS_MAX: u64 = 600_000;
/// What 32-bit WebAssembly can address.
const MEMORY_BYTES_MAX: u64 = 4 << 30;
/// The longest settings, ids and references.
const CONFIG_BYTES_MAX: usize = 1024 * 1024;
const ID_BYTES_MAX: usize = 256;
const REFERENCE_BYTES_MAX: usize = 1024;
/// How many clusters a plugin may name.
const CLUSTERS_MAX: usize = 64;
/// Priorities stay within this.
const PRIORITY_MAX: u32 = 1_000_000;

/// A plugin of the snapshot's own list.
pub(super) fn listed(item: wire::WasmPluginConfig, report: &mut Report) -> Option<WasmPlugin> {
    let key = value::object_key(&item.namespace, &item.name, "WasmPlugin", report)?;
    let at = At::object("WasmPlugin", &key);
    if item.sandbox.as_ref().is_some_and(|it| it.allow_file_system) {
        let at = at.field("sandbox");
        return report.refuse(
            &at.field("allow_file_system"),
            "is set, and plugins never get files: remove it, and give the plugin what it needs \
             by its settings",
        );
    }
    plugin(item, &at, report)
}

/// The plugin inside a cluster, as the contract has it.
pub(super) fn plugin(
    item: wire::WasmPluginConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<WasmPlugin> {
    let key = format!("{}/{}", item.namespace, item.name);
    let key = value::reference(&key, &at.field("name"), report);
    let wanted = item.sandbox.unwrap_or_default();
    let sandbox = sandbox(wanted, &at.field("sandbox"), report);
    let image = (item.image, item.pull_secret_ref, item.pull_secret_key);
    let source = source(item.wasm_bytes, item.source_url, image, at, report);
    let most = sandbox.as_ref().and_then(|it| it.module_bytes_max);
    let most = most.unwrap_or(MODULE_BYTES_MAX);
    let source = source.and_then(|source| match source {
        WasmSource::Inline(module) if module.len() as u64 > most => {
            let bytes = module.len();
            report.refuse(
                &at.field("wasm_bytes"),
                format_args!("are {bytes} and may be {most}, build a smaller module"),
            )
        }
        source => Some(source),
    });
    if item.config_json.len() > CONFIG_BYTES_MAX {
        let bytes = item.config_json.len();
        let message = format_args!("is {bytes} bytes long and may be {CONFIG_BYTES_MAX}");
        let _: Option<()> = report.refuse(&at.field("config_json"), message);
    }
    let sha256 = digest(&item.sha256, at, report);
    let root_id = id(&item.root_id, at, "root_id", report);
    let vm_id = id(&item.vm_id, at, "vm_id", report);
    let priority = priority(item.priority, at, report);
    Some(WasmPlugin {
        key: key?,
        source: source?,
        sha256: sha256?,
        hooks: hooks(&item.hooks, at, report),
        config: SecretText::new(item.config_json),
        root_id: root_id?,
        vm_id: vm_id?,
        phase: phase(item.phase, at, report),
        priority: priority?,
        on_failure: match item.fail_open {
            true => WasmFailure::Open,
            false => WasmFailure::Closed,
        },
        sandbox: sandbox?,
    })
}

/// The plugins that an object names, each once.
pub(super) fn names(texts: Vec<String>, at: &At<'_>, report: &mut Report) -> Option<Vec<Arc<str>>> {
    if texts.len() > PLUGINS_PER_PLACE_MAX {
        let count = texts.len();
        return report.refuse(
            &at.field("wasm_plugins"),
            format_args!("names {count} plugins and may name {PLUGINS_PER_PLACE_MAX}"),
        );
    }
    let mut seen: Vec<Arc<str>> = Vec::with_capacity(texts.len());
    list(texts, at, "wasm_plugins", report, |text, at, report| {
        let name = value::reference(&text, at, report)?;
        if seen.contains(&name) {
            let shown = Quoted(&text);
            return report.refuse(at, format_args!("{shown} is there twice, name it once"));
        }
        seen.push(name.clone());
        Some(name)
    })
}

type ImageFields = (String, String, String);

fn source(
    module: Vec<u8>,
    url: String,
    (image, pull_secret, pull_key): ImageFields,
    at: &At<'_>,
    report: &mut Report,
) -> Option<WasmSource> {
    if !module.is_empty() {
        return Some(WasmSource::Inline(Bytes::from(module)));
    }
    let (field, reference) = match url.strip_prefix("oci://") {
        Some(reference) => ("source_url", reference.to_owned()),
        None if url.is_empty() => ("image", image),
        None => return self::url(url, at, report).map(WasmSource::Url),
    };
    if reference.is_empty() {
        return report.refuse(
            &at.field("wasm_bytes"),
            "is empty, give the module or its source_url",
        );
    }
    let pull_secret = match pull_secret.is_empty() {
        true => Some(None),
        false => value::reference(&pull_secret, &at.field("pull_secret_ref"), report).map(Some),
    };
    let reference = image_reference(reference, &at.field(field), report);
    Some(WasmSource::Image(WasmImage {
        reference: reference?,
        pull_secret: pull_secret?.map(|secret| PullSecret {
            secret,
            key: value::non_empty(pull_key).unwrap_or_else(|| PullSecret::DEFAULT_KEY.to_owned()),
        }),
    }))
}

/// An absolute URL: https to anywhere, http to this machine alone.
fn url(url: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let url = value::optional_url(url, &["https", "http", "oci"], at, "source_url", report)?;
    match url.strip_prefix("http://") {
        Some(rest) if !is_loopback(rest) => report.refuse(
            &at.field("source_url"),
            "is http to another machine, where anybody on the way can change the module: \
             write https",
        ),
        _ => Some(url),
    }
}

/// True when what stands behind `http://` is this machine.
fn is_loopback(rest: &str) -> bool {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A reference to an image; whether the registry has it is for the data plane to find out.
fn image_reference(reference: String, at: &At<'_>, report: &mut Report) -> Option<String> {
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference.as_str(), None),
    };
    let is_name = |text: &str| {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"._-:/[]".contains(&b);
        !text.is_empty()
            && text.bytes().all(known)
            && !text.contains("//")
            && !text.starts_with(['/', ':'])
            && !text.ends_with(['/', ':'])
    };
    let is_digest = |text: &str| {
        let hex = text.strip_prefix("sha256:");
        hex.is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if reference.len() <= REFERENCE_BYTES_MAX && is_name(name) && digest.is_none_or(is_digest) {
        return Some(reference);
    }
    let shown = Quoted(&reference);
    report.refuse(
        at,
        format_args!(
            "{shown} is not an image, write registry/repository:tag or \
             registry/repository@sha256:digest"
        ),
    )
}

fn sandbox(item: wire::WasmSandboxConfig, at: &At<'_>, report: &mut Report) -> Option<WasmSandbox> {
    if item.allow_file_system {
        let message = "is set, and plugins never get files: it has no effect";
        report.notice(&at.field("allow_file_system"), message);
    }
    let mut bounded = |value: u64, most: u64, name: &'static str| match value {
        0 => Some(None),
        value if value <= most => Some(Some(value)),
        value => report.refuse(&at.field(name), format_args!("{value} is more than {most}")),
    };
    let memory = bounded(item.max_memory_bytes, MEMORY_BYTES_MAX, "max_memory_bytes");
    let millis = item.max_execution_time_ms;
    let millis = bounded(millis, EXECUTION_MS_MAX, "max_execution_time_ms");
    let module = bounded(item.max_module_bytes, MODULE_BYTES_MAX, "max_module_bytes");
    let network = network(item.allow_network, item.allowed_clusters, at, report);
    Some(WasmSandbox {
        memory_bytes_max: memory?,
        execution_time_max: millis?.map(Duration::from_millis),
        fuel_max: (item.max_fuel > 0).then_some(item.max_fuel),
        module_bytes_max: module?,
        network: network?,
    })
}

fn network(
    is_allowed: bool,
    clusters: Vec<String>,
    at: &At<'_>,
    report: &mut Report,
) -> Option<WasmNetwork> {
    if !is_allowed && !clusters.is_empty() {
        return report.refuse(
            &at.field("allowed_clusters"),
            "is set without allow_network, set that too",
        );
    }
    if clusters.len() > CLUSTERS_MAX {
        let count = clusters.len();
        return report.refuse(
            &at.field("allowed_clusters"),
            format_args!("names {count} clusters and may name {CLUSTERS_MAX}"),
        );
    }
    let clusters = list(
        clusters,
        at,
        "allowed_clusters",
        report,
        |key, at, report| value::reference(&key, at, report),
    )?;
    Some(match (is_allowed, clusters.is_empty()) {
        (false, _) => WasmNetwork::None,
        (true, true) => WasmNetwork::OwnNamespace,
        (true, false) => WasmNetwork::Clusters(clusters),
    })
}

fn id(text: &str, at: &At<'_>, name: &'static str, report: &mut Report) -> Option<Arc<str>> {
    if text.len() <= ID_BYTES_MAX {
        return Some(report.share(text));
    }
    let bytes = text.len();
    report.refuse(
        &at.field(name),
        format_args!("is {bytes} bytes long and may be {ID_BYTES_MAX}"),
    )
}

fn priority(priority: i32, at: &At<'_>, report: &mut Report) -> Option<i32> {
    if priority.unsigned_abs() <= PRIORITY_MAX {
        return Some(priority);
    }
    report.refuse(
        &at.field("priority"),
        format_args!("{priority} is not a number from -{PRIORITY_MAX} to {PRIORITY_MAX}"),
    )
}

fn phase(number: i32, at: &At<'_>, report: &mut Report) -> WasmPhase {
    match wire::WasmPhase::try_from(number) {
        Ok(wire::WasmPhase::Unspecified) => WasmPhase::Unspecified,
        Ok(wire::WasmPhase::Authn) => WasmPhase::Authn,
        Ok(wire::WasmPhase::Authz) => WasmPhase::Authz,
        Ok(wire::WasmPhase::Stats) => WasmPhase::Stats,
        Err(_) => {
            report.notice(
                &at.field("phase"),
                format_args!("{number} is not known, the plugin comes behind all others"),
            );
            WasmPhase::Unspecified
        }
    }
}

fn digest(text: &str, at: &At<'_>, report: &mut Report) -> Option<Option<[u8; 32]>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.is_empty() {
        return Some(None);
    }
    let mut digest = [0; 32];
    let is_good = hex.len() == 64
        && digest
            .iter_mut()
            .zip(hex.as_bytes().chunks(2))
            .all(|(byte, pair)| {
                let digits = std::str::from_utf8(pair).ok();
                let digits = digits.filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
                match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
                    Some(value) => {
                        *byte = value;
                        true
                    }
                    None => false,
                }
            });
    if is_good {
        return Some(Some(digest));
    }
    report.refuse(
        &at.field("sha256"),
        "is not a SHA-256 digest, write 64 hexadecimal digits",
    )
}

/// Nothing said means all; the spellings of the contract mean head and body both.
fn hooks(names: &[String], at: &At<'_>, report: &mut Report) -> WasmHooks {
    use WasmHook::{RequestBody, RequestHeaders, ResponseBody, ResponseHeaders};
    if names.is_empty() {
        return WasmHooks::ALL;
    }
    let mut hooks = WasmHooks::NONE;
    for (index, name) in names.iter().enumerate() {
        let meant: &[WasmHook] = match plain(name).as_str() {
            "onrequest" | "request" | "grpcrequest" => &[RequestHeaders, RequestBody],
            "onrequestheaders" | "httprequestheaders" => &[RequestHeaders],
            "onrequestbody" | "httprequestbody" => &[RequestBody],
            "onresponse" | "response" | "grpcresponse" => &[ResponseHeaders, ResponseBody],
            "onresponseheaders" | "httpresponseheaders" => &[ResponseHeaders],
            "onresponsebody" | "httpresponsebody" | "onstreamchunk" | "streamchunk" => {
                &[ResponseBody]
            }
            "none" => &[],
            _ => {
                let shown = Quoted(name);
                report.notice(
                    &at.index("hooks", index),
                    format_args!("{shown} is not known, the plugin is not called there"),
                );
                &[]
            }
        };
        hooks = meant.iter().fold(hooks, |hooks, hook| hooks.with(*hook));
    }
    hooks
}
