//! What routes have learnt and keep when they are compiled anew.
//!
//! A route is compiled whole whenever it changes, so its breakers cannot be handed from the rule
//! before to the rule after. They are found here by name, for as long as a configuration holds
//! them; nothing is kept for routes that are gone. Only compiling asks; no request comes here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ir::backend_policy::BreakerThresholds;

use dataplane_resilience::circuit_breaker::{Breaker, Settings};

/// Entries from which on those are looked for that nobody holds.
const SWEPT_FROM: usize = 64;

/// State of routes by name; shared by one configuration and the next.
#[derive(Debug, Default)]
pub struct Kept {
    breakers: Mutex<Breakers>,
}

#[derive(Debug, Default)]
struct Breakers {
    /// By route and cluster.
    by_name: HashMap<(Arc<str>, Arc<str>), Weak<Breaker>>,
    sweep_at: usize,
}

impl Kept {
    /// The breaker that a route has in front of a cluster.
    pub(crate) fn breaker(
        &self,
        route: &Arc<str>,
        cluster: &Arc<str>,
        thresholds: &BreakerThresholds,
    ) -> Arc<Breaker> {
        let mut kept = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (Arc::clone(route), Arc::clone(cluster));
        let before = kept.by_name.get(&name).and_then(Weak::upgrade);
        let breaker = breaker(thresholds, before.as_ref());
        kept.by_name.insert(name, Arc::downgrade(&breaker));
        if kept.by_name.len() >= kept.sweep_at.max(SWEPT_FROM) {
            kept.by_name.retain(|_, breaker| breaker.strong_count() > 0);
            kept.sweep_at = kept.by_name.len() * 2;
        }
        breaker
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
