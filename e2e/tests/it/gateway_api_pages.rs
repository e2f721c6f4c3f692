//! The pages under `docs/gateway-api`: what they say to try is tried, and answers as they promise.
//!
//! Commands are taken from the pages as they stand, only ports are others. A block that starts the
//! gateway is one round; what a command must answer stands in [`ANSWERS`]. Pages whose examples need
//! servers of their own or a cluster have tests of their own, see [`ELSEWHERE`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::gateway::Standalone;
use e2e::ports::Ports;

use crate::pages::{blocks, bound, exchange};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The listeners, and the backends of `--demo`.
const WRITTEN: [u16; 4] = [8080, 8443, 3001, 3002];
const START: &str = "nantian-shim -- standalone ";

/// A part of a command, and parts of what it prints, in lower case.
const ANSWERS: &[(&str, &[&str])] = &[
    ("localhost:8080/one | grep", &["echo-1"]),
    (
        "host: shop.example.test",
        &["location: http://store.example.test"],
    ),
    ("x-version: next", &["echo-2"]),
    ("weight.example.test", &["echo-1", "echo-2"]),
    (
        "-X OPTIONS",
        &["access-control-allow-origin: https://app.example.com"],
    ),
    ("localhost:8080/closed", &["503", "{\"closed\": true}"]),
    ("grpcurl ", &["\"text\": \"hello\""]),
    ("--http2 ", &["2 200"]),
    ("Host: guest.example.test", &["echo-1"]),
];

/// Pages that are tried elsewhere, and where.
const ELSEWHERE: &[(&str, &str)] = &[
    ("README.md", "it has no example"),
    ("backend-tls.md", "backend_tls_example.rs"),
    ("streams.md", "streams.rs"),
    (
        "mesh.md",
        "cluster_backends.rs, and the conformance suite on a node",
    ),
];

/// A block of commands with the gateway in it.
struct Round {
    page: String,
    /// Before the gateway is started.
    setup: String,
    folder: String,
    is_demo: bool,
    commands: Vec<String>,
}

fn rounds() -> Vec<Round> {
    let folder = Path::new(ROOT).join("docs/gateway-api");
    let mut rounds = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_name().unwrap().to_str().unwrap().to_owned();
        if ELSEWHERE.iter().any(|(known, _)| *known == page) {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let blocks = blocks(&text).filter(|(language, _)| *language == "sh");
        let before = rounds.len();
        rounds.extend(blocks.filter_map(|(_, block)| round(&page, block)));
        assert!(rounds.len() > before, "{page} has nothing to try");
    }
    rounds
}

fn round(page: &str, block: &str) -> Option<Round> {
    let (setup, rest) = block.split_once("cargo run --release --bin ")?;
    let (start, commands) = rest.split_once('\n')?;
    let arguments = start.strip_prefix(START).unwrap();
    let joined = commands.replace("\\\n", " ");
    let commands = joined.lines().filter(|line| !line.is_empty());
    Some(Round {
        page: page.to_owned(),
        setup: setup.to_owned(),
        folder: arguments.split(' ').next_back()?.to_owned(),
        is_demo: arguments.starts_with("--demo "),
        commands: commands.map(str::to_owned).collect(),
    })
}

/// What a command prints, in lower case.
fn run(command: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(ROOT)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).to_lowercase()
}

/// A copy of the manifests with other ports for their backends.
fn copy(from: &Path, ports: &Ports) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|it| it != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = exchange(&text, &bound(ports, &[3001, 3002], ""));
        let name = path.file_name().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn is_there(tool: &str) -> bool {
    Command::new("bash")
        .args(["-c", &format!("command -v {tool}")])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// True when a command cannot be run; loud.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn cannot_be_run(page: &str, command: &str) -> bool {
    let is_missing = command.starts_with("grpcurl ") && !is_there("grpcurl");
    if is_missing {
        eprintln!("SKIPPED: {page}: grpcurl is missing (github.com/fullstorydev/grpcurl)");
    }
    is_missing
}

#[tokio::test]
async fn what_the_pages_say_to_try_answers_as_they_promise() {
    let made = tempfile::tempdir().unwrap();
    let place = made.path().to_str().unwrap();
    for round in rounds() {
        let page = &round.page;
        let said = run(&round.setup.replace("target/", &format!("{place}/")));
        assert_eq!(said, "", "{page}: before the gateway");
        let folder = match round.folder.strip_prefix("target/") {
            Some(name) => made.path().join(name),
            None => PathBuf::from(ROOT).join(&round.folder),
        };
        let ports = Ports::for_written(&WRITTEN).unwrap();
        let copied = copy(&folder, &ports);
        let more: &[&str] = if round.is_demo { &["--demo"] } else { &[] };
        let mut gateway = Standalone::spawn(copied.path(), &ports, more).unwrap();
        gateway.settled().await.unwrap();
        for command in &round.commands {
            let answer = ANSWERS.iter().find(|(part, _)| command.contains(part));
            let Some((_, parts)) = answer else {
                panic!("{page}: nothing is known of `{command}`");
            };
            if cannot_be_run(page, command) {
                continue;
            }
            let said = run(&exchange(command, &bound(&ports, &WRITTEN, "localhost:")));
            for part in *parts {
                assert!(
                    said.contains(part),
                    "{page}: `{command}` said: {said}; {}",
                    gateway.process.said()
                );
            }
        }
    }
}
