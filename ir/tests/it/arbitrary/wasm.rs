//! Wasm plugins by chance, and the names that lead to them.

use std::sync::Arc;
use std::time::Duration;

use ir::wasm::{
    MODULE_BYTES_MAX, PullSecret, WasmFailure, WasmHook, WasmHooks, WasmImage, WasmNetwork,
    WasmPhase, WasmPlugin, WasmSandbox, WasmSource,
};
use ir::{Resources, SecretText};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{any_text, key, name, reference};

/// Plugins that every snapshot has, so that their names always lead somewhere.
const NAMED: [&str; 2] = ["plug/a", "plug/b"];

/// What a listener, rule or cluster may name.
pub(super) fn names() -> impl Strategy<Value = Vec<Arc<str>>> {
    subsequence(NAMED.map(Arc::from).to_vec(), 0..=2)
}

pub(super) fn plugins() -> impl Strategy<Value = Resources<WasmPlugin>> {
    let plugin = plugin().boxed();
    let named = (plugin.clone(), plugin.clone());
    (named, vec(plugin, 0..2)).prop_map(|((a, b), others)| {
        let named = [a, b].into_iter().zip(NAMED);
        let named = named.map(|(plugin, key)| WasmPlugin {
            key: key.into(),
            ..plugin
        });
        named.chain(others).collect()
    })
}

pub(super) fn plugin() -> impl Strategy<Value = WasmPlugin> {
    let hooks = subsequence(WasmHook::ALL.to_vec(), 0..=4)
        .prop_map(|hooks| hooks.into_iter().fold(WasmHooks::NONE, WasmHooks::with));
    use WasmPhase::{Authn, Authz, Stats, Unspecified};
    let place = (
        select(vec![Authn, Authz, Stats, Unspecified]),
        -1_000_000..=1_000_000,
        select(vec![WasmFailure::Closed, WasmFailure::Open]),
    );
    let module = (source(), of(any::<[u8; 32]>()));
    let ids = (any_text(), any_text());
    (key(), module, hooks, any_text(), ids, place, sandbox()).prop_map(
        |(key, (source, sha256), hooks, config, ids, place, sandbox)| WasmPlugin {
            key,
            source,
            sha256,
            hooks,
            config: SecretText::new(config),
            root_id: ids.0.into(),
            vm_id: ids.1.into(),
            phase: place.0,
            priority: place.1,
            on_failure: place.2,
            sandbox,
        },
    )
}

fn source() -> impl Strategy<Value = WasmSource> {
    let secret = (
        reference(),
        prop_oneof![name(), Just(PullSecret::DEFAULT_KEY.to_owned())],
    );
    let secret = secret.prop_map(|(secret, key)| PullSecret { secret, key });
    let image = "[a-z]{1,3}\\.example(:5000)?/[a-z]{1,3}(:[a-z]{1,3})?";
    prop_oneof![
        vec(any::<u8>(), 1..9).prop_map(|module| WasmSource::Inline(module.into())),
        "https://[a-z]{1,3}\\.example".prop_map(WasmSource::Url),
        (image, of(secret)).prop_map(|(reference, pull_secret)| {
            WasmSource::Image(WasmImage {
                reference,
                pull_secret,
            })
        }),
    ]
}

fn sandbox() -> impl Strategy<Value = WasmSandbox> {
    let network = prop_oneof![
        Just(WasmNetwork::None),
        Just(WasmNetwork::OwnNamespace),
        vec(reference(), 1..3).prop_map(WasmNetwork::Clusters),
    ];
    (
        of(1..=4u64 << 30),
        of(1..=600_000u64),
        of(1..=u64::MAX),
        // Not less than any module above.
        of(9..=MODULE_BYTES_MAX),
        network,
    )
        .prop_map(
            |(memory, millis, fuel_max, module_bytes_max, network)| WasmSandbox {
                memory_bytes_max: memory,
                execution_time_max: millis.map(Duration::from_millis),
                fuel_max,
                module_bytes_max,
                network,
            },
        )
}
