//! One socket of one worker: accept, hold to the limits, end TLS, hand over.
//!
//! When descriptors or memory run out, accepting pauses and goes on by itself; connections that wait
//! in the kernel are not lost. How a socket ends is in `closing`.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use dataplane_config::{Bind, Protocol};
use dataplane_http::{Arrival, Io, Texts, TlsFacts, Worker, serve};
use dataplane_resilience::admission::{ClientPlace, Clients, Count, Gate};
use dataplane_resilience::pressure::{Level, SharedLevel};
use dataplane_telemetry::metrics::{AcceptPause, ConnectionLimit};
use dataplane_tls::{Admission, Alpn, ClientFacts, TlsSession};
use ir::Network;
use ir::listener::TlsVersion;

use super::closing;
use super::proxy_protocol::{self, Header};

/// The first pause when a descriptor or memory is missing, and the longest.
const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a socket that waits for room looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

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
    /// Connections of all workers that came to this address; outlives the socket where the address
    /// opens again.
    pub open: Arc<Count>,
    /// Dropped once the socket is closed.
    pub alive: mpsc::Sender<Infallible>,
}

/// Limits of connections; shared by all workers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of the whole process.
    pub process: Arc<Gate>,
    /// True when `process` is as low as the descriptors there are: then a socket waits for room
    /// instead of turning clients away.
    pub waits_for_descriptors: bool,
    /// Connections of one listener's socket.
    pub listener_max: Option<usize>,
    /// Connections of one client address.
    pub clients: Option<Clients>,
    /// How pressed the process is for memory.
    pub level: SharedLevel,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// Connections of the whole process that are carried as bytes.
    pub streams: Arc<Gate>,
    /// The same of one listener's socket.
    pub listener_streams_max: Option<usize>,
    /// For a whole PROXY protocol header.
    pub proxy_header_timeout: Duration,
    /// Bytes of extensions in such a header.
    pub proxy_tlvs_max: usize,
    /// Limits of UDP sessions.
    pub datagrams: Arc<dataplane_stream::udp::flood::Limits>,
}

/// Accepts until told to stop.
pub async fn run(
    socket: Socket,
    worker: Rc<Worker>,
    streams: Rc<dataplane_stream::Worker>,
    limits: Limits,
) {
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
        open: socket.open,
        worker,
        streams,
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
                if pause > PAUSE_MIN {
                    info!(address = %door.address, "accepting goes on");
                }
                pause = PAUSE_MIN;
                tokio::select! {
                    biased;
                    () = door.room() => {}
                    () = socket.stop.cancelled() => {}
                }
                door.admit(tcp, client);
            }
            Err(error) if closing::is_of_one_connection(&error) => {}
            Err(error) => {
                // Said once for as long as it lasts.
                if pause == PAUSE_MIN {
                    let address = door.address;
                    warn!(%address, %error, "accepting pauses, check the file limit");
                    door.count_pause(AcceptPause::Descriptors);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
    closing::close(listener, |tcp, client| door.admit(tcp, client)).await;
}

/// What HTTP is told of a handshake.
fn tls_facts(session: &TlsSession, admission: Option<Admission>) -> TlsFacts {
    let certificate = session.client_certificate.as_deref();
    TlsFacts {
        sni: session.sni.clone(),
        listener: session.listener.clone(),
        client: certificate.and_then(ClientFacts::read).map(Arc::new),
        admission: admission.map(Box::new),
        is_http2: session.alpn == Some(Alpn::H2),
        version: match session.version {
            TlsVersion::V1_2 => "TLSv1.2",
            TlsVersion::V1_3 => "TLSv1.3",
        },
    }
}

/// A client has its fill of connections.
struct Full;

fn carries_streams(bind: &Bind) -> bool {
    matches!(bind.protocol, Protocol::Tcp | Protocol::Tls)
}

/// What all connections of one socket share.
pub(super) struct Door {
    pub(super) address: SocketAddr,
    pub(super) drain: CancellationToken,
    open: Arc<Count>,
    worker: Rc<Worker>,
    pub(super) streams: Rc<dataplane_stream::Worker>,
    pub(super) limits: Limits,
}

impl Limits {
    /// Why no connection shall be accepted now.
    fn why_wait(&self) -> Option<AcceptPause> {
        if self.level.get() == Level::Closed {
            return Some(AcceptPause::Memory);
        }
        (self.waits_for_descriptors && self.process.is_full()).then_some(AcceptPause::Descriptors)
    }
}

impl Door {
    /// Waits until there is room for one more; those behind it wait in the kernel meanwhile.
    async fn room(&self) {
        let Some(cause) = self.limits.why_wait() else {
            return;
        };
        self.count_pause(cause);
        while self.limits.why_wait().is_some() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn count_pause(&self, cause: AcceptPause) {
        if let Some(bind) = self.worker.bind(self.address) {
            bind.metrics.accept_paused(cause);
        }
    }

    /// Serves the connection in a task of its own, or drops it when there are too many.
    fn admit(self: &Rc<Self>, tcp: TcpStream, client: SocketAddr) {
        let Some(bind) = self.worker.bind(self.address) else {
            return;
        };
        let Some(permit) = self.limits.process.enter() else {
            let limit = match self.limits.waits_for_descriptors {
                true => ConnectionLimit::Descriptors,
                false => ConnectionLimit::Process,
            };
            return self.turn_away(&bind, client, limit);
        };
        let is_stream = carries_streams(&bind);
        let max = if is_stream {
            self.limits.listener_streams_max
        } else {
            self.limits.listener_max
        };
        let Some(among_all_here) = self.open.enter_owned(max) else {
            return self.turn_away(&bind, client, ConnectionLimit::Listener);
        };
        // Behind a balancer the client is known only when its header was read.
        let client_known = bind.proxy_protocol.is_none();
        let Ok(place) = self.place_of(client, client_known, &bind) else {
            return;
        };
        let door = self.clone();
        if is_stream {
            let Some(among_streams) = self.limits.streams.enter() else {
                return self.turn_away(&bind, client, ConnectionLimit::Process);
            };
            // A task of its own kind: it is a fraction of the size of one for HTTP.
            tokio::task::spawn_local(async move {
                let open = bind.metrics.connection_opened();
                if let Some((client, behind)) = door.client_of(&tcp, client, &bind).await {
                    door.serve_stream(tcp, client, bind).await;
                    drop(behind);
                }
                drop((open, permit, among_all_here, among_streams, place));
            });
            return;
        }
        tokio::task::spawn_local(async move {
            let open = bind.metrics.connection_opened();
            if let Some((client, behind)) = door.client_of(&tcp, client, &bind).await {
                door.serve(tcp, client, &bind).await;
                drop(behind);
            }
            drop((open, permit, among_all_here, place));
        });
    }

    /// Counts a connection that is closed because of a limit; a stream has a record as well.
    fn turn_away(&self, bind: &Bind, client: SocketAddr, limit: ConnectionLimit) {
        bind.metrics.connection_rejected(limit);
        if !carries_streams(bind) {
            return;
        }
        match bind
            .any_listener()
            .filter(|_| bind.protocol == Protocol::Tcp)
        {
            Some(listener) => {
                let name = &listener.listener.name;
                self.streams.turned_away("tcp", name, client);
            }
            None => self.streams.turned_away("tls", "", client),
        }
    }

    /// A place among the connections of that client, when those are limited; an error when it has
    /// its fill.
    fn place_of(
        &self,
        client: SocketAddr,
        is_known: bool,
        bind: &Bind,
    ) -> Result<Option<ClientPlace>, Full> {
        let Some(clients) = self.limits.clients.as_ref().filter(|_| is_known) else {
            return Ok(None);
        };
        let place = clients.enter(client.ip());
        if place.is_none() {
            self.turn_away(bind, client, ConnectionLimit::Client);
        }
        place.map(Some).ok_or(Full)
    }

    pub(super) async fn serve(&self, tcp: TcpStream, client: SocketAddr, bind: &Bind) {
        // A socket that refuses the option still works, only slower.
        let _ = tcp.set_nodelay(true);
        let mut arrival = Arrival {
            client,
            bind: self.address,
            port: bind.public_port,
            tls: None,
            drain: self.drain.clone(),
            texts: Texts::default(),
        };
        let io = match &bind.tls {
            None => Io::Plain(tcp),
            Some(tls) => {
                let Some(mut stream) = self.shake_hands(tls, tcp, client, bind).await else {
                    return;
                };
                let admission = stream.take_admission();
                arrival.tls = Some(tls_facts(stream.session(), admission));
                Io::Tls(Box::new(stream))
            }
        };
        serve(self.worker.clone(), io, arrival).await;
    }

    /// Whose connection it is, and its place when that is known only now; nothing when the
    /// connection is refused.
    async fn client_of(
        &self,
        tcp: &TcpStream,
        peer: SocketAddr,
        bind: &Bind,
    ) -> Option<(SocketAddr, Option<ClientPlace>)> {
        let Some(sources) = &bind.proxy_protocol else {
            return Some((peer, None));
        };
        let client = self.behind_balancer(tcp, peer, bind, sources).await?;
        let place = self.place_of(client, true, bind).ok()?;
        Some((client, place))
    }

    /// The client that the connection's PROXY protocol header tells; nothing when it is refused.
    async fn behind_balancer(
        &self,
        tcp: &TcpStream,
        balancer: SocketAddr,
        bind: &Bind,
        sources: &[Network],
    ) -> Option<SocketAddr> {
        let is_trusted = sources.iter().any(|source| source.contains(balancer.ip()));
        if !sources.is_empty() && !is_trusted {
            debug!(client = %balancer, "not a source of PROXY protocol headers");
            bind.metrics
                .connection_rejected(ConnectionLimit::UntrustedSource);
            return None;
        }
        let header = proxy_protocol::read(tcp, self.limits.proxy_tlvs_max);
        match timeout(self.limits.proxy_header_timeout, header).await {
            Ok(Ok(Header::Proxied(client))) => return Some(client),
            Ok(Ok(Header::Local)) => return Some(balancer),
            Ok(Err(error)) => debug!(client = %balancer, %error, "refused"),
            Err(_) => debug!(client = %balancer, "the PROXY protocol header took too long"),
        }
        bind.metrics
            .connection_rejected(ConnectionLimit::ProxyHeader);
        None
    }
}
