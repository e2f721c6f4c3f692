//! Wasm plugins as they are configured: where the module comes from, when it is called, by whom; and how
//! they are doing: the module that runs, what keeps another away, failures.
//!
//! Settings of plugins may hold credentials and are not shown; neither are those of a URL.

use std::sync::Arc;

use dataplane_config::RuntimeConfig;
use ir::Snapshot;
use ir::wasm::{WasmFailure, WasmHook, WasmPhase, WasmPlugin, WasmSource};
use serde_json::{Value, json};

use super::Context;
use super::answer::Answer;
use super::inventory::list_of;
use super::query::Filter;

/// `/v1/plugins`.
pub(super) fn list(context: &Context, filter: &Filter) -> Answer {
    let config = context.state.store.load_full();
    let all = config.snapshot.wasm_plugins.iter();
    let wanted = all.filter(|plugin| filter.takes_key(&plugin.key));
    let page = filter.page(wanted.cloned(), |it| it.key.to_string());
    list_of(
        context,
        config,
        filter,
        "/v1/plugins",
        page,
        |config, it| Some(view(config, it)),
    )
}

/// `/v1/plugins/{namespace}/{name}`.
pub(super) fn one(context: &Context, names: &[String]) -> Answer {
    let config = context.state.store.load();
    match config.snapshot.wasm_plugins.get(&names.join("/")) {
        Some(plugin) => Answer::json(&view(&config, plugin)),
        None => Answer::not_found("no such plugin; /v1/plugins lists them"),
    }
}

fn view(config: &RuntimeConfig, plugin: &WasmPlugin) -> Value {
    let hooks = WasmHook::ALL.into_iter();
    let hooks = hooks.filter(|hook| plugin.hooks.contains(*hook));
    let phase = match plugin.phase {
        WasmPhase::Authn => "authn",
        WasmPhase::Authz => "authz",
        WasmPhase::Stats => "stats",
        WasmPhase::Unspecified => "unspecified",
    };
    let on_failure = match plugin.on_failure {
        WasmFailure::Closed => "closed",
        WasmFailure::Open => "open",
    };
    let configured = config.plugins.get(&plugin.key);
    let state = configured.map(|it| it.state()).unwrap_or_default();
    json!({
        "key": &*plugin.key,
        "source": source(&plugin.source),
        "hooks": hooks.map(WasmHook::as_str).collect::<Value>(),
        "phase": phase,
        "priority": plugin.priority,
        "on_failure": on_failure,
        "used_by": users(&config.snapshot, &plugin.key),
        "module": {
            "sha256": state.sha256,
            "error": state.error,
        },
        "health": {
            "disabled": state.is_disabled,
            "failures_in_a_row": state.failures,
            "last_error": state.last_error,
        },
    })
}

fn source(source: &WasmSource) -> String {
    match source {
        WasmSource::Inline(module) => format!("inline, {} bytes", module.len()),
        WasmSource::Url(url) => without_credentials(url),
        WasmSource::Image(image) => image.reference.clone(),
    }
}

/// A URL without user, password and query.
fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// Listeners, routes and backends that name it.
fn users(snapshot: &Snapshot, key: &str) -> Value {
    let names = |plugins: &[Arc<str>]| plugins.iter().any(|it| **it == *key);
    let listeners = snapshot.listeners.iter();
    let listeners = listeners.filter(|it| names(&it.plugins));
    let http = snapshot.http_routes.iter();
    let http = http.filter(|it| it.rules.iter().any(|rule| names(&rule.plugins)));
    let grpc = snapshot.grpc_routes.iter();
    let grpc = grpc.filter(|it| it.rules.iter().any(|rule| names(&rule.plugins)));
    let backends = snapshot.clusters.iter();
    let backends = backends.filter(|it| names(&it.plugins));
    let listeners = listeners.map(|it| format!("Listener {}", it.name));
    let http = http.map(|it| format!("HTTPRoute {}", it.key));
    let grpc = grpc.map(|it| format!("GRPCRoute {}", it.key));
    let backends = backends.map(|it| format!("Backend {}", it.key));
    listeners
        .chain(http)
        .chain(grpc)
        .chain(backends)
        .map(Value::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_of_a_url_are_not_shown() {
        for (url, shown) in [
            ("https://h/p.wasm", "https://h/p.wasm"),
            ("https://u:p@h:8/p.wasm?token=x#y", "https://h:8/p.wasm"),
            ("https://u@h", "https://h"),
            ("https://h/a@b", "https://h/a@b"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
