//! What is noted of a session while it runs, and the one record at its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ir::Version;

use dataplane_config::StreamRule;
use dataplane_telemetry::access_log::{Destination, StreamRecord, Writer};
use dataplane_telemetry::metrics::StreamMetrics;
use dataplane_telemetry::reason::Reason;

/// One session, as it will be told.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) protocol: &'static str,
    pub(crate) client: SocketAddr,
    pub(crate) listener: Arc<str>,
    pub(crate) version: Version,
    pub(crate) metrics: Arc<StreamMetrics>,
    pub(crate) rule: Option<Arc<StreamRule>>,
    /// Position among the rule's backends.
    pub(crate) backend: Option<usize>,
    pub(crate) endpoint: Option<SocketAddr>,
    pub(crate) connect_time: Option<Duration>,
    pub(crate) attempts: u32,
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) tls_version: Option<&'static str>,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) datagrams: Option<(u64, u64)>,
    began: Instant,
    began_at: SystemTime,
}

impl Story {
    pub(crate) fn new(
        protocol: &'static str,
        client: SocketAddr,
        listener: Arc<str>,
        version: Version,
        metrics: Arc<StreamMetrics>,
    ) -> Self {
        Self {
            protocol,
            client,
            listener,
            version,
            metrics,
            rule: None,
            backend: None,
            endpoint: None,
            connect_time: None,
            attempts: 0,
            server_name: None,
            tls_version: None,
            received: 0,
            sent: 0,
            datagrams: None,
            began: Instant::now(),
            began_at: SystemTime::now(),
        }
    }

    /// How long it has lasted.
    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Writes the record and the figures; bytes are counted by whoever carries them.
    pub(crate) fn end(self, reason: Reason, log: &Writer) {
        self.metrics.session_ended(reason);
        let rule = self.rule.as_deref();
        let backend = rule.and_then(|rule| rule.backends.get(self.backend?));
        let record = StreamRecord {
            timestamp: self.began_at,
            duration: self.age(),
            protocol: self.protocol,
            listener: &self.listener,
            client: self.client,
            bytes_received: self.received,
            bytes_sent: self.sent,
            datagrams: self.datagrams,
            destination: Destination {
                route: rule.map(|rule| &*rule.route),
                rule: rule.map(|rule| rule.index),
                backend: backend.map(|backend| &*backend.display),
                upstream_addr: self.endpoint,
                upstream_connect_time: self.connect_time,
                attempts: self.attempts,
            },
            reason,
            snapshot_version: self.version.as_str(),
            tls_version: self.tls_version,
            sni: self.server_name.as_deref(),
        };
        log.write_stream_as(&record, rule.and_then(|rule| rule.log.as_deref()));
    }
}

/// A connection that ended before a route was looked for.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) protocol: &'static str,
    /// Empty when it is not known.
    pub(crate) listener: &'a str,
    pub(crate) client: SocketAddr,
    pub(crate) server_name: Option<&'a str>,
    pub(crate) took: Duration,
    pub(crate) reason: Reason,
}

/// Writes the record of a connection that nobody takes.
pub(crate) fn refused(log: &Writer, version: &Version, refused: Refused<'_>) {
    log.write_stream(&StreamRecord {
        timestamp: SystemTime::now() - refused.took,
        duration: refused.took,
        listener: refused.listener,
        reason: refused.reason,
        snapshot_version: version.as_str(),
        sni: refused.server_name,
        ..StreamRecord::unknown(refused.protocol, refused.client)
    });
}
