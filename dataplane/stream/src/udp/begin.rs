//! A session's beginning, and what its client sends from there on.
//!
//! Limits first, then the rule, a backend by weight and an endpoint, in the same way as for a TCP
//! connection. What was chosen stays with the session until its end, whatever is configured
//! meanwhile.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, send};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, spawn_local};
use tracing::debug;

use dataplane_config::{ClusterConfig, UdpBind};
use dataplane_resilience::admission::Permit;
use dataplane_resilience::circuit_breaker::OwnedPass;
use dataplane_resilience::pressure::Level;
use dataplane_telemetry::access_log::Writer;
use dataplane_telemetry::metrics::{BackendConnection, DatagramDrop, OpenSession};
use dataplane_telemetry::reason::Reason;
use dataplane_upstream::endpoint::{ConnectionToEndpoint, RequestToEndpoint};
use dataplane_upstream::{Endpoint, Outcome, Tls};

use super::{Port, Undelivered};
use crate::admission;
use crate::batch::{self, Arrived, Moving};
use crate::connect;
use crate::log::Story;
use crate::udp_session::{Flow, Full, Id};

/// What a session keeps.
pub(super) struct Session {
    pub(super) story: Box<Story>,
    upstream: Rc<UdpSocket>,
    endpoint: Arc<Endpoint>,
    answers: Option<Task>,
    /// Sends what waits, while something does.
    sender: Option<Task>,
    _open: (OpenSession, BackendConnection),
    _load: (ConnectionToEndpoint, RequestToEndpoint),
    _places: (Places, admission::Places),
    /// Where the breaker of the backend waits for how this session goes.
    trial: Option<Trial>,
}

/// What a half-open breaker is told of, or nothing when the endpoint says nothing for too long.
struct Trial {
    pass: OwnedPass,
    patience: Option<Task>,
}

/// Places of a session within the limits: of its listener, of all UDP, of the process.
type Places = [Permit; 3];

/// A task that ends with its owner.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Writes its record and closes its socket.
    pub(super) fn end(self, reason: Reason, log: &Writer) {
        drop(self._open);
        self.story.end(reason, log);
    }

    /// Counts what its client has sent.
    fn received(&mut self, datagrams: u64, bytes: u64) {
        let counts = self.story.datagrams.get_or_insert_default();
        counts.0 += datagrams;
        self.story.received += bytes;
        self.story.metrics.carried(bytes, 0);
        self.story.metrics.datagrams_carried(datagrams, 0);
    }

    /// Counts what was given to its client.
    pub(super) fn answered(&mut self, datagrams: u64, bytes: u64) {
        let counts = self.story.datagrams.get_or_insert_default();
        counts.1 += datagrams;
        self.story.sent += bytes;
        self.story.metrics.carried(0, bytes);
        self.story.metrics.datagrams_carried(0, datagrams);
    }
}

impl Port {
    /// Begins a session.
    pub(super) fn begin(self: &Rc<Self>, flow: Flow, now: Duration) -> Result<Id, DatagramDrop> {
        if self.is_stopping() {
            return Err(DatagramDrop::Sessions);
        }
        let bind = self.worker.udp_bind(self.address);
        let bind = bind.ok_or(DatagramDrop::Unroutable)?;
        let access = bind.access.as_ref();
        if access.is_some_and(|lists| !lists.admit(flow.client.ip())) {
            return Err(DatagramDrop::Denied);
        }
        if bind.streams.lookup(None).is_none() {
            return Err(DatagramDrop::Unroutable);
        }
        if !self
            .limits
            .admits_session(&self.shared, flow.client.ip(), now)
        {
            return Err(DatagramDrop::Rate);
        }
        let places = self.places(flow).ok_or(DatagramDrop::Sessions)?;
        let session = self.connected(&bind, flow, places)?;
        let upstream = session.upstream.clone();
        let begun = self.sessions.borrow_mut().begin(flow, now, session);
        let id = begun.ok_or(DatagramDrop::Sessions)?;
        let task = spawn_local(self.clone().answer(id, flow, upstream));
        if let Some(session) = self.sessions.borrow_mut().load(id) {
            session.answers = Some(Task(task.abort_handle()));
            if let Some(trial) = &mut session.trial {
                let task = spawn_local(self.clone().give_up_trial(id));
                trial.patience = Some(Task(task.abort_handle()));
            }
        }
        Ok(id)
    }

    /// Lets another session be the trial of a half-open breaker when this one tells nothing: many
    /// endpoints never answer.
    async fn give_up_trial(self: Rc<Self>, id: Id) {
        tokio::time::sleep(self.worker.settings.connect_timeout).await;
        if let Some(session) = self.sessions.borrow_mut().load(id) {
            session.trial = None;
        }
    }

    /// A place within every limit, for which another session may have to give way.
    fn places(&self, flow: Flow) -> Option<Places> {
        if self.limits.level.get() == Level::Closed {
            return None;
        }
        let gates = [
            &self.shared.sessions,
            &self.limits.sessions,
            &self.limits.process,
        ];
        if self.sessions.borrow().is_full() || gates.iter().any(|gate| gate.is_full()) {
            let gone = self.sessions.borrow_mut().make_room(flow.client.ip())?;
            self.tell(gone, Reason::Overload);
        }
        let [listener, all, process] = gates.map(|gate| gate.enter());
        Some([listener?, all?, process?])
    }

    /// A session with a socket that leads to an endpoint.
    fn connected(
        &self,
        bind: &UdpBind,
        flow: Flow,
        places: Places,
    ) -> Result<Session, DatagramDrop> {
        let config = self.worker.config();
        let rule = bind.streams.lookup(None).ok_or(DatagramDrop::Unroutable)?;
        let metrics = rule.metrics.clone();
        let open = metrics.session_opened();
        let version = config.version().clone();
        let name = bind.listener.clone();
        let mut story = Story::new("udp", flow.client, name, version, metrics);
        story.rule = Some(rule.clone());
        let found = connect::choose(&config, rule, &mut story).and_then(|cluster| {
            let (within, mut pass) = admission::enter(cluster)?;
            let reached = self.reach(cluster, &mut pass, &mut story)?;
            Ok((cluster, within, pass, reached))
        });
        match found {
            Ok((cluster, within, pass, (endpoint, upstream))) => Ok(Session {
                story: Box::new(story),
                upstream: Rc::new(upstream),
                answers: None,
                sender: None,
                _open: (open, cluster.metrics.connection_opened()),
                _load: (
                    endpoint.load().connection_opened(),
                    endpoint.load().request_started(),
                ),
                endpoint,
                _places: (places, within),
                trial: pass.map(|pass| Trial {
                    pass,
                    patience: None,
                }),
            }),
            Err(reason) => {
                drop(open);
                story.end(reason, &self.worker.log);
                Err(match reason {
                    Reason::Overload | Reason::BackendOverload | Reason::CircuitOpen => {
                        DatagramDrop::Sessions
                    }
                    Reason::AddressDenied => DatagramDrop::Denied,
                    _ => DatagramDrop::Unroutable,
                })
            }
        }
    }

    /// An endpoint of the cluster and a socket connected to it.
    fn reach(
        &self,
        cluster: &ClusterConfig,
        pass: &mut Option<OwnedPass>,
        story: &mut Story,
    ) -> Result<(Arc<Endpoint>, UdpSocket), Reason> {
        let source = cluster.cluster.source();
        if matches!(cluster.cluster.tls(), Tls::Policy(_)) || source.proxy_protocol.is_some() {
            // Neither can be done with datagrams, and nothing may go without.
            return Err(Reason::InvalidBackend);
        }
        let mut tried = Vec::new();
        let mut failure = Reason::NoEndpoint;
        while story.attempts <= self.worker.settings.connect_retries {
            let endpoint = connect::pick(&cluster.cluster, &tried, story);
            let Some(endpoint) = endpoint.filter(|it| !tried.contains(&it.address())) else {
                break;
            };
            let address = endpoint.address();
            story.attempts += 1;
            story.endpoint = Some(address);
            let error = match connected_to(address) {
                Ok(socket) => return Ok((endpoint, socket)),
                Err(error) => error,
            };
            debug!(%address, %error, "no way to an endpoint");
            failure = reason(&error);
            cluster.metrics.connection_failed(failure);
            if failure == Reason::Overload {
                break;
            }
            admission::report(cluster, &endpoint, pass.take(), Outcome::GatewayFailure);
            tried.push(address);
        }
        Err(failure)
    }

    /// Notes for the balancer what a session has learnt about its endpoint.
    pub(super) fn report(&self, id: Id, outcome: Outcome) {
        let mut sessions = self.sessions.borrow_mut();
        let Some(session) = sessions.load(id) else {
            return;
        };
        let story = &session.story;
        let backend = story.rule.as_ref().zip(story.backend);
        let backend = backend.and_then(|(rule, at)| rule.backends.get(at));
        let config = self.worker.config();
        let cluster = backend.and_then(|backend| config.cluster_by_keys(&backend.cluster_keys));
        let Some(cluster) = cluster else { return };
        if outcome == Outcome::GatewayFailure {
            cluster.metrics.connection_failed(Reason::ConnectFailed);
        }
        let trial = session.trial.take().map(|trial| trial.pass);
        admission::report(cluster, &session.endpoint, trial, outcome);
    }

    /// Ends a session whose endpoint cannot be reached, as ICMP has said.
    pub(super) fn end_unreachable(&self, id: Id) {
        self.report(id, Outcome::GatewayFailure);
        let answered = {
            let mut sessions = self.sessions.borrow_mut();
            let session = sessions.load(id);
            session.is_some_and(|session| session.story.sent > 0)
        };
        self.end(
            id,
            match answered {
                true => Reason::UpstreamReset,
                false => Reason::ConnectFailed,
            },
        );
    }

    /// Sends datagrams to the endpoint, or keeps them; says how many were taken.
    pub(super) fn pass_on(
        self: &Rc<Self>,
        id: Id,
        moving: &mut Moving,
        range: Range<usize>,
        arrived: &[Arrived],
    ) -> Result<usize, Undelivered> {
        let mut sessions = self.sessions.borrow_mut();
        let Moving {
            buffers, outgoing, ..
        } = moving;
        let waits = sessions.waiting(id).is_some();
        let session = sessions.load(id).ok_or(Undelivered::Unreachable)?;
        let socket = batch::descriptor(&session.upstream);
        let mut send_now = || {
            let mut datagrams = range.clone().map(|at| buffers.datagram(at, &arrived[at]));
            if range.len() == 1 {
                let one = datagrams.next().unwrap_or_default();
                let sent = send(socket, one, MsgFlags::MSG_DONTWAIT);
                return sent.map(|_| 1).map_err(io::Error::from);
            }
            outgoing.send(socket, datagrams)
        };
        let sent = match waits {
            true => Err(io::ErrorKind::WouldBlock.into()),
            // The first word may be of an earlier datagram, for which a router had no room.
            false => match send_now() {
                Err(error) if batch::is_too_long(&error) => send_now(),
                sent => sent,
            },
        };
        match sent {
            Ok(count) => {
                let taken = &arrived[range.start..range.start + count];
                let bytes = taken.iter().map(|it| it.length as u64).sum();
                session.received(count as u64, bytes);
                Ok(count)
            }
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock || batch::would_block(&error) =>
            {
                let first = &arrived[range.start];
                let datagram = buffers.datagram(range.start, first);
                if !waits {
                    session.sender = None;
                }
                let kept = sessions.keep(id, datagram);
                kept.map_err(|Full| Undelivered::Dropped(DatagramDrop::Queue))?;
                let session = sessions.load(id);
                if let Some(session) = &session {
                    session.story.metrics.datagram_waits();
                }
                if let Some(session) = session.filter(|it| it.sender.is_none()) {
                    let task = self.clone().send_waiting(id, session.upstream.clone());
                    session.sender = Some(Task(spawn_local(task).abort_handle()));
                }
                Ok(1)
            }
            Err(error) if batch::is_too_long(&error) => {
                Err(Undelivered::Dropped(DatagramDrop::Size))
            }
            Err(_) => Err(Undelivered::Unreachable),
        }
    }

    /// Sends what waits in a session as soon as the kernel takes it.
    async fn send_waiting(self: Rc<Self>, id: Id, upstream: Rc<UdpSocket>) {
        while upstream.writable().await.is_ok() {
            let sent =
                upstream.try_io(Interest::WRITABLE, || self.send_some_waiting(id, &upstream));
            match sent {
                Err(error)
                    if batch::would_block(&error) || error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return self.end_unreachable(id),
                Ok(()) => return,
            }
        }
    }

    fn send_some_waiting(&self, id: Id, upstream: &UdpSocket) -> io::Result<()> {
        let mut sessions = self.sessions.borrow_mut();
        loop {
            let Some(datagram) = sessions.waiting(id) else {
                return Ok(());
            };
            let bytes = datagram.len() as u64;
            let socket = batch::descriptor(upstream);
            let send_now = || send(socket, datagram, MsgFlags::MSG_DONTWAIT);
            let sent = match send_now() {
                Err(Errno::EMSGSIZE) => send_now(),
                sent => sent,
            };
            match sent {
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Err(error) if error != Errno::EMSGSIZE => return Err(error.into()),
                sent => {
                    sessions.drop_waiting(id);
                    let Some(session) = sessions.load(id) else {
                        return Ok(());
                    };
                    session.story.metrics.datagrams_wait_no_more(1);
                    match sent {
                        Ok(_) => session.received(1, bytes),
                        Err(_) => session.story.metrics.datagram_dropped(DatagramDrop::Size),
                    }
                }
            }
        }
    }
}

fn connected_to(address: SocketAddr) -> io::Result<UdpSocket> {
    let kind = Type::DGRAM.nonblocking().cloexec();
    let socket = RawSocket::new(Domain::for_address(address), kind, Some(Protocol::UDP))?;
    socket.connect(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn reason(error: &io::Error) -> Reason {
    let shortages = [
        Errno::EMFILE,
        Errno::ENFILE,
        Errno::ENOBUFS,
        Errno::ENOMEM,
        Errno::EAGAIN,
    ];
    match error.raw_os_error().map(Errno::from_raw) {
        Some(code) if shortages.contains(&code) => Reason::Overload,
        _ => Reason::ConnectFailed,
    }
}
