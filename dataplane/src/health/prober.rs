//! The thread that makes the checks.
//!
//! One task with one heap looks after all endpoints: it sleeps until the next is due, begins its
//! check, and puts it back when that has ended. Checks run beside each other up to a limit; what is
//! due beyond that waits for one to end.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{Id, JoinSet, LocalSet};
use tokio::time::{sleep_until, timeout};

use dataplane_http::probe::probe;
use dataplane_resilience::health_check::{Fault, Schedule};
use dataplane_upstream::{Endpoint, since_start};

use super::{Check, Shared, Watched};

/// Checks that run at once; each has a descriptor.
const RUNNING_MAX: usize = 256;
/// How long those that run at the end may take.
const PATIENCE: Duration = Duration::from_millis(100);
/// The shortest interval: what is asked more often than that is asked as often as that.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// Makes checks until it is told to stop.
pub(super) fn run(shared: &Shared, http: &Arc<dataplane_http::Settings>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "health checks cannot be made: no runtime for them");
            return;
        }
    };
    let local = LocalSet::new();
    let mut prober = Prober::new(http.clone());
    local.block_on(&runtime, prober.run(shared));
    let ended = async {
        prober.running.shutdown().await;
    };
    let _ = local.block_on(&runtime, async { timeout(PATIENCE, ended).await });
}

/// Names an endpoint for as long as it is checked.
type Number = u64;

struct Prober {
    http: Arc<dataplane_http::Settings>,
    watched: HashMap<Arc<str>, HashMap<SocketAddr, Number>>,
    targets: HashMap<Number, Target>,
    schedule: Schedule<Number>,
    running: JoinSet<Result<(), Fault>>,
    checks: HashMap<Id, Running>,
    next: Number,
}

/// An endpoint that is checked.
#[derive(Clone)]
struct Target {
    watched: Rc<Watched>,
    check: Arc<Check>,
    endpoint: Arc<Endpoint>,
}

/// A check that has begun.
struct Running {
    number: Number,
    began: Duration,
}

impl Prober {
    fn new(http: Arc<dataplane_http::Settings>) -> Self {
        Self {
            http,
            watched: HashMap::new(),
            targets: HashMap::new(),
            schedule: Schedule::default(),
            running: JoinSet::new(),
            checks: HashMap::new(),
            next: 0,
        }
    }

    async fn run(&mut self, shared: &Shared) {
        loop {
            let changed = std::mem::take(&mut *shared.changed());
            for (key, watched) in changed {
                self.take_over(key, watched);
            }
            self.begin_due();
            let has_room = self.running.len() < RUNNING_MAX;
            let next_due = self.schedule.next_due().filter(|_| has_room);
            let due = async {
                match next_due {
                    Some(due) => sleep_until(at(due).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = shared.stop.cancelled() => return,
                () = shared.news.notified() => {}
                () = due => {}
                Some(ended) = self.running.join_next_with_id() => match ended {
                    Ok((id, result)) => self.ended(id, result),
                    Err(error) => {
                        tracing::error!(%error, "a health check panicked; please report the backtrace");
                        self.ended(error.id(), Err(Fault::Broken));
                    }
                },
            }
        }
    }

    /// What an update says about one cluster.
    fn take_over(&mut self, key: Arc<str>, watched: Option<Watched>) {
        let before = self.watched.remove(&key).unwrap_or_default();
        let mut gone = before.clone();
        if let Some(watched) = watched.map(Rc::new) {
            if let Some(check) = watched.check.clone() {
                let now = since_start(Instant::now());
                let mut numbers = HashMap::new();
                let ready = watched.cluster.cluster.endpoints().iter();
                for endpoint in ready.filter(|endpoint| endpoint.is_ready()) {
                    let address = endpoint.address();
                    gone.remove(&address);
                    let number = match before.get(&address) {
                        Some(number) => *number,
                        None => self.add(now + check.settings.first(fastrand::f64())),
                    };
                    numbers.insert(address, number);
                    let target = Target {
                        watched: watched.clone(),
                        check: check.clone(),
                        endpoint: endpoint.clone(),
                    };
                    self.targets.insert(number, target);
                }
                self.watched.insert(key, numbers);
            }
            self.forget(gone);
            // What was found out while it was compiled, and what was forgotten now.
            watched.cluster.cluster.refresh(Instant::now());
        } else {
            self.forget(gone);
        }
    }

    fn add(&mut self, due: Duration) -> Number {
        self.next += 1;
        self.schedule.put(due, self.next);
        self.next
    }

    fn forget(&mut self, gone: HashMap<SocketAddr, Number>) {
        for number in gone.into_values() {
            // Its place in the schedule is passed over when it comes.
            if let Some(target) = self.targets.remove(&number) {
                target.endpoint.load().forget_checks();
            }
        }
    }

    fn begin_due(&mut self) {
        let now = since_start(Instant::now());
        while self.running.len() < RUNNING_MAX {
            let Some(number) = self.schedule.take_due(now) else {
                return;
            };
            let Some(target) = self.targets.get(&number).cloned() else {
                continue;
            };
            let http = self.http.clone();
            let task = self.running.spawn_local(async move {
                let Check { source, settings } = &*target.check;
                let cluster = &target.watched.cluster;
                probe(cluster, &target.endpoint, source, settings, &http).await
            });
            let running = Running { number, began: now };
            self.checks.insert(task.id(), running);
        }
    }

    fn ended(&mut self, id: Id, result: Result<(), Fault>) {
        let Some(Running { number, began }) = self.checks.remove(&id) else {
            return;
        };
        // The endpoint may be gone by now, or meant by another configuration.
        let Some(target) = self.targets.get(&number) else {
            return;
        };
        let config = &target.watched.cluster;
        let (check, endpoint) = (&target.check, &target.endpoint);
        config.metrics.health_checked(result.is_ok());
        let now = Instant::now();
        let turned = config
            .cluster
            .checked(endpoint, result, &check.settings, now);
        match (turned, result) {
            (true, Err(fault)) => tracing::warn!(
                cluster = &**config.cluster.key(),
                endpoint = %endpoint.address(),
                %fault,
                "an endpoint does not pass its health checks and is left out"
            ),
            (true, Ok(())) => tracing::info!(
                cluster = &**config.cluster.key(),
                endpoint = %endpoint.address(),
                "an endpoint passes its health checks again"
            ),
            (false, _) => {}
        }
        let pause = check.settings.pause(fastrand::f64()).max(PAUSE_MIN);
        self.schedule
            .put((began + pause).max(since_start(now)), number);
    }
}

/// The moment that so much time after the start is.
fn at(due: Duration) -> Instant {
    let now = Instant::now();
    now + due.saturating_sub(since_start(now))
}
