//! `examples/wasm` as it is written: modules built by its one command, and every request of its page.
//!
//! What is missing to build it is said out loud, and is a failure where CI is set.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use bytes::Bytes;
use dataplane_testkit::client::Response;
use dataplane_testkit::client::http1::Http1Client;
use e2e::gateway::Standalone;
use e2e::ports::Ports;
use http::{Method, Request};
use tempfile::TempDir;

use crate::pages::{bound, exchange};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/wasm");
/// The listener, and the backends of `--demo`.
const WRITTEN: [u16; 3] = [8080, 3001, 3002];
/// `printf ann | openssl dgst -sha256 -hmac example`.
const SIGNED: &str = "Bearer ann.0ea2b77b069d966cc6ec3e466f45bfc35921460106773332c647a82edc9fe05c";
/// How long compiling all modules may take, in a debug build beside other tests.
const COMPILE_LIMIT: Duration = Duration::from_secs(240);
/// What `build` says when there is no compiler.
const NO_COMPILER: i32 = 3;

/// Builds the modules; false when it cannot be done here.
#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn is_built() -> bool {
    let output = Command::new(Path::new(FOLDER).join("build"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return true;
    }
    assert_eq!(output.status.code(), Some(NO_COMPILER), "{said}");
    assert!(env::var_os("CI").is_none(), "{said}");
    eprintln!("examples/wasm WAS NOT TRIED: {said}");
    false
}

/// The example with its backends at free ports.
fn example(ports: &Ports) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let files = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).unwrap();
        let files = entries.map(|entry| entry.unwrap().path());
        let is_yaml = |it: &PathBuf| it.extension().is_some_and(|it| it == "yaml");
        files.filter(is_yaml).collect()
    };
    let from = Path::new(FOLDER);
    for file in [files(from), files(&from.join("modules"))].concat() {
        let name = file.file_name().unwrap();
        let mut text = fs::read_to_string(&file).unwrap();
        if name == "backends.yaml" {
            text = exchange(&text, &bound(ports, &[3001, 3002], ""));
        }
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

/// Asks for a path, with these fields and this body.
async fn ask(ports: &Ports, path: &str, fields: &[(&str, &str)], body: &'static str) -> Response {
    let mut request = Request::builder()
        .method(if body.is_empty() { "GET" } else { "POST" })
        .uri(path)
        .header("host", "localhost");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Bytes::from(body)).unwrap();
    let mut client = Http1Client::connect(ports.address(8080)).await.unwrap();
    client.send(request).await.unwrap()
}

/// Waits until the listener is open, which it is once all modules are compiled.
async fn settled(gateway: &mut Standalone) {
    let end = Instant::now() + COMPILE_LIMIT;
    while let Err(error) = gateway.settled().await {
        assert!(
            gateway.process.is_running() && Instant::now() < end,
            "{error}"
        );
    }
}

#[tokio::test]
async fn every_request_of_the_page_is_answered_as_it_says() {
    if !is_built() {
        return;
    }
    let ports = Ports::for_written(&WRITTEN).unwrap();
    let folder = example(&ports);
    let mut gateway = Standalone::spawn(folder.path(), &ports, &["--demo"]).unwrap();
    settled(&mut gateway).await;

    // Another route by a header field, and fields.
    let plain = ask(&ports, "/", &[], "").await;
    assert_eq!(
        plain.json()["backend"],
        "echo-1",
        "{}",
        gateway.process.said()
    );
    assert_eq!(plain.header("x-served-by"), "a-plugin");
    assert_eq!(plain.json()["headers"]["x-stamp"], "one");
    let beta = ask(&ports, "/", &[("x-beta", "1")], "").await;
    assert_eq!(beta.json()["backend"], "echo-2");
    assert_eq!(beta.json()["path"], "/beta/");
    assert_eq!(beta.header("x-stamped-by"), "go");

    // Who may pass.
    for (fields, status) in [
        (vec![], 401),
        (vec![("authorization", "Bearer ann.00")], 401),
        (vec![("authorization", SIGNED)], 200),
    ] {
        let answer = ask(&ports, "/guarded", &fields, "").await;
        assert_eq!(answer.status, status, "{fields:?}");
    }

    // Bodies.
    let redacted = ask(&ports, "/redacted", &[], "my secret is safe").await;
    assert_eq!(redacted.json()["body"], "my ****** is safe");
    let mut client = Http1Client::connect(ports.address(8080)).await.unwrap();
    let with_trailer = b"POST /redacted HTTP/1.1\r\nhost: localhost\r\n\
        transfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
        5\r\nmy se\r\n4\r\ncret\r\n0\r\nx-sum: 1\r\n\r\n";
    client.send_bytes(with_trailer).await.unwrap();
    let redacted = client.read_response(&Method::POST).await.unwrap();
    assert_eq!(redacted.json()["body"], "my ******");
    let shouted = ask(&ports, "/shouted", &[], "").await;
    let told = shouted.text();
    assert!(told.contains(r#""BACKEND": "ECHO-1""#), "{told}");

    misbehave(&ports, &gateway).await;
}

/// Plugins that loop, trap and leak harm nobody else.
async fn misbehave(ports: &Ports, gateway: &Standalone) {
    let began = Instant::now();
    assert_eq!(ask(ports, "/loops", &[], "").await.status, 500);
    assert!(began.elapsed() < Duration::from_secs(2), "{began:?}");
    assert_eq!(ask(ports, "/traps", &[], "").await.status, 200);
    for _ in 0..20 {
        assert_eq!(ask(ports, "/leaks", &[], "").await.status, 200);
    }
    let metrics = gateway.data_plane.text("/metrics").await;
    for (plugin, kind) in [("loops", "timeout"), ("traps", "trap"), ("leaks", "trap")] {
        let sample =
            format!(r#"plugin_failures_total{{plugin="default/{plugin}",kind="{kind}"}} "#);
        let line = metrics.lines().find(|line| line.contains(&sample));
        assert!(line.is_some_and(|line| !line.ends_with(" 0")), "{line:?}");
    }
    let told = gateway.data_plane.json("/v1/plugins/default/loops").await;
    let failure = told["health"]["last_error"].as_str().unwrap();
    assert!(failure.contains("interrupt"), "{told}");
    assert!(told["module"]["sha256"].is_string(), "{told}");
    assert_eq!(ask(ports, "/", &[], "").await.status, 200);
}
