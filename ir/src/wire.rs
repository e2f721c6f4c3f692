//! The generated messages and stubs of `gateway.control.v1`.
//!
//! Besides them only the `Debug` of two messages: key material must not be printed, a Wasm module
//! and its settings are of no use to a reader. Only `decode`, `encode` and the two ends of the
//! stream name these types; everything else sees the typed snapshot.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::use_self,
    clippy::or_fun_call,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    clippy::large_futures,
    reason = "the code is generated"
)]

use std::fmt;

tonic::include_proto!("gateway.control.v1");

impl fmt::Debug for SecretMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretMaterial")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for WasmPluginConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmPluginConfig")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("wasm_bytes", &self.wasm_bytes.len())
            .finish_non_exhaustive()
    }
}
