//! A configured plugin, and what all plugins of a process share: compiled modules, state by name.
//!
//! [`Plugins`] is asked while a configuration is compiled, never by a request. What is kept here is kept
//! for as long as a configuration holds it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Instant;

use dataplane_telemetry::metrics::Metrics;

use crate::engine::Engine;
use crate::module::{self, Module, ModuleError};
use crate::settings::Settings;
use crate::shared::{Condition, Shared};

/// A module with its settings.
#[derive(Debug)]
pub struct Plugin {
    /// Different for each that was ever made.
    pub(crate) id: u64,
    pub(crate) module: Result<Arc<Module>, String>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) shared: Arc<Shared>,
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

    /// Its module, or why there is none.
    pub fn module(&self) -> Result<&Arc<Module>, &str> {
        self.module.as_ref().map_err(String::as_str)
    }

    /// How well it is at this moment.
    pub fn condition(&self) -> Condition {
        self.shared.condition(Instant::now())
    }
}

/// Compiled modules and the state of plugins.
#[derive(Default)]
pub struct Plugins {
    engine: OnceLock<Result<Engine, String>>,
    modules: Mutex<HashMap<[u8; 32], Weak<Module>>>,
    shared: Mutex<HashMap<Arc<str>, Weak<Shared>>>,
    made: AtomicU64,
}

impl std::fmt::Debug for Plugins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugins").finish_non_exhaustive()
    }
}

impl Plugins {
    /// The compiled module of these bytes. Compiling takes about a second for each megabyte: not to be
    /// called where requests are served.
    pub fn module(&self, bytes: &[u8]) -> Result<Arc<Module>, ModuleError> {
        let digest = module::digest(bytes);
        if let Some(known) = self.known_module(&digest) {
            return Ok(known);
        }
        let engine = self
            .engine
            .get_or_init(|| Engine::new().map_err(|error| format!("{error:#}")));
        let engine = engine
            .as_ref()
            .map_err(|error| ModuleError::Engine(error.clone()))?;
        let made = Arc::new(Module::compile(engine, bytes)?);
        put(&self.modules, digest, &made);
        Ok(made)
    }

    /// The module with that digest, if it is compiled and somebody holds it.
    pub fn known_module(&self, digest: &[u8; 32]) -> Option<Arc<Module>> {
        found(&self.modules, digest)
    }

    /// A plugin; without a module (the error says why) every request meets its failure policy. Data,
    /// queues and failures are those of the plugin of that name before it.
    pub fn plugin(
        &self,
        module: Result<Arc<Module>, String>,
        settings: Settings,
        metrics: &Metrics,
    ) -> Arc<Plugin> {
        let shared = found(&self.shared, &settings.name).unwrap_or_else(|| {
            let made = Arc::new(Shared::new(metrics.plugin(&settings.name)));
            put(&self.shared, settings.name.clone(), &made);
            made
        });
        Arc::new(Plugin {
            id: self.made.fetch_add(1, Ordering::Relaxed),
            module,
            settings: Arc::new(settings),
            shared,
        })
    }
}

fn found<K: Eq + Hash, V>(all: &Mutex<HashMap<K, Weak<V>>>, key: &K) -> Option<Arc<V>> {
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.get(key).and_then(Weak::upgrade)
}

fn put<K: Eq + Hash, V>(all: &Mutex<HashMap<K, Weak<V>>>, key: K, value: &Arc<V>) {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|_, it| it.strong_count() > 0);
    all.insert(key, Arc::downgrade(value));
}
