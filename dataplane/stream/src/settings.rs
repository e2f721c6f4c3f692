//! Limits and deadlines of streams, as the bootstrap file sets them.
//!
//! Durations and sizes are never 0; `None` means no limit. Which key sets which field is in
//! `dataplane/src/bootstrap`.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use dataplane_resilience::admission::Gate;
use dataplane_tls::client_hello::HELLO_BYTES_MAX;
use dataplane_upstream::admission::Limits;

/// Limits and deadlines; one value for the whole process, shared by all workers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a whole ClientHello that has to be looked at before TLS is passed through.
    pub hello_timeout: Duration,
    /// The largest ClientHello that is looked at.
    pub hello_bytes_max: usize,
    /// How long a client that was refused may still send.
    pub linger_time: Duration,
    /// How much of that is read.
    pub linger_bytes_max: usize,
    /// Until a connection to an endpoint is up; a cluster may ask for less.
    pub connect_timeout: Duration,
    /// The same where another endpoint would be tried next.
    pub connect_timeout_elsewhere: Option<Duration>,
    /// How many further endpoints are tried when a connection cannot be made.
    pub connect_retries: u32,
    /// What each cluster carries at once, unless it says otherwise.
    pub upstream_limits: Limits,
    /// Room for connections to endpoints in the whole process, shared with those of HTTP.
    pub upstream_connections: Gate,
    /// Bytes read at once per direction of a connection; four times as many while they flow.
    pub buffer_bytes: usize,
    /// How long a connection may carry nothing in either direction.
    pub idle: Option<Duration>,
    /// How long a side may take none of the bytes that wait for it.
    pub write_idle: Option<Duration>,
    /// Age at which a connection is ended.
    pub age_max: Option<Duration>,
    /// How long a connection may go on once its listener is gone or the process is to stop.
    pub drain: Duration,
    /// Probes on idle connections to endpoints.
    pub upstream_keepalive: Option<Keepalive>,
    /// Probes on idle connections of clients.
    pub downstream_keepalive: Option<Keepalive>,
    /// What holds for datagrams.
    pub udp: UdpSettings,
}

/// Limits of UDP sessions.
#[derive(Clone, Debug)]
pub struct UdpSettings {
    /// How long neither side of a session may send anything.
    pub idle: Duration,
    /// The same once its listener is gone.
    pub leaving_idle: Duration,
    /// Datagrams of one session that may wait for the kernel.
    pub queue: usize,
    /// Bytes of all sessions of one worker's socket that may wait for their endpoints.
    pub queue_bytes: usize,
    /// Datagrams that may wait for their clients at one worker's socket.
    pub replies: usize,
    /// Their bytes.
    pub reply_bytes: usize,
    /// What the kernel is asked to keep for each socket of a listener.
    pub receive_buffer: usize,
    /// Sessions of one listener's socket.
    pub listener_sessions_max: Option<usize>,
    /// New sessions of one listener's socket a second.
    pub listener_sessions_per_second: Option<u64>,
    /// New sessions of one source a second.
    pub source_sessions_per_second: Option<u64>,
    /// Datagrams from all clients a second.
    pub datagrams_per_second: Option<u64>,
    /// Datagrams to one listener's socket a second.
    pub listener_datagrams_per_second: Option<u64>,
    /// Datagrams from one source a second.
    pub source_datagrams_per_second: Option<u64>,
    /// Sources that are told apart by each of these rates at once.
    pub sources_max: usize,
}

impl Default for UdpSettings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            leaving_idle: Duration::from_secs(2),
            queue: 64,
            queue_bytes: 4 << 20,
            replies: 1024,
            reply_bytes: 1 << 20,
            receive_buffer: 4 << 20,
            listener_sessions_max: Some(8_192),
            listener_sessions_per_second: Some(10_000),
            source_sessions_per_second: None,
            datagrams_per_second: None,
            listener_datagrams_per_second: None,
            source_datagrams_per_second: None,
            sources_max: 65_536,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(10),
            hello_bytes_max: HELLO_BYTES_MAX,
            linger_time: Duration::from_secs(1),
            linger_bytes_max: 64 * 1024,
            connect_timeout: Duration::from_secs(5),
            connect_timeout_elsewhere: Some(Duration::from_secs(2)),
            connect_retries: 2,
            upstream_limits: Limits {
                requests: Some(10_000),
                connections: Some(10_000),
                pending: None,
            },
            upstream_connections: Gate::new(None),
            buffer_bytes: 16 * 1024,
            idle: Some(Duration::from_secs(3600)),
            write_idle: Some(Duration::from_secs(30)),
            age_max: None,
            drain: Duration::from_secs(60),
            upstream_keepalive: Some(Keepalive::default()),
            downstream_keepalive: None,
            udp: UdpSettings::default(),
        }
    }
}

/// How the kernel finds out that the peer of an idle connection is gone (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// Silence before the first probe.
    pub idle: Duration,
    /// Pause between probes.
    pub interval: Duration,
    /// Probes without an answer after which the connection is broken.
    pub probes: u32,
    /// How long sent bytes may stay without acknowledgement; `None` leaves it to the kernel.
    pub user_timeout: Option<Duration>,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(15),
            probes: 4,
            user_timeout: None,
        }
    }
}

impl Keepalive {
    /// Sets it on a connection.
    pub(crate) fn apply(&self, tcp: &TcpStream) -> io::Result<()> {
        let socket = SockRef::from(tcp);
        let keepalive = TcpKeepalive::new()
            .with_time(self.idle)
            .with_interval(self.interval)
            .with_retries(self.probes);
        socket.set_tcp_keepalive(&keepalive)?;
        match self.user_timeout {
            Some(timeout) => socket.set_tcp_user_timeout(Some(timeout)),
            None => Ok(()),
        }
    }
}
