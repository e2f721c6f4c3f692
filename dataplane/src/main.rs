//! The `nantian-dataplane` binary: read the bootstrap file, run, say how it ended.
//!
//! Exit codes: 0 for a clean stop, 1 when something failed or requests were cut at the end of the
//! drain time, 2 for a command line or bootstrap file that cannot be used.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing::warn;

use dataplane::bootstrap::Bootstrap;
use dataplane::{Metrics, app, shutdown};
use dataplane_telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The data plane of Nantian Gateway: serves HTTP and gRPC as its control plane says.
#[derive(Debug, Parser)]
#[command(name = "nantian-dataplane", version, about)]
struct Arguments {
    /// The bootstrap file (YAML); keys and defaults are in docs/reference/bootstrap.md.
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/etc/nantian-gw/config.yaml"
    )]
    config: PathBuf,
    /// Print the settings in effect, or what is wrong with them, and end.
    #[arg(long)]
    check: bool,
}

#[expect(clippy::print_stderr, reason = "the command line's answer")]
fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let failed = |code: u8, message: String| {
        eprintln!("nantian-dataplane: {message}");
        ExitCode::from(code)
    };
    let bootstrap = match Bootstrap::load(Some(&arguments.config), |name| std::env::var(name).ok())
    {
        Ok(bootstrap) => bootstrap,
        Err(error) => return failed(2, error.to_string()),
    };
    let metrics = Metrics::new();
    let mut settings = bootstrap.log.clone();
    settings.counts = metrics.log.clone();
    let log = match log::init(settings) {
        Ok(log) => log,
        Err(error) => return failed(2, format!("log.level: {error}")),
    };
    if arguments.check {
        if let Err(error) = bootstrap.check_files() {
            return failed(2, error.to_string());
        }
        // Whoever has read enough may close its end.
        drop(writeln!(io::stdout(), "{}", bootstrap.summary()));
        return ExitCode::SUCCESS;
    }
    for key in &bootstrap.without_effect {
        warn!(key, "known, has no effect yet");
    }
    let running = app::run(bootstrap, metrics, Some(log.clone()), shutdown::signalled());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(running));
    log.stop(Duration::from_secs(1));
    match ended {
        Ok(is_whole) => ExitCode::from(u8::from(!is_whole)),
        Err(error) => failed(1, format!("{error:#}")),
    }
}
