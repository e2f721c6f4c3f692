//! Limits of rate as a request meets them: what is counted, by what, and how much is left.
//!
//! A [`Limiter`] is made by `kept.rs` for each rule of a listener, a route or a cluster, and finds
//! its bucket again after a change of configuration. What clients, or the dimension of the scope,
//! tell apart is counted in one table of the process with room that is set aside once; everything
//! else has one bucket. The request line asks; whether it waits or answers is decided there.

use std::fmt::Write as _;
use std::hash::{BuildHasher as _, Hash as _, Hasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ir::policy::{RateLimit, RateLimitKey, RateLimitScope};

use dataplane_resilience::admission::Count;
use dataplane_resilience::token_bucket::{Bucket, Empty, Keyed, Rate, Taken};
use dataplane_telemetry::metrics::RateLimitMetrics;

/// Clients told apart at once in the whole process, unless it is set otherwise.
pub const KEYS_DEFAULT: usize = 1 << 18;

/// What the settings of the process limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessLimits {
    /// All requests together.
    pub global: Option<RateLimit>,
    /// Those of each listener.
    pub listener: Option<RateLimit>,
    /// Those of each route.
    pub route: Option<RateLimit>,
    /// Clients told apart at once, by all rules together.
    pub keys_max: usize,
}

impl Default for ProcessLimits {
    fn default() -> Self {
        Self {
            global: None,
            listener: None,
            route: None,
            keys_max: KEYS_DEFAULT,
        }
    }
}

/// The limits of one object; empty for most.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Those that are known to hold once the route is found.
    pub early: Arc<[Arc<Limiter>]>,
    /// Those that count by cluster.
    pub late: Arc<[Arc<Limiter>]>,
}

impl Limits {
    pub(crate) fn of(limiters: Vec<Arc<Limiter>>) -> Self {
        if limiters.is_empty() {
            return Self::default();
        }
        let (late, early): (Vec<_>, Vec<_>) = limiters.into_iter().partition(|it| it.is_late());
        Self {
            early: early.into(),
            late: late.into(),
        }
    }
}

/// Where a rule stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// In the settings of the process.
    Process,
    /// In the policy of the listener of that name.
    Listener(&'a str),
    /// In the policy of the route of that key.
    Route(&'a str),
    /// In the policy of the cluster of that key.
    Backend(&'a str),
}

impl Place<'_> {
    /// The label value of what stands there.
    pub(crate) fn scope(&self) -> &'static str {
        match self {
            Self::Process => "global",
            Self::Listener(_) => "listener",
            Self::Route(_) => "route",
            Self::Backend(_) => "backend",
        }
    }

    /// The object's own name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Process => "",
            Self::Listener(name) | Self::Route(name) | Self::Backend(name) => name,
        }
    }
}

/// What a request belongs to, as far as buckets are told apart by it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The listener's name.
    pub listener: &'a str,
    /// The route's key; empty when none matched.
    pub route: &'a str,
    /// The cluster's key; empty before it is chosen.
    pub cluster: &'a str,
}

/// Which bucket a request takes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(Option<u64>);

/// What all limiters of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    keyed: OnceLock<Keyed>,
    room: usize,
    replicas: Arc<AtomicU32>,
    keys: RandomState,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(KEYS_DEFAULT, Arc::new(AtomicU32::new(1)))
    }
}

impl Shared {
    /// Room for that many keys, set aside when the first one comes; `replicas` is how many data
    /// planes are live, 0 when nobody knows.
    pub(crate) fn new(room: usize, replicas: Arc<AtomicU32>) -> Self {
        Self {
            keyed: OnceLock::new(),
            room,
            replicas,
            keys: RandomState::new(),
        }
    }

    /// Buckets that were given up although they were not full, and room for how many there is.
    pub(crate) fn keys(&self) -> (u64, usize) {
        let keyed = self.keyed.get();
        keyed.map_or((0, self.room), |keyed| (keyed.lost(), keyed.room()))
    }

    fn keyed(&self) -> &Keyed {
        let make = || Keyed::with_room_for(self.room);
        self.keyed.get_or_init(make)
    }
}

/// One rule with its bucket or buckets.
#[derive(Debug)]
pub struct Limiter {
    source: RateLimit,
    name: Box<str>,
    scope: &'static str,
    /// What tells buckets apart besides clients.
    dimension: Option<RateLimitScope>,
    /// Tells the buckets of this rule from those of others in the table.
    id: u64,
    rate: Rate,
    /// The value of `RateLimit-Policy`, when it never changes.
    policy: Option<Box<str>>,
    bucket: Arc<Bucket>,
    shared: Arc<Shared>,
    /// Figures of this rule.
    pub metrics: Arc<RateLimitMetrics>,
    /// Requests that wait for a token.
    pub waiting: Count,
}

impl Limiter {
    pub(crate) fn new(
        source: &RateLimit,
        place: Place<'_>,
        name: &str,
        bucket: Arc<Bucket>,
        shared: &Arc<Shared>,
        metrics: Arc<RateLimitMetrics>,
    ) -> Self {
        let name: Box<str> = name.into();
        let rate = rate(source, 1);
        Self {
            policy: (!source.is_divided).then(|| policy(&name, source, 1).into()),
            dimension: dimension(source.scope, place),
            id: shared.keys.hash_one((place.scope(), place.name(), &*name)),
            source: source.clone(),
            scope: place.scope(),
            bucket,
            shared: Arc::clone(shared),
            metrics,
            waiting: Count::default(),
            name,
            rate,
        }
    }

    /// What it was made from.
    pub fn source(&self) -> &RateLimit {
        &self.source
    }

    /// What clients know it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `global`, `listener`, `route` or `backend`: where it stands.
    pub fn scope(&self) -> &'static str {
        self.scope
    }

    /// Whether it counts each cluster for itself.
    pub(crate) fn is_late(&self) -> bool {
        self.dimension == Some(RateLimitScope::Backend)
    }

    /// Whether it has a bucket for each of something.
    pub fn is_keyed(&self) -> bool {
        self.dimension.is_some() || self.source.key != RateLimitKey::Route
    }

    /// Which bucket a request takes from; `client` is what the rule's key finds in it, if anything.
    pub fn key(&self, client: Option<&[u8]>, asked: &Asked<'_>) -> Key {
        if !self.is_keyed() {
            return Key(None);
        }
        let mut hasher = self.shared.keys.build_hasher();
        self.id.hash(&mut hasher);
        client.hash(&mut hasher);
        match self.dimension {
            Some(RateLimitScope::Listener) => asked.listener.hash(&mut hasher),
            Some(RateLimitScope::Route) => asked.route.hash(&mut hasher),
            Some(RateLimitScope::Backend) => asked.cluster.hash(&mut hasher),
            Some(RateLimitScope::Global) | None => {}
        }
        Key(Some(hasher.finish()))
    }

    /// Takes one token.
    pub fn take(&self, key: Key, now: Duration) -> Result<Taken, Empty> {
        let rate = self.rate_now();
        match key.0 {
            Some(key) => self.shared.keyed().take(key, &rate, 1, now),
            None => self.bucket.take(&rate, 1, now),
        }
    }

    /// Gives a token back that was taken and not used.
    pub fn give_back(&self, key: Key) {
        let rate = self.rate_now();
        match key.0 {
            Some(key) => self.shared.keyed().give_back(key, &rate, 1),
            None => self.bucket.give_back(&rate, 1),
        }
    }

    /// The bucket, to be handed to the rule that comes after this one.
    pub(crate) fn bucket(&self) -> &Arc<Bucket> {
        &self.bucket
    }

    /// What is left where there is one bucket.
    pub fn peek(&self, now: Duration) -> Option<Taken> {
        (!self.is_keyed()).then(|| self.bucket.peek(&self.rate_now(), now))
    }

    /// The most that can be taken at once.
    pub fn burst(&self) -> u64 {
        self.rate_now().burst()
    }

    /// Data planes that share it; 1 unless it is divided.
    pub fn sharers(&self) -> u32 {
        match self.source.is_divided {
            true => self.shared.replicas.load(Ordering::Relaxed).max(1),
            false => 1,
        }
    }

    /// The value of `RateLimit-Policy`.
    pub fn policy(&self) -> Box<str> {
        let divided = || policy(&self.name, &self.source, self.sharers()).into();
        self.policy.clone().unwrap_or_else(divided)
    }

    fn rate_now(&self) -> Rate {
        match self.source.is_divided {
            true => rate(&self.source, self.sharers()),
            false => self.rate,
        }
    }
}

/// Clients of IPv6 are told apart by their /64, as everywhere.
pub fn client_of(address: IpAddr) -> ([u8; 8], usize) {
    let mut bytes = [0; 8];
    let length = match address.to_canonical() {
        IpAddr::V4(address) => {
            bytes[..4].copy_from_slice(&address.octets());
            4
        }
        IpAddr::V6(address) => {
            bytes.copy_from_slice(&address.octets()[..8]);
            8
        }
    };
    (bytes, length)
}

/// The rate of one of so many data planes: a token comes back so many times later.
fn rate(source: &RateLimit, sharers: u32) -> Rate {
    let burst = match source.burst {
        0 => source.requests,
        burst => burst,
    };
    Rate::new(
        u64::from(source.requests),
        source.period.saturating_mul(sharers),
        u64::from((burst / sharers).max(1)),
    )
}

/// A scope that the place settles tells no buckets apart.
fn dimension(scope: RateLimitScope, place: Place<'_>) -> Option<RateLimitScope> {
    let is_settled = matches!(
        (scope, place),
        (RateLimitScope::Global, _)
            | (RateLimitScope::Listener, Place::Listener(_))
            | (RateLimitScope::Route, Place::Route(_))
            | (RateLimitScope::Backend, Place::Backend(_))
    );
    (!is_settled).then_some(scope)
}

/// As draft-ietf-httpapi-ratelimit-headers says it: quota, and window in whole seconds.
fn policy(name: &str, source: &RateLimit, sharers: u32) -> String {
    let quota = (source.requests / sharers).max(1);
    let mut text = format!("\"{name}\";q={quota}");
    if source.period.subsec_nanos() == 0 {
        // Writing to a string never fails.
        let _ = write!(text, ";w={}", source.period.as_secs());
    }
    text
}

#[cfg(test)]
mod tests {
    use dataplane_telemetry::metrics::Metrics;
    use dataplane_testkit::snapshot::rate_limit;

    use super::*;

    fn limit() -> RateLimit {
        rate_limit("", 10, Duration::from_secs(1))
    }

    fn limiter(source: &RateLimit, place: Place<'_>, shared: &Arc<Shared>) -> Limiter {
        let metrics = Metrics::new().rate_limit(place.scope(), "shop/r", "x");
        Limiter::new(source, place, "x", Arc::default(), shared, metrics)
    }

    fn takes(limiter: &Limiter, client: Option<&[u8]>, asked: &Asked<'_>, tries: usize) -> usize {
        let key = limiter.key(client, asked);
        let now = Duration::from_secs(1);
        (0..tries)
            .filter(|_| limiter.take(key, now).is_ok())
            .count()
    }

    #[test]
    fn a_scope_within_its_place_has_buckets_of_its_own() {
        use RateLimitScope::{Backend, Global, Listener, Route};
        let (a, b) = (
            Asked {
                listener: "l1",
                route: "r1",
                cluster: "c1",
            },
            Asked {
                listener: "l2",
                route: "r2",
                cluster: "c2",
            },
        );
        for (scope, place, is_shared) in [
            (Global, Place::Process, true),
            (Listener, Place::Listener("l"), true),
            (Route, Place::Listener("l"), false),
            (Backend, Place::Listener("l"), false),
            (Global, Place::Route("r"), true),
            (Listener, Place::Route("r"), false),
            (Backend, Place::Backend("c"), true),
            (Route, Place::Backend("c"), false),
        ] {
            let source = RateLimit { scope, ..limit() };
            let limiter = limiter(&source, place, &Arc::default());
            assert_eq!(takes(&limiter, None, &a, 20), 10, "{scope:?} {place:?}");
            let rest = if is_shared { 0 } else { 10 };
            assert_eq!(takes(&limiter, None, &b, 20), rest, "{scope:?} {place:?}");
        }
    }

    #[test]
    fn clients_have_buckets_of_their_own_and_rules_too() {
        let shared = Arc::default();
        let source = RateLimit {
            key: RateLimitKey::SourceIp,
            ..limit()
        };
        let one = limiter(&source, Place::Route("r"), &shared);
        let other = limiter(&source, Place::Route("s"), &shared);
        let asked = Asked::default();
        for limiter in [&one, &other] {
            for client in [None, Some(&b""[..]), Some(b"a"), Some(b"b")] {
                assert_eq!(takes(limiter, client, &asked, 20), 10, "{client:?}");
                assert_eq!(takes(limiter, client, &asked, 20), 0, "{client:?}");
            }
        }
    }

    #[test]
    fn the_live_data_planes_divide_a_limit() {
        let shared = Arc::<Shared>::default();
        let source = RateLimit {
            is_divided: true,
            requests: 100,
            burst: 50,
            period: Duration::from_secs(60),
            ..limit()
        };
        let limiter = limiter(&source, Place::Route("r"), &shared);
        for (replicas, burst, policy) in [
            (0, 50, "\"x\";q=100;w=60"),
            (1, 50, "\"x\";q=100;w=60"),
            (5, 10, "\"x\";q=20;w=60"),
            (1000, 1, "\"x\";q=1;w=60"),
        ] {
            shared.replicas.store(replicas, Ordering::Relaxed);
            assert_eq!(limiter.burst(), burst, "{replicas}");
            assert_eq!(&*limiter.policy(), policy, "{replicas}");
        }
    }

    #[test]
    fn addresses_of_one_client_are_one() {
        let key = |text: &str| client_of(text.parse().unwrap());
        assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    }
}
