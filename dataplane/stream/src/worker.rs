//! What one worker thread shares among its streams: configuration, memory for copying, log.
//!
//! There is one per thread and it never leaves it, hence the cells. Nothing in here is kept borrowed
//! across an await.

use std::cell::{OnceCell, RefCell, RefMut};
use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use dataplane_config::{Current, Reader, Store, UdpBind};
use dataplane_resilience::admission::Permit;
use dataplane_telemetry::access_log::{HandshakeRecord, Writer};
use dataplane_telemetry::metrics::OverloadMetrics;
use dataplane_telemetry::reason::Reason;
use dataplane_tls::Seen;

use crate::batch::Moving;
use crate::log::{self, Refused};
use crate::settings::Settings;

/// How much larger than a usual read the largest one is.
pub(crate) const GROWTH_MAX: usize = 4;

/// One worker's share of the stream proxy.
pub struct Worker {
    config: RefCell<Reader>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) log: Writer,
    pub(crate) overload: Arc<OverloadMetrics>,
    make_room: Box<dyn Fn() -> bool>,
    scratch: RefCell<Box<[u8]>>,
    moving: OnceCell<RefCell<Moving>>,
    /// The configuration that was there at the last look.
    seen: RefCell<Rc<Current>>,
    /// Told when another one is found.
    reconfigured: Notify,
}

impl Worker {
    /// A worker without sessions. `make_room` closes an idle connection to an endpoint, one of
    /// HTTP, when there is any.
    pub fn new(
        store: &Store,
        settings: Arc<Settings>,
        log: Writer,
        overload: Arc<OverloadMetrics>,
        make_room: Box<dyn Fn() -> bool>,
    ) -> Self {
        let mut reader = store.reader();
        Self {
            seen: RefCell::new(reader.load()),
            reconfigured: Notify::new(),
            overload,
            make_room,
            config: RefCell::new(reader),
            settings,
            log,
            scratch: RefCell::default(),
            moving: OnceCell::new(),
        }
    }

    /// The configuration of this moment.
    pub(crate) fn config(&self) -> Rc<Current> {
        self.config.borrow_mut().load()
    }

    /// Returns once the configuration is one of which `is_reached` is true; looked at when there is
    /// another one, a second later at most.
    pub(crate) async fn until_config(&self, is_reached: impl Fn(&Current) -> bool) {
        loop {
            let mut another = pin!(self.reconfigured.notified());
            // From here on nothing is missed.
            another.as_mut().enable();
            if is_reached(&self.config()) {
                return;
            }
            another.await;
        }
    }

    /// A descriptor for a connection to an endpoint; nothing when none is left.
    pub(crate) fn upstream_place(&self) -> Option<Permit> {
        let gate = &self.settings.upstream_connections;
        // One that is idle is worth less than one that is needed.
        gate.enter()
            .or_else(|| (self.make_room)().then(|| gate.enter()).flatten())
    }

    /// Writes the record of a TLS connection that no listener takes.
    pub fn refused(
        &self,
        client: SocketAddr,
        server_name: Option<&str>,
        took: Duration,
        reason: Reason,
    ) {
        self.write_refused(Refused {
            protocol: "tls",
            listener: "",
            client,
            server_name,
            took,
            reason,
        });
    }

    /// Counts a connection that was closed because of a limit, and writes its record. `listener` is
    /// empty where only a server name would tell it.
    pub fn turned_away(&self, protocol: &'static str, listener: &str, client: SocketAddr) {
        self.overload.streams_rejected.increment();
        self.write_refused(Refused {
            protocol,
            listener,
            client,
            server_name: None,
            took: Duration::ZERO,
            reason: Reason::Overload,
        });
    }

    fn write_refused(&self, refused: Refused<'_>) {
        log::refused(&self.log, self.config().version(), refused);
    }

    /// Writes the record of a TLS handshake that failed.
    pub fn handshake_failed(
        &self,
        client: SocketAddr,
        seen: &Seen,
        took: Duration,
        reason: Reason,
        detail: &str,
    ) {
        self.log.write_handshake(&HandshakeRecord {
            timestamp: SystemTime::now() - took,
            duration: took,
            listener: seen.listener.as_deref().unwrap_or_default(),
            client,
            reason,
            detail,
            snapshot_version: self.config().version().as_str(),
            sni: seen.server_name.as_deref(),
        });
    }

    /// The UDP socket of that address in the configuration of this moment.
    pub fn udp_bind(&self, address: SocketAddr) -> Option<Arc<UdpBind>> {
        self.config().udp_binds.get(&address).cloned()
    }

    /// Memory for the length of one poll; made when the first stream comes.
    pub(crate) fn scratch(&self) -> RefMut<'_, Box<[u8]>> {
        let mut scratch = self.scratch.borrow_mut();
        if scratch.is_empty() {
            let bytes = self.settings.buffer_bytes * GROWTH_MAX;
            *scratch = vec![0; bytes.max(self.settings.hello_bytes_max)].into();
        }
        scratch
    }

    /// Memory for datagrams, for the length of one poll; made when the first UDP socket comes.
    pub(crate) fn moving(&self) -> RefMut<'_, Moving> {
        self.moving.get_or_init(RefCell::default).borrow_mut()
    }

    /// Writes the log out, and lets go of a configuration that was replaced; to be called about
    /// every second.
    pub fn tend(&self) {
        let now = self.config();
        if !Rc::ptr_eq(&now, &self.seen.borrow()) {
            self.seen.replace(now);
            self.reconfigured.notify_waiters();
        }
        self.log.flush();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
