//! Handshakes with clients: the listener and its certificate by server name.
//!
//! `config` compiles one [`ServerTls`] per address and port; the accept loop calls
//! [`ServerTls::accept`] for every connection and keeps the deadline. The ClientHello is read
//! first and decides the listener; a name that no listener serves gets an alert and nothing else.
//! Certificates live in memory only and are exchanged with the configuration, not on connections.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use ir::listener::TlsVersion;
use ir::secret::Secret;
use ir::{Listener, Resources, Violations};
use rustls::ProtocolVersion;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::admission::Admission;
use crate::certificate::CertificateFacts;
use crate::listener::{Compiled, Served, TlsListener};
use crate::server_name::NameTable;
use crate::stream::{Alpn, ServerStream, TlsSession};
use crate::verify::Clients;

/// Why a handshake failed. All of them are the client's doing or the network's, so they are worth
/// a metric and a line at debug level, not more.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// No listener serves the name the client asked for, or it asked for none.
    #[error("no listener serves the server name {0:?}")]
    UnknownServerName(Option<String>),
    /// The client speaks neither HTTP/2 nor HTTP/1.1.
    #[error("the client offers neither h2 nor http/1.1 by ALPN")]
    NoAlpnOverlap,
    /// The client showed no certificate, or none that is trusted.
    #[error("the client's certificate is refused: {0}")]
    ClientCertificate(String),
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[source] io::Error),
    /// No common version or cipher, a malformed message, an alert from the client.
    #[error("the TLS handshake failed: {0}")]
    Protocol(String),
}

impl HandshakeError {
    /// A stable name of its kind, for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownServerName(_) => "unknown_server_name",
            Self::NoAlpnOverlap => "no_alpn_overlap",
            Self::ClientCertificate(_) => "client_certificate",
            Self::Io(_) => "io",
            Self::Protocol(_) => "protocol",
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        let cause = error
            .get_ref()
            .and_then(|cause| cause.downcast_ref::<rustls::Error>());
        match cause {
            None => Self::Io(error),
            Some(rustls::Error::NoApplicationProtocol) => Self::NoAlpnOverlap,
            Some(
                cause @ (rustls::Error::NoCertificatesPresented
                | rustls::Error::InvalidCertificate(_)),
            ) => Self::ClientCertificate(cause.to_string()),
            Some(cause) => Self::Protocol(cause.to_string()),
        }
    }
}

/// What was learnt of a client while it shook hands, also when nothing came of it.
#[derive(Debug, Default)]
pub struct Seen {
    /// True once there was a ClientHello that could be read.
    pub has_hello: bool,
    /// The name it asks for.
    pub server_name: Option<String>,
    /// The listener that is to take it.
    pub listener: Option<Arc<str>>,
}

/// TLS of all listeners that end it at one address and port.
#[derive(Debug)]
pub struct ServerTls {
    by_server_name: NameTable<Arc<TlsListener>>,
    listeners: HashMap<Arc<str>, Arc<TlsListener>>,
}

impl ServerTls {
    /// Compiles the listeners of one address and port that end TLS.
    ///
    /// A listener of `previous` is kept, and with it the sessions its clients may resume, when
    /// neither its TLS settings nor its certificates changed. Of two listeners with the same host
    /// name the one that comes first in `listeners` gets the connections.
    pub fn compile(
        listeners: &[&Listener],
        secrets: &Resources<Secret>,
        previous: Option<&Self>,
    ) -> Result<Self, Violations> {
        let mut compiled: Compiled = previous
            .into_iter()
            .flat_map(|previous| previous.listeners.values())
            .flat_map(|listener| &listener.certificates)
            .map(|served| (served.secret.key.clone(), served.clone()))
            .collect();
        let mut violations = Violations::default();
        let mut server = Self {
            by_server_name: NameTable::default(),
            listeners: HashMap::new(),
        };
        for listener in listeners {
            let before = previous.and_then(|previous| previous.listeners.get(&listener.name));
            match TlsListener::compile(listener, secrets, &mut compiled, before) {
                Ok(next) => server.insert(listener, next),
                Err(faults) => violations.extend(faults),
            }
        }
        if violations.is_empty() {
            Ok(server)
        } else {
            Err(violations)
        }
    }

    fn insert(&mut self, listener: &Listener, compiled: Arc<TlsListener>) {
        let names = match &listener.tls {
            Some(tls) if !tls.sni_hosts.is_empty() => &tls.sni_hosts,
            _ => &listener.hostnames,
        };
        self.by_server_name.insert(names, &compiled);
        self.listeners.insert(listener.name.clone(), compiled);
    }

    /// What is served, once per listener and certificate.
    pub fn certificates(&self) -> impl Iterator<Item = CertificateFacts> {
        self.listeners
            .values()
            .flat_map(|listener| &listener.certificates)
            .map(facts)
    }

    /// The listener that takes a client that asks for `name`, or for none, and the certificate that
    /// a client is shown that understands all keys.
    pub fn choice(&self, name: Option<&str>) -> Option<(&Arc<str>, Option<CertificateFacts>)> {
        let listener = self.by_server_name.best(name)?;
        let certificate = listener.certificate_for(name).map(facts);
        Some((&listener.name, certificate))
    }

    /// Whether a client that was let in then would be let in now, for the same client. One whose
    /// listener is gone is left to whoever routes its requests.
    pub fn admits(&self, admission: &Admission) -> bool {
        let now = self.listeners.get(admission.listener());
        now.is_none_or(|now| admission.holds_at(now))
    }

    /// Shakes hands on `stream`, and notes in `seen` how far that went. Dropping the future drops
    /// the connection.
    pub async fn accept<S>(
        &self,
        stream: S,
        seen: &mut Seen,
    ) -> Result<ServerStream<S>, HandshakeError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        seen.has_hello = true;
        seen.server_name = start.client_hello().server_name().map(str::to_owned);
        let Some(listener) = self.by_server_name.best(seen.server_name.as_deref()) else {
            refuse(start.io, Alert::UnrecognizedName).await;
            return Err(HandshakeError::UnknownServerName(seen.server_name.clone()));
        };
        seen.listener = Some(listener.name.clone());
        if matches!(listener.clients, Clients::Nobody) {
            refuse(start.io, Alert::AccessDenied).await;
            return Err(HandshakeError::ClientCertificate(
                "nobody is let in, because no trust anchor could be read".to_owned(),
            ));
        }
        let mut tls = start.into_stream(listener.config.clone()).await?;
        let mut session = session(&tls, &listener.name, seen.server_name.clone());
        let chain = tls.get_ref().1.peer_certificates();
        match listener.clients.judge(chain, session.is_resumed) {
            Ok(client) => {
                session.client_certificate = client.map(Arc::from);
                let admission = Admission::new(listener.clone(), chain);
                Ok(ServerStream::new(tls, session).admitted(admission))
            }
            Err(reason) => {
                // The client is told by close_notify; that it may not hear it changes nothing.
                let _ = tls.shutdown().await;
                Err(HandshakeError::ClientCertificate(reason))
            }
        }
    }
}

fn facts(served: &Served) -> CertificateFacts {
    CertificateFacts {
        secret: served.secret.key.clone(),
        names: served.certificate.names.clone(),
        not_after: served.certificate.not_after,
    }
}

/// Reads what was agreed on off a finished handshake; the client stays anonymous.
pub(crate) fn session<S>(
    tls: &TlsStream<S>,
    listener: &Arc<str>,
    sni: Option<String>,
) -> TlsSession {
    let connection = tls.get_ref().1;
    TlsSession {
        listener: listener.clone(),
        sni,
        alpn: match connection.alpn_protocol() {
            Some(b"h2") => Some(Alpn::H2),
            Some(b"http/1.1") => Some(Alpn::Http1),
            _ => None,
        },
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => TlsVersion::V1_2,
            _ => TlsVersion::V1_3,
        },
        is_resumed: connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
        client_certificate: None,
    }
}

/// Alerts sent before a configuration is chosen (RFC 8446 section 6).
#[derive(Clone, Copy)]
enum Alert {
    AccessDenied = 49,
    UnrecognizedName = 112,
}

/// Sends a fatal alert in plain text and closes; a client that does not listen misses nothing.
async fn refuse<S: AsyncWrite + Unpin>(mut stream: S, alert: Alert) {
    const ALERT_RECORD: u8 = 21;
    const FATAL: u8 = 2;
    let record = [ALERT_RECORD, 3, 3, 0, 2, FATAL, alert as u8];
    if stream.write_all(&record).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
