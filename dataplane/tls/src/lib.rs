//! TLS of the data plane: handshakes towards clients and on the admin listener.
//!
//! The only room of rustls. `config` compiles [`ServerTls`] from the listeners and secrets of a
//! snapshot, the accept loop hands it sockets, and everyone else sees [`ServerStream`] and
//! [`TlsSession`] without any rustls type. TLS 1.2 and 1.3 with forward secrecy and AEAD only,
//! no early data, no renegotiation, close_notify at the end.
//!
//! Deadlines are not kept here: whoever calls `accept` bounds it in time.

pub mod admin;
pub mod server;
pub mod client_hello;
pub mod stream;
mod listener;
mod verify;
mod certificate;
mod server_name;
mod provider;

pub use admin::{AdminTls, AdminTlsError};
pub use certificate::CertificateFacts;
pub use client_hello::{Alert, ClientHello, HelloError, HelloReader};
pub use provider::install_crypto_provider;
pub use server::{HandshakeError, ServerTls};
pub use stream::{Alpn, ServerStream, TlsSession};
