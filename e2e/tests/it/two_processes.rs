//! `nantian-shim serve` and `nantian-dataplane`, joined by a stream with mutual TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use dataplane_testkit::certificate::{Authority, Identity};
use dataplane_testkit::client::http1;
use dataplane_testkit::snapshot::free_port;
use dataplane_testkit::until;
use e2e::gateway::{ControlPlane, DataPlane, START_LIMIT, TlsFiles, free_address};
use e2e::load::Load;
use tokio::net::TcpStream;

use crate::support::{answers, send_to, small_gateway};

/// The certificates of both sides.
struct Certificates {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Certificates {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("control"),
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn files(&self, stem: &str, identity: Option<&Identity>) -> TlsFiles {
        TlsFiles {
            ca: self.authority.write(self.path(), "ca").unwrap(),
            own: identity.map(|identity| identity.write(self.path(), stem).unwrap()),
        }
    }

    fn control_plane(&self) -> TlsFiles {
        let identity = self.authority.server(&["localhost"]);
        self.files("control-plane", Some(&identity))
    }

    fn data_plane(&self) -> TlsFiles {
        self.files("dp-1", Some(&self.authority.client("dp-1")))
    }
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

#[tokio::test]
async fn traffic_flows_and_edits_arrive_over_mutual_tls() {
    let certificates = Certificates::new();
    let port = free_port();
    let it = small_gateway(port).await;
    let server = certificates.control_plane();
    let control_plane = ControlPlane::start(it.folder(), free_address(), Some(&server), &[])
        .await
        .unwrap();
    let client = certificates.data_plane();
    let data_plane = DataPlane::start(control_plane.grpc, Some(&client), |_| ())
        .await
        .unwrap();
    answers(at(port), "one").await;

    let status = data_plane.admin.json("/api/v1/xds/status").await;
    assert_eq!(status["connected"], true, "{status}");
    assert_eq!(status["state"], "ACTIVE", "{status}");
    let version = control_plane.admin.published_version().await.unwrap();
    until(START_LIMIT, || async {
        let clients = control_plane.admin.json("/api/v1/clients").await;
        clients[0]["node_id"] == "dp-1" && clients[0]["acked_version"] == *version
    })
    .await;

    send_to(&it, "two");
    answers(at(port), "two").await;
    let served = data_plane.admin.served_version().await;
    assert_ne!(served.as_deref(), Some(&*version));
    assert_eq!(served, control_plane.admin.published_version().await);
}

#[tokio::test]
async fn a_stranger_gets_no_configuration_and_says_why() {
    let certificates = Certificates::new();
    let port = free_port();
    let it = small_gateway(port).await;
    let server = certificates.control_plane();
    let control_plane = ControlPlane::start(it.folder(), free_address(), Some(&server), &[])
        .await
        .unwrap();
    let other = Authority::new("other");
    let expired = certificates.authority.expired_client("dp-1");
    let strangers = [
        ("of another authority", Some(other.client("dp-1"))),
        ("expired", Some(expired)),
        ("none", None),
    ];
    for (what, identity) in strangers {
        let files = certificates.files("stranger", identity.as_ref());
        let data_plane = DataPlane::spawn(control_plane.grpc, Some(&files), |_| ()).unwrap();
        let mut error = String::new();
        until(START_LIMIT, || async {
            let status = data_plane.admin.json("/api/v1/xds/status").await;
            status["connect_failures"].as_u64() >= Some(2)
        })
        .await;
        let status = data_plane.admin.json("/api/v1/xds/status").await;
        error.push_str(status["last_error"].as_str().unwrap_or_default());
        assert!(
            error.to_lowercase().contains("certificate"),
            "{what}: {status:#}"
        );
        assert_eq!(status["connected"], false, "{what}");
        assert_eq!(data_plane.admin.status("/readyz").await, 503, "{what}");
        assert!(TcpStream::connect(at(port)).await.is_err(), "{what}");
        let clients = control_plane.admin.json("/api/v1/clients").await;
        assert_eq!(clients, serde_json::json!([]), "{what}");
    }
}

#[tokio::test]
async fn a_control_plane_of_another_authority_is_not_believed() {
    let certificates = Certificates::new();
    let other = Certificates::new();
    let port = free_port();
    let it = small_gateway(port).await;
    let server = other.control_plane();
    let control_plane = ControlPlane::start(it.folder(), free_address(), Some(&server), &[])
        .await
        .unwrap();
    let client = certificates.data_plane();
    let data_plane = DataPlane::spawn(control_plane.grpc, Some(&client), |_| ()).unwrap();
    until(START_LIMIT, || async {
        let status = data_plane.admin.json("/api/v1/xds/status").await;
        let error = status["last_error"].as_str().unwrap_or_default();
        error.to_lowercase().contains("certificate")
    })
    .await;
    assert_eq!(data_plane.admin.status("/readyz").await, 503);
    assert!(TcpStream::connect(at(port)).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_killed_under_load_is_not_missed_and_caught_up_with() {
    let certificates = Certificates::new();
    let port = free_port();
    let it = small_gateway(port).await;
    let server = certificates.control_plane();
    let grpc = free_address();
    let mut control_plane = ControlPlane::start(it.folder(), grpc, Some(&server), &[])
        .await
        .unwrap();
    let client = certificates.data_plane();
    let data_plane = DataPlane::start(grpc, Some(&client), |_| ()).await.unwrap();
    answers(at(port), "one").await;
    let load = Load::start(at(port), "any.test", "/", 2, 2);
    load.advance(200).await;

    control_plane.process.kill().unwrap();
    data_plane.connected(false).await;
    load.advance(500).await;
    assert_eq!(data_plane.admin.status("/readyz").await, 200);
    let status = data_plane.admin.json("/api/v1/xds/status").await;
    assert!(status["last_error"].is_string(), "{status:#}");

    // What is written while nobody reads is caught up with.
    send_to(&it, "two");
    let _again = ControlPlane::start(it.folder(), grpc, Some(&server), &[])
        .await
        .unwrap();
    data_plane.connected(true).await;
    answers(at(port), "two").await;
    let status = data_plane.admin.json("/api/v1/xds/status").await;
    assert!(
        status["stream_reconnects"].as_u64() >= Some(1),
        "{status:#}"
    );

    send_to(&it, "one");
    answers(at(port), "one").await;
    load.advance(200).await;
    assert_eq!(load.stop().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_data_plane_waits_for_its_control_plane() {
    let certificates = Certificates::new();
    let port = free_port();
    let it = small_gateway(port).await;
    let grpc = free_address();
    let client = certificates.data_plane();
    let mut data_plane = DataPlane::spawn(grpc, Some(&client), |_| ()).unwrap();
    until(START_LIMIT, || async {
        let status = data_plane.admin.json("/api/v1/xds/status").await;
        status["connect_failures"].as_u64() >= Some(2)
    })
    .await;
    assert_eq!(data_plane.admin.status("/livez").await, 200);
    assert_eq!(data_plane.admin.status("/readyz").await, 503);
    assert!(TcpStream::connect(at(port)).await.is_err());

    let server = certificates.control_plane();
    let mut control_plane = ControlPlane::start(it.folder(), grpc, Some(&server), &[])
        .await
        .unwrap();
    data_plane.ready().await.unwrap();
    let answer = http1::get(at(port), "any.test", "/").await.unwrap();
    assert_eq!(answer.header("x-backend"), "default/one");

    control_plane.process.kill().unwrap();
    data_plane.connected(false).await;
    assert_eq!(data_plane.admin.status("/readyz").await, 200);
    let answer = http1::get(at(port), "any.test", "/").await.unwrap();
    assert_eq!(answer.header("x-backend"), "default/one");
}
