//! Wasm plugins: where the module comes from and when it is called; its settings are a secret.

use ir::WasmPlugin;
use ir::wasm::{
    PullSecret, WasmFailure, WasmHook, WasmImage, WasmNetwork, WasmPhase, WasmSandbox, WasmSource,
};
use serde_json::{Value, json};

use super::super::words;
use super::{some_ms, texts};

pub(super) fn plugin(plugin: &WasmPlugin) -> Value {
    let WasmPlugin {
        key,
        source,
        sha256,
        hooks,
        config,
        root_id,
        vm_id,
        phase,
        priority,
        on_failure,
        sandbox,
    } = plugin;
    let hooks = WasmHook::ALL.into_iter().filter(|it| hooks.contains(*it));
    json!({
        "key": &**key,
        "source": self::source(source),
        "sha256": sha256.map(|it| words::hexadecimal(&it)),
        "hooks": hooks.map(WasmHook::as_str).collect::<Value>(),
        "has_config": !config.is_empty(),
        "root_id": &**root_id,
        "vm_id": &**vm_id,
        "phase": match phase {
            WasmPhase::Authn => "authn",
            WasmPhase::Authz => "authz",
            WasmPhase::Stats => "stats",
            WasmPhase::Unspecified => "unspecified",
        },
        "priority": priority,
        "on_failure": match on_failure {
            WasmFailure::Closed => "closed",
            WasmFailure::Open => "open",
        },
        "sandbox": self::sandbox(sandbox),
    })
}

fn source(source: &WasmSource) -> Value {
    match source {
        WasmSource::Inline(module) => json!({ "inline": { "bytes": module.len() } }),
        WasmSource::Url(url) => json!({ "url": words::url(url) }),
        WasmSource::Image(WasmImage {
            reference,
            pull_secret,
        }) => json!({ "image": {
            "reference": reference,
            "pull_secret_ref": pull_secret.as_ref().map(|it| {
                let PullSecret { secret, key } = it;
                json!({ "secret": &**secret, "key": key })
            }),
        }}),
    }
}

fn sandbox(sandbox: &WasmSandbox) -> Value {
    let WasmSandbox {
        memory_bytes_max,
        execution_time_max,
        fuel_max,
        module_bytes_max,
        network,
    } = sandbox;
    json!({
        "memory_bytes_max": memory_bytes_max,
        "execution_time_max_ms": some_ms(*execution_time_max),
        "fuel_max": fuel_max,
        "module_bytes_max": module_bytes_max,
        "network": match network {
            WasmNetwork::None => json!("none"),
            WasmNetwork::OwnNamespace => json!("own_namespace"),
            WasmNetwork::Clusters(clusters) => json!({ "clusters": texts(clusters) }),
        },
    })
}
