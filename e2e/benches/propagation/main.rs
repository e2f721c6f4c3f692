//! How fast the cluster's objects become traffic, and what holding them costs.
//!
//! An API server with etcd, the shim and a data plane, all built binaries, in a network namespace of
//! their own where 198.18.0.0/15 is local: the API server refuses endpoints on loopback, and Pods are
//! nothing but EndpointSlices there. The parts are those of the public gateway-api-bench. Each prints
//! its figures beside the goals; all of them are left as JSON. Run by
//! `cargo bench -p e2e --bench propagation -- [PART]...` after `cargo build --release --workspace`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench says what it does and what it measured"
)]

mod attached;
mod edits;
mod failover;
mod listener_sets;
mod new_routes;
mod objects;
mod pods;
mod probe;
mod report;
mod scale;
mod stage;
mod stages;
mod usage;
mod watch;

use std::env;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};

use self::report::Report;
use self::stage::Stage;

/// Set once the process is in its namespace.
const INSIDE: &str = "PROPAGATION_INSIDE";
const ENTER: &str = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$@\"";

const PARTS: &[&str] = &[
    "new-routes",
    "live-edits",
    "attached-routes",
    "failover",
    "route-scale",
    "listener-sets",
];

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("propagation: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// True when every goal is met.
fn run() -> anyhow::Result<bool> {
    // What cargo adds is not ours.
    let mut parts: Vec<String> = env::args().skip(1).filter(|it| it != "--bench").collect();
    if let Some(unknown) = parts.iter().find(|it| !PARTS.contains(&it.as_str())) {
        bail!(
            "no part is called {unknown}; there are {}",
            PARTS.join(", ")
        );
    }
    if env::var_os(INSIDE).is_none() {
        let failed = Command::new("unshare")
            .args(["--net", "bash", "-c", ENTER, "propagation"])
            .arg(env::current_exe()?)
            .args(&parts)
            .env(INSIDE, "1")
            .exec();
        return Err(failed).context("cannot start `unshare`, which makes the network namespace");
    }
    if parts.is_empty() {
        parts = PARTS.iter().map(|&part| part.to_owned()).collect();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(&parts))
}

async fn measure(parts: &[String]) -> anyhow::Result<bool> {
    let mut report = Report::default();
    for part in parts {
        // Each begins with an empty cluster and young processes.
        let Some(stage) = Stage::start().await? else {
            bail!("there is no API server; e2e/cluster/build light makes its programs");
        };
        report.begin(part);
        match part.as_str() {
            "new-routes" => new_routes::measure(&stage, &mut report).await?,
            "live-edits" => edits::measure(&stage, &mut report).await?,
            "attached-routes" => attached::measure(&stage, &mut report).await?,
            "failover" => failover::measure(&stage, &mut report).await?,
            "route-scale" => scale::measure(&stage, &mut report).await?,
            _ => listener_sets::measure(&stage, &mut report).await?,
        }
        stage.check(&mut report).await;
    }
    report.finish()
}
