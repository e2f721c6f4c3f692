//! What is true at the moment of a scrape and kept by nobody: states of endpoints, breakers, limits.
//!
//! Whoever answers the scrape looks at the configuration that serves and hands the figures in as a
//! [`Live`]; here they are only written. Requests never come here.

use std::sync::Arc;

use super::exposition::Exposition;
use super::family;

/// The figures of one moment.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// By backend.
    pub backends: Vec<LiveBackend>,
    /// Requests that a backend may have; 0 for no limit.
    pub inflight_max: usize,
    /// Ratio in percent and burst of the budget for retries; absent when there is none.
    pub retry_budget: Option<(u32, u32)>,
    /// Limits of rate.
    pub rate_limits: Vec<LiveRateLimit>,
    /// Requests that run on routes, where those have a limit.
    pub routes_inflight: Vec<(Arc<str>, usize)>,
    /// Secrets of certificates, and when those end, in seconds since 1970.
    pub certificates: Vec<(Arc<str>, i64)>,
}

/// One backend.
#[derive(Clone, Debug, Default)]
pub struct LiveBackend {
    /// Its name.
    pub name: Arc<str>,
    /// Anything was ever asked of it.
    pub is_used: bool,
    /// Addresses, and whether requests may go there.
    pub endpoints: Vec<(String, bool)>,
    /// Endpoints left out because they kept failing.
    pub ejected: usize,
    /// Requests that run.
    pub inflight: usize,
    /// 0 closed, 1 half-open, 2 open; absent when it has no breaker.
    pub breaker: Option<u8>,
    /// Retries that it could take, where some were taken.
    pub retries_left: Option<u64>,
}

/// One limit of rate.
#[derive(Clone, Debug, Default)]
pub struct LiveRateLimit {
    /// The kind of object it stands in.
    pub scope: &'static str,
    /// That object.
    pub object: String,
    /// Its own name.
    pub limit: String,
    /// Requests in a second.
    pub per_second: u64,
    /// How many at once.
    pub burst: u64,
    /// What is left, unless it tells clients apart.
    pub left: Option<u64>,
}

impl Live {
    /// When certificates end.
    pub(super) fn encode_certificates(&self, out: &mut Exposition<'_>) {
        let mut samples = out.family(&family::CERTIFICATE_ENDS);
        for (secret, at) in &self.certificates {
            samples.sample(&[secret], *at);
        }
    }

    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        let mut samples = out.family(&family::BACKEND_HEALTH);
        for backend in &self.backends {
            for (endpoint, is_well) in &backend.endpoints {
                // Of a backend that nobody has asked anything, only what is amiss is told.
                if backend.is_used || !is_well {
                    samples.sample(&[&backend.name, endpoint], i64::from(*is_well));
                }
            }
        }
        let ejected: usize = self.backends.iter().map(|it| it.ejected).sum();
        out.family(&family::EJECTED).sample(&[], ejected as u64);
        out.family(&family::BACKEND_INFLIGHT_MAX)
            .sample(&[], self.inflight_max as u64);
        let mut samples = out.family(&family::BACKEND_INFLIGHT);
        for backend in self.backends.iter().filter(|it| it.is_used) {
            samples.sample(&[&backend.name], backend.inflight as u64);
        }
        let mut samples = out.family(&family::CIRCUIT_STATE);
        for backend in &self.backends {
            if let Some(state) = backend.breaker {
                samples.sample(&[&backend.name], i64::from(state));
            }
        }
        let (ratio, burst) = self.retry_budget.unwrap_or_default();
        let is_enabled = self.retry_budget.is_some();
        out.family(&family::BUDGET_ENABLED)
            .sample(&[], i64::from(is_enabled));
        out.family(&family::BUDGET_RATIO)
            .sample(&[], i64::from(ratio));
        out.family(&family::BUDGET_BURST)
            .sample(&[], i64::from(burst));
        let mut samples = out.family(&family::BUDGET_LEFT);
        for backend in &self.backends {
            if let Some(left) = backend.retries_left {
                samples.sample(&[&backend.name], left);
            }
        }
        type Figure = fn(&LiveRateLimit) -> Option<u64>;
        let families: [(_, Figure); 3] = [
            (&family::RATE_PER_SECOND, |it| Some(it.per_second)),
            (&family::RATE_BURST, |it| Some(it.burst)),
            (&family::RATE_LEFT, |it| it.left),
        ];
        for (family, figure) in families {
            let mut samples = out.family(family);
            for it in &self.rate_limits {
                if let Some(value) = figure(it) {
                    samples.sample(&[it.scope, &it.object, &it.limit], value);
                }
            }
        }
    }
}
