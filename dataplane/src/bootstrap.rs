//! The settings of one process, checked.
//!
//! Read once at start from a YAML file and the environment. What a listener or route does is not
//! here: that comes from the control plane.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use dataplane_telemetry::{access_log, log};
use ir::SecretText;

/// Everything a data plane must know before it starts.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Identity towards the control plane.
    pub node_id: String,
    /// The admin listener.
    pub admin: AdminSettings,
    /// The process's own log.
    pub log: log::Settings,
    /// The access log; `None` when it is off.
    pub access_log: Option<access_log::Settings>,
    /// Limits and deadlines of HTTP.
    pub http: dataplane_http::Settings,
    /// Worker threads; never 0.
    pub workers: usize,
    /// Connections of the whole process; `None` for no limit.
    pub connections_max: Option<usize>,
    /// Connections of one listener's socket; `None` for no limit.
    pub listener_connections_max: Option<i64>,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// How the end is drained.
    pub drain: Drain,
    /// The stream to the control plane.
    pub xds: dataplane_xds::Settings,
}

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub struct Drain {
    /// How long connections are still accepted once readiness is off, so that whoever balances in
    /// front of us has noticed.
    pub min_accept: Duration,
    /// From the signal until running requests are cut.
    pub total: Duration,
}

/// The admin listener.
#[derive(Clone, Debug)]
pub struct AdminSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// What callers must show; `None` lets everyone in.
    pub token: Option<SecretText>,
    /// PEM files of certificate and key; `None` is plain text.
    pub tls: Option<(PathBuf, PathBuf)>,
}

impl Bootstrap {
    /// What a data plane beside a shim in one process needs; everything else has its default.
    pub fn standalone(node_id: &str, control_plane: &str, admin: SocketAddr) -> Self {
        Self {
            node_id: node_id.to_owned(),
            admin: AdminSettings {
                address: admin,
                token: None,
                tls: None,
            },
            log: log::Settings::default(),
            access_log: None,
            http: dataplane_http::Settings::default(),
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            connections_max: Some(50_000),
            listener_connections_max: Some(10_000),
            handshake_timeout: Duration::from_secs(10),
            drain: Drain {
                min_accept: Duration::ZERO,
                total: Duration::from_secs(10),
            },
            xds: dataplane_xds::Settings::new(control_plane, node_id),
        }
    }
}
