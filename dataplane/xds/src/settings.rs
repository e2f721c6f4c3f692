//! What the client must know before it starts: where to dial, as whom, and how patient to be.
//!
//! The bootstrap file of the data plane fills these in (`controlPlaneAddr`, `xdsTls`,
//! `xdsTransport`); the defaults here are those of the contract.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// The fastest a client may ping: a control plane of the contract ends connections that ping more
/// often than every 15 s.
pub const KEEPALIVE_INTERVAL_MIN: Duration = Duration::from_secs(20);

/// Everything [`crate::run`] needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the control plane listens: a URL, or `host:port`.
    pub address: String,
    /// Identity of this data plane; the same over its whole life and shared with no other, because
    /// a control plane ends the older of two streams with one id.
    pub node_id: String,
    /// Name of the group of data planes this one belongs to.
    pub cluster: String,
    /// Certificates for TLS towards the control plane; `None` is plain text.
    pub tls: Option<TlsFiles>,
    /// How long a dial, with its TLS handshake, may take; also the limit of each health check and
    /// each status report.
    pub connect_timeout: Duration,
    /// How often an open stream is pinged; raised to [`KEEPALIVE_INTERVAL_MIN`] when lower.
    pub keepalive_interval: Duration,
    /// How long the answer to a ping may take.
    pub keepalive_timeout: Duration,
    /// The largest message taken from the control plane, after decompression.
    pub message_bytes_max: usize,
    /// The protocol's own timers.
    pub timing: Timing,
    /// Where is noted how many data planes are live, whenever the control plane says so.
    pub live_replicas: Arc<AtomicU32>,
}

impl Settings {
    /// Settings for plain text with every default of the contract.
    pub fn new(address: impl Into<String>, node_id: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            node_id: node_id.into(),
            cluster: String::new(),
            tls: None,
            connect_timeout: Duration::from_secs(5),
            keepalive_interval: KEEPALIVE_INTERVAL_MIN,
            keepalive_timeout: Duration::from_secs(5),
            message_bytes_max: 96 * 1024 * 1024,
            timing: Timing::default(),
            live_replicas: Arc::default(),
        }
    }
}

/// The PEM files of the TLS channel. They are read again at each dial, so a rotated certificate is
/// picked up with the next connection.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Whom to trust.
    pub ca: PathBuf,
    /// Our own certificate and its key, when the control plane wants one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name the control plane's certificate must carry; the host of the address when `None`.
    pub domain_name: Option<String>,
}

/// The timers of the protocol.
#[derive(Clone, Debug)]
pub struct Timing {
    /// The longest first pause between two dials, and twice the longest at all while nobody listens.
    pub backoff_initial: Duration,
    /// The longest pause between two dials of one that listens and fails; also how long a stream must last to be called stable,
    /// after which the pauses start small again.
    pub backoff_max: Duration,
    /// How long a stream may be silent before it is given up.
    pub stale_stream_timeout: Duration,
    /// How long the control plane may be silent before what is held is called stale.
    pub freshness_timeout: Duration,
    /// How often the health of the control plane is asked for.
    pub health_interval: Duration,
    /// How often a status report is sent.
    pub report_interval: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff_initial: Duration::from_secs(2),
            backoff_max: Duration::from_secs(30),
            stale_stream_timeout: Duration::from_secs(30),
            freshness_timeout: Duration::from_secs(90),
            health_interval: Duration::from_secs(5),
            report_interval: Duration::from_secs(10),
        }
    }
}
