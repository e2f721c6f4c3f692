//! A configured plugin, and what all plugins of a process share: compiled modules, state by name.
//!
//! [`Plugins`] is asked while a configuration is compiled, never by a request. What is kept here is kept
//! for as long as a configuration holds it. A module that comes late is put into the plugin that waits for
//! it, so that no configuration has to be made anew for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dataplane_telemetry::metrics::Metrics;
use tokio::sync::{Semaphore, oneshot};

use crate::engine::Engine;
use crate::module::{self, Module, ModuleError};
use crate::settings::Settings;
use crate::shared::{Condition, Shared, Space};

/// Modules that are compiled beside each other at most; each may need a multiple of its size meanwhile.
const COMPILERS_MAX: usize = 4;
/// The least of all: a compiler runs when nobody else wants to.
const COMPILER_PRIORITY: i32 = 19;

/// A module with its settings.
#[derive(Debug)]
pub struct Plugin {
    /// Different for each that was ever made.
    pub(crate) id: u64,
    loaded: RwLock<Loaded>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
}

/// What a plugin runs, and what it lacks.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// Its module; nothing while it has none, and every request meets its failure policy.
    pub module: Option<Arc<Module>>,
    /// Why it has not the module that is wanted; with a module it is the one before that it runs.
    pub error: Option<String>,
}

impl From<Result<Arc<Module>, String>> for Loaded {
    fn from(module: Result<Arc<Module>, String>) -> Self {
        match module {
            Ok(module) => Self {
                module: Some(module),
                error: None,
            },
            Err(error) => Self {
                module: None,
                error: Some(error),
            },
        }
    }
}

impl Plugin {
    /// `namespace/name`.
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// What it was configured with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its module.
    pub fn module(&self) -> Option<Arc<Module>> {
        self.loaded().module
    }

    /// Its module, and what keeps it from another.
    pub fn loaded(&self) -> Loaded {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone()
    }

    /// Puts in what came late; instances of another module end within a second.
    pub fn load(&self, loaded: impl Into<Loaded>) {
        let loaded = loaded.into();
        let is_whole = loaded.error.is_none();
        self.shared.metrics.lacking.set_claim(!is_whole);
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        if is_whole {
            self.shared.forgive();
        }
    }

    /// How well it is at this moment.
    pub fn condition(&self) -> Condition {
        self.shared.condition(Instant::now())
    }
}

/// Digest of a module, and whether its instructions are counted.
type Key = ([u8; 32], bool);

/// Compiled modules and the state of plugins.
pub struct Plugins {
    /// Without and with the counting of instructions.
    engines: [OnceLock<Result<Engine, String>>; 2],
    modules: Mutex<HashMap<Key, Weak<Module>>>,
    /// Held while that module is compiled.
    compiling: Mutex<HashMap<Key, Weak<Mutex<()>>>>,
    compilers: Semaphore,
    spaces: Mutex<HashMap<Arc<str>, Weak<Space>>>,
    shared: Mutex<HashMap<Arc<str>, Weak<Shared>>>,
    made: AtomicU64,
}

impl Default for Plugins {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self {
            engines: [OnceLock::new(), OnceLock::new()],
            modules: Mutex::default(),
            compiling: Mutex::default(),
            compilers: Semaphore::new(cores.min(COMPILERS_MAX)),
            spaces: Mutex::default(),
            shared: Mutex::default(),
            made: AtomicU64::default(),
        }
    }
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").finish_non_exhaustive()
    }
}

impl Plugins {
    /// The compiled module of these bytes; with `is_metered`, one whose instructions are counted.
    /// Compiling takes about a second for each megabyte: not to be called where requests are served.
    pub fn module(&self, bytes: &[u8], is_metered: bool) -> Result<Arc<Module>, ModuleError> {
        self.timed(bytes, is_metered, |_| ())
    }

    /// The same; `count` is told what the compiler took, when it was asked at all.
    fn timed(
        &self,
        bytes: &[u8],
        is_metered: bool,
        count: impl FnOnce(Duration),
    ) -> Result<Arc<Module>, ModuleError> {
        let key = (module::digest(bytes), is_metered);
        let turn = found_or(&self.compiling, key, Arc::default);
        // Plugins with one module wait for the first of them.
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = found(&self.modules, &key) {
            return Ok(known);
        }
        let engine = self.engines[usize::from(is_metered)]
            .get_or_init(|| Engine::new(is_metered).map_err(|error| format!("{error:#}")));
        let engine = engine
            .as_ref()
            .map_err(|error| ModuleError::Engine(error.clone()))?;
        let began = Instant::now();
        let made = Module::compile(engine, bytes);
        count(began.elapsed());
        let made = Arc::new(made?);
        put(&self.modules, key, &made);
        Ok(made)
    }

    /// The same on a thread of the lowest priority, of which there are not more than cores.
    pub async fn compiled(
        self: &Arc<Self>,
        bytes: Bytes,
        is_metered: bool,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Module>, ModuleError> {
        let ended = |what: &str| ModuleError::Engine(format!("a compiler {what}"));
        let permit = self.compilers.acquire().await;
        let _permit = permit.map_err(|_| ended("is not to be had"))?;
        let plugins = self.clone();
        let (done, outcome) = oneshot::channel();
        let compile = move || {
            // Of this thread alone. Where it is not allowed, the compiler takes its share.
            let _ = rustix::process::setpriority_process(None, COMPILER_PRIORITY);
            // Nobody waits any more when the process ends.
            let count = |time| metrics.modules.compiled(time);
            let _ = done.send(plugins.timed(&bytes, is_metered, count));
        };
        thread::Builder::new()
            .name("plugin-compiler".to_owned())
            .spawn(compile)
            .map_err(|error| ended(&format!("cannot be started: {error}")))?;
        outcome.await.map_err(|_| ended("ended early"))?
    }

    /// A plugin; without a module (the error says why) every request meets its failure policy. Data and
    /// queues are those of the plugin of that name before it; its failures are forgotten.
    pub fn plugin(
        &self,
        loaded: impl Into<Loaded>,
        settings: Settings,
        metrics: &Metrics,
    ) -> Arc<Plugin> {
        let space = found_or(&self.spaces, settings.space(), Arc::default);
        let shared = found(&self.shared, &settings.name);
        let shared = shared.filter(|it| Arc::ptr_eq(&it.space, &space));
        let shared = shared.unwrap_or_else(|| {
            let made = Arc::new(Shared::new(space, metrics.plugin(&settings.name)));
            put(&self.shared, settings.name.clone(), &made);
            made
        });
        shared.forgive();
        let loaded = loaded.into();
        shared.metrics.lacking.set_claim(loaded.error.is_some());
        Arc::new(Plugin {
            id: self.made.fetch_add(1, Ordering::Relaxed),
            loaded: RwLock::new(loaded),
            settings: Arc::new(settings),
            shared,
        })
    }
}

fn found<K: Eq + Hash, V>(all: &Mutex<HashMap<K, Weak<V>>>, key: &K) -> Option<Arc<V>> {
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(key).and_then(Weak::upgrade)
}

/// What is there, or else made now; of several that ask at once, one makes it.
fn found_or<K: Eq + Hash, V>(
    all: &Mutex<HashMap<K, Weak<V>>>,
    key: K,
    make: impl FnOnce() -> Arc<V>,
) -> Arc<V> {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = all.get(&key).and_then(Weak::upgrade) {
        return found;
    }
    let made = make();
    all.retain(|_, it| it.strong_count() > 0);
    all.insert(key, Arc::downgrade(&made));
    made
}

fn put<K: Eq + Hash, V>(all: &Mutex<HashMap<K, Weak<V>>>, key: K, value: &Arc<V>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, it| it.strong_count() > 0);
    all.insert(key, Arc::downgrade(value));
}
