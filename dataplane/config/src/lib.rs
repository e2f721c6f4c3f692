//! What a request reads: the compiled configuration, held in one place and swapped whole.
//!
//! [`compile`] turns a snapshot into a [`RuntimeConfig`], each engine compiling its own part, and
//! carries over what outlives a configuration; with the previous one at hand it redoes only what
//! changed. [`Store`] holds the current one; a request loads it once and sees that one to its end.
//! Nothing here opens a socket or decides about a request.

pub mod compile;
mod consumers;
pub mod store;
pub mod runtime;
pub mod streams;
pub mod ai;
pub mod backend_tls;
pub mod filters;
mod observed;
pub mod access;
pub mod kept;
mod rule_settings;
pub mod rate_limits;
pub mod token_budgets;
pub mod sessions;
pub mod session_secrets;
pub mod plugins;

pub use dataplane_wasm::fetch::{Fetcher, Limits as FetchLimits};
pub use dataplane_wasm::settings::Limits as SandboxLimits;

pub use access::AddressLists;
pub use ai::{AiCluster, Guard, Place, Reached, Site};
pub use backend_tls::{ClusterTls, Identities, PolicyTls};
pub use compile::compile;
pub use filters::{AuthProtocol, ExternalAuth, Filters, Mirror, RequestFilter, ResponseFilter};
pub use kept::Kept;
pub use plugins::{Configured, PluginHost, PluginLimits, PluginSet, PluginState};
pub use rate_limits::{Asked, Key, Limiter, Limits, ProcessLimits, client_of};
pub use rule_settings::RuleSettings;
pub use runtime::{
    Backend, Bind, Clients, ClusterConfig, ListenerConfig, ListenerDefaults, Protocol, Rule,
    RuntimeConfig,
};
pub use session_secrets::{Overlap, Rotation, SessionSecrets};
pub use sessions::{Session, SessionPolicy, cluster_hash};
pub use store::{Current, Reader, Store};
pub use streams::{StreamBackend, StreamRule, Streams, UdpBind};
pub use token_budgets::Budget;
