//! The whole gateway in one process: the control plane and a data plane, joined by a real stream.
//!
//! The only file that may import the data plane. `cli.rs` calls [`explain`], which asks it a question,
//! and [`run`]: it starts the control plane
//! on a free loopback port, the data plane against it, and prints what is served and what is wrong;
//! afterwards every change is one line. Settings are the defaults of two processes, but for these:
//! connections end neither by age nor by number of requests, bodies have no limit, there is no access
//! log, the drain takes 10 s at most, the control plane is ready without a data plane, and refused
//! objects are tried again after 5 s.

mod table;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use dataplane::Metrics;
pub use dataplane::admin::explain::{Asked, as_text};
use dataplane::bootstrap::Bootstrap;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::conditions::Which;
use crate::control_plane::{ControlPlane, Source};
use crate::demo;
use crate::history::Published;
use crate::pipeline::State;
use crate::report::Report;
use crate::settings::{GrpcRuntime, Settings};
use crate::translate::{self, Classes, PortMap};

/// The name of the only data plane.
const NODE_ID: &str = "standalone";
/// How long a configuration may take to serve before it is told of anyway.
const LOOK: Duration = Duration::from_secs(10);
/// How long a refusal may stand before it is told of: what is at fault is usually left out at once.
const REFUSAL: Duration = Duration::from_secs(1);
/// How soon a port that was taken is tried again; with one data plane an attempt costs little.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// What to run.
#[derive(Debug)]
pub struct Standalone {
    /// Folders or files with the manifests.
    pub folders: Vec<PathBuf>,
    /// Start the echo backends of the quickstart.
    pub is_demo: bool,
    /// Which port is bound for a port as written.
    pub ports: PortMap,
    /// Whose Gateways are served.
    pub classes: Classes,
    /// Admin API of the data plane.
    pub admin_addr: SocketAddr,
    /// Admin API of the control plane.
    pub control_admin_addr: SocketAddr,
}

/// What would become of a request in a data plane that serves `snapshot`; nothing is started for it.
pub fn explain(snapshot: ir::Snapshot, asked: Asked) -> anyhow::Result<serde_json::Value> {
    let told = dataplane::admin::explain::of_snapshot(snapshot, asked);
    told.map_err(anyhow::Error::msg)
}

/// Runs until the shutdown, or until either half fails.
pub async fn run(standalone: Standalone, shutdown: CancellationToken) -> anyhow::Result<()> {
    if standalone.is_demo {
        demo::start(&shutdown, &standalone.ports).await?;
    }
    // The control plane outlives the data plane, which drains first.
    let control_shutdown = CancellationToken::new();
    let control_plane = ControlPlane::start(
        standalone.settings(),
        Source::Files(standalone.folders.clone()),
        standalone.translation(),
        control_shutdown.clone(),
    )
    .await?;
    // A data plane that came before the first snapshot would be told to come back later.
    let mut snapshots = control_plane.store.subscribe();
    let first = snapshots.wait_for(Option::is_some);
    drop(tokio::time::timeout(LOOK, first).await);
    let data_plane = start_data_plane(
        control_plane.grpc_addr,
        standalone.admin_addr,
        shutdown.clone(),
    )?;
    let mut screen = Screen::new(&control_plane, standalone.admin_addr);
    let follow = screen.follow(&shutdown);
    let outcome = tokio::select! {
        ended = data_plane => {
            let ended = ended.context("the data plane's thread died");
            ended.flatten().context("the data plane stopped")
        }
        () = follow => Ok(()),
    };
    control_shutdown.cancel();
    control_plane.wait().await?;
    outcome
}

impl Standalone {
    fn settings(&self) -> Settings {
        Settings {
            grpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            admin_addr: self.control_admin_addr,
            quarantine_retry_after: RETRY_AFTER,
            grpc_runtime: GrpcRuntime {
                permit_without_stream: true,
                max_connection_age: None,
                ..GrpcRuntime::default()
            },
            ..Settings::default()
        }
    }

    fn translation(&self) -> translate::Settings {
        translate::Settings {
            classes: self.classes.clone(),
            local_addresses: local_addresses(),
            ports: self.ports.clone(),
            ..translate::Settings::default()
        }
    }
}

/// The addresses of this host; a Gateway that asks for another one is told so, instead of having the
/// data plane refuse everything because it cannot bind there.
fn local_addresses() -> Option<BTreeSet<IpAddr>> {
    match if_addrs::get_if_addrs() {
        Ok(interfaces) => Some(interfaces.iter().map(if_addrs::Interface::ip).collect()),
        Err(error) => {
            warn!(%error, "the addresses of this host are unknown, Gateways may ask for any");
            None
        }
    }
}

/// Runs the data plane on a thread of its own, so that neither half can stall the other.
fn start_data_plane(
    control_plane: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("data-plane".to_owned())
        .spawn(move || {
            let outcome = data_plane(control_plane, admin, shutdown);
            // Nobody listens any more when the control plane failed first.
            drop(done.send(outcome));
        })
        .context("cannot start a thread for the data plane")?;
    Ok(ended)
}

fn data_plane(
    control_plane: SocketAddr,
    admin: SocketAddr,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("data-plane-control")
        .on_thread_park(dataplane::ebb::tend_thoroughly)
        .thread_keep_alive(dataplane::ebb::IDLE_THREAD)
        .enable_all()
        .build()?;
    let control_plane = format!("http://{control_plane}");
    let bootstrap = Bootstrap::standalone(NODE_ID, &control_plane, admin);
    let stop = shutdown.cancelled_owned();
    let run = dataplane::app::run(bootstrap, Metrics::new(), None, stop);
    let drained = runtime.block_on(Box::pin(run))?;
    anyhow::ensure!(
        drained,
        "requests were cut off at the end of the drain period"
    );
    Ok(())
}

/// What is printed, and what was printed last.
struct Screen<'a> {
    control_plane: &'a ControlPlane,
    admin_addr: SocketAddr,
    problems: Vec<String>,
    /// Objects of kinds that are not read.
    skipped: Vec<String>,
    /// The version that was printed last.
    version: String,
    /// [`State::edits`] of what was printed last.
    edits: u64,
}

impl<'a> Screen<'a> {
    fn new(control_plane: &'a ControlPlane, admin_addr: SocketAddr) -> Self {
        Self {
            control_plane,
            admin_addr,
            problems: Vec::new(),
            skipped: Vec::new(),
            version: String::new(),
            edits: 0,
        }
    }

    /// Prints the table once something serves, then a line per change; never completes by itself
    /// before the shutdown is over.
    async fn follow(&mut self, shutdown: &CancellationToken) {
        let mut snapshots = self.control_plane.store.subscribe();
        let mut state = self.control_plane.state.clone();
        let served = self.wait_until_served();
        drop(tokio::time::timeout(LOOK, served).await);
        snapshots.mark_unchanged();
        state.mark_unchanged();
        let first = snapshots.borrow().clone();
        if let Some(published) = first {
            let state = state.borrow().clone();
            self.print_table(&published, &state);
        }
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = state.changed() => if changed.is_err() { break },
            }
            // Conditions come first; the snapshot follows within the same update, if it differs.
            let next = tokio::time::timeout(Duration::from_millis(50), snapshots.changed()).await;
            if matches!(next, Ok(Ok(()))) {
                let served = self.wait_until_served();
                drop(tokio::time::timeout(LOOK, served).await);
            }
            snapshots.mark_unchanged();
            let state = state.borrow_and_update().clone();
            self.print_change(&state);
        }
        // The data plane drains; `run` waits for it.
        std::future::pending::<()>().await;
    }

    async fn wait_until_served(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let started = Instant::now();
        loop {
            tick.tick().await;
            let Some(current) = self.control_plane.store.current() else {
                continue;
            };
            let version = current.snapshot.version.as_str();
            let node = self.control_plane.nodes.node(NODE_ID);
            let Some(node) = node else {
                continue;
            };
            let is_refused = !node.error_detail.is_empty() && started.elapsed() >= REFUSAL;
            if node.version == version || is_refused {
                return;
            }
        }
    }

    #[expect(clippy::print_stdout, reason = "the table is what the command shows")]
    fn print_table(&mut self, published: &Arc<Published>, state: &State) {
        let table = table::render(&published.snapshot);
        println!("{table}");
        println!("admin API: data plane    http://{}", self.admin_addr);
        println!(
            "           control plane http://{}",
            self.control_plane.admin_addr
        );
        let report = Report::new(&state.files, &state.translation, Which::Problems);
        let refusals = self.refusals();
        if report.has_problems() || !refusals.is_empty() {
            println!("\nWhat is wrong:");
        } else {
            println!("\nNothing is wrong.");
        }
        print!("{report}");
        for line in &refusals {
            println!("{line}");
        }
        self.problems = problem_lines(&report);
        self.problems.extend(refusals);
        self.skipped = report.skipped.iter().map(ToString::to_string).collect();
        published
            .snapshot
            .version
            .as_str()
            .clone_into(&mut self.version);
        self.edits = state.edits;
    }

    /// One line for the change, and one for each problem that is new.
    #[expect(clippy::print_stdout, reason = "the change is what the command shows")]
    fn print_change(&mut self, state: &State) {
        let report = Report::new(&state.files, &state.translation, Which::Problems);
        let mut problems = problem_lines(&report);
        problems.extend(self.refusals());
        if self.edits == state.edits && self.problems == problems {
            // A port that is still taken was tried again.
            return;
        }
        self.edits = state.edits;
        let what = match self.control_plane.store.current() {
            Some(now) if now.snapshot.version.as_str() != self.version => {
                now.snapshot.version.as_str().clone_into(&mut self.version);
                table::summary(&now.snapshot)
            }
            _ => "nothing new to serve".to_owned(),
        };
        let count = match problems.len() {
            0 => "nothing is wrong".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        println!("changed: {what}; {count}");
        for problem in &problems {
            if !self.problems.contains(problem) {
                println!("  {problem}");
            }
        }
        self.problems = problems;
        let skipped: Vec<_> = report.skipped.iter().map(ToString::to_string).collect();
        for line in skipped.iter().filter(|line| !self.skipped.contains(line)) {
            println!("  skipped: {line}");
        }
        self.skipped = skipped;
    }

    /// What the data plane refused, with its reasons, as long as it is not what is left out.
    fn refusals(&self) -> Vec<String> {
        let current = self.control_plane.store.current();
        let is_current = |version: &str| {
            let current = current.as_ref();
            current.is_some_and(|current| current.snapshot.version.as_str() == version)
        };
        let node = self.control_plane.nodes.node(NODE_ID);
        let refused = node.filter(|node| !node.error_detail.is_empty());
        let Some(node) = refused.filter(|node| !is_current(&node.version)) else {
            return Vec::new();
        };
        let mut lines = vec![format!("the data plane refused it: {}", node.error_detail)];
        let faults = node.violations.iter();
        lines.extend(
            faults.map(|fault| format!("  {}: {}: {}", fault.object, fault.path, fault.message)),
        );
        lines
    }
}

fn problem_lines(report: &Report) -> Vec<String> {
    let faults = report.faults.iter().map(ToString::to_string);
    faults
        .chain(report.conditions.iter().map(ToString::to_string))
        .chain(report.violations.iter().map(ToString::to_string))
        .collect()
}
