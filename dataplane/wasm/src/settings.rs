//! What a plugin may do and what it is told: limits, failure policy, configuration.
//!
//! Made from the snapshot when a configuration is compiled, and read by everything else in this crate.
//! Nothing is enforced here.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

/// Everything about a plugin but its module.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `namespace/name`; in logs, metrics and the property `plugin_name`.
    pub name: Arc<str>,
    /// Which of the module's root contexts is meant; mostly empty.
    pub root_id: Arc<str>,
    /// Plugins of one namespace with the same text here share data and queues; empty for its own.
    pub vm_id: Arc<str>,
    /// What the plugin reads as its configuration.
    pub config: Bytes,
    /// What becomes of a request that the plugin cannot serve.
    pub on_failure: OnFailure,
    /// At which moments it is called, of those that it has callbacks for.
    pub hooks: Hooks,
    /// What it may use.
    pub limits: Limits,
    /// Whom it may call.
    pub network: Network,
}

impl fmt::Debug for Settings {
    /// Without the configuration, which may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("name", &self.name)
            .field("on_failure", &self.on_failure)
            .field("hooks", &self.hooks)
            .field("limits", &self.limits)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// What plugins that share data and queues have in common; no name has a space.
    pub(crate) fn space(&self) -> Arc<str> {
        if self.vm_id.is_empty() {
            return self.name.clone();
        }
        let namespace = self
            .name
            .split_once('/')
            .map_or("", |(namespace, _)| namespace);
        format!("{namespace} {}", self.vm_id).into()
    }

    /// The defaults, under that name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            root_id: "".into(),
            vm_id: "".into(),
            config: Bytes::new(),
            on_failure: OnFailure::Closed,
            hooks: Hooks::ALL,
            limits: Limits::default(),
            network: Network::Denied,
        }
    }
}

/// What becomes of a request that a plugin cannot serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is answered with an error.
    #[default]
    Closed,
    /// It goes on without the plugin.
    Open,
}

/// The moments at which a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Heads of requests.
    pub request_head: bool,
    /// Bodies and trailers of requests.
    pub request_body: bool,
    /// Heads of responses.
    pub response_head: bool,
    /// Bodies and trailers of responses.
    pub response_body: bool,
}

impl Hooks {
    /// All of them.
    pub const ALL: Self = Self {
        request_head: true,
        request_body: true,
        response_head: true,
        response_body: true,
    };
}

/// What a plugin may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Linear memory of one instance.
    pub memory_bytes: usize,
    /// Time of one call.
    pub call_time: Duration,
    /// Instructions of one call, roughly; nothing for as many as fit into its time.
    pub fuel: Option<u64>,
    /// What is gathered of one body for a plugin that holds it back.
    pub body_bytes: usize,
    /// How long a plugin may hold a request back.
    pub pause: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 * 1024 * 1024,
            call_time: Duration::from_millis(100),
            fuel: None,
            body_bytes: 1024 * 1024,
            pause: Duration::from_secs(30),
        }
    }
}

/// Whom a plugin may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Nobody.
    #[default]
    Denied,
    /// These clusters, and those whose key begins with one of these prefixes.
    Clusters {
        /// Keys.
        keys: BTreeSet<Arc<str>>,
        /// Such as `namespace/`.
        prefixes: Vec<Arc<str>>,
    },
}

impl Network {
    /// Whether that cluster may be called.
    pub fn allows(&self, cluster: &str) -> bool {
        match self {
            Self::Denied => false,
            Self::Clusters { keys, prefixes } => {
                keys.contains(cluster) || prefixes.iter().any(|it| cluster.starts_with(&**it))
            }
        }
    }
}
