//! The command line of `nantian-dataplane`: run a data plane, or ask one that runs.
//!
//! The binary calls [`run`] and exits with the code it gives. Without a command a data plane is run;
//! every command asks the admin API of one that runs, which it finds by the same bootstrap file.
//! What is asked and how it is shown is in `cli/show.rs`, how it is asked in `cli/client.rs`.
//!
//! Exit codes: 0 for a clean stop and for what was answered, 1 when something failed or requests were
//! cut at the end of the drain time, 2 for a command line or bootstrap file that cannot be used, 3
//! when `status` finds a data plane that does not want traffic.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use tracing::warn;

use dataplane_telemetry::log;

use crate::admin::explain::Asked;
use crate::admin::trace::Watched;
use crate::bootstrap::Bootstrap;
use crate::{Metrics, app, ebb, shutdown};

mod show;
mod table;
mod client;

/// The data plane of Nantian Gateway: serves HTTP, gRPC and streams as its control plane says.
///
/// Without a command it runs a data plane. The commands ask one that runs, by its admin API.
#[derive(Debug, Parser)]
#[command(name = NAME, version, about, max_term_width = 100)]
struct Cli {
    /// The bootstrap file (YAML); keys and defaults are in docs/reference/bootstrap.md. Commands find
    /// address, token and certificate of the admin API in it.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        default_value = "/etc/nantian-gw/config.yaml"
    )]
    config: PathBuf,
    /// Print the settings in effect, or what is wrong with them, and end.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    asking: Asking,
    #[command(subcommand)]
    command: Option<Command>,
}

const NAME: &str = "nantian-dataplane";

/// How a data plane that runs is asked.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Asking a data plane that runs")]
struct Asking {
    /// Its admin API, as http://HOST:PORT, https://HOST:PORT or HOST:PORT [default: adminAddr of the
    /// bootstrap file, or 127.0.0.1:19080].
    #[arg(long, global = true, value_name = "URL", env = "NANTIAN_GW_ADMIN")]
    admin: Option<String>,
    /// File with the token of the admin API [default: adminAuth of the bootstrap file].
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "NANTIAN_GW_ADMIN_TOKEN_FILE"
    )]
    token_file: Option<PathBuf>,
    /// PEM authorities that signed the certificate of an https admin API [default: adminTls.certPath
    /// of the bootstrap file, else those of the system].
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Name in that certificate [default: the host of the URL].
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// What answers look like.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t = Output::Table,
        value_name = "FORM"
    )]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For eyes.
    Table,
    /// As the admin API answers.
    Json,
}

/// Which objects of a list are wanted.
#[derive(Clone, Debug, Default, Args)]
struct Wanted {
    /// Only objects of this namespace.
    #[arg(long, short, value_name = "NAME")]
    namespace: Option<String>,
    /// Only names that begin so.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Only objects whose namespace/name contains this.
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is it well: phase, version, connection to the control plane, the last refusal; exits with 3
    /// when it does not want traffic.
    Status,
    /// Every listener: addresses, whether it is open, routes, what runs.
    Listeners(Wanted),
    /// Every route: hosts, listeners, backends.
    Routes {
        #[command(flatten)]
        wanted: Wanted,
        /// Only routes of this kind, as HTTPRoute or http.
        #[arg(long, value_name = "KIND")]
        kind: Option<String>,
    },
    /// Every backend: endpoints, health, breaker.
    #[command(visible_alias = "backends")]
    Clusters(Wanted),
    /// Every endpoint of every backend: its state and why.
    Endpoints(Wanted),
    /// Every certificate: names, when it ends, who uses it.
    Certificates(Wanted),
    /// What the process carries at most, and now.
    Limits,
    /// Every limit of rate, and what is left of it.
    RateLimits(Wanted),
    /// Every AI service: providers, budgets, what was used.
    Ai(Wanted),
    /// Persistent sessions: counts, and who asks for them.
    Sessions(Wanted),
    /// The configuration.
    #[command(subcommand)]
    Config(Config),
    /// Show the filter of the log, or change it until the next start.
    LogLevel {
        /// The new one, as in info,hyper=warn; needs adminReadOnly: false there.
        #[arg(value_name = "FILTER")]
        filter: Option<String>,
    },
    /// End it as SIGTERM does, and wait until it is gone; needs adminReadOnly: false there.
    Drain {
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// What would become of a request, and why others did not get it.
    Explain(Asked),
    /// Watch requests as they end, step by step, for a while.
    Trace(Watched),
    /// Any path of the admin API, as it answers.
    Get {
        /// As in /v1/limits; docs/reference/admin.md lists all.
        #[arg(value_name = "PATH")]
        path: String,
    },
    /// A completion script, for `source <(nantian-dataplane completion bash)` and the like.
    Completion {
        /// Whose script.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Config {
    /// The version that serves, and the last one that was refused.
    Version,
    /// The last updates and what became of them.
    History,
    /// The whole configuration, as JSON and without secrets.
    Snapshot,
}

/// Exit code of wrong usage.
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
    match cli.command {
        None => serve(&cli),
        Some(Command::Completion { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
            say(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Some(ref command) => ask(&cli, command),
    }
}

/// Runs a data plane, or checks its bootstrap file.
fn serve(cli: &Cli) -> ExitCode {
    let bootstrap = match Bootstrap::load(Some(&cli.config), |name| std::env::var(name).ok()) {
        Ok(bootstrap) => bootstrap,
        Err(error) => return failed(USAGE, &error.to_string()),
    };
    let metrics = Metrics::new();
    let mut settings = bootstrap.log.clone();
    settings.counts = metrics.log.clone();
    let log = match log::init(settings) {
        Ok(log) => log,
        Err(error) => return failed(USAGE, &format!("log.level: {error}")),
    };
    if cli.check {
        if let Err(error) = bootstrap.check_files() {
            return failed(USAGE, &error.to_string());
        }
        say(&format!("{}\n", bootstrap.summary()));
        return ExitCode::SUCCESS;
    }
    for key in &bootstrap.without_effect {
        warn!(key, "known, has no effect yet");
    }
    let names_http3 = |key: &String| key == "runtime.enableHttp3";
    let asks_for_http3 = bootstrap.without_effect.iter().any(names_http3);
    metrics.inventory.http3_configured.set_claim(asks_for_http3);
    metrics.set_limits(bootstrap.limits());
    let running = app::run(bootstrap, metrics, Some(log.clone()), shutdown::signalled());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_park(ebb::tend_thoroughly)
        .thread_keep_alive(ebb::IDLE_THREAD)
        .enable_all()
        .build();
    let ended = runtime
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(running));
    log.stop(Duration::from_secs(1));
    match ended {
        Ok(is_whole) => ExitCode::from(u8::from(!is_whole)),
        Err(error) => failed(1, &format!("{error:#}")),
    }
}

/// Asks a data plane that runs.
fn ask(cli: &Cli, command: &Command) -> ExitCode {
    let client = match client::Client::find(&cli.config, &cli.asking) {
        Ok(client) => client,
        Err(error) => return failed(USAGE, &format!("{error:#}")),
    };
    let style = table::Style {
        is_coloured: io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let answered = runtime.map_err(Into::into).and_then(|runtime| {
        let asked = show::Asked {
            client: &client,
            output: cli.asking.output,
            style,
        };
        runtime.block_on(asked.command(command))
    });
    match answered {
        Ok(code) => code,
        Err(error) => failed(1, &format!("{error:#}")),
    }
}

/// The page of all commands and options, in Markdown.
pub fn reference() -> String {
    const HEAD: &str = "# nantian-dataplane\n\n\
         <!-- Generated: UPDATE_REFERENCE=1 cargo test --workspace cli:: -->\n\n\
         Without a command a data plane is run; the commands ask one that runs, by its \
         [admin API](admin.md).\n\
         They find address, token and certificate in the bootstrap file, so that within the container \
         no option is needed.\n\
         Answers are tables, or with `--output json` what the API answers; colours are only used on \
         terminals, and not where `NO_COLOR` is set.\n\
         Lists are asked for page by page; on a terminal it is told how far that is.\n\n\
         | exit code | means |\n| --- | --- |\n\
         | 0 | a clean stop; the answer was printed |\n\
         | 1 | something failed: no answer, a refusal, or requests that were cut at the end of the drain time |\n\
         | 2 | the command line or the bootstrap file cannot be used |\n\
         | 3 | `status`: it runs and does not want traffic |\n";
    HEAD.to_owned() + &pages(Cli::command(), NAME)
}

/// A section with the help of a command and of each below it; also for the shim's page.
pub fn pages(command: clap::Command, name: &str) -> String {
    let mut page = String::new();
    sections(command, name, &mut page);
    page
}

fn sections(command: clap::Command, name: &str, page: &mut String) {
    let mut command = command.bin_name(name.to_owned()).term_width(100);
    let help = command.render_long_help().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    page.push_str(&format!(
        "\n## {name}\n\n```text\n{}\n```\n",
        lines.join("\n").trim_end()
    ));
    for sub in command.get_subcommands() {
        if sub.get_name() != "help" {
            let of_it = format!("{name} {}", sub.get_name());
            sections(sub.clone(), &of_it, page);
        }
    }
}

/// Writes to standard output; whoever has read enough of it may close it.
fn say(text: &str) {
    drop(io::stdout().write_all(text.as_bytes()));
}

#[expect(clippy::print_stderr, reason = "the command line's answer")]
fn failed(code: u8, message: &str) -> ExitCode {
    eprintln!("{NAME}: {message}");
    ExitCode::from(code)
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
        for row in [
            "nantian-dataplane",
            "nantian-dataplane --config f --check",
            "nantian-dataplane --config f status",
            "nantian-dataplane status --config f --output json",
            "nantian-dataplane status --admin https://h:19080 --ca f --token-file f --server-name n",
            "nantian-dataplane routes -n shop cart --kind HTTPRoute --search x",
            "nantian-dataplane clusters",
            "nantian-dataplane backends",
            "nantian-dataplane config history",
            "nantian-dataplane log-level info,hyper=warn",
            "nantian-dataplane drain --no-wait",
            "nantian-dataplane get /v1/limits",
            "nantian-dataplane explain https://shop.example.com/cart -H x-team:blue",
            "nantian-dataplane explain --host a --path /b --port 80 --method POST",
            "nantian-dataplane trace --route shop/cart --status 5 --seconds 30 --count 5",
            "nantian-dataplane completion fish",
        ] {
            assert!(Cli::try_parse_from(row.split(' ')).is_ok(), "{row}");
        }
        assert!(Cli::try_parse_from(["nantian-dataplane", "stauts"]).is_err());
    }
}
