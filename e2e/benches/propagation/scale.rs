//! 5,000 routes with a Service and a Pod each, in 50 namespaces: memory, and CPU while they change.
//!
//! Under churn a route's path and a Service's Pod change ten times a second each, which is ten and
//! twenty times what gateway-api-bench does; 300 new routes are measured meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::objects;
use crate::pods;
use crate::probe::Propagation;
use crate::report::{Report, ms};
use crate::stage::{Stage, as_figure};
use crate::usage::{Meter, memory};

const NAMESPACES: usize = 50;
const ROUTES: usize = 100;
const CHURN: Duration = Duration::from_secs(30);
const CHURN_PAUSE: Duration = Duration::from_millis(100);
const MEASURED: usize = 300;
/// Freed memory is given back within this time.
const REST: Duration = Duration::from_secs(15);

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let (data_plane, shim) = (stage.data_plane.process.id(), stage.shim.process.id());
    let idle = memory(data_plane)?;
    report.note("data plane, idle", idle, "MiB");
    report.note("shim, idle", memory(shim)?, "MiB");
    let namespaces: Vec<String> = (0..NAMESPACES).map(|it| format!("scale-{it}")).collect();
    stage
        .create_all(namespaces.iter().map(|it| objects::namespace(it)).collect())
        .await?;
    let load = Meter::start(shim)?;
    let begun = Instant::now();
    for kind in [service, slice, route] {
        let all = (0..NAMESPACES * ROUTES).map(|number| kind(number, number, stage.pods.port));
        stage.create_all(all.collect()).await?;
        report.say("5,000 objects more");
    }
    let last = NAMESPACES * ROUTES - 1;
    stage.served(&host(last), &path(last)).await?;
    report.note(
        "15,000 objects written and served",
        begun.elapsed().as_secs_f64(),
        "s",
    );
    let attached = ["listeners", "0", "attachedRoutes"];
    stage.counted(&attached, NAMESPACES * ROUTES + 1).await?;
    statuses_rest(stage).await;
    report.say("all statuses are written");
    report.note("CPU of the shim for that", load.seconds()?, "s");
    report.goal(
        "data plane with 5,000 routes",
        memory(data_plane)?,
        "MiB",
        46.0,
    );
    report.goal("shim with 5,000 routes", memory(shim)?, "MiB", 200.0);

    churn(stage, report).await?;

    let begun = Instant::now();
    let mut all = namespaces;
    stage
        .delete_all(&["HTTPRoute", "Service", "EndpointSlice"], all.clone())
        .await?;
    all.clear();
    remove_measured(stage).await?;
    stage.counted(&attached, 1).await?;
    report.note("deleted and counted", ms(begun.elapsed()) / 1000.0, "s");
    let bound = idle * 1.1;
    let since = Instant::now();
    while memory(data_plane)? > bound && since.elapsed() < REST {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    report.note("given back after", since.elapsed().as_secs_f64(), "s");
    report.goal(
        "data plane after deletion",
        memory(data_plane)?,
        "MiB",
        bound,
    );
    report.note("shim after deletion", memory(shim)?, "MiB");
    Ok(())
}

async fn churn(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let (data_plane, shim) = (stage.data_plane.process.id(), stage.shim.process.id());
    let is_over = Arc::new(AtomicBool::new(false));
    let mut api = stage.proxy.connect().await?;
    let (stop, port) = (Arc::clone(&is_over), stage.pods.port);
    let changes = tokio::spawn(async move {
        let mut pace = tokio::time::interval(CHURN_PAUSE);
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            pace.tick().await;
            // 769 and 5,000 have no common factor: every object has its turn.
            let number = count * 769 % (NAMESPACES * ROUTES);
            api.merge(&route(number, number + count, port)).await?;
            api.merge(&slice(number, number + count, port)).await?;
            count += 1;
        }
        anyhow::Ok(count * 2)
    });
    let (ours, theirs) = (Meter::start(shim)?, Meter::start(data_plane)?);
    tokio::time::sleep(CHURN).await;
    report.goal(
        "shim under 20 changes a second",
        ours.cores()?,
        "cores",
        0.1,
    );
    report.note(
        "data plane under 20 changes a second",
        theirs.cores()?,
        "cores",
    );
    let propagation = Propagation::measure(stage, report, "churn", MEASURED).await?;
    is_over.store(true, Ordering::Relaxed);
    report.note("changes", as_figure(changes.await??), "");
    propagation.tell(report, 20.0);
    report.goal("data plane after churn", memory(data_plane)?, "MiB", 46.0);
    report.goal("shim after churn", memory(shim)?, "MiB", 200.0);
    Ok(())
}

async fn remove_measured(stage: &Stage) -> anyhow::Result<()> {
    let mut api = stage.proxy.connect().await?;
    for number in 0..MEASURED {
        let name = e2e::kube_api::Name {
            kind: "HTTPRoute",
            namespace: "default",
            name: &format!("churn-{number}"),
        };
        api.delete(name).await?;
    }
    Ok(())
}

/// Waits until nothing more is written.
async fn statuses_rest(stage: &Stage) {
    let mut before = String::new();
    loop {
        let text = stage.shim.admin.text("/metrics").await;
        let mut lines = text.lines();
        let now = lines.find(|line| line.contains("status_writes_total"));
        let now = now.unwrap_or_default().to_owned();
        if now == before {
            return;
        }
        before = now;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn place(number: usize) -> (String, String) {
    let namespace = format!("scale-{}", number % NAMESPACES);
    (namespace, format!("app-{}", number / NAMESPACES))
}

fn host(number: usize) -> String {
    let (namespace, name) = place(number);
    format!("{name}.{namespace}.example.com")
}

fn path(variant: usize) -> String {
    format!("/{variant}")
}

fn service(number: usize, _: usize, _: u16) -> Value {
    let (namespace, name) = place(number);
    objects::service(&namespace, &name)
}

fn slice(number: usize, variant: usize, port: u16) -> Value {
    let (namespace, name) = place(number);
    objects::slice(&namespace, &name, &[pods::address(variant)], port)
}

fn route(number: usize, variant: usize, _: u16) -> Value {
    let (namespace, name) = place(number);
    let rules = objects::plain_rules(&path(variant), &name, 80);
    objects::route(&namespace, &name, &host(number), rules)
}
