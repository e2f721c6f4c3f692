//! The command line: what can be asked for, and what is done about it.
//!
//! `main.rs` calls [`run`] and exits with the code it gives. Flags win over the settings file. Each
//! command is a few lines that call the module which does it.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::conditions::Which;
use crate::control_plane::{self, ControlPlane};
use crate::files::FileSource;
use crate::report::Report;
use crate::settings::{Addresses, Settings, TlsFiles};
use crate::standalone::{self, Asked, Standalone, as_text};
use crate::translate::{self, Addressing, Classes, PortMap, translate};
use crate::watch;

/// The control plane of Nantian Gateway for development: Gateway API manifests in, configuration for
/// data planes out.
#[derive(Debug, Parser)]
#[command(name = "nantian-shim", version, about, max_term_width = 100)]
struct Cli {
    /// What is logged, to standard error, as in `info,shim=debug`.
    #[arg(long, global = true, env = "NANTIAN_GW_LOG", value_name = "FILTER")]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the manifests of a folder or of a cluster to data planes, and follow every change.
    Serve(Serve),
    /// Run the whole gateway in one process: the control plane and a data plane.
    Standalone(StandaloneArgs),
    /// Say what is wrong with the manifests of a folder; exits with 1 when anything is.
    Check(Check),
    /// Print a completion script, for `source <(nantian-shim completion bash)` and the like.
    Completion {
        /// Whose script.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Say what would become of a request under the manifests of a folder, and why; nothing is
    /// started.
    Explain(Explain),
}

const NAME: &str = "nantian-shim";

#[derive(Debug, Args)]
struct Serve {
    /// Where manifests come from.
    #[arg(long, value_enum, default_value_t = Source::Files)]
    source: Source,
    /// Folders or files with the manifests (*.yaml, *.yml, *.json).
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The API server to follow with --source kube [default: $KUBECONFIG, or the pod's own].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Settings (YAML); every key, its default and its meaning: docs/reference/shim.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where data planes connect [default: 127.0.0.1:18080].
    #[arg(long, value_name = "ADDRESS")]
    grpc_addr: Option<SocketAddr>,
    /// Where the admin API listens [default: 127.0.0.1:8081]; not loopback needs adminAuth.
    #[arg(long, value_name = "ADDRESS")]
    admin_addr: Option<SocketAddr>,
    /// PEM chain for TLS towards data planes.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM key that belongs to it.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// PEM authorities that sign data planes' certificates; a certificate is then required.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// PEM chain for TLS of the admin API.
    #[arg(long, value_name = "FILE", requires = "admin_tls_key")]
    admin_tls_cert: Option<PathBuf>,
    /// PEM key that belongs to it.
    #[arg(long, value_name = "FILE", requires = "admin_tls_cert")]
    admin_tls_key: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// A folder of YAML files, watched.
    Files,
    /// The API server of a cluster, watched; statuses are written to it.
    Kube,
}

#[derive(Debug, Args)]
struct StandaloneArgs {
    /// Folders or files with the manifests (*.yaml, *.yml, *.json).
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Start the two echo backends that examples/quickstart sends to.
    #[arg(long)]
    demo: bool,
    /// Added to the ports of listeners below 1024, to serve port 80 without being root.
    #[arg(long, default_value_t = 0, value_name = "N")]
    port_offset: u16,
    /// Bind this port for listeners that say another one, and for backends of --demo; can be given
    /// several times.
    #[arg(long, value_name = "WRITTEN=BOUND", value_parser = port_pair)]
    map_port: Vec<(u16, u16)>,
    /// Serve only Gateways of classes with this controllerName [default: all Gateways].
    #[arg(long, value_name = "NAME")]
    controller: Option<String>,
    /// Where the admin API of the data plane listens.
    #[arg(long, default_value = "127.0.0.1:19080", value_name = "ADDRESS")]
    admin_addr: SocketAddr,
    /// Where the admin API of the control plane listens.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDRESS")]
    control_admin_addr: SocketAddr,
}

#[derive(Debug, Args)]
struct Check {
    /// Folders or files with the manifests (*.yaml, *.yml, *.json).
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Print every condition, not only those that tell of a problem.
    #[arg(long)]
    all: bool,
    /// Look only at Gateways of classes with this controllerName [default: at all Gateways].
    #[arg(long, value_name = "NAME")]
    controller: Option<String>,
    /// What the report looks like.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Args)]
struct Explain {
    /// Folder or file with the manifests (*.yaml, *.yml, *.json).
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    asked: Asked,
    /// Look only at Gateways of classes with this controllerName [default: at all Gateways].
    #[arg(long, value_name = "NAME")]
    controller: Option<String>,
    /// What the answer looks like.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people.
    Table,
    /// One JSON document for programs; of `explain` as the data plane's admin API answers.
    Json,
}

/// Exit code of wrong usage and of files that cannot be read; what fails later ends with 1.
const USAGE: u8 = 2;

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no failure; a broken pipe is none either.
            drop(error.print());
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    start_log(cli.log.as_deref(), &cli.command);
    let outcome = match cli.command {
        Command::Check(check) => check.run(),
        Command::Completion { shell } => complete(shell),
        Command::Explain(explain) => explain.run(),
        Command::Serve(serve) => in_runtime(|shutdown| serve.run(shutdown)),
        Command::Standalone(args) => in_runtime(|shutdown| args.run(shutdown)),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::from(USAGE)
        }
    }
}

fn complete(shell: clap_complete::Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    say(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// All commands and options, for their page.
pub fn command() -> clap::Command {
    Cli::command()
}

/// The exit code of what was to run until it is told to stop.
fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

impl Serve {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
        let settings = self.settings()?;
        let mut translation = translate::Settings {
            classes: Classes::Controller(settings.controller_name.clone()),
            ..translate::Settings::default()
        };
        let source = match self.source {
            Source::Files => {
                anyhow::ensure!(
                    !self.folders.is_empty(),
                    "--source files needs a DIR with manifests; without one, data planes would be \
                     told to serve nothing"
                );
                must_exist(&self.folders)?;
                control_plane::Source::Files(self.folders)
            }
            Source::Kube => {
                anyhow::ensure!(
                    self.folders.is_empty(),
                    "--source kube reads no folders; leave them out, or use --source files"
                );
                address(&mut translation, &settings.cluster.addresses);
                translation.mesh = settings.cluster.mesh.as_ref().map(|mesh| mesh.ports);
                control_plane::Source::Kube(watch::client(self.kubeconfig.as_deref()).await?)
            }
        };
        let control_plane = ControlPlane::start(settings, source, translation, shutdown);
        let served = async { control_plane.await?.wait().await };
        Ok(ended(served.await))
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = match &self.config {
            Some(path) => Settings::read(path)?,
            None => Settings::default(),
        };
        settings.grpc_addr = self.grpc_addr.unwrap_or(settings.grpc_addr);
        settings.admin_addr = self.admin_addr.unwrap_or(settings.admin_addr);
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            settings.grpc_tls = Some(TlsFiles {
                cert_path: cert.clone(),
                key_path: key.clone(),
                client_ca_path: self.tls_client_ca.clone(),
                require_client_cert: self.tls_client_ca.is_some(),
            });
        }
        if let (Some(cert), Some(key)) = (&self.admin_tls_cert, &self.admin_tls_key) {
            // Who must show a certificate is for the file alone to say.
            let clients = settings.admin_tls.take();
            settings.admin_tls = Some(TlsFiles {
                cert_path: cert.clone(),
                key_path: key.clone(),
                require_client_cert: clients.as_ref().is_some_and(|it| it.require_client_cert),
                client_ca_path: clients.and_then(|it| it.client_ca_path),
            });
        }
        settings.check_admin()?;
        Ok(settings)
    }
}

impl StandaloneArgs {
    async fn run(self, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
        must_exist(&self.folders)?;
        let standalone = Standalone {
            folders: self.folders,
            is_demo: self.demo,
            ports: PortMap {
                privileged_offset: self.port_offset,
                table: self.map_port.into_iter().collect(),
            },
            classes: classes(self.controller),
            admin_addr: self.admin_addr,
            control_admin_addr: self.control_admin_addr,
        };
        Ok(ended(standalone::run(standalone, shutdown).await))
    }
}

impl Check {
    fn run(self) -> anyhow::Result<ExitCode> {
        must_exist(&self.folders)?;
        let files = FileSource::new(self.folders).current();
        let settings = translate::Settings {
            classes: classes(self.controller),
            ..translate::Settings::default()
        };
        let translation = translate(&files.view, &settings, None);
        let which = if self.all {
            Which::All
        } else {
            Which::Problems
        };
        let report = Report::new(&files, &translation, which);
        say(&match self.output {
            Output::Json => format!("{:#}\n", report.to_json()),
            Output::Table if report.has_problems() => report.to_string(),
            Output::Table => format!("{report}{} objects, no problems\n", files.view.len()),
        })?;
        Ok(match report.has_problems() {
            true => ExitCode::FAILURE,
            false => ExitCode::SUCCESS,
        })
    }
}

impl Explain {
    fn run(self) -> anyhow::Result<ExitCode> {
        let folders = vec![self.folder];
        must_exist(&folders)?;
        let files = FileSource::new(folders).current();
        let settings = translate::Settings {
            classes: classes(self.controller),
            ..translate::Settings::default()
        };
        let translation = translate(&files.view, &settings, None);
        let told = standalone::explain(translation.snapshot().clone(), self.asked)?;
        say(&match self.output {
            Output::Table => as_text(&told),
            Output::Json => format!("{told:#}\n"),
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Where Gateways listen, from the settings' words into the translation's.
fn address(translation: &mut translate::Settings, addresses: &Addresses) {
    match addresses {
        Addresses::Pool(pool) if pool.is_empty() => {}
        Addresses::Pool(pool) => {
            translation.local_addresses = Some(pool.iter().copied().collect());
            translation.addressing = Addressing::Pool(pool.clone());
        }
        Addresses::Service(services) => {
            let (first, last) = services.ports;
            translation.addressing = Addressing::Service { first, last };
        }
    }
}

/// A folder is usually read by nobody else, so everything in it counts unless a name is given.
fn classes(controller: Option<String>) -> Classes {
    controller.map_or(Classes::Any, Classes::Controller)
}

/// Reads `80=8080`.
fn port_pair(text: &str) -> Result<(u16, u16), String> {
    let pair = text
        .split_once('=')
        .and_then(|(written, bound)| Some((written.parse().ok()?, bound.parse().ok()?)));
    match pair {
        Some((written, bound)) if written > 0 && bound > 0 => Ok((written, bound)),
        _ => Err("write the port of the manifest and the port to bind, as in 80=8080".to_owned()),
    }
}

/// Writes to standard output; whoever has read enough of it may close it.
fn say(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn must_exist(folders: &[PathBuf]) -> anyhow::Result<()> {
    for folder in folders {
        std::fs::metadata(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    }
    Ok(())
}

/// Runs until done; SIGINT and SIGTERM ask for a graceful stop, a second one ends at once.
fn in_runtime<F: Future<Output = anyhow::Result<ExitCode>>>(
    main: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let forced = CancellationToken::new();
        let force = forced.clone();
        let signals = tokio::spawn(async move {
            wait_for_signal().await;
            info!("stopping; another signal ends at once");
            stop.cancel();
            wait_for_signal().await;
            force.cancel();
        });
        let outcome = tokio::select! {
            outcome = Box::pin(main(shutdown)) => outcome,
            () = forced.cancelled() => Ok(ExitCode::FAILURE),
        };
        signals.abort();
        outcome
    })
}

async fn wait_for_signal() {
    let mut terminate =
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(terminate) => terminate,
            Err(error) => {
                warn!(%error, "SIGTERM cannot be handled");
                return std::future::pending().await;
            }
        };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

fn start_log(filter: Option<&str>, command: &Command) {
    let default = match command {
        Command::Serve(_) => "info",
        Command::Standalone(_)
        | Command::Check(_)
        | Command::Explain(_)
        | Command::Completion { .. } => "warn",
    };
    let filter = filter.map_or_else(|| EnvFilter::new(default), EnvFilter::new);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
}

#[expect(
    clippy::print_stderr,
    reason = "the last word to whoever typed the command"
)]
fn complain(error: &anyhow::Error) {
    eprintln!("nantian-shim: {error:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn documented_command_lines_parse() {
        let rows = [
            "nantian-shim serve --source files DIR",
            "nantian-shim serve --source kube",
            "nantian-shim serve --source kube --kubeconfig k --config f",
            "nantian-shim serve DIR --grpc-addr 127.0.0.1:0 --admin-addr 127.0.0.1:0 --config f",
            "nantian-shim serve DIR --tls-cert c --tls-key k --tls-client-ca a",
            "nantian-shim serve DIR --admin-tls-cert c --admin-tls-key k",
            "nantian-shim standalone --demo examples/quickstart",
            "nantian-shim standalone DIR --port-offset 8000 --admin-addr 127.0.0.1:0",
            "nantian-shim standalone DIR --map-port 80=8080 --map-port 443=8443",
            "nantian-shim standalone DIR --controller example.net/gateway",
            "nantian-shim completion zsh",
            "nantian-shim explain DIR http://shop.example.com/cart -H x-team:blue",
            "nantian-shim explain DIR --host a --path /b --port 80 --method POST --output json",
            "nantian-shim check DIR --all --log debug --controller example.net/gateway",
            "nantian-shim check DIR --all --output json",
        ];
        for row in rows {
            assert!(Cli::try_parse_from(row.split(' ')).is_ok(), "{row}");
        }
    }

    #[test]
    fn a_port_pair_is_two_ports() {
        assert_eq!(port_pair("80=8080"), Ok((80, 8080)));
        for row in [
            "80", "80=", "=80", "80=0", "0=80", "80=65536", "80:81", "80=81=82",
        ] {
            assert!(port_pair(row).is_err(), "{row}");
        }
    }
}
