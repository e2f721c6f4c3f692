//! Pages whose commands are run as they stand there, and print what the page shows: the tasks, and
//! those about finding faults.
//!
//! Each page gets a gateway of its own: the quick start with the page's manifests beside it. Ports and
//! the folder are exchanged for free ones in what is run, and back in what was printed. A command is
//! repeated until it prints what is shown, because a change may be under way. What differs from run
//! to run is masked (see [`masked`]), and a line of `…` stands for any number of lines. Needs `curl`
//! and `bash`; without `curl` the test says so and passes, except in CI.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use dataplane_testkit::snapshot::free_port;
use e2e::gateway::Standalone;
use e2e::ports::Ports;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::ai::binary;
use crate::pages::{blocks, copy_quickstart, exchange};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// Ports of the pages and of the backends behind them.
const WRITTEN: [u16; 5] = [8080, 8443, 9100, 3001, 3002];
/// Where the pages put the quick start.
const FOLDER: &str = "/tmp/try";
/// How long something may take to be as shown; what was refused is tried again within it.
const PATIENCE: Duration = Duration::from_secs(40);
/// The page whose manifests have faults.
const TROUBLESHOOTING: &str = "docs/operations/troubleshooting.md";
/// How commands begin that are not run, and why.
const NOT_RUN: [(&str, &str); 4] = [
    ("cargo build", "what is run was built"),
    ("cp -r examples/quickstart", "the folder is made before"),
    ("nantian-shim standalone", "it runs"),
    ("kubectl", "there is no cluster"),
];

/// Every task.
fn tasks() -> Vec<PathBuf> {
    let folder = Path::new(ROOT).join("docs/tasks");
    let entries = fs::read_dir(folder).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| !page.ends_with("README.md"));
    pages.sort();
    pages
}

/// What a page asks for, in its order.
enum Step {
    /// Run this; nothing is shown of it.
    Run(String),
    /// Run this, and this is printed.
    Show(String, String),
    /// The gateway says this.
    Said(String),
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (language, block) in blocks(text) {
        match language {
            "sh" if NOT_RUN.iter().any(|(begin, _)| block.starts_with(begin)) => {}
            "sh" => steps.push(Step::Run(block.to_owned())),
            "text" => steps.push(Step::Said(block.to_owned())),
            "console" => steps.extend(shown(block)),
            _ => {}
        }
    }
    steps
}

/// Commands of a block with what they print.
fn shown(block: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step::Show(command.to_owned(), String::new())),
            (None, Some(Step::Show(_, printed))) => {
                printed.push_str(line);
                printed.push('\n');
            }
            (None, _) => unreachable!("a block begins with a command: {line}"),
        }
    }
    steps
}

/// With signs in place of what differs from run to run: the version of a configuration and of the
/// program, an age in seconds, the port where the control plane listens, the width of columns.
fn masked(text: &str) -> String {
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let next = words.iter().skip(1).map(Some).chain([None]);
        let words: Vec<_> = words.iter().zip(next).map(mask).collect();
        words.join(" ") + "\n"
    };
    text.lines().map(line).collect()
}

fn mask<'a>((word, next): (&&'a str, Option<&&'a str>)) -> &'a str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let bare = |word: &'a str| word.trim_end_matches(',');
    let parts: Vec<_> = bare(word).split('.').collect();
    if bare(word).len() == 32 && bare(word).bytes().all(|it| it.is_ascii_hexdigit()) {
        "VERSION"
    } else if parts.len() == 3 && parts.into_iter().all(is_number) {
        "PROGRAM"
    } else if is_number(word) && next.is_some_and(|next| bare(next) == "s") {
        "AGE"
    } else if word.starts_with("http://127.0.0.1:") {
        "ADDRESS"
    } else {
        word
    }
}

/// Whether that was printed which is shown.
fn fits(printed: &str, shown: &str) -> bool {
    let mut parts: Vec<_> = shown.split("…\n").collect();
    let last = parts.pop().unwrap_or_default();
    let Some((first, middle)) = parts.split_first() else {
        return printed == shown;
    };
    let begin = printed.strip_prefix(first);
    let rest = middle.iter().fold(begin, |rest, part| {
        let (_, behind) = rest?.split_once(part)?;
        Some(behind)
    });
    rest.is_some_and(|rest| rest.ends_with(last))
}

/// A shell that runs the commands of a page one after the other, as its reader's does.
struct Shell {
    bash: Child,
    commands: ChildStdin,
    printed: BufReader<ChildStdout>,
}

impl Shell {
    /// In the repository's folder, with the binaries of this build.
    fn start(gateway: &Standalone) -> Self {
        let binaries = binary();
        let binaries = binaries.parent().unwrap().display();
        let path = format!("{binaries}:{}", std::env::var("PATH").unwrap());
        let mut bash = Command::new("bash")
            .arg("--norc")
            .current_dir(ROOT)
            .env("PATH", path)
            .env("NANTIAN_GW_ADMIN", gateway.data_plane.0.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = bash.stdin.take().unwrap();
        let printed = BufReader::new(bash.stdout.take().unwrap());
        Self {
            bash,
            commands,
            printed,
        }
    }

    /// What it prints.
    fn run(&mut self, command: &str) -> String {
        const END: &str = "-- the command has ended --";
        writeln!(self.commands, "{command}\nprintf '\\n{END}\\n'").unwrap();
        let mut printed = String::new();
        let mut line = String::new();
        while self.printed.read_line(&mut line).unwrap() > 0 && line.trim_end() != END {
            printed.push_str(&line.replace('\r', ""));
            line.clear();
        }
        printed.pop();
        printed
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // What runs behind it ends with it.
        let _ = writeln!(self.commands, "kill $(jobs -p) 2>/dev/null; exit");
        let _ = self.bash.wait();
    }
}

/// The quick start and the manifests of a page, with the backends at free ports.
fn folder(text: &str, ports: &Ports) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_quickstart(folder.path(), ports, &[3001, 3002]);
    let manifests: Vec<_> = blocks(text)
        .filter_map(|(language, block)| (language == "yaml").then_some(block))
        .collect();
    // As the page calls it.
    let is_shop = text.contains("/tmp/try/shop.yaml");
    let name = if is_shop { "shop.yaml" } else { "task.yaml" };
    fs::write(folder.path().join(name), manifests.join("---\n")).unwrap();
    folder
}

/// What stands in a page, and what is in its place here; the folder first.
struct Exchanged(Vec<(String, String)>);

impl Exchanged {
    fn new(folder: &TempDir, ports: &Ports, gateway: &Standalone) -> Self {
        let mut pairs = vec![(FOLDER.to_owned(), folder.path().display().to_string())];
        let mut port = |page: u16, here: u16| {
            pairs.push((format!(":{page}"), format!(":{here}")));
        };
        for page in [8080, 8443, 9100] {
            port(page, ports.address(page).port());
        }
        port(19080, gateway.data_plane.0.port());
        port(8081, gateway.control_plane.0.port());
        // Another program has it.
        pairs.push(("7070".to_owned(), free_port().to_string()));
        Self(pairs)
    }

    /// The shim reads manifests, in which ports are as on the page.
    fn here(&self, command: &str) -> String {
        let is_about_manifests = command.starts_with("nantian-shim");
        let pairs = if is_about_manifests {
            &self.0[..1]
        } else {
            &self.0
        };
        exchange(command, pairs)
    }

    fn back(&self, printed: &str) -> String {
        let back: Vec<_> = self.0.iter().map(|(page, here)| (here, page)).collect();
        masked(&exchange(printed, &back))
    }
}

/// Runs a page; how many commands it has, or what does not hold.
async fn run(page: &Path) -> Result<usize, String> {
    let text = fs::read_to_string(page).unwrap();
    let ports = Ports::for_written(&WRITTEN).unwrap();
    let folder = folder(&text, &ports);
    let mut gateway = Standalone::spawn(folder.path(), &ports, &["--demo"]).unwrap();
    gateway.settled().await.unwrap();
    let exchanged = Exchanged::new(&folder, &ports, &gateway);
    let mut shell = Shell::start(&gateway);
    let mut steps = steps(&text);
    let count = steps.len();
    if !page.ends_with(TROUBLESHOOTING) {
        steps.push(Step::Said("Nothing is wrong.".to_owned()));
    }
    for step in &steps {
        let end = Instant::now() + PATIENCE;
        loop {
            let (is_there, asked, shown, printed) = match step {
                Step::Run(commands) => {
                    shell.run(&exchanged.here(commands));
                    break;
                }
                Step::Show(command, shown) => {
                    let printed = exchanged.back(&shell.run(&exchanged.here(command)));
                    (fits(&printed, &masked(shown)), &**command, shown, printed)
                }
                Step::Said(shown) => {
                    let said = exchanged.back(&gateway.process.said());
                    (said.contains(&masked(shown)), "said", shown, said)
                }
            };
            if is_there {
                break;
            }
            if Instant::now() > end {
                let said = gateway.process.said();
                return Err(format!(
                    "$ {asked}\nshown:\n{shown}printed:\n{printed}{said}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    Ok(count)
}

#[expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "it is the body of tests"
)]
async fn run_all(pages: Vec<PathBuf>) {
    if Command::new("curl").arg("--version").output().is_err() {
        let is_ci = std::env::var_os("CI").is_some();
        assert!(!is_ci, "curl is missing: apt-get install curl");
        eprintln!("SKIPPED: curl is missing, the pages were not tried");
        return;
    }
    for page in pages {
        let name = page.file_name().unwrap().display();
        match run(&page).await {
            Ok(count) => assert!(count > 0, "{name} has no command"),
            Err(fault) => panic!("{name}: {fault}"),
        }
    }
}

#[tokio::test]
async fn every_command_of_every_task_prints_what_its_page_shows() {
    run_all(tasks()).await;
}

#[tokio::test]
async fn every_command_of_the_troubleshooting_page_prints_what_it_shows() {
    run_all(vec![Path::new(ROOT).join(TROUBLESHOOTING)]).await;
}

#[tokio::test]
async fn every_command_of_the_page_about_explain_prints_what_it_shows() {
    run_all(vec![Path::new(ROOT).join("docs/operations/explain.md")]).await;
}

#[test]
fn every_task_is_in_the_list() {
    let folder = Path::new(ROOT).join("docs/tasks");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for page in tasks() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            list.contains(&format!("({name})")),
            "{name} is not in the list"
        );
    }
}
