//! TLS of the data plane: handshakes with clients, with endpoints, and on the admin listener.
//!
//! The only room of rustls. `config` compiles [`ServerTls`] and [`ClientTls`] from a snapshot, the
//! accept loop and the dialling of `http` hand them sockets, and everyone else sees [`ServerStream`] and
//! [`TlsSession`] without any rustls type. TLS 1.2 and 1.3 with forward secrecy and AEAD only,
//! no early data, no renegotiation, close_notify at the end.
//!
//! Deadlines are not kept here: whoever calls `accept` or `connect` bounds it in time.

pub mod admin;
pub mod client;
pub mod server;
pub mod client_hello;
pub mod stream;
mod admission;
mod client_facts;
mod listener;
mod verify;
mod anchors;
mod certificate;
mod server_name;
pub mod seal;
mod provider;

pub use admin::{AdminTls, AdminTlsError};
pub use admission::Admission;
pub use certificate::{CertificateDetails, CertificateFacts};
pub use client::{
    BackendTrust, ClientIdentity, ClientStream, ClientTls, ClientTlsError, ConnectError, Offer,
};
pub use client_facts::ClientFacts;
pub use client_hello::{Alert, ClientHello, HelloError, HelloReader};
pub use provider::install_crypto_provider;
pub use seal::{SealError, Sealer};
pub use server::{HandshakeError, Seen, ServerTls};
pub use stream::{Alpn, ServerStream, TlsSession};
