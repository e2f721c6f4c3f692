//! Wasm plugins.

use std::time::Duration;

use bytes::Bytes;

use super::ai::plain;
use super::report::{At, Quoted, Report};
use super::value;
use crate::SecretText;
use crate::wasm::{WasmHook, WasmPlugin, WasmSandbox, WasmSource};
use crate::wire;

/// The longest time one call may be allowed, ten minutes.
const EXECUTION_MS_MAX: u64 = 600_000;

pub(super) fn plugin(
    item: wire::WasmPluginConfig,
    at: &At<'_>,
    report: &mut Report,
) -> Option<WasmPlugin> {
    let config = SecretText::new(item.config_json);
    let key = format!("{}/{}", item.namespace, item.name);
    let key = value::reference(&key, &at.field("name"), report);
    let source = if !item.wasm_bytes.is_empty() {
        Some(WasmSource::Inline(Bytes::from(item.wasm_bytes)))
    } else if item.source_url.is_empty() {
        report.refuse(
            &at.field("wasm_bytes"),
            "is empty, give the module or its source_url",
        )
    } else {
        let schemes = &["https", "http", "oci"];
        value::optional_url(item.source_url, schemes, at, "source_url", report).map(WasmSource::Url)
    };
    let sha256 = digest(&item.sha256, at, report);
    let hooks = hooks(&item.hooks, at, report);
    let sandbox = item.sandbox.unwrap_or_default();
    let execution_ms = sandbox.max_execution_time_ms;
    if execution_ms > EXECUTION_MS_MAX {
        let at = at.field("sandbox");
        return report.refuse(
            &at.field("max_execution_time_ms"),
            format_args!("{execution_ms} is more than {EXECUTION_MS_MAX}"),
        );
    }
    Some(WasmPlugin {
        key: key?,
        source: source?,
        sha256: sha256?,
        hooks,
        config,
        sandbox: WasmSandbox {
            memory_bytes_max: (sandbox.max_memory_bytes > 0).then_some(sandbox.max_memory_bytes),
            execution_time_max: (execution_ms > 0).then(|| Duration::from_millis(execution_ms)),
            allow_network: sandbox.allow_network,
            allow_file_system: sandbox.allow_file_system,
        },
    })
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

fn hooks(names: &[String], at: &At<'_>, report: &mut Report) -> Vec<WasmHook> {
    let mut hooks = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let hook = match plain(name).as_str() {
            "onrequest" | "request" | "httprequestheaders" | "httprequestbody" | "grpcrequest" => {
                WasmHook::OnRequest
            }
            "onresponse"
            | "response"
            | "httpresponseheaders"
            | "httpresponsebody"
            | "grpcresponse" => WasmHook::OnResponse,
            "onstreamchunk" | "streamchunk" => WasmHook::OnStreamChunk,
            _ => {
                let shown = Quoted(name);
                report.notice(
                    &at.index("hooks", index),
                    format_args!("{shown} is not known, the plugin is not called there"),
                );
                continue;
            }
        };
        if !hooks.contains(&hook) {
            hooks.push(hook);
        }
    }
    hooks
}
