//! Which of several replicas serves: the one that holds a Lease.
//!
//! `control_plane.rs` runs [`run`] for `--source kube`; `serve.rs` and `status.rs` follow the flag it
//! sets. A holder that cannot renew stops serving before anybody else may begin, so there is never
//! more than one. Times are taken from this process's own clock: what counts is how long a Lease
//! has stood unchanged, not what is written in it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::metrics::Metrics;
use crate::settings::LeaderElection;

/// How much oftener than a holder renews others look.
const LOOKS: u32 = 4;

/// Name of this process among replicas.
pub fn identity() -> String {
    let host = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME"));
    let host = host.unwrap_or_else(|_| "shim".to_owned());
    format!("{host}_{:016x}", rand_like())
}

/// Distinct for every process: time and process id are enough to tell replicas apart.
fn rand_like() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let nanos = now.map_or(0, |now| now.as_nanos());
    let mixed = nanos ^ (u128::from(std::process::id()) << 64);
    u64::try_from(mixed % u128::from(u64::MAX)).unwrap_or_default()
}

/// Holds the Lease when it can, until the shutdown; then gives it back.
pub async fn run(
    client: Client,
    settings: LeaderElection,
    identity: String,
    leading: watch::Sender<bool>,
    metrics: std::sync::Arc<Metrics>,
    shutdown: CancellationToken,
) {
    let mut election = Election {
        api: Api::namespaced(client, &settings.namespace),
        settings,
        identity,
        seen: None,
    };
    let mut renewed_at = Instant::now();
    let mut is_told = false;
    while !shutdown.is_cancelled() {
        let asked_at = Instant::now();
        let is_leading = *leading.borrow();
        let renew_by = is_leading.then(|| renewed_at + election.settings.renew_deadline);
        let limit = no_later(election.settings.retry_period, renew_by);
        let outcome = match timeout(limit, election.attempt()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(kube::Error::Service("no answer in time".into())),
        };
        let holds = match outcome {
            Ok(holds) => {
                if holds {
                    renewed_at = asked_at;
                }
                is_told = false;
                holds
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                debug!("another replica was quicker");
                false
            }
            Err(error) => {
                if !is_told {
                    warn!(
                        %error, lease = election.settings.id,
                        namespace = election.settings.namespace,
                        "the Lease cannot be held; check that the namespace exists and RBAC allows \
                         it, or set leaderElection.enabled to false"
                    );
                    is_told = true;
                }
                is_leading && renewed_at.elapsed() < election.settings.renew_deadline
            }
        };
        if holds != is_leading {
            info!(
                identity = election.identity,
                leading = holds,
                "leadership changed"
            );
            metrics.is_leader.set(i64::from(holds));
            leading.send_replace(holds);
        }
        let pause = match holds {
            true => {
                let renew_by = renewed_at + election.settings.renew_deadline;
                no_later(election.settings.retry_period, Some(renew_by))
            }
            false => election.settings.retry_period / LOOKS,
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = sleep(pause) => {}
        }
    }
    if *leading.borrow() {
        leading.send_replace(false);
        let limit = election.settings.retry_period;
        if !matches!(timeout(limit, election.release()).await, Ok(Ok(()))) {
            debug!("the Lease was not given back, it runs out by itself");
        }
    }
}

/// How long a step of a holder may last: it steps down on time, even while the API server is silent.
fn no_later(step: Duration, renew_by: Option<Instant>) -> Duration {
    let left = renew_by.map(|by| by.saturating_duration_since(Instant::now()));
    left.map_or(step, |left| step.min(left))
}

/// One replica's view of the Lease.
struct Election {
    api: Api<Lease>,
    settings: LeaderElection,
    identity: String,
    /// The version of somebody else's Lease, and since when it stands.
    seen: Option<(String, Instant)>,
}

impl Election {
    /// Takes or renews the Lease; false when somebody else holds it.
    async fn attempt(&mut self) -> kube::Result<bool> {
        let params = PostParams::default();
        let Some(lease) = self.api.get_opt(&self.settings.id).await? else {
            let fresh = Lease {
                metadata: ObjectMeta {
                    name: Some(self.settings.id.clone()),
                    namespace: Some(self.settings.namespace.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.held(None)),
            };
            self.api.create(&params, &fresh).await?;
            return Ok(true);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.identity && !holder.is_empty() && !self.has_run_out(&lease, &spec) {
            return Ok(false);
        }
        let renewed = Lease {
            spec: Some(self.held(Some(&spec))),
            ..lease
        };
        // Carries the version that was read: of two who try, one wins.
        self.api
            .replace(&self.settings.id, &params, &renewed)
            .await?;
        self.seen = None;
        Ok(true)
    }

    /// True when somebody else's Lease has stood unchanged for as long as it lasts.
    fn has_run_out(&mut self, lease: &Lease, spec: &LeaseSpec) -> bool {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let lasts = spec
            .lease_duration_seconds
            .and_then(|it| u64::try_from(it).ok());
        let lasts = lasts.map_or(self.settings.lease_duration, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= lasts,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(jiff::Timestamp::now());
        let holder = before.and_then(|spec| spec.holder_identity.as_deref());
        let is_ours = holder == Some(&self.identity);
        let transitions = before
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default();
        let acquired = before.and_then(|spec| spec.acquire_time.clone());
        let seconds = self.settings.lease_duration.as_secs().max(1);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquire_time: acquired.filter(|_| is_ours).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(before.is_some() && !is_ours)),
            ..before.cloned().unwrap_or_default()
        }
    }

    /// Gives the Lease back, so that another replica need not wait.
    async fn release(&self) -> kube::Result<()> {
        let lease = self.api.get(&self.settings.id).await?;
        let spec = lease.spec.clone().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            return Ok(());
        }
        let released = Lease {
            spec: Some(LeaseSpec {
                holder_identity: None,
                lease_duration_seconds: Some(1),
                ..spec
            }),
            ..lease
        };
        let params = PostParams::default();
        self.api
            .replace(&self.settings.id, &params, &released)
            .await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake_api::{self, Answer};

    #[tokio::test]
    async fn a_holder_that_gets_no_answer_steps_down_at_the_deadline() {
        let mut asked = 0;
        let client = fake_api::client(move |_, _| {
            asked += 1;
            match asked {
                1 => Answer::error(404),
                2 => Answer::Is(201, json!({ "metadata": { "name": "l" } })),
                _ => Answer::Never,
            }
        });
        let settings = LeaderElection {
            id: "l".to_owned(),
            namespace: "n".to_owned(),
            lease_duration: Duration::from_secs(3),
            renew_deadline: Duration::from_secs(2),
            retry_period: Duration::from_millis(1900),
        };
        let (leading, mut leads) = watch::channel(false);
        let stop = CancellationToken::new();
        let identity = "me".to_owned();
        let run = run(
            client,
            settings.clone(),
            identity,
            leading,
            std::sync::Arc::default(),
            stop,
        );
        let running = tokio::spawn(run);
        let limit = Duration::from_secs(20);
        let begins = timeout(limit, leads.wait_for(|leads| *leads)).await;
        assert!(matches!(begins, Ok(Ok(_))), "it never led");
        drop(begins);
        let since = Instant::now();
        let ends = timeout(limit, leads.wait_for(|leads| !*leads)).await;
        assert!(matches!(ends, Ok(Ok(_))), "it never stepped down");
        let led = since.elapsed();
        assert!(led < settings.lease_duration, "it led for {led:?}");
        running.abort();
    }
}
