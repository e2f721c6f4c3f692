//! What became of persistent sessions, counted for the process.
//!
//! Counted only where a rule or a backend asks for sessions; the configuration says how many do,
//! and is told by whoever scrapes.

use super::exposition::Exposition;
use super::family;
use super::instrument::{Counter, Gauge};

/// The counters of sessions.
#[derive(Debug, Default)]
pub struct SessionMetrics {
    /// Sessions that began.
    pub began: Counter,
    /// Requests that went to the endpoint of their session.
    pub kept: Counter,
    /// Sessions that went on at another endpoint.
    pub moved: Counter,
    /// Values of clients that were not ours, or whose time was up.
    pub refused: Counter,
    /// Rules of routes that ask for sessions.
    pub rules: Gauge,
    /// Clusters that do.
    pub backends: Gauge,
    /// 1 while sessions are sealed under a secret that ends with the process.
    pub is_ephemeral: Gauge,
    /// 1 while the file of the secret cannot be used.
    pub is_secret_unusable: Gauge,
    /// Times that a new secret began to seal.
    pub secrets_taken: Counter,
}

impl SessionMetrics {
    pub(super) fn encode(&self, out: &mut Exposition<'_>) {
        let is_active = i64::from(self.rules.value() + self.backends.value() > 0);
        out.family(&family::SESSIONS_ACTIVE).sample(&[], is_active);
        let gauges = [
            (&family::SESSIONS_EPHEMERAL, &self.is_ephemeral),
            (&family::SESSION_SECRET_UNUSABLE, &self.is_secret_unusable),
            (&family::SESSION_RULES, &self.rules),
            (&family::SESSION_BACKENDS, &self.backends),
        ];
        for (family, gauge) in gauges {
            out.family(family).sample(&[], gauge.value());
        }
        out.family(&family::SESSION_SECRETS)
            .sample(&[], self.secrets_taken.value());
        let mut samples = out.family(&family::SESSIONS);
        for (outcome, count) in [
            ("began", &self.began),
            ("kept", &self.kept),
            ("moved", &self.moved),
            ("refused", &self.refused),
        ] {
            samples.sample(&[outcome], count.value());
        }
    }
}
