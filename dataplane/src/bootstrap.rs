//! The settings of one process, checked.
//!
//! Read once at start from a YAML file and the environment, in two stages: `written.rs` takes what
//! was written, key by key, `checked.rs` what it means together. Both know every key from the one
//! table in [`keys`]. What a listener or route does is not here: that comes from the control plane.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dataplane_telemetry::{access_log, log, trace};
use ir::SecretText;

use crate::session_secret::SecretFile;
use crate::{health, overload};

pub mod error;
pub mod keys;
pub mod reference;
mod checked;
mod in_force;
mod written;

pub use error::{BootstrapError, Fault};
pub use written::Origin;

use written::Written;

/// Largest bootstrap file.
const FILE_BYTES_MAX: u64 = 1 << 20;

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
    /// With what the annotations begin by which routes say how they are logged.
    pub access_log_prefix: String,
    /// Traces; `None` when they are off.
    pub traces: Option<trace::Settings>,
    /// Limits and deadlines of HTTP.
    pub http: dataplane_http::Settings,
    /// Limits and deadlines of streams.
    pub streams: dataplane_stream::Settings,
    /// Connections of the whole process that are carried as bytes; `None` for no limit of their own.
    pub streams_max: Option<usize>,
    /// The same of one listener's socket; `None` for no limit.
    pub listener_streams_max: Option<usize>,
    /// UDP sessions of the whole process; `None` for no limit of their own.
    pub udp_sessions_max: Option<usize>,
    /// Worker threads; never 0.
    pub workers: usize,
    /// Connections of the whole process; `None` for no limit.
    pub connections_max: Option<usize>,
    /// Connections of one listener's socket; `None` for no limit.
    pub listener_connections_max: Option<usize>,
    /// Connections of one client address; `None` for no limit.
    pub client_connections_max: Option<usize>,
    /// What is watched so that the process is not overloaded.
    pub overload: overload::Settings,
    /// For a whole TLS handshake.
    pub handshake_timeout: Duration,
    /// Bytes of extensions in a PROXY protocol header.
    pub proxy_tlvs_max: usize,
    /// What holds for listeners that say nothing else.
    pub listener_defaults: dataplane_config::ListenerDefaults,
    /// Limits of rate of the process, and of each listener and route.
    pub rate_limits: dataplane_config::ProcessLimits,
    /// Modules of plugins may be at private addresses.
    pub plugins_inside: bool,
    /// PEM authorities of servers of modules, beside the system's; may be empty.
    pub plugin_authorities: Vec<u8>,
    /// What plugins may use.
    pub plugins: dataplane_config::PluginLimits,
    /// Topology zone of this data plane; empty when nobody says so.
    pub zone: String,
    /// Health checks of endpoints.
    pub health: health::Settings,
    /// What persistent sessions are sealed under; `None` for a secret that ends with the process.
    pub session_secret: Option<SecretText>,
    /// The file that it is from, to be looked at while running.
    pub session_secret_file: Option<SecretFile>,
    /// How the end is drained.
    pub drain: Drain,
    /// Where the last good configuration is kept; `None` keeps none.
    pub last_good: Option<PathBuf>,
    /// The stream to the control plane.
    pub xds: dataplane_xds::Settings,
    /// Known keys that were written and do nothing in this version; a warning names them.
    pub without_effect: Vec<String>,
    /// Every key with its value, for `--check`.
    pub effective: Vec<Effective>,
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
    /// Whether it may change anything, such as the level of the log.
    pub changes: bool,
    /// What its clients may make grow or last.
    pub limits: AdminLimits,
}

/// What clients of the admin listener may make grow or last.
#[derive(Clone, Copy, Debug)]
pub struct AdminLimits {
    /// Connections at a time; further ones wait in the kernel.
    pub connections_max: usize,
    /// Large answers at a time, because each holds a thread.
    pub large_answers_max: usize,
    /// Largest head of a request.
    pub head_bytes_max: usize,
    /// Most fields of a request.
    pub fields_max: usize,
    /// Largest body of a request.
    pub body_bytes_max: usize,
    /// For a handshake, a whole request head and a body; also how long a connection may wait for
    /// its next request.
    pub request_time: Duration,
    /// Age at which a connection is closed behind its running request.
    pub age_max: Duration,
    /// How long that request may go on.
    pub age_grace: Duration,
    /// How long running requests may go on once the process ends.
    pub drain: Duration,
}

impl Default for AdminLimits {
    fn default() -> Self {
        Self {
            connections_max: 64,
            large_answers_max: 8,
            head_bytes_max: 16 * 1024,
            fields_max: 64,
            body_bytes_max: 4 * 1024,
            request_time: Duration::from_secs(5),
            age_max: Duration::from_secs(60),
            age_grace: Duration::from_secs(30),
            drain: Duration::from_secs(1),
        }
    }
}

/// One key and what it is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// Its name.
    pub key: &'static str,
    /// Its value as it would be written; a secret is blanked.
    pub value: String,
    /// Who set it.
    pub origin: Origin,
}

impl fmt::Display for Effective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.value)?;
        match self.origin {
            Origin::Default => Ok(()),
            Origin::File => f.write_str(" # from the file"),
            Origin::Environment(name) => write!(f, " # from {name}"),
        }
    }
}

impl Bootstrap {
    /// Reads the file, when there is one, and the environment over it.
    pub fn load(
        path: Option<&Path>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, BootstrapError> {
        let document = path.map_or(Ok(serde_yaml::Value::Null), read)?;
        let mut written = Written::read(&document, &env);
        let bootstrap = checked::check(&mut written, &env);
        if written.faults.is_empty() {
            return Ok(bootstrap);
        }
        Err(BootstrapError::Invalid {
            file: path.map(Path::to_owned),
            faults: written.faults,
        })
    }

    /// Reads every file that is named, as `--check` does; while running, one may still come.
    pub fn check_files(&self) -> Result<(), BootstrapError> {
        let control_plane = self.xds.tls.iter().flat_map(|files| {
            let identity = files.identity.iter();
            identity
                .flat_map(|(certificate, key)| [certificate, key])
                .chain([&files.ca])
        });
        let admin = self.admin.tls.iter();
        let admin = admin.flat_map(|(certificate, key)| [certificate, key]);
        for path in control_plane.chain(admin) {
            fs::read(path).map_err(|source| BootstrapError::Read {
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Every key with its value and who set it, a line each; what `--check` prints.
    pub fn summary(&self) -> String {
        let mut lines: Vec<_> = self.effective.iter().map(ToString::to_string).collect();
        let unused = self.without_effect.iter();
        lines.extend(unused.map(|key| format!("{key} # known, has no effect yet")));
        lines.join("\n")
    }

    /// What a data plane beside a shim in one process needs; everything else has its default, but
    /// connections are not ended for their age or requests, and bodies have no limit.
    pub fn standalone(node_id: &str, control_plane: &str, admin: SocketAddr) -> Self {
        let mut bootstrap = checked::check(&mut Written::default(), |_| None);
        node_id.clone_into(&mut bootstrap.node_id);
        bootstrap.admin.address = admin;
        bootstrap.access_log = None;
        bootstrap.http = dataplane_http::Settings::default();
        bootstrap.drain = Drain {
            min_accept: Duration::ZERO,
            total: Duration::from_secs(10),
        };
        bootstrap.xds = dataplane_xds::Settings::new(control_plane, node_id);
        bootstrap.effective.clear();
        bootstrap
    }
}

fn read(path: &Path) -> Result<serde_yaml::Value, BootstrapError> {
    let mut text = String::new();
    let file = File::open(path);
    let read = file.and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    let read = read.map_err(|source| BootstrapError::Read {
        path: path.to_owned(),
        source,
    })?;
    if read as u64 > FILE_BYTES_MAX {
        return Err(BootstrapError::TooLarge {
            path: path.to_owned(),
            bytes_max: FILE_BYTES_MAX,
        });
    }
    serde_yaml::from_str(&text).map_err(|source| BootstrapError::Syntax {
        path: path.to_owned(),
        source,
    })
}
