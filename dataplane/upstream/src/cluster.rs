//! A cluster as a request meets it, and the state that outlives a configuration.
//!
//! `dataplane/config` compiles one from each `ir::Cluster` and hands in the cluster that had the
//! same key before; whose turn it is and what is known of every endpoint that stays are taken from
//! it. How endpoints are drawn is in `balance.rs`, who of them is well in `health.rs`.
//! Endpoints that are named and not addressed are left out and counted: nothing resolves names yet.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dataplane_resilience::health_check::{self, Fault};
use dataplane_resilience::outlier::Failure;
use ir::cluster::{Balancing, ClusterProtocol, EndpointAddress, HashKey};

use crate::admission::{Admission, Limits};
use crate::balance::{Ask, Available, Balancer, Turn, hash};
use crate::endpoint::{Endpoint, EndpointLoad, Protocol, Tls, identity};
use crate::health::{Outcome, Rules, since_start};
use crate::near::Near;

/// A group of endpoints that serve the same thing.
#[derive(Debug)]
pub struct Cluster {
    source: Arc<ir::Cluster>,
    protocol: Protocol,
    tls: Tls,
    /// All with an address, ready or not, one per address, in the order of the control plane.
    endpoints: Box<[Arc<Endpoint>]>,
    /// Places in `endpoints`; made when the first session comes.
    #[expect(
        clippy::box_collection,
        reason = "most of thousands of clusters never make it, and an empty place in each is memory"
    )]
    by_address: OnceLock<Box<HashMap<SocketAddr, usize>>>,
    /// Those of `endpoints` that may be chosen; see [`candidates`].
    candidates: Box<[Arc<Endpoint>]>,
    /// Which of `candidates` are well.
    available: Available,
    /// When one that is unwell is due to be well again, in milliseconds of [`since_start`].
    next_well: AtomicU64,
    /// Held by who looks at all of `candidates`.
    looking: Mutex<()>,
    rules: Arc<Rules>,
    balancer: Balancer,
    near: Option<Box<Near>>,
    turn: Arc<Turn>,
    admission: Arc<Admission>,
    unresolved: usize,
}

impl Cluster {
    /// Compiles a cluster; `previous` is the one of the same key in the configuration before.
    ///
    /// When nothing has changed the answer is `previous` itself.
    pub fn compile(source: &Arc<ir::Cluster>, previous: Option<&Arc<Self>>) -> Arc<Self> {
        Self::compile_in("", source, previous)
    }

    /// The same for a data plane in that zone; in none when it is empty.
    pub fn compile_in(
        zone: &str,
        source: &Arc<ir::Cluster>,
        previous: Option<&Arc<Self>>,
    ) -> Arc<Self> {
        let previous = previous.filter(|previous| previous.source.key == source.key);
        if let Some(previous) = previous
            && (Arc::ptr_eq(&previous.source, source) || previous.source == *source)
        {
            return Arc::clone(previous);
        }
        Arc::new(Self::build(zone, source, previous))
    }

    fn build(zone: &str, source: &Arc<ir::Cluster>, previous: Option<&Arc<Self>>) -> Self {
        let protocol = protocol(source);
        let tls = tls(source);
        let (endpoints, unresolved) = compile_endpoints(source, protocol, &tls, previous);
        let candidates = candidates(&endpoints);
        let drawn: Vec<_> = candidates
            .iter()
            .map(|endpoint| (endpoint.address(), endpoint.weight()))
            .collect();
        let near = match source.policy.as_deref() {
            Some(policy) if policy.prefers_own_zone => {
                Near::compile(zone, source, &drawn).map(Box::new)
            }
            _ => None,
        };
        let turn = previous.map_or_else(first_turn, |previous| Arc::clone(&previous.turn));
        let admission = previous.map(|previous| Arc::clone(&previous.admission));
        let cluster = Self {
            source: Arc::clone(source),
            protocol,
            tls,
            endpoints: endpoints.into(),
            by_address: OnceLock::new(),
            available: Available::all(candidates.len()),
            next_well: AtomicU64::new(u64::MAX),
            looking: Mutex::default(),
            candidates,
            rules: Rules::of(source.policy.as_deref()),
            balancer: Balancer::compile(&source.balancing, &drawn),
            near,
            turn,
            admission: admission.unwrap_or_default(),
            unresolved,
        };
        cluster.look(since_start(Instant::now()));
        cluster
    }

    /// The endpoint that a request goes to; nothing when none can be chosen.
    ///
    /// One that it has tried before is chosen only when there is no other.
    pub fn pick(&self, ask: &Ask<'_>, now: Instant) -> Option<Arc<Endpoint>> {
        if let Some(address) = ask.session
            && !ask.tried.contains(&address)
            && let Some(held) = self.held(address, now)
        {
            held.load().picked();
            return Some(Arc::clone(held));
        }
        let at = self.choose(ask, now)?;
        let chosen = self.candidates.get(at)?;
        chosen.load().picked();
        Some(Arc::clone(chosen))
    }

    /// Whether [`Self::pick`] would find another endpoint than this one and those that were tried.
    pub fn has_other(&self, than: SocketAddr, tried: &[SocketAddr]) -> bool {
        let leaves_out = self.leaves_out();
        let fits = |at: usize| {
            let address = self.address(at);
            let is_well = !leaves_out || self.available.contains(at);
            is_well && address != than && !tried.contains(&address)
        };
        (0..self.candidates.len()).any(fits)
    }

    /// Whether those that are unwell get nothing.
    fn leaves_out(&self) -> bool {
        let unwell = self.available.absent();
        self.rules.leaves_out(unwell, self.candidates.len())
    }

    /// The endpoint of a session, if requests may go there: also one that takes no others, as while
    /// it ends.
    fn held(&self, address: SocketAddr, now: Instant) -> Option<&Arc<Endpoint>> {
        let by_address = self.by_address.get_or_init(|| {
            let places = self.endpoints.iter().enumerate();
            Box::new(places.map(|(at, it)| (it.address(), at)).collect())
        });
        let endpoint = self.endpoints.get(*by_address.get(&address)?)?;
        let is_well = self.is_well(endpoint, since_start(now)) || self.is_in_panic();
        let serves = endpoint.is_ready() || endpoint.is_ending();
        (serves && is_well).then_some(endpoint)
    }

    fn is_well(&self, endpoint: &Endpoint, now: Duration) -> bool {
        !endpoint.load().check.is_unwell() && self.ejected_for(endpoint, now).is_zero()
    }

    /// How much longer an endpoint is left out because it kept failing.
    fn ejected_for(&self, endpoint: &Endpoint, now: Duration) -> Duration {
        match self.rules.outlier {
            Some(_) => endpoint.load().ejected_for(now),
            None => Duration::ZERO,
        }
    }

    fn choose(&self, ask: &Ask<'_>, now: Instant) -> Option<usize> {
        if !self.available.is_complete() {
            let now = since_start(now);
            if self.next_well.load(Ordering::Relaxed) <= millis(now) {
                self.look(now);
            }
        }
        let all = self.candidates.len();
        let leaves_out = self.leaves_out();
        let is_well = |at: usize| !leaves_out || self.available.contains(at);
        let is_new = |at: usize| ask.tried.is_empty() || !ask.tried.contains(&self.address(at));
        let admits = |at: usize| is_well(at) && is_new(at);
        let load = |at: usize| self.load(at);
        let fits = |at: usize| {
            admits(at)
                && match &self.balancer {
                    Balancer::ByHash(_) => self.has_room(at),
                    _ => self.is_warm(at, now),
                }
        };
        let near = self.near.as_ref().filter(|near| near.is_meant());
        let near = near.and_then(|near| near.choose(&self.turn, ask.hash, load, fits));
        let drawn = near.or_else(|| self.balancer.choose(&self.turn, ask.hash, load, fits));
        // Seldom: nothing was drawn that fits, so whatever fits is taken from a random place on.
        let start = || fastrand::usize(..all.max(1));
        let search = |fits: &dyn Fn(usize) -> bool| {
            let start = start();
            (start..all).chain(0..start).find(|at| fits(*at))
        };
        drawn
            .or_else(|| search(&admits))
            .or_else(|| search(&is_well))
    }

    /// Notes how an attempt ended; says for how long the endpoint is left out when it now is.
    pub fn report(&self, endpoint: &Endpoint, outcome: Outcome, now: Instant) -> Option<Duration> {
        let settings = self.rules.outlier.as_ref()?;
        let now = since_start(now);
        let record = &endpoint.load().record;
        let failure = match outcome {
            Outcome::Success => {
                record.succeeded(now);
                return None;
            }
            Outcome::ServerError => Failure::Answered,
            Outcome::GatewayFailure => Failure::Gateway,
        };
        let may_eject = || settings.allows(self.available.absent(), self.candidates.len());
        let lasts = record.failed(failure, settings, now, may_eject)?;
        self.look(now);
        Some(lasts)
    }

    /// Notes how a health check of an endpoint ended; true when the endpoint turned, either way.
    pub fn checked(
        &self,
        endpoint: &Endpoint,
        result: Result<(), Fault>,
        settings: &health_check::Settings,
        now: Instant,
    ) -> bool {
        let turned = endpoint.load().check.checked(result, settings);
        if turned {
            self.look(since_start(now));
        }
        turned
    }

    /// Looks at every endpoint anew, after something else than a request or a check of this very
    /// configuration has changed what is known of them.
    pub fn refresh(&self, now: Instant) {
        self.look(since_start(now));
    }

    /// Endpoints that are left out because they kept failing.
    pub fn ejected(&self, now: Instant) -> usize {
        let now = since_start(now);
        let is_ejected = |it: &&Arc<Endpoint>| !self.ejected_for(it, now).is_zero();
        self.candidates.iter().filter(is_ejected).count()
    }

    /// Whether requests go to this endpoint of it at the moment, as far as its state says.
    pub fn uses(&self, endpoint: &Endpoint, now: Instant) -> bool {
        endpoint.is_ready() && (self.is_well(endpoint, since_start(now)) || self.is_in_panic())
    }

    /// Whether outcomes matter: nothing is held against endpoints otherwise.
    pub fn is_watched(&self) -> bool {
        self.rules.outlier.is_some()
    }

    /// Whether so many endpoints are unwell that all are used again; then nothing is gained by
    /// trying another one.
    pub fn is_in_panic(&self) -> bool {
        self.available.absent() > 0 && !self.leaves_out()
    }

    /// How many endpoints are left out or would be, as last looked at.
    pub fn unwell(&self) -> usize {
        self.available.absent()
    }

    /// Looks at every endpoint anew: who is well, and when the next one will be.
    fn look(&self, now: Duration) {
        // Of two at once, the one that saw less would have the last word.
        let _turn = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next_well = u64::MAX;
        for (at, endpoint) in self.candidates.iter().enumerate() {
            let ejected_for = self.ejected_for(endpoint, now);
            let is_well = self.is_well(endpoint, now);
            if !ejected_for.is_zero() {
                next_well = next_well.min(millis(now + ejected_for));
            }
            if self.available.set(at, is_well) && is_well {
                endpoint.load().became_well(now);
            }
        }
        self.next_well.store(next_well, Ordering::Relaxed);
        if let Some(near) = &self.near {
            near.look(|at| self.available.contains(at));
        }
    }

    fn address(&self, at: usize) -> SocketAddr {
        self.candidates[at].address()
    }

    /// Requests in flight for each unit of weight.
    fn load(&self, at: usize) -> u64 {
        let endpoint = &self.candidates[at];
        let active = endpoint.load().requests_active() as u64;
        // Scaled, so that an endpoint of a large weight is not always empty.
        (active + 1).saturating_mul(1 << 20) / u64::from(endpoint.weight().max(1))
    }

    /// Whether an endpoint that starts slowly takes this request.
    fn is_warm(&self, at: usize, now: Instant) -> bool {
        self.rules.slow_start.is_none_or(|window| {
            let warmth = self.candidates[at].load().warmth(window, since_start(now));
            warmth >= 1.0 || fastrand::f64() < warmth
        })
    }

    /// Whether an endpoint that a hash names is not loaded too far above the mean.
    fn has_room(&self, at: usize) -> bool {
        let Some(percent) = self.rules.hash_load_percent else {
            return true;
        };
        let active = |endpoint: &Arc<Endpoint>| endpoint.load().requests_active();
        let own = active(&self.candidates[at]);
        if own == 0 {
            return true;
        }
        let all: usize = self.candidates.iter().map(active).sum();
        own * self.candidates.len() * 100 < (all + 1) * percent as usize
    }

    /// What is hashed to choose an endpoint, when that is how they are chosen.
    pub fn hash_key(&self) -> Option<&HashKey> {
        match &self.source.balancing {
            Balancing::ConsistentHash(key) => Some(key),
            _ => None,
        }
    }

    /// The hash of a key for [`Ask::hash`]; the same in every process.
    pub fn hash(key: &[u8]) -> u64 {
        hash(&[key])
    }

    /// `namespace/service:port`.
    pub fn key(&self) -> &Arc<str> {
        &self.source.key
    }

    /// What it was compiled from.
    pub fn source(&self) -> &Arc<ir::Cluster> {
        &self.source
    }

    /// Which HTTP its endpoints speak.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Which HTTP its endpoints speak to a gRPC route. Gateway API lets the kind of route decide where
    /// the Service port names no protocol, and gRPC is always HTTP/2.
    pub fn grpc_protocol(&self) -> Protocol {
        match self.source.protocol {
            ClusterProtocol::Tcp => Protocol::Http2,
            _ if self.protocol == Protocol::Negotiated => Protocol::Http2,
            _ => self.protocol,
        }
    }

    /// Whether and how TLS is spoken to its endpoints.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// How long a connection may take to come up.
    pub fn connect_timeout(&self) -> Duration {
        self.source.connect_timeout
    }

    /// Limit for one exchange; absent means the route's.
    pub fn request_timeout(&self) -> Option<Duration> {
        self.source.request_timeout
    }

    /// Every endpoint with an address, ready or not.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// How many endpoints [`Self::pick`] chooses among, well or not.
    pub fn available(&self) -> usize {
        self.candidates.len()
    }

    /// What it carries now, in the whole process.
    pub fn admission(&self) -> &Arc<Admission> {
        &self.admission
    }

    /// Requests on one connection, after which it is closed.
    pub fn requests_per_connection(&self) -> Option<u32> {
        self.rules.requests_per_connection
    }

    /// What it may carry, where `of_process` holds for clusters that say nothing.
    pub fn limits(&self, of_process: Limits) -> Limits {
        of_process.of(&self.source)
    }

    /// How many endpoints are left out because they are names.
    pub fn unresolved(&self) -> usize {
        self.unresolved
    }
}

/// Those that may be chosen: ready ones, and where there are none, those that serve until they end.
fn candidates(endpoints: &[Arc<Endpoint>]) -> Box<[Arc<Endpoint>]> {
    let those = |fits: fn(&Endpoint) -> bool| -> Box<[Arc<Endpoint>]> {
        let weighted = endpoints.iter().filter(|it| it.weight() > 0);
        weighted.filter(|it| fits(it)).cloned().collect()
    };
    let ready = those(Endpoint::is_ready);
    match ready.is_empty() {
        true => those(Endpoint::is_ending),
        false => ready,
    }
}

fn compile_endpoints(
    source: &ir::Cluster,
    protocol: Protocol,
    tls: &Tls,
    previous: Option<&Arc<Cluster>>,
) -> (Vec<Arc<Endpoint>>, usize) {
    let known: HashMap<SocketAddr, &Arc<Endpoint>> = previous
        .into_iter()
        .flat_map(|previous| previous.endpoints.iter())
        .map(|endpoint| (endpoint.address(), endpoint))
        .collect();
    let mut unresolved = 0;
    let mut positions = HashMap::new();
    let mut endpoints: Vec<Arc<Endpoint>> = Vec::with_capacity(source.endpoints.len());
    for endpoint in &source.endpoints {
        let EndpointAddress::Ip(ip) = &endpoint.address else {
            unresolved += 1;
            continue;
        };
        let address = SocketAddr::new(*ip, endpoint.port.get());
        let known = known.get(&address).copied();
        let load = known.map_or_else(
            || new_load(previous.is_some()),
            |known| Arc::clone(known.load()),
        );
        let id = identity(address, protocol, tls);
        let made = Endpoint::new(address, id, endpoint, load);
        let made = match known {
            Some(known) if known.is_same_as(&made) => Arc::clone(known),
            _ => Arc::new(made),
        };
        // While EndpointSlices are rearranged an address may stand in two of them; the first one
        // that says ready is believed.
        match positions.get(&address) {
            None => {
                positions.insert(address, endpoints.len());
                endpoints.push(made);
            }
            Some(at) if !endpoints[*at].is_ready() && made.is_ready() => endpoints[*at] = made,
            Some(_) => {}
        }
    }
    (endpoints, unresolved)
}

/// The load of an endpoint that was not there before; in a cluster that was, it starts slowly.
fn new_load(is_late: bool) -> Arc<EndpointLoad> {
    let load = Arc::new(EndpointLoad::default());
    if is_late {
        load.became_well(since_start(Instant::now()));
    }
    load
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn first_turn() -> Arc<Turn> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits will do for a random start"
    )]
    let start = RandomState::new().hash_one(0) as usize;
    Arc::new(Turn::new(start))
}

fn protocol(source: &ir::Cluster) -> Protocol {
    let is_secured = source.tls.is_some();
    match &source.protocol {
        ClusterProtocol::H2c | ClusterProtocol::Grpc | ClusterProtocol::Grpcs => Protocol::Http2,
        // Under TLS endpoints can say what they speak, unless the port has said so already.
        ClusterProtocol::Https | ClusterProtocol::Tcp | ClusterProtocol::Other(_) if is_secured => {
            Protocol::Negotiated
        }
        ClusterProtocol::Http
        | ClusterProtocol::Https
        | ClusterProtocol::Tcp
        | ClusterProtocol::Udp
        | ClusterProtocol::Other(_) => Protocol::Http1,
    }
}

fn tls(source: &ir::Cluster) -> Tls {
    match (&source.tls, &source.protocol) {
        (Some(policy), _) => Tls::Policy(Arc::clone(policy)),
        (None, ClusterProtocol::Https | ClusterProtocol::Grpcs) => Tls::Unspecified,
        (None, _) => Tls::Plain,
    }
}

#[cfg(test)]
mod tests;
