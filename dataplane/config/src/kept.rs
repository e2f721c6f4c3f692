//! What routes have learnt and keep when they are compiled anew.
//!
//! A route is compiled whole whenever it changes, so its breakers and limits cannot be handed from
//! the rule before to the rule after. They are found here by name, for as long as a configuration
//! holds them; nothing is kept for routes that are gone. Only compiling asks; no request comes here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use ir::ai::TokenPolicy;
use ir::backend_policy::BreakerThresholds;
use ir::policy::{RateLimit, SecurityPolicy, SessionPersistence};

use dataplane_resilience::circuit_breaker::{Breaker, Settings};
use dataplane_telemetry::metrics::Metrics;
use dataplane_wasm::fetch::Fetcher;

use crate::plugins::{PluginHost, PluginLimits};
use crate::rate_limits::{Limiter, Limits, Place, ProcessLimits, Shared};
use crate::rule_settings::RuleSettings;
use crate::session_secrets::SessionSecrets;
use crate::sessions::{self, SessionPolicy};
use crate::token_budgets::{Budget, Spent};

/// Entries from which on those are looked for that nobody holds.
const SWEPT_FROM: usize = 64;

/// With what annotations about the access log begin unless the bootstrap file says otherwise.
const ACCESS_LOG_PREFIX: &str = "gateway.nantian.dev/access-log-";

/// State of routes by name; shared by one configuration and the next.
#[derive(Debug, Default)]
pub struct Kept {
    breakers: Mutex<Found<BreakerName, Breaker>>,
    limiters: Mutex<Found<LimiterName, Limiter>>,
    shared: Arc<Shared>,
    limits: ProcessLimits,
    secrets: OnceLock<Arc<SessionSecrets>>,
    /// What callers of AI services have spent; made when the first one has a budget.
    spent: OnceLock<Arc<Spent>>,
    /// Plugins that were prepared, and what they share.
    plugins: PluginHost,
    /// Where this data plane is; empty when nobody says so.
    zone: Box<str>,
    /// With what a route's annotations about its access log begin; empty for the usual.
    access_log_prefix: Box<str>,
    /// Of rules that say nothing.
    plain_settings: Arc<RuleSettings>,
}

/// Route and cluster.
type BreakerName = (Arc<str>, Arc<str>);

/// Kind of object, its name, and the limit's.
type LimiterName = (&'static str, Box<str>, Box<str>);

/// What can be found as long as somebody else holds it.
#[derive(Debug)]
struct Found<K, V> {
    by_name: HashMap<K, Weak<V>>,
    sweep_at: usize,
}

impl<K, V> Default for Found<K, V> {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            sweep_at: SWEPT_FROM,
        }
    }
}

impl<K: Eq + Hash, V> Found<K, V> {
    fn get(&self, name: &K) -> Option<Arc<V>> {
        self.by_name.get(name).and_then(Weak::upgrade)
    }

    fn put(&mut self, name: K, value: &Arc<V>) {
        self.by_name.insert(name, Arc::downgrade(value));
        if self.by_name.len() >= self.sweep_at {
            self.by_name.retain(|_, value| value.strong_count() > 0);
            self.sweep_at = (self.by_name.len() * 2).max(SWEPT_FROM);
        }
    }
}

impl Kept {
    /// Nothing yet. `replicas` is how many data planes are live, 0 when nobody knows.
    pub fn new(limits: ProcessLimits, replicas: Arc<AtomicU32>) -> Self {
        Self {
            shared: Arc::new(Shared::new(limits.keys_max, replicas)),
            limits,
            ..Self::default()
        }
    }

    /// For a data plane in that zone.
    pub fn in_zone(self, zone: &str) -> Self {
        Self {
            zone: zone.into(),
            ..self
        }
    }

    /// Has modules of plugins fetched by `fetcher`, and plugins held to these limits.
    pub fn with_plugins(self, fetcher: Fetcher, limits: PluginLimits) -> Self {
        Self {
            plugins: PluginHost::new(fetcher, limits),
            ..self
        }
    }

    /// Prepares plugins before a configuration is compiled.
    pub fn plugins(&self) -> &PluginHost {
        &self.plugins
    }

    /// The zone of this data plane; empty when nobody says so.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// For a data plane that is told of routes' access logs by annotations of that prefix.
    pub fn with_access_log_prefix(self, prefix: &str) -> Self {
        Self {
            access_log_prefix: prefix.into(),
            ..self
        }
    }

    /// With what a route's annotations about its access log begin.
    pub(crate) fn access_log_prefix(&self) -> &str {
        match &*self.access_log_prefix {
            "" => ACCESS_LOG_PREFIX,
            prefix => prefix,
        }
    }

    /// The settings of rules that say nothing, which nearly all of them share.
    pub fn plain_settings(&self) -> &Arc<RuleSettings> {
        &self.plain_settings
    }

    /// Has sessions sealed under secrets that other replicas have too.
    pub fn sealing_with(self, secrets: Arc<SessionSecrets>) -> Self {
        Self {
            secrets: secrets.into(),
            ..self
        }
    }

    /// How sessions are kept for a policy; nothing where there is no secret to be had.
    pub(crate) fn sessions(
        &self,
        source: Option<&SessionPersistence>,
        place: sessions::Place<'_>,
        metrics: &Metrics,
    ) -> Option<Arc<SessionPolicy>> {
        let source = source?;
        let secrets = match self.secrets.get() {
            Some(secrets) => secrets,
            None => {
                let secrets = SessionSecrets::ephemeral().ok()?;
                metrics.sessions.is_ephemeral.set(1);
                self.secrets.get_or_init(|| Arc::new(secrets))
            }
        };
        let compiled = SessionPolicy::compile(source, place, secrets, &metrics.sessions);
        Some(Arc::new(compiled))
    }

    /// Breakers that routes have of their own: route, cluster, breaker; in no order.
    pub fn breakers(&self) -> Vec<(Arc<str>, Arc<str>, Arc<Breaker>)> {
        let kept = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let held = kept
            .by_name
            .iter()
            .filter_map(|((route, cluster), breaker)| {
                Some((route.clone(), cluster.clone(), breaker.upgrade()?))
            });
        held.collect()
    }

    /// All limits of rate, with the name of the object each stands in; in no order.
    pub fn rate_limits(&self) -> Vec<(Box<str>, Arc<Limiter>)> {
        let kept = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let held = kept
            .by_name
            .iter()
            .filter_map(|((_, object, _), limiter)| Some((object.clone(), limiter.upgrade()?)));
        held.collect()
    }

    /// Clients that limits of rate forgot too early because there were too many at once, and for how
    /// many there is room.
    pub fn rate_limit_keys(&self) -> (u64, usize) {
        self.shared.keys()
    }

    /// The budgets of a cluster's callers.
    pub(crate) fn budget(&self, cluster: &Arc<str>, policy: &TokenPolicy) -> Budget {
        let make = || Arc::new(Spent::with_room_for(self.limits.keys_max));
        Budget::new(cluster, policy, self.spent.get_or_init(make))
    }

    /// Callers of AI services whose debt was forgotten because there were too many at once.
    pub fn token_budgets_lost(&self) -> u64 {
        self.spent.get().map_or(0, |spent| spent.lost())
    }

    /// The limits of rate in front of a listener.
    pub(crate) fn listener_limits(
        &self,
        name: &str,
        policy: Option<&SecurityPolicy>,
        metrics: &Metrics,
    ) -> Limits {
        let mut all = Vec::new();
        let global = self.limits.global.as_slice();
        self.limiters(global, Place::Process, metrics, &mut all);
        let place = Place::Listener(name);
        self.limiters(self.limits.listener.as_slice(), place, metrics, &mut all);
        self.limiters(rules(policy), place, metrics, &mut all);
        Limits::of(all)
    }

    /// The limits of rate in front of a route.
    pub(crate) fn route_limits(
        &self,
        key: &str,
        policy: Option<&SecurityPolicy>,
        metrics: &Metrics,
    ) -> Limits {
        let mut all = Vec::new();
        let place = Place::Route(key);
        self.limiters(self.limits.route.as_slice(), place, metrics, &mut all);
        self.limiters(rules(policy), place, metrics, &mut all);
        Limits::of(all)
    }

    /// The limits of rate in front of a cluster.
    pub(crate) fn backend_limits(
        &self,
        key: &str,
        policy: Option<&SecurityPolicy>,
        metrics: &Metrics,
    ) -> Limits {
        let mut all = Vec::new();
        self.limiters(rules(policy), Place::Backend(key), metrics, &mut all);
        Limits::of(all)
    }

    fn limiters(
        &self,
        rules: &[RateLimit],
        place: Place<'_>,
        metrics: &Metrics,
        out: &mut Vec<Arc<Limiter>>,
    ) {
        if rules.is_empty() {
            return;
        }
        let mut kept = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        for source in rules {
            let name = name(source, place, out);
            let at = (place.scope(), place.name().into(), name.as_str().into());
            let before = kept.get(&at);
            let limiter = match before {
                Some(before) if before.source() == source => before,
                before => {
                    let bucket = before.map_or_else(Arc::default, |it| it.bucket().clone());
                    let metrics = metrics.rate_limit(place.scope(), place.name(), &name);
                    let shared = &self.shared;
                    let made = Limiter::new(source, place, &name, bucket, shared, metrics);
                    Arc::new(made)
                }
            };
            kept.put(at, &limiter);
            out.push(limiter);
        }
    }

    /// The breaker that a route has in front of a cluster.
    pub(crate) fn breaker(
        &self,
        route: &Arc<str>,
        cluster: &Arc<str>,
        thresholds: &BreakerThresholds,
    ) -> Arc<Breaker> {
        let mut kept = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (Arc::clone(route), Arc::clone(cluster));
        let before = kept.get(&name);
        let breaker = breaker(thresholds, before.as_ref());
        kept.put(name, &breaker);
        breaker
    }
}

fn rules(policy: Option<&SecurityPolicy>) -> &[RateLimit] {
    policy.map_or(&[], |policy| &policy.rate_limits)
}

/// What a limit is called: by its own name, unless it has none or another one before has it too.
fn name(source: &RateLimit, place: Place<'_>, before: &[Arc<Limiter>]) -> String {
    let is_taken = before.iter().any(|it| it.name() == source.name);
    match source.name.as_str() {
        name if !name.is_empty() && !is_taken => name.to_owned(),
        "" => format!("{}-{}", place.scope(), before.len()),
        name => format!("{name}-{}", before.len()),
    }
}

/// The breaker with these thresholds that goes on where the one before is.
pub(crate) fn breaker(
    thresholds: &BreakerThresholds,
    before: Option<&Arc<Breaker>>,
) -> Arc<Breaker> {
    let default = Settings::default();
    let settings = Settings {
        failure_threshold: thresholds
            .failure_threshold
            .unwrap_or(default.failure_threshold),
        success_threshold: thresholds
            .success_threshold
            .unwrap_or(default.success_threshold),
        timeout: thresholds.open_time.unwrap_or(default.timeout),
    };
    match before {
        Some(before) if before.is_set_to(settings) => Arc::clone(before),
        Some(before) => Arc::new(before.with_settings(settings)),
        None => Arc::new(Breaker::new(settings)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dataplane_resilience::circuit_breaker::State;

    use super::*;

    fn thresholds(failures: u32) -> BreakerThresholds {
        BreakerThresholds {
            failure_threshold: Some(failures),
            ..BreakerThresholds::default()
        }
    }

    #[test]
    fn a_breaker_outlives_its_rule_as_long_as_somebody_holds_it() {
        let kept = Kept::default();
        let names: [Arc<str>; 3] = ["shop/r".into(), "shop/a:80".into(), "shop/b:80".into()];
        let [route, a, b] = &names;
        let now = Duration::from_secs(1);
        let first = kept.breaker(route, a, &thresholds(1));
        first.enter(now).unwrap().failed(now);
        let same = kept.breaker(route, a, &thresholds(1));
        assert!(Arc::ptr_eq(&first, &same));
        let changed = kept.breaker(route, a, &thresholds(2));
        assert_eq!(changed.state(now), State::Open, "it goes on where it was");
        assert_eq!(
            kept.breaker(route, b, &thresholds(1)).state(now),
            State::Closed
        );
        drop((first, same, changed));
        assert_eq!(
            kept.breaker(route, a, &thresholds(1)).state(now),
            State::Closed
        );
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let kept = Kept::default();
        let cluster: Arc<str> = "shop/a:80".into();
        for route in 0..10_000 {
            let route: Arc<str> = format!("shop/{route}").into();
            drop(kept.breaker(&route, &cluster, &thresholds(1)));
        }
        assert!(kept.breakers.lock().unwrap().by_name.len() <= SWEPT_FROM);
    }
}
