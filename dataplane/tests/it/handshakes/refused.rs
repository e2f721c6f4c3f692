//! Handshakes that fail, and what the access log says of them.

use std::path::Path;
use std::time::Duration;

use dataplane::bootstrap::Bootstrap;
use dataplane_telemetry::access_log::{self, Sink};
use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::tls::TlsClient;
use dataplane_testkit::snapshot::{free_port, stream_route};
use dataplane_testkit::{SnapshotBuilder, within};
use ir::Snapshot;
use ir::listener::ClientValidationMode;
use ir::stream_route::StreamKind;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::asking;
use crate::support::{Gateway, at};

const OPEN: &str = "infra/gw/open";
const CLOSED: &str = "infra/gw/closed";
const BYTES: &str = "infra/gw/bytes";

/// Two listeners for HTTPS on one port, of which one asks for certificates, and one for bytes.
fn snapshot(https: u16, bytes: u16, authority: &Authority) -> Snapshot {
    let names = &["open.test", "closed.test", "bytes.test"];
    let mut snapshot = SnapshotBuilder::new("v1")
        .certificate("infra/cert", &authority.server(names))
        .https_listener(OPEN, https, &["open.test"], &["infra/cert"])
        .https_listener(CLOSED, https, &["closed.test"], &["infra/cert"])
        .tls_listener(BYTES, bytes, &["bytes.test"], &["infra/cert"])
        .stream_route(stream_route(
            StreamKind::Tls,
            "tls/app/bytes",
            BYTES,
            &["bytes.test"],
            &[("app/db:1", 1)],
        ))
        .cluster("app/db:1", &[])
        .build();
    let mode = ClientValidationMode::AllowValidOnly;
    asking(&mut snapshot, CLOSED, &Authority::new("clients"), mode);
    snapshot
}

/// Sends these bytes in plain text and waits for the end.
async fn send(port: u16, bytes: &[u8]) {
    let mut tcp = TcpStream::connect(at(port)).await.unwrap();
    tcp.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let end = within("the end of the connection", tcp.read_to_end(&mut answer));
    let _ = end.await;
}

/// Shakes hands, and asks until the connection ends.
async fn try_with(client: &TlsClient, port: u16, name: &str) {
    if let Ok(mut stream) = client.connect(at(port), name).await {
        // With TLS 1.3 a client hears only now that it is refused.
        let mut answer = Vec::new();
        let end = within("the end", stream.read_to_end(&mut answer));
        assert!(end.await.is_err(), "{name}");
    }
}

fn records(file: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[tokio::test]
async fn a_handshake_that_fails_has_a_record_with_its_reason_and_name() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("access.log");
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (https, bytes) = (free_port(), free_port());
    let change = |bootstrap: &mut Bootstrap| {
        bootstrap.drain.min_accept = Duration::ZERO;
        bootstrap.handshake_timeout = Duration::from_millis(500);
        bootstrap.access_log = Some(access_log::Settings {
            sink: Sink::File(file.clone()),
            ..access_log::Settings::default()
        });
    };
    let gateway = Gateway::with(&snapshot(https, bytes, &ours), change).await;
    let trusting = TlsClient::trusting(&ours);
    let astray = TlsClient::trusting(&other);

    // Who goes before it asked for anything leaves no trace.
    drop(TcpStream::connect(at(https)).await.unwrap());
    send(https, b"GET / HTTP/1.1\r\n\r\n").await;
    // A record that never ends.
    send(https, &[22, 3, 1, 2, 0, 1]).await;
    try_with(&trusting, https, "nobody.test").await;
    try_with(&trusting, https, "closed.test").await;
    try_with(&astray, https, "open.test").await;
    try_with(&trusting.clone().alpn(&["spdy/3"]), https, "open.test").await;
    try_with(&astray, bytes, "bytes.test").await;

    let text = gateway.scrape();
    assert!(gateway.stopped().await);
    let expected = [
        ("bad_client_hello", None, None, "corrupt"),
        ("handshake_timeout", None, None, ""),
        (
            "unknown_server_name",
            None,
            Some("nobody.test"),
            "nobody.test",
        ),
        (
            "client_certificate",
            Some(CLOSED),
            Some("closed.test"),
            "certificate",
        ),
        ("downstream_tls", Some(OPEN), Some("open.test"), "alert"),
        ("downstream_tls", Some(OPEN), Some("open.test"), "ALPN"),
        ("downstream_tls", Some(BYTES), Some("bytes.test"), "alert"),
    ];
    let records = records(&file);
    assert_eq!(records.len(), expected.len(), "{records:#?}");
    for (reason, listener, name, detail) in expected {
        let is_it = |record: &&Value| {
            record["reason"] == reason
                && record["listener"].as_str() == listener
                && record["sni"].as_str() == name
                && record["detail"]
                    .as_str()
                    .unwrap_or_default()
                    .contains(detail)
        };
        let record = records.iter().find(is_it);
        let record = record.unwrap_or_else(|| panic!("{reason} {name:?}: {records:#?}"));
        assert_eq!(record["event"], "tls_handshake");
        assert_eq!(record["client_ip"], "127.0.0.1");
        assert_eq!(record["snapshot_version"], "v1");
        assert!(
            text.contains(&format!("reason=\"{reason}\"}}")),
            "{reason}: {text}"
        );
    }
}
