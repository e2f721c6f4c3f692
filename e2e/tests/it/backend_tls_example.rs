//! `examples/backend-tls`, run as its page says, with `openssl s_server` for a backend.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{DEADLINE, until};
use tokio::net::TcpStream;

use e2e::{Running, Scenario};

/// A TLS server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Server {
    /// Starts it as the page does, at another port.
    async fn start(folder: &Path, port: u16) -> Self {
        let path = |name: &str| folder.join(name);
        let child = Command::new("openssl")
            .args(["s_server", "-www", "-alpn", "http/1.1", "-accept"])
            .arg(format!("127.0.0.1:{port}"))
            .args(["-Verify", "1", "-verify_return_error", "-cert"])
            .arg(path("server.crt"))
            .arg("-key")
            .arg(path("server.key"))
            .arg("-CAfile")
            .arg(path("authority.crt"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self(child);
        until(DEADLINE, async || {
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        })
        .await;
        server
    }
}

fn example() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    root.join("examples/backend-tls").canonicalize().unwrap()
}

/// Makes certificates with the script of the example.
fn certificates(folder: &Path) {
    let made = Command::new("sh")
        .arg(example().join("certificates.sh"))
        .arg(folder)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
}

/// The example in a folder of its own, with the server at `port`.
fn scenario(port: u16) -> Scenario {
    let scenario = Scenario::new().unwrap();
    certificates(scenario.folder());
    for name in ["gateway.yaml", "backends.yaml", "policies.yaml"] {
        let text = std::fs::read_to_string(example().join(name)).unwrap();
        let text = text.replace("port: 4433", &format!("port: {port}"));
        scenario.write(name, &text).unwrap();
    }
    scenario
}

async fn status(it: &Running, path: &str) -> u16 {
    it.get(8080, "any.test", path)
        .await
        .unwrap()
        .status
        .as_u16()
}

#[tokio::test]
async fn the_example_answers_as_its_page_says() {
    // Without openssl there is no backend to run it against.
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let port = free_port();
    let scenario = scenario(port);
    let server = Server::start(scenario.folder(), port).await;
    let it = scenario.serve(&[8080, 8081]).await.unwrap();

    // Over HTTP, and as bytes of a TCPRoute.
    for (port, path) in [(8080, "/trusted"), (8081, "/")] {
        let answer = it.get(port, "any.test", path).await.unwrap();
        assert_eq!(answer.status, 200, "{port}");
        let page = answer.text();
        assert!(page.contains("TLSv1.3"), "{page}");
        assert!(
            page.contains("CN = client") || page.contains("CN=client"),
            "{page}"
        );
    }
    assert_eq!(status(&it, "/other-name").await, 502);
    assert_eq!(status(&it, "/nobody").await, 500);
    let told = it
        .told("BackendTLSPolicy", "default/nobody")
        .await
        .join("\n");
    assert!(told.contains("NoValidCACertificate"), "{told}");
    let told = it
        .told("BackendTLSPolicy", "default/other-name")
        .await
        .join("\n");
    assert!(told.contains("Accepted=True"), "{told}");

    // Rotation: the server's certificate is none of the new authority until it is started again.
    certificates(it.scenario.folder());
    until(DEADLINE, async || status(&it, "/trusted").await == 502).await;
    drop(server);
    let _server = Server::start(it.scenario.folder(), port).await;
    until(DEADLINE, async || status(&it, "/trusted").await == 200).await;
}
