//! Which UDP sockets stand open, in the same two steps as those that are listened on.
//!
//! UDP has ports of its own, so nothing here minds what TCP does. A socket that is no longer wanted
//! begins no session and stays for those it has; when its address is wanted again meanwhile, the
//! new sockets take over at once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};

use ir::listener::ListenerProtocol;
use ir::{Listener, Violations};
use socket2::{Domain, Protocol, SockAddr, Socket as RawSocket, Type};
use tokio_util::sync::CancellationToken;
use tracing::info;

use dataplane_config::RuntimeConfig;
use dataplane_stream::udp::Socket;
use dataplane_stream::udp::flood::ListenerLimits;

use super::unbound;
use super::worker::{Work, Workers};

/// The sockets that stand open.
#[derive(Debug, Default)]
pub(super) struct Ports {
    open: BTreeMap<SocketAddr, Open>,
    /// Those that only stay for their sessions; some are closed by now.
    leaving: BTreeMap<SocketAddr, Open>,
}

#[derive(Debug)]
struct Open {
    stop: CancellationToken,
    cut: CancellationToken,
    /// Gone when all workers have closed their sockets.
    alive: Weak<ListenerLimits>,
}

/// Sockets that were bound and do not serve yet.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    new: BTreeMap<SocketAddr, Vec<UdpSocket>>,
    wanted: BTreeSet<SocketAddr>,
}

impl Ports {
    /// Binds what `config` wants and is not open.
    pub(super) fn prepare(
        &self,
        config: &RuntimeConfig,
        workers: &Workers,
        violations: &mut Violations,
    ) -> Prepared {
        let mut prepared = Prepared::default();
        for address in config.udp_binds.keys() {
            prepared.wanted.insert(*address);
            if self.open.contains_key(address) {
                continue;
            }
            let leaving = self.leaving.iter().filter(|(_, open)| open.is_alive());
            let mut ours = self.open.keys().chain(leaving.map(|(address, _)| address));
            let shares_port = ours.any(|open| open.port() == address.port());
            match bind_all(*address, workers, shares_port) {
                Ok(sockets) => {
                    prepared.new.insert(*address, sockets);
                }
                Err(error) => {
                    let carries = |listener: &Listener| listener.protocol == ListenerProtocol::Udp;
                    violations.extend(unbound(config, *address, &error, carries));
                }
            }
        }
        prepared
    }

    /// Serves what was prepared; what is no longer wanted begins no session any more.
    pub(super) async fn commit(&mut self, prepared: Prepared, workers: &Workers) {
        for (address, sockets) in prepared.new {
            if let Some(leaving) = self.leaving.remove(&address) {
                leaving.cut.cancel();
            }
            let shared = Arc::new(ListenerLimits::new(&workers.streams.udp));
            let open = Open {
                stop: CancellationToken::new(),
                cut: CancellationToken::new(),
                alive: Arc::downgrade(&shared),
            };
            let sockets = sockets.into_iter().map(|socket| {
                Work::Datagrams(Socket {
                    socket,
                    address,
                    shared: shared.clone(),
                    stop: open.stop.clone(),
                    cut: open.cut.clone(),
                })
            });
            workers.serve(sockets.collect()).await;
            info!(%address, "UDP listener opened");
            self.open.insert(address, open);
        }
        let wanted = prepared.wanted;
        let gone = self
            .open
            .extract_if(.., |address, _| !wanted.contains(address));
        for (address, open) in gone.collect::<Vec<_>>() {
            self.leave(address, open);
        }
    }

    /// Begins no session anywhere any more.
    pub(super) fn stop_all(&mut self) {
        for (address, open) in std::mem::take(&mut self.open) {
            self.leave(address, open);
        }
    }

    fn leave(&mut self, address: SocketAddr, open: Open) {
        open.stop.cancel();
        info!(%address, "UDP listener closed");
        self.leaving.retain(|_, open| open.is_alive());
        self.leaving.insert(address, open);
    }
}

impl Open {
    fn is_alive(&self) -> bool {
        self.alive.strong_count() > 0
    }
}

/// One socket per worker on the same address; the kernel keeps a client with one of them.
fn bind_all(
    address: SocketAddr,
    workers: &Workers,
    shares_port: bool,
) -> io::Result<Vec<UdpSocket>> {
    if !shares_port {
        // SO_REUSEPORT would let us share a port with a stranger; without it the kernel objects.
        drop(bind(address, false)?);
    }
    (0..workers.count())
        .map(|_| {
            let socket = bind(address, true)?;
            // As much as the kernel allows; it says no to nothing.
            let _ = socket.set_recv_buffer_size(workers.streams.udp.receive_buffer);
            Ok(socket.into())
        })
        .collect()
}

fn bind(address: SocketAddr, shares: bool) -> io::Result<RawSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    socket.set_reuse_port(shares)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}
