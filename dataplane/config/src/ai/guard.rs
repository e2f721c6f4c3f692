//! The breaker in front of one provider of an AI service.
//!
//! Made with the service; its state outlives configurations as long as the provider stays. Where a
//! policy sets thresholds an open one refuses calls. A service with several providers has them without
//! any policy, and then one that keeps failing is only asked behind the others.

use std::sync::Arc;

use dataplane_ai::service::Target;
use dataplane_resilience::circuit_breaker::Breaker;
use ir::backend_policy::BreakerThresholds;

use crate::kept;

/// What stands in front of a provider.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The cluster it is reached at, or host and port.
    name: Box<str>,
    /// Opens when the provider keeps failing.
    pub breaker: Option<Arc<Breaker>>,
    /// Whether calls are refused while it is open, and not only sent elsewhere first.
    pub refuses: bool,
}

impl Guard {
    /// The guard of a provider that has `others` beside it. `known` are those of the service before.
    pub(super) fn compile(
        thresholds: Option<&BreakerThresholds>,
        target: &Target,
        others: usize,
        known: &[Self],
    ) -> Self {
        let name = target
            .cluster
            .as_deref()
            .unwrap_or_else(|| target.authority());
        let none = BreakerThresholds::default();
        let wanted = thresholds.or_else(|| (others > 0).then_some(&none));
        let before = known.iter().find(|guard| *guard.name == *name);
        let before = before.and_then(|guard| guard.breaker.as_ref());
        Self {
            name: name.into(),
            breaker: wanted.map(|wanted| kept::breaker(wanted, before)),
            refuses: thresholds.is_some(),
        }
    }

    /// The cluster it is reached at, or host and port.
    pub fn name(&self) -> &str {
        &self.name
    }
}
