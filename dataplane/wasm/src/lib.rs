//! Plugins of users: a host of the proxy-wasm ABI on wasmtime, with limits that a plugin cannot pass.
//!
//! [`fetch`] brings modules from elsewhere. [`Plugins`] compiles modules before the configuration that names them is acknowledged, each digest once.
//! A [`Plugin`] is a module with settings; every worker has one instance of it ([`Instances`]), made from
//! what was linked before and used by all its requests. A [`Stream`] is one request on its way through one
//! plugin, and has a function for each hook.
//!
//! Calls into a guest are synchronous and end by a deadline; a plugin that wants to wait holds its request
//! back instead, and goes on when a timer, a queue or an answer wakes it. A trap ends the instance and, by
//! its failure policy, the requests that it had; the next request gets a new instance, unless the plugin
//! failed too often in a row. Types of wasmtime do not leave this crate.

pub mod fetch;
mod stream;
mod instance;
mod plugin;
mod module;
mod engine;
mod abi;
mod exports;
mod host;
mod shared;
pub mod callout;
pub mod facts;
pub mod head;
mod pairs;
pub mod settings;

pub use abi::{Import, imports};
pub use host::LocalResponse;
pub use instance::Instances;
pub use module::{Module, ModuleError};
pub use plugin::{Loaded, Plugin, Plugins};
pub use shared::Condition;
pub use stream::{Direction, Failed, Piece, Stream, Verdict};
