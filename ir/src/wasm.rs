//! Wasm plugins.
/// .
#[derive(Clone, Debug, PartialEq)]
pub struct WasmPlugin;
