//! What one worker thread shares among its streams: configuration, memory for copying, log.
//!
//! There is one per thread and it never leaves it, hence the cells. Nothing in here is kept borrowed
//! across an await.

use std::cell::{OnceCell, RefCell, RefMut};
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dataplane_config::{Current, Reader, Store, UdpBind};
use dataplane_telemetry::access_log::{HandshakeRecord, Writer};
use dataplane_telemetry::reason::Reason;
use dataplane_tls::Seen;
use dataplane_tls::client_hello::HELLO_BYTES_MAX;

use crate::batch::Moving;
use crate::log;
use crate::settings::Settings;

/// How much larger than a usual read the largest one is.
pub(crate) const GROWTH_MAX: usize = 4;

/// One worker's share of the stream proxy.
pub struct Worker {
    config: RefCell<Reader>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) log: Writer,
    scratch: RefCell<Box<[u8]>>,
    moving: OnceCell<RefCell<Moving>>,
}

impl Worker {
    /// A worker without sessions.
    pub fn new(store: &Store, settings: Arc<Settings>, log: Writer) -> Self {
        Self {
            config: RefCell::new(store.reader()),
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

    /// Writes the record of a TLS connection that no listener takes.
    pub fn refused(
        &self,
        client: SocketAddr,
        server_name: Option<&str>,
        took: Duration,
        reason: Reason,
    ) {
        let config = self.config();
        log::refused(
            &self.log,
            client,
            config.version(),
            server_name,
            took,
            reason,
        );
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
            let bytes = (self.settings.buffer_bytes * GROWTH_MAX).max(HELLO_BYTES_MAX);
            *scratch = vec![0; bytes].into();
        }
        scratch
    }

    /// Memory for datagrams, for the length of one poll; made when the first UDP socket comes.
    pub(crate) fn moving(&self) -> RefMut<'_, Moving> {
        self.moving.get_or_init(RefCell::default).borrow_mut()
    }

    /// Writes the log out; to be called about every second.
    pub fn tend(&self) {
        self.log.flush();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}
