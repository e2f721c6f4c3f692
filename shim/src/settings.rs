//! The settings file of the shim: `--config FILE`, YAML with camelCase keys.
//!
//! `cli.rs` reads it once at start. The keys are those of the Go control plane as far as they mean
//! something here; [`KEYS`] is the one table of them, with defaults and meanings. A key that is not
//! in the table is refused with the nearest valid one, because a misspelt limit that silently does
//! nothing is worse than a start that fails. Values are checked here and nowhere else.

mod cluster;
mod duration;
mod keys;
mod reference;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ir::SecretText;
use serde::Deserialize;

pub use self::cluster::{
    Addresses, Cluster, GatewayServices, LeaderElection, Mesh, TranslatorLimits,
};
use self::cluster::{RawAddresses, RawCluster, RawElection, RawLimits, RawMesh, RawRunner};
use self::duration::DurationText;
pub use self::keys::KEYS;
use self::keys::with_nearest;
pub use self::reference::reference_page;

/// The settings, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where data planes connect.
    pub grpc_addr: SocketAddr,
    /// Where the admin API listens.
    pub admin_addr: SocketAddr,
    /// Which GatewayClasses are ours.
    pub controller_name: String,
    /// TLS towards data planes.
    pub grpc_tls: Option<TlsFiles>,
    /// TLS of the admin API.
    pub admin_tls: Option<TlsFiles>,
    /// Connections, streams and pushes.
    pub grpc_runtime: GrpcRuntime,
    /// Token of the admin API.
    pub admin_token: Option<SecretText>,
    /// An admin request must be complete within this.
    pub admin_read_header_timeout: Duration,
    /// An admin exchange must be over within this.
    pub admin_write_timeout: Duration,
    /// How long an object is left out that a data plane refuses.
    pub quarantine_retry_after: Duration,
    /// Snapshots kept for catching up.
    pub history_size: usize,
    /// How an API server is followed.
    pub cluster: Cluster,
}

/// Files of a TLS server; they are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM chain.
    pub cert_path: PathBuf,
    /// PEM key.
    pub key_path: PathBuf,
    /// PEM authorities of client certificates.
    pub client_ca_path: Option<PathBuf>,
    /// Refuse a client without a certificate.
    pub require_client_cert: bool,
}

/// `grpcRuntime`, see [`KEYS`]. Absent options are switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcRuntime {
    /// Interval of HTTP/2 pings.
    pub keepalive_time: Duration,
    /// How long a ping may go unanswered.
    pub keepalive_timeout: Duration,
    /// What a client must let pass between pings while it gets no answer; 0 for nothing.
    pub min_ping_interval: Duration,
    /// Ready before the first data plane has connected.
    pub permit_without_stream: bool,
    /// Longest life of a connection on which nothing happens.
    pub max_connection_idle: Option<Duration>,
    /// Longest life of a connection.
    pub max_connection_age: Option<Duration>,
    /// What it gets on top of that to end by itself.
    pub max_connection_age_grace: Duration,
    /// How long handing over one message may take.
    pub snapshot_send_timeout: Duration,
    /// How long the answer to a push may take.
    pub snapshot_ack_timeout: Duration,
    /// How long streams may take to end at shutdown.
    pub graceful_stop_timeout: Duration,
    /// HTTP/2 window of a stream.
    pub initial_window_size: Option<u32>,
    /// HTTP/2 window of a connection.
    pub initial_conn_window_size: Option<u32>,
    /// Streams of one connection.
    pub max_concurrent_streams: u32,
    /// Largest message taken from a data plane.
    pub max_recv_msg_size: usize,
}

impl GrpcRuntime {
    /// How often an empty response tells a data plane that the stream is alive.
    pub fn heartbeat_interval(&self) -> Duration {
        self.keepalive_time / 3
    }
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file, or one named in it, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The text is not YAML of the right shape.
    #[error("settings are malformed at `{path}`: {message}")]
    Malformed {
        /// Key path, `.` for the whole.
        path: String,
        /// What the parser says.
        message: String,
    },
    /// Keys that mean nothing.
    #[error("unknown settings: {0}")]
    UnknownKeys(String),
    /// A value that cannot work.
    #[error("{key}: {problem}")]
    BadValue {
        /// The key.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grpc_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 18080),
            admin_addr: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081),
            controller_name: "gateway.networking.k8s.io/nantian-gw".to_owned(),
            grpc_tls: None,
            admin_tls: None,
            grpc_runtime: GrpcRuntime::default(),
            admin_token: None,
            admin_read_header_timeout: Duration::from_secs(5),
            admin_write_timeout: Duration::from_secs(30),
            quarantine_retry_after: Duration::from_secs(30),
            history_size: 64,
            cluster: Cluster::default(),
        }
    }
}

impl Default for GrpcRuntime {
    fn default() -> Self {
        Self {
            keepalive_time: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            min_ping_interval: Duration::from_secs(15),
            permit_without_stream: false,
            max_connection_idle: Some(Duration::from_secs(120)),
            max_connection_age: Some(Duration::from_secs(1800)),
            max_connection_age_grace: Duration::from_secs(30),
            snapshot_send_timeout: Duration::from_secs(5),
            snapshot_ack_timeout: Duration::from_secs(30),
            graceful_stop_timeout: Duration::from_secs(3),
            initial_window_size: None,
            initial_conn_window_size: None,
            max_concurrent_streams: 200,
            max_recv_msg_size: 4 * 1024 * 1024,
        }
    }
}

impl Settings {
    /// Reads and checks a settings file.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = read_file(path)?;
        Self::parse(&text)
    }

    /// Checks the text of a settings file; an empty one means all defaults.
    pub fn parse(text: &str) -> Result<Self, SettingsError> {
        let mut unknown = BTreeSet::new();
        let raw = if text.trim().is_empty() {
            Raw::default()
        } else {
            let mut note = |path: serde_ignored::Path<'_>| {
                unknown.insert(path.to_string());
            };
            let mut track = serde_path_to_error::Track::new();
            let yaml = serde_yaml::Deserializer::from_str(text);
            let tracked = serde_path_to_error::Deserializer::new(yaml, &mut track);
            let parsed = Raw::deserialize(serde_ignored::Deserializer::new(tracked, &mut note));
            parsed.map_err(|error| SettingsError::Malformed {
                path: track.path().to_string(),
                message: error.to_string(),
            })?
        };
        if !unknown.is_empty() {
            let named: Vec<String> = unknown.iter().map(|key| with_nearest(key)).collect();
            return Err(SettingsError::UnknownKeys(named.join("; ")));
        }
        raw.check()
    }

    /// Refuses an admin address that others can reach without a token.
    pub fn check_admin(&self) -> Result<(), SettingsError> {
        if self.admin_token.is_some() || self.admin_addr.ip().is_loopback() {
            return Ok(());
        }
        Err(bad(
            "adminAddr",
            format!(
                "{} can be reached from outside, set adminAuth.bearerToken or bearerTokenFile, or use 127.0.0.1",
                self.admin_addr
            ),
        ))
    }
}

/// The file as written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Raw {
    grpc_addr: Option<String>,
    admin_addr: Option<String>,
    controller_name: Option<String>,
    #[serde(rename = "grpcTLS")]
    grpc_tls: RawTls,
    #[serde(rename = "adminTLS")]
    admin_tls: RawTls,
    grpc_runtime: RawRuntime,
    admin_auth: RawAuth,
    admin_runtime: RawAdminRuntime,
    quarantine: RawQuarantine,
    history_size: Option<usize>,
    watch_namespaces: Vec<String>,
    sync_period: Option<DurationText>,
    reconciler_runner: RawRunner,
    translator_limits: RawLimits,
    leader_election: RawElection,
    addresses: RawAddresses,
    mesh: RawMesh,
    status_address: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawTls {
    enabled: bool,
    cert_path: PathBuf,
    key_path: PathBuf,
    #[serde(rename = "clientCAPath")]
    client_ca_path: PathBuf,
    require_client_cert: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    keepalive_time: Option<DurationText>,
    keepalive_timeout: Option<DurationText>,
    min_ping_interval: Option<DurationText>,
    permit_without_stream: bool,
    max_connection_idle: Option<DurationText>,
    max_connection_age: Option<DurationText>,
    max_connection_age_grace: Option<DurationText>,
    snapshot_send_timeout: Option<DurationText>,
    snapshot_ack_timeout: Option<DurationText>,
    graceful_stop_timeout: Option<DurationText>,
    initial_window_size: u32,
    initial_conn_window_size: u32,
    max_concurrent_streams: u32,
    max_recv_msg_size: usize,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAuth {
    bearer_token: String,
    bearer_token_file: PathBuf,
}

impl std::fmt::Debug for RawAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawAuth").finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawAdminRuntime {
    read_header_timeout: Option<DurationText>,
    write_timeout: Option<DurationText>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawQuarantine {
    retry_after: Option<DurationText>,
}

impl Raw {
    fn check(self) -> Result<Settings, SettingsError> {
        let default = Settings::default();
        Ok(Settings {
            grpc_addr: address("grpcAddr", self.grpc_addr, default.grpc_addr)?,
            admin_addr: address("adminAddr", self.admin_addr, default.admin_addr)?,
            controller_name: self.controller_name.unwrap_or(default.controller_name),
            grpc_tls: self.grpc_tls.check(&GRPC_TLS)?,
            admin_tls: self.admin_tls.check(&ADMIN_TLS)?,
            grpc_runtime: self.grpc_runtime.check()?,
            admin_token: self.admin_auth.check()?,
            admin_read_header_timeout: positive(
                "adminRuntime.readHeaderTimeout",
                self.admin_runtime.read_header_timeout,
                default.admin_read_header_timeout,
            )?,
            admin_write_timeout: positive(
                "adminRuntime.writeTimeout",
                self.admin_runtime.write_timeout,
                default.admin_write_timeout,
            )?,
            quarantine_retry_after: self.quarantine.check(default.quarantine_retry_after)?,
            history_size: match self.history_size {
                Some(size) if size > 10_000 => {
                    return Err(bad("historySize", format!("{size} is above 10000")));
                }
                size => size.unwrap_or(default.history_size),
            },
            cluster: RawCluster {
                watch_namespaces: self.watch_namespaces,
                sync_period: self.sync_period,
                runner: self.reconciler_runner,
                limits: self.translator_limits,
                election: self.leader_election,
                addresses: self.addresses,
                mesh: self.mesh,
                status_address: self.status_address,
            }
            .check()?,
        })
    }
}

/// The keys of a section of TLS, for messages.
struct TlsKeys {
    enabled: &'static str,
    cert: &'static str,
    key: &'static str,
    client_ca: &'static str,
    requires: &'static str,
}

const GRPC_TLS: TlsKeys = TlsKeys {
    enabled: "grpcTLS.enabled",
    cert: "grpcTLS.certPath",
    key: "grpcTLS.keyPath",
    client_ca: "grpcTLS.clientCAPath",
    requires: "grpcTLS.requireClientCert",
};

const ADMIN_TLS: TlsKeys = TlsKeys {
    enabled: "adminTLS.enabled",
    cert: "adminTLS.certPath",
    key: "adminTLS.keyPath",
    client_ca: "adminTLS.clientCAPath",
    requires: "adminTLS.requireClientCert",
};

impl RawTls {
    fn check(self, keys: &TlsKeys) -> Result<Option<TlsFiles>, SettingsError> {
        if !self.enabled {
            return Ok(None);
        }
        let given = |path: PathBuf| (!path.as_os_str().is_empty()).then_some(path);
        let needed = |key, path| {
            let problem = || bad(key, format!("is empty, but {} is true", keys.enabled));
            given(path).ok_or_else(problem)
        };
        let client_ca_path = given(self.client_ca_path);
        if self.require_client_cert && client_ca_path.is_none() {
            let problem = format!("is empty, but {} is true", keys.requires);
            return Err(bad(keys.client_ca, problem));
        }
        Ok(Some(TlsFiles {
            cert_path: needed(keys.cert, self.cert_path)?,
            key_path: needed(keys.key, self.key_path)?,
            client_ca_path,
            require_client_cert: self.require_client_cert,
        }))
    }
}

impl RawRuntime {
    fn check(self) -> Result<GrpcRuntime, SettingsError> {
        let default = GrpcRuntime::default();
        let or_never = |given: Option<DurationText>, default: Option<Duration>| match given {
            Some(given) if given.0.is_zero() => None,
            Some(given) => Some(given.0),
            None => default,
        };
        Ok(GrpcRuntime {
            keepalive_time: positive(
                "grpcRuntime.keepaliveTime",
                self.keepalive_time,
                default.keepalive_time,
            )?,
            keepalive_timeout: positive(
                "grpcRuntime.keepaliveTimeout",
                self.keepalive_timeout,
                default.keepalive_timeout,
            )?,
            min_ping_interval: self
                .min_ping_interval
                .map_or(default.min_ping_interval, |given| given.0),
            permit_without_stream: self.permit_without_stream,
            max_connection_idle: or_never(self.max_connection_idle, default.max_connection_idle),
            max_connection_age: or_never(self.max_connection_age, default.max_connection_age),
            max_connection_age_grace: self
                .max_connection_age_grace
                .map_or(default.max_connection_age_grace, |given| given.0),
            snapshot_send_timeout: positive(
                "grpcRuntime.snapshotSendTimeout",
                self.snapshot_send_timeout,
                default.snapshot_send_timeout,
            )?,
            snapshot_ack_timeout: positive(
                "grpcRuntime.snapshotAckTimeout",
                self.snapshot_ack_timeout,
                default.snapshot_ack_timeout,
            )?,
            graceful_stop_timeout: self
                .graceful_stop_timeout
                .map_or(default.graceful_stop_timeout, |given| given.0),
            initial_window_size: window("grpcRuntime.initialWindowSize", self.initial_window_size)?,
            initial_conn_window_size: window(
                "grpcRuntime.initialConnWindowSize",
                self.initial_conn_window_size,
            )?,
            max_concurrent_streams: match self.max_concurrent_streams {
                0 => default.max_concurrent_streams,
                given => given,
            },
            max_recv_msg_size: match self.max_recv_msg_size {
                0 => default.max_recv_msg_size,
                given => given,
            },
        })
    }
}

impl RawQuarantine {
    fn check(self, default: Duration) -> Result<Duration, SettingsError> {
        let key = "quarantine.retryAfter";
        match positive(key, self.retry_after, default)? {
            // Every attempt is a snapshot for every data plane.
            short if short < Duration::from_secs(1) => {
                Err(bad(key, format!("{short:?} is below 1s")))
            }
            given => Ok(given),
        }
    }
}

impl RawAuth {
    fn check(self) -> Result<Option<SecretText>, SettingsError> {
        let from_file = !self.bearer_token_file.as_os_str().is_empty();
        if from_file && !self.bearer_token.is_empty() {
            return Err(bad(
                "adminAuth",
                "set either bearerToken or bearerTokenFile, not both".to_owned(),
            ));
        }
        if !from_file {
            let token = self.bearer_token;
            return Ok((!token.is_empty()).then(|| SecretText::new(token)));
        }
        let token = read_file(&self.bearer_token_file)?.trim().to_owned();
        if token.is_empty() {
            return Err(bad(
                "adminAuth.bearerTokenFile",
                format!("{} is empty", self.bearer_token_file.display()),
            ));
        }
        Ok(Some(SecretText::new(token)))
    }
}

fn read_file(path: &Path) -> Result<String, SettingsError> {
    std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
        path: path.to_owned(),
        source,
    })
}

fn bad(key: &'static str, problem: String) -> SettingsError {
    SettingsError::BadValue { key, problem }
}

/// `:8081` means every address, as in Go.
fn address(
    key: &'static str,
    given: Option<String>,
    default: SocketAddr,
) -> Result<SocketAddr, SettingsError> {
    let Some(text) = given else {
        return Ok(default);
    };
    let full = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.clone()
    };
    full.parse()
        .map_err(|_| bad(key, format!("`{text}` is not an address with a port")))
}

fn positive(
    key: &'static str,
    given: Option<DurationText>,
    default: Duration,
) -> Result<Duration, SettingsError> {
    match given {
        Some(given) if given.0 < Duration::from_millis(1) => {
            Err(bad(key, "must be at least 1ms".to_owned()))
        }
        Some(given) => Ok(given.0),
        None => Ok(default),
    }
}

/// HTTP/2 windows end at 2^31 - 1 (RFC 9113, section 6.9.1).
fn window(key: &'static str, given: u32) -> Result<Option<u32>, SettingsError> {
    match given {
        0 => Ok(None),
        1..=0x7fff_ffff => Ok(Some(given)),
        _ => Err(bad(key, format!("{given} is above 2147483647"))),
    }
}

#[cfg(test)]
mod tests;
