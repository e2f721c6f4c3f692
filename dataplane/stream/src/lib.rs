//! The stream proxy: bytes of TCP and TLS connections, and datagrams, to a backend and back.
//!
//! A connection is one straight line, `tcp.rs`: the listener's rule, a backend by weight, an
//! endpoint, a connection to it, perhaps a PROXY header and TLS, bytes both ways, one access
//! record. Where TLS shares a port with passthrough, `server_name.rs` looks at the ClientHello
//! without taking it from the socket, so that whoever serves the connection reads every byte of it;
//! bytes that pass through are never decrypted. Datagrams come in at `udp.rs`; which belong
//! together, for how long and how many is decided in `udp_session.rs`, which owns no socket.
//!
//! The accept loops of `dataplane/src/listener` call [`tcp::serve`] and [`udp::serve`] on the worker
//! thread that got the connection or socket. A session takes what it needs from the configuration
//! when it begins and keeps none of it alive. An idle session holds no buffer: a worker has one
//! piece of memory for all its copying, and only what a peer refuses to take is kept apart.

pub mod tcp;
pub mod server_name;
pub mod udp;
mod connect;
mod admission;
mod connection;
mod copy;
mod proxy_header;
pub mod worker;
mod log;
mod udp_session;
mod batch;
pub mod settings;

pub use settings::{Keepalive, Settings, UdpSettings};
pub use tcp::{Arrival, Client, has_route, serve, unrouted};
pub use worker::Worker;
