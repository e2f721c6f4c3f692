//! What one worker thread shares among its connections: configuration, pool, log.
//!
//! There is one per thread and it never leaves it, hence the cells. Limits that hold for the whole
//! process are atomics behind `Arc`s in here.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::HeaderValue;

use dataplane_config::{Bind, Current, Reader, Store};
use dataplane_telemetry::access_log::Writer;
use dataplane_telemetry::metrics::Metrics;
use dataplane_telemetry::trace::Tracer;
use dataplane_wasm::Instances;
use dataplane_wasm::callout::Callout;

use crate::overload::{Inflight, Overload};
use crate::pool::Pool;
use crate::request_id;
use crate::settings::Settings;

/// One worker's share of the proxy.
pub struct Worker {
    config: RefCell<Reader>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) pool: Pool,
    pub(crate) log: Writer,
    /// Which requests are recorded, and who watches.
    pub(crate) tracer: Tracer,
    pub(crate) overload: Overload,
    pub(crate) inflight: Inflight,
    pub(crate) metrics: Arc<Metrics>,
    /// Plugins; none where no configuration names one.
    pub(crate) instances: Instances,
    random: Cell<u64>,
    ids: (Cell<u64>, Cell<u64>),
    date: RefCell<(Instant, HeaderValue)>,
}

impl Worker {
    /// A worker with an empty pool; `callout` carries what its plugins send.
    pub fn new(
        store: &Store,
        settings: Arc<Settings>,
        (log, tracer): (Writer, Tracer),
        overload: Overload,
        metrics: Arc<Metrics>,
        callout: Rc<dyn Callout>,
    ) -> Self {
        Self {
            config: RefCell::new(store.reader()),
            settings,
            pool: Pool::default(),
            log,
            tracer,
            overload,
            inflight: Inflight::default(),
            metrics,
            instances: Instances::new(callout),
            random: seed(),
            ids: (seed(), seed()),
            date: RefCell::new((Instant::now(), http_date())),
        }
    }

    /// The configuration of this moment.
    pub(crate) fn config(&self) -> Rc<Current> {
        self.config.borrow_mut().load()
    }

    /// The socket of that address in the configuration of this moment.
    pub fn bind(&self, address: SocketAddr) -> Option<Arc<Bind>> {
        self.config().binds.get(&address).cloned()
    }

    /// Lets go of a configuration that was replaced, closes idle backend connections, ends what is
    /// too heavy and writes the log out; to be called about every second.
    pub fn tend(&self) {
        // A worker without requests would hold the former one, and what is counted under it.
        let config = self.config();
        let plugins = config.plugins.values().map(|it| &it.plugin);
        self.instances.tend(plugins);
        drop(config);
        self.pool.sweep(self.settings.upstream_idle_timeout);
        self.inflight.tend(&self.overload);
        self.log.flush();
    }

    /// Closes one idle backend connection, when there is any, so that another one may be opened.
    pub fn let_go(&self) -> bool {
        self.pool.let_go()
    }

    /// True when a connection shall end behind its request; counts that it does.
    pub(crate) fn is_saving(&self) -> bool {
        let is_saving = self.overload.is_saving();
        if is_saving {
            self.overload.metrics.connections_not_kept.increment();
        }
        is_saving
    }

    /// A number evenly drawn from 0 to 1, for pauses that shall differ; nothing secret.
    pub(crate) fn random(&self) -> f64 {
        (drawn(&self.random) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number that no other request of this worker has; nothing secret.
    pub(crate) fn draw(&self) -> u64 {
        drawn(&self.random)
    }

    /// A new id for a request. Two sequences, because one alone could meet that of another worker.
    pub(crate) fn request_id(&self) -> HeaderValue {
        request_id::uuid(drawn(&self.ids.0), drawn(&self.ids.1))
    }

    /// The value of `Date` for this second.
    pub(crate) fn date(&self, now: Instant) -> HeaderValue {
        let mut date = self.date.borrow_mut();
        if now.saturating_duration_since(date.0).as_millis() >= 500 {
            *date = (now, http_date());
        }
        date.1.clone()
    }
}

/// The next number of a sequence (SplitMix64: adds an odd constant and mixes the sum).
fn drawn(state: &Cell<u64>) -> u64 {
    let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    state.set(next);
    let mut mixed = next;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn seed() -> Cell<u64> {
    Cell::new(RandomState::new().hash_one(0))
}

fn http_date() -> HeaderValue {
    let text = httpdate::fmt_http_date(SystemTime::now());
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
