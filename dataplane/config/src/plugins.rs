//! Plugins of a snapshot: prepared before the configuration is compiled, looked up by name by requests.
//!
//! [`PluginHost::prepare`] is step 4a of an update: modules are brought in and compiled there, off every
//! worker, and a plugin without a module keeps nobody else waiting: its requests meet its failure policy.
//! What was prepared is found again by [`PluginHost::of`] when the configuration is compiled. A plugin that
//! an update leaves alone stays the very same, with its instances. One whose next module cannot be had
//! keeps the last good one, and what cannot be fetched is tried again by itself, ever later.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ir::wasm::{WasmFailure, WasmHook, WasmNetwork, WasmPhase, WasmSource};
use ir::{Cluster, Snapshot, WasmPlugin};
use tokio::task::JoinSet;

use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::fetch::{self, Fetcher, Source};
use dataplane_wasm::settings::{Hooks, Limits, Network, OnFailure, Settings};
use dataplane_wasm::{Loaded, Module, ModuleError, Plugin, Plugins};

/// The least time that one call may be given.
const CALL_TIME_MIN: Duration = Duration::from_millis(1);
/// The longest pause between two attempts to fetch a module.
const RETRY_MAX: Duration = Duration::from_secs(300);

/// What holds for plugins that say nothing else, and what none may exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// For plugins whose sandbox says nothing.
    pub usual: Limits,
    /// Memory that a sandbox may ask for.
    pub memory_bytes_max: usize,
    /// Time of a call that it may ask for.
    pub call_time_max: Duration,
    /// Size of a module that is fetched, and the time for that.
    pub fetch: fetch::Limits,
    /// How long after a failed fetch it is tried again; doubled with each further one.
    pub retry_after: Duration,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            usual: Limits::default(),
            memory_bytes_max: 512 * 1024 * 1024,
            call_time_max: Duration::from_secs(10),
            fetch: fetch::Limits::default(),
            retry_after: Duration::from_secs(5),
        }
    }
}

/// A plugin as it is configured, ready to be run.
#[derive(Debug)]
pub struct Configured {
    /// What it was made from.
    pub source: Arc<WasmPlugin>,
    /// What is run.
    pub plugin: Arc<Plugin>,
    wanted: Wanted,
    /// Brings in the module that could not be had; ends with this.
    _retry: JoinSet<()>,
}

/// How a plugin is doing, for those who look at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginState {
    /// `namespace/name`.
    pub key: String,
    /// SHA-256 of the module that it runs, in hexadecimal; absent when it has none.
    pub sha256: Option<String>,
    /// Why it has not the module that is wanted; empty when it has.
    pub error: String,
    /// It failed so often in a row that it is left alone for a while.
    pub is_disabled: bool,
    /// Failures in a row.
    pub failures: u32,
    /// The last of them; empty before the first.
    pub last_error: String,
}

impl Configured {
    /// How it is doing.
    pub fn state(&self) -> PluginState {
        let loaded = self.plugin.loaded();
        let condition = self.plugin.condition();
        PluginState {
            key: self.source.key.to_string(),
            sha256: loaded.module.map(|module| module.digest_hex()),
            error: loaded.error.unwrap_or_default(),
            is_disabled: condition.is_disabled,
            failures: condition.failures,
            last_error: condition.last_error,
        }
    }

    /// True when there is nothing to be done about it again: it has its module, or what failed would fail
    /// once more, or is tried again already.
    fn is_still(&self, source: &WasmPlugin, wanted: &Wanted) -> bool {
        *self.source == *source && (self.wanted == *wanted || self.plugin.loaded().error.is_none())
    }
}

/// Where the module of a plugin is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    /// In the snapshot.
    Here,
    /// It must be fetched.
    Elsewhere(Source),
    /// It cannot be told.
    Nowhere(String),
}

/// Plugins by their keys.
pub type PluginSet = BTreeMap<Arc<str>, Arc<Configured>>;

/// Prepares plugins, and keeps those that were prepared last until the next.
#[derive(Default)]
pub struct PluginHost {
    plugins: Arc<Plugins>,
    fetcher: Arc<Fetcher>,
    limits: PluginLimits,
    ready: Mutex<PluginSet>,
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost").finish_non_exhaustive()
    }
}

impl PluginHost {
    /// Modules from elsewhere are brought by `fetcher`.
    pub fn new(fetcher: Fetcher, limits: PluginLimits) -> Self {
        Self {
            fetcher: Arc::new(fetcher),
            limits,
            ..Self::default()
        }
    }

    /// Brings in and compiles what `snapshot` names and `serving` has not, all at once, so that one slow
    /// server delays no other. When `snapshot` is refused later, nothing of `serving` was touched.
    pub async fn prepare(&self, snapshot: &Snapshot, serving: &PluginSet, metrics: &Arc<Metrics>) {
        let mut ready = PluginSet::new();
        let mut tasks = JoinSet::new();
        for (key, source) in named(snapshot) {
            let known = serving.get(&key);
            let wanted = wanted(&source, snapshot);
            if let Some(known) = known.filter(|it| it.is_still(&source, &wanted)) {
                ready.insert(key, known.clone());
                continue;
            }
            let held = held(known, &source);
            let bringer = self.bringer(metrics);
            tasks.spawn(async move {
                let module = match held {
                    Some(module) => Ok(module),
                    None => bringer.module(&source, &wanted).await,
                };
                (key, source, wanted, module)
            });
        }
        while let Some(joined) = tasks.join_next().await {
            let Ok((key, source, wanted, module)) = joined else {
                continue;
            };
            let loaded = loaded(module, &source, serving.get(&key));
            let configured = self.configured(source, wanted, loaded, metrics);
            ready.insert(key, Arc::new(configured));
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
                None => {
                    let error = "its module was not prepared".to_owned();
                    Arc::new(Configured {
                        plugin: self.plugin(&source, Err(error), metrics),
                        source,
                        wanted: Wanted::Nowhere(String::new()),
                        _retry: JoinSet::new(),
                    })
                }
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

    fn bringer(&self, metrics: &Arc<Metrics>) -> Bringer {
        Bringer {
            plugins: self.plugins.clone(),
            fetcher: self.fetcher.clone(),
            limits: self.limits.fetch,
            metrics: metrics.clone(),
        }
    }

    fn configured(
        &self,
        source: Arc<WasmPlugin>,
        wanted: Wanted,
        loaded: Loaded,
        metrics: &Arc<Metrics>,
    ) -> Configured {
        let is_lacking = loaded.error.is_some();
        let plugin = self.plugin(&source, loaded, metrics);
        let mut retry = JoinSet::new();
        if is_lacking && matches!(wanted, Wanted::Elsewhere(_)) {
            let bringer = self.bringer(metrics);
            let (plugin, source, wanted) = (plugin.clone(), source.clone(), wanted.clone());
            let first = self.limits.retry_after;
            retry.spawn(async move { bringer.keep_trying(&plugin, &source, &wanted, first).await });
        }
        Configured {
            source,
            plugin,
            wanted,
            _retry: retry,
        }
    }

    fn plugin(
        &self,
        source: &WasmPlugin,
        loaded: impl Into<Loaded>,
        metrics: &Metrics,
    ) -> Arc<Plugin> {
        let settings = settings(source, &self.limits);
        self.plugins.plugin(loaded, settings, metrics)
    }
}

/// Brings in modules and has them compiled.
struct Bringer {
    plugins: Arc<Plugins>,
    fetcher: Arc<Fetcher>,
    limits: fetch::Limits,
    metrics: Arc<Metrics>,
}

impl Bringer {
    /// The module of a plugin.
    async fn module(&self, source: &WasmPlugin, wanted: &Wanted) -> Result<Arc<Module>, String> {
        let bytes_max = self.limits.bytes_max;
        let bytes_max = source
            .sandbox
            .module_bytes_max
            .unwrap_or(bytes_max)
            .min(bytes_max);
        let bytes = match (wanted, &source.source) {
            (Wanted::Here, WasmSource::Inline(bytes)) => bytes.clone(),
            (Wanted::Elsewhere(place), _) => {
                let limits = fetch::Limits {
                    bytes_max,
                    ..self.limits
                };
                let fetched = self.fetcher.fetch(place, source.sha256, &limits).await;
                let result = fetched.as_ref().err().map_or("ok", |error| error.reason());
                self.metrics.modules.fetched(result);
                fetched.map_err(|error| error.to_string())?.module
            }
            (Wanted::Nowhere(error), _) => return Err(error.clone()),
            (Wanted::Here, _) => return Err("its module is nowhere".to_owned()),
        };
        if bytes.len() as u64 > bytes_max {
            return Err(format!(
                "the module has {} bytes, but may have {bytes_max}; sandbox.maxModuleBytes and \
                 wasm.moduleBytesMax say how many",
                bytes.len()
            ));
        }
        let metrics = self.metrics.clone();
        let compiling = self.plugins.compiled(bytes, is_metered(source), metrics);
        let module = compiling.await.and_then(|module| match source.sha256 {
            Some(sha256) if sha256 != module.digest() => Err(ModuleError::Invalid(format!(
                "the module's SHA-256 is {}, not the one that was asked for",
                module.digest_hex()
            ))),
            _ => Ok(module),
        });
        if let (Err(_), Wanted::Elsewhere(place)) = (&module, wanted) {
            // Another module may be there the next time.
            self.fetcher.forget(place);
        }
        module.map_err(|error| error.to_string())
    }

    /// Tries until the module is there, and puts it into the plugin.
    async fn keep_trying(
        &self,
        plugin: &Plugin,
        source: &WasmPlugin,
        wanted: &Wanted,
        first: Duration,
    ) {
        let mut pause = first;
        loop {
            // Data planes that failed together shall not come back together.
            let spread = RandomState::new().hash_one(plugin.name()) % 1000;
            tokio::time::sleep(pause + pause.mul_f64(spread as f64 / 4000.0)).await;
            let module = self.module(source, wanted).await;
            let had = plugin.module();
            match &module {
                Ok(module) => told_module(source, module),
                Err(error) => tracing::warn!(
                    plugin = &*source.key,
                    error,
                    "the module of a plugin still cannot be had"
                ),
            }
            let is_there = module.is_ok();
            let mut loaded = Loaded::from(module);
            loaded.module = loaded.module.or(had);
            plugin.load(loaded);
            if is_there {
                return;
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
    }
}

/// What a plugin runs: the wanted module, or else the last good one of a plugin whose module is fetched.
fn loaded(
    module: Result<Arc<Module>, String>,
    source: &WasmPlugin,
    before: Option<&Arc<Configured>>,
) -> Loaded {
    let is_elsewhere = !matches!(source.source, WasmSource::Inline(_));
    let last_good = before
        .filter(|it| is_elsewhere && is_metered(&it.source) == is_metered(source))
        .and_then(|it| it.plugin.module());
    match (&module, &last_good) {
        (Ok(module), _) => told_module(source, module),
        (Err(error), Some(_)) => tracing::error!(
            plugin = &*source.key,
            error,
            "a plugin keeps the module that it had, the wanted one cannot be had"
        ),
        (Err(error), None) => tracing::error!(
            plugin = &*source.key,
            error,
            "a plugin has no module, its requests meet its failure policy"
        ),
    }
    let mut loaded = Loaded::from(module);
    loaded.module = loaded.module.or(last_good);
    loaded
}

fn told_module(source: &WasmPlugin, module: &Module) {
    tracing::info!(
        plugin = &*source.key,
        sha256 = module.digest_hex(),
        "a plugin has its module"
    );
}

/// The module of the plugin before, where this one names the same.
fn held(before: Option<&Arc<Configured>>, plugin: &WasmPlugin) -> Option<Arc<Module>> {
    let same = before.filter(|it| {
        it.source.source == plugin.source
            && it.source.sha256 == plugin.sha256
            && is_metered(&it.source) == is_metered(plugin)
    });
    let loaded = same?.plugin.loaded();
    loaded.module.filter(|_| loaded.error.is_none())
}

/// Whether its instructions are counted.
fn is_metered(plugin: &WasmPlugin) -> bool {
    plugin.sandbox.fuel_max.is_some()
}

/// Where the module is.
fn wanted(plugin: &WasmPlugin, snapshot: &Snapshot) -> Wanted {
    match &plugin.source {
        WasmSource::Inline(_) => Wanted::Here,
        WasmSource::Url(url) => Wanted::Elsewhere(Source::Url(url.clone())),
        WasmSource::Image(image) => {
            let credentials = match &image.pull_secret {
                None => None,
                Some(pull) => {
                    let secret = snapshot.secrets.get(&pull.secret);
                    let text = secret.and_then(|secret| secret.values.get(&pull.key));
                    match text {
                        Some(text) => Some(text.clone()),
                        None => {
                            let error = format!("pull secret {} has no {}", pull.secret, pull.key);
                            return Wanted::Nowhere(error);
                        }
                    }
                }
            };
            Wanted::Elsewhere(Source::Image {
                reference: image.reference.clone(),
                credentials,
            })
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

fn settings(source: &WasmPlugin, bounds: &PluginLimits) -> Settings {
    let hooks = source.hooks;
    let usual = bounds.usual;
    let sandbox = &source.sandbox;
    let memory = sandbox.memory_bytes_max;
    let namespace = source
        .key
        .split_once('/')
        .map_or("", |(namespace, _)| namespace);
    Settings {
        name: source.key.clone(),
        root_id: source.root_id.clone(),
        vm_id: source.vm_id.clone(),
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
            memory_bytes: memory.map_or(usual.memory_bytes, |bytes| {
                let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                bytes.min(bounds.memory_bytes_max)
            }),
            call_time: sandbox.execution_time_max.map_or(usual.call_time, |time| {
                time.min(bounds.call_time_max).max(CALL_TIME_MIN)
            }),
            fuel: sandbox.fuel_max,
            ..usual
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
