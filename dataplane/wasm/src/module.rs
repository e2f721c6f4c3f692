//! A compiled module: checked against what this host offers, linked, ready to be instantiated.
//!
//! Compiling takes long and happens off the request path, on threads that leave the processor to all
//! others; one digest is compiled once, as long as some plugin holds the module. Nothing compiled is
//! written to disk or read from it.

use std::fmt;

use sha2::{Digest, Sha256};
use wasmtime::{ExternType, FuncType, InstancePre, Linker, Val};

use crate::abi::{self, earlier};
use crate::engine::Engine;
use crate::host::Host;

/// The largest module, the same as that of a snapshot.
const MODULE_BYTES_MAX: u64 = ir::wasm::MODULE_BYTES_MAX;
/// Exports by which a module says which ABI it was built for.
const VERSIONS: [&str; 3] = [
    "proxy_abi_version_0_1_0",
    "proxy_abi_version_0_2_0",
    "proxy_abi_version_0_2_1",
];

/// Why a module cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// It is larger than any module may be.
    #[error("the module has {bytes} bytes, but may have {MODULE_BYTES_MAX} at most")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is no module, or uses what is not offered.
    #[error("the module does not compile: {0}")]
    Invalid(String),
    /// It says for no version of the ABI that it was built for it, and has no earlier hook.
    #[error(
        "the module exports no proxy_abi_version_0_1_0, _0_2_0 or _0_2_1: build it with a proxy-wasm SDK"
    )]
    NotProxyWasm,
    /// It has no memory to share.
    #[error("the module exports no memory")]
    NoMemory,
    /// It imports functions that are not there.
    #[error("the module imports what this gateway does not have: {0}")]
    Imports(String),
    /// Plugins cannot run here at all.
    #[error("plugins cannot run on this machine: {0}")]
    Engine(String),
}

/// A compiled module.
pub struct Module {
    digest: [u8; 32],
    pub(crate) pre: InstancePre<Host>,
    /// It has the interface of the earlier data plane.
    pub(crate) is_earlier: bool,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("digest", &self.digest_hex())
            .finish_non_exhaustive()
    }
}

impl Module {
    /// SHA-256 of what it was compiled from.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }

    /// The same in hexadecimal.
    pub fn digest_hex(&self) -> String {
        self.digest
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    pub(crate) fn compile(engine: &Engine, bytes: &[u8]) -> Result<Self, ModuleError> {
        if bytes.len() as u64 > MODULE_BYTES_MAX {
            return Err(ModuleError::TooLarge { bytes: bytes.len() });
        }
        let invalid = |error: wasmtime::Error| ModuleError::Invalid(format!("{error:#}"));
        let module = wasmtime::Module::new(&engine.engine, bytes).map_err(invalid)?;
        let is_earlier = !VERSIONS.iter().any(|it| module.get_export(it).is_some());
        if is_earlier && !earlier::has_hooks(&module) {
            return Err(ModuleError::NotProxyWasm);
        }
        if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
            return Err(ModuleError::NoMemory);
        }
        let mut linker = engine.linker.clone();
        refuse_rest_of_wasi(&mut linker, &module);
        let pre = linker
            .instantiate_pre(&module)
            .map_err(|error| ModuleError::Imports(format!("{error:#}")))?;
        Ok(Self {
            digest: digest(bytes),
            pre,
            is_earlier,
        })
    }
}

pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What a runtime imports of WASI and is not there answers so, instead of keeping the module out.
fn refuse_rest_of_wasi(linker: &mut Linker<Host>, module: &wasmtime::Module) {
    for import in module.imports() {
        let is_wasi = matches!(import.module(), "wasi_snapshot_preview1" | "wasi_unstable");
        let ExternType::Func(kind) = import.ty() else {
            continue;
        };
        if is_wasi && answers_number(&kind) {
            // Those that are there keep what they do.
            let _ = linker.func_new(import.module(), import.name(), kind, |_, _, results| {
                if let Some(result) = results.first_mut() {
                    *result = Val::I32(abi::NOT_THERE);
                }
                Ok(())
            });
        }
    }
}

fn answers_number(kind: &FuncType) -> bool {
    let mut results = kind.results();
    results.next().is_some_and(|result| result.is_i32()) && results.next().is_none()
}
