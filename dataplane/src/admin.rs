//! The admin API on its own listener: health, metrics, and what this process does.
//!
//! `app.rs` calls [`serve`] (or [`Server`], where the address matters) on the control runtime, so
//! traffic and admin never share a thread. Paths are in `admin/endpoint.rs`, who may use them in
//! `admin/api.rs`, the listener and its limits in `admin/connection.rs`, the answers in the files
//! named after them. The API reads; what it can change it changes only where the settings say so.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use dataplane_config::Store;
use dataplane_http::Overload;
use dataplane_resilience::admission::Gate;
use dataplane_resilience::pressure::SharedLevel;
use dataplane_telemetry::log::LogHandle;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracing;
use dataplane_tls::AdminTls;
use dataplane_xds::Status;

use crate::bootstrap::AdminSettings;

mod connection;
mod api;
mod openapi;
mod endpoint;
mod console;
pub mod explain;
mod health;
mod certificates;
mod ai;
mod plugins;
mod sessions;
mod inventory;
mod resilience;
mod config;
mod limits;
mod log_level;
mod drain;
mod metrics;
mod xds;
pub mod trace;
pub mod head;
pub mod query;
mod answer;

pub(crate) use query::encode;

/// Whether this process wants traffic.
#[derive(Debug, Default)]
pub struct Readiness {
    phase: AtomicU8,
    /// What the configuration from disk does not serve.
    withheld: Mutex<Vec<String>>,
}

/// The word for [`Phase::Draining`], which nothing follows.
const DRAINING: u8 = 2;

/// Where a process stands between its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No configuration serves yet.
    Starting,
    /// A complete configuration serves.
    Ready,
    /// A configuration from disk serves, and lacks what needs secrets.
    Partial,
    /// A configuration from disk serves, whole.
    FromDisk,
    /// The process is on its way out.
    Draining,
}

impl Phase {
    /// The word of the health paths.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready | Self::FromDisk => "ready",
            Self::Partial => "partial",
            Self::Draining => "draining",
        }
    }
}

impl Readiness {
    /// A complete configuration serves.
    pub fn serving(&self) {
        self.set(1);
        self.lock().clear();
    }

    /// A configuration from disk serves, without what is `withheld`.
    pub fn serving_from_disk(&self, withheld: &[String]) {
        *self.lock() = withheld.to_vec();
        self.set(if withheld.is_empty() { 4 } else { 3 });
    }

    /// What the configuration from disk does not serve as it should.
    pub fn withheld(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn set(&self, phase: u8) {
        // A process that drains stays at that, whatever is still applied.
        let change = |now| (now != DRAINING).then_some(phase);
        let _ = self
            .phase
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
    }

    /// Names stay whole whatever happened while the lock was held.
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.withheld.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process is on its way out.
    pub fn draining(&self) {
        self.phase.store(DRAINING, Ordering::Release);
    }

    /// True while traffic is wanted.
    pub fn is_ready(&self) -> bool {
        matches!(self.phase(), Phase::Ready | Phase::FromDisk)
    }

    /// Where the process stands.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            3 => Phase::Partial,
            4 => Phase::FromDisk,
            _ => Phase::Draining,
        }
    }
}

/// What the handlers look at.
#[derive(Clone, Debug)]
pub struct AdminState {
    /// The current configuration.
    pub store: Arc<Store>,
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// Where requests are watched.
    pub tracing: Tracing,
    /// The stream to the control plane.
    pub status: Arc<Status>,
    /// Whether traffic is wanted.
    pub readiness: Arc<Readiness>,
    /// The process's own log, when this process has one.
    pub log: Option<LogHandle>,
    /// Identity towards the control plane.
    pub node_id: String,
    /// Limits of HTTP, to be shown.
    pub http: Arc<dataplane_http::Settings>,
    /// Connections of clients.
    pub connections: Arc<Gate>,
    /// What the process as a whole carries.
    pub overload: Overload,
    /// How pressed the process is.
    pub level: SharedLevel,
    /// Cancelled by whoever wants the process to end.
    pub drain: CancellationToken,
}

/// What all handlers share.
#[derive(Debug)]
struct Context {
    state: AdminState,
    started: Instant,
    /// Whether anything may be changed.
    changes: bool,
    /// Places for large answers.
    large: Arc<Semaphore>,
    /// When certificates end, as last looked at.
    ends: Arc<metrics::Ends>,
}

/// Opens the listener and serves until `stop` is cancelled.
pub async fn serve(
    settings: AdminSettings,
    state: AdminState,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    Ok(Server::bind(settings).await?.start(state, stop))
}

/// A bound admin listener.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    settings: AdminSettings,
    tls: Option<Tls>,
}

/// [`AdminTls`] with a `Debug` that shows nothing of it.
#[derive(Clone)]
struct Tls(AdminTls);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

impl Server {
    /// Reads the certificate, when there is to be one, and binds the socket.
    pub async fn bind(settings: AdminSettings) -> anyhow::Result<Self> {
        let tls = match &settings.tls {
            Some((certificate, key)) => Some(Tls(AdminTls::from_files(certificate, key)?)),
            None => None,
        };
        let listener = TcpListener::bind(settings.address).await;
        let listener = listener.with_context(|| {
            format!(
                "cannot bind {}, check adminAddr and that no other program has it",
                settings.address
            )
        })?;
        Ok(Self {
            listener,
            settings,
            tls,
        })
    }

    /// Where it is bound.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is cancelled.
    pub fn start(self, state: AdminState, stop: CancellationToken) -> JoinHandle<()> {
        info!(
            address = %self.settings.address,
            tls = self.tls.is_some(),
            token = self.settings.token.is_some(),
            "admin listener opened"
        );
        let limits = self.settings.limits;
        let context = Context {
            state,
            started: Instant::now(),
            changes: self.settings.changes,
            large: Arc::new(Semaphore::new(limits.large_answers_max)),
            ends: Arc::default(),
        };
        let api = api::Api {
            context,
            token: self.settings.token,
            limits,
        };
        let tls = self.tls.map(|tls| tls.0);
        tokio::spawn(connection::run(self.listener, tls, Arc::new(api), stop))
    }
}
