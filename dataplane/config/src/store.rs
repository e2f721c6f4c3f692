//! The one place that holds the current configuration.
//!
//! Readers never wait and never block a writer; the writer is `dataplane/src/apply.rs` alone.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use crate::runtime::RuntimeConfig;

/// Holds the current [`RuntimeConfig`].
#[derive(Debug, Default)]
pub struct Store {
    current: ArcSwap<RuntimeConfig>,
}

impl Store {
    /// An empty configuration: nothing is bound, nothing is routed.
    pub fn new() -> Self {
        Self::default()
    }

    /// The configuration of this moment, for a short look.
    pub fn load(&self) -> Guard<Arc<RuntimeConfig>> {
        self.current.load()
    }

    /// The configuration of this moment, to be kept for as long as a request runs.
    pub fn load_full(&self) -> Arc<RuntimeConfig> {
        self.current.load_full()
    }

    /// Puts `next` in place; requests that run keep the one they have.
    pub fn swap(&self, next: Arc<RuntimeConfig>) {
        self.current.store(next);
    }
}
