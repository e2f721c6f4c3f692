//! Plugins of a snapshot: prepared before the configuration is compiled, looked up by name by requests.
//!
//! [`PluginHost::prepare`] is step 4a of an update: modules are brought in and compiled there, off every
//! worker, and a plugin without a module keeps nobody else waiting: its requests meet its failure policy.
//! What was prepared is found again by [`PluginHost::of`] when the configuration is compiled. A plugin that
//! an update leaves alone stays the very same, with its instances. One whose next module cannot be
//! fetched keeps the last good one until that can be had.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use ir::wasm::{WasmFailure, WasmHook, WasmNetwork, WasmPhase, WasmSource};
use ir::{Cluster, Snapshot, WasmPlugin};
use tokio::task::JoinSet;

use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::fetch::{self, Fetcher, Source};
use dataplane_wasm::settings::{Hooks, Limits, Network, OnFailure, Settings};
use dataplane_wasm::{Module, Plugin, Plugins};

/// The least and the most time that one call may be given.
const CALL_TIME: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(1)..=Duration::from_secs(10);

/// A plugin as it is configured, ready to be run.
#[derive(Debug)]
pub struct Configured {
    /// What it was made from.
    pub source: Arc<WasmPlugin>,
    /// What is run.
    pub plugin: Arc<Plugin>,
    /// Its module is the one before, because the wanted one could not be fetched.
    is_behind: bool,
}

/// What came from elsewhere, by the names of plugins.
type FetchedModules = BTreeMap<Arc<str>, Result<Bytes, String>>;

/// Plugins by their keys.
pub type PluginSet = BTreeMap<Arc<str>, Arc<Configured>>;

/// Prepares plugins, and keeps those that were prepared last.
#[derive(Default)]
pub struct PluginHost {
    plugins: Arc<Plugins>,
    fetcher: Arc<Fetcher>,
    ready: Mutex<PluginSet>,
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Modules from elsewhere are brought by `fetcher`.
    pub fn fetching_by(fetcher: Fetcher) -> Self {
        Self {
            fetcher: Arc::new(fetcher),
            ..Self::default()
        }
    }

    /// Brings in and compiles what `snapshot` names for the first time.
    pub async fn prepare(&self, snapshot: &Snapshot, metrics: &Metrics) {
        let before = self.taken();
        if before.is_empty() && named(snapshot).next().is_none() {
            return;
        }
        // What has no module, or not the wanted one, is tried again with every update.
        let is_known = |it: &&Arc<Configured>, source: &WasmPlugin| {
            *it.source == *source && it.plugin.module().is_ok() && !it.is_behind
        };
        let elsewhere = named(snapshot).filter(|(key, source)| {
            let known = before.get(key);
            known.filter(|it| is_known(it, source)).is_none() && held(known, source).is_none()
        });
        let mut fetched = self.fetched(elsewhere, snapshot).await;
        let mut ready = PluginSet::new();
        for (key, source) in named(snapshot) {
            let known = before.get(&key);
            let configured = match known.filter(|it| is_known(it, &source)) {
                Some(known) => known.clone(),
                None => {
                    let fetched = fetched.remove(&key);
                    Arc::new(self.configure(source, known, fetched, metrics).await)
                }
            };
            ready.insert(key, configured);
        }
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    /// The plugins of `snapshot`; one that was not prepared has no module.
    pub(crate) fn of(&self, snapshot: &Snapshot, metrics: &Metrics) -> Arc<PluginSet> {
        let ready = self.taken();
        let mut set = PluginSet::new();
        for (key, source) in named(snapshot) {
            let configured = match ready.get(&key).filter(|it| it.source == source) {
                Some(configured) => configured.clone(),
                None => Arc::new(self.configured(
                    source,
                    Err("its module was not prepared".to_owned()),
                    metrics,
                )),
            };
            set.insert(key, configured);
        }
        Arc::new(set)
    }

    fn taken(&self) -> PluginSet {
        self.ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Brings in what is elsewhere, all at once, so that one slow server delays no other.
    async fn fetched(
        &self,
        plugins: impl Iterator<Item = (Arc<str>, Arc<WasmPlugin>)>,
        snapshot: &Snapshot,
    ) -> FetchedModules {
        let mut fetched = FetchedModules::new();
        let mut tasks = JoinSet::new();
        for (key, plugin) in plugins {
            let source = match source(&plugin, snapshot) {
                Ok(Some(source)) => source,
                Ok(None) => continue,
                Err(error) => {
                    fetched.insert(key, Err(error));
                    continue;
                }
            };
            let fetcher = self.fetcher.clone();
            tasks.spawn(async move {
                let default = fetch::Limits::default();
                let limits = fetch::Limits {
                    bytes_max: plugin.sandbox.module_bytes_max.unwrap_or(default.bytes_max),
                    ..default
                };
                let fetching = fetcher.fetch(&source, plugin.sha256, &limits);
                let outcome = fetching.await.map(|fetched| fetched.module);
                (key, outcome.map_err(|error| error.to_string()))
            });
        }
        while let Some(joined) = tasks.join_next().await {
            if let Ok((key, outcome)) = joined {
                fetched.insert(key, outcome);
            }
        }
        fetched
    }

    async fn configure(
        &self,
        source: Arc<WasmPlugin>,
        before: Option<&Arc<Configured>>,
        fetched: Option<Result<Bytes, String>>,
        metrics: &Metrics,
    ) -> Configured {
        let module = match held(before, &source) {
            Some(module) => Ok(module.clone()),
            None => self.module(&source, fetched).await,
        };
        let is_elsewhere = !matches!(source.source, WasmSource::Inline(_));
        let last_good = before
            .filter(|_| is_elsewhere)
            .and_then(|it| it.plugin.module().ok());
        let (module, is_behind) = match (module, last_good) {
            (Err(error), Some(last_good)) => {
                tracing::error!(
                    plugin = &*source.key,
                    error,
                    "a plugin keeps the module that it had, the wanted one cannot be had"
                );
                (Ok(last_good.clone()), true)
            }
            (module, _) => (module, false),
        };
        match &module {
            Ok(module) => tracing::info!(
                plugin = &*source.key,
                sha256 = module.digest_hex(),
                "a plugin has its module"
            ),
            Err(error) => tracing::error!(
                plugin = &*source.key,
                error,
                "a plugin has no module, its requests meet its failure policy"
            ),
        }
        Configured {
            is_behind,
            ..self.configured(source, module, metrics)
        }
    }

    fn configured(
        &self,
        source: Arc<WasmPlugin>,
        module: Result<Arc<Module>, String>,
        metrics: &Metrics,
    ) -> Configured {
        let plugin = self.plugins.plugin(module, settings(&source), metrics);
        Configured {
            source,
            plugin,
            is_behind: false,
        }
    }

    /// The module of a plugin, compiled on a thread of its own.
    async fn module(
        &self,
        source: &WasmPlugin,
        fetched: Option<Result<Bytes, String>>,
    ) -> Result<Arc<Module>, String> {
        let bytes = match &source.source {
            WasmSource::Inline(bytes) => bytes.clone(),
            WasmSource::Url(_) | WasmSource::Image(_) => {
                fetched.unwrap_or_else(|| Err("its module was not fetched".to_owned()))?
            }
        };
        let (plugins, sha256) = (self.plugins.clone(), source.sha256);
        let bytes_max = source.sandbox.module_bytes_max.unwrap_or(u64::MAX);
        if bytes.len() as u64 > bytes_max {
            return Err(format!(
                "the module has {} bytes, but its sandbox allows {bytes_max}",
                bytes.len()
            ));
        }
        let compile = move || {
            let module = plugins.module(&bytes).map_err(|error| error.to_string())?;
            match sha256 {
                Some(sha256) if sha256 != module.digest() => Err(format!(
                    "the module's SHA-256 is {}, not the one that was asked for",
                    module.digest_hex()
                )),
                _ => Ok(module),
            }
        };
        let compiled = tokio::task::spawn_blocking(compile).await;
        compiled.unwrap_or_else(|_| Err("compiling the module ended early".to_owned()))
    }
}

/// The module of the plugin before, where this one names the same.
fn held<'a>(before: Option<&'a Arc<Configured>>, plugin: &WasmPlugin) -> Option<&'a Arc<Module>> {
    let same = before.filter(|it| {
        it.source.source == plugin.source && it.source.sha256 == plugin.sha256 && !it.is_behind
    });
    same.and_then(|it| it.plugin.module().ok())
}

/// Where the module is, when it is not in the snapshot itself.
fn source(plugin: &WasmPlugin, snapshot: &Snapshot) -> Result<Option<Source>, String> {
    match &plugin.source {
        WasmSource::Inline(_) => Ok(None),
        WasmSource::Url(url) => Ok(Some(Source::Url(url.clone()))),
        WasmSource::Image(image) => {
            let credentials = match &image.pull_secret {
                None => None,
                Some(pull) => {
                    let secret = snapshot.secrets.get(&pull.secret);
                    let text = secret.and_then(|secret| secret.values.get(&pull.key));
                    Some(text.cloned().ok_or_else(|| {
                        format!("pull secret {} has no {}", pull.secret, pull.key)
                    })?)
                }
            };
            Ok(Some(Source::Image {
                reference: image.reference.clone(),
                credentials,
            }))
        }
    }
}

/// Every plugin of a snapshot under the name by which it is looked up.
fn named(snapshot: &Snapshot) -> impl Iterator<Item = (Arc<str>, Arc<WasmPlugin>)> {
    let plugins = snapshot.wasm_plugins.iter();
    let plugins = plugins.map(|plugin| (plugin.key.clone(), plugin.clone()));
    let clusters = snapshot.clusters.iter();
    let of_clusters = clusters.filter_map(|cluster| {
        let plugin = cluster.wasm_plugin.as_deref()?;
        Some((own_name(&cluster.key), Arc::new(plugin.clone())))
    });
    plugins.chain(of_clusters)
}

/// Under which name a cluster's own plugin is looked up; no key has a space.
fn own_name(cluster: &str) -> Arc<str> {
    format!("cluster {cluster}").into()
}

/// The names of a cluster's plugins.
pub(crate) fn names(cluster: &Cluster) -> Vec<Arc<str>> {
    let own = cluster.wasm_plugin.iter().map(|_| own_name(&cluster.key));
    cluster.plugins.iter().cloned().chain(own).collect()
}

/// Plugins of these names in the order in which requests meet them.
pub(crate) fn in_order<'a>(set: &'a PluginSet, names: &[Arc<str>]) -> Vec<&'a Arc<Configured>> {
    let mut plugins: Vec<_> = names.iter().filter_map(|name| set.get(name)).collect();
    plugins.sort_by(|a, b| rank(a).cmp(&rank(b)));
    plugins
}

fn rank(configured: &Configured) -> (WasmPhase, i32, &str) {
    configured.source.rank()
}

fn settings(source: &WasmPlugin) -> Settings {
    let hooks = source.hooks;
    let default = Limits::default();
    let sandbox = &source.sandbox;
    let memory = sandbox.memory_bytes_max;
    let namespace = source
        .key
        .split_once('/')
        .map_or("", |(namespace, _)| namespace);
    Settings {
        name: source.key.clone(),
        root_id: source.root_id.clone(),
        config: source.config.expose().to_owned().into(),
        on_failure: match source.on_failure {
            WasmFailure::Closed => OnFailure::Closed,
            WasmFailure::Open => OnFailure::Open,
        },
        hooks: Hooks {
            request_head: hooks.contains(WasmHook::RequestHeaders),
            request_body: hooks.contains(WasmHook::RequestBody),
            response_head: hooks.contains(WasmHook::ResponseHeaders),
            response_body: hooks.contains(WasmHook::ResponseBody),
        },
        limits: Limits {
            memory_bytes: memory.map_or(default.memory_bytes, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            }),
            call_time: sandbox
                .execution_time_max
                .map_or(default.call_time, |time| {
                    time.clamp(*CALL_TIME.start(), *CALL_TIME.end())
                }),
            ..default
        },
        network: match &sandbox.network {
            WasmNetwork::None => Network::Denied,
            WasmNetwork::OwnNamespace => Network::Clusters {
                keys: std::collections::BTreeSet::new(),
                prefixes: vec![format!("{namespace}/").into()],
            },
            WasmNetwork::Clusters(keys) => Network::Clusters {
                keys: keys.iter().cloned().collect(),
                prefixes: Vec::new(),
            },
        },
    }
}
