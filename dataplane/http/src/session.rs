//! One request and the session it belongs to.
//!
//! Made by the upstream phase where a rule or a cluster keeps clients at their endpoints; requests
//! of others never come here. What a client brings is opened by `dataplane-config`; here it is
//! looked for in the request, and told to the client when it changed.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::HeaderMap;

use dataplane_config::{Backend, Rule, RuntimeConfig, Session, SessionPolicy, cluster_hash};
use dataplane_upstream::Cluster;

use crate::message::cookies;

/// A request under a session policy.
#[derive(Debug)]
pub(crate) struct Bound<'c> {
    policy: &'c SessionPolicy,
    /// What the client brought.
    held: Option<Session>,
    /// When it brought it.
    now: SystemTime,
}

impl<'c> Bound<'c> {
    /// Opens what the client brought.
    pub(crate) fn begin(policy: &'c SessionPolicy, headers: &HeaderMap) -> Self {
        let now = SystemTime::now();
        let mut is_refused = false;
        let mut open = |text: &[u8]| {
            let session = policy.read(text, now);
            is_refused |= session.is_none();
            session
        };
        let held = match (policy.cookie(), policy.header()) {
            // There may be several of a name, for other paths or of former times.
            (Some(name), _) => cookies(headers, name).find_map(open),
            (None, Some(name)) => headers.get(name).and_then(|value| open(value.as_bytes())),
            (None, None) => None,
        };
        if held.is_none() && is_refused {
            policy.metrics.refused.increment();
        }
        Self { policy, held, now }
    }

    /// The backend of the session, if the rule still has it and requests may go there.
    pub(crate) fn backend(&self, rule: &'c Rule, config: &'c RuntimeConfig) -> Option<&'c Backend> {
        let held = self.held?;
        let is_meant = |backend: &&Backend| {
            let cluster = config.cluster(backend);
            let is_of_use = cluster.is_some_and(|it| {
                cluster_hash(it.cluster.key()) == held.cluster
                    && it.cluster.available() > 0
                    && !it.tls.is_refused()
            });
            backend.weight > 0 && is_of_use
        };
        rule.backends.iter().find(is_meant)
    }

    /// The endpoint of the session, if it is one of that cluster's.
    pub(crate) fn endpoint(&self, cluster: &Cluster) -> Option<SocketAddr> {
        let held = self.held?;
        (held.cluster == cluster_hash(cluster.key())).then_some(held.endpoint)
    }

    /// Tells the client where it belongs, when that is not what it has said itself.
    pub(crate) fn stamp(
        &self,
        cluster: &Cluster,
        endpoint: SocketAddr,
        is_secured: bool,
        headers: &mut HeaderMap,
    ) {
        let key = cluster_hash(cluster.key());
        let metrics = &self.policy.metrics;
        let count = match self.held {
            None => &metrics.began,
            Some(held) if held.cluster == key && held.endpoint == endpoint => &metrics.kept,
            Some(_) => &metrics.moved,
        };
        count.increment();
        let held = self.held.as_ref();
        if let Some((name, value)) = self.policy.write(held, key, endpoint, is_secured, self.now) {
            // Without room the client is balanced anew, which is no worse than before.
            let _ = headers.try_append(name, value);
        }
    }
}
