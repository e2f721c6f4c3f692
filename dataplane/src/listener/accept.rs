//! One socket of one worker: accept, hold to the limits, end TLS, hand over.
//!
//! When descriptors run out, accepting pauses and goes on by itself; connections that wait in the
//! kernel are not lost. When the socket is closed, what waits there is still taken.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use dataplane_config::Bind;
use dataplane_http::{Arrival, Io, TlsFacts, Worker, serve};
use dataplane_resilience::admission::Gate;
use dataplane_telemetry::metrics::ConnectionLimit;
use dataplane_tls::Alpn;
use ir::listener::TlsVersion;

/// The first pause when a descriptor or memory is missing, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A socket and the signals that end it.
#[derive(Debug)]
pub struct Socket {
    /// Bound and listening.
    pub listener: StdListener,
    /// Its address, as the configuration names it.
    pub address: SocketAddr,
    /// Ends accepting.
    pub stop: CancellationToken,
    /// Ends connections behind their running requests.
    pub drain: CancellationToken,
    /// Dropped once the socket is closed.
    pub alive: mpsc::Sender<Infallible>,
}

/// Limits of connections; shared by all workers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of the whole process.
    pub process: Arc<Gate>,
    /// Connections of one listener's socket.
    pub listener_max: Option<i64>,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
}

/// Accepts until told to stop.
pub async fn run(socket: Socket, worker: Rc<Worker>, limits: Limits) {
    // Dropped behind the listener, which is declared later.
    let _alive = socket.alive;
    let listener = match TcpListener::from_std(socket.listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(address = %socket.address, %error, "a socket cannot be served");
            return;
        }
    };
    let door = Rc::new(Door {
        address: socket.address,
        drain: socket.drain,
        worker,
        limits,
    });
    let mut pause = PAUSE_MIN;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = socket.stop.cancelled() => break,
        };
        match accepted {
            Ok((tcp, client)) => {
                pause = PAUSE_MIN;
                door.admit(tcp, client);
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                warn!(address = %door.address, %error, "accepting pauses, check the file limit");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    // Whoever the kernel let in already shall be answered. It is asked itself, because the runtime
    // would say what it knew at its last look.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok((tcp, client)) = accept_now(&listener) {
        door.admit(tcp, client);
    }
}

/// A connection that waits already; an error when there is none.
fn accept_now(listener: &StdListener) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        match listener.accept() {
            Ok((tcp, client)) => {
                tcp.set_nonblocking(true)?;
                return Ok((TcpStream::from_std(tcp)?, client));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Errors that `accept` reports for a connection that is gone again (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// What all connections of one socket share.
struct Door {
    address: SocketAddr,
    drain: CancellationToken,
    worker: Rc<Worker>,
    limits: Limits,
}

impl Door {
    /// Serves the connection in a task of its own, or drops it when there are too many.
    fn admit(self: &Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        let Some(bind) = self.worker.bind(self.address) else {
            return;
        };
        let Some(permit) = self.limits.process.enter() else {
            return bind.metrics.connection_rejected(ConnectionLimit::Process);
        };
        let is_full = self
            .limits
            .listener_max
            .is_some_and(|max| bind.metrics.connections_active() >= max);
        if is_full {
            return bind.metrics.connection_rejected(ConnectionLimit::Listener);
        }
        let door = self.clone();
        tokio::task::spawn_local(async move {
            let open = bind.metrics.connection_opened();
            door.serve(tcp, client, &bind).await;
            drop((open, permit));
        });
    }

    async fn serve(&self, tcp: TcpStream, client: SocketAddr, bind: &Bind) {
        // A socket that refuses the option still works, only slower.
        let _ = tcp.set_nodelay(true);
        let mut arrival = Arrival {
            client,
            bind: self.address,
            tls: None,
            drain: self.drain.clone(),
        };
        let io = match &bind.tls {
            None => Io::Plain(tcp),
            Some(tls) => match timeout(self.limits.handshake_timeout, tls.accept(tcp)).await {
                Ok(Ok(stream)) => {
                    let session = stream.session();
                    arrival.tls = Some(TlsFacts {
                        sni: session.sni.clone(),
                        listener: session.listener.clone(),
                        is_http2: session.alpn == Some(Alpn::H2),
                        version: match session.version {
                            TlsVersion::V1_2 => "TLSv1.2",
                            TlsVersion::V1_3 => "TLSv1.3",
                        },
                    });
                    Io::Tls(Box::new(stream))
                }
                Ok(Err(error)) => {
                    return debug!(%client, reason = error.reason(), "handshake failed");
                }
                Err(_) => return debug!(%client, "handshake took too long"),
            },
        };
        serve(self.worker.clone(), io, arrival).await;
    }
}
