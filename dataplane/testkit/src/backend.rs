//! Fake backends on loopback: they answer, count, misbehave on request, and stop when dropped.
//!
//! [`Backend::start`] picks the protocol by [`Kind`]; the address is always 127.0.0.1 and a port
//! the kernel chose. HTTP backends describe the request in their answer and do what the request
//! asks of them, see [`answer`]. Connections are held by the backend's one task and end with it.

use std::collections::VecDeque;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use crate::certificate::Identity;

pub mod answer;
pub mod script;
mod grpc;
mod http1;
mod http2;
mod tls;
mod websocket;

pub use script::{Script, Step};
pub use tls::{Handshake, Secured};

/// Connections one backend holds at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 4096;
/// Streams one HTTP/2 connection may have open.
const STREAMS_MAX: u32 = 1000;
/// Request lines one backend remembers.
const REQUEST_LINES_MAX: usize = 4096;

/// What a backend speaks.
#[derive(Clone, Debug)]
pub enum Kind {
    /// HTTP/1.1, see [`answer`].
    Http1,
    /// HTTP/2 with prior knowledge (or by ALPN, with TLS), see [`answer`].
    Http2,
    /// gRPC echo over HTTP/2: `…/ServerStream` sends the message `count` times, `…/Bidi` each
    /// message as it comes, any other method once. The metadata field `x-want` asks for
    /// `count=N`, `grpc_status=N` or `delay_ms=N`.
    Grpc,
    /// WebSocket echo; the text `close` makes it close.
    WebSocket,
    /// Bytes as they come.
    TcpEcho,
    /// The same steps on every connection.
    Scripted(Script),
    /// Accepts, reads, and never answers.
    BlackHole,
}

/// A running fake backend.
pub struct Backend {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// What a backend has seen.
pub(crate) struct Seen {
    name: String,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    lines: Mutex<VecDeque<String>>,
    handshakes: Mutex<VecDeque<Handshake>>,
}

/// A connection as the backends see it.
pub(crate) type Io = Either<TcpStream, tokio_rustls::server::TlsStream<TcpStream>>;

impl Backend {
    /// Starts a backend called `name` in plain text.
    pub async fn start(name: &str, kind: Kind) -> Self {
        Self::listen(name, kind, None).await
    }

    /// Starts a backend called `name` behind TLS with the certificate of `identity`. HTTP/2 and
    /// gRPC are agreed on as `h2`, the others as `http/1.1`.
    pub async fn start_tls(name: &str, kind: Kind, identity: &Identity) -> Self {
        let protocol = match kind {
            Kind::Http2 | Kind::Grpc => "h2",
            _ => "http/1.1",
        };
        let secured = Secured::new(identity).alpn(&[protocol]);
        Self::start_secured(name, kind, &secured).await
    }

    /// Starts a backend called `name` behind TLS as `secured` says.
    pub async fn start_secured(name: &str, kind: Kind, secured: &Secured) -> Self {
        Self::listen(name, kind, Some(secured.acceptor())).await
    }

    /// An HTTP/1.1 backend in plain text.
    pub async fn http1(name: &str) -> Self {
        Self::start(name, Kind::Http1).await
    }

    /// An HTTP/2 backend in plain text.
    pub async fn http2(name: &str) -> Self {
        Self::start(name, Kind::Http2).await
    }

    async fn listen(name: &str, kind: Kind, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("loopback has a free port");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let seen = Arc::new(Seen::new(name));
        let task = tokio::spawn(accept(listener, kind, tls, seen.clone()));
        Self {
            address,
            seen,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its name, as it says in `x-backend` and in its answers.
    pub fn name(&self) -> &str {
        &self.seen.name
    }

    /// Requests (calls, upgrades) it has seen.
    pub fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    /// Connections it has accepted.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.seen.open.load(Ordering::SeqCst)
    }

    /// Method and target of the requests it has seen, the latest last; old ones are forgotten.
    pub fn request_lines(&self) -> Vec<String> {
        self.seen.lines().iter().cloned().collect()
    }

    /// What was agreed on in the TLS handshakes that came to an end, the latest last; old ones are
    /// forgotten.
    pub fn handshakes(&self) -> Vec<Handshake> {
        let handshakes = &self.seen.handshakes;
        let handshakes = handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        handshakes.iter().cloned().collect()
    }

    /// Stops it; when this returns nothing listens at its address and its connections are cut.
    pub async fn stop(mut self) {
        self.task.abort();
        // The only outcome is that it was aborted.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address of loopback at which nothing listens.
pub fn closed_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, crate::snapshot::free_port()).into()
}

/// An endpoint that takes no connection: dialling it hangs, as it does in front of a network that
/// swallows packets.
pub struct Hole {
    address: SocketAddr,
    _listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Hole {
    /// Opens a listener that takes nothing off its queue, and fills that.
    pub async fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("loopback speaks IPv4");
        let bound = socket.bind((Ipv4Addr::LOCALHOST, 0).into());
        bound.expect("loopback has a free port");
        let listener = socket.listen(1).expect("a bound socket listens");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let mut queued = Vec::new();
        let patience = Duration::from_millis(200);
        while let Ok(Ok(tcp)) = timeout(patience, TcpStream::connect(address)).await {
            queued.push(tcp);
            assert!(queued.len() < 100, "the queue never fills");
        }
        Self {
            address,
            _listener: listener,
            _queued: queued,
        }
    }

    /// Where it does not answer.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Seen {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            lines: Mutex::default(),
            handshakes: Mutex::default(),
        }
    }

    /// Notes a request and tells its number, from 1.
    fn request(&self, method: &str, target: &str) -> usize {
        let mut lines = self.lines();
        if lines.len() == REQUEST_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(format!("{method} {target}"));
        self.requests.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn handshake(&self, handshake: Handshake) {
        let mut handshakes = self
            .handshakes
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if handshakes.len() == tls::HANDSHAKES_MAX {
            handshakes.pop_front();
        }
        handshakes.push_back(handshake);
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, VecDeque<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts one open connection for as long as it lives.
struct Open(Arc<Seen>);

impl Open {
    fn new(seen: &Arc<Seen>) -> Self {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        seen.open.fetch_add(1, Ordering::SeqCst);
        Self(seen.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, kind: Kind, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                let Ok((stream, _)) = accepted else { continue };
                let _ = stream.set_nodelay(true);
                let open = Open::new(&seen);
                let work = serve(stream, kind.clone(), tls.clone(), seen.clone());
                connections.spawn(hold(open, work));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn hold(open: Open, work: impl Future<Output = ()>) {
    work.await;
    drop(open);
}

async fn serve(stream: TcpStream, kind: Kind, tls: Option<TlsAcceptor>, seen: Arc<Seen>) {
    let io = match tls {
        None => Either::Left(stream),
        Some(tls) => match tls.accept(stream).await {
            Ok(stream) => {
                seen.handshake(Handshake::of(stream.get_ref().1));
                Either::Right(stream)
            }
            // The client will say what it did not like.
            Err(_) => return,
        },
    };
    match kind {
        Kind::Http1 => http1::serve(io, seen).await,
        Kind::Http2 => http2::serve(io, seen).await,
        Kind::Grpc => grpc::serve(io, seen).await,
        Kind::WebSocket => websocket::serve(io, seen).await,
        Kind::TcpEcho => script::echo(io).await,
        Kind::Scripted(script) => script::run(io, &script, &seen).await,
        Kind::BlackHole => script::swallow(io).await,
    }
}
