//! An endpoint that is taken out of its EndpointSlice, and one that refuses: who is still asked.
//!
//! Four Pods behind one Service, asked through 16 routes of 16 paths each, as in gateway-api-bench.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::objects;
use crate::pods::{self, Pod};
use crate::probe::{Answer, Client};
use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};

const PODS: usize = 4;
const CLIENTS: usize = 4;
const WAY: usize = 16;
const ROUNDS: usize = 20;
/// A Pod is asked so often that nobody is surprised by this silence.
const SILENCE: Duration = Duration::from_millis(200);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let steady: Vec<Ipv4Addr> = (2..=PODS).map(pods::address).collect();
    let mut flapping = Pod::start(pods::address(1)).await?;
    let slice = |pods: &[Ipv4Addr]| {
        let mut slice = objects::slice("default", "many", pods, flapping.port);
        slice["metadata"]["name"] = "many-2".into();
        slice
    };
    let (with, without) = (slice(&[flapping.address]), slice(&[]));
    let mut objects = vec![
        objects::service("default", "many"),
        objects::slice("default", "many", &steady, stage.pods.port),
        with.clone(),
    ];
    objects.extend((0..WAY).map(route));
    stage.create_all(objects).await?;
    for number in 0..WAY {
        let path = format!("/{}", number * WAY);
        stage.served("many.example.com", &path).await?;
    }
    let mut api = stage.proxy.connect().await?;
    let load = Load::start(stage.port);
    let mut longest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for _ in 0..ROUNDS {
        load.until_asked(&flapping).await;
        api.merge(&without).await?;
        let taken = Instant::now();
        let last = quiet(&flapping).await;
        let time = last.saturating_duration_since(taken);
        longest = longest.max(time);
        total += time;
        api.merge(&with).await?;
    }
    let mean = ms(total) / as_figure(ROUNDS);
    report.note("removed endpoint: last request to it, mean", mean, "ms");
    report.goal(
        "removed endpoint: last request to it, worst",
        ms(longest),
        "ms",
        75.0,
    );
    let failed = as_figure(load.failures());
    report.goal("removed endpoint: requests that failed", failed, "", 0.0);

    let before = (load.failures(), load.answered());
    for _ in 0..ROUNDS {
        load.until_asked(&flapping).await;
        flapping.strike().await;
        tokio::time::sleep(SILENCE).await;
        flapping.revive().await?;
        tokio::time::sleep(SILENCE).await;
    }
    let answered = as_figure(load.answered() - before.1);
    report.note("refusing endpoint: requests", answered, "");
    let failed = as_figure(load.failures() - before.0);
    report.note("refusing endpoint: requests that failed", failed, "");
    load.stop().await;
    Ok(())
}

fn route(number: usize) -> Value {
    let rules = (0..WAY).map(|way| {
        let path = format!("/{}", number * WAY + way);
        objects::plain_rules(&path, "many", 80)[0].clone()
    });
    let rules = Value::Array(rules.collect());
    objects::route(
        "default",
        &format!("many-{number}"),
        "many.example.com",
        rules,
    )
}

/// When the last request came to a Pod that should get no more.
async fn quiet(pod: &Pod) -> Instant {
    let mut last = Instant::now();
    let mut count = pod.requests();
    while last.elapsed() < SILENCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let now = pod.requests();
        if now != count {
            count = now;
            last = Instant::now();
        }
    }
    last
}

/// Clients that ask for one path after the other.
struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failures: AtomicUsize,
}

impl Load {
    fn start(port: u16) -> Self {
        let shared = Arc::new(Shared::default());
        let mut clients = JoinSet::new();
        for first in 0..CLIENTS {
            let shared = Arc::clone(&shared);
            clients.spawn(async move {
                let mut client = Client::new(port);
                let mut path = first;
                while !shared.is_over.load(Ordering::Relaxed) {
                    path = (path + CLIENTS) % (WAY * WAY);
                    match client.ask("many.example.com", &format!("/{path}")).await {
                        Answer::Status(200) => shared.answered.fetch_add(1, Ordering::Relaxed),
                        _ => shared.failures.fetch_add(1, Ordering::Relaxed),
                    };
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            });
        }
        Self { shared, clients }
    }

    /// Waits until a Pod is asked (again).
    async fn until_asked(&self, pod: &Pod) {
        let before = pod.requests();
        let end = Instant::now() + Duration::from_secs(30);
        while pod.requests() < before + 10 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn answered(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    fn failures(&self) -> usize {
        self.shared.failures.load(Ordering::Relaxed)
    }

    async fn stop(mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        while self.clients.join_next().await.is_some() {}
    }
}
