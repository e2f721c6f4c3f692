//! Pages under `docs/tasks`: every command is run as it stands there and prints what the page shows.
//!
//! Each page gets a gateway of its own: the quick start with the page's manifests beside it. Ports and
//! the folder are exchanged for free ones in what is run, and back in what was printed. A command is
//! repeated until it prints what is shown, because a change may be under way. Needs `curl`; without it
//! the test says so and passes, except in CI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dataplane_testkit::DEADLINE;
use e2e::gateway::Standalone;
use e2e::ports::Ports;
use tempfile::TempDir;
use tokio::time::Instant;

/// Ports of the pages and of the backends behind them.
const WRITTEN: [u16; 5] = [8080, 8443, 9100, 3001, 3002];
/// Where the pages put the quick start.
const FOLDER: &str = "/tmp/try";

/// Every page but the list of them.
fn pages() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tasks");
    let entries = fs::read_dir(folder).unwrap();
    let mut pages: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    pages.retain(|page| !page.ends_with("README.md"));
    pages.sort();
    pages
}

/// The fenced blocks of a language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let begin = format!("```{language}\n");
    let parts: Vec<_> = text.split(begin.as_str()).skip(1).collect();
    let ends = |part: &'a str| part.split("```").next();
    parts.into_iter().filter_map(ends)
}

/// Commands of a page with what they print.
fn commands(text: &str) -> Vec<(String, String)> {
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in blocks(text, "console").flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            commands.push((command.to_owned(), String::new()));
        } else {
            let (_, printed) = commands.last_mut().expect("a block begins with a command");
            printed.push_str(line);
            printed.push('\n');
        }
    }
    commands
}

/// The quick start and the manifests of a page, with the backends at free ports.
fn folder(text: &str, ports: &Ports) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart");
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let mut held = fs::read_to_string(&path).unwrap();
        if path.ends_with("backends.yaml") {
            for port in [3001, 3002] {
                let bound = ports.address(port).port().to_string();
                held = held.replace(&port.to_string(), &bound);
            }
        }
        fs::write(folder.path().join(path.file_name().unwrap()), held).unwrap();
    }
    let manifests: Vec<_> = blocks(text, "yaml").collect();
    fs::write(folder.path().join("task.yaml"), manifests.join("---\n")).unwrap();
    folder
}

/// Runs a page; what does not hold is told.
async fn run(page: &Path) -> Result<usize, String> {
    let text = fs::read_to_string(page).unwrap();
    let ports = Ports::for_written(&WRITTEN).unwrap();
    let folder = folder(&text, &ports);
    let mut gateway = Standalone::spawn(folder.path(), &ports, &["--demo"]).unwrap();
    gateway.settled().await.unwrap();
    let mut exchanged: Vec<(String, String)> = [8080, 8443, 9100]
        .map(|port| {
            (
                format!(":{port}"),
                format!(":{}", ports.address(port).port()),
            )
        })
        .to_vec();
    exchanged.extend([
        (
            ":19080".to_owned(),
            format!(":{}", gateway.data_plane.0.port()),
        ),
        (
            ":8081".to_owned(),
            format!(":{}", gateway.control_plane.0.port()),
        ),
        (FOLDER.to_owned(), folder.path().display().to_string()),
    ]);
    let commands = commands(&text);
    for (command, shown) in &commands {
        let pairs = exchanged.iter();
        let here = pairs.fold(command.clone(), |text, (from, to)| text.replace(from, to));
        let end = Instant::now() + DEADLINE;
        loop {
            let done = Command::new("bash").args(["-c", &here]).output().unwrap();
            let printed = String::from_utf8_lossy(&done.stdout).replace('\r', "");
            let pairs = exchanged.iter();
            let printed = pairs.fold(printed, |text, (from, to)| text.replace(to, from));
            if printed == *shown {
                break;
            }
            if Instant::now() > end {
                let said = gateway.process.said();
                return Err(format!(
                    "$ {command}\nshown:\n{shown}printed:\n{printed}{said}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let said = gateway.process.said();
    if !said.contains("Nothing is wrong.") {
        return Err(said);
    }
    Ok(commands.len())
}

#[tokio::test]
async fn every_command_of_every_task_prints_what_its_page_shows() {
    if Command::new("curl").arg("--version").output().is_err() {
        let is_ci = std::env::var_os("CI").is_some();
        assert!(!is_ci, "curl is missing: apt-get install curl");
        eprintln!("SKIPPED: curl is missing, the tasks were not tried");
        return;
    }
    for page in pages() {
        let name = page.file_name().unwrap().display();
        match run(&page).await {
            Ok(count) => assert!(count > 0, "{name} has no command"),
            Err(fault) => panic!("{name}: {fault}"),
        }
    }
}

#[test]
fn every_task_is_in_the_list() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tasks");
    let list = fs::read_to_string(folder.join("README.md")).unwrap();
    for page in pages() {
        let name = page.file_name().unwrap().to_str().unwrap();
        assert!(
            list.contains(&format!("({name})")),
            "{name} is not in the list"
        );
    }
}
