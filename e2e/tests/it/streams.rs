//! `examples/streams` as it is written: a real DNS server, Redis and TLS, asked by their own clients.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use dataplane_testkit::snapshot::free_port;
use e2e::gateway::Standalone;
use e2e::ports::Ports;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/streams");
const TOOLS: [&str; 6] = [
    "unbound",
    "dig",
    "redis-server",
    "redis-cli",
    "openssl",
    "curl",
];
/// How long servers may take to start.
const LIMIT: Duration = Duration::from_secs(30);

/// True when something is missing; loud, and a failure where CI is set.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn cannot_be_tried() -> bool {
    let is_there = |tool: &&str| {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
        folders.any(|folder| folder.join(tool).is_file())
    };
    let missing: Vec<_> = TOOLS.iter().filter(|tool| !is_there(tool)).collect();
    if missing.is_empty() {
        return false;
    }
    assert!(env::var_os("CI").is_none(), "{missing:?} are missing");
    eprintln!(
        "examples/streams WAS NOT TRIED: {missing:?} are missing (Debian: unbound, bind9-dnsutils, redis-server, redis-tools, openssl, curl)"
    );
    true
}

/// The servers of the example; they end with it.
struct Servers(Child);

impl Servers {
    fn start(ports: [u16; 3]) -> Self {
        let ports = ports.map(|port| port.to_string());
        let mut command = Command::new(Path::new(FOLDER).join("servers"));
        command
            .args(ports)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().expect("bash starts"))
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        // SIGTERM, which the script passes on; SIGKILL would leave its children behind.
        let id = self.0.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        let _ = self.0.wait();
    }
}

/// The example with its servers at other ports.
fn manifests(ports: [u16; 3]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gateway.yaml", "routes.yaml", "backends.yaml"] {
        let mut text = fs::read_to_string(Path::new(FOLDER).join(name)).unwrap();
        if name == "backends.yaml" {
            for (written, port) in [5301, 6381, 8444].into_iter().zip(ports) {
                let written = format!("ort: {written}\n");
                assert!(text.contains(&written), "{written}");
                text = text.replace(&written, &format!("ort: {port}\n"));
            }
        }
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// What a client prints.
fn run(command: &str, arguments: &[String]) -> String {
    let output = Command::new(command)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("the client starts");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).into_owned()
}

/// Runs a client until it prints that; servers take a moment to start.
async fn prints(expected: &str, command: &str, arguments: &str) {
    let arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
    let end = Instant::now() + LIMIT;
    loop {
        let (name, own) = (command.to_owned(), arguments.clone());
        let said = tokio::task::spawn_blocking(move || run(&name, &own))
            .await
            .unwrap();
        if said.contains(expected) {
            return;
        }
        assert!(
            Instant::now() < end,
            "{command} {arguments:?} printed {said:?}, not {expected:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn dns_redis_and_tls_work_with_their_own_clients() {
    if cannot_be_tried() {
        return;
    }
    let behind = [free_port(), free_port(), free_port()];
    let _servers = Servers::start(behind);
    let folder = manifests(behind);
    let ports = Ports::for_written(&[5300, 6380, 8443]).unwrap();
    let mut gateway = Standalone::start(folder.path(), &ports).await.unwrap();
    gateway.settled().await.unwrap();
    let [dns, redis, tls] = [5300, 6380, 8443].map(|port| ports.address(port).port());

    let dig = format!("+short +tries=1 +time=1 @127.0.0.1 -p {dns}");
    prints("192.0.2.80", "dig", &format!("{dig} www.example.test")).await;
    prints("192.0.2.80", "dig", &format!("{dig} +tcp www.example.test")).await;
    // More than 512 bytes in one datagram.
    let long = format!("{dig} +bufsize=4096 +ignore long.example.test TXT");
    prints(&"c".repeat(250), "dig", &long).await;

    prints("OK", "redis-cli", &format!("-p {redis} set greeting hello")).await;
    prints("hello", "redis-cli", &format!("-p {redis} get greeting")).await;
    let benchmark = format!("-p {redis} -r 200 incr count");
    prints("200", "redis-cli", &benchmark).await;

    let connect = format!("-sk --connect-to www.example.test:443:127.0.0.1:{tls}");
    prints(
        "TLSv1.3",
        "curl",
        &format!("{connect} https://www.example.test/"),
    )
    .await;
    let client = format!("s_client -connect 127.0.0.1:{tls} -servername");
    prints(
        "CN = www.example.test",
        "openssl",
        &format!("{client} www.example.test"),
    )
    .await;
    prints(
        "SSL handshake has read 0 bytes",
        "openssl",
        &format!("{client} nobody.example.test"),
    )
    .await;

    let metrics = gateway.data_plane.text("/metrics").await;
    let served =
        "udp_datagrams_sent_total{listener=\"default/streams/dns\",route=\"udp/default/dns\"}";
    assert!(metrics.contains(served), "{metrics}");
}
