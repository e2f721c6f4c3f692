//! The README's first command and the requests below it, on free ports.

use std::fs;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::grpc;
use dataplane_testkit::client::http1::Http1Client;
use dataplane_testkit::client::http2::Http2Client;
use dataplane_testkit::client::tls::{TlsClient, agreed};
use dataplane_testkit::client::websocket::{self, Message};
use e2e::gateway::Standalone;
use e2e::manifest;
use e2e::ports::Ports;
use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;

use crate::pages::copy_quickstart;

/// The listeners, and the backends of `--demo`.
const WRITTEN: [u16; 4] = [8080, 8443, 3001, 3002];

/// The example, with its backends at free ports and a certificate that a client can check.
fn quickstart(ports: &Ports, authority: &Authority) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy_quickstart(folder.path(), ports, &[3001, 3002]);
    let identity = authority.server(&["localhost"]);
    let secret = manifest::certificate("default/example-test-tls", &identity);
    let text = manifest::file([secret]);
    fs::write(folder.path().join("certificate.yaml"), text).unwrap();
    folder
}

/// Which backend answers.
async fn backend(ports: &Ports, host: &str, path: &str, version: Option<&str>) -> String {
    let mut client = Http1Client::connect(ports.address(8080)).await.unwrap();
    let mut request = http::Request::get(path).header("host", host);
    if let Some(version) = version {
        request = request.header("x-version", version);
    }
    let answer = client.send(request.body(Default::default()).unwrap()).await;
    let answer = answer.unwrap();
    assert_eq!(answer.status, 200, "{host}{path}");
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    body["backend"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_command_serves_what_the_readme_shows() {
    let ports = Ports::for_written(&WRITTEN).unwrap();
    let authority = Authority::new("quickstart");
    let folder = quickstart(&ports, &authority);
    let mut gateway = Standalone::spawn(folder.path(), &ports, &["--demo"]).unwrap();
    gateway.settled().await.unwrap();

    assert_eq!(backend(&ports, "localhost", "/one", None).await, "echo-1");
    assert_eq!(backend(&ports, "localhost", "/two", None).await, "echo-2");
    let host = "header.example.test";
    assert_eq!(backend(&ports, host, "/", None).await, "echo-1");
    assert_eq!(backend(&ports, host, "/", Some("next")).await, "echo-2");
    let mut second = 0;
    for _ in 0..100 {
        let name = backend(&ports, "weight.example.test", "/", None).await;
        second += usize::from(name == "echo-2");
    }
    assert!((8..=12).contains(&second), "{second} of 100");

    let tls = TlsClient::trusting(&authority).alpn(&["h2"]);
    let stream = tls.connect(ports.address(8443), "localhost").await.unwrap();
    assert_eq!(agreed(&stream).alpn.as_deref(), Some("h2"));
    let client = Http2Client::over(stream).await.unwrap();
    assert_eq!(client.get("localhost", "/one").await.unwrap().status, 200);

    let connected = websocket::connect(ports.address(8080), "localhost", "/ws").await;
    let (mut socket, _) = connected.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    let echoed = socket.next().await.unwrap().unwrap();
    assert_eq!(echoed, Message::text("hello"));

    let client = Http2Client::connect(ports.address(8080)).await.unwrap();
    let message = b"\x0a\x05hello";
    let path = "/nantian.demo.v1.Echo/Say";
    let reply = grpc::unary(&client, "grpc.example.test", path, &[], message).await;
    let reply = reply.unwrap();
    assert_eq!(reply.status, Some(0));
    assert_eq!(reply.messages, [&message[..]]);

    let said = gateway.process.said();
    assert!(said.contains("Nothing is wrong."), "{said}");
    assert!(!said.contains("WARN"), "{said}");
}
