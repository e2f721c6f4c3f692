//! Plugins of users: a host of the proxy-wasm ABI on wasmtime, with limits that a plugin cannot pass.
//!
//! A module is fetched, checked and compiled before the configuration that names it is acknowledged; its
//! instances then serve the hooks of requests. A plugin that traps, loops or leaks loses its instance, never
//! the gateway.
