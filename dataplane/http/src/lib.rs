//! The HTTP proxy: HTTP/1.1, HTTP/2, gRPC and WebSocket from accepted stream to backend and back.
//!
//! [`connection`] reads requests off a stream and hands each to [`proxy`], the conductor, which
//! calls the phases in order; [`exchange`] makes one attempt at one endpoint. Sockets are accepted
//! and TLS is ended by the `dataplane` crate; which rule applies, which endpoint is next and what a
//! filter does is decided by the engines this crate calls.

pub mod connection;
pub mod probe;
pub mod explain;
mod proxy;
mod phase;
mod authorize;
mod tunnel;
mod context;
mod session;
mod mirror;
pub mod plugin_call;
mod plugin_grpc;
mod call;
mod edit;
mod exchange;
mod retry_policy;
mod downstream;
mod plugins;
mod plugin_flags;
mod reply;
pub mod worker;
mod pool;
mod outbox;
mod held;
mod pipe;
mod deadline;
mod message;
mod forwarded;
mod request_id;
pub mod arrival;
pub mod settings;
pub mod overload;
mod framed;
pub mod io;
pub mod frame_guard;
pub mod path;
pub mod h1;

pub use arrival::{Arrival, Texts, TlsFacts};
pub use connection::serve;
pub use dataplane_upstream::admission::Limits as UpstreamLimits;
pub use io::{Io, Linger};
pub use overload::{InflightLimits, Overload};
pub use settings::Settings;
pub use worker::Worker;
