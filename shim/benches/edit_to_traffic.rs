//! How long an edit takes from the file to the traffic, among 3,000 routes in 3,000 files.
//!
//! Starts the built `nantian-shim standalone` on a folder it makes, edits one file again and again
//! (each edit a rename, as editors do) and asks the gateway until it answers by the new text. Prints
//! mean, median and worst. Run by `cargo bench -p shim --bench edit_to_traffic`.

#![allow(
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench says what it measured, and fails loudly"
)]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dataplane_testkit::snapshot::free_port;

const ROUTES: usize = 3_000;
const EDITS: usize = 50;

fn main() {
    let folder = tempfile::tempdir().expect("a folder for the manifests");
    let (http, admin, shim_admin) = (free_port(), free_port(), free_port());
    write(folder.path(), "gateway.yaml", &gateway(http));
    for n in 0..ROUTES {
        write(
            folder.path(),
            &format!("route{n}.yaml"),
            &route(n, "first.example.com"),
        );
    }
    let started = Instant::now();
    let mut shim = Running(
        Command::new(env!("CARGO_BIN_EXE_nantian-shim"))
            .args(["standalone", "--admin-addr", &format!("127.0.0.1:{admin}")])
            .args(["--control-admin-addr", &format!("127.0.0.1:{shim_admin}")])
            .arg(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the shim starts"),
    );
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, http));
    let edited = ROUTES / 2;
    await_host(address, edited, "first.example.com", &mut shim);
    println!(
        "{ROUTES} routes serve {:?} after the start",
        started.elapsed()
    );

    let mut times = Vec::new();
    for edit in 0..EDITS {
        let host = format!("edit{edit}.example.com");
        let text = route(edited, &host);
        let since = Instant::now();
        write(folder.path(), &format!("route{edited}.yaml"), &text);
        await_host(address, edited, &host, &mut shim);
        times.push(since.elapsed());
    }
    times.sort();
    let mean = times.iter().sum::<Duration>() / u32::try_from(EDITS).unwrap_or(1);
    println!(
        "edit to traffic over {EDITS} edits: mean {mean:?}, median {:?}, worst {:?}",
        times[EDITS / 2],
        times[EDITS - 1],
    );
}

/// Ends the process with the bench.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks until the redirect of that route names `host`.
fn await_host(address: SocketAddr, route: usize, host: &str, shim: &mut Running) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let wanted = format!("//{host}");
    let mut stream = None;
    while Instant::now() < deadline {
        if let Ok(Some(status)) = shim.0.try_wait() {
            panic!("the shim ended with {status}");
        }
        match ask(&mut stream, address, route) {
            Some(answer) if answer.contains(&wanted) => return,
            Some(_) => {}
            None => {
                stream = None;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    panic!("{host} was not served within a minute");
}

fn ask(stream: &mut Option<TcpStream>, address: SocketAddr, route: usize) -> Option<String> {
    if stream.is_none() {
        *stream = TcpStream::connect(address).ok();
    }
    let stream = stream.as_mut()?;
    let request = format!("GET /r{route} HTTP/1.1\r\nhost: app.example.com\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut buf = [0; 4096];
        let bytes = stream.read(&mut buf).ok().filter(|bytes| *bytes > 0)?;
        answer.extend_from_slice(&buf[..bytes]);
    }
    String::from_utf8(answer).ok()
}

/// Writes a file as an editor does: beside it, then renamed over it.
fn write(folder: &Path, name: &str, text: &str) {
    let draft = folder.join(format!(".{name}.draft"));
    fs::write(&draft, text).expect("the folder takes files");
    fs::rename(draft, folder.join(name)).expect("the folder takes files");
}

fn gateway(port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: nantian-gw}}\n\
         spec: {{controllerName: gateway.networking.k8s.io/nantian-gw}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: gw}}\n\
         spec:\n  gatewayClassName: nantian-gw\n  listeners:\n  - {{name: http, protocol: HTTP, port: {port}}}\n"
    )
}

fn route(n: usize, host: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: route{n}}}\n\
         spec:\n  parentRefs: [{{name: gw}}]\n  hostnames: [app.example.com]\n  rules:\n  - matches:\n    \
         - path: {{type: PathPrefix, value: /r{n}}}\n    filters:\n    - type: RequestRedirect\n      \
         requestRedirect: {{hostname: {host}}}\n"
    )
}
