//! Which sockets stand open: what is new is bound before a configuration is swapped in, what is
//! gone is drained behind it.
//!
//! [`Listeners::prepare`] may fail and changes nothing; [`Listeners::commit`] cannot fail. Called by
//! `apply` around the swap. A socket is an address and port; which listeners share it and whether
//! TLS ends on it is read from the configuration for each connection.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use ir::listener::ListenerProtocol;
use ir::{Listener, Violation, Violations};
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use dataplane_config::RuntimeConfig;
use dataplane_resilience::admission::Count;

pub mod accept;
mod closing;
mod datagrams;
mod handshake;
pub mod proxy_protocol;
mod stream;
pub mod worker;

use accept::Socket;
use datagrams::Ports;
use worker::{Work, Workers};

/// Connections that may wait in the kernel for one worker.
const BACKLOG: i32 = 4096;
/// How long workers may take to close what is not wanted any more; longer than an accept loop ever
/// pauses, and than a busy machine keeps a thread from running. Behind it an address may still be
/// taken when it is wanted again.
const CLOSE_PATIENCE: Duration = Duration::from_secs(10);

/// The sockets that stand open.
#[derive(Debug)]
pub struct Listeners {
    workers: Workers,
    open: BTreeMap<SocketAddr, Open>,
    /// How many connections came to each address, those of sockets that are closed by now included.
    connections: BTreeMap<SocketAddr, Arc<Count>>,
    datagrams: Ports,
    /// The process is on its way out; what is applied from here on opens nothing.
    is_closed: bool,
}

#[derive(Debug)]
struct Open {
    /// Ends accepting.
    stop: CancellationToken,
    /// Ends connections behind their running requests.
    drain: CancellationToken,
    /// Ends once all workers have closed their sockets.
    alive: mpsc::Receiver<Infallible>,
}

impl Open {
    /// Ends accepting, and connections behind their requests.
    fn end(&self) {
        self.stop.cancel();
        self.drain.cancel();
    }

    /// Waits until the address is free and all that waited in the kernel was taken over, or until
    /// `end`.
    async fn closed(mut self, address: SocketAddr, end: Instant) {
        if timeout_at(end, self.alive.recv()).await.is_err() {
            warn!(%address, "a worker is slow to close its socket");
        }
    }
}

/// Sockets that were bound and do not serve yet; dropping them gives the addresses back.
#[derive(Debug, Default)]
pub struct Prepared {
    new: BTreeMap<SocketAddr, Vec<TcpListener>>,
    wanted: BTreeSet<SocketAddr>,
    datagrams: datagrams::Prepared,
}

impl Listeners {
    /// No socket yet.
    pub fn new(workers: Workers) -> Self {
        Self {
            workers,
            open: BTreeMap::new(),
            connections: BTreeMap::new(),
            datagrams: Ports::default(),
            is_closed: false,
        }
    }

    /// Binds what `config` wants and is not open; on any failure nothing is kept.
    pub fn prepare(&self, config: &RuntimeConfig) -> Result<Prepared, Violations> {
        let mut prepared = Prepared::default();
        let mut violations = Violations::default();
        if self.is_closed {
            return Ok(prepared);
        }
        for address in config.binds.keys() {
            prepared.wanted.insert(*address);
            if self.open.contains_key(address) {
                continue;
            }
            let shares_port = self.open.keys().any(|open| open.port() == address.port());
            match bind_all(*address, self.workers.count(), shares_port) {
                Ok(sockets) => {
                    prepared.new.insert(*address, sockets);
                }
                Err(error) => {
                    let carries = |listener: &Listener| listener.protocol != ListenerProtocol::Udp;
                    violations.extend(unbound(config, *address, &error, carries));
                }
            }
        }
        prepared.datagrams = self
            .datagrams
            .prepare(config, &self.workers, &mut violations);
        if violations.is_empty() {
            Ok(prepared)
        } else {
            Err(violations)
        }
    }

    /// Serves what was prepared and drains what is no longer wanted. Cannot fail.
    pub async fn commit(&mut self, prepared: Prepared) {
        let Self {
            open, connections, ..
        } = self;
        connections.retain(|address, count| open.contains_key(address) || count.current() > 0);
        for (address, sockets) in prepared.new {
            let connections = self.connections.entry(address).or_default();
            let (alive, ended) = mpsc::channel(1);
            let open = Open {
                stop: CancellationToken::new(),
                drain: CancellationToken::new(),
                alive: ended,
            };
            let sockets = sockets
                .into_iter()
                .map(|socket| {
                    Work::Connections(Socket {
                        listener: socket,
                        address,
                        stop: open.stop.clone(),
                        drain: open.drain.clone(),
                        open: connections.clone(),
                        alive: alive.clone(),
                    })
                })
                .collect();
            drop(alive);
            self.workers.serve(sockets).await;
            info!(%address, "listener opened");
            self.open.insert(address, open);
        }
        let gone = self
            .open
            .extract_if(.., |address, _| !prepared.wanted.contains(address))
            .collect();
        self.datagrams
            .commit(prepared.datagrams, &self.workers)
            .await;
        close(gone).await;
    }

    /// Addresses that stand open.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.open.keys().copied()
    }

    /// Ends accepting everywhere, for good, and every connection behind its running requests.
    ///
    /// When this returns, what waited in the kernel has become connections.
    pub async fn close_all(&mut self) {
        self.is_closed = true;
        self.datagrams.stop_all();
        close(std::mem::take(&mut self.open)).await;
    }

    /// The workers, to be ended; every socket is closed by that.
    pub fn into_workers(self) -> Workers {
        self.workers
    }
}

async fn close(gone: BTreeMap<SocketAddr, Open>) {
    gone.values().for_each(Open::end);
    let end = Instant::now() + CLOSE_PATIENCE;
    for (address, open) in gone {
        open.closed(address, end).await;
        info!(%address, "listener closed");
    }
}

/// One violation for every listener on that address, so that all can be left out at once.
fn unbound(
    config: &RuntimeConfig,
    address: SocketAddr,
    error: &io::Error,
    is_there: impl Fn(&Listener) -> bool,
) -> Violations {
    let mut violations = Violations::default();
    let listeners = config.listeners.values().map(|config| &config.listener);
    for listener in listeners.filter(|listener| {
        listener.port.get() == address.port()
            && listener.addresses.contains(&address.ip())
            && is_there(listener)
    }) {
        violations.push(Violation {
            object: format!("Listener {}", listener.name),
            path: "port".to_owned(),
            message: cannot_bind(address, error),
        });
    }
    violations
}

fn cannot_bind(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has it, stop that or choose another port",
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a privilege, choose a higher port and let the Service map it"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address, leave it out",
        _ => "check the address",
    };
    format!("cannot bind {address}: {error}; {advice}")
}

/// One socket per worker on the same address; the kernel spreads connections over them.
fn bind_all(address: SocketAddr, count: usize, shares_port: bool) -> io::Result<Vec<TcpListener>> {
    if !shares_port {
        // SO_REUSEPORT would let us share a port with a stranger; without it the kernel objects.
        drop(bind(address, false)?);
    }
    (0..count).map(|_| bind(address, true)).collect()
}

fn bind(address: SocketAddr, shares: bool) -> io::Result<TcpListener> {
    let socket = RawSocket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    if shares {
        socket.listen(BACKLOG)?;
    } else {
        socket.listen(1)?;
    }
    Ok(socket.into())
}
