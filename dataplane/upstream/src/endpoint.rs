//! One endpoint: where it is, what it speaks, and what is in flight to it.
//!
//! An [`Endpoint`] is made by `cluster.rs` for one configuration and does not change; its
//! [`EndpointLoad`] lives on through later configurations for as long as the address stays in the
//! cluster. The request line holds guards of the load while it uses the endpoint.

use std::fmt;
use std::hash::{BuildHasher as _, Hash, Hasher, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ir::cluster::{BackendTls, SubjectAltName};

use dataplane_resilience::{health_check, outlier};

/// Which HTTP is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1; also what a cluster that names no HTTP at all is given when a route leads to it.
    Http1,
    /// HTTP/2 with prior knowledge, or by ALPN under TLS.
    Http2,
    /// HTTP/2 or HTTP/1.1, as the endpoint agrees by ALPN; only under TLS.
    Negotiated,
}

/// Whether and how an endpoint is spoken to under TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Plain text.
    Plain,
    /// The cluster's protocol says TLS, but no policy says whom to trust or which name to expect.
    Unspecified,
    /// As the policy says.
    Policy(Arc<BackendTls>),
}

impl Tls {
    /// Whether TLS is spoken.
    pub fn is_used(&self) -> bool {
        !matches!(self, Self::Plain)
    }
}

/// One address of a cluster in one configuration.
pub struct Endpoint {
    address: SocketAddr,
    id: u64,
    weight: u32,
    is_ready: bool,
    is_ending: bool,
    zone: Box<str>,
    load: Arc<EndpointLoad>,
}

impl Endpoint {
    pub(crate) fn new(
        address: SocketAddr,
        id: u64,
        source: &ir::Endpoint,
        load: Arc<EndpointLoad>,
    ) -> Self {
        let zone = source.zone.as_str().into();
        Self {
            address,
            id,
            weight: source.weight,
            is_ready: source.is_ready,
            is_ending: source.is_ending,
            zone,
            load,
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Names address, protocol and TLS settings together: connections may be shared between
    /// requests exactly when this is the same. The same within one process, not between processes.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its share among the cluster's endpoints.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Ready, as the control plane says.
    pub fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Not ready because it ends, and still serving.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Topology zone; empty when unknown.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// What is in flight to it.
    pub fn load(&self) -> &Arc<EndpointLoad> {
        &self.load
    }

    /// Whether `other` differs in nothing but what happened to it.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        self.id == other.id
            && self.address == other.address
            && self.weight == other.weight
            && self.is_ready == other.is_ready
            && self.is_ending == other.is_ending
            && self.zone == other.zone
            && Arc::ptr_eq(&self.load, &other.load)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("address", &self.address)
            .field("weight", &self.weight)
            .field("is_ready", &self.is_ready)
            .field("load", &self.load)
            .finish_non_exhaustive()
    }
}

/// The name of a pooled connection's kind; see [`Endpoint::id`].
///
/// Keyed at random per process, so that nobody who may write configuration can make two identities
/// meet and have requests sent over connections that were verified for another name.
pub(crate) fn identity(address: SocketAddr, protocol: Protocol, tls: &Tls) -> u64 {
    static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    let mut hasher = KEYS.build_hasher();
    address.hash(&mut hasher);
    protocol.hash(&mut hasher);
    match tls {
        Tls::Plain => 0_u8.hash(&mut hasher),
        Tls::Unspecified => 1_u8.hash(&mut hasher),
        Tls::Policy(policy) => {
            2_u8.hash(&mut hasher);
            hash_policy(policy, &mut hasher);
        }
    }
    hasher.finish()
}

fn hash_policy(policy: &BackendTls, hasher: &mut impl Hasher) {
    // Taken apart by name: a field that is added later has to be thought of here.
    let BackendTls {
        hostname,
        use_system_ca_certificates,
        ca_pems,
        subject_alt_names,
        min_version,
        max_version,
    } = policy;
    hostname.as_str().hash(hasher);
    use_system_ca_certificates.hash(hasher);
    ca_pems.hash(hasher);
    subject_alt_names.len().hash(hasher);
    for name in subject_alt_names {
        match name {
            SubjectAltName::Hostname(name) => (0_u8, name.as_str()).hash(hasher),
            SubjectAltName::Uri(uri) => (1_u8, uri.as_str()).hash(hasher),
        }
    }
    std::mem::discriminant(min_version).hash(hasher);
    std::mem::discriminant(max_version).hash(hasher);
}

/// The least share of an endpoint that starts slowly.
const WARMTH_MIN: f64 = 0.1;

/// What is in flight to an endpoint, what has been, and how it went.
#[derive(Debug, Default)]
pub struct EndpointLoad {
    requests_active: AtomicUsize,
    connections_active: AtomicUsize,
    picks: AtomicU64,
    /// Until the head of a response, in microseconds and on average; 0 when none was measured.
    latency: AtomicU64,
    /// What was held against it.
    pub(crate) record: outlier::Record,
    /// What its health checks found.
    pub(crate) check: health_check::Record,
    /// Since when it may be chosen, in milliseconds of [`crate::health::since_start`]; 0 for ever.
    well_since: AtomicU64,
}

impl EndpointLoad {
    /// Requests in flight.
    pub fn requests_active(&self) -> usize {
        self.requests_active.load(Ordering::Relaxed)
    }

    /// Connections open.
    pub fn connections_active(&self) -> usize {
        self.connections_active.load(Ordering::Relaxed)
    }

    /// How often it was chosen.
    pub fn picks(&self) -> u64 {
        self.picks.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the guard is dropped.
    pub fn request_started(self: &Arc<Self>) -> RequestToEndpoint {
        self.requests_active.fetch_add(1, Ordering::Relaxed);
        RequestToEndpoint(Arc::clone(self))
    }

    /// Counts a connection as open until the guard is dropped.
    pub fn connection_opened(self: &Arc<Self>) -> ConnectionToEndpoint {
        self.connections_active.fetch_add(1, Ordering::Relaxed);
        ConnectionToEndpoint(Arc::clone(self))
    }

    /// Notes how long the head of a response took. Each counts for an eighth of the average.
    pub fn answered_in(&self, time: Duration) {
        let new = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let old = self.latency.load(Ordering::Relaxed);
        let average = match old {
            0 => new,
            // Of two that come at once one may be lost, which an average bears.
            old => (old - old / 8).saturating_add(new / 8).max(1),
        };
        self.latency.store(average, Ordering::Relaxed);
    }

    /// How long the head of a response takes on average; measured while the cluster is watched.
    pub fn latency(&self) -> Option<Duration> {
        let micros = self.latency.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// Failures in a row of any kind, failures to answer in a row, and ejections since the last
    /// success.
    pub fn held_against(&self) -> (u32, u32, u64) {
        let (any, gateway) = self.record.failures();
        (any, gateway, self.record.ejections())
    }

    /// How much longer it is left out because it kept failing.
    pub fn ejected_for(&self, now: Duration) -> Duration {
        self.record.ejected_for(now)
    }

    /// What its health checks found; nothing when none are made.
    pub fn checks(&self) -> &health_check::Record {
        &self.check
    }

    /// Nothing is known from checks any more, because none are made.
    pub fn forget_checks(&self) {
        self.check.forget();
    }

    /// Notes that it may be chosen from now on, after it was new or unwell.
    pub(crate) fn became_well(&self, now: Duration) {
        let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.well_since.store(now.max(1), Ordering::Relaxed);
    }

    /// How much of its share it gets while it starts slowly, 0.1 to 1.
    pub(crate) fn warmth(&self, window: Duration, now: Duration) -> f64 {
        match self.well_since.load(Ordering::Relaxed) {
            0 => 1.0,
            since => {
                let well_for = now.saturating_sub(Duration::from_millis(since));
                (well_for.as_secs_f64() / window.as_secs_f64()).clamp(WARMTH_MIN, 1.0)
            }
        }
    }

    pub(crate) fn picked(&self) {
        self.picks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts one request as in flight; see [`EndpointLoad::request_started`].
#[derive(Debug)]
#[must_use = "the request counts as in flight only while this is held"]
pub struct RequestToEndpoint(Arc<EndpointLoad>);

impl Drop for RequestToEndpoint {
    fn drop(&mut self) {
        self.0.requests_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts one connection as open; see [`EndpointLoad::connection_opened`].
#[derive(Debug)]
#[must_use = "the connection counts as open only while this is held"]
pub struct ConnectionToEndpoint(Arc<EndpointLoad>);

impl Drop for ConnectionToEndpoint {
    fn drop(&mut self) {
        self.0.connections_active.fetch_sub(1, Ordering::Relaxed);
    }
}
