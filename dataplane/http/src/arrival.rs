//! What is known about a connection when it comes; the accept loop fills it in.

use std::cell::OnceCell;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;
use tokio_util::sync::CancellationToken;

use dataplane_tls::{Admission, ClientFacts};

/// What is known about a connection when it comes.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The client, or the last proxy before us; a balancer that speaks for it does not count.
    pub client: SocketAddr,
    /// The socket it came to, as the configuration names it.
    pub bind: SocketAddr,
    /// The port of that socket as clients know it.
    pub port: NonZeroU16,
    /// What the handshake agreed on, over TLS.
    pub tls: Option<TlsFacts>,
    /// Cancelled when the connection shall end behind the requests that run.
    pub drain: CancellationToken,
    /// Field values that are the same for all requests of the connection.
    pub texts: Texts,
}

/// Field values about a connection, each written when it is first needed, and its number.
#[derive(Clone, Debug, Default)]
pub struct Texts {
    written: OnceCell<Box<Written>>,
    number: OnceCell<u64>,
}

/// How many connections have a number.
static NUMBERED: AtomicU64 = AtomicU64::new(0);

#[derive(Clone, Debug)]
pub(crate) struct Written {
    /// The client's address.
    pub(crate) client: HeaderValue,
    /// The port it came to.
    pub(crate) port: HeaderValue,
    /// The client's certificate, for those that have one.
    pub(crate) certificate: Option<HeaderValue>,
}

impl Arrival {
    /// Who the client is by its certificate.
    pub(crate) fn client_facts(&self) -> Option<&ClientFacts> {
        self.tls.as_ref()?.client.as_deref()
    }

    /// A connection in plain text, for tests.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self {
            client: "10.0.0.9:4000".parse().unwrap(),
            bind: "10.0.0.1:80".parse().unwrap(),
            port: NonZeroU16::new(80).unwrap(),
            tls: None,
            drain: CancellationToken::new(),
            texts: Texts::default(),
        }
    }

    /// A number that no other connection of this process has. It is given when somebody asks, so that
    /// connections without plugins touch nothing that all threads share.
    pub(crate) fn number(&self) -> u64 {
        let next = || NUMBERED.fetch_add(1, Ordering::Relaxed) + 1;
        *self.texts.number.get_or_init(next)
    }

    /// The client's address and the port it came to, as field values.
    pub(crate) fn written(&self) -> &Written {
        self.texts.written.get_or_init(|| {
            let client = self.client.ip().to_canonical().to_string();
            Box::new(Written {
                client: HeaderValue::try_from(client)
                    .unwrap_or_else(|_| HeaderValue::from_static("unknown")),
                port: HeaderValue::from(self.port.get()),
                certificate: self
                    .client_facts()
                    .and_then(|facts| HeaderValue::try_from(facts.to_field()).ok()),
            })
        })
    }
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug)]
pub struct TlsFacts {
    /// The name the client asked for.
    pub sni: Option<String>,
    /// The listener that was chosen by it.
    pub listener: Arc<str>,
    /// HTTP/2 was chosen by ALPN.
    pub is_http2: bool,
    /// The protocol version, such as `TLSv1.3`.
    pub version: &'static str,
    /// Who the client is, when it showed a certificate that is trusted.
    pub client: Option<Arc<ClientFacts>>,
    /// By what it was let in.
    pub admission: Option<Box<Admission>>,
}
