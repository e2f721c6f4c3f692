//! AI services of clusters, compiled: the service with its keys, where its providers are, its budget.
//!
//! Called by `compile` for clusters that are AI services and again when a secret changes, so that keys
//! are replaced while calls run. A service that cannot be compiled answers for itself alone: its calls
//! fail, nothing else does. Names are resolved by whoever asks [`AiCluster::sites`]; no request waits
//! for that but the first.

use std::sync::Arc;
use std::time::SystemTime;

use dataplane_ai::service::{Service, ServiceError, Target};
use dataplane_ai::token;
use dataplane_telemetry::metrics::{AiMetrics, Metrics};
use ir::{Cluster, Snapshot};

use crate::backend_tls::Identities;
use crate::kept::Kept;
use crate::token_budgets::Budget;

mod guard;
mod site;

pub use guard::Guard;
pub use site::{Reached, Site};

/// One cluster that is an AI service.
#[derive(Debug)]
pub struct AiCluster {
    /// The service; the error tells why its calls are answered with 500.
    pub service: Result<Service, ServiceError>,
    /// Where its providers are, in the order of [`Service::targets`].
    pub places: Vec<Place>,
    /// What stands in front of each, in the same order.
    pub guards: Vec<Guard>,
    /// What its callers may use.
    pub budget: Option<Budget>,
    /// Its figures.
    pub metrics: Arc<AiMetrics>,
    /// When it was compiled, in seconds since 1970; the age of its models.
    pub created: u64,
    source: Arc<Cluster>,
    /// Key of each secret and whether it was there, as compiled.
    secrets: Vec<Arc<str>>,
}

/// Where a provider is.
#[derive(Clone, Debug)]
pub enum Place {
    /// At the endpoints of the cluster of that key.
    Cluster(Arc<str>),
    /// At its own address.
    Site(Arc<Site>),
}

/// What compiling needs of the configuration around.
#[derive(Clone, Copy)]
pub(crate) struct Around<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) identities: &'a Identities,
    pub(crate) kept: &'a Kept,
    pub(crate) metrics: &'a Metrics,
}

impl AiCluster {
    /// Compiles the AI service of a cluster; absent when it is none. `previous` is what the cluster
    /// had before, of which addresses are kept.
    pub(crate) fn compile(
        source: &Arc<Cluster>,
        around: Around<'_>,
        previous: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let ai = source.ai_service.as_deref()?;
        let secret = |key: &str| around.snapshot.secrets.get(key).map(|secret| &**secret);
        let service = Service::compile(ai, secret);
        if let Err(error) = &service {
            tracing::warn!(
                cluster = &*source.key,
                %error,
                "an AI service cannot be used, its calls are answered with 500"
            );
        }
        if source.token_policy.is_some() {
            // Now, and not by a worker while all its requests wait.
            token::prepare(&ai.model);
        }
        let targets = service.as_ref().map(Service::targets).unwrap_or_default();
        let places = targets.iter().enumerate().map(|(at, target)| {
            if let Some(key) = &target.cluster {
                return Place::Cluster(key.as_str().into());
            }
            let known = previous.and_then(|previous| previous.site_of(target.authority()));
            Place::Site(Site::compile(source, target, at == 0, around, known))
        });
        let places = places.collect();
        let policy = source.policy.as_deref();
        let thresholds = policy.and_then(|policy| policy.breaker.as_ref());
        let known = previous.map_or(&[][..], |previous| &previous.guards);
        let others = targets.len().saturating_sub(1);
        let guards = targets
            .iter()
            .map(|target| Guard::compile(thresholds, target, others, known))
            .collect();
        let own = ai.auth.iter();
        let others = ai.providers.iter().filter_map(|other| other.auth.as_ref());
        let created = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let metrics = around.metrics.ai(&source.key);
        let budget = source.token_policy.as_deref();
        Some(Arc::new(Self {
            service,
            places,
            guards,
            budget: budget.map(|policy| around.kept.budget(&source.key, policy)),
            metrics,
            created: created.map_or(0, |since| since.as_secs()),
            source: source.clone(),
            secrets: own
                .chain(others)
                .map(|auth| auth.secret_ref.clone())
                .collect(),
        }))
    }

    /// The same with the secrets and client certificates of now.
    pub(crate) fn renewed(self: &Arc<Self>, around: Around<'_>) -> Option<Arc<Self>> {
        Self::compile(&self.source, around, Some(self))
    }

    /// True when it reads that secret.
    pub(crate) fn reads(&self, secret: &str) -> bool {
        self.secrets.iter().any(|key| **key == *secret)
    }

    /// Where that provider of [`Self::service`] is, and what stands in front of it.
    pub fn provider(&self, target: &Target) -> Option<(&Place, &Guard)> {
        let targets = self.service.as_ref().map(Service::targets).ok()?;
        let mut all = targets.iter().zip(self.places.iter().zip(&self.guards));
        let (_, found) = all.find(|(other, _)| std::ptr::eq(*other, target))?;
        Some(found)
    }

    /// Its providers with addresses of their own.
    pub fn sites(&self) -> impl Iterator<Item = &Arc<Site>> {
        self.places.iter().filter_map(|place| match place {
            Place::Site(site) => Some(site),
            Place::Cluster(_) => None,
        })
    }

    fn site_of(&self, authority: &str) -> Option<&Arc<Site>> {
        self.sites().find(|site| site.authority() == authority)
    }
}
