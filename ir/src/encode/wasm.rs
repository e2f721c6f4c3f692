//! Wasm plugins.

use super::{namespace_and_name, texts};
use crate::wasm::{
    PullSecret, WasmFailure, WasmHook, WasmHooks, WasmNetwork, WasmPhase, WasmPlugin, WasmSandbox,
    WasmSource,
};
use crate::wire;

/// One plugin, with its module when it is the snapshot's to carry.
pub fn wasm_plugin(plugin: &WasmPlugin) -> wire::WasmPluginConfig {
    let (namespace, name) = namespace_and_name(&plugin.key);
    let digest = plugin.sha256.unwrap_or_default();
    let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let phase = match plugin.phase {
        WasmPhase::Unspecified => wire::WasmPhase::Unspecified,
        WasmPhase::Authn => wire::WasmPhase::Authn,
        WasmPhase::Authz => wire::WasmPhase::Authz,
        WasmPhase::Stats => wire::WasmPhase::Stats,
    };
    let mut message = wire::WasmPluginConfig {
        name,
        namespace,
        sha256: plugin.sha256.map_or_else(String::new, |_| digest),
        hooks: hooks(plugin.hooks),
        config_json: plugin.config.expose().to_owned(),
        sandbox: sandbox(&plugin.sandbox),
        root_id: plugin.root_id.as_ref().to_owned(),
        vm_id: plugin.vm_id.as_ref().to_owned(),
        phase: phase.into(),
        priority: plugin.priority,
        fail_open: plugin.on_failure == WasmFailure::Open,
        ..wire::WasmPluginConfig::default()
    };
    match &plugin.source {
        WasmSource::Inline(module) => message.wasm_bytes = module.to_vec(),
        WasmSource::Url(url) => message.source_url.clone_from(url),
        WasmSource::Image(image) => {
            message.image.clone_from(&image.reference);
            if let Some(PullSecret { secret, key }) = &image.pull_secret {
                message.pull_secret_ref = secret.as_ref().to_owned();
                if key != PullSecret::DEFAULT_KEY {
                    message.pull_secret_key.clone_from(key);
                }
            }
        }
    }
    message
}

/// In the words of the contract where it has some; nothing for all of them.
fn hooks(hooks: WasmHooks) -> Vec<String> {
    use WasmHook::{RequestBody, RequestHeaders, ResponseBody, ResponseHeaders};
    let name = |head, body, names: [&'static str; 3]| {
        let [both, only_head, only_body] = names;
        match (hooks.contains(head), hooks.contains(body)) {
            (true, true) => Some(both),
            (true, false) => Some(only_head),
            (false, true) => Some(only_body),
            (false, false) => None,
        }
    };
    let request = ["onRequest", "onRequestHeaders", "onRequestBody"];
    let response = ["onResponse", "onResponseHeaders", "onResponseBody"];
    let names = match hooks {
        WasmHooks::ALL => [None, None],
        WasmHooks::NONE => [Some("none"), None],
        _ => [
            name(RequestHeaders, RequestBody, request),
            name(ResponseHeaders, ResponseBody, response),
        ],
    };
    names.into_iter().flatten().map(str::to_owned).collect()
}

fn sandbox(sandbox: &WasmSandbox) -> Option<wire::WasmSandboxConfig> {
    if *sandbox == WasmSandbox::default() {
        return None;
    }
    let millis = sandbox.execution_time_max.unwrap_or_default().as_millis();
    Some(wire::WasmSandboxConfig {
        max_memory_bytes: sandbox.memory_bytes_max.unwrap_or(0),
        max_execution_time_ms: u64::try_from(millis).unwrap_or(u64::MAX),
        allow_network: sandbox.network != WasmNetwork::None,
        allow_file_system: false,
        max_fuel: sandbox.fuel_max.unwrap_or(0),
        allowed_clusters: match &sandbox.network {
            WasmNetwork::None | WasmNetwork::OwnNamespace => Vec::new(),
            WasmNetwork::Clusters(clusters) => texts(clusters),
        },
        max_module_bytes: sandbox.module_bytes_max.unwrap_or(0),
    })
}
