//! Clusters with all that is kept in front of their endpoints, and the AI services among them.
//!
//! Called by `compile` for clusters that differ; of the others TLS alone is brought in line when client
//! certificates changed, and AI services when one of their secrets did.

use std::collections::BTreeSet;
use std::sync::Arc;

use ir::Change;

use dataplane_resilience::retry::{Allowance, BURST_WINDOW};
use dataplane_upstream::Cluster;

use crate::access::AddressLists;
use crate::ai::{AiCluster, Around};
use crate::backend_tls::{ClusterTls, Identities};
use crate::kept;
use crate::plugins;
use crate::runtime::{ClusterConfig, Clusters, RuntimeConfig};
use crate::sessions::{self, Place};

/// All clusters, and the keys of those that are AI services.
pub(super) fn clusters(
    previous: &RuntimeConfig,
    around: Around<'_>,
) -> (Clusters, BTreeSet<Arc<str>>) {
    let Around {
        snapshot,
        identities,
        metrics,
        ..
    } = around;
    let mut clusters = previous.clusters.clone();
    let mut ai_services = previous.ai_services.clone();
    for change in previous.snapshot.clusters.changes(&snapshot.clusters) {
        match change {
            Change::Upsert(cluster) => {
                let before = clusters.get(&cluster.key);
                let known = before.map(|config| &config.cluster);
                let compiled = Cluster::compile_in(previous.kept.zone(), cluster, known);
                let known = before.map(|config| &config.tls);
                let thresholds = cluster.policy.as_deref().and_then(|it| it.breaker.as_ref());
                let known_breaker = before.and_then(|config| config.breaker.as_ref());
                let known_ai = before.and_then(|config| config.ai.as_ref());
                let ai = AiCluster::compile(cluster, around, known_ai);
                match &ai {
                    Some(_) => ai_services.insert(cluster.key.clone()),
                    None => ai_services.remove(&cluster.key),
                };
                // Each provider of an AI service has its own, and its own TLS.
                let thresholds = thresholds.filter(|_| ai.is_none());
                let compiled = ClusterConfig {
                    retry_allowance: retry_allowance(cluster),
                    access: AddressLists::compile(cluster.security_policy.as_deref()),
                    breaker: thresholds.map(|it| kept::breaker(it, known_breaker)),
                    limits: previous.kept.backend_limits(
                        &cluster.key,
                        cluster.security_policy.as_deref(),
                        metrics,
                    ),
                    session: previous.kept.sessions(
                        cluster.session_persistence.as_deref(),
                        Place {
                            kind: sessions::Kind::Cluster,
                            name: &cluster.key,
                            path: "/",
                        },
                        metrics,
                    ),
                    tls: match &ai {
                        Some(_) => ClusterTls::Plain,
                        None => ClusterTls::compile(compiled.tls(), identities, known),
                    },
                    ai,
                    plugins: plugins::names(cluster),
                    cluster: compiled,
                    metrics: metrics.backend(&cluster.key),
                    retries: before.map_or_else(Arc::default, |config| config.retries.clone()),
                };
                clusters.insert(cluster.key.clone(), Arc::new(compiled));
            }
            Change::Remove(cluster) => {
                clusters.remove(&cluster.key);
                ai_services.remove(&cluster.key);
            }
        }
    }
    let is_reidentified = !identities.is_same(&previous.identities);
    if is_reidentified {
        reidentify(&mut clusters, identities);
    }
    renew(
        &mut clusters,
        &ai_services,
        previous,
        around,
        is_reidentified,
    );
    (clusters, ai_services)
}

/// Compiles the AI services anew whose secrets have changed.
fn renew(
    clusters: &mut Clusters,
    ai_services: &BTreeSet<Arc<str>>,
    previous: &RuntimeConfig,
    around: Around<'_>,
    all: bool,
) {
    if ai_services.is_empty() {
        return;
    }
    let secrets = previous.snapshot.secrets.changes(&around.snapshot.secrets);
    let changed: Vec<_> = secrets
        .map(|change| match change {
            Change::Upsert(secret) | Change::Remove(secret) => &secret.key,
        })
        .collect();
    for key in ai_services {
        let Some(config) = clusters.get(key) else {
            continue;
        };
        let concerns = |ai: &Arc<AiCluster>| all || changed.iter().any(|secret| ai.reads(secret));
        let stale = config.ai.as_ref().filter(|ai| concerns(ai));
        let Some(ai) = stale.and_then(|ai| ai.renewed(around)) else {
            continue;
        };
        if let Some(config) = clusters.get_mut(key) {
            Arc::make_mut(config).ai = Some(ai);
        }
    }
}

/// The cluster's own budget for retries; its burst comes back within the budget's window.
fn retry_allowance(cluster: &ir::Cluster) -> Option<Allowance> {
    let budget = cluster.policy.as_deref()?.retry_budget?;
    let window = u32::try_from(BURST_WINDOW.as_secs()).unwrap_or(u32::MAX);
    Some(Allowance {
        ratio_percent: u32::from(budget.percent),
        burst: budget.min_per_second.saturating_mul(window),
    })
}

/// Brings the TLS of every cluster in line with other client certificates.
fn reidentify(clusters: &mut Clusters, identities: &Identities) {
    let secured = clusters
        .iter()
        .filter(|(_, config)| config.tls.has_policy());
    let keys: Vec<_> = secured.map(|(key, _)| key.clone()).collect();
    for key in keys {
        if let Some(config) = clusters.get_mut(&key) {
            let tls = ClusterTls::compile(config.cluster.tls(), identities, Some(&config.tls));
            Arc::make_mut(config).tls = tls;
        }
    }
}
