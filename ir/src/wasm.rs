//! Wasm plugins: the module, the moments it is called at, its settings and what it may use.
//!
//! A plugin stands in the snapshot once ([`crate::Snapshot::wasm_plugins`]) and is named by the
//! listeners, rules and clusters it serves; a control plane of the contract puts one into a cluster
//! instead. The module is carried, not looked into: compiling and running it is `dataplane/wasm`.
//! Settings may hold credentials, so they do not show in `Debug`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::resource::Resource;
use crate::secret::SecretText;

/// The largest module that a snapshot may hold or ask for.
pub const MODULE_BYTES_MAX: u64 = 50 * 1024 * 1024;
/// How many plugins one listener, rule or cluster may name.
pub const PLUGINS_PER_PLACE_MAX: usize = 16;

/// A plugin with its module and settings.
#[derive(Clone, Debug, PartialEq)]
pub struct WasmPlugin {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where the module comes from.
    pub source: WasmSource,
    /// SHA-256 the module must have; absent means it is not checked.
    pub sha256: Option<[u8; 32]>,
    /// When it is called.
    pub hooks: WasmHooks,
    /// Its own settings, mostly JSON; may be empty.
    pub config: SecretText,
    /// Which of the module's root contexts it is; empty for the only one.
    pub root_id: Arc<str>,
    /// Plugins of one namespace with one text here share data and queues; empty for the plugin's own.
    pub vm_id: Arc<str>,
    /// Its place among the plugins of one place.
    pub phase: WasmPhase,
    /// Its place among the plugins of one phase; lower ones come first on requests.
    pub priority: i32,
    /// What happens to a request when it fails.
    pub on_failure: WasmFailure,
    /// What it may use.
    pub sandbox: WasmSandbox,
}

impl WasmPlugin {
    /// A plugin that is called whenever it has a callback, without settings, with the data plane's
    /// defaults.
    pub fn new(key: impl Into<Arc<str>>, source: WasmSource) -> Self {
        Self {
            key: key.into(),
            source,
            sha256: None,
            hooks: WasmHooks::ALL,
            config: SecretText::default(),
            root_id: Arc::default(),
            vm_id: Arc::default(),
            phase: WasmPhase::default(),
            priority: 0,
            on_failure: WasmFailure::default(),
            sandbox: WasmSandbox::default(),
        }
    }

    /// What plugins of one place are sorted by: requests meet the least first, responses last.
    pub fn rank(&self) -> (WasmPhase, i32, &str) {
        (self.phase, self.priority, &self.key)
    }

    /// True when its sandbox lets it call that cluster (`namespace/service:port`).
    pub fn may_call(&self, cluster: &str) -> bool {
        match &self.sandbox.network {
            WasmNetwork::None => false,
            WasmNetwork::OwnNamespace => {
                let own = self.key.split_once('/').map(|(namespace, _)| namespace);
                own.is_some() && own == cluster.split_once('/').map(|(namespace, _)| namespace)
            }
            WasmNetwork::Clusters(clusters) => clusters.iter().any(|it| **it == *cluster),
        }
    }
}

impl Resource for WasmPlugin {
    fn key(&self) -> &Arc<str> {
        &self.key
    }
}

/// Where a module comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum WasmSource {
    /// From the snapshot itself; never empty.
    Inline(Bytes),
    /// Fetched by the data plane: an absolute URL with `https`, or with `http` to this very machine.
    Url(String),
    /// Pulled by the data plane.
    Image(WasmImage),
}

/// A module in an OCI registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WasmImage {
    /// `registry/repository:tag` or `registry/repository@sha256:digest`.
    pub reference: String,
    /// What opens the registry; absent for one that is open to all.
    pub pull_secret: Option<PullSecret>,
}

/// A Docker configuration in a secret of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullSecret {
    /// `namespace/name` of the secret.
    pub secret: Arc<str>,
    /// Key among its values.
    pub key: String,
}

impl PullSecret {
    /// The key that a secret of type `kubernetes.io/dockerconfigjson` has.
    pub const DEFAULT_KEY: &str = ".dockerconfigjson";
}

impl fmt::Debug for WasmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(module) => write!(f, "Inline({} bytes)", module.len()),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
            Self::Image(image) => f.debug_tuple("Image").field(image).finish(),
        }
    }
}

/// A moment at which a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WasmHook {
    /// The head of a request; of a listener's plugin before the route is chosen.
    RequestHeaders,
    /// The body of a request, and its trailers.
    RequestBody,
    /// The head of a response.
    ResponseHeaders,
    /// The body of a response, chunk by chunk, and its trailers.
    ResponseBody,
}

impl WasmHook {
    /// Its name in answers of the admin APIs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestHeaders => "request_headers",
            Self::RequestBody => "request_body",
            Self::ResponseHeaders => "response_headers",
            Self::ResponseBody => "response_body",
        }
    }

    /// All of them, in the order in which an exchange meets them.
    pub const ALL: [Self; 4] = [
        Self::RequestHeaders,
        Self::RequestBody,
        Self::ResponseHeaders,
        Self::ResponseBody,
    ];
}

/// The moments at which a plugin is called, as far as its module has a callback for them.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct WasmHooks(u8);

impl WasmHooks {
    /// Whenever there is a callback.
    pub const ALL: Self = Self(0b1111);
    /// Never.
    pub const NONE: Self = Self(0);

    /// The same with one more.
    #[must_use]
    pub fn with(self, hook: WasmHook) -> Self {
        Self(self.0 | 1 << hook as u8)
    }

    /// True when the plugin is called at that moment.
    pub fn contains(self, hook: WasmHook) -> bool {
        self.0 & 1 << hook as u8 != 0
    }
}

impl Default for WasmHooks {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Debug for WasmHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hooks = WasmHook::ALL
            .into_iter()
            .filter(|hook| self.contains(*hook));
        f.debug_set().entries(hooks).finish()
    }
}

/// Places in the order of requests, the first of them first; responses meet them in reverse order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WasmPhase {
    /// Who the client is.
    Authn,
    /// What the client may do.
    Authz,
    /// What is counted.
    Stats,
    /// Everything else.
    #[default]
    Unspecified,
}

/// What happens to a request whose plugin fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WasmFailure {
    /// It is answered with an error.
    #[default]
    Closed,
    /// It goes on without the plugin.
    Open,
}

/// What a plugin may use; absent limits are the data plane's defaults. Files are never among it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WasmSandbox {
    /// Memory of one instance.
    pub memory_bytes_max: Option<u64>,
    /// Time of one call.
    pub execution_time_max: Option<Duration>,
    /// Instructions of one call.
    pub fuel_max: Option<u64>,
    /// Size of the module.
    pub module_bytes_max: Option<u64>,
    /// Which clusters it may call.
    pub network: WasmNetwork,
}

/// Which clusters a plugin may call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum WasmNetwork {
    /// None.
    #[default]
    None,
    /// Those of its own namespace.
    OwnNamespace,
    /// These, by `namespace/service:port`; never empty.
    Clusters(Vec<Arc<str>>),
}
