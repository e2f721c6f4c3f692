//! Wasm plugins: the module, the moments it is called at, its settings and what it may use.
//!
//! The module is carried, not checked: compiling and running it is `dataplane/wasm`. Settings may
//! hold credentials, so they do not show in `Debug`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::secret::SecretText;

/// A plugin with its module and settings.
#[derive(Clone, Debug, PartialEq)]
pub struct WasmPlugin {
    /// `namespace/name`.
    pub key: Arc<str>,
    /// Where the module comes from.
    pub source: WasmSource,
    /// SHA-256 the module must have; absent means it is not checked.
    pub sha256: Option<[u8; 32]>,
    /// When it is called, without repeats; empty means whenever it has a callback.
    pub hooks: Vec<WasmHook>,
    /// Its own settings, mostly JSON; may be empty.
    pub config: SecretText,
    /// What it may use.
    pub sandbox: WasmSandbox,
}

/// Where a module comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum WasmSource {
    /// From the snapshot itself; never empty.
    Inline(Bytes),
    /// Fetched by the data plane (`https`, `http` or `oci`).
    Url(String),
}

impl fmt::Debug for WasmSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(module) => write!(f, "Inline({} bytes)", module.len()),
            Self::Url(url) => f.debug_tuple("Url").field(url).finish(),
        }
    }
}

/// A moment at which a plugin is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WasmHook {
    /// The head and body of a request.
    OnRequest,
    /// The head and body of a response.
    OnResponse,
    /// Each chunk of a streamed response.
    OnStreamChunk,
}

/// What a plugin may use; absent limits are the data plane's defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WasmSandbox {
    /// Memory of one instance.
    pub memory_bytes_max: Option<u64>,
    /// Time of one call.
    pub execution_time_max: Option<Duration>,
    /// It may open connections.
    pub allow_network: bool,
    /// It may read and write files.
    pub allow_file_system: bool,
}
