//! Active health checks: which endpoints are asked when, and what follows.
//!
//! The configuration line tells [`Checks`] what changed with every update; a thread of their own
//! makes the checks, because neither traffic nor compiling shall make an endpoint look slow. It is
//! started when the first cluster asks for checks. Endpoints keep their place in the schedule and
//! what was found out about them as long as their address stays in the cluster. How one check is
//! made is in `dataplane-http`, what turns an endpoint in `dataplane-resilience`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use dataplane_config::{ClusterConfig, RuntimeConfig};
use dataplane_resilience::health_check;
use ir::Change;
use ir::backend_policy::{HealthCheck, Probe};
use ir::cluster::ClusterProtocol;

mod prober;

/// What holds for checks that say nothing else.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// Clusters without a policy are asked for a TCP connection.
    pub checks_all: bool,
    /// Rhythm and thresholds.
    pub defaults: health_check::Settings,
}

/// The configuration line's end of the checks.
#[derive(Debug)]
pub struct Checks {
    settings: Settings,
    http: Arc<dataplane_http::Settings>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the two ends share.
#[derive(Debug, Default)]
struct Shared {
    /// The last word about each cluster that the thread has not heard yet.
    changed: Mutex<HashMap<Arc<str>, Option<Watched>>>,
    news: Notify,
    stop: CancellationToken,
}

/// A cluster, and how its endpoints are checked.
#[derive(Clone, Debug)]
struct Watched {
    cluster: Arc<ClusterConfig>,
    /// Absent when they are not, any more.
    check: Option<Arc<Check>>,
}

/// How endpoints are checked.
#[derive(Debug)]
struct Check {
    source: HealthCheck,
    settings: health_check::Settings,
}

impl Checks {
    /// Nothing is checked yet.
    pub fn new(settings: Settings, http: Arc<dataplane_http::Settings>) -> Self {
        Self {
            settings,
            http,
            shared: Arc::default(),
            thread: None,
        }
    }

    /// Takes over what an update changed; called once it serves.
    pub fn update(&mut self, previous: &RuntimeConfig, next: &RuntimeConfig) {
        let changes = previous.snapshot.clusters.changes(&next.snapshot.clusters);
        let mut changed = Vec::new();
        for change in changes {
            match change {
                Change::Upsert(source) => {
                    let check = self.check(source);
                    let before = previous.snapshot.clusters.get(&source.key);
                    let was_checked = before.is_some_and(|before| self.is_checked(before));
                    if check.is_none() && !was_checked {
                        continue;
                    }
                    let cluster = next.clusters.get(&source.key).cloned();
                    let watched = cluster.map(|cluster| Watched {
                        cluster,
                        check: check.map(Arc::new),
                    });
                    changed.push((source.key.clone(), watched));
                }
                Change::Remove(source) if self.is_checked(source) => {
                    changed.push((source.key.clone(), None));
                }
                Change::Remove(_) => {}
            }
        }
        if changed.is_empty() {
            return;
        }
        self.shared.changed().extend(changed);
        self.shared.news.notify_one();
        self.start();
    }

    fn start(&mut self) {
        if self.thread.as_ref().is_some_and(|it| !it.is_finished()) {
            return;
        }
        let (shared, http) = (self.shared.clone(), self.http.clone());
        let thread = std::thread::Builder::new().name("health".to_owned());
        match thread.spawn(move || prober::run(&shared, &http)) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => {
                tracing::error!(%error, "health checks cannot be made: no thread for them");
            }
        }
    }

    fn is_checked(&self, source: &ir::Cluster) -> bool {
        let policy = source.policy.as_deref();
        let has_own = policy.is_some_and(|policy| policy.health_check.is_some());
        let is_bytes = !matches!(source.protocol, ClusterProtocol::Udp);
        has_own || (self.settings.checks_all && is_bytes)
    }

    /// How a cluster's endpoints are checked, if they are.
    fn check(&self, source: &ir::Cluster) -> Option<Check> {
        if !self.is_checked(source) {
            return None;
        }
        let policy = source.policy.as_deref();
        let own = policy.and_then(|policy| policy.health_check.clone());
        let source = own.unwrap_or(HealthCheck {
            probe: Probe::Tcp,
            interval: None,
            timeout: None,
            unhealthy_threshold: None,
            healthy_threshold: None,
            port: None,
        });
        let defaults = self.settings.defaults;
        let settings = health_check::Settings {
            interval: source.interval.unwrap_or(defaults.interval),
            timeout: source.timeout.unwrap_or(defaults.timeout),
            unhealthy_threshold: source
                .unhealthy_threshold
                .unwrap_or(defaults.unhealthy_threshold),
            healthy_threshold: source
                .healthy_threshold
                .unwrap_or(defaults.healthy_threshold),
        };
        Some(Check { source, settings })
    }
}

impl Drop for Checks {
    /// Ends the thread, which leaves what it does at once.
    fn drop(&mut self) {
        self.shared.stop.cancel();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the health checks panicked; please report the backtrace");
        }
    }
}

impl Shared {
    fn changed(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Option<Watched>>> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
