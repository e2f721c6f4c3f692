//! The one place that holds the current configuration.
//!
//! Readers never wait and never block a writer; the writer is `dataplane/src/apply.rs` alone.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache, Guard};

use crate::kept::Kept;
use crate::runtime::{ListenerDefaults, RuntimeConfig};

/// Holds the current [`RuntimeConfig`].
#[derive(Debug, Default)]
pub struct Store {
    current: Arc<ArcSwap<RuntimeConfig>>,
}

impl Store {
    /// An empty configuration: nothing is bound, nothing is routed.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty configuration whose successors use these defaults, and keep what they learn here.
    pub fn with(defaults: ListenerDefaults, kept: Kept) -> Self {
        let empty = RuntimeConfig {
            defaults: Arc::new(defaults),
            kept: Arc::new(kept),
            ..RuntimeConfig::default()
        };
        Self {
            current: Arc::new(ArcSwap::from_pointee(empty)),
        }
    }

    /// The configuration of this moment, for a short look.
    pub fn load(&self) -> Guard<Arc<RuntimeConfig>> {
        self.current.load()
    }

    /// The configuration of this moment, to be kept for as long as a request runs.
    pub fn load_full(&self) -> Arc<RuntimeConfig> {
        self.current.load_full()
    }

    /// A reader for one thread.
    pub fn reader(&self) -> Reader {
        let mut cache = Cache::new(self.current.clone());
        let held = Rc::new(Current(cache.load().clone()));
        Reader { cache, held }
    }

    /// Puts `next` in place; requests that run keep the one they have.
    pub fn swap(&self, next: Arc<RuntimeConfig>) {
        self.current.store(next);
    }
}

/// One thread's share in a configuration; counted within the thread.
#[derive(Debug)]
pub struct Current(Arc<RuntimeConfig>);

impl Deref for Current {
    type Target = RuntimeConfig;

    fn deref(&self) -> &RuntimeConfig {
        &self.0
    }
}

/// Reads the current configuration from one thread without touching a count that others share.
#[derive(Debug)]
pub struct Reader {
    cache: Cache<Arc<ArcSwap<RuntimeConfig>>, Arc<RuntimeConfig>>,
    held: Rc<Current>,
}

impl Reader {
    /// The configuration of this moment, to be kept for as long as a request runs.
    pub fn load(&mut self) -> Rc<Current> {
        let current = self.cache.load();
        if !Arc::ptr_eq(current, &self.held.0) {
            self.held = Rc::new(Current(current.clone()));
        }
        self.held.clone()
    }
}
