//! A restart while the control plane is away: what lies on the disk serves, without secrets, and
//! says so; what is damaged is not used; a disk that fails disturbs nobody.

use std::fs;
use std::path::Path;

use dataplane_testkit::certificate::Authority;
use dataplane_testkit::client::http1::{self, Http1Client};
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::{Backend, DEADLINE, SnapshotBuilder, until};
use ir::{Secret, SecretText, Snapshot};

use crate::binary::{Binary, is_there};
use crate::support::{Gateway, at};

const CANARY: &str = "canary-c0ffee";

fn plain(version: &str, port: u16, backend: &Backend) -> Snapshot {
    SnapshotBuilder::new(version)
        .http_listener("infra/gw/plain", port)
        .route("shop/r", "", "/", "shop/b:80")
        .cluster("shop/b:80", &[backend.address()])
        .build()
}

/// A gateway that keeps its configuration in `path`, with its admin API at `admin`.
async fn keeping(path: &Path, admin: u16) -> Gateway {
    Gateway::empty(|bootstrap| {
        bootstrap.last_good = Some(path.to_owned());
        bootstrap.admin.address = at(admin);
    })
    .await
}

async fn admin(port: u16, path: &str) -> (u16, String) {
    let response = http1::get(at(port), "x", path).await.unwrap();
    (response.status.as_u16(), response.text())
}

#[tokio::test]
async fn plain_listeners_serve_from_disk_and_tls_waits_for_its_keys() {
    let backend = Backend::http1("b").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let (port, secure, admin_port) = (free_port(), free_port(), free_port());
    let certificate = Authority::new("test").server(&["x.example.com"]);
    let snapshot = SnapshotBuilder::from(&plain("v1", port, &backend), "v1")
        .https_listener("infra/gw/secure", secure, &["x.example.com"], &["infra/x"])
        .certificate("infra/x", &certificate)
        .secret(Secret {
            key: "infra/users".into(),
            certificate: None,
            htpasswd: Some(SecretText::new(format!("u:{CANARY}"))),
            oidc_client_secret: Some(SecretText::new(CANARY.to_owned())),
            values: [("key".to_owned(), SecretText::new(CANARY.to_owned()))].into(),
        })
        .build();

    let gateway = keeping(&path, admin_port).await;
    gateway.control_plane.opened().await;
    gateway.apply(&snapshot).await;
    assert!(gateway.stopped().await);
    let bytes = fs::read(&path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(
        !text.contains(CANARY) && !text.contains("PRIVATE KEY"),
        "{text}"
    );

    let gateway = keeping(&path, admin_port).await;
    let hello = gateway.control_plane.opened().await;
    assert_eq!(
        hello.version, "",
        "without secrets it is no base for a delta"
    );
    let response = http1::get(at(port), "x", "/").await.unwrap();
    assert_eq!(response.status, 200);
    assert!(Http1Client::connect(at(secure)).await.is_err());
    let (status, reason) = admin(admin_port, "/readyz").await;
    assert_eq!(status, 503);
    assert!(reason.contains("Listener infra/gw/secure"), "{reason}");
    let (_, report) = admin(admin_port, "/api/v1/xds/status").await;
    assert!(report.contains("\"serving_from_disk\":true"), "{report}");
    let (_, metrics) = admin(admin_port, "/metrics").await;
    assert!(metrics.contains("last_good_serving 1\n"));
    assert!(metrics.contains("last_good_withheld_count 1\n"));
    assert!(metrics.contains("dataplane_ready 0\n"));

    gateway.apply(&snapshot).await;
    assert!(Http1Client::connect(at(secure)).await.is_ok());
    let (status, _) = admin(admin_port, "/readyz").await;
    assert_eq!(status, 200);
    let (_, metrics) = admin(admin_port, "/metrics").await;
    assert!(metrics.contains("last_good_serving 0\n"));
}

#[tokio::test]
async fn a_configuration_without_secrets_serves_as_it_was_and_is_ready() {
    let backend = Backend::http1("b").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let (port, admin_port) = (free_port(), free_port());
    let gateway = keeping(&path, admin_port).await;
    gateway.control_plane.opened().await;
    let first = plain("v1", port, &backend);
    gateway.apply(&first).await;
    let second = SnapshotBuilder::from(&first, "v2")
        .route("shop/more", "more.example.com", "/", "shop/none:80")
        .build();
    gateway.change(&first, &second).await;
    assert!(gateway.stopped().await);

    let gateway = keeping(&path, admin_port).await;
    gateway.control_plane.opened().await;
    assert_eq!(admin(admin_port, "/readyz").await.0, 200);
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    let response = http1::get(at(port), "more.example.com", "/").await.unwrap();
    assert_eq!(response.status, 500, "the newest was kept");
    // A delta cannot be based on it, even when the versions say so; the whole is asked for.
    let third = SnapshotBuilder::from(&second, "v3").build();
    gateway.control_plane.push_change(&second, &third).await;
    let asked = gateway.control_plane.opened().await;
    assert_eq!(asked.version, "");
    gateway.apply(&third).await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_damaged_file_is_not_used() {
    let backend = Backend::http1("b").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("last-good");
    let (port, admin_port) = (free_port(), free_port());
    let gateway = keeping(&path, admin_port).await;
    gateway.control_plane.opened().await;
    gateway.apply(&plain("v1", port, &backend)).await;
    assert!(gateway.stopped().await);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, &bytes).unwrap();

    let gateway = keeping(&path, admin_port).await;
    gateway.control_plane.opened().await;
    assert_eq!(admin(admin_port, "/readyz").await.0, 503);
    assert!(Http1Client::connect(at(port)).await.is_err());
    gateway.apply(&plain("v2", port, &backend)).await;
    assert_eq!(admin(admin_port, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_full_disk_costs_a_count_and_no_request() {
    if !is_there("unshare", "a full disk") {
        return;
    }
    let backend = Backend::http1("b").await;
    let disk = tempfile::tempdir().unwrap();
    let path = disk.path().join("last-good");
    // One page, which is taken already.
    let mount = format!(
        "mount -t tmpfs -o size=4k none {0} && head -c 4096 /dev/zero > {0}/taken; exec \"$@\"",
        disk.path().display()
    );
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
    let keys = format!(
        "lastGoodCache: {{enabled: true, path: '{}'}}\n",
        path.display()
    );
    let port = free_port();
    let first = plain("v1", port, &backend);
    let (gateway, control_plane) = Binary::serving(&first, &wrapper, &keys).await;
    until(DEADLINE, async || {
        let metrics = gateway.text("/metrics").await;
        metrics.contains("last_good_write_failures_total 1\n")
    })
    .await;
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    let next = SnapshotBuilder::from(&first, "v2").build();
    control_plane.push_change(&first, &next).await;
    while control_plane.answer().await.version != "v2" {}
    assert_eq!(http1::get(at(port), "x", "/").await.unwrap().status, 200);
    assert_eq!(gateway.said().matches("cannot be written").count(), 1);
}
