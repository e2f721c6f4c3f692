//! Two ends of a handshake over an in-memory pipe.

use std::io;

use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::tls::{Agreed, TlsClient, agreed, alert};
use dataplane_testkit::snapshot;
use dataplane_testkit::within;
use dataplane_tls::{HandshakeError, Seen, ServerTls, TlsSession};
use ir::listener::ListenerProtocol;
use ir::{Hostname, Listener, Resources, Secret};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// An HTTPS listener `ns/gw/<name>` for `hostnames` with the secrets `ns/<certificate>`.
pub(crate) fn listener(name: &str, hostnames: &[&str], certificates: &[&str]) -> Listener {
    let mut listener = snapshot::listener(name, 8443, ListenerProtocol::Https);
    listener.hostnames = hostnames
        .iter()
        .map(|n| Hostname::new(n).unwrap())
        .collect();
    listener.tls = Some(snapshot::tls(certificates));
    listener
}

/// One authority and its certificates as secrets, by name of the secret.
pub(crate) fn secrets(authority: &Authority, rows: &[(&str, &[&str])]) -> Resources<Secret> {
    rows.iter()
        .map(|(key, names)| authority.server(names).secret(key))
        .collect()
}

pub(crate) fn compile(listeners: &[Listener], secrets: &Resources<Secret>) -> ServerTls {
    recompile(listeners, secrets, None)
}

pub(crate) fn recompile(
    listeners: &[Listener],
    secrets: &Resources<Secret>,
    previous: Option<&ServerTls>,
) -> ServerTls {
    let listeners: Vec<_> = listeners.iter().collect();
    ServerTls::compile(&listeners, secrets, previous).unwrap()
}

/// What both ends say of a handshake.
pub(crate) struct Outcome {
    pub(crate) server: Result<TlsSession, HandshakeError>,
    pub(crate) client: io::Result<Agreed>,
}

impl Outcome {
    /// The session, which must have come about on both ends.
    pub(crate) fn agreed(self) -> (TlsSession, Agreed) {
        (self.server.unwrap(), self.client.unwrap())
    }

    /// Why the server refused, and the alert that reached the client.
    pub(crate) fn refused(self) -> (&'static str, Option<String>) {
        let reason = self.server.unwrap_err().reason();
        (reason, alert(&self.client.unwrap_err()))
    }
}

/// Shakes hands and, when that works, sends a byte each way, which is when a client of TLS 1.3
/// learns of a late refusal and gets its tickets.
pub(crate) async fn shake_hands(server: &ServerTls, client: &TlsClient, name: &str) -> Outcome {
    let (near, far) = duplex(16 * 1024);
    let (server, client) = within("a handshake", async {
        tokio::join!(serve(server, far), ask(client, near, name))
    })
    .await;
    Outcome { server, client }
}

async fn serve(server: &ServerTls, stream: DuplexStream) -> Result<TlsSession, HandshakeError> {
    let mut stream = server.accept(stream, &mut Seen::default()).await?;
    let byte = stream.read_u8().await.map_err(HandshakeError::Io)?;
    stream.write_u8(byte).await.map_err(HandshakeError::Io)?;
    stream.shutdown().await.map_err(HandshakeError::Io)?;
    Ok(stream.session().clone())
}

async fn ask(client: &TlsClient, stream: DuplexStream, name: &str) -> io::Result<Agreed> {
    let mut stream = client.over(stream, name).await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    // Without close_notify this would be UnexpectedEof.
    assert_eq!(stream.read(&mut [0]).await?, 0);
    Ok(agreed(&stream))
}

/// Both ends with one certificate for a.test and www.a.test at one listener for every name.
pub(crate) fn simple() -> (Authority, Resources<Secret>, Listener, Identity) {
    let authority = Authority::new("test");
    let identity = authority.server(&["a.test", "www.a.test"]);
    let secrets = [identity.secret("ns/a")].into_iter().collect();
    (
        authority,
        secrets,
        listener("ns/gw/one", &[], &["ns/a"]),
        identity,
    )
}
